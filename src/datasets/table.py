"""Tables of images and labels from any source.

A table is a DataFrame with one row per image:
    path    str, absolute
    gender  float64: 0 (female), 1 (male) or NaN (unknown)
    age     float64: years, 0..100, or NaN (unknown, or known as a range only)
    margin  float64: the margin that the face crop comes with, in face widths per side; NaN for a photo
    split   "train", "val" or "test"
and, from some sources:
    age_min, age_max  float64: first and last year, both inclusive, of an age that is known as a range only, 0..100,
            where 100 is an open end; NaN where `age` is known or nothing is
    ethnicity  str, as the source calls it; "" where it is unknown
    image   uint8 RGB array, None where the image is a file
    left, top, right, bottom  float64, the face in pixels of its crop; NaN where it stands in the centre
    person  str, who is shown (IMDB-WIKI, Adience)
    age_std float64: years, spread of the votes that `age` is the mean of (APPA-REAL, target "apparent")
    file_name, apparent_age, apparent_std, real_age (APPA-REAL, see `src.datasets.appa_real`)
"""

import difflib
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import MARGIN, ROOT, UserError
from src.datasets import adience, all_age_faces, appa_real, fairface, imdb_wiki, utkface
from src.datasets.csv_table import read_csv
from src.datasets.image_files import drop_missing, locate, warn_repeated
from src.datasets.mat_table import read_mat
from src.datasets.splits import content_split_without_test, person_split
from src.files import file_sha256, map_threads
from src.images import BOX_COLUMNS, Box
from src.labels import AGE_RANGE_COLUMNS

HOMES = {
    "imdb": "data/imdb_crop",
    "wiki": "data/wiki_crop",
    "utkface": "data/UTKFace",
    "aaf": "data/All-Age-Faces",
    "aaf_val": "data/All-Age-Faces",
    "appa_real": "appa-real/appa-real-release",
    "fairface": "data/FairFace",
    "adience": "data/Adience",
}
"""Where the images of a named table lie, unless the user says otherwise."""
NAMES = tuple(HOMES)
COLUMNS = ["path", "gender", "age", "margin", "split"]

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike


def load_table(
    db: PathLike | Iterable[PathLike],
    image_dir: PathLike | Iterable[PathLike | None] | None = None,
    target: str = "real",
    split: str = "person",
    only: str | None = None,
) -> pd.DataFrame:
    """Load one table, or several as one.

    Args:
        db: A name of `NAMES`, or the path of a `.csv` (`csv_table.py`) or `.mat` (`mat_table.py`), or several.
            One that is named twice is trained on twice as often: its training rows come twice, the others once.
        image_dir: Where the images lie, for all tables or one for each; None: the table's own place, which is below
            `data/` for the names and the folder of the file for a `.csv`. A warning says that a `.mat` needs none.
        target: Which age APPA-REAL's rows learn, `real` or `apparent`.
        split: How IMDB-WIKI is split: by `person`, so that nobody stands on both sides, or at `random`.
        only: The split that is needed; rows of others may then be missing, where finding them takes long.

    Returns:
        A table of all splits, as the header of this module describes it. Missing images are counted, named and
        skipped, except those of IMDB-WIKI and APPA-REAL, which are not looked for. A warning names images with several
        rows.

    Raises:
        UserError: an unknown name, a table or all of its images missing, or wrong cells in it.
    """
    _require_choice("data.target", target, appa_real.TARGETS)
    _require_choice("data.split", split, ("person", "random"))
    dbs = [os.fspath(name) for name in ([db] if isinstance(db, PathLike) else db)]
    folders = [image_dir] * len(dbs) if image_dir is None or isinstance(image_dir, PathLike) else list(image_dir)
    if not dbs or len(folders) != len(dbs):
        raise UserError(f"data.db must name tables and data.image_dir one folder or one for each, got {dbs}, {folders}")
    pairs = [(name, os.fspath(folder) if folder else None) for name, folder in zip(dbs, folders, strict=True)]
    tables = {pair: _load_one(*pair, target, split, only) for pair in dict.fromkeys(pairs)}
    table = _concatenate(list(tables.values()))
    warn_repeated(table)
    again = [tables[pair] for pair, count in Counter(pairs).items() for _ in range(count - 1)]
    return _concatenate([table, *(part[part["split"] == "train"] for part in again)])


def require_crops(table: pd.DataFrame) -> None:
    """Require that all images are face crops.

    Raises:
        UserError: some are photos; names the command that cuts faces out of them.
    """
    whole = table["margin"].isna()
    if whole.any():
        example = table.loc[whole, "path"].iloc[0]
        raise UserError(
            f"the table must have face crops, got {whole.sum():,} whole photos such as {example}: cut the faces out"
            " with `python crop_faces.py -i FOLDER -o FOLDER --margin 0.4` and use the table that it writes"
        )


def require_margin(table: pd.DataFrame, margin: float, name: str) -> None:
    """Refuse a margin that the face crops of a table lack; whole photos can be cut with any.

    Args:
        table: Column `margin`: NaN for whole photos.
        margin: The margin that faces shall be cut with.
        name: What to call it.

    Raises:
        UserError: Names both margins.
    """
    smallest = table["margin"].min()
    if margin < 0 or margin > smallest:
        example = table.loc[table["margin"].idxmin(), "path"]
        raise UserError(
            f"{name} must be in 0..{smallest:g}, the margin of face crops such as {example}, got {margin:g};"
            " crop_faces.py cuts photos with a larger margin"
        )


