"""Plots of evaluations.

Every function returns a `matplotlib.figure.Figure` that no window knows of: a script saves it, a notebook shows it.
Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from src.datasets import BLUE, GREY, ORANGE, new_figure
from src.evaluation import metrics
from src.evaluation.age_groups import FAIRFACE
from src.files import write_whole
from src.labels import MAX_AGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Ages = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""What the true age is called -> true and predicted ages in years; rows of unknown (NaN) true age are skipped."""


def plot_scatter(ages: Ages) -> Figure:
    """Plot predicted against true age, one dot per image, with each age group's mean; one panel per entry."""
    return _plot_panels(ages, 6.4, _draw_scatter)


def plot_error_histogram(ages: Ages) -> Figure:
    """Plot a histogram of predicted minus true age in bins of a year; one panel per entry."""
    return _plot_panels(ages, 4, _draw_error_histogram)


def _plot_panels(ages: Ages, height: float, draw: Callable[[Axes, str, np.ndarray, np.ndarray], None]) -> Figure:
    figure, panels = new_figure(6 * len(ages), height, columns=len(ages))
    for axes, (what, (true_age, predicted_age)) in zip(panels, ages.items(), strict=True):
        draw(axes, what, *_known(true_age, predicted_age))
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
    axes.set_title(f"Predicted against {what}\n{_metrics_text(true, predicted)}")
    axes.legend(loc="upper left", framealpha=0.9)


def _draw_error_histogram(axes: Axes, what: str, true: np.ndarray, predicted: np.ndarray) -> None:
    errors = predicted - true
    reach = max(10, int(np.ceil(np.abs(errors).max(initial=0))))
    axes.hist(errors, bins=[edge - 0.5 for edge in range(-reach, reach + 2)], color=BLUE)
    axes.axvline(0, color="black", linewidth=1)
    mean = metrics.mean_error(true, predicted)
    axes.axvline(mean, color=ORANGE, linestyle="--", label=f"mean error {mean:+.2f} years")
    axes.set(xlabel=f"predicted age - {what} (years)", ylabel="images per year of error")
    axes.set_title(f"Errors against {what}\n{_metrics_text(true, predicted)}")
    axes.legend(loc="upper right")


def plot_confusion(groups: Sequence[str], counts: ArrayLike) -> Figure:
    """Plot a confusion matrix of age groups: per true group, the percentages of the predicted groups.

    Args:
        groups: Names of the groups, youngest first.
        counts: `(n, n)` images by true (first axis) and predicted group, see `metrics.confusion_matrix`.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, np.newaxis]
    side = 1.6 + 0.62 * len(groups)
    figure, (axes,) = new_figure(side + 0.9, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in np.argwhere(counts):
        share = shares[true, predicted]
        colour = "white" if share > 0.5 else "black"
        axes.text(predicted, true, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(groups)), groups, rotation=45)
    axes.set_yticks(range(len(groups)), [f"{name}  (n = {n:,})" for name, n in zip(groups, totals, strict=True)])
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set(xlabel="predicted age group", ylabel="true age group")
    axes.set_title(f"Age groups, % of each true group\nn = {counts.sum():,}, exact {right:.3f}")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG.

    Raises:
        OSError: The file cannot be written; an older one is as it was.
    """
    with write_whole(path) as part:
        figure.savefig(part, dpi=120)


def _known(true_age: ArrayLike, predicted_age: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true_age, dtype=np.float64), np.asarray(predicted_age, dtype=np.float64)
    known = ~np.isnan(true)
    return true[known], predicted[known]


def _means_by_age_group(true: np.ndarray, predicted: np.ndarray) -> tuple[list[float], list[float]]:
    groups = FAIRFACE.nearest(true)
    present = np.unique(groups[groups >= 0])
    return [true[groups == g].mean() for g in present], [predicted[groups == g].mean() for g in present]


def _metrics_text(true: np.ndarray, predicted: np.ndarray) -> str:
    mae, cs5 = metrics.mean_absolute_error(true, predicted), metrics.cumulative_score(true, predicted)
    return f"n = {len(true):,}, MAE {mae:.2f} years, CS@5 {cs5:.3f}"
