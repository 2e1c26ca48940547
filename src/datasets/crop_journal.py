"""What `crop_faces.py` has done so far: one line of JSON per photo, in the folder of the crops.

The first line holds the settings. A record is written after its crops, so a run that is stopped at any moment
loses only the photos that it was at.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from src.cli import UserError
from src.files import write_whole

FILE_NAME = "crop_faces.jsonl"


@dataclass(frozen=True)
class Record:
    """One photo that could be read.

    Attributes:
        name: Path below the folder of photos, with `/`.
        stamp: `file_stamp` when it was read.
        labelled: Whether it had a label, which decides what several faces mean.
        sha256: Of the photo's bytes, hexadecimal.
        stem: Its crops are `{stem}_0.jpg`, `{stem}_1.jpg`, ... below the folder of crops.
        boxes: The face box inside each crop, `[left, top, right, bottom]` in pixels of the crop.
        faces: How many faces were found.
        reason: Why there is no crop, or "".
    """

    name: str
    stamp: list[int]
    labelled: bool
    sha256: str
    stem: str
    boxes: list[list[int]]
    faces: int
    reason: str = ""

    @property
    def crops(self) -> list[str]:
        return [f"{self.stem}_{number}.jpg" for number in range(len(self.boxes))]


class Journal:
    """The records of a folder of crops, in memory and on disk.

    Args:
        folder: Created if missing.
        settings: What the crops depend on, as plain JSON values.

    Attributes:
        records: By name of the photo.
        outdated: Crops of photos whose content has changed since.

    Raises:
        UserError: the folder holds crops of other settings, or other files.
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder = folder
        self.outdated: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        self.records = {record.name: record for record in _read(path, settings)} if path.exists() else {}
        if not path.exists() and (others := [name for name in os.listdir(folder) if not name.startswith(".")]):
            raise UserError(f"-o must be a new folder, got {folder} with {others[0]} in it")
        lines = [json.dumps(settings), *(json.dumps(asdict(record)) for record in self.records.values())]
        with write_whole(path) as part:  # without the half line of a run that was killed
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def is_done(self, name: str, stamp: list[int] | None, labelled: bool) -> bool:
        """Tell whether the photo is unchanged since it was read, and its crops are there."""
        record = self.records.get(name)
        if record is None or (record.stamp, record.labelled) != (stamp, labelled):
            return False
        return all((self.folder / crop).is_file() for crop in record.crops)

    def add(self, record: Record) -> None:
        """Add a record; delete crops of an older record of the same photo that the new one lacks."""
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()
        old = self.records.get(record.name)
        self.records[record.name] = record
        if old:
            self.outdated += old.crops if old.sha256 != record.sha256 else []
            for crop in set(old.crops) - set(record.crops):
                (self.folder / crop).unlink(missing_ok=True)

    def choose_stems(self, names: Iterable[str]) -> dict[str, str]:
        """Choose a stem for each photo: its name without the ending, or with it where another one has that already.

        Stems differ in more than upper and lower case, and those of the records stay.
        """
        stems = {name: record.stem for name, record in self.records.items()}
        taken = {stem.casefold() for stem in stems.values()}
        for name in names:
            if name not in stems:
                whole = name.lstrip()  # readers of tables strip cells
                candidates = [PurePosixPath(whole).with_suffix("").as_posix(), whole]
                free = (stem for stem in candidates if stem.casefold() not in taken)
                numbered = (f"{whole}~{number}" for number in count(2))
                stem = next(free, None) or next(stem for stem in numbered if stem.casefold() not in taken)
                stems[name] = stem
                taken.add(stem.casefold())
        return stems

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_stamp(path: Path) -> list[int] | None:
    """Return size in bytes and time of the last change in nanoseconds; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path, settings: dict) -> Iterable[Record]:
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        old = json.loads(lines[0])
        if not isinstance(old, dict):
            raise ValueError("no settings")
    except ValueError as error:
        raise UserError(f"{path} must have the settings in its first line, got {lines[0]!r}: delete it") from error
    for key, value in settings.items():
        if old.get(key) != value:
            raise UserError(
                f"{key} must be {old.get(key)} as for the crops that are in {path.parent}, got {value}:"
                " choose another -o, or delete that folder"
            )
    for line in lines[1:]:
        try:
            yield Record(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a killed run
            continue
