"""What `crop_faces.py` has done so far: one line of JSON per photo, in the folder of the crops.

The first line holds the settings. A record is written after its crops, so a run that is stopped at any moment
loses only the photos that it was at.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath

from src.cli import UserError
from src.files import append_lines, read_json_lines, write_whole

FILE_NAME = "crop_faces.jsonl"


@dataclass(frozen=True)
class Record:
    """One photo that could be read."""

    name: str  # path below the folder of photos, with `/`
    stamp: Sequence[int]  # `file_stamp` when it was read
    labelled: bool  # whether it had a label, which decides what several faces mean
    sha256: str  # of the photo's bytes, hexadecimal
    stem: str  # its crops are `{stem}_0.jpg`, `{stem}_1.jpg`, ... below the folder of crops
    boxes: list[list[int]]  # the face box inside each crop, `[left, top, right, bottom]` in pixels of the crop
    faces: int  # how many were found
    reason: str = ""  # why there is no crop

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
        self.folder, self._path = folder, folder / FILE_NAME
        self.outdated: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists() and (others := [name for name in os.listdir(folder) if not name.startswith(".")]):
            raise UserError(f"-o must be a new folder, got {folder} with {others[0]} in it")
        self.records = {record.name: record for record in _read(self._path, settings)}
        lines = [settings, *map(asdict, self.records.values())]
        with write_whole(self._path) as part:  # without the torn line of a run that was killed
            part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def is_done(self, name: str, stamp: tuple[int, int], labelled: bool) -> bool:
        """Tell whether the photo is unchanged since it was read, and its crops are there."""
        record = self.records.get(name)
        if record is None or (*record.stamp, record.labelled) != (*stamp, labelled):
            return False
        return all((self.folder / crop).is_file() for crop in record.crops)

    def add(self, record: Record) -> None:
        """Add a record; delete crops of an older record of the same photo that the new one lacks."""
        append_lines(self._path, json.dumps(asdict(record)) + "\n")
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
                numbered = (f"{whole}~{number}" for number in count(2))
                candidates = chain([PurePosixPath(whole).with_suffix("").as_posix(), whole], numbered)
                stems[name] = next(stem for stem in candidates if stem.casefold() not in taken)
                taken.add(stems[name].casefold())
        return stems


def _read(path: Path, settings: dict) -> Iterator[Record]:
    if not path.exists():
        return
    old, *records = [*read_json_lines(path)] or [None]
    if not isinstance(old, dict) or "margin" not in old:
        raise UserError(f"{path} must have the settings in its first line, got another: delete it")
    for key, value in settings.items():
        if old.get(key) != value:
            raise UserError(
                f"{key} must be {old.get(key)} as for the crops that are in {path.parent}, got {value}:"
                " choose another -o, or delete that folder"
            )
    yield from (Record(**record) for record in records)
