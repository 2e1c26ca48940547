"""Metrics of predicted ages and genders, and tables of them by group.

Arrays are one-dimensional and of equal length. NaN in a *true* value and -1 as a *true* group mean unknown: that metric
skips the row. A metric over no rows is NaN. Ages are years, genders 0 (female) or 1 (male), age groups are indices (see
`age_groups.py`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from src.labels import MALE, MALE_FROM

ADULT_AGE = 18


def mean_absolute_error(true_age: ArrayLike, predicted_age: ArrayLike) -> float:
    """Return the mean of |predicted - true|, years."""
    return _mean(np.abs(_errors(true_age, predicted_age)))


def mean_error(true_age: ArrayLike, predicted_age: ArrayLike) -> float:
    """Return the mean of predicted - true, years: above 0, people are taken for older than they are."""
    return _mean(_errors(true_age, predicted_age))


def cumulative_score(true_age: ArrayLike, predicted_age: ArrayLike, k: float = 5) -> float:
    """Return CS@k: the share of ages off by at most `k` years (Geng et al., "Automatic age estimation", 2007)."""
    errors = _errors(true_age, predicted_age)
    return _mean(np.where(np.isnan(errors), np.nan, np.abs(errors) <= k))


def epsilon_error(mean: ArrayLike, std: ArrayLike, predicted_age: ArrayLike) -> float:
    """Return the error of the ChaLearn LAP age challenges: mean of `1 - exp(-(x - mean)**2 / (2 * std**2))`.

    The smaller the spread of the votes, the larger the penalty for an error (Escalera et al., "ChaLearn Looking at
    People 2015", ICCVW 2015).

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
    """Return the share of correct genders; a probability of 0.5 or more means male."""
    return _mean(_gender_hits(true_gender, male_probability))


def called_adult(true_age: ArrayLike, predicted_age: ArrayLike, below: float = ADULT_AGE) -> float:
    """Return the share of those truly younger than `below` who are taken for 18 or older.

    Where only a range is known, `true_age` is its last year.
    """
    true_age, predicted_age = np.asarray(true_age, dtype=np.float64), np.asarray(predicted_age, dtype=np.float64)
    return _mean((predicted_age >= ADULT_AGE)[true_age < below].astype(np.float64))


def group_accuracy(true_group: ArrayLike, predicted_group: ArrayLike, tolerance: int = 0) -> float:
    """Return the share of predicted age groups that are at most `tolerance` groups off."""
    true_group = np.asarray(true_group)
    near = np.abs(np.asarray(predicted_group) - true_group) <= tolerance
    return _mean(near[true_group >= 0].astype(np.float64))


def confusion_matrix(true_group: ArrayLike, predicted_group: ArrayLike, count: int) -> np.ndarray:
    """Count the rows of each true (first axis) and predicted age group: `(count, count)` int."""
    true_group, predicted_group = np.asarray(true_group), np.asarray(predicted_group)
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (true_group[true_group >= 0], predicted_group[true_group >= 0]), 1)
    return matrix


def reliability_table(true_gender: ArrayLike, male_probability: ArrayLike, bins: int = 5) -> pd.DataFrame:
    """Tabulate how often the gender is right by the model's confidence (Guo et al., "On calibration ...", ICML 2017).

    The confidence is the probability of the predicted gender, 0.5..1, cut into `bins` equal parts.

    Returns:
        One row per part that has images of known gender and probability: `confidence_from`, `confidence_to`, `n`,
        `confidence` (mean) and `accuracy` (share right).
    """
    confidence = np.abs(np.asarray(male_probability, dtype=np.float64) - 0.5) + 0.5
    rows = pd.DataFrame({"confidence": confidence, "accuracy": _gender_hits(true_gender, male_probability)}).dropna()
    rows["part"] = np.minimum(((rows["confidence"] - 0.5) * 2 * bins).astype(int), bins - 1)
    table = rows.groupby("part").agg(
        n=("part", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    limits = {"confidence_from": 0.5 + table.index / (2 * bins), "confidence_to": 0.5 + (table.index + 1) / (2 * bins)}
    return pd.DataFrame(limits, table.index).join(table).reset_index(drop=True)


def expected_calibration_error(reliability: pd.DataFrame) -> float:
    """Return the mean gap between confidence and accuracy of a `reliability_table`, weighted by n; 0 is best."""
    if reliability.empty:
        return float("nan")
    return float(np.average((reliability.confidence - reliability.accuracy).abs(), weights=reliability.n))


def table_by_group(predictions: pd.DataFrame, groups: ArrayLike, names: Sequence[str]) -> pd.DataFrame:
    """Tabulate the metrics of each group of rows, and of all rows that have a group.

    Args:
        predictions: Columns `age`, `gender` (true, NaN = unknown), `predicted_age`, `male_probability`, and, to be
            judged by age groups, `age_group` (true, -1 = unknown) and `predicted_group`.
        groups: Per row, an index into `names`; negative: in no group.
        names: The groups in the order in which they are listed.

    Returns:
        One row per group that has images and a last row `all`: `group`, `n`, `mae`, `bias` (mean error), `cs5`,
        `group_accuracy`, `within_one_group`, `gender_accuracy`.
    """
    groups = np.asarray(groups)
    parts = [(name, groups == index) for index, name in enumerate(names)] + [("all", groups >= 0)]
    parts = [(name, predictions[chosen]) for name, chosen in parts if chosen.any()]
    return pd.DataFrame([{"group": name, "n": len(rows)} | of_rows(rows) for name, rows in parts])


def of_rows(rows: pd.DataFrame) -> dict[str, float]:
    """Compute the metrics of the rows of one group, keys as the columns of `table_by_group` from `mae` on."""
    true, predicted = rows["age"], rows["predicted_age"]
    true_group = rows["age_group"] if "age_group" in rows else np.full(len(rows), -1)
    predicted_group = rows["predicted_group"] if "age_group" in rows else true_group
    return {
        "mae": mean_absolute_error(true, predicted),
        "bias": mean_error(true, predicted),
        "cs5": cumulative_score(true, predicted),
        "group_accuracy": group_accuracy(true_group, predicted_group),
        "within_one_group": group_accuracy(true_group, predicted_group, tolerance=1),
        "gender_accuracy": gender_accuracy(rows["gender"], rows["male_probability"]),
    }


def _errors(true_age: ArrayLike, predicted_age: ArrayLike) -> np.ndarray:
    return np.asarray(predicted_age, dtype=np.float64) - np.asarray(true_age, dtype=np.float64)


def _gender_hits(true_gender: ArrayLike, male_probability: ArrayLike) -> np.ndarray:
    """1 right, 0 wrong, NaN where the gender is unknown."""
    true_gender = np.asarray(true_gender, dtype=np.float64)
    hits = (np.asarray(male_probability, dtype=np.float64) >= MALE_FROM) == (true_gender == MALE)
    return np.where(np.isnan(true_gender), np.nan, hits)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
