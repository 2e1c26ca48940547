"""Files and threads: write a file in one step, append lines, hash, work in order on all cores."""

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from src.cli import JobError, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_NAME = 220
"""Bytes of a file name from which on the hidden one gets a shorter stem; file systems allow 255."""


def prepare_output(output_dir: Path) -> None:
    """Create the folder of results and check that it can be written, before anything slow begins.

    Raises:
        JobError: The folder cannot be created or written.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise JobError(f"cannot write into {output_dir}: {error.strerror}") from error


@contextmanager
def write_whole(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` when the `with` block ends without an error.

    A reader never sees half a file, and after an error an older file is as it was.

    Args:
        path: Its folder exists.
        durable: Wait until the bytes are on the disk, so that a power cut cannot leave an empty file.

    Yields:
        A hidden path in the same folder with the same ending.

    Raises:
        OSError: The file cannot be written; nothing is left behind.
    """
    path = Path(path)
    stem = path.stem if len(os.fsencode(path.name)) < MAX_NAME else hashlib.sha256(os.fsencode(path.stem)).hexdigest()
    part = path.with_name(f".{stem}.{os.getpid()}.part{path.suffix}")  # the number keeps two writers apart
    try:
        with errors_named(path, part):
            yield part
            if durable:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(path: Path) -> None:
    """Delete what killed processes left of `write_whole(path)`; nobody may be writing the file now.

    Args:
        path: Its name may be a pattern, as for `Path.glob`.
    """
    for part in path.parent.glob(f".{path.stem}.*.part{path.suffix}"):
        part.unlink(missing_ok=True)


@contextmanager
def errors_named(path: Path, part: Path | None = None) -> Iterator[None]:
    """Name the file in an `OSError` that names none, as after a write to a full disk, or its hidden `part`."""
    try:
        yield
    except OSError as error:
        if error.errno and (not error.filename or str(error.filename) == str(part)):
            error.filename = str(path)
        raise


def append_lines(path: Path, text: str, errors: str = "strict") -> None:
    """Append to a file that ends with a whole line; the torn line of a killed run is ended first.

    Raises:
        OSError: The file cannot be written.
    """
    with errors_named(path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode("utf-8", errors))


class RowWriter:
    """Ends the rows of a `csv.writer` with `\\n`. Told to do so itself, it leaves `\\r` unquoted in Python 3.11."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the values of a file with one JSON text per line, if it exists; torn lines of killed runs are skipped."""
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # names may hold other line ends
            with suppress(ValueError):
                yield json.loads(line)


def file_stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and the time of its last change in nanoseconds; zeros for one that cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def file_hash(path: str | os.PathLike, algorithm: str) -> str:
    """Hash the bytes of a file, as hexadecimal digits.

    Args:
        algorithm: A name that `hashlib` knows, such as "md5".
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def file_sha256(path: str | os.PathLike) -> str | None:
    """Hash the bytes of a file with SHA-256, as hexadecimal digits; None when it cannot be read."""
    try:
        return file_hash(path, "sha256")
    except OSError:
        return None


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], label: str) -> list[Result]:
    """Compute `[function(item) for item in items]` on all cores, with a progress bar where a terminal shows it.

    Threads pay off where the work is reading, hashing or decoding, which do not hold Python's lock.
    """
    return list(Progress(map_ahead(function, items), len(items), "files", label))


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, ahead: int = 16
) -> Iterator[Result]:
    """Compute `map(function, items)` in threads, in order; memory stays flat.

    Args:
        workers: Threads, by default one per core.
        ahead: Maximum results per thread that wait.
    """
    workers = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
