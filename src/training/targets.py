"""What the two heads of the model are taught: distributions over classes, and how much each row counts.

Rows are those of a table (`datasets/table.py`): NaN is an unknown label, whose weight is 0 and whose target is uniform.
"""

import numpy as np
import pandas as pd

from src import labels
from src.cli import UserError

AGE_TARGETS = ("onehot", "gaussian")


def gender_targets(genders: np.ndarray) -> np.ndarray:
    """Encode genders `(n,)`, 0, 1 or NaN, one-hot: `(n, 2)` float32, rows sum to 1."""
    classes = np.arange(len(labels.GENDERS))
    onehot = (genders[:, np.newaxis] == classes).astype(np.float32)
    onehot[np.isnan(genders)] = 1 / len(classes)
    return onehot


def age_targets(
    ages: np.ndarray, kind: str = "onehot", sigma: float = 2.0, spreads: np.ndarray | None = None
) -> np.ndarray:
    """Build distributions over the 101 age classes.

    "onehot" is one class. "gaussian" is the label distribution of DLDL (Gao et al., "Deep Label Distribution Learning
    with Label Ambiguity", arXiv 1611.01731): a normal density around the age, taken at whole years and normalised.
    Where the spread of the votes is known the target is such a density of this spread, whatever the kind.

    The expectation is always the age, unlike in the paper near 0 and 100: there a density is cut equally far below and
    above the age. The target of an age between two whole years is a mix of theirs.

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
            f"the age target must be one of {', '.join(AGE_TARGETS)} with a sigma > 0, got {kind} with {sigma:g}"
        )
    widths = np.full(len(ages), sigma if kind == "gaussian" else 0.0)
    if spreads is not None:  # votes that all agree still leave half a class of doubt
        widths = np.where(np.isnan(spreads), widths, np.maximum(spreads, 0.5))
    unknown = np.isnan(ages)
    ages = np.clip(np.where(unknown, 0, ages), 0, labels.MAX_AGE)
    below = np.floor(ages)
    above = np.minimum(below + 1, labels.MAX_AGE)
    share = (ages - below)[:, np.newaxis]
    targets = (1 - share) * _densities(below, widths) + share * _densities(above, widths)
    targets[unknown] = 1 / labels.AGE_CLASSES
    return targets.astype(np.float32)


def _densities(ages: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Compute normal densities around whole ages, cut equally far on both sides: `(n, 101)`, rows sum to 1.

    Args:
        ages: `(n,)` whole years 0..100.
        widths: `(n,)` standard deviations in years; 0 is one class.
    """
    distance = np.abs(np.arange(labels.AGE_CLASSES) - ages[:, np.newaxis])  # (n, 101) years
    reach = np.minimum(ages, labels.MAX_AGE - ages)[:, np.newaxis]
    widths = np.maximum(widths, 1e-3)[:, np.newaxis]
    densities = np.where(distance <= reach, np.exp(-0.5 * (distance / widths) ** 2), 0)
    return densities / densities.sum(axis=1, keepdims=True)


def has_ranges(table: pd.DataFrame) -> bool:
    """Tell whether a table knows the age of some rows only as a range."""
    return labels.AGE_RANGE_COLUMNS[0] in table and bool(table[labels.AGE_RANGE_COLUMNS[0]].notna().any())


def age_ranges(age_min: np.ndarray, age_max: np.ndarray) -> np.ndarray:
    """Mark the age classes within ranges.

    Args:
        age_min: `(n,)` years, inclusive; NaN where no range is known.
        age_max: `(n,)` years, inclusive; above 100 counts as 100.

    Returns:
        `(n, 101)` float32: 1 within the range, 0 elsewhere; a row without a range is 0.
    """
    years = np.arange(labels.AGE_CLASSES)
    lowest = np.minimum(age_min, labels.MAX_AGE)[:, np.newaxis]  # NaN compares as false
    return ((years >= lowest) & (years <= age_max[:, np.newaxis])).astype(np.float32)


def table_ranges(table: pd.DataFrame) -> np.ndarray:
    """Mark the age classes within the ranges of a table; see `age_ranges`."""
    return age_ranges(*(table[column].to_numpy(np.float64) for column in labels.AGE_RANGE_COLUMNS))


