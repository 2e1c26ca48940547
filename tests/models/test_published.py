"""The published table, its download from a server on this machine, and files of the published form."""

import hashlib
import http.server
import os
import threading
from functools import partial

import h5py
import keras
import numpy as np
import pytest
from strange_files import (
    application,
    keras2,
    outputs,
    random_images,
    save,
    shorten_efficientnets,
    shorten_mobilenets,
    wide_resnet,
)

from src.cli import JobError, UserError
from src.models import weights
from src.models.weights import published
from src.models.weights.published import PUBLISHED, resolve

EFFICIENTNET, WIDE, WIDE_UTK = PUBLISHED


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; may hang up after `server.cut` bytes or answer with `server.status`."""

    def do_GET(self):
        self.server.requests.append(self.path)
        content = self.server.content
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.content, server.cut, server.status, server.requests = small_hdf5(), None, 200, []
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(published, "ADDRESS", f"http://127.0.0.1:{server.server_port}/{{release}}/{{name}}")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty cache, an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("AGE_GENDER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def small_hdf5() -> bytes:
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        file["numbers"] = np.arange(50_000.0)
        file.flush()
        return file.id.get_file_image()


def expect_md5(monkeypatch, content: bytes, name: str = WIDE):
    row = published.dataclasses.replace(PUBLISHED[name], md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(PUBLISHED, name, row)


def test_table_and_addresses():
    assert {name: (row.release, row.model_name, row.img_size) for name, row in PUBLISHED.items()} == {
        "EfficientNetB3_224_weights.11-3.44.hdf5": ("v0.6", "EfficientNetB3", 224),
        "weights.28-3.73.hdf5": ("v0.5", "WideResNet", 64),
        "weights.29-3.76_utk.hdf5": ("v0.5", "WideResNet", 64),
    }
    assert [row.margin for row in PUBLISHED.values()] == [0.4, 0.4, 0.0]
    assert {row.colour for row in PUBLISHED.values()} == {"BGR"}
    assert PUBLISHED[WIDE_UTK].gender_order == ("male", "female")
    assert published.ADDRESS.format(release="v0.6", name=EFFICIENTNET) == (
        "https://github.com/yu4u/age-gender-estimation/releases/download/v0.6/EfficientNetB3_224_weights.11-3.44.hdf5"
    )


def test_download_with_a_known_hash(server, home, monkeypatch, capfd):
    expect_md5(monkeypatch, server.content)
    path = resolve(WIDE)
    assert path == home / WIDE
    assert path.read_bytes() == server.content
    assert server.requests == [f"/v0.5/{WIDE}"]
    assert "100%" in capfd.readouterr().err
    assert resolve(WIDE) == path
    assert len(server.requests) == 1
    assert os.listdir(home) == [WIDE]


def test_unknown_hash_is_printed_and_remembered(server, home, capsys):
    sha256 = hashlib.sha256(server.content).hexdigest()
    path = resolve(WIDE_UTK)
    assert f"SHA-256 of {WIDE_UTK}: {sha256}" in capsys.readouterr().err
    assert (home / f"{WIDE_UTK}.sha256").read_text() == f"{sha256}  {WIDE_UTK}\n"
    assert published.find_by_content(path) == WIDE_UTK
    path.unlink()
    server.content = small_hdf5()[:-8] + b"12345678"
    with pytest.raises(JobError, match=f"sha256:{sha256}"):
        resolve(WIDE_UTK)
    assert not path.exists()


def test_wrong_bytes_leave_nothing_and_say_what_came(server, home):
    with pytest.raises(JobError) as error:
        resolve(WIDE)
    message = str(error.value)
    assert f"md5:{PUBLISHED[WIDE].md5}" in message
    assert f"{len(server.content)} other bytes" in message
    assert hashlib.md5(server.content).hexdigest() in message
    assert published.BUNDLED in message
    assert os.listdir(home) == []


@pytest.mark.parametrize("name", [WIDE, WIDE_UTK])
def test_interrupted_download_leaves_nothing(server, home, monkeypatch, name):
    if name == WIDE:
        expect_md5(monkeypatch, server.content)
    server.cut = 100_000
    with pytest.raises(JobError, match="nothing was kept"):
        resolve(name)
    assert os.listdir(home) == []
    server.cut = None
    assert resolve(name).read_bytes() == server.content


def test_ctrl_c_leaves_nothing(server, home, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "file_hash", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve(WIDE)
    assert os.listdir(home) == []


def test_error_page_is_no_weight_file(server, home):
    server.content = b"<html>come back later</html>"
    with pytest.raises(JobError, match="28 other bytes"):
        resolve(WIDE_UTK)
    server.status = 404
    with pytest.raises(JobError, match="404"):
        resolve(WIDE_UTK)
    assert os.listdir(home) == []


def test_offline_names_the_bundled_model(server, home):
    server.shutdown()
    server.server_close()
    with pytest.raises(JobError, match=rf"download .*HTTP.*(refused|Failed to establish).*{published.BUNDLED}"):
        resolve(WIDE)
    assert os.listdir(home) == []


def test_a_file_of_the_user_is_never_replaced(server, home):
    home.mkdir()
    (home / WIDE).write_bytes(b"mine")
    assert resolve(WIDE).read_bytes() == b"mine"
    assert server.requests == []


def test_paths_are_used_as_they_are(server, home, tmp_path):
    local = tmp_path / "work" / WIDE
    local.write_bytes(b"mine")
    assert resolve(WIDE) == local.relative_to(tmp_path / "work")
    with pytest.raises(UserError, match="does not exist"):
        resolve(f"elsewhere/{WIDE}")
    with pytest.raises(UserError, match=WIDE):
        resolve("unknown.hdf5")
    assert server.requests == []


def test_default_folder(monkeypatch):
    monkeypatch.delenv("AGE_GENDER_HOME", raising=False)
    assert published.folder() == published.ROOT / "pretrained_models"


def assert_published_form(theirs, name, tmp_path, caplog, size, row):
    """A network of Keras 2, saved under a published name, outputs the same here; one warning says it is no copy."""
    loaded, info = weights.load_model(save(theirs, tmp_path / name))
    warnings = [record.getMessage() for record in caplog.records if record.name == "src.models.weights.store"]
    assert len(warnings) == (row.md5 is not None)
    assert all("other bytes" in warning for warning in warnings)
    assert (info.model_name, info.img_size, info.margin) == (row.model_name, row.img_size, row.margin)
    assert (info.colour, info.gender_order, info.label) == ("BGR", row.gender_order, name)
    assert (info.resize, info.mirrored) == ("bilinear", False)
    values = random_images(size, 3)
    (gender, age), (our_gender, our_age) = outputs(theirs, values), outputs(loaded, values)
    assert np.ptp(age) > 1
    print(name, "largest differences:", np.abs(our_gender - gender).max(), np.abs(our_age - age).max())
    np.testing.assert_allclose(our_gender, gender, atol=1e-5)
    np.testing.assert_allclose(our_age, age, atol=1e-3)


@pytest.mark.slow
def test_efficientnet_b3_of_keras2(tmp_path, caplog, monkeypatch):
    shorten_efficientnets(monkeypatch, "keras", "tf_keras")
    theirs = application(keras2(), "EfficientNetB3", 224)
    assert_published_form(theirs, EFFICIENTNET, tmp_path, caplog, 224, PUBLISHED[EFFICIENTNET])


@pytest.fixture(scope="module")
def wide_resnet_of_keras2():
    return wide_resnet(keras2())


@pytest.mark.slow
@pytest.mark.parametrize("name", [WIDE, WIDE_UTK])
def test_wide_resnet_of_keras2(wide_resnet_of_keras2, name, tmp_path, caplog):
    assert_published_form(wide_resnet_of_keras2, name, tmp_path, caplog, 64, PUBLISHED[name])


def test_a_whole_copy_is_known_by_its_bytes_under_any_name(tmp_path, caplog, monkeypatch):
    shorten_mobilenets(monkeypatch, "keras")
    path = save(application(keras, "MobileNetV2", 64), tmp_path / "renamed.hdf5")
    expect_md5(monkeypatch, path.read_bytes())
    info = weights.identify(path)
    assert (info.model_name, info.label) == ("WideResNet", WIDE)
    assert [record for record in caplog.records if record.name.startswith("src.")] == []
