"""Label tables as CSV: the meta tables that `create_db*.py` write, and a user's own.

Header `genders,ages,img_paths`, optional columns `split` (train, val, test), `margin` (that the face crop has, in face
widths per side) and `left,top,right,bottom` (the face in pixels of the crop, where it need not stand in the centre).
Genders are 0 (female) and 1 (male), ages are years. An empty cell means unknown: the head that would learn from it
leaves the row out, a row without a split gets one by its content, a row without a margin is a whole photograph.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.splits import SPLITS
from src.files import write_whole
from src.images import BOX_COLUMNS
from src.labels import FEMALE, MALE, clip_age

COLUMNS = ("genders", "ages", "img_paths")
OLDEST = 150
"""Years; a larger number in a column of ages is a mistake (a year of birth, say) and no age above 100."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table without index and with `\\n` line ends; the file appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:  # surrogateescape: file names need not be valid UTF-8 on Linux
        table.to_csv(part, index=False, lineterminator="\n", encoding="utf-8", errors="surrogateescape")


def read_csv(path: Path) -> pd.DataFrame:
    """Reads and checks a label table.

    Returns:
        Columns `path` (str, as written), `gender` (float64: 0, 1 or NaN), `age` (float64: 0..100 or NaN); and, where
        the file has them, `split` (str, "" where the cell is empty), `margin` (float64, NaN where it is empty) and
        `left`, `top`, `right`, `bottom` (float64, NaN where one of them is empty).

    Raises:
        UserError: no such file, no CSV, a column is missing, or a cell holds something else than this module's header
            says; names the line (the header is line 1).
    """
    cells = _read_cells(path)
    if missing := [name for name in COLUMNS if name not in cells]:
        received = ",".join(map(str, cells.columns))
        raise UserError(f"expected the columns {','.join(COLUMNS)} in {path}, received {received}: add {missing}")
    table = pd.DataFrame({"path": _paths(cells, path), "gender": _genders(cells, path), "age": _ages(cells, path)})
    if "split" in cells:
        table["split"] = _splits(cells, path)
    if "margin" in cells:
        table["margin"] = _numbers(cells, "margin", path, "a number from 0, or nothing", lambda m: m >= 0)
    if set(BOX_COLUMNS) <= set(cells):
        for column in BOX_COLUMNS:
            table[column] = _numbers(cells, column, path, "a whole number or nothing", lambda n: n % 1 == 0)
        _demand_boxes(table, cells, path)
    return table.reset_index(drop=True)


def _read_cells(path: Path) -> pd.DataFrame:
    """All cells as stripped strings, the line in the file as index; lines of empty cells are left out."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            rows = ((reader.line_num, tuple(map(str.strip, row))) for row in reader)
            lines = dict(row for row in rows if any(row[1]))
    except FileNotFoundError as error:
        raise UserError(f"expected a table, received {path}, which does not exist: check the path") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"expected a CSV with the columns {','.join(COLUMNS)} in {path}, received: {error}") from error
    header = lines.pop(min(lines, default=0), ())
    if len(set(header)) != len(header):
        raise UserError(f"expected every column once in {path}, received {','.join(header)}: remove one")
    for line, row in lines.items():
        if len(row) != len(header):
            raise UserError(f"expected {len(header)} cells a line in {path}, received {len(row)} in line {line}")
    return pd.DataFrame(lines.values(), index=list(lines), columns=header, dtype=object)


def _paths(cells: pd.DataFrame, path: Path) -> pd.Series:
    _demand(cells["img_paths"] != "", cells["img_paths"], path, "a picture's path")
    return cells["img_paths"]


def _genders(cells: pd.DataFrame, path: Path) -> pd.Series:
    expected = f"{FEMALE} (female), {MALE} (male) or nothing (unknown)"
    return _numbers(cells, "genders", path, expected, lambda genders: genders.isin([FEMALE, MALE]))


def _ages(cells: pd.DataFrame, path: Path) -> pd.Series:
    expected = f"an age from 0 to {OLDEST} years or nothing (unknown)"
    return clip_age(_numbers(cells, "ages", path, expected, lambda ages: ages.between(0, OLDEST)))


def _splits(cells: pd.DataFrame, path: Path) -> pd.Series:
    splits = cells["split"]
    _demand(splits.isin([*SPLITS, ""]), splits, path, f"{', '.join(SPLITS)} or nothing")
    return splits


def _demand_boxes(table: pd.DataFrame, cells: pd.DataFrame, path: Path) -> None:
    """Blanks boxes with an empty cell and refuses those without area."""
    unknown = table[BOX_COLUMNS].isna().any(axis=1)
    table.loc[unknown, BOX_COLUMNS] = np.nan
    has_area = (table["left"] < table["right"]) & (table["top"] < table["bottom"])
    _demand(unknown | has_area, cells["left"], path, "boxes with left < right and top < bottom")


def _numbers(cells: pd.DataFrame, column: str, path: Path, expected: str, is_valid) -> pd.Series:
    text = cells[column]
    unknown = text.str.lower().isin(["", "nan"])
    numbers = pd.to_numeric(text.where(~unknown), errors="coerce").astype(np.float64)
    _demand(unknown | is_valid(numbers), text, path, expected)
    return numbers


def _demand(valid: pd.Series, cells: pd.Series, path: Path, expected: str) -> None:
    if not valid.all():
        row = valid.idxmin()
        raise UserError(
            f"expected {expected} in column {cells.name} of {path}, received {cells[row]!r} in line {row}"
            f" ({(~valid).sum():,} such lines): correct the file"
        )
