"""UTKFace (Zhang, Song and Qi, CVPR 2017, https://susanqq.github.io/UTKFace/): labels from file names, checked files.

A file is called `age_gender_race_time.jpg.chip.jpg`, gender 0 = male, 1 = female.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from src.cli import ROOT, JobError, UserError, printable, shell_command, warn_skipped
from src.datasets.csv_table import write_csv
from src.datasets.image_files import find_copies
from src.datasets.mat_table import check_size, write_mat
from src.datasets.splits import SPLITS, content_split
from src.files import file_sha256, map_threads
from src.images import EXTENSIONS, ImageError, read_image, resize
from src.labels import FEMALE, MALE, MAX_AGE

# The images ("chips") are face boxes with a border. Measured with dlib on 600 chips of the train split, each on a
# larger ground and randomly scaled, since dlib's box sizes are a factor 1.2 apart: (chip / box - 1) / 2 has the median
# 0.054 with the chip's edge continued and 0.066 on grey, half of the chips lie between 0.02 and 0.09, and left and top
# differ from right and bottom by 0.02. On the bare chip it is 0.056.
MARGIN = 0.06
MAT_SIZE = 64
"""Side of the images in a `.mat`, unless another one is given, pixels."""

ETHNICITIES = ("White", "Black", "Asian", "Indian", "Other")
"""The third field of a file name, 0..4."""
ETHNICITY_IN_NAME = re.compile(r"\d{1,3}_[01]_([0-4])_\d+")
LABELS_IN_NAME = re.compile(r"([0-9]{1,3})_([01])(?=[_. ])")
GENDERS_IN_NAME = {"0": MALE, "1": FEMALE}

# Why a file is not used, in the order in which the rules apply.
RULES = {
    "ending": "not an image by its ending",
    "name": "no age and gender in the name",
    "unreadable": "unreadable",
    "contradicting": "copies of one image with contradicting labels",
    "copy": "further copies of a used image",
}


def parse_name(name: str) -> tuple[int, int] | None:
    """Read age (years, above 100 counted as 100) and gender (0 female, 1 male) from a file name; None if it tells none.

    What follows age and gender may be odd: some real names lack the third field or a dot, or have a space.
    """
    match = LABELS_IN_NAME.match(name)
    return match and (min(int(match[1]), MAX_AGE), GENDERS_IN_NAME[match[2]])


def ethnicities(paths: Iterable[str]) -> list[str]:
    """Read names of `ETHNICITIES` from file names, "" where one tells none."""
    codes = (ETHNICITY_IN_NAME.match(PurePath(path).name) for path in paths)
    return [ETHNICITIES[int(code[1])] if code else "" for code in codes]


def list_files(folder: Path) -> list[Path]:
    """List the files below `folder`, sorted, except hidden ones; linked folders are followed, each folder once.

    Links come last, so that folders keep their own names.
    """
    files, searched, waiting = [], set(), [os.fspath(folder)]

    def warn(error: OSError) -> None:
        warn_skipped(error.filename, error.strerror)

    while waiting:
        for place, folders, names in os.walk(waiting.pop(0), onerror=warn):
            if os.path.realpath(place) in searched:
                folders.clear()
                continue
            searched.add(os.path.realpath(place))
            folders[:] = [name for name in folders if name[0] != "."]
            waiting += filter(os.path.islink, (os.path.join(place, name) for name in folders))
            files += [Path(place, name) for name in names if name[0] != "."]
    return sorted(path for path in files if path.is_file())


def scan(folder: Path) -> pd.DataFrame:
    """List all files below `folder` (except hidden ones) with labels and content, and find copies; decode nothing.

    Returns:
        One row per file, sorted by path: `img_paths` (relative to `folder`, with `/`), `genders` and `ages` (float64,
        NaN where the name does not tell), `sha256`, `split`, and `rule`: a key of `RULES` for a file that is not used,
        "" for the others.

    Raises:
        UserError: `folder` does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} must be the folder of UTKFace's images, got no folder")
    paths = list_files(folder)
    frame = pd.DataFrame({"img_paths": [path.relative_to(folder).as_posix() for path in paths]}, dtype=object)
    labels = [parse_name(path.name) or (np.nan, np.nan) for path in paths]
    frame[["ages", "genders"]] = np.array(labels, dtype=np.float64).reshape(-1, 2)
    images = np.array([path.suffix.lower() in EXTENSIONS for path in paths], dtype=bool)
    if not images.any():
        raise UserError(f"no images of UTKFace (age_gender_race_time.jpg.chip.jpg) found in {folder}")
    frame["rule"] = np.select([~images, frame["ages"].isna()], ["ending", "name"], "").astype(object)
    left = frame.index[frame["rule"] == ""]
    frame["sha256"] = pd.Series(map_threads(file_sha256, [paths[i] for i in left], "hash"), left, dtype=object)
    frame.loc[left[frame.loc[left, "sha256"].isna()], "rule"] = "unreadable"
    rows = frame[frame["rule"] == ""]
    copies, contradicting = find_copies(rows["sha256"], rows["genders"], rows["ages"])
    frame.loc[rows.index[copies], "rule"] = "copy"
    frame.loc[rows.index[contradicting], "rule"] = "contradicting"
    frame["split"] = frame["sha256"].map(content_split, na_action="ignore")
    return frame


