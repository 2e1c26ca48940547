"""Label tables as text: the meta tables that `create_db*.py` write, and a user's own.

Required columns are `genders` (0 female, 1 male), `img_paths` and `ages` (years) or, where an age is known as a range
only, `age_min,age_max` (whole years, both inclusive; no `age_max` means an open end). Both may stand in one table.
Optional ones are `split` (train, val, test), `margin` (of the face crop, in face widths per side), `ethnicity` (any
text) and `left,top,right,bottom` (the face in pixels of the crop, where it need not stand in the centre).

An empty cell means unknown: the head that would learn from it skips the row, a row without a split gets one by its
content, a row without a margin is a photo.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import MAX_TABLE_MARGIN, UserError
from src.datasets.splits import SPLITS
from src.files import RowWriter, write_whole
from src.images import BOX_COLUMNS
from src.labels import AGE_RANGE_COLUMNS, FEMALE, MALE, MAX_AGE, clip_age

COLUMNS = ("genders", "ages", "img_paths")
KNOWN_COLUMNS = frozenset([*COLUMNS, *AGE_RANGE_COLUMNS, "split", "margin", "ethnicity", *BOX_COLUMNS])
"""All columns that this module's header names."""
MAX_YEARS = 150
"""A larger number in a column of ages is a mistake (a year of birth, say) and no age above 100."""

