"""FairFace (Karkkainen and Joo, "FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age", WACV 2021).

108,501 faces from natural photos, https://github.com/joojs/fairface; ages are known as groups only. The folder holds
`{train,val}/N.jpg` and `fairface_label_{train,val}.csv` with lines such as `val/1.jpg,3-9,Male,East Asian,False` below
`file,age,gender,race,service_test`.
"""

import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.csv_table import read_cells, require_cells
from src.datasets.image_files import drop_copies, drop_missing, hash_files
from src.datasets.splits import content_split_without_test
from src.labels import AGE_GROUPS, GENDERS

# The images ("chips") were cut by dlib with padding 0.25. Measured with dlib on 349 of them: its box is about 0.80 of
# a chip's width.
MARGIN = 0.12

PARTS = ("train", "val")
COLUMNS = ("file", "age", "gender", "race")

# Spreadsheets take 3-9 and 10-19 for dates: 03-Sep, 9-Mar, Oct-19, in their user's language.
MONTHS = {r"m(ar|är|rt|rz)\w*": "3", r"se[pt]\w*": "9", r"o(ct|kt|tt|ut)\w*": "10"}


def load(folder: Path, only: str | None = None) -> pd.DataFrame:
    """Load the parts whose `fairface_label_*.csv` exists.

    The published validation part is the split `test`, all of it; the training part is split 90/10 by content into
    `train` and `val`. In these, files with equal bytes count once, and not at all where their labels disagree or they
    are in the test part too.

    Args:
        folder: The folder of FairFace.
        only: The split that is needed. For "test" no file is hashed, and the other splits are missing if that exists.

    Returns:
        A table as `src.datasets` describes it, with `age_min`, `age_max` and `ethnicity`; `age` is NaN.

    Raises:
        UserError: no label file or none of the images is in `folder`, or a cell is not as described.
    """
    parts = [part for part in PARTS if _csv(folder, part).is_file()]
    if not parts:
        raise UserError(
            f"{_csv(folder, 'train')} not found: put FairFace there (images as train/N.jpg, val/N.jpg; see"
            " docs/data.md), or give its folder as data.image_dir"
        )
    if only == "test" and "val" in parts:
        return drop_missing(_read_part(folder, "val"), f"FairFace in {folder}")
    table = pd.concat([_read_part(folder, part) for part in parts], ignore_index=True)
    table = hash_files(table, f"FairFace in {folder}")
    is_test = table["split"] == "test"
    test, others = table[is_test], drop_copies(table[~is_test])
    others = others[~others["sha256"].isin(test["sha256"])]
    others = others.assign(split=others["sha256"].map(content_split_without_test))
    return pd.concat([others, test], ignore_index=True).drop(columns="sha256")


def _csv(folder: Path, part: str) -> Path:
    return folder / f"fairface_label_{part}.csv"


def _read_part(folder: Path, part: str) -> pd.DataFrame:
    path = _csv(folder, part)
    cells = read_cells(path, lambda _: COLUMNS)
    groups = cells["age"].map({cell: parse_age_group(cell) for cell in cells["age"].unique()})
    require_cells(groups.notna() | (cells["age"] == ""), cells["age"], path, "an age group such as 3-9")
    ages = np.array([group or (np.nan, np.nan) for group in groups.where(groups.notna(), None)], dtype=np.float64)
    genders = cells["gender"].str.lower().map({name: float(index) for index, name in enumerate(GENDERS)})
    require_cells(genders.notna() | (cells["gender"] == ""), cells["gender"], path, "Male, Female or empty (unknown)")
    return pd.DataFrame(
        {
            "path": [str(folder / file) for file in cells["file"]],
            "gender": genders.to_numpy(dtype=np.float64),
            "age": np.nan,
            "age_min": ages.reshape(-1, 2)[:, 0],
            "age_max": ages.reshape(-1, 2)[:, 1],
            "ethnicity": cells["race"].str.replace("_", " ").to_numpy(),
            "margin": MARGIN,
            "split": "test" if part == "val" else "train",
        }
    )


def parse_age_group(cell: str) -> tuple[int, int] | None:
    """Read an age group, also one that a spreadsheet took for a date.

    Args:
        cell: Such as `3-9`, `more than 70`, `70+`; or damaged, `03-Sep`, `9-Mar`, `Oct-19`, `2019-10-01`.

    Returns:
        A member of `labels.AGE_GROUPS`, None if the cell names none or several.
    """
    text = cell.lower()
    for month, number in MONTHS.items():
        text = re.sub(month, number, text)
    numbers = [int(digits) % 100 for digits in re.findall(r"\d+", text)]  # of a year, the last two digits
    if len(numbers) == 1 and not text.isdigit():
        return next((group for group in AGE_GROUPS[-1:] if group[0] == numbers[0]), None)
    named = set(permutations(numbers, 2)) & set(AGE_GROUPS)
    return named.pop() if len(named) == 1 else None
