"""Splits into training, validation and test rows: by an image's bytes or by the person it shows, without any list.

Such rules give the same result on every machine, and neither copies nor persons stand on two sides.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")


def content_split(sha256: str) -> str:
    """Return `train`, `val` or `test` for an image: 0 of ten is test, 1 validation, 2 to 9 train.

    The first 8 digits of the hexadecimal SHA-256 of the file's bytes, as an integer, mod 10 decide.
    """
    return {0: "test", 1: "val"}.get(_decimal(sha256), "train")


def content_split_without_test(sha256: str) -> str:
    """Return `val` where `content_split` does (1 of ten), else `train`: 90/10 for tables without a test part."""
    return "val" if _decimal(sha256) == 1 else "train"


def person_split(persons: Iterable[str]) -> np.ndarray:
    """Split 90/10 by person, `(n,)`: the SHA-256 of the identifier decides as for images, 1 of ten is `val`."""
    codes, names = pd.factorize(np.asarray(persons, dtype=object))
    splits = [content_split_without_test(hashlib.sha256(name.encode()).hexdigest()) for name in names]
    return np.array(splits, dtype=object)[codes]


def _decimal(sha256: str) -> int:
    return int(sha256[:8], 16) % 10
