"""Files and threads: hashes, and ordered work on all cores."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from src.cli import Progress

Item = TypeVar("Item")

Result = TypeVar("Result")


def file_sha256(path: str | os.PathLike) -> str | None:
    """Hexadecimal SHA-256 of a file's bytes; None when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], label: str) -> list[Result]:
    """`[function(item) for item in items]` on all cores, with a progress bar where a terminal shows it.

    Threads pay off where the work is reading, hashing or decoding, which do not hold Python's lock.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(Progress(pool.map(function, items), len(items), "files", label))


def map_ahead(function: Callable, items: Iterable) -> Iterator:
    """`map(function, items)` in threads, in order; never more than a few results wait, so memory stays flat."""
    workers = os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 16 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
