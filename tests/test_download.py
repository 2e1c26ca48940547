"""`download.sh` against a server on 127.0.0.1 that cuts connections half-way."""

import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.cli import ROOT

BASH = shutil.which("bash")
SCRIPT = ROOT / "download.sh"
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs a POSIX shell")
PAYLOAD = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


class CuttingHandler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` with ranges; the first `server.cuts` GETs break off after half of what was asked for.

    With `server.stalls` a GET sends that half and then nothing, until the client is gone.
    """

    def do_HEAD(self):
        self.respond(with_body=False)

    def do_GET(self):
        self.respond(with_body=True)

    def respond(self, with_body):
        server = self.server
        server.log.append((self.command, self.path, self.headers.get("Range")))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1]) if server.ranges else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.tells_size:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if with_body:
            stop = len(body)
            if server.cuts > 0:
                server.cuts -= 1
                stop = start + (len(body) - start) // 2
            if server.stalls:
                self.wfile.write(body[start : start + (len(body) - start) // 2])
                self.rfile.read(1)
                return
            self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), CuttingHandler)
    server.files = {
        "/wiki_crop.tar": tar_of("wiki_crop", "wiki.mat"),
        "/imdb_crop.tar": tar_of("imdb_crop", "imdb.mat"),
        "/appa.zip": zip_of("appa-real-release", "gt_avg_test.csv"),
    }
    server.cuts, server.ranges, server.tells_size, server.stalls, server.log = 0, True, True, False, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def project(tmp_path):
    """A project's folder that holds nothing but the script, with a blank in its name."""
    folder = tmp_path / "my project"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


def tar_of(folder, marker):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in [(marker, b"labels"), ("00/face.jpg", PAYLOAD)]:
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(folder, marker):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{folder}/{marker}", "labels")
        archive.writestr(f"{folder}/test/000000.jpg_face.jpg", PAYLOAD)
    return buffer.getvalue()


def download(project, server, *sets, path=None, **variables):
    base = f"http://127.0.0.1:{server.server_port}"
    env = {"PATH": path or os.environ["PATH"], "BASE_URL": base, "APPA_URL": f"{base}/appa.zip", "no_proxy": "*"}
    command = [BASH, str(project / "download.sh"), *sets]
    return subprocess.run(
        command, env=env | variables, cwd=project.parent, capture_output=True, text=True, timeout=120, check=False
    )


def gets(server):
    return [asked for command, _, asked in server.log if command == "GET"]


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def tools_without(folder, *missing):
    """A search path with every needed tool but the missing ones."""
    folder.mkdir()
    for tool in ("tar", "awk", "df", "dirname", "mkdir", "mktemp", "mv", "rm", "sleep", "tr", "wc", "curl", "wget"):
        if tool not in missing and shutil.which(tool):
            (folder / tool).symlink_to(shutil.which(tool))
    if "python3" not in missing:
        (folder / "python3").symlink_to(sys.executable)
    return str(folder)


def test_no_arguments_fetch_imdb_and_wiki(project, server):
    result = download(project, server)
    assert result.returncode == 0, result.stderr
    assert leftovers(project) == ["data", "download.sh"]
    assert leftovers(project / "data") == ["imdb_crop", "wiki_crop"]  # no archive, no part, no temporary folder
    assert (project / "data/wiki_crop/wiki.mat").read_bytes() == b"labels"
    assert (project / "data/imdb_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_cut_connection_is_resumed(project, server):
    server.cuts = 2
    size = len(server.files["/wiki_crop.tar"])
    result = download(project, server, "wiki")
    assert result.returncode == 0, result.stderr
    asked = gets(server)
    assert asked == [None, f"bytes={size // 2}-", f"bytes={size - size // 4}-"]
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_next_run_goes_on_with_the_part(project, server):
    whole = server.files["/wiki_crop.tar"]
    (project / "data").mkdir()
    (project / "data/wiki_crop.tar.part").write_bytes(whole[:1000])
    assert download(project, server, "wiki").returncode == 0
    assert gets(server) == ["bytes=1000-"]
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_ctrl_c_in_a_transfer_keeps_what_came(project, server):
    server.stalls = True
    size = len(server.files["/wiki_crop.tar"])
    part = project / "data/wiki_crop.tar.part"
    env = os.environ | {"BASE_URL": f"http://127.0.0.1:{server.server_port}", "no_proxy": "*"}
    command = [BASH, str(project / "download.sh"), "wiki"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        give_up = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > size // 4):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the script and the program that transfers
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted: run the same command to resume"
    server.stalls, came = False, part.stat().st_size
    assert download(project, server, "wiki").returncode == 0
    assert gets(server) == [None, f"bytes={came}-"]
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_archive_of_another_program_that_is_too_long(project, server):
    whole = server.files["/wiki_crop.tar"]
    (project / "data").mkdir()
    (project / "data/wiki_crop.tar").write_bytes(whole + b"more")  # of another program
    assert download(project, server, "wiki").returncode == 0
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_half_an_archive_of_another_program_is_completed(project, server):
    (project / "data").mkdir()
    (project / "data/wiki_crop.tar").write_bytes(server.files["/wiki_crop.tar"][:5000])
    assert download(project, server, "wiki").returncode == 0
    assert gets(server) == ["bytes=5000-"]


def test_part_that_is_whole_or_too_long(project, server):
    whole = server.files["/wiki_crop.tar"]
    (project / "data").mkdir()
    (project / "data/wiki_crop.tar.part").write_bytes(whole)
    assert download(project, server, "wiki").returncode == 0
    assert gets(server) == []

    shutil.rmtree(project / "data/wiki_crop")
    (project / "data/wiki_crop.tar.part").write_bytes(whole + b"more")
    assert download(project, server, "wiki").returncode == 0
    assert gets(server) == [None]


def test_server_that_cannot_resume(project, server):
    server.ranges, server.cuts = False, 1
    result = download(project, server, "wiki")
    assert result.returncode == 0, result.stderr
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_server_that_does_not_tell_the_size(project, server):
    server.tells_size = False
    result = download(project, server, "wiki", SPACE_FACTOR="0")
    assert result.returncode == 0, result.stderr
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_second_run_does_nothing(project, server):
    assert download(project, server, "appa-real").returncode == 0
    assert (project / "appa-real/appa-real-release/gt_avg_test.csv").exists()
    server.log.clear()
    result = download(project, server, "appa-real")
    assert result.returncode == 0
    assert result.stdout.strip() == "appa-real/appa-real-release already exists"
    assert server.log == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_zip_without_unzip(project, server, tmp_path):
    result = download(project, server, "appa-real", path=tools_without(tmp_path / "bin"))
    assert result.returncode == 0, result.stderr
    assert (project / "appa-real/appa-real-release/test/000000.jpg_face.jpg").read_bytes() == PAYLOAD


@pytest.mark.skipif(shutil.which("wget") is None, reason="needs wget")
def test_wget_resumes_too(project, server, tmp_path):
    server.cuts = 1
    result = download(project, server, "wiki", path=tools_without(tmp_path / "bin", "curl"))
    assert result.returncode == 0, result.stderr
    assert gets(server)[0] is None
    assert gets(server)[1].startswith("bytes=")
    assert (project / "data/wiki_crop/00/face.jpg").read_bytes() == PAYLOAD


def test_neither_curl_nor_wget(project, server, tmp_path):
    result = download(project, server, "wiki", path=tools_without(tmp_path / "bin", "curl", "wget"))
    assert result.returncode == 1
    assert result.stderr == "error: curl or wget is required; install one of them\n"


def test_unknown_set_before_anything_is_fetched(project, server):
    result = download(project, server, "wiki", "lfw")
    assert result.returncode == 2
    assert result.stderr == "error: dataset must be imdb, wiki or appa-real, got 'lfw'\n"
    assert server.log == []
    assert leftovers(project) == ["download.sh"]


def test_too_little_space(project, server):
    result = download(project, server, "wiki", SPACE_FACTOR="1000000000")
    assert result.returncode == 1
    assert "of free disk space" in result.stderr
    assert result.stderr.count("\n") == 1
    assert gets(server) == []


def test_missing_file_is_not_tried_again(project, server):
    del server.files["/wiki_crop.tar"]
    result = download(project, server, "wiki", SPACE_FACTOR="0")
    assert result.returncode == 1
    assert "could not download" in result.stderr
    assert len(gets(server)) == 1


def test_archive_without_the_labels(project, server):
    server.files["/wiki_crop.tar"] = tar_of("wiki_crop", "other.mat")
    result = download(project, server, "wiki")
    assert result.returncode == 1
    assert "does not contain wiki_crop/wiki.mat" in result.stderr
    assert leftovers(project / "data") == ["wiki_crop.tar"]  # the temporary folder is gone


def test_damaged_archive(project, server):
    server.files["/wiki_crop.tar"] = PAYLOAD
    result = download(project, server, "wiki")
    assert result.returncode == 1
    assert "could not unpack data/wiki_crop.tar" in result.stderr
    assert leftovers(project / "data") == ["wiki_crop.tar"]


def test_half_unpacked_folder_is_left_to_the_user(project, server):
    (project / "data/wiki_crop/00").mkdir(parents=True)
    result = download(project, server, "wiki")
    assert result.returncode == 1
    assert "data/wiki_crop exists without wiki.mat" in result.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_is_silent():
    result = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert result.stdout == ""
    assert Path(SCRIPT).stat().st_mode & 0o111