def check_images(frame: pd.DataFrame, folder: Path, img_size: int | None = None) -> np.ndarray | None:
    """Decode each distinct image of `scan`'s result once and mark the unreadable ones in `frame["rule"]`.

    Returns:
        With `img_size`: the used images, `(used, img_size, img_size, 3)` uint8 RGB; else None.
    """
    used = frame.index[frame["rule"] == ""]
    distinct = frame.index[frame["sha256"].notna() & ~frame["sha256"].duplicated()]
    place = {row: number for number, row in enumerate(used)}
    images = np.zeros((len(used), img_size, img_size, 3), np.uint8) if img_size else None

    def is_readable(row: int) -> bool:
        try:
            image = read_image(folder / frame.at[row, "img_paths"])
        except ImageError:
            return False
        if images is not None and row in place:
            images[place[row]] = resize(image, images.shape[1])
        return True

    readable = np.array(map_threads(is_readable, distinct, "decode"), dtype=bool)
    damaged = frame.loc[distinct[~readable], "sha256"]
    frame.loc[frame["sha256"].isin(damaged), "rule"] = "unreadable"
    if images is None or readable.all():
        return images
    return images[(frame.loc[used, "rule"] == "").to_numpy()]


def meta_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the used rows of `scan`'s result as they stand in a meta CSV."""
    used = frame[frame["rule"] == ""].astype({"genders": np.int64, "ages": np.int64})
    return used[["genders", "ages", "img_paths", "split"]].assign(margin=MARGIN)


def create_db(folder: Path, output: Path, img_size: int | None = None) -> list[str]:
    """Write the table of all usable images below `folder`.

    Args:
        output: A `.csv`, or a `.mat` with the images inside.
        img_size: Side of the images in a `.mat`, pixels; None: `MAT_SIZE`.

    Returns:
        The lines to print: every file that is not used, then the counts by rule, then how to train on the table.

    Raises:
        UserError: no images, `output` is neither a `.csv` nor a `.mat`, or `img_size` is given for a `.csv`.
        JobError: no file can be used.
    """
    as_mat = output.suffix.lower() == ".mat"
    if not as_mat and output.suffix.lower() != ".csv":
        raise UserError(f"--output must end in .csv or .mat, got {output}")
    if not as_mat and img_size is not None:
        raise UserError(f"--img_size requires an --output that ends in .mat, got {output}, which holds no images")
    frame = scan(folder)
    if as_mat:
        img_size = MAT_SIZE if img_size is None else img_size
        check_size((frame["rule"] == "").sum(), img_size)
    images = check_images(frame, folder, img_size)
    if not (frame["rule"] == "").any():
        reasons = ", ".join(f"{count:,} {RULES[rule]}" for rule, count in frame["rule"].value_counts().items())
        raise JobError(f"none of the {len(frame):,} files in {folder} can be used: {reasons}")
    if images is not None:
        write_mat(output, images, frame[frame["rule"] == ""], "utk")
    else:
        write_csv(meta_table(frame), output)
    return [*report(frame), *how_to_use(folder, output)]


def report(frame: pd.DataFrame) -> list[str]:
    """Name the files of `scan`'s result that are not used and count the files by rule and split."""
    lines = [
        f"not used, {RULES[rule]}: {printable(path)}"
        for rule in RULES
        for path in frame.loc[frame["rule"] == rule, "img_paths"]
    ]
    counts = frame["rule"].value_counts()
    splits = frame.loc[frame["rule"] == "", "split"].value_counts()
    lines += [f"{len(frame):9,} files"]
    lines += [f"{-counts.get(rule, 0):9,} {text}" for rule, text in RULES.items()]
    shares = ", ".join(f"{splits.get(split, 0):,} {split}" for split in SPLITS)
    return [*lines, f"{counts.get('', 0):9,} used: {shares}"]


def how_to_use(folder: Path, output: Path) -> list[str]:
    """Return the line that tells how to train on `output`, whose images lie in `folder`."""
    db = "utkface" if output.resolve() == ROOT / "meta" / "utkface.csv" else output
    home = db == "utkface" and folder.resolve() == (ROOT / "data" / "UTKFace").resolve()
    inside = output.suffix.lower() == ".mat"
    overrides = [f"data.db={db}"] + ([] if home or inside else [f"data.image_dir={folder.resolve()}"])
    return [f"train on it: python train.py {printable(shell_command(*overrides))}"]
