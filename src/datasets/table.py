"""Tables of pictures and labels, whatever they come from.

A table is a DataFrame, one row a picture:
    path    str, absolute
    gender  float64: 0 (female), 1 (male) or NaN (unknown)
    age     float64: years, 0..100, or NaN (unknown)
    margin  float64: the margin that the face crop comes with, in face widths per side; NaN for a whole photograph
    split   "train", "val" or "test"
and, from some sources:
    image   uint8 RGB array, None where the picture is a file
    left, top, right, bottom  float64, the face in pixels of its crop; NaN where it stands in the centre
    person  str, who is shown (IMDB-WIKI)
    age_std float64: years, spread of the votes that `age` is the mean of (APPA-REAL, target "apparent")
    file_name, apparent_age, apparent_std, real_age (APPA-REAL, see `src.datasets.appa_real`)
"""

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import ROOT, UserError
from src.datasets import all_age_faces, appa_real, imdb_wiki, utkface
from src.datasets.csv_table import read_csv
from src.datasets.mat_table import read_mat
from src.datasets.splits import content_split, content_split_without_test, person_split
from src.files import file_sha256, map_threads
from src.images import BOX_COLUMNS

__all__ = ["NAMES", "content_split", "load_table", "require_crops"]

NAMES = ("imdb", "wiki", "utkface", "aaf", "aaf_val", "appa_real")
SPLIT_WAYS = ("person", "random")
MARGIN = 0.4
"""Of a user's face crops, where nothing says another one: that of IMDB-WIKI and APPA-REAL."""
NAMED_AT_MOST = 5
COLUMNS = ["path", "gender", "age", "margin", "split"]

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike


def load_table(
    db: PathLike | Iterable[PathLike],
    image_dir: PathLike | Iterable[PathLike | None] | None = None,
    target: str = "real",
    split: str = "person",
) -> pd.DataFrame:
    """Loads one table, or several as one.

    Args:
        db: A name of `NAMES`, or the path of a `.csv` (`csv_table.py`) or `.mat` (`mat_table.py`), or several.
            One that is named twice is trained on twice as often: its rows of training come twice, the others once.
        image_dir: Where the pictures lie, for all tables or one for each; None: the table's own place, which is below
            `data/` for the names and the folder of the file for a `.csv`.
        target: Which age APPA-REAL's rows learn, `real` or `apparent`.
        split: How IMDB-WIKI is split: by `person`, so that nobody stands on both sides, or at `random`.

    Returns:
        A table of all splits, as the header of this module describes it. Missing pictures of a user's CSV and of
        UTKFace are counted, named and left out; the other sources are not asked.

    Raises:
        UserError: an unknown name, a table or all of its pictures missing, or wrong cells in it.
    """
    _demand_choice("data.target", target, appa_real.TARGETS)
    _demand_choice("data.split", split, SPLIT_WAYS)
    dbs = [os.fspath(name) for name in ([db] if isinstance(db, PathLike) else db)]
    folders = [image_dir] * len(dbs) if image_dir is None or isinstance(image_dir, PathLike) else list(image_dir)
    if not dbs or len(folders) != len(dbs):
        raise UserError(f"expected tables in data.db and one data.image_dir or one for each, received {dbs}, {folders}")
    pairs = [(name, os.fspath(folder) if folder else None) for name, folder in zip(dbs, folders, strict=True)]
    tables = {pair: _load_one(*pair, target, split) for pair in dict.fromkeys(pairs)}
    parts = list(tables.values())
    for pair, count in Counter(pairs).items():
        again = tables[pair][tables[pair]["split"] == "train"]
        parts += [again] * (count - 1)
    return _concatenate(parts)


def require_crops(table: pd.DataFrame) -> None:
    """Demands that all pictures are face crops.

    Raises:
        UserError: some are whole photographs; names the command that cuts faces out of them.
    """
    whole = table["margin"].isna()
    if whole.any():
        example = table.loc[whole, "path"].iloc[0]
        raise UserError(
            f"expected face crops, received {whole.sum():,} whole photographs such as {example}: cut the faces out with"
            " `python crop_faces.py -i FOLDER -o FOLDER --margin 0.4` and train on the table that it writes"
        )