def join_ranges(distributions: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Join exact ages and ranges into the age target of a table that has both.

    Args:
        distributions: `(n, 101)` of `age_targets`.
        ranges: `(n, 101)` of `age_ranges`.

    Returns:
        `(n, 303)` float32 in three blocks of 101: the distribution of a row with an exact age, else 0; the range of a
        row with a range, else 0; 0, where mixup puts the range of the partner. See `losses.py`.
    """
    exact = ~ranges.any(axis=1, keepdims=True)
    return np.concatenate([distributions * exact, ranges, np.zeros_like(ranges)], axis=1)


def blend(
    targets: tuple[np.ndarray, np.ndarray], predictions: tuple[np.ndarray, np.ndarray], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blend what other networks predict into targets (Hinton et al., "Distilling the Knowledge", arXiv 1503.02531).

    Cross entropy is linear in the target: the loss of a row is the mix of the losses by label and by prediction. A
    range keeps its own loss, scaled by its share. The error of the expected age is measured from that of the blend.
    Weights stay: without a label a row learns nothing from a prediction.

    Args:
        targets: Genders `(n, 2)` and ages `(n, 101)` or `(n, 303)`, see `join_ranges`.
        predictions: `(n, 2)` and `(n, 101)`, rows sum to 1; NaN where there is none, which leaves the label alone.
        share: Of the predictions, 0..1.

    Returns:
        Float32, of the shapes of `targets`.
    """
    blended = []
    for target, predicted in zip(targets, predictions, strict=True):
        known = ~np.isnan(predicted).any(axis=1)
        values = target.astype(np.float32)
        values[known] *= 1 - share
        values[known, : predicted.shape[1]] += share * predicted[known]
        blended.append(values)
    genders, ages = blended
    return genders, ages


def mix_age_targets(targets: np.ndarray, share: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Mix age targets so that the loss of a mixed row is the mix of both rows' losses, as mixup defines it.

    Cross entropy is linear in the distribution; the loss of a range is not, so both ranges are kept, each scaled by its
    share.

    Args:
        targets: `(n, 101)` or `(n, 303)`, see `join_ranges`.
        share: `(n,)` float32, the row's own share, 0..1.
        partner: `(n,)` row numbers.
    """
    own, other = share[:, np.newaxis], 1 - share[:, np.newaxis]
    if targets.shape[1] == labels.AGE_CLASSES:
        return targets * own + targets[partner] * other
    distributions, ranges, _ = np.split(targets, 3, axis=1)
    mixed = distributions * own + distributions[partner] * other
    return np.concatenate([mixed, ranges * own, ranges[partner] * other], axis=1)


def gender_weights(genders: np.ndarray) -> np.ndarray:
    """Weigh the rows of the gender head: `(n,)` float32, 1 where the gender is known, else 0."""
    return np.isfinite(genders).astype(np.float32)


def age_weights(
    ages: np.ndarray, class_weights: np.ndarray | None = None, ranges: np.ndarray | None = None
) -> np.ndarray:
    """Weigh the rows of the age head.

    Args:
        ages: `(n,)` years or NaN.
        class_weights: `(101,)`, or None for 1.
        ranges: `(n, 101)` of `age_ranges`, or None where the table has none.

    Returns:
        `(n,)` float32: the weight of the age's class, the mean weight within the range, 0 where nothing is known.
    """
    class_weights = np.ones(labels.AGE_CLASSES) if class_weights is None else class_weights
    known = np.isfinite(ages)
    classes = np.clip(np.rint(np.where(known, ages, 0)), 0, labels.MAX_AGE).astype(int)
    weights = np.where(known, class_weights[classes], 0)
    if ranges is not None:
        has_range = ranges.any(axis=1)
        weights[has_range] = ranges[has_range] @ class_weights / ranges[has_range].sum(axis=1)
    return weights.astype(np.float32)


def age_class_weights(table: pd.DataFrame, power: float) -> np.ndarray | None:
    """Compute weights for rare ages: `frequency ** -power`, with mean 1 over the rows.

    The frequency is smoothed over neighbouring years (Yang et al., "Delving into Deep Imbalanced Regression", arXiv
    2102.09554), so that an age with one image does not outweigh its neighbours.

    Returns:
        `(101,)` float64, or None for power 0.
    """
    counts = age_counts(table)
    if power == 0 or not counts.any():
        return None
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    inside = np.convolve(np.ones_like(counts), kernel, mode="same")  # the part of the kernel within 0..100
    smooth = np.convolve(counts, kernel, mode="same") / inside
    class_weights = np.maximum(smooth, smooth[smooth > 0].min()) ** -power
    return class_weights / (class_weights @ counts / counts.sum())


def age_counts(table: pd.DataFrame) -> np.ndarray:
    """Count the rows of each age, `(101,)` float64; a range counts in equal parts for each of its ages."""
    counts = np.bincount(table["age"].dropna().round().astype(int), minlength=labels.AGE_CLASSES).astype(float)
    if has_ranges(table):
        ranges = table_ranges(table)
        counts += (ranges / np.maximum(ranges.sum(axis=1, keepdims=True), 1)).sum(axis=0)
    return counts
