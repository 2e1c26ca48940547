"""What the two heads of the model are taught: distributions over classes, and how much each row counts.

Rows are those of a table (`datasets/table.py`): NaN is an unknown label, whose weight is 0 and whose target is uniform.
"""

import numpy as np
import pandas as pd

from src import labels
from src.cli import UserError
from src.labels import AGE_CLASSES

AGE_TARGETS = ("onehot", "gaussian")
# Votes that all agree still leave half a class of doubt; it also keeps the density away from a division by zero.
_SMALLEST_SPREAD = 0.5


def gender_targets(genders: np.ndarray) -> np.ndarray:
    """One-hot genders.

    Args:
        genders: `(n,)`, 0, 1 or NaN.

    Returns:
        `(n, 2)` float32, rows sum to 1.
    """
    classes = np.arange(len(labels.GENDERS))
    onehot = (genders[:, np.newaxis] == classes).astype(np.float32)
    onehot[np.isnan(genders)] = 1 / len(classes)
    return onehot


def age_targets(
    ages: np.ndarray, kind: str = "onehot", sigma: float = 2.0, spreads: np.ndarray | None = None
) -> np.ndarray:
    """Distributions over the 101 age classes.

    "onehot" is one class; an age between two whole years is split between them so that the expectation is the age.
    "gaussian" is the label distribution of DLDL (Gao et al., "Deep Label Distribution Learning with Label Ambiguity",
    arXiv 1611.01731): a normal density around the age, taken at the whole years 0..100 and normalised. Where the spread
    of the votes is known the target is such a density of this spread, whatever the kind.

    Args:
        ages: `(n,)` years or NaN; above 100 counts as 100, below 0 as 0.
        kind: One of `AGE_TARGETS`.
        sigma: Standard deviation of "gaussian" in years, above 0.
        spreads: `(n,)` standard deviation of the votes in years, below 0.5 taken for 0.5; NaN where it is unknown.

    Returns:
        `(n, 101)` float32, rows sum to 1.
    """
    if kind not in AGE_TARGETS or sigma <= 0:
        raise UserError(
            f"expected an age target out of {', '.join(AGE_TARGETS)} with a sigma above 0, received {kind} with"
            f" {sigma:g}; correct it"
        )
    unknown = np.isnan(ages)
    ages = np.clip(np.where(unknown, 0, ages), 0, labels.MAX_AGE)
    distance = np.arange(labels.AGE_CLASSES) - ages[:, np.newaxis]  # (n, 101) years
    targets = np.maximum(1 - np.abs(distance), 0) if kind == "onehot" else _density(distance, np.full(len(ages), sigma))
    if spreads is not None:
        voted = ~np.isnan(spreads)
        targets[voted] = _density(distance[voted], np.maximum(spreads[voted], _SMALLEST_SPREAD))
    targets[unknown] = 1
    return (targets / targets.sum(axis=1, keepdims=True)).astype(np.float32)


def _density(distance: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Normal densities, not normalised: `distance` `(n, 101)` and `width` `(n,)` in years."""
    return np.exp(-0.5 * (distance / width[:, np.newaxis]) ** 2)


def gender_weights(genders: np.ndarray) -> np.ndarray:
    """`(n,)` float32: 1 where the gender is known, else 0."""
    return np.isfinite(genders).astype(np.float32)


def age_weights(ages: np.ndarray, class_weights: np.ndarray | None = None) -> np.ndarray:
    """`(n,)` float32: the weight of the age's class (1 without `class_weights`, `(101,)`), 0 where it is unknown."""
    known = np.isfinite(ages)
    if class_weights is None:
        return known.astype(np.float32)
    classes = np.clip(np.rint(np.where(known, ages, 0)), 0, labels.MAX_AGE).astype(int)
    return np.where(known, class_weights[classes], 0).astype(np.float32)


def age_class_weights(ages: pd.Series, power: float) -> np.ndarray | None:
    """Weights for rare ages: `frequency ** -power`, with mean 1 over the rows.

    The frequency is smoothed over neighbouring years (Yang et al., "Delving into Deep Imbalanced Regression", arXiv
    2102.09554), so that an age with one picture does not outweigh its neighbours.

    Returns:
        `(101,)` float64, or None for power 0.
    """
    if not 0 <= power <= 1:
        raise UserError(f"expected train.age_class_weights in 0..1, received {power}; use for instance 0.5")
    known = ages.dropna().round().astype(int).to_numpy()
    if power == 0 or known.size == 0:
        return None
    counts = np.bincount(known, minlength=AGE_CLASSES).astype(float)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
    class_weights = np.maximum(smooth, smooth[smooth > 0].min()) ** -power
    return class_weights / class_weights[known].mean()
