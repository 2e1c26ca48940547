"""What TensorFlow prints while it is imported, and what must not be lost with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.cli import ROOT

NOISE = "I0000 00:00:1795615179.685127    7093 port.cc:153] oneDNN custom operations are on."


def import_package(tmp_path: Path, body: str, after: str = "") -> subprocess.CompletedProcess:
    """Import a package `noisy` of this body with the hook, and run something after."""
    (tmp_path / "noisy.py").write_text(f"import os, sys, threading\ndef log(x): os.write(2, x.encode())\n{body}\n")
    script = f"""
import sys
from src import QuietImport
sys.meta_path.insert(0, QuietImport("noisy"))
sys.path.insert(0, {str(tmp_path)!r})
import noisy
{after}
"""
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_log_lines_are_dropped_and_others_are_not(tmp_path):
    done = import_package(tmp_path, f"log({NOISE + chr(10)!r} + 'ours\\n')", "print(noisy.log.__name__)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "log\n", "ours\n")


def test_all_is_shown_when_the_import_fails(tmp_path):
    done = import_package(tmp_path, f"log({NOISE + chr(10)!r})\nraise ImportError('libcudart.so.12')")
    assert done.returncode == 1
    assert done.stderr.startswith(NOISE)
    assert done.stderr.endswith("ImportError: libcudart.so.12\n")


def test_what_python_writes_meanwhile_comes_through(tmp_path):
    body = f"log({NOISE + chr(10)!r})\nt = threading.Thread(target=print, args=['skipped a.jpg'], "
    body += "kwargs={'file': sys.stderr}); t.start(); t.join()"
    done = import_package(tmp_path, body, "print('after', file=sys.stderr)")
    assert (done.returncode, done.stderr) == (0, "skipped a.jpg\nafter\n")


def test_log_lines_after_the_import_are_shown(tmp_path):
    done = import_package(tmp_path, "", f"noisy.log({NOISE + chr(10)!r})")
    assert done.stderr == f"{NOISE}\n"


def test_a_missing_package_is_missing(tmp_path):
    done = import_package(tmp_path, "", "sys.meta_path.insert(0, QuietImport('nowhere'))\nimport nowhere")
    assert "ModuleNotFoundError: No module named 'nowhere'" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="closes a descriptor as a shell does")
def test_without_stderr(tmp_path):
    script = "import os; os.close(2)\nfrom src import held_stderr\nwith held_stderr(): print('done')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout == "done\n"


def test_stderr_that_is_no_file():
    script = """
import sys
from src import held_stderr
class Tee:
    write, flush = sys.stdout.write, sys.stdout.flush
sys.stderr = Tee()
with held_stderr():
    print("said", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("said\n", "")


@pytest.mark.slow
def test_keras_is_imported_without_a_line():
    script = "import src, keras; print(keras.backend.backend())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("tensorflow\n", "")