SEPARATOR_LINE = re.compile(r'"?sep=(.)', re.IGNORECASE)
"""What Excel writes and reads as the first line to name the separator."""
NO_TEXT = {
    b"PK\x03\x04": "a spreadsheet workbook (.xlsx, .ods) or another zip archive: export it as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls): export it as CSV (UTF-8)",
    b"<!DOCTYPE": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
}
"""First bytes of files that are taken for tables by mistake."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without index and with `\\n` line ends; the file appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_whole(path) as part,  # surrogateescape: file names need not be valid UTF-8 on Linux
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table.to_csv(RowWriter(file), index=False, lineterminator="\r\n")


def read_csv(path: Path) -> pd.DataFrame:
    """Read and check a label table.

    Returns:
        Columns `path` (str, as written), `gender` (float64: 0, 1 or NaN), `age` (float64: 0..100 or NaN); and, where
        the file has them, `age_min` and `age_max` (float64: 0..100, NaN where the age is known or nothing is), `split`
        and `ethnicity` (str, "" where the cell is empty), `margin` and `left`, `top`, `right`, `bottom` (float64).

    Raises:
        UserError: no such file, no CSV, a column is missing, also one of the four of a box, or a cell holds something
            else than this module's header says; names the line (the header is line 1).
    """
    cells = read_cells(path, lambda header: ("genders", _age_column(header), "img_paths"))
    require_cells(cells["img_paths"] != "", cells["img_paths"], path, "the path of an image")
    genders = f"{FEMALE} (female), {MALE} (male) or empty (unknown)"
    ages = f"an age from 0 to {MAX_YEARS} years or empty (unknown)"
    table = pd.DataFrame(
        {
            "path": cells["img_paths"],
            "gender": _numbers(cells, "genders", path, genders, lambda gender: gender.isin([FEMALE, MALE])),
            "age": clip_age(_numbers(cells, "ages", path, ages, lambda age: age.between(0, MAX_YEARS))),
        }
    )
    if set(AGE_RANGE_COLUMNS) & set(cells):
        _add_ranges(table, cells, path)
    if "split" in cells:
        splits = cells["split"].str.lower()
        require_cells(splits.isin([*SPLITS, ""]), cells["split"], path, f"{', '.join(SPLITS)} or empty")
        table["split"] = splits
    if "margin" in cells:
        margins = f"a number from 0 to {MAX_TABLE_MARGIN:g} (face widths) or empty"
        table["margin"] = _numbers(cells, "margin", path, margins, lambda margin: margin.between(0, MAX_TABLE_MARGIN))
    if "ethnicity" in cells:
        table["ethnicity"] = cells["ethnicity"].map(_as_text)
    if set(BOX_COLUMNS) & set(cells):
        _add_boxes(table, cells, path)
    return table.reset_index(drop=True)


def read_other_columns(path: Path) -> pd.DataFrame:
    """Read the columns that `read_csv` does not know as text, with its rows; they are named as in the file."""
    header, *rows = (tuple(map(_as_text, line)) for line in _read_lines(path).values())
    header = _trimmed(header)
    rows = [(*row, *[""] * len(header))[: len(header)] for row in rows]
    table = pd.DataFrame(rows, columns=header, dtype=object)
    return table[[name for name in header if name and name.lower() not in KNOWN_COLUMNS]]


def read_cells(path: Path, required: Callable[[Sequence[str]], Sequence[str]]) -> pd.DataFrame:
    """Read all cells of a table as stripped strings; lines of empty cells are skipped.

    What spreadsheets write is understood: cells separated by `,`, `;`, tab, `|` or what a line `sep=` says; UTF-8 with
    or without a byte order mark, UTF-16; empty columns at the end, also where only some lines have them.

    Args:
        required: Names the columns that must be there, given the header.

    Returns:
        Columns as the header names them, in lower case; the index is the line in the file.

    Raises:
        UserError: no such file, no table, a column is missing or named twice, or a line has too few or too many cells.
    """
    lines = _read_lines(path)
    header = tuple(map(str.lower, _trimmed(lines.pop(min(lines, default=0), ()))))
    columns = required(header)
    if missing := [name for name in columns if name not in header]:
        received = ",".join(header)[:200] or "nothing"
        raise UserError(f"{path} must have the columns {','.join(columns)}, got {received}: add {missing}")
    if len(set(header)) != len(header):
        raise UserError(f"{path} must have every column once, got {','.join(header)}")
    needed = max(header.index(name) for name in columns) + 1
    for line, row in lines.items():
        if not needed <= len(row) or len(_trimmed(row)) > len(header):
            raise UserError(f"{path} must have {len(header)} cells per line, got {len(row)} in line {line}")
    rows = [(*row, *[""] * len(header))[: len(header)] for row in lines.values()]
    return pd.DataFrame(rows, index=list(lines), columns=header, dtype=object)


def require_cells(valid: pd.Series, cells: pd.Series, path: Path, expected: str) -> None:
    """Raise a `UserError` that names the first line whose cell is not valid."""
    if not valid.all():
        row = valid.idxmin()
        raise UserError(
            f"{path}, line {row}: {cells.name} must be {expected}, got {cells[row]!r} ({(~valid).sum():,} such lines)"
        )


def _read_lines(path: Path) -> dict[int, tuple[str, ...]]:
    """Line number -> stripped cells, without empty lines and a line `sep=`."""
    text = read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    named = SEPARATOR_LINE.match(first)
    separator = named[1] if named else max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = ((reader.line_num, tuple(map(str.strip, row))) for row in reader)
        lines = dict(row for row in rows if any(row[1]))
    except csv.Error as error:
        raise UserError(f"{path} must be a CSV: {error}, in the cells that end in line {reader.line_num}") from error
    if named:
        del lines[min(lines)]
    return lines


def read_text(path: Path, what: str = "a CSV") -> str:
    """Read a text file in UTF-8, with or without a byte order mark, or UTF-16.

    Args:
        what: What it must be, for errors.

    Returns:
        Its text without a byte order mark; bytes that are no UTF-8 as surrogates.

    Raises:
        UserError: no such file, or no text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} must be {what}: {error.strerror}") from error
    for start, kind in NO_TEXT.items():
        if data.startswith(start):
            raise UserError(f"{path} must be {what}, got {kind}")
    try:  # surrogateescape: file names need not be valid UTF-8 on Linux
        text = data.decode(_encoding(data), "surrogateescape").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be {what}, got UTF-16 that is cut off or damaged") from error
    if "\0" in text:
        raise UserError(f"{path} must be {what}, got a file that is no text")
    return text


