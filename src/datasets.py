"""Tables of pictures and labels, whatever they come from.

A table is a DataFrame, one row a picture:
    path    str, absolute
    gender  float64: 0 (female), 1 (male) or NaN (unknown)
    age     float64: years, 0..100, or NaN (unknown)
    margin  float64: the margin that the picture comes with, in face widths per side; NaN for a whole photograph
    split   "train", "val" or "test"
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src import utkface
from src.cli import ROOT, UserError
from src.csv_tables import read_csv
from src.splits import content_split, content_split_without_test, file_sha256, map_threads

__all__ = ["content_split", "load_table"]


def load_table(
    db: str | os.PathLike | Sequence[str | os.PathLike], image_dir: str | os.PathLike | None = None
) -> pd.DataFrame:
    """Loads one table, or several as one."""
    names = [db] if isinstance(db, str | os.PathLike) else list(db)
    return pd.concat([_load_one(os.fspath(name), image_dir) for name in names], ignore_index=True)


def _load_one(db: str, image_dir: str | os.PathLike | None) -> pd.DataFrame:
    if db == "utkface":
        meta = ROOT / "meta" / "utkface.csv"
        if not meta.is_file():
            raise UserError(
                f"expected the table {meta}, which does not exist:"
                " make it with `python create_db_utkface.py -i data/UTKFace -o meta/utkface.csv`"
            )
        return _load_csv(meta, Path(image_dir or ROOT / "data" / "UTKFace")).fillna({"margin": utkface.MARGIN})
    path = Path(db).expanduser()
    return _load_csv(path, Path(image_dir or path.parent))


def _load_csv(csv: Path, image_dir: Path) -> pd.DataFrame:
    table = read_csv(csv)
    folder = os.path.abspath(image_dir.expanduser())
    table["path"] = [os.path.join(folder, path) for path in table["path"]]
    unknown = table.index[table["split"] == ""] if "split" in table else table.index
    sha256 = pd.Series(map_threads(file_sha256, table.loc[unknown, "path"].tolist(), "hash"), unknown, dtype=object)
    table.loc[unknown, "split"] = sha256.map(content_split_without_test, na_action="ignore")
    return table.reindex(columns=["path", "gender", "age", "margin", "split"])
