"""Figures of evaluations and of data sets.

Every function returns a `matplotlib.figure.Figure` that no window knows of: a script saves it, a notebook shows it.
Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from src import metrics
from src.labels import GENDERS, MAX_AGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#555555"
GENDER_COLOURS = dict(zip(GENDERS, (ORANGE, BLUE), strict=True))


Ages = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""What the true age is called -> true and predicted ages in years; rows of unknown (NaN) true age are left out."""


def plot_scatter(ages: Ages) -> Figure:
    """Predicted against true age, a dot a picture, with the diagonal and each age group's mean; a panel an entry."""
    figure, panels = _figure(6 * len(ages), 6.4, columns=len(ages))
    for axes, (what, (true_age, predicted_age)) in zip(panels, ages.items(), strict=True):
        _draw_scatter(axes, what, *_known(true_age, predicted_age))
    return figure


def _draw_scatter(axes: Axes, what: str, true: np.ndarray, predicted: np.ndarray) -> None:
    limit = np.concatenate([true, predicted]).max(initial=MAX_AGE)
    ends = np.array([0, limit])
    axes.fill_between(ends, ends - 5, ends + 5, color=GREY, alpha=0.15, linewidth=0, label="off by 5 years or less")
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="exactly right", zorder=3)
    opacity = float(np.clip(600 / max(len(true), 1), 0.08, 0.7))
    axes.scatter(true, predicted, s=10, alpha=opacity, color=BLUE, linewidths=0, clip_on=False)
    means = _means_by_age_group(true, predicted)
    axes.plot(*means, "o-", color=ORANGE, markeredgecolor="black", label="mean of each age group", zorder=4)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.set(xlabel=f"{what} (years)", ylabel="predicted age (years)")
    axes.set_title(f"Predicted against {what}\n{_figures(true, predicted)}")
    axes.legend(loc="upper left", framealpha=0.9)


def plot_error_histogram(ages: Ages) -> Figure:
    """Histogram of predicted minus true age in bins of a year; a panel an entry."""
    figure, panels = _figure(6 * len(ages), 4, columns=len(ages))
    for axes, (what, (true_age, predicted_age)) in zip(panels, ages.items(), strict=True):
        _draw_error_histogram(axes, what, *_known(true_age, predicted_age))
    return figure


def _draw_error_histogram(axes: Axes, what: str, true: np.ndarray, predicted: np.ndarray) -> None:
    errors = predicted - true
    reach = max(10, int(np.ceil(np.abs(errors).max(initial=0))))
    axes.hist(errors, bins=np.arange(-reach - 0.5, reach + 1), color=BLUE)
    axes.axvline(0, color="black", linewidth=1)
    mean = metrics.mean_error(true, predicted)
    axes.axvline(mean, color=ORANGE, linestyle="--", label=f"mean error {mean:+.2f} years")
    axes.set(xlabel=f"predicted age - {what} (years)", ylabel="pictures per year of error")
    axes.set_title(f"Errors against {what}\n{_figures(true, predicted)}")
    axes.legend()


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure.savefig(path, dpi=120)


def plot_age_histograms(ages: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """One panel a database, in each the ages of women and of men.

    Args:
        ages: database -> gender (a name of `labels.GENDERS`) -> ages in years.
    """
    figure, panels = _figure(6 * len(ages), 3.6, columns=len(ages))
    for axes, (database, by_gender) in zip(panels, ages.items(), strict=True):
        labels = [f"{gender} ({len(np.asarray(values)):,})" for gender, values in by_gender.items()]
        colours = [GENDER_COLOURS[gender] for gender in by_gender]
        axes.hist(list(by_gender.values()), bins=np.arange(0, MAX_AGE + 6, 5), color=colours, label=labels)
        axes.set(title=f"{database}: ages", xlabel="age (years)", ylabel="pictures per 5 years", xlim=(0, MAX_AGE + 5))
        axes.legend()
    return figure


def plot_face_scores(scores: ArrayLike, min_score: float, database: str) -> Figure:
    """Histogram of a database's face scores, and the share of rows that each `min_score` keeps."""
    scores = np.asarray(scores, dtype=np.float64)
    finite = np.sort(scores[np.isfinite(scores)])
    figure, (left, right) = _figure(11, 3.6, columns=2)
    left.hist(finite, bins=40, color=BLUE)
    left.axvline(min_score, color=ORANGE, linestyle="--", label=f"min_score {min_score:g}")
    without = len(scores) - len(finite)
    left.set(
        title=f"{database}: face scores of {len(finite):,} rows ({without:,} have none)",
        xlabel="face score",
        ylabel="rows",
    )
    kept = 100 * np.arange(len(finite), 0, -1) / max(len(finite), 1)
    right.plot(finite, kept, color=BLUE)
    right.axvline(min_score, color=ORANGE, linestyle="--", label=f"min_score {min_score:g}")
    right.set(
        title=f"{database}: rows that min_score keeps",
        xlabel="min_score",
        ylabel="kept (% of rows with a score)",
        ylim=(0, 105),
    )
    for axes in (left, right):
        axes.legend()
    return figure


def plot_pictures_per_person(counts: ArrayLike, database: str) -> Figure:
    """How many persons of a database have how many pictures, both on logarithmic scales."""
    counts = np.asarray(counts)
    sizes, persons = np.unique(counts, return_counts=True)
    figure, (axes,) = _figure(6, 3.6)
    axes.loglog(sizes, persons, "o", color=BLUE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.set(  # limits: around a single dot matplotlib would show fractions of a picture, rounded to 0
        xlim=(0.8, 1.25 * sizes.max(initial=10)),
        ylim=(0.8, 1.25 * persons.max(initial=10)),
        title=f"{database}: {len(counts):,} persons, {int(counts.sum()):,} pictures",
        xlabel="pictures of a person",
        ylabel="persons",
    )
    return figure


def plot_faces(images: Sequence[np.ndarray | None], labels: Sequence[str], title: str, columns: int = 6) -> Figure:
    """A grid of pictures with a label below each.

    Args:
        images: uint8 RGB `(height, width, 3)`; None where a picture could not be read.
        labels: One for each picture.
    """
    rows = max(-(-len(images) // columns), 1)
    figure, grid = _figure(1.6 * columns, 2.0 * rows + 0.4, rows=rows, columns=columns)
    for axes in grid:
        axes.axis("off")
    for axes, image, label in zip(grid, images, labels, strict=False):
        axes.imshow(np.full((1, 1, 3), 230, np.uint8) if image is None else image)
        axes.set_title(label if image is not None else f"{label}\n(no picture)", fontsize=8)
    figure.suptitle(title)
    return figure


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure and a flat array of its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _known(true_age: ArrayLike, predicted_age: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true_age, dtype=np.float64), np.asarray(predicted_age, dtype=np.float64)
    known = ~np.isnan(true)
    return true[known], predicted[known]


def _means_by_age_group(true: np.ndarray, predicted: np.ndarray) -> tuple[list[float], list[float]]:
    groups = metrics.age_group_index(true)
    present = np.unique(groups[groups >= 0])
    return [true[groups == g].mean() for g in present], [predicted[groups == g].mean() for g in present]


def _figures(true: np.ndarray, predicted: np.ndarray) -> str:
    mae, cs5 = metrics.mean_absolute_error(true, predicted), metrics.cumulative_score(true, predicted)
    return f"n = {len(true):,}, MAE {mae:.2f} years, CS@5 {cs5:.3f}"
