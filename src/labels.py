"""Gender order and age classes: defined only here."""

import numpy as np

GENDERS = ("female", "male")
"""Names of the gender classes in the order of the gender head (IMDB-WIKI's order)."""
FEMALE, MALE = 0, 1
MALE_FROM = 0.5
"""Minimum probability of being male for which the predicted gender is male."""

HEADS = ("gender", "age")
"""The heads of a model, in the order of its outputs."""

MAX_AGE = 100
AGE_CLASSES = MAX_AGE + 1
"""The age head is a softmax over the years 0..100."""
AGE_RANGE_COLUMNS = ("age_min", "age_max")
"""Columns of a table whose ages are known only as a range, both inclusive, years."""

AGE_GROUPS = ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, MAX_AGE))
"""FairFace's age groups: first and last year, both inclusive; the last group has an open end."""


def clip_age(ages: np.ndarray) -> np.ndarray:
    """Clip ages to at most 100.

    Args:
        ages: Any shape, years; NaN (unknown) stays NaN.

    Returns:
        An array of the same shape and dtype; negative ages are kept: they are label errors.
    """
    return np.minimum(ages, MAX_AGE)


def expected_age(probabilities: np.ndarray) -> np.ndarray:
    """Compute the expectation of the age softmax (Rothe et al., "DEX: Deep EXpectation of apparent age", ICCVW 2015).

    Args:
        probabilities: `(n, 101)`, rows sum to 1.

    Returns:
        `(n,)` float64, years in 0..100.
    """
    return np.asarray(probabilities, dtype=np.float64) @ np.arange(AGE_CLASSES, dtype=np.float64)
