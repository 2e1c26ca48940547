"""Random erasing (Zhong et al., arXiv 1708.04896): draw a rectangle, apply it."""

import math
from typing import NamedTuple

import numpy as np

from src.training.config import AugmentConfig


class Erasing(NamedTuple):
    """A rectangle and what is put there."""

    top: int
    left: int
    values: np.ndarray  # (height, width, 3) uint8


def draw_erasing(rng: np.random.Generator, height: int, width: int, config: AugmentConfig) -> Erasing | None:
    """Draw the rectangle of random erasing (Zhong et al., arXiv 1708.04896); None where nothing is erased.

    Area (as a fraction of the image) and aspect ratio (height / width) are uniform in their ranges and drawn anew
    until the rectangle fits, 100 times at most; then its place is uniform among those where it fits, and every value
    of every pixel is uniform in 0..255.
    """
    if rng.random() >= config.erasing_probability:
        return None
    for _ in range(100):
        area = rng.uniform(*config.erasing_area) * height * width
        aspect = rng.uniform(*config.erasing_aspect)
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
            return Erasing(int(top), int(left), rng.integers(0, 256, (tall, wide, 3), dtype=np.uint8))
    return None


def apply_erasing(image: np.ndarray, erasing: Erasing | None) -> np.ndarray:
    """Put the drawn values into a copy of the image."""
    if erasing is None:
        return image
    image = image.copy()
    height, width = erasing.values.shape[:2]
    image[erasing.top : erasing.top + height, erasing.left : erasing.left + width] = erasing.values
    return image
