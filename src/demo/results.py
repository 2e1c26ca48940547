"""Know whose results are in an output folder, so that no source replaces those of another.

The hidden folder `.demo` holds `sources.jsonl`, one `Result` per line; the last line of a name counts. Beside it lie
locks and videos that are not complete yet.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from itertools import count, starmap
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from src.cli import UserError
from src.files import append_lines, read_json_lines
from src.images import RESULTS_MARK

STATE, SOURCES = os.path.split(RESULTS_MARK)
RECORDING = (-1, -1)
"""Stamp of a camera or stream, which never gives the same twice."""


class Result(NamedTuple):
    """One source and its result.

    Attributes:
        name: What `predictions.csv` calls it.
        file: The annotated image or video, as a path below the output folder.
        root: Hash of the folder or address that it comes from.
        source: Path below that folder.
        size: Size of the source in bytes.
        changed: When the source was changed last, nanoseconds.
        rows: Number of its rows; None as long as it is not complete.
        options: Hash of the weights and options that it was made with; "" if unknown.
    """

    name: str
    file: str
    root: str
    source: str
    size: int = -1
    changed: int = -1
    rows: int | None = None
    options: str = ""

    @property
    def is_video(self) -> bool:
        """Whether the source was read as a video; an animation may have a result of each kind."""
        return self.file.endswith(".mp4")


class Results:
    """The results in an output folder; also of other runs at the same time.

    Attributes:
        lock: Held by whoever changes a file that runs share.
    """

    def __init__(self, folder: Path):
        """Read what is known about the folder, which exists.

        Raises:
            OSError: The folder cannot be written.
        """
        self.folder, self.state = folder, folder / STATE
        self.state.mkdir(exist_ok=True)
        self.lock = FileLock(self.state / "lock")
        self._path = self.state / SOURCES
        # Results of versions that kept no list are taken for those of the present source.
        self._adopts = (folder / "predictions.csv").exists() and not self._path.exists()  # the list comes first

    @contextmanager
    def claimed(self, root: str, source: str = "") -> Iterator[None]:
        """Keep other runs from the results of a folder or address, or of one file in it.

        Args:
            source: Path of the one file below the folder; other files of the folder can be claimed at the same time.

        Raises:
            UserError: Another run is writing them.
        """
        claim = self.state / (f"{root}.{root_hash(source)}.lock" if source else f"{root}.lock")
        with self.lock:
            rivals = [self.state / f"{root}.lock"] if source else self.state.glob(f"{root}.*.lock")
            held = None if any(map(_is_held, rivals)) else _acquire(claim)
        if held is None:
            raise UserError(f"another run is writing the same results to {self.folder}; wait for it")
        try:
            yield
        finally:
            with self.lock:
                held.release()
                with suppress(OSError):
                    claim.unlink()

    def choose(
        self, sources: Iterable[tuple[str, tuple[int, int]]], root: str, files: Callable[[str], list[str]]
    ) -> list[Result]:
        """Choose a name and a file for each source: those of an earlier run with it, or free ones.

        Args:
            sources: Path below the root, and `file_stamp` or `RECORDING`.
            root: `root_hash` of where they come from.
            files: Returns the preferred files of a name, best first.

        Returns:
            A result for each source; `rows` is set if it was complete before, `options` are those of that run.
        """
        with self.lock:
            known = self._read()
            taken = {result.file.casefold() for result in known.values()}
            before = dict(known)
            chosen = [
                self._choose_one(Result("", files(name)[0], root, name, *stamp), files, known, taken)
                for name, stamp in sources
            ]
            self._append(result for result in chosen if before.get(result.name) != result)
        return chosen

    def finish(self, result: Result, rows: int) -> None:
        """Note that a result is complete; the caller holds the lock."""
        self._append([result._replace(rows=rows)])

    def reopen(self, names: Set[str]) -> None:
        """Note that results are no longer complete; the caller holds the lock."""
        known = self._read().values()
        self._append(old._replace(rows=None) for old in known if old.name in names and old.rows is not None)

    def outdated(self, root: str, current: Iterable[Result], unreadable: Iterable[str] = ()) -> set[str]:
        """Return names of results from this root whose images are gone; what is `unreadable` may hold some."""
        names, folders = {result.name for result in current}, tuple(f"{name}/" for name in unreadable)
        old = {result.name: result for result in self._read().values() if result.root == root and not result.is_video}
        return {name for name in old.keys() - names if not f"{old[name].source}/".startswith(folders)}

    def _choose_one(
        self, new: Result, files: Callable[[str], list[str]], known: dict[str, Result], taken: set[str]
    ) -> Result:
        for name in numbered(new.source):
            old = known.get(name)
            if old and new.size >= 0 and (old.source, old.is_video) == (new.source, new.is_video):
                unchanged = (old.size, old.changed) == (new.size, new.changed)  # a folder that moved counts as the same
                if unchanged or old.root == new.root:
                    rows = old.rows if unchanged else None
                    known[name] = new._replace(name=name, file=old.file, rows=rows, options=old.options)
                    return known[name]
            for file in files(name) if old is None else ():
                if file.casefold() not in taken and (self._adopts or not os.path.lexists(self.folder / file)):
                    taken.add(file.casefold())
                    known[name] = new._replace(name=name, file=file)
                    return known[name]
        raise AssertionError("unreachable: there is always another number")

    def _read(self) -> dict[str, Result]:
        return {result.name: result for result in starmap(Result, read_json_lines(self._path))}

    def _append(self, results: Iterable[Result]) -> None:
        append_lines(self._path, "".join(json.dumps(result) + "\n" for result in results))


def _acquire(path: Path) -> FileLock | None:
    """Acquire a lock, or return None where another run holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = _acquire(path)
    if lock:
        lock.release()
    return lock is None


def root_hash(root: str | Path) -> str:
    """Hash a folder or address, so that a folder of results tells nothing about its owner's disk."""
    root = str(root.resolve()) if isinstance(root, Path) else root
    return hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def numbered(name: str) -> Iterable[str]:
    """Yield `a.jpg`, `a~2.jpg`, `a~3.jpg`, ..."""
    yield name
    stem, ending = os.path.splitext(name)
    for number in count(2):
        yield f"{stem}~{number}{ending}"
