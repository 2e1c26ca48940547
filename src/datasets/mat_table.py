"""Tables with the images inside, in one MATLAB file (written as version 5, which holds at most 2 GB).

The keys are those of yu4u/age-gender-estimation, release v0.5: `image (n, size, size, 3)`, `gender`, `age`, `db`,
`img_size`, `min_score`; and four more: `gender_order` and `colour` say how to read `gender` and `image`, `split` and
`sha256` (of the file that an image came from) keep the split by content. Files without these are read by that
project's convention: BGR, and gender 0 = male where `db` is `utk`.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.datasets.matlab import as_text, load_mat
from src.datasets.splits import SPLITS, content_split_without_test
from src.files import write_whole
from src.labels import GENDERS, clip_age

MAX_BYTES = 2**31 - 2**10
"""Of one array in the format, with room for its header."""


def check_size(images: int, img_size: int) -> None:
    """Raise `UserError`, which names the size that would fit, unless so many images fit into one file."""
    if img_size < 1:
        raise UserError(f"--img_size must be >= 1, got {img_size}")
    if images * img_size**2 * 3 > MAX_BYTES:
        largest = math.isqrt(MAX_BYTES // (3 * images))
        raise UserError(
            f"{images:,} images of {img_size} x {img_size} pixels do not fit into the 2 GB of a .mat: use --img_size"
            f" {largest} at most, or write a .csv, which leaves the images where they are"
        )


def write_mat(path: Path, images: np.ndarray, table: pd.DataFrame, db: str) -> None:
    """Write a table with its images; the file appears whole or not at all.

    Args:
        images: `(n, size, size, 3)` uint8 RGB.
        table: `(n)` rows, columns `genders` (0 female, 1 male), `ages`, `split`, `sha256`.
        db: Short name of the data set.

    Raises:
        OSError: the file cannot be written.
    """
    from scipy.io import savemat  # here, so that other tables are read where it is not installed

    content = {
        "image": images,
        "gender": table["genders"].to_numpy(),
        "age": table["ages"].to_numpy(),
        "db": db,
        "img_size": images.shape[1],
        "min_score": -1,
        "gender_order": np.array(GENDERS),
        "colour": "RGB",
        "split": table["split"].to_numpy(dtype=np.str_),
        "sha256": table["sha256"].to_numpy(dtype=np.str_),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part, part.open("wb") as file:
        savemat(file, content)


def read_mat(path: Path) -> tuple[pd.DataFrame, str]:
    """Read such a file, of MATLAB version 5, 7 or 7.3.

    Returns:
        A table as `table.py` describes it, without `margin`, with a column `image` (uint8 RGB, `(size, size, 3)`);
        `path` is `FILE.mat[row]`. Without a split in the file it is 90/10 by content. And the value of `db`.

    Raises:
        UserError: no such file, or something else.
    """
    try:
        content = load_mat(path)
        images, genders, ages = content["image"], content["gender"].ravel(), content["age"].ravel()
        db = "".join(_strings(content, "db", []))
        table = pd.DataFrame({"gender": genders, "age": ages}, dtype=np.float64)
        if images.shape != (len(table), *images.shape[1:3], 3) or images.dtype != np.uint8:
            raise ValueError(f"image is {images.dtype} of shape {images.shape} for {len(table)} labels")
    except Exception as error:  # damaged files make scipy raise almost anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} must be a table made by create_db_utkface.py: {reason}") from error
    if _strings(content, "gender_order", ["male", "female"] if db == "utk" else GENDERS) != list(GENDERS):
        table["gender"] = 1 - table["gender"]
    if not (table["gender"].isin([0, 1]) | table["gender"].isna()).all() or (table["age"] < 0).any():
        raise UserError(f"{path} must have genders 0 and 1 and ages >= 0, got others: make the file again")
    colours = _strings(content, "colour", ["BGR"])
    images = np.ascontiguousarray(images if colours == ["RGB"] else images[..., ::-1])
    table["age"] = clip_age(table["age"])
    table["path"] = [f"{path.absolute()}[{row}]" for row in range(len(table))]
    table["image"] = list(images)
    hashes = (hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    table["split"] = _strings(content, "split", []) or [*map(content_split_without_test, hashes)]
    if not table["split"].isin(SPLITS).all():
        raise UserError(f"{path} must have the splits {', '.join(SPLITS)}, got others: make the file again")
    return table, db


def _strings(content: dict, key: str, default: Sequence[str]) -> list[str]:
    """Return the strings under a key; the format pads them with blanks to one length."""
    return [str(text).strip() for text in as_text(content[key]).ravel()] if key in content else list(default)
