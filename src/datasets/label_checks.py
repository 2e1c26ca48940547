"""Check the labels of IMDB-WIKI for errors: the functions behind `check_dataset.ipynb`.

*Labels* are a table of `src.datasets.imdb_wiki.read_imdb_wiki`: all entries of a database, before any are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from src.cli import UserError
from src.datasets.imdb_wiki import RULES, is_used, read_imdb_wiki
from src.images import ImageError, read_image
from src.labels import FEMALE, GENDERS, MAX_AGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBLEMS = ("age below 0", f"age above {MAX_AGE}", "one person, two genders", "one person, two birth dates")


def read_databases(folder: Path, databases: Iterable[str], min_score: float) -> dict[str, pd.DataFrame]:
    """Read the labels of the databases that exist in `folder` as `{db}_crop/{db}.mat`.

    Raises:
        UserError: none of them exists, or one is damaged.
    """
    files = {db: folder / f"{db}_crop" / f"{db}.mat" for db in databases}
    present = {db: path for db, path in files.items() if path.is_file()}
    if not present:
        raise UserError(f"{' and '.join(map(str, files.values()))} not found: run `./download.sh`")
    return {db: read_imdb_wiki(path, db, min_score) for db, path in present.items()}


def count_rules(databases: dict[str, pd.DataFrame], min_score: float) -> pd.DataFrame:
    """Count the rows that each rule drops (a row may break several) and the used rows; one column per database."""
    counts = {}
    for db, labels in databases.items():
        rules = {text.format(min_score=min_score): int(labels[rule].sum()) for rule, text in RULES.items()}
        counts[db] = {"entries": len(labels), **rules, "used": int(is_used(labels).sum())}
    return pd.DataFrame(counts)


def ages_by_gender(databases: dict[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    """Map database -> name of the gender -> ages (years) of the used rows."""
    used = {db: labels[is_used(labels)] for db, labels in databases.items()}
    return {
        db: {name: rows.loc[rows["genders"] == gender, "ages"] for gender, name in enumerate(GENDERS)}
        for db, rows in used.items()
    }


def compare_min_scores(labels: pd.DataFrame, min_scores: Iterable[float] = (0, 1, 2, 3, 4, 5)) -> pd.DataFrame:
    """Count what each `min_score` keeps: rows, their share of all entries, persons, and the share of women."""
    passes_others = ~labels[[rule for rule in RULES if rule != "low_score"]].any(axis=1)
    rows = []
    for score in min_scores:
        used = labels[passes_others & ~(labels["face_score"] < score)]
        women = (used["genders"] == FEMALE).mean() if len(used) else np.nan
        rows.append((score, len(used), len(used) / max(len(labels), 1), used["person"].nunique(), women))
    table = pd.DataFrame(rows, columns=["min_score", "used", "share of entries", "persons", "share of women"])
    return table.set_index("min_score").round(3)


def find_problems(labels: pd.DataFrame) -> pd.DataFrame:
    """Find labels that cannot be true, as boolean columns `PROBLEMS`.

    Rows of one person contradict each other if they name both genders, or more than one year of birth
    (`photo_taken - age`). Only rows with an age of 0..100 are compared, so a missing date contradicts nothing.
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
    """Compute `photo_taken - age`, one value per date of birth; NaN where the age is not within 0..100."""
    births = labels["photo_taken"].astype(np.float64) - labels["ages"]
    return births.where(labels["ages"].between(0, MAX_AGE))


def worst_labels(labels: pd.DataFrame, problem: str, count: int) -> pd.DataFrame:
    """Return up to `count` rows with one of `PROBLEMS`: extreme ages first; for contradictions one row per claim."""
    rows = labels[find_problems(labels)[problem]]
    if problem.startswith("age"):
        return rows.sort_values("ages", key=lambda ages: -(ages - MAX_AGE / 2).abs(), kind="stable").head(count)
    claims = rows["genders"] if problem == PROBLEMS[2] else birth_years(rows)
    claims = pd.DataFrame({"person": rows["person"], "claim": claims}).drop_duplicates()
    return rows.loc[claims.sort_values(["person", "claim"]).index].head(count)


