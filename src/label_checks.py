"""Looks for what is wrong with IMDB-WIKI's labels: the work behind `check_dataset.ipynb`.

*Labels* are a table of `src.imdb_wiki.read_imdb_wiki`: all entries of a database, before any falls.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from src.cli import UserError
from src.images import ImageError, read_image
from src.imdb_wiki import RULES, read_imdb_wiki
from src.labels import FEMALE, GENDERS, MAX_AGE

PROBLEMS = ("age below 0", f"age above {MAX_AGE}", "one person, two genders", "one person, two birth dates")


def read_databases(folder: Path, databases: Iterable[str], min_score: float) -> dict[str, pd.DataFrame]:
    """Labels of those databases that lie in `folder` as `{db}_crop/{db}.mat`.

    Raises:
        UserError: none of them is there, or one is damaged.
    """
    files = {db: folder / f"{db}_crop" / f"{db}.mat" for db in databases}
    present = {db: path for db, path in files.items() if path.is_file()}
    if not present:
        raise UserError(f"expected {' or '.join(map(str, files.values()))}, found neither: run `./download.sh`")
    return {db: read_imdb_wiki(path, db, min_score) for db, path in present.items()}


def is_used(labels: pd.DataFrame) -> pd.Series:
    """Rows that break no rule."""
    return ~labels[list(RULES)].any(axis=1)


def count_rules(databases: dict[str, pd.DataFrame], min_score: float) -> pd.DataFrame:
    """Rows that fall to each rule (a row may fall to several), and rows that are used; a column a database."""
    counts = {}
    for db, labels in databases.items():
        rules = {text.format(min_score=min_score): int(labels[rule].sum()) for rule, text in RULES.items()}
        counts[db] = {"entries": len(labels), **rules, "used": int(is_used(labels).sum())}
    return pd.DataFrame(counts)


def ages_by_gender(databases: dict[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    """database -> name of the gender -> ages (years) of the used rows."""
    used = {db: labels[is_used(labels)] for db, labels in databases.items()}
    return {
        db: {name: rows.loc[rows["genders"] == gender, "ages"] for gender, name in enumerate(GENDERS)}
        for db, rows in used.items()
    }


def compare_min_scores(labels: pd.DataFrame, min_scores: Iterable[float] = (0, 1, 2, 3, 4, 5)) -> pd.DataFrame:
    """What each `min_score` would leave: rows, their share of all entries, persons and the share of women."""
    passes_others = ~labels[[rule for rule in RULES if rule != "low_score"]].any(axis=1)
    rows = []
    for score in min_scores:
        used = labels[passes_others & ~(labels["face_score"] < score)]
        women = (used["genders"] == FEMALE).mean() if len(used) else np.nan
        rows.append((score, len(used), len(used) / max(len(labels), 1), used["person"].nunique(), women))
    table = pd.DataFrame(rows, columns=["min_score", "used", "share of entries", "persons", "share of women"])
    return table.set_index("min_score").round(3)


def find_problems(labels: pd.DataFrame) -> pd.DataFrame:
    """Which labels cannot be true: boolean columns `PROBLEMS`.

    A person contradicts himself where his rows name both genders, or give more than one year of birth when read as
    `photo_taken - age`. Only rows with an age of 0..100 are compared, so that a missing date contradicts nothing.
    """
    persons, births = labels["person"], birth_years(labels)
    several_genders = labels["genders"].groupby(persons).transform("nunique") > 1
    several_births = births.groupby(persons).transform("nunique") > 1
    found = [
        labels["ages"] < 0,
        labels["ages"] > MAX_AGE,
        several_genders & labels["genders"].notna(),
        several_births & births.notna(),
    ]
    return pd.DataFrame(dict(zip(PROBLEMS, found, strict=True)))


def birth_years(labels: pd.DataFrame) -> pd.Series:
    """`photo_taken - age`, one number for one date of birth; NaN where the age is not within 0..100."""
    births = labels["photo_taken"].astype(np.float64) - labels["ages"]
    return births.where(labels["ages"].between(0, MAX_AGE))


def worst_labels(labels: pd.DataFrame, problem: str, count: int) -> pd.DataFrame:
    """Up to `count` rows with one of `PROBLEMS`: the strangest ages first; of contradictions, one row a claim."""
    rows = labels[find_problems(labels)[problem]]
    if problem.startswith("age"):
        return rows.sort_values("ages", key=lambda ages: -(ages - MAX_AGE / 2).abs(), kind="stable").head(count)
    claims = rows["genders"] if problem == PROBLEMS[2] else birth_years(rows)
    claims = pd.DataFrame({"person": rows["person"], "claim": claims}).drop_duplicates()
    return rows.loc[claims.sort_values(["person", "claim"]).index].head(count)


def sample(labels: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Up to `count` rows by chance, in the database's order."""
    return labels.sample(min(count, len(labels)), random_state=seed).sort_index()


def just_above(labels: pd.DataFrame, min_score: float, count: int) -> pd.DataFrame:
    """The `count` rows whose face score is the least from `min_score` on: what a lower limit would let in is worse."""
    return labels[labels["face_score"] >= min_score].nsmallest(count, "face_score")


def read_faces(rows: pd.DataFrame, folder: Path) -> tuple[list[np.ndarray | None], list[str]]:
    """Pictures (uint8 RGB; None where unreadable) and captions such as `F 34, score 2.1` of some labels.

    Args:
        folder: The database's `{db}_crop`.
    """
    images = [_read_or_none(folder / path) for path in rows["img_paths"]]
    letters = rows["genders"].map({gender: name[0].upper() for gender, name in enumerate(GENDERS)}).fillna("?")
    captions = [
        f"{letter} {age:.0f}, score {score:.1f}"
        for letter, age, score in zip(letters, rows["ages"], rows["face_score"], strict=True)
    ]
    return images, captions


def _read_or_none(path: Path) -> np.ndarray | None:
    try:
        return read_image(path)
    except ImageError:
        return None
