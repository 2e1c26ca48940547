"""Mixup (Zhang et al., arXiv 1710.09412): draw partners and shares, apply them to a batch."""

from typing import NamedTuple

import cv2
import numpy as np

from src.training.config import AugmentConfig


class Mixup(NamedTuple):
    """For each row of a batch its partner and its own share."""

    partner: np.ndarray  # (n,) int
    share: np.ndarray  # (n,) float32, of the row itself in the mixed one; lambda of the paper


def draw_mixup(rng: np.random.Generator, kinds: np.ndarray, config: AugmentConfig) -> Mixup | None:
    """Draw partners and shares of mixup (Zhang et al., arXiv 1710.09412): lambda ~ Beta(alpha, alpha).

    One lambda per row, as the paper's equation has one per pair; the paper's own code draws one per batch. The
    partners are a random order of the same batch, as there, but among rows of the same kind. The larger of lambda and
    1 - lambda is the row's own share: pairs are drawn alike in both orders, so this changes no frequency, but no
    image is hidden behind its partner while that partner stands in the batch too.

    Args:
        kinds: `(n,)` integers; rows of different kinds (labels that are known) are not mixed, so that a row whose age
            is unknown does not take the age of another from the training.

    Returns:
        None where `config.mixup_alpha` is 0.
    """
    if config.mixup_alpha == 0:
        return None
    share = rng.beta(config.mixup_alpha, config.mixup_alpha, len(kinds))
    share = np.maximum(share, 1 - share).astype(np.float32)
    partner = np.arange(len(kinds))
    for kind in np.unique(kinds):
        same = np.flatnonzero(kinds == kind)
        partner[same] = rng.permutation(same)
    return Mixup(partner, share)


def apply_mixup(values: np.ndarray, mixup: Mixup) -> np.ndarray:
    """Mix images or labels: `lambda * values + (1 - lambda) * values[partner]`.

    Args:
        values: `(n, ...)` uint8 or float32.

    Returns:
        An array of the same shape and dtype. Images are rounded to whole grey levels: an error of half a level at
        most, for a quarter of the bytes on the way to the device.
    """
    if values.dtype == np.uint8:
        mixed = np.empty_like(values)
        for row, (partner, share) in enumerate(zip(mixup.partner, mixup.share.tolist(), strict=True)):
            cv2.addWeighted(values[row], share, values[partner], 1 - share, 0, dst=mixed[row])
        return mixed
    share = mixup.share.reshape(-1, *[1] * (values.ndim - 1))
    return values * share + values[mixup.partner] * (1 - share)


def mix_weights(weights: np.ndarray, mixup: Mixup) -> np.ndarray:
    """Mix weights `(n,)`: the lower of both rows', so that an unknown label has no effect."""
    return np.minimum(weights, weights[mixup.partner])
