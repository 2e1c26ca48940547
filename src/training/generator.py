"""`ImageSequence`: a table of images as a data set for `keras.Model.fit`, on every backend.

Use it with the callback `EpochSetter` and `fit(..., shuffle=False)`. Keras 3.15 does not tell a data set its epoch in
time: TensorFlow's trainer calls `on_epoch_end` once before the first epoch, and Keras' own workers start before
`on_epoch_begin`; on JAX they even deliver what they had read while the model was built as the first batches of the
training, and every epoch after that begins with the last batches of the one before. So batches are read ahead here, by
workers of our own that are asked for (epoch, index), and Keras' workers stay off.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from src import images
from src.datasets import face_boxes, require_crops, require_margin
from src.labels import AGE_CLASSES, HEADS
from src.training import targets
from src.training.augmentation import apply_augmentation, draw_augmentation
from src.training.config import AugmentConfig, TargetConfig
from src.training.mixup import apply_mixup, draw_mixup, mix_weights
from src.training.prefetch import Prefetcher

logger = logging.getLogger(__name__)

Heads = tuple[np.ndarray, np.ndarray]
"""One array for each of `HEADS`."""

# Independent streams of random numbers from one seed.
_ORDER, _IMAGE, _MIXUP = 1, 2, 3


class Batch(NamedTuple):
    """The arrays of one batch, and `(name, reason)` of images that could not be read (their weights are 0)."""

    images: np.ndarray
    targets: Heads
    weights: Heads
    unreadable: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """Which rows make a batch, and what is cut out of their images."""

    img_size: int  # side of the model's input, pixels
    batch_size: int  # rows per batch, over all processes
    margin: float  # the model's, in box widths; at most that of every image
    seed: int = 0  # everything random follows from it, the epoch and the row
    # A new order of all rows in every epoch; the last batch is filled up with the first rows of the epoch.
    shuffle: bool = False
    # Fill the last batch up with rows of weight 0. Metrics stay those of the rows that are there: Keras divides the sum
    # of losses by all rows, so all weights are raised by the factor that makes up for it.
    fill_up: bool = False
    share: tuple[int, int] = (0, 1)  # this process and the number of processes: each reads as many rows of every batch
    steps: int | None = None  # batches per epoch where the table has more; with `shuffle`, other rows in every epoch


class ImageSequence(keras.utils.PyDataset):
    """Batches of a table; the same images in the same order with the same changes whatever reads them.

    `sequence[index]` is `(images, (gender, age), (gender_weight, age_weight))`: `(n, size, size, 3)` uint8 RGB;
    `(n, 2)` and `(n, 101)` float32, rows sum to 1; `(n,)` float32, 0 where the label is unknown. They are tuples, in
    the order of the model's outputs, because Keras 3.15 takes no dictionary of sample weights for a model with a list
    of outputs, and TensorFlow's data sets no lists. An image that can no longer be read has weight 0 in both heads and
    is named once.

    Args:
        table: Rows as in `src/datasets/table.py`.
        settings: Which rows make a batch.
        augment: Random changes, or `None` for plain images.
        target: What the heads are taught.
        workers: Threads that read ahead; 0 reads when asked.

    Raises:
        UserError: the model's margin is above an image's.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        settings: BatchSettings,
        augment: AugmentConfig | None = None,
        target: TargetConfig | None = None,
        workers: int = 1,
    ):
        super().__init__(workers=1, use_multiprocessing=False)
        require_crops(table)
        require_margin(table, settings.margin, "data.margin")
        self.settings = settings
        self.epoch = 0
        self._augment = augment if augment is not None and augment.enabled else None
        self._batches = math.ceil(len(table) / settings.batch_size)
        self._order: tuple[int, np.ndarray | None] = (-1, None)  # the last epoch's order of rows
        self._prefetcher = Prefetcher(self.make, len(self), workers, ahead=10)
        self._named: set[str] = set()
        self._known: dict[int, int] = {}  # labels by index
        self._read_columns(table, target or TargetConfig())

    def _read_columns(self, table: pd.DataFrame, target: TargetConfig) -> None:
        self._names = table["path"].to_numpy(dtype=object)
        self._arrays = table["image"].to_numpy(dtype=object) if "image" in table else None
        self._margins = table["margin"].to_numpy(dtype=np.float64)
        self._boxes = face_boxes(table)
        genders = table["gender"].to_numpy(dtype=np.float64)
        ages = table["age"].to_numpy(dtype=np.float64)
        spreads = table["age_std"].to_numpy(dtype=np.float64) if "age_std" in table else None
        age_targets = targets.age_targets(ages, target.age_target, target.age_sigma, spreads)
        ranges = targets.table_ranges(table) if target.has_ranges else None
        self._targets = (
            targets.gender_targets(genders),
            age_targets if ranges is None else targets.join_ranges(age_targets, ranges),
        )
        if target.predictions is not None:
            self._targets = targets.blend(self._targets, target.predictions, target.predictions_share)
        self._weights = (targets.gender_weights(genders), targets.age_weights(ages, target.age_class_weights, ranges))

    @property
    def has_ranges(self) -> bool:
        """Whether age targets are `(n, 303)`: see `src.training.targets.join_ranges`."""
        return self._targets[1].shape[1] > AGE_CLASSES

    @property
    def covers_table(self) -> bool:
        """Whether an epoch has all batches of the table."""
        return len(self) == self._batches

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads for which some row of an epoch has a label; with `shuffle` any row of the table may be in it."""
        rows = slice(None) if self.settings.shuffle else slice(len(self) * self.settings.batch_size)
        return tuple(head for head, weights in zip(HEADS, self._weights, strict=True) if weights[rows].any())

    @property
    def known_labels(self) -> int:
        """Labels in the last epoch's batches of this process; an image that can no longer be read has none."""
        return sum(self._known.values())

    def clear_labels(self, heads: Collection[str]) -> None:
        """Treat all labels of these heads as unknown."""
        pairs = zip(HEADS, self._weights, strict=True)
        gender, age = (np.zeros_like(weights) if head in heads else weights for head, weights in pairs)
        self._weights = gender, age

    def __len__(self) -> int:
        return min(self._batches, self.settings.steps or self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Heads, Heads]:
        batch = self._prefetcher.get(self.epoch, index)
        for name, reason in batch.unreadable:
            if name not in self._named:
                self._named.add(name)
                logger.warning("%s can no longer be read (%s); training continues without it", name, reason)
        self._known[index] = sum(int(np.count_nonzero(values)) for values in batch.weights)
        if self.settings.fill_up:
            batch = append_empty_rows(batch, self.settings.batch_size // self.settings.share[1])
            factor = np.float32(max(1.0, len(self) * self.settings.batch_size / len(self._names)))
            return batch.images, batch.targets, for_each_head(lambda values: values * factor, batch.weights)
        return batch.images, batch.targets, batch.weights

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batches, and begin to read them."""
        self.epoch = epoch
        self._prefetcher.start(epoch)

    def close(self) -> None:
        """End the workers; they start again when a batch is asked for."""
        self._prefetcher.close()

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """Return the row numbers of a batch, those of all processes.

        The last batch is short, or with `shuffle` filled up with the first rows of the epoch: batch norm then sees as
        many rows in every step, and any number of devices that divides one batch divides all.
        """
        size, count = self.settings.batch_size, len(self._names)
        part = slice(index * size, (index + 1) * size)
        if not self.settings.shuffle:
            return np.arange(count)[part]
        known_epoch, order = self._order  # one assignment, one reading: workers share it without a lock
        if known_epoch != epoch or order is None:
            order = np.random.default_rng([_ORDER, self.settings.seed, epoch]).permutation(count)
            order = np.resize(order, self._batches * size)  # begins again where it ends
            self._order = epoch, order
        return order[part]

    def make(self, epoch: int, index: int) -> Batch:
        """Read, cut, resize, augment and mix this process's share of a batch; a function of (seed, epoch, index)."""
        process, processes = self.settings.share
        size = self.settings.batch_size // processes
        rows = self.rows(epoch, index)[process * size : (process + 1) * size]
        batch = self._read_batch(epoch, rows)
        if self._augment is None:
            return batch
        stream = [_MIXUP, self.settings.seed, epoch, index, *([process] if processes > 1 else [])]
        return mix_batch(np.random.default_rng(stream), batch, self._augment)

    def _read_batch(self, epoch: int, rows: np.ndarray) -> Batch:
        size = self.settings.img_size
        batch = Batch(
            np.zeros((len(rows), size, size, 3), np.uint8),
            for_each_head(lambda values: values[rows], self._targets),
            for_each_head(lambda values: values[rows], self._weights),
            [],
        )
        for place, row in enumerate(rows):
            try:
                batch.images[place] = self._model_input(epoch, row)
            except images.ImageError as error:
                batch.unreadable.append((self._names[row], str(error)))
                for values in batch.weights:
                    values[place] = 0
        return batch

    def _model_input(self, epoch: int, row: int) -> np.ndarray:
        """Build one row's model input, `(size, size, 3)` uint8, before mixup; raises `ImageError`."""
        image, size = self._read_image(row), self.settings.img_size
        region = images.face_region(image.shape[:2], self._margins[row], self.settings.margin, self._boxes[row])
        if self._augment is None:
            left, top, right, bottom = region
            return images.resize(image[top:bottom, left:right], size)
        rng = np.random.default_rng([_IMAGE, self.settings.seed, epoch, int(row)])
        return apply_augmentation(image, region, size, draw_augmentation(rng, self._augment, size))

    def _read_image(self, row: int) -> np.ndarray:
        """Read the whole image of a row; for training at a size that leaves the model's crop a quarter to zoom in."""
        if self._arrays is not None and self._arrays[row] is not None:
            return self._arrays[row]
        if self._augment is None or self._boxes[row] is not None:  # boxes count in pixels of the full size
            return images.read_image(self._names[row])
        cut_away = (1 + 2 * self._margins[row]) / (1 + 2 * self.settings.margin)
        return images.read_at_least(self._names[row], 1.25 * self.settings.img_size * cut_away)


def for_each_head(function: Callable[[np.ndarray], np.ndarray], arrays: Heads) -> Heads:
    """Apply a function to the array of each head."""
    gender, age = arrays
    return function(gender), function(age)


def mix_batch(rng: np.random.Generator, batch: Batch, augment: AugmentConfig) -> Batch:
    """Mix up rows of a batch that know the same labels."""
    gender_weights, age_weights = batch.weights
    mixup = draw_mixup(rng, 2 * (gender_weights > 0) + (age_weights > 0), augment)
    if mixup is None:
        return batch
    genders, ages = batch.targets
    return batch._replace(
        images=apply_mixup(batch.images, mixup),
        targets=(apply_mixup(genders, mixup), targets.mix_age_targets(ages, mixup.share, mixup.partner)),
        weights=for_each_head(lambda weights: mix_weights(weights, mixup), batch.weights),
    )


def append_empty_rows(batch: Batch, count: int) -> Batch:
    """Append rows of zeros, whose weights are 0 too, until there are `count`."""

    def filled(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((count - len(values), *values.shape[1:]), values.dtype)])

    faces, labels, weights, unreadable = batch
    return Batch(filled(faces), for_each_head(filled, labels), for_each_head(filled, weights), unreadable)
