"""Age and gender estimation: the work behind the scripts at the project's root.

Arrays follow one contract everywhere: an image is `uint8`, shape `(height, width, 3)`, RGB.
"""

import contextlib
import importlib.util
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import TextIO

__version__ = "1.0.0"

# Read by OpenCV when it is first imported. 2**27 pixels (134 megapixels, 400 MB decoded) is more than any camera
# writes; a larger file is reported as unreadable instead of taking the machine's memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))
# OpenCV's own warnings and errors repeat what our error lines say by name.
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
# TensorFlow prints a screenful about processor features before the first useful line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LOG_LINE = re.compile(rb"[IWE]\d{4} \d|WARNING: All log messages before absl|To enable the following instructions")
"""How lines of TensorFlow's logs begin."""


class LossyFile(io.FileIO):
    """A file that drops what cannot be written to it, such as a log on a full disk."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def lossy_text(descriptor: int, encoding: str, closefd: bool = True) -> TextIO:
    """Open a descriptor for lines of text whose loss must not fail the job."""
    raw = LossyFile(descriptor, "w", closefd=closefd)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; drop TensorFlow's log lines, or show all if the body fails.

    TensorFlow 2.21 logs before its logging is set up: straight to the descriptor, whatever the environment says.

    What Python writes to `sys.stderr` meanwhile, other threads included, comes through.
    """
    try:
        sys.stderr.flush()
        real = os.dup(2)
    except (OSError, AttributeError):  # started without stderr: there is nobody to disturb
        yield
        return
    stderr = sys.stderr
    with tempfile.TemporaryFile() as held, lossy_text(real, "utf-8") as out:
        if _is_standard(stderr):
            sys.stderr = out
        os.dup2(held.fileno(), 2)
        drop = True
        try:
            yield
        except Exception:
            drop = False
            raise
        finally:
            os.dup2(real, 2)
            sys.stderr = stderr
            held.seek(0)
            for line in held:
                if not (drop and LOG_LINE.match(line)):
                    with contextlib.suppress(OSError):
                        os.write(2, line)


def _is_standard(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a stream in memory, closed, or another object
        return False


class QuietImport:
    """A finder that holds stderr while one package is imported; put at the front of `sys.meta_path`."""

    def __init__(self, package: str):
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find the package as Python does, with a loader that is quiet."""
        if name != self._package or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = held_stderr()(execute)  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, QuietImport("tensorflow"))