def face_boxes(table: pd.DataFrame) -> list[Box | None]:
    """Return the face in pixels of each image; None where the table does not say."""
    if BOX_COLUMNS[0] not in table:
        return [None] * len(table)
    rows = table[BOX_COLUMNS].itertuples(index=False, name=None)
    return [None if np.isnan(row[0]) else (int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows]


def _load_one(db: str, image_dir: PathLike | None, target: str, split: str, only: str | None = None) -> pd.DataFrame:
    folder = Path(image_dir).expanduser().absolute() if image_dir else None
    if db in NAMES:
        return _load_named(db, folder or ROOT / HOMES[db], target, split, only)
    path = Path(db).expanduser()
    if path.suffix.lower() == ".mat":
        table, origin = read_mat(path)
        if folder:
            logger.warning(f"{path} holds its images itself: data.image_dir, {folder}, is not used for it")
        return table.assign(margin=utkface.MARGIN if origin == "utk" else MARGIN)[[*COLUMNS, "image"]]
    if path.suffix.lower() == ".csv" or path.is_file():
        return _load_csv(path, folder or path.parent)
    near = difflib.get_close_matches(db.lower(), NAMES, n=1)
    raise UserError(
        f"data.db must be one of {', '.join(NAMES)}, a path to a .csv or .mat, or a list of them, got {db!r}"
        + (f": did you mean {near[0]}?" if near else "")
    )


def _load_named(db: str, folder: Path, target: str, split: str, only: str | None) -> pd.DataFrame:
    if db in imdb_wiki.DATABASES:
        return _load_imdb_wiki(db, folder, split)
    if db == "utkface":
        return _load_utkface(folder)
    if db == "appa_real":
        return appa_real.load(folder, ROOT / "appa-real" / "ignore_list.txt", target)
    if db == "fairface":
        return fairface.load(folder, only)
    return {"aaf": all_age_faces.load_train, "aaf_val": all_age_faces.load_val, "adience": adience.load}[db](folder)


def _load_imdb_wiki(db: str, folder: Path, split: str) -> pd.DataFrame:
    build = partial(imdb_wiki.create_db, db, root=ROOT, folder=folder)
    table = read_csv(_built(db, folder / f"{db}.mat", build, f"run `./download.sh {db}`"))
    if not folder.is_dir():
        raise UserError(
            f"{folder}, the folder of {db}'s images, not found: run `./download.sh {db}`, or give their folder as"
            " data.image_dir"
        )
    table["person"] = imdb_wiki.persons(table["path"], db)
    if split == "person":
        table["split"] = person_split(table["person"])
    else:
        table["split"] = np.where(np.random.default_rng(0).permutation(len(table)) < len(table) / 10, "val", "train")
    paths = [os.path.join(folder, path) for path in table["path"]]
    return table.assign(path=text_column(paths), margin=MARGIN)[[*COLUMNS, "person"]]


def _load_utkface(folder: Path) -> pd.DataFrame:
    build = partial(utkface.create_db, folder, _meta("utkface"))
    table = _load_csv(_built("utkface", folder, build, "put UTKFace's images there"), folder, utkface.MARGIN)
    return table.assign(ethnicity=utkface.ethnicities(table["path"]))


def _meta(db: str) -> Path:
    return ROOT / "meta" / f"{db}.csv"


def _built(db: str, source: Path, build: Callable[[], object], advice: str) -> Path:
    """`meta/{db}.csv`, built from its source where it does not exist yet."""
    path = _meta(db)
    if not path.is_file():
        if not source.exists():
            raise UserError(f"{path} not found, and {source} to build it from neither: {advice}")
        print(f"building {path} from {source}", file=sys.stderr)
        build()
    return path


def _load_csv(csv: Path, image_dir: Path, margin: float | None = None) -> pd.DataFrame:
    table = read_csv(csv)
    table["path"] = text_column(locate(image_dir, table["path"]))
    if margin is not None:
        table["margin"] = margin
    elif "margin" not in table:
        table["margin"] = MARGIN
        logger.warning(
            f"{csv} has no column `margin`: its images are taken for face crops of margin {MARGIN};"
            " cut photos with crop_faces.py first"
        )
    table = drop_missing(table, str(csv), f"give the folder that they lie below, now {image_dir}, as data.image_dir")
    if "split" not in table:
        table["split"] = ""
    unknown = table["split"] == ""
    hashes = map_threads(file_sha256, table.loc[unknown, "path"].tolist(), "hash")
    table.loc[unknown, "split"] = [content_split_without_test(sha256) if sha256 else "train" for sha256 in hashes]
    optional = [*AGE_RANGE_COLUMNS, "ethnicity", *BOX_COLUMNS]
    return table[[*COLUMNS, *(column for column in optional if column in table)]]


def text_column(values: Iterable[str]) -> pd.Series:
    """As Python's strings: pandas' own cannot hold file names that are no UTF-8 where pyarrow is installed."""
    return pd.Series(list(values), dtype=object)


def _concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    if "ethnicity" in table:  # tables without such a column give NaN there
        table["ethnicity"] = table["ethnicity"].fillna("")
    if "image" in table:
        images = [image if isinstance(image, np.ndarray) else None for image in table["image"]]
        table["image"] = pd.Series(images, dtype=object)
    return table


def _require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{key} must be {' or '.join(choices)}, got {value!r}")
