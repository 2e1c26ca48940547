"""IMDB-WIKI (Rothe, Timofte and Van Gool, "DEX: Deep EXpectation of apparent age", ICCVW 2015): labels out of `.mat`.

`{db}.mat` holds one MATLAB struct of arrays, one entry per image: `dob` (day of birth as MATLAB's serial day),
`photo_taken` (year), `gender` (0 female, 1 male, NaN unknown), `face_score` (-Inf without a face), `second_face_score`
(NaN without a second face), `full_path`. IMDB has 460,723 entries, WIKI 62,328.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import ROOT, UserError
from src.datasets.csv_table import write_csv
from src.datasets.matlab import load_mat
from src.labels import MAX_AGE

DATABASES = ("imdb", "wiki")
FIELDS = ("dob", "photo_taken", "gender", "face_score", "second_face_score", "full_path")

FIRST_DAY = 367
"""MATLAB's serial day of 1 January of year 1; smaller ones are no dates."""

# The rules by which a row is dropped, each a boolean column of `read_imdb_wiki`'s result.
RULES = {
    "low_score": "face score below {min_score:g}",
    "second_face": "a second face",
    "bad_age": f"age not within 0..{MAX_AGE}",
    "no_gender": "gender unknown",
}

# Where the person stands in a path: `01/nm0000001_rm124825600_1899-5-10_1968.jpg`, `17/10000217_1981-05-05_2009.jpg`.
PERSON = {"imdb": r"(nm[0-9]+)[^/]*$", "wiki": r"([^/_]+)_[^/]*$"}


def load_arrays(path: Path, db: str) -> dict[str, np.ndarray]:
    """Read the `.mat` of a database.

    Returns:
        `FIELDS` -> `(n,)` arrays: numbers as stored, `full_path` an object array of one-element string arrays.

    Raises:
        UserError: the file is missing or damaged, or something else.
    """
    advice = f"fetch it with `./download.sh {db}`"
    if not path.is_file():
        raise UserError(f"{path} not found: {advice}")
    try:
        content = load_mat(path, *(f"{db}/{field}" for field in FIELDS))
        arrays = {field: content[f"{db}/{field}"].ravel() for field in FIELDS}
    except Exception as error:  # damaged files make scipy raise almost anything
        reason = f"{type(error).__name__} {error}"
        raise UserError(
            f"{path} must hold the struct `{db}`, got a damaged or another file ({reason}): {advice}"
        ) from error
    lengths = {field: len(values) for field, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{path} must have fields of one length, got {lengths}: {advice}")
    return arrays


def calculate_age(dob: np.ndarray, photo_taken: np.ndarray) -> np.ndarray:
    """Calculate ages in whole years, as if every photo were taken in the middle of its year.

    Args:
        dob: `(n,)` days of birth, MATLAB's serial days (1 is 1 January of year 0); below 367 they count as 1 January of
            year 1.
        photo_taken: `(n,)` years.

    Returns:
        `(n,)` float64: `photo_taken` less the year of birth, less 1 for those who are born in July or later.
    """
    days = np.where(np.isfinite(dob) & (dob >= FIRST_DAY), dob, FIRST_DAY).astype(np.int64)
    dates = (days - 719529).astype("datetime64[D]")  # 719529 is MATLAB's day number of 1 January 1970
    months = dates.astype("datetime64[M]").astype(np.int64)
    birth_year, birth_month = 1970 + months // 12, months % 12
    return photo_taken.astype(np.float64) - birth_year - (birth_month >= 6)


def label_table(arrays: dict[str, np.ndarray], min_score: float) -> pd.DataFrame:
    """Make a table of `load_arrays`' result, with all rows; see `read_imdb_wiki`. A NaN score breaks no rule."""
    ages, genders = calculate_age(arrays["dob"], arrays["photo_taken"]), arrays["gender"].astype(np.float64)
    return pd.DataFrame(
        {
            "img_paths": ["".join(cell.tolist()) for cell in arrays["full_path"]],
            "genders": genders,
            "ages": ages,
            "photo_taken": arrays["photo_taken"],
            "face_score": arrays["face_score"],
            "second_face_score": arrays["second_face_score"],
            "low_score": arrays["face_score"] < min_score,
            "second_face": arrays["second_face_score"] > 0,
            "bad_age": ~((ages >= 0) & (ages <= MAX_AGE)),
            "no_gender": np.isnan(genders),
        }
    )


def is_used(labels: pd.DataFrame) -> pd.Series:
    """Return a boolean mask of the rows that break no rule."""
    return ~labels[list(RULES)].any(axis=1)


def meta_table(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the used rows as they stand in a meta CSV: `genders` and `ages` as int64, `img_paths`."""
    table = labels.loc[is_used(labels), ["genders", "ages", "img_paths"]]
    return table.astype({"genders": np.int64, "ages": np.int64}).reset_index(drop=True)


def read_imdb_wiki(path: Path, db: str, min_score: float = 1.0) -> pd.DataFrame:
    """Read all raw labels of a database, before any row is dropped.

    Returns:
        `img_paths` (str), `person` (str), `genders` (float64, NaN unknown), `ages` (float64, years, label errors
        included), `photo_taken` (year), `face_score`, `second_face_score` (float64) and one boolean column for each
        key of `RULES`: the row falls to this rule.

    Raises:
        UserError: as `load_arrays`.
    """
    labels = label_table(load_arrays(path, db), min_score)
    return labels.assign(person=persons(labels["img_paths"], db))


def persons(paths: pd.Series, db: str) -> pd.Series:
    """Name the person of each image: IMDB's nm number, WIKI's page number; the path itself where it tells none."""
    return paths.str.extract(PERSON[db], expand=False).fillna(paths)


def create_db(db: str, min_score: float = 1.0, root: Path = ROOT, folder: Path | None = None) -> list[str]:
    """Build `meta/{db}.csv` from IMDB-WIKI, dropping unusable rows.

    Args:
        db: `imdb` or `wiki`.
        min_score: Minimum score of the face.
        root: Where `meta/` lies.
        folder: Where `{db}.mat` lies, by default `data/{db}_crop` below `root`.

    Returns:
        The lines to print: how many rows each rule dropped, and what was written.

    Raises:
        UserError: the `.mat` is missing or damaged, or no row is left.
    """
    source, output = (folder or root / "data" / f"{db}_crop") / f"{db}.mat", root / "meta" / f"{db}.csv"
    labels = label_table(load_arrays(source, db), min_score)
    table = meta_table(labels)
    if table.empty:
        raise UserError(f"no row of {source} passes the rules: lower --min_score ({min_score:g})")
    write_csv(table, output)
    counts = [f"{labels[rule].sum():9,} with {RULES[rule].format(min_score=min_score)}" for rule in RULES]
    return [
        f"{len(labels):9,} entries in {source}, not used (one entry can be so for several reasons):",
        *counts,
        f"{len(table):9,} used, written to {output}",
    ]
