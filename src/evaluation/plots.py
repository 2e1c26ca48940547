"""Figures of evaluations.

Every function returns a `matplotlib.figure.Figure` that no window knows of: a script saves it, a notebook shows it.
Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from src.datasets import BLUE, GREY, ORANGE, new_figure
from src.evaluation import metrics
from src.labels import MAX_AGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Ages = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""What the true age is called -> true and predicted ages in years; rows of unknown (NaN) true age are left out."""


def plot_scatter(ages: Ages) -> Figure:
    """Predicted against true age, a dot a picture, with the diagonal and each age group's mean; a panel an entry."""
    figure, panels = new_figure(6 * len(ages), 6.4, columns=len(ages))
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
    figure, panels = new_figure(6 * len(ages), 4, columns=len(ages))
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
