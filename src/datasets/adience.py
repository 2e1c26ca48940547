"""Adience (Eidinger, Enbar and Hassner, "Age and Gender Estimation of Unfiltered Faces", IEEE TIFS 2014).

26,580 faces of 2,284 persons from Flickr, https://talhassner.github.io/home/projects/Adience/Adience-data.html; most
ages are known as one of eight groups. The folder holds `fold_{0..4}_data.txt` and
`faces/USER_ID/coarse_tilt_aligned_face.FACE_ID.ORIGINAL_IMAGE`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.csv_table import read_cells, require_cells
from src.datasets.image_files import drop_missing
from src.labels import FEMALE, MALE, MAX_AGE

SPLITS = {0: "train", 1: "train", 2: "train", 3: "val", 4: "test"}
"""The folds share no person."""
COLUMNS = ("user_id", "original_image", "face_id", "age", "gender")
GENDERS = {"f": FEMALE, "m": MALE, "u": np.nan, "": np.nan}
AGE = re.compile(r"\(?\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)?")


def load(folder: Path) -> pd.DataFrame:
    """Load the folds that are there, each of them in one split.

    The images show much more than the face, by an amount that is stated nowhere; they count as photos (margin NaN), in
    which the face is detected.

    Returns:
        A table as `src.datasets` describes it, with `age_min`, `age_max` and `person`.

    Raises:
        UserError: no fold or none of the images is in `folder`, or a cell is not as described.
    """
    folds = [fold for fold in SPLITS if _file(folder, fold).is_file()]
    if not folds:
        raise UserError(
            f"{_file(folder, 0)} not found: put Adience there (fold_*_data.txt and faces/, see docs/data.md),"
            " or give its folder as data.image_dir"
        )
    table = pd.concat([_read_fold(folder, fold) for fold in folds], ignore_index=True)
    return drop_missing(table, f"Adience in {folder}")


def _file(folder: Path, fold: int) -> Path:
    return folder / f"fold_{fold}_data.txt"


def _read_fold(folder: Path, fold: int) -> pd.DataFrame:
    path = _file(folder, fold)
    cells = read_cells(path, lambda _: COLUMNS)
    ages = cells["age"].map(parse_age)
    require_cells(ages.notna(), cells["age"], path, "an age such as (25, 32), 35 or None")
    require_cells(cells["gender"].isin(GENDERS), cells["gender"], path, "f, m, u or empty")
    names = "coarse_tilt_aligned_face." + cells["face_id"] + "." + cells["original_image"]
    age, age_min, age_max = np.array(ages.tolist(), dtype=np.float64).reshape(-1, 3).T
    return pd.DataFrame(
        {
            "path": [str(folder / "faces" / user / name) for user, name in zip(cells["user_id"], names, strict=True)],
            "gender": cells["gender"].map(GENDERS).to_numpy(dtype=np.float64),
            "age": age,
            "age_min": age_min,
            "age_max": age_max,
            "person": cells["user_id"].to_numpy(),
            "margin": np.nan,
            "split": SPLITS[fold],
        }
    )


def parse_age(cell: str) -> tuple[float, float, float] | None:
    """Read an age: `(25, 32)` a range, both ends included, `35` an age, `None` or nothing unknown.

    Returns:
        Age, first and last year of the range, NaN where unknown; ages above 100 count as 100. None for other cells.
    """
    if cell in ("", "None"):
        return np.nan, np.nan, np.nan
    match = AGE.fullmatch(cell)
    if not match:
        return None
    first, last = (min(int(number), MAX_AGE) for number in (match[1], match[2] or match[1]))
    return (first, np.nan, np.nan) if first == last else (np.nan, first, last)
