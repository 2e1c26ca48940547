"""Figures of how good predicted ages and genders are, and tables of them by group.

Arrays are one-dimensional and of equal length. NaN in a *true* value means that nobody knows it: the row counts for
nothing in that figure. A figure over no rows is NaN. Ages are years, genders 0 (female) or 1 (male).
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from src.labels import MALE

AGE_GROUP_STARTS = (0, 3, 10, 20, 30, 40, 50, 60, 70)
"""First year of each age group; a group ends below the next one's start, the last one is open."""
AGE_GROUPS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
ADULT_AGE = 18


def mean_absolute_error(true_age: ArrayLike, predicted_age: ArrayLike) -> float:
    """Mean of |predicted - true|, years."""
    return _mean(np.abs(_errors(true_age, predicted_age)))


def mean_error(true_age: ArrayLike, predicted_age: ArrayLike) -> float:
    """Mean of predicted - true, years: above 0, people are taken for older than they are."""
    return _mean(_errors(true_age, predicted_age))


def cumulative_score(true_age: ArrayLike, predicted_age: ArrayLike, k: float = 5) -> float:
    """CS@k: share of rows whose age is off by at most `k` years (Geng et al., "Automatic age estimation", 2007)."""
    errors = _errors(true_age, predicted_age)
    return _mean(np.where(np.isnan(errors), np.nan, np.abs(errors) <= k))


def epsilon_error(mean: ArrayLike, std: ArrayLike, predicted_age: ArrayLike) -> float:
    """The error of the ChaLearn LAP age challenges: mean of `1 - exp(-(x - mean)**2 / (2 * std**2))`.

    A miss costs the more the better the voters agreed (Escalera et al., "ChaLearn Looking at People 2015", ICCVW 2015).

    Args:
        mean: Mean of the votes, years.
        std: Spread of the votes, years; where it is 0, only a hit costs nothing. NaN: the row does not count.
        predicted_age: Years.

    Returns:
        0 (all hit) .. 1.
    """
    errors, std = _errors(mean, predicted_age), np.asarray(std, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = np.where(errors == 0, errors * std, errors / std)
    return _mean(1 - np.exp(-(deviations**2) / 2))


def gender_accuracy(true_gender: ArrayLike, male_probability: ArrayLike) -> float:
    """Share of rows whose gender is right; a probability of 0.5 or more means male."""
    return _mean(_gender_hits(true_gender, male_probability))


def called_adult(true_age: ArrayLike, predicted_age: ArrayLike, below: float = ADULT_AGE) -> float:
    """Share of those truly younger than `below` who are taken for 18 or older."""
    true_age, predicted_age = np.asarray(true_age, dtype=np.float64), np.asarray(predicted_age, dtype=np.float64)
    return _mean((predicted_age >= ADULT_AGE)[true_age < below].astype(np.float64))


def age_group_index(ages: ArrayLike) -> np.ndarray:
    """Index into `AGE_GROUPS` per age, as integers; -1 where the age is unknown or below 0."""
    ages = np.asarray(ages, dtype=np.float64)
    return np.where(np.isnan(ages), -1, np.searchsorted(AGE_GROUP_STARTS, ages, side="right") - 1)


def within_one_group(true_group: ArrayLike, predicted_age: ArrayLike) -> float:
    """Share of rows whose predicted age falls into the true age group or one beside it.

    Args:
        true_group: Indices into `AGE_GROUPS`; -1: unknown.
        predicted_age: Years.
    """
    true_group = np.asarray(true_group)
    near = np.abs(age_group_index(predicted_age) - true_group) <= 1
    return _mean(near[true_group >= 0].astype(np.float64))


def reliability_table(true_gender: ArrayLike, male_probability: ArrayLike, bins: int = 5) -> pd.DataFrame:
    """How often the gender is right, by how sure the model was (Guo et al., "On calibration ...", ICML 2017).

    The model's confidence is the probability of the gender that it chose, 0.5..1, cut into `bins` equal parts.

    Returns:
        One row a part, those without a picture left out: `confidence_from`, `confidence_to`, `n`, `confidence` (mean)
        and `accuracy` (share right).
    """
    hits = _gender_hits(true_gender, male_probability)
    confidence = np.abs(np.asarray(male_probability, dtype=np.float64) - 0.5) + 0.5
    part = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    rows = []
    for index in range(bins):
        chosen = (part == index) & ~np.isnan(hits)
        if chosen.any():
            low, high = 0.5 + index / (2 * bins), 0.5 + (index + 1) / (2 * bins)
            rows.append((low, high, int(chosen.sum()), float(confidence[chosen].mean()), float(hits[chosen].mean())))
    return pd.DataFrame(rows, columns=["confidence_from", "confidence_to", "n", "confidence", "accuracy"])


def expected_calibration_error(reliability: pd.DataFrame) -> float:
    """Mean gap between confidence and accuracy over the rows of `reliability_table`, weighted by their n; 0 is best."""
    if reliability.empty:
        return float("nan")
    return float(np.average((reliability.confidence - reliability.accuracy).abs(), weights=reliability.n))


def table_by_group(predictions: pd.DataFrame, groups: ArrayLike, names: tuple[str, ...]) -> pd.DataFrame:
    """Figures of each group of rows, and of all rows that have a group.

    Args:
        predictions: Columns `age`, `gender` (true, NaN = unknown), `predicted_age`, `male_probability`.
        groups: Per row, an index into `names`; negative: in no group.
        names: The groups in the order in which they are listed.

    Returns:
        One row a group that has pictures and a last row `all`: `group`, `n`, `mae`, `bias` (mean error), `cs5`,
        `gender_accuracy`.
    """
    groups = np.asarray(groups)
    parts = [(name, groups == index) for index, name in enumerate(names)] + [("all", groups >= 0)]
    rows = [(name, int(chosen.sum()), *_figures(predictions[chosen])) for name, chosen in parts if chosen.any()]
    return pd.DataFrame(rows, columns=["group", "n", "mae", "bias", "cs5", "gender_accuracy"])


def _figures(rows: pd.DataFrame) -> tuple[float, float, float, float]:
    true, predicted = rows["age"], rows["predicted_age"]
    return (
        mean_absolute_error(true, predicted),
        mean_error(true, predicted),
        cumulative_score(true, predicted),
        gender_accuracy(rows["gender"], rows["male_probability"]),
    )


def _errors(true_age: ArrayLike, predicted_age: ArrayLike) -> np.ndarray:
    return np.asarray(predicted_age, dtype=np.float64) - np.asarray(true_age, dtype=np.float64)


def _gender_hits(true_gender: ArrayLike, male_probability: ArrayLike) -> np.ndarray:
    """1 right, 0 wrong, NaN where the gender is unknown."""
    true_gender = np.asarray(true_gender, dtype=np.float64)
    hits = (np.asarray(male_probability, dtype=np.float64) >= 0.5) == (true_gender == MALE)
    return np.where(np.isnan(true_gender), np.nan, hits)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
