"""Age groups, by which ages known as ranges are judged: FairFace's nine, or a table's own ranges."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from src.labels import AGE_GROUPS, MAX_AGE


@dataclass(frozen=True)
class AgeGroups:
    """Groups of whole years, each with its first and last, both inclusive, in ascending order.

    Years between two groups may belong to none. A last year of 100 is an open end.
    """

    ranges: tuple[tuple[int, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Such as `("0-2", ..., "70+")`."""
        return tuple(f"{first}+" if last == MAX_AGE else f"{first}-{last}" for first, last in self.ranges)

    def nearest(self, ages: ArrayLike) -> np.ndarray:
        """Return the index of the group nearest to each age (years), -1 where the age is unknown or below 0."""
        ages = np.asarray(ages, dtype=np.float64)
        firsts, lasts = np.array(self.ranges, dtype=np.float64).T
        borders = (lasts[:-1] + 1 + firsts[1:]) / 2
        return np.where(ages >= 0, np.searchsorted(borders, ages, side="right"), -1)

    def containing(self, first: ArrayLike, last: ArrayLike) -> np.ndarray:
        """Return the index of the group that holds all years of each range, -1 where none does or it is unknown (NaN).

        `last` is inclusive, for an exact age the same as `first`.
        """
        first, last = np.asarray(first, dtype=np.float64), np.asarray(last, dtype=np.float64)
        firsts, lasts = np.array(self.ranges, dtype=np.float64).T
        index = np.searchsorted(firsts, first, side="right") - 1
        return np.where((index >= 0) & (last < lasts[index] + 1), index, -1)


FAIRFACE = AgeGroups(AGE_GROUPS)


def label_range(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last year that each row's age may have: equal for an exact age, NaN for an unknown one."""
    if "age_min" not in rows:
        return rows["age"].to_numpy(), rows["age"].to_numpy()
    return rows["age"].fillna(rows["age_min"]).to_numpy(), rows["age"].fillna(rows["age_max"]).to_numpy()


def choose_groups(rows: pd.DataFrame) -> AgeGroups:
    """Return the groups that more rows belong to: FairFace's, or the table's most frequent ranges without overlap."""
    if "age_min" not in rows or rows["age_min"].isna().all():
        return FAIRFACE
    counts = rows[["age_min", "age_max"]].dropna().astype(int).value_counts()
    chosen: list[tuple[int, int]] = []
    for first, last in counts.index:
        if all(last < other[0] or first > other[1] for other in chosen):
            chosen.append((first, last))
    own = AgeGroups(tuple(sorted(chosen)))
    first, last = label_range(rows)
    known = [(groups.containing(first, last) >= 0).sum() for groups in (FAIRFACE, own)]
    return own if known[1] > known[0] else FAIRFACE
