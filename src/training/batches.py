"""Batches out of a table, each a function of (seed, epoch, index) alone. No Keras here: worker processes import this.

A batch is `(pictures, (gender, age), (gender_weight, age_weight))`: `(n, size, size, 3)` uint8 RGB, `(n, 2)` and
`(n, 101)` float32 distributions, and twice `(n,)` float32. Tuples in the order of the model's outputs, because Keras
3.15 takes no dictionary of sample weights for a model with a list of outputs, and TensorFlow's data sets no lists.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from src import images
from src.datasets import require_crops, require_margin
from src.training import augmentation, targets
from src.training.config import AugmentConfig, TargetConfig
from src.training.mixup import apply_mixup, draw_mixup, mix_weights

# Independent streams of random numbers from one seed.
_ORDER, _PICTURE, _MIXUP = 1, 2, 3


class Batch(NamedTuple):
    """The arrays of one batch, and `(name, reason)` of pictures that could not be read (their weights are 0)."""

    pictures: np.ndarray
    targets: tuple[np.ndarray, np.ndarray]
    weights: tuple[np.ndarray, np.ndarray]
    unreadable: list[tuple[str, str]]


class BatchMaker:
    """Makes any batch of any epoch of a table; pure but for a memory of the last order, and can be pickled."""

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        img_size: int,
        batch_size: int,
        margin: float,
        augment: AugmentConfig | None = None,
        target: TargetConfig | None = None,
        seed: int = 0,
        shuffle: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        """Args are those of `src.training.generator.ImageSequence`."""
        self.img_size, self.batch_size, self.margin = img_size, batch_size, margin
        self.seed, self.shuffle = seed, shuffle
        self.process, self.processes = share
        self.augment = augment if augment is not None and augment.enabled else None
        self.names = table["path"].to_numpy(dtype=object)
        self.arrays = table["image"].to_numpy(dtype=object) if "image" in table else None
        self.margins = table["margin"].to_numpy(dtype=np.float64)
        require_crops(table)
        require_margin(table, margin, "data.margin")
        self.boxes = table[images.BOX_COLUMNS].to_numpy(dtype=np.float64) if images.BOX_COLUMNS[0] in table else None
        self._order: tuple[int, np.ndarray | None] = (-1, None)  # the last epoch's order of rows
        target = target or TargetConfig()
        genders = table["gender"].to_numpy(dtype=np.float64)
        ages = table["age"].to_numpy(dtype=np.float64)
        spreads = table["age_std"].to_numpy(dtype=np.float64) if "age_std" in table else None
        age_targets = targets.age_targets(ages, target.age_target, target.age_sigma, spreads)
        ranges = targets.table_ranges(table) if target.has_ranges else None
        self.targets = (
            targets.gender_targets(genders),
            age_targets if ranges is None else targets.join_ranges(age_targets, ranges),
        )
        self.weights = (
            targets.gender_weights(genders),
            targets.age_weights(ages, target.age_class_weights, ranges),
        )

    def __len__(self) -> int:
        """Batches in the whole table, the last short one included."""
        return math.ceil(len(self.names) / self.batch_size)

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """Row numbers of a batch, those of all processes.

        The last batch is short, or with `shuffle` filled up with the first rows of the epoch: batch norm then sees as
        many rows in every step, and any number of devices that divides one batch divides all.
        """
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        if not self.shuffle:
            return np.arange(len(self.names))[part]
        known_epoch, order = self._order  # one assignment, one reading: workers share it without a lock
        if known_epoch != epoch:
            order = np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.names))
            order = np.resize(order, len(self) * self.batch_size)  # begins again where it ends
            self._order = epoch, order
        return order[part]

    def own_rows(self, epoch: int, index: int) -> np.ndarray:
        """Row numbers of this process's share of a batch; the shares of all processes together are the batch."""
        size = self.batch_size // self.processes
        return self.rows(epoch, index)[self.process * size : (self.process + 1) * size]

    def make(self, epoch: int, index: int) -> Batch:
        """Reads, cuts, resizes, augments and mixes this process's share of one batch."""
        rows = self.own_rows(epoch, index)
        unreadable: list[tuple[str, str]] = []
        pictures = np.zeros((len(rows), self.img_size, self.img_size, 3), np.uint8)
        y = tuple(values[rows] for values in self.targets)
        weights = tuple(values[rows] for values in self.weights)
        for place, row in enumerate(rows):
            try:
                pictures[place] = self.picture(epoch, row)
            except images.ImageError as error:
                unreadable.append((self.names[row], str(error)))
                for values in weights:
                    values[place] = 0
        if self.augment is None:
            return Batch(pictures, y, weights, unreadable)
        stream = [_MIXUP, self.seed, epoch, index, *([self.process] if self.processes > 1 else [])]
        rng = np.random.default_rng(stream)
        return self._mixed(rng, Batch(pictures, y, weights, unreadable))

    def _mixed(self, rng: np.random.Generator, batch: Batch) -> Batch:
        """Mixup among the rows of the batch that know the same labels."""
        gender_weights, age_weights = batch.weights
        mixup = draw_mixup(rng, 2 * (gender_weights > 0) + (age_weights > 0), self.augment)
        if mixup is None:
            return batch
        return Batch(
            apply_mixup(batch.pictures, mixup),
            (
                apply_mixup(batch.targets[0], mixup),
                targets.mix_age_targets(batch.targets[1], mixup.share, mixup.partner),
            ),
            tuple(mix_weights(values, mixup) for values in batch.weights),
            batch.unreadable,
        )

    def picture(self, epoch: int, row: int) -> np.ndarray:
        """One row's model input, `(size, size, 3)` uint8, before mixup.

        Raises:
            ImageError: the file cannot be read.
        """
        picture = self._read(row)
        region = images.face_region(picture.shape[:2], self.margins[row], self.margin, self._box(row))
        if self.augment is None:
            left, top, right, bottom = region
            return images.resize(picture[top:bottom, left:right], self.img_size)
        rng = np.random.default_rng([_PICTURE, self.seed, epoch, int(row)])
        drawn = augmentation.draw_augmentation(rng, self.augment, self.img_size)
        return augmentation.apply_augmentation(picture, region, self.img_size, drawn)

    def _box(self, row: int) -> images.Box | None:
        """Where the face is in the picture of a row, if the table says so."""
        if self.boxes is None or np.isnan(self.boxes[row, 0]):
            return None
        left, top, right, bottom = map(int, self.boxes[row])
        return left, top, right, bottom

    def _read(self, row: int) -> np.ndarray:
        """The whole picture of a row; for training at a size that leaves the model's crop a quarter to zoom in."""
        if self.arrays is not None and self.arrays[row] is not None:
            return self.arrays[row]
        if self.augment is None or self._box(row) is not None:  # boxes count in pixels of the full size
            return images.read_image(self.names[row])
        cut_away = (1 + 2 * self.margins[row]) / (1 + 2 * self.margin)
        return images.read_at_least(self.names[row], 1.25 * self.img_size * cut_away)
