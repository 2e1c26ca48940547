"""All-Age-Faces (Cheng et al., "Exploiting Effective Facial Patches for Robust Gender Recognition", 2019).

13,322 photos, mostly of Asian faces, from 2 to 80 years. The folder holds `original images/00000A02.jpg`
(the number after `A` is the age in years) and `image sets/{train,val}.txt` with lines `00000A02.jpg 0`, 0 = female,
1 = male. The folder of the download is called "All-Age-Faces Dataset"; here it is `data/All-Age-Faces`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.image_files import drop_copies, hash_files
from src.datasets.splits import content_split
from src.images import list_images
from src.labels import FEMALE, MALE, clip_age

AGE_IN_NAME = re.compile(r"A([0-9]{1,3})\.[^.]+$")
GENDERS_IN_LISTS = {"0": FEMALE, "1": MALE}


def load_train(folder: Path) -> pd.DataFrame:
    """Load the images of `train.txt`, split by content; without lists all images, of unknown gender.

    Files with equal bytes count once, and not at all where they also stand in `val.txt` or have contradicting labels.
    Raise `UserError` if there are no such images in `folder`.
    """
    table = _load_distinct(folder)
    table = table[table["list"] != "val"]
    return table.assign(split=table["sha256"].map(content_split)).drop(columns=["list", "sha256"])


def load_val(folder: Path) -> pd.DataFrame:
    """Load the images of `val.txt`, all of them in the split `test`; else as `load_train`."""
    table = _load_distinct(folder)
    table = table[table["list"] == "val"]
    if table.empty:
        raise UserError(f"no images of the list {folder / 'image sets' / 'val.txt'} found")
    return table.assign(split="test").drop(columns=["list", "sha256"])


def _load_distinct(folder: Path) -> pd.DataFrame:
    """Columns `path`, `gender`, `age`, `margin`, `list`, `sha256` of all images that stand in a list, `val` first."""
    images = folder / "original images"
    lists = [_read_list(folder, name) for name in ("val", "train")]
    if all(rows.empty for rows in lists) and images.is_dir():
        names = [path.name for path in list_images(images, recursive=False)]
        lists = [pd.DataFrame({"name": names, "gender": np.nan, "list": ""})]
    table = pd.concat(lists, ignore_index=True)
    if table.empty:
        raise UserError(
            f"no images of All-Age-Faces found in {images}: put the data set there, or give its folder as"
            " data.image_dir"
        )
    ages = [AGE_IN_NAME.search(name) for name in table["name"]]
    table["age"] = clip_age(np.array([float(match[1]) if match else np.nan for match in ages]))
    table["path"] = [str(images / name) for name in table["name"]]
    table = table.assign(margin=np.nan).drop(columns="name")
    return drop_copies(hash_files(table, f"All-Age-Faces in {folder}"))


def _read_list(folder: Path, name: str) -> pd.DataFrame:
    path = folder / "image sets" / f"{name}.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [line.rsplit(maxsplit=1) for line in lines if line.strip()]
    if wrong := [row for row in rows if len(row) != 2 or row[1] not in GENDERS_IN_LISTS]:
        raise UserError(f"{path} must have lines `NAME.jpg 0` or `NAME.jpg 1`, got {' '.join(wrong[0])!r}")
    genders = np.array([GENDERS_IN_LISTS[gender] for _, gender in rows], dtype=np.float64)
    return pd.DataFrame({"name": [image for image, _ in rows], "gender": genders, "list": name})
