"""The tables of `crop_faces.py`: the photos and what is known about them, the faces, and what is not used."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.crop_journal import Record
from src.datasets.csv_table import read_csv, read_other_columns
from src.datasets.image_files import locate
from src.datasets.splits import content_split_without_test
from src.datasets.table import NAMES, load_table, require_margin, text_column
from src.images import BOX_COLUMNS, FoundImages, find_images
from src.labels import AGE_RANGE_COLUMNS

AGES = ("age", *AGE_RANGE_COLUMNS)
"""Columns of which a label fills one or both of the last two, so that they stand or fall together."""
LABELS = ("gender", *AGES)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """An image file: `name` is its path below the folder of photos, with `/`; NaN and "" mean unknown."""

    name: str
    path: Path
    gender: float = math.nan
    age: float = math.nan
    age_min: float = math.nan
    age_max: float = math.nan
    split: str = ""
    ethnicity: str = ""
    other: tuple[tuple[str, str], ...] = ()  # name and cell of columns that this project does not know

    @property
    def labelled(self) -> bool:
        return not all(map(math.isnan, self.labels.values()))

    @property
    def labels(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in LABELS}


def list_photos(
    labels: str | None, input_dir: Path, output_dir: Path, margin: float
) -> tuple[list[Photo], list[str], FoundImages]:
    """List the photos of a label table, or all below `input_dir` (but not below `output_dir`), sorted by path.

    Returns:
        The photos; the names of those that the table labels twice and differently; what else is in the folder.

    Raises:
        UserError: there are none, or see `read_photos`.
    """
    if labels is not None:
        return *read_photos(labels, input_dir, margin), FoundImages(input_dir)
    found = find_images(input_dir, exclude=output_dir)
    if not found.paths:
        raise UserError(f"no images found below {input_dir}" + "".join(f"; {note}" for note in found.notes()))
    return [Photo(path.relative_to(input_dir).as_posix(), path) for path in found.paths], [], found


def read_photos(labels: str, input_dir: Path, margin: float) -> tuple[list[Photo], list[str]]:
    """List the photos of a label table, in its order; missing files are among them.

    Args:
        labels: Path of a `.csv` with paths below `input_dir`, or one of `src.datasets.table.NAMES`.
        margin: Of the crops; images that are crops of a smaller margin themselves cannot give it.

    Returns:
        The photos, and the names of those that the table labels twice and differently.

    Raises:
        UserError: a wrong table, none of its images exists, or they are no photos below `input_dir`.
    """
    table, other = _load(labels, input_dir)
    require_margin(table, margin, "--margin")
    folder = Path(os.path.abspath(input_dir))
    outside = next((path for path in table["path"] if not Path(path).is_relative_to(folder)), None)
    if outside is not None:
        raise UserError(f"the images must be below {folder}, got {outside}: give -i a folder that holds all of them")
    table["name"] = text_column(Path(path).relative_to(folder).as_posix() for path in table["path"])
    if not any(map(os.path.isfile, table["path"])):
        received = f"such as {table['path'].iloc[0]}" if len(table) else "because the table has no rows"
        raise UserError(
            f"none of the {len(table):,} images of {labels} found below {input_dir}, {received}:"
            " give the folder that its img_paths start from as -i"
        )
    table["ethnicity"] = table.get("ethnicity", "")
    known = ["name", "path", *LABELS, "split", "ethnicity"]
    rows = table.reindex(columns=known).assign(other=other).drop_duplicates()
    labelled = rows.drop_duplicates(known)["name"]
    twice = labelled[labelled.duplicated()].unique().tolist()
    rows = rows[~rows["name"].isin(twice)]
    again = rows["name"].duplicated()
    if again.any():
        example = rows.loc[again, "name"].iloc[0]
        logger.warning(f"{labels}: of several rows of a photo, such as {example}, the first row's other cells are used")
    return [Photo(name, Path(path), *row) for name, path, *row in rows[~again].itertuples(index=False)], twice


def _load(labels: str, input_dir: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Load a label table, and for each row the names and cells of columns that this project does not know."""
    folder = os.path.abspath(input_dir)
    if labels.lower().endswith(".csv") or os.path.isfile(labels):
        path = Path(labels).expanduser()
        table, other = read_csv(path), read_other_columns(path)
        cells = [tuple(zip(other.columns, row, strict=True)) for row in other.itertuples(index=False, name=None)]
        table["path"] = text_column(locate(folder, table["path"]))
        table = table.assign(split=table.get("split", ""), margin=table.get("margin", np.nan))
        return table, pd.Series(cells, dtype=object)
    if labels not in NAMES:
        raise UserError(f"--labels must be a path to a .csv or one of {', '.join(NAMES)}, got {labels!r}")
    try:
        table = load_table(labels, image_dir=folder)
        return table, pd.Series([()] * len(table), dtype=object)
    except UserError as error:
        raise UserError(str(error).replace("data.image_dir", "-i")) from error