def sample(labels: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Draw up to `count` random rows, in the order of the database."""
    return labels.sample(min(count, len(labels)), random_state=seed).sort_index()


def just_above(labels: pd.DataFrame, min_score: float, count: int) -> pd.DataFrame:
    """Return the `count` rows with the lowest face scores that `min_score` still keeps."""
    return labels[labels["face_score"] >= min_score].nsmallest(count, "face_score")


def read_faces(rows: pd.DataFrame, folder: Path) -> tuple[list[np.ndarray | None], list[str]]:
    """Read images below `{db}_crop` (uint8 RGB; None: unreadable) and write captions such as `F 34, score 2.1`."""
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


BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#555555"
"""Okabe and Ito's, which people with any kind of color vision tell apart."""
GENDER_COLORS = dict(zip(GENDERS, (ORANGE, BLUE), strict=True))


def plot_age_histograms(ages: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Plot database -> gender (a name of `labels.GENDERS`) -> ages in years, one panel per database."""
    figure, panels = new_figure(3.5 * len(ages), 2.1, columns=len(ages))
    for axes, (database, by_gender) in zip(panels, ages.items(), strict=True):
        labels = [f"{gender} ({len(np.asarray(values)):,})" for gender, values in by_gender.items()]
        colors = [GENDER_COLORS[gender] for gender in by_gender]
        axes.hist(list(by_gender.values()), bins=np.arange(0, MAX_AGE + 6, 5), color=colors, label=labels)
        axes.set(title=f"{database}: ages", xlabel="age (years)", ylabel="images per 5 years", xlim=(0, MAX_AGE + 5))
        axes.legend(loc="upper right")
    return figure


def plot_face_scores(scores: ArrayLike, min_score: float, database: str) -> Figure:
    """Plot a histogram of face scores, and the share of rows that each `min_score` keeps."""
    scores = np.asarray(scores, dtype=np.float64)
    finite = np.sort(scores[np.isfinite(scores)])
    figure, (left, right) = new_figure(7, 2.1, columns=2)
    left.hist(finite, bins=40, color=BLUE)
    title = f"{database}: {len(finite):,} face scores ({len(scores) - len(finite):,} rows have none)"
    left.set(title=title, xlabel="face score", ylabel="rows")
    right.plot(finite, 100 * np.arange(len(finite), 0, -1) / max(len(finite), 1), color=BLUE)
    title = f"{database}: rows that min_score keeps"
    right.set(title=title, xlabel="min_score", ylabel="scored rows kept (%)", ylim=(0, 105))
    for axes in (left, right):
        axes.axvline(min_score, color=ORANGE, linestyle="--", label=f"min_score {min_score:g}")
        axes.legend(loc="upper right")
    return figure


def plot_images_per_person(counts: ArrayLike, database: str) -> Figure:
    """Plot how many persons have how many images, on logarithmic scales."""
    counts = np.asarray(counts)
    sizes, persons = np.unique(counts, return_counts=True)
    figure, (axes,) = new_figure(3.5, 2.1)
    axes.loglog(sizes, persons, "o", color=BLUE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.set(  # limits: around a single dot matplotlib would show fractions of an image, rounded to 0
        xlim=(0.8, 1.25 * sizes.max(initial=10)),
        ylim=(0.8, 1.25 * persons.max(initial=10)),
        title=f"{database}: {len(counts):,} persons, {int(counts.sum()):,} images",
        xlabel="images per person",
        ylabel="persons",
    )
    return figure


def plot_faces(images: Sequence[np.ndarray | None], labels: Sequence[str], title: str, columns: int = 6) -> Figure:
    """Plot a grid of images, uint8 RGB `(height, width, 3)` or None (could not be read), with a label above each."""
    columns = max(min(columns, len(images)), 1)
    rows = max(-(-len(images) // columns), 1)
    figure, grid = new_figure(0.95 * columns, 1.2 * rows + 0.25, rows=rows, columns=columns)
    for axes in grid:
        axes.axis("off")
    for axes, image, label in zip(grid, images, labels, strict=False):
        axes.imshow(np.full((1, 1, 3), 230, np.uint8) if image is None else image, interpolation="bilinear")
        axes.set_title(label if image is not None else f"{label}\n(no image)", fontsize=6.5)
    figure.suptitle(title)
    return figure


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """Create a figure (inches) and a flat array of its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()