def _load_one(db: str, image_dir: PathLike | None, target: str, split: str) -> pd.DataFrame:
    folder = Path(image_dir).expanduser() if image_dir else None
    data = ROOT / "data"
    if db in imdb_wiki.DATABASES:
        return _load_imdb_wiki(db, folder or data / f"{db}_crop", split)
    if db == "utkface":
        advice = "make it with `python create_db_utkface.py -i data/UTKFace -o meta/utkface.csv`"
        return _load_csv(_meta(db, advice), folder or data / "UTKFace", utkface.MARGIN)
    if db == "aaf":
        return all_age_faces.load_train((folder or data / "All-Age-Faces").absolute())
    if db == "aaf_val":
        return all_age_faces.load_val((folder or data / "All-Age-Faces").absolute())
    if db == "appa_real":
        home = ROOT / "appa-real"
        return appa_real.load(folder or home / "appa-real-release", home / "ignore_list.txt", target)
    path = Path(db).expanduser()
    if path.suffix.lower() == ".csv":
        return _load_csv(path, folder or path.parent)
    if path.suffix.lower() == ".mat":
        table, origin = read_mat(path)
        return table.assign(margin=utkface.MARGIN if origin == "utk" else MARGIN)[[*COLUMNS, "image"]]
    near = difflib.get_close_matches(db.lower(), NAMES, n=1)
    raise UserError(
        f"expected data.db to be one of {', '.join(NAMES)}, a path to a .csv or .mat, or a list of them,"
        f" received {db!r}" + (f": did you mean {near[0]}?" if near else "")
    )


def _meta(db: str, advice: str) -> Path:
    path = ROOT / "meta" / f"{db}.csv"
    if not path.is_file():
        raise UserError(f"expected the table {path}, which does not exist: {advice}")
    return path


def _load_imdb_wiki(db: str, image_dir: Path, split: str) -> pd.DataFrame:
    table = read_csv(_meta(db, f"make it with `python create_db.py --db {db}`"))
    if not image_dir.is_dir():
        raise UserError(
            f"expected the pictures of {db} in {image_dir}, which does not exist:"
            f" fetch them with `./download.sh {db}`, or give their folder as data.image_dir"
        )
    table["person"] = imdb_wiki.persons(table["path"], db)
    if split == "person":
        table["split"] = person_split(table["person"])
    else:
        table["split"] = np.where(np.random.default_rng(0).permutation(len(table)) < len(table) / 10, "val", "train")
    return _below(table, image_dir).assign(margin=imdb_wiki.MARGIN)[[*COLUMNS, "person"]]


def _load_csv(csv: Path, image_dir: Path, margin: float | None = None) -> pd.DataFrame:
    table = _below(read_csv(csv), image_dir)
    if margin is not None:
        table["margin"] = margin
    elif "margin" not in table:
        table["margin"] = MARGIN
        logger.warning(
            f"{csv} has no column `margin`: its pictures are taken for face crops of margin {MARGIN};"
            " cut whole photographs with crop_faces.py first"
        )
    table = _leave_out_missing(table, csv, image_dir)
    if "split" not in table:
        table["split"] = ""
    unknown = table["split"] == ""
    hashes = map_threads(file_sha256, table.loc[unknown, "path"].tolist(), "hash")
    table.loc[unknown, "split"] = [content_split_without_test(sha256) if sha256 else "train" for sha256 in hashes]
    return table[[*COLUMNS, *(column for column in BOX_COLUMNS if column in table)]]


def _below(table: pd.DataFrame, image_dir: Path) -> pd.DataFrame:
    folder = os.path.abspath(image_dir)
    paths = [os.path.join(folder, path) for path in table["path"]]
    # dtype: pandas' own strings cannot hold file names that are no UTF-8 where pyarrow is installed
    return table.assign(path=pd.Series(paths, table.index, dtype=object))


def _leave_out_missing(table: pd.DataFrame, csv: Path, image_dir: Path) -> pd.DataFrame:
    exists = np.fromiter(map(os.path.isfile, table["path"]), dtype=bool, count=len(table))
    missing = table.loc[~exists, "path"].tolist()
    if not exists.any():
        received = f"such as {missing[0]}" if missing else "because the table has no rows"
        raise UserError(
            f"expected the {len(table):,} pictures of {csv} below {image_dir}, found none, {received}:"
            " give their folder as data.image_dir"
        )
    if missing:
        more = f" and {len(missing) - NAMED_AT_MOST:,} more" if len(missing) > NAMED_AT_MOST else ""
        named = ", ".join(missing[:NAMED_AT_MOST])
        logger.warning(f"{len(missing):,} of {len(table):,} pictures of {csv} are missing and left out: {named}{more}")
    return table[exists].reset_index(drop=True)


def _concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    if "image" in table:  # tables of files give NaN there
        images = [image if isinstance(image, np.ndarray) else None for image in table["image"]]
        table["image"] = pd.Series(images, dtype=object)
    return table


def _demand_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"expected {key} to be {' or '.join(choices)}, received {value!r}")