def read_filled_in(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read an earlier `faces.csv`, if there is one; it may have been filled in by hand since.

    Returns:
        The labels, columns `gender`, `age`, `split`, `ethnicity`, and `age_min`, `age_max` where the table has them;
        and the columns that a user has added, as text. The index of both is the path of the crop below its folder.

    Raises:
        UserError: wrong cells in the table, or it is none.
    """
    if not path.exists():
        return pd.DataFrame(columns=[*LABELS, "split", "ethnicity"]), pd.DataFrame()
    table = read_csv(path)
    folder = os.path.abspath(path.parent)
    table["path"] = text_column(  # as the crops are called, however a spreadsheet has written them
        Path(os.path.relpath(file, folder)).as_posix() for file in locate(folder, table["path"])
    )
    table = table.assign(split=table.get("split", ""), ethnicity=table.get("ethnicity", "")).set_index("path")
    added = read_other_columns(path).set_index(table.index)
    repeated = table.index.duplicated()
    return table[~repeated], added[~repeated]


def faces_table(
    photos: list[Photo], records: dict[str, Record], filled_in: pd.DataFrame, added: pd.DataFrame, margin: float
) -> pd.DataFrame:
    """Build `faces.csv`: one row per crop in the order of the photos.

    A label or another cell of the photo precedes what was filled in by hand, which precedes an empty cell.

    Args:
        records: Of those photos that are done, by name.
        filled_in: Labels by crop, the first of the tables of `read_filled_in`.
        added: Columns of a user by crop, the second of them.
        margin: Of the crops.

    Returns:
        The columns of `faces.csv`, see `src.datasets.cropping`, then those that this project does not know: of the
        photos, then of `added`; unknown cells are "".
    """
    rows, other = [], []
    carried = [name for name, _ in photos[0].other] if photos else []
    spelling = {name.lower(): name for name in carried}
    added = added.rename(columns=lambda name: spelling.get(name.lower(), name))
    old, old_other = filled_in.to_dict("index"), added.to_dict("index")
    for photo in (photo for photo in photos if photo.name in records):
        record = records[photo.name]
        for crop, box in zip(record.crops, record.boxes, strict=True):
            cells = old.get(crop, {})
            texts = {
                "ethnicity": photo.ethnicity or cells.get("ethnicity", ""),
                "img_paths": crop,
                "split": photo.split or cells.get("split") or content_split_without_test(record.sha256),
            }
            rows.append(_merge_labels(photo.labels, cells) | texts | dict(zip(BOX_COLUMNS, box, strict=True)))
            other.append(old_other.get(crop, {}) | {name: cell for name, cell in photo.other if cell})
    optional = [*AGE_RANGE_COLUMNS, "ethnicity"]
    columns = ["genders", "ages", *optional, "img_paths", "split", "margin", *BOX_COLUMNS]
    table = pd.DataFrame(rows, dtype=object)  # not pandas' own strings: file names need not be valid UTF-8 on Linux
    table = table.rename(columns={"gender": "genders", "age": "ages"}).reindex(columns=columns)
    table["margin"] = f"{margin:g}"
    empty = [group for group in (list(AGE_RANGE_COLUMNS), ["ethnicity"]) if (table[group] == "").all(axis=None)]
    table = table.drop(columns=[name for group in empty for name in group])
    names = list(dict.fromkeys([*carried, *added.columns]))
    lines = [[cells.get(name, "") for name in names] for cells in other]
    return pd.concat([table, pd.DataFrame(lines, columns=names, dtype=object)], axis=1)


def _merge_labels(labels: Mapping[str, float], filled_in: Mapping[str, float]) -> dict[str, str]:
    """Write gender and age, exact or as a range, each from the labels or, if unknown there, from what was filled in."""
    merged: dict[str, float] = {}
    for names in (("gender",), AGES):
        source = filled_in if all(math.isnan(labels[name]) for name in names) else labels
        merged |= {name: source.get(name, math.nan) for name in names}
    return {name: "" if math.isnan(number) else f"{number:.10g}" for name, number in merged.items()}


def not_used_table(records: dict[str, Record], unused: dict[str, tuple[str, object]]) -> pd.DataFrame:
    """Build `not_used.csv`, sorted by name: photos of the records without a crop, and others with reason and faces."""
    without = {record.name: (record.reason, record.faces) for record in records.values() if record.reason}
    rows = [(name, *row) for name, row in sorted({**without, **unused}.items())]
    return pd.DataFrame(rows, columns=["img_paths", "reason", "faces"], dtype=object)