def _encoding(data: bytes) -> str:
    """UTF-8 or UTF-16, told by the byte order mark or, since a table begins with ASCII letters, by zero bytes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if data[1:2] == b"\0" and 32 <= data[0] < 127:
        return "utf-16-le"
    if data[:1] == b"\0" and data[1:2] and 32 <= data[1] < 127:
        return "utf-16-be"
    return "utf-8"


def _as_text(cell: str) -> str:
    """Decode a cell that is no UTF-8 as cp1252: Excel's plain `CSV` in western Europe and America."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return cell


def _trimmed(row: Sequence[str]) -> tuple[str, ...]:
    """Drop the empty cells at the end of a row."""
    cells = list(row)
    while cells and not cells[-1]:
        cells.pop()
    return tuple(cells)


def _age_column(header: Sequence[str]) -> str:
    """Name the column that must tell ages."""
    return "age_min" if "ages" not in header and set(AGE_RANGE_COLUMNS) & set(header) else "ages"


def _add_ranges(table: pd.DataFrame, cells: pd.DataFrame, path: Path) -> None:
    """Add `age_min` and `age_max`; a range of one year becomes an age, a row with an age keeps no range."""
    expected = f"a whole number of years from 0 to {MAX_YEARS} or empty"
    first, last = (
        _numbers(cells, name, path, expected, lambda age: age.between(0, MAX_YEARS) & _is_whole(age))
        for name in AGE_RANGE_COLUMNS
    )
    known = first.notna() | last.notna()
    age_min = first.fillna(0).clip(upper=MAX_AGE).where(known)
    age_max = last.fillna(MAX_AGE).clip(upper=MAX_AGE).where(known)
    require_cells(~(age_min > age_max), cells.get("age_min", age_min), path, "at most age_max")
    outside = (table["age"] < age_min) | (table["age"] >= age_max + 1)
    require_cells(~outside, cells.get("ages", age_min), path, "within age_min..age_max")
    table["age"] = table["age"].fillna(age_min.where(age_min == age_max))
    table["age_min"], table["age_max"] = age_min.where(table["age"].isna()), age_max.where(table["age"].isna())


def _add_boxes(table: pd.DataFrame, cells: pd.DataFrame, path: Path) -> None:
    """Add the columns of boxes; blank boxes with an empty cell and refuse those without area."""
    if missing := [name for name in BOX_COLUMNS if name not in cells]:
        received = [name for name in BOX_COLUMNS if name in cells]
        raise UserError(
            f"{path} must have all of the columns {','.join(BOX_COLUMNS)} or none of them, got {','.join(received)}:"
            f" add {missing}"
        )
    for column in BOX_COLUMNS:
        table[column] = _numbers(cells, column, path, "a whole number or empty", _is_whole)
    unknown = table[BOX_COLUMNS].isna().any(axis=1)
    table.loc[unknown, BOX_COLUMNS] = np.nan
    has_area = (table["left"] < table["right"]) & (table["top"] < table["bottom"])
    require_cells(unknown | has_area, cells["left"], path, "less than right, and top less than bottom")


def _numbers(cells: pd.DataFrame, column: str, path: Path, expected: str, is_valid: Callable) -> pd.Series:
    """Read a column of numbers; NaN where a cell is empty or there is no such column."""
    if column not in cells:
        return pd.Series(np.nan, cells.index)
    text = cells[column]
    unknown = text.str.lower().isin(["", "nan"])
    decimal = text.str.replace(r"(-?\d+),(\d+)", r"\1.\2", regex=True)  # decimal commas
    numbers = pd.to_numeric(decimal.where(~unknown), errors="coerce").astype(np.float64)
    require_cells(unknown | is_valid(numbers), text, path, expected)
    return numbers


def _is_whole(numbers: pd.Series) -> pd.Series:
    return numbers % 1 == 0
