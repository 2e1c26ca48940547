"""APPA-REAL (Agustsson et al., "Apparent and Real Age Estimation in Still Images", FG 2017).

`gt_avg_{train,valid,test}.csv` hold `file_name, num_ratings, apparent_age_avg, apparent_age_std, real_age`; the cropped
faces are `{train,valid,test}/{file_name}_face.jpg`, of margin 0.4. There is no gender.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import MARGIN, UserError
from src.datasets.csv_table import read_text
from src.labels import clip_age

TARGETS = ("real", "apparent")
FOLDERS = {"train": "train", "val": "valid", "test": "test"}
"""Our names of the splits -> the data set's."""
COLUMNS = ("file_name", "num_ratings", "apparent_age_avg", "apparent_age_std", "real_age")

logger = logging.getLogger(__name__)


def load(folder: Path, ignore_list: Path, target: str) -> pd.DataFrame:
    """Load all splits whose `gt_avg_*.csv` exists.

    Args:
        folder: The unpacked `appa-real-release`.
        ignore_list: Text file that names images (`file_name`, one per line) to drop from training; may be missing. A
            warning counts names that no training image has.
        target: Which age `age` is, `real` or `apparent`.

    Returns:
        A table as `table.py` describes it, plus `file_name` (str), `apparent_age`, `apparent_std` and `real_age`
        (float64, years as given) and, for the target `apparent`, `age_std` (float64, years: spread of the votes).
        The images are not looked for.

    Raises:
        UserError: the data is missing, or a file is not as described.
    """
    splits = [split for split in FOLDERS if _csv(folder, split).is_file()]
    if not splits:
        raise UserError(
            f"APPA-REAL's gt_avg_train.csv not found in {folder}: run `./download.sh appa-real`, or give its folder as"
            " data.image_dir"
        )
    table = pd.concat([_read_split(folder, split) for split in splits], ignore_index=True)
    table = _drop_ignored(table, ignore_list)
    table = table.assign(gender=np.nan, age=clip_age(table[f"{target}_age"]), margin=MARGIN)
    if target == "apparent":
        table["age_std"] = table["apparent_std"]
    return table.reset_index(drop=True)


def _csv(folder: Path, split: str) -> Path:
    return folder / f"gt_avg_{FOLDERS[split]}.csv"


def _read_split(folder: Path, split: str) -> pd.DataFrame:
    path = _csv(folder, split)
    try:
        rows = pd.read_csv(path, skipinitialspace=True, dtype={"file_name": str}).rename(columns=str.strip)
        ages = rows[list(COLUMNS[2:])].astype(np.float64)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} must have the columns {','.join(COLUMNS)}: {error}") from error
    images = os.path.abspath(folder / FOLDERS[split])
    return pd.DataFrame(
        {
            "file_name": rows["file_name"],
            "path": [os.path.join(images, f"{name}_face.jpg") for name in rows["file_name"]],
            "split": split,
            "apparent_age": ages["apparent_age_avg"],
            "apparent_std": ages["apparent_age_std"],
            "real_age": ages["real_age"],
        }
    )


def _drop_ignored(table: pd.DataFrame, ignore_list: Path) -> pd.DataFrame:
    """Drop training images that a file names, if it exists; warn of names that no training image has."""
    lines = read_text(ignore_list, "a text file").splitlines() if ignore_list.is_file() else []
    names = {line.strip() for line in lines} - {""}
    training = table["split"] == "train"
    unknown = sorted(names - set(table.loc[training, "file_name"]))
    if unknown and training.any():
        logger.warning(
            f"{ignore_list}: {len(unknown):,} of {len(names):,} names exclude nothing, such as {unknown[0]}:"
            " give the file_name of a training image as in gt_avg_train.csv"
        )
    return table[~(training & table["file_name"].isin(names))]
