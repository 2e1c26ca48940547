"""The image files behind a table's rows: where they lie, which are missing, which are copies of each other."""

import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from src.cli import UserError, warn_skipped
from src.files import file_sha256, map_threads
from src.images import BOX_COLUMNS
from src.labels import AGE_RANGE_COLUMNS

MAX_NAMED = 5

logger = logging.getLogger(__name__)


def locate(folder: str | os.PathLike, names: Iterable[str]) -> list[str]:
    """Return the absolute, normalized path of each name below `folder`; where no such file is, of another spelling."""
    return [_locate(os.path.abspath(folder), name) for name in names]


def _locate(folder: str, name: str) -> str:
    for spelling in _spellings(name):
        path = os.path.join(folder, spelling)
        if os.path.isfile(path):
            plain = os.path.normpath(path)  # another file, or none, where `..` stands behind a link
            return plain if os.path.exists(plain) and os.path.samefile(plain, path) else path
    return os.path.normpath(os.path.join(folder, name))


def _spellings(name: str) -> Iterator[str]:
    """Yield what the name is on this system if the table was written on Windows or on a Mac."""
    texts = [name, name.replace("\\", "/")]
    if not name.isascii():  # cp1252: Excel's plain `CSV` in western Europe and America
        texts += [text.encode("utf-8", "surrogateescape").decode("cp1252", "replace") for text in texts]
        texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in texts]
    yield from dict.fromkeys(texts)


def drop_missing(table: pd.DataFrame, what: str, advice: str = "give their folder as data.image_dir") -> pd.DataFrame:
    """Drop the rows whose file does not exist, with a warning that counts and names them.

    Args:
        table: At least the column `path`.
        what: Whose images they are, for messages.
        advice: What the `UserError` says to do if all of them are missing.
    """
    exists = np.fromiter(map(os.path.isfile, table["path"]), dtype=bool, count=len(table))
    missing = table.loc[~exists, "path"].tolist()
    if not exists.any():
        if not missing:
            raise UserError(f"{what}: the table has no rows")
        example = f"{missing[0]} (a path from Windows)" if "\\" in missing[0] else missing[0]
        raise UserError(f"none of the {len(table):,} images of {what} found, such as {example}: {advice}")
    if missing:
        more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
        named = ", ".join(missing[:MAX_NAMED])
        logger.warning(f"{len(missing):,} of {len(table):,} images of {what} are missing and skipped: {named}{more}")
    return table[exists].reset_index(drop=True)


def warn_repeated(table: pd.DataFrame) -> None:
    """Warn of images that have several rows: with different labels, with equal ones, or in several splits.

    Args:
        table: At least the columns `path`, `gender`, `age`, `split`; see `src.datasets.table`.
    """
    if "image" in table:  # images inside a table have no file
        table = table[table["image"].isna()]
    face = ["path", *(name for name in BOX_COLUMNS if name in table)]  # an image may show several
    rows = table[table.duplicated(face, keep=False)]
    if rows.empty:
        return

    def differing_in(*columns: str) -> set[str]:
        kinds = rows.reindex(columns=[*face, *columns]).drop_duplicates()
        return set(kinds.loc[kinds.duplicated(face), "path"])

    relabelled = differing_in("gender", "age", *AGE_RANGE_COLUMNS)
    for images, problem, result in (
        (relabelled, "have several rows with different labels", "all are used"),
        (set(rows["path"]) - relabelled, "have several rows with equal labels", "each row counts"),
        (differing_in("split"), "are in more than one split", "metrics on training images are too good"),
    ):
        if images:
            logger.warning(f"{len(images):,} image(s) {problem}, such as {min(images)}: {result}")


def hash_files(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Drop missing files and add the column `sha256` of the others."""
    table = drop_missing(table, what)
    table["sha256"] = pd.Series(map_threads(file_sha256, table["path"].tolist(), "hash"), dtype=object)
    for path in table.loc[table["sha256"].isna(), "path"]:
        warn_skipped(path, "the file cannot be read")
    return table[table["sha256"].notna()]


def drop_copies(table: pd.DataFrame) -> pd.DataFrame:
    """Drop copies (by `sha256`) of an earlier file, and all copies whose `gender` or `age` disagree."""
    age = table["age"].fillna(table["age_min"]) if "age_min" in table else table["age"]
    copies, contradicting = find_copies(table["sha256"], table["gender"], age)
    return table[~copies & ~contradicting]


def find_copies(sha256: pd.Series, gender: pd.Series, age: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Find files with equal bytes.

    Returns:
        Two boolean `(n,)` arrays: copies of an earlier row with the same labels; rows whose copies carry other labels
        (all of them, the first too).
    """
    rows = pd.DataFrame({"sha256": sha256, "gender": gender, "age": age}).fillna({"gender": -1, "age": -1})
    labels = rows.drop_duplicates()
    contradicting = rows["sha256"].isin(labels.loc[labels["sha256"].duplicated(), "sha256"])
    copies = rows["sha256"].duplicated() & ~contradicting
    return copies.to_numpy(), contradicting.to_numpy()
