"""`ImageSequence`: a table of pictures as a data set for `keras.Model.fit`, on every backend.

Use it with the callback `EpochSetter` and `fit(..., shuffle=False)`. Keras 3.15 does not tell a data set its epoch in
time: TensorFlow's trainer calls `on_epoch_end` once before the first epoch, and Keras' own workers start before
`on_epoch_begin`; on JAX they even deliver what they had read while the model was built as the first batches of the
training, and every epoch after that begins with the last batches of the one before. So batches are read ahead here, by
workers of our own that are asked for (epoch, index), and Keras' workers stay off.
"""

import logging
import math
from collections.abc import Collection

import keras
import numpy as np
import pandas as pd

from src.labels import AGE_CLASSES, HEADS
from src.training.batches import Batch, BatchMaker
from src.training.config import AugmentConfig, TargetConfig
from src.training.prefetch import Prefetcher

logger = logging.getLogger(__name__)

Arrays = tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class ImageSequence(keras.utils.PyDataset):
    """Batches of a table; the same pictures in the same order with the same changes whatever reads them.

    `sequence[index]` is `(pictures, (gender, age), (gender_weight, age_weight))`: `(n, size, size, 3)` uint8 RGB;
    `(n, 2)` and `(n, 101)` float32, rows sum to 1; `(n,)` float32, 0 where the label is unknown. See `batches.py`
    for why they are tuples. A picture that can no longer be read has weight 0 in both heads and is named once.

    Args:
        table: Rows as in `src/datasets/table.py`.
        img_size: Side of the model's input in pixels.
        batch_size: Rows per batch, over all processes; the last one may be shorter, or with `shuffle` is filled up with
            the first rows of the epoch.
        margin: The model's margin in box widths; at most that of every picture.
        augment: Random changes, or `None` for plain pictures.
        target: How the age head is taught.
        seed: Everything random follows from it, the epoch and the row.
        shuffle: A new order of all rows in every epoch.
        fill_up: Fill the last batch up with rows of weight 0. Figures stay those of the rows that are there: Keras
            divides the sum of losses by all rows, so all weights are raised by the factor that makes up for it.
        share: This process and the number of processes: each reads as many rows of every batch.
        steps_per_epoch: Batches per epoch where the table has more; with `shuffle`, other rows in every epoch.
        workers: Threads or processes that read ahead; 0 reads when asked.
        use_multiprocessing: Processes instead of threads.
        max_queue_size: Batches read ahead.

    Raises:
        UserError: `margin` is above a picture's margin.
    """

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
        fill_up: bool = False,
        share: tuple[int, int] = (0, 1),
        steps_per_epoch: int | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ):
        super().__init__(workers=1, use_multiprocessing=False)
        self.maker = BatchMaker(
            table,
            img_size=img_size,
            batch_size=batch_size,
            margin=margin,
            augment=augment,
            target=target,
            seed=seed,
            shuffle=shuffle,
            share=share,
        )
        self.epoch = 0
        self._length = min(len(self.maker), steps_per_epoch or math.inf)
        self._fill_up = fill_up
        self._filled_size = batch_size // share[1]
        self._weight_factor = max(1.0, self._length * batch_size / len(table))
        self._prefetcher = Prefetcher(self.maker, self._length, workers, use_multiprocessing, max_queue_size)
        self._named: set[str] = set()
        self._known: dict[int, int] = {}  # by index

    @property
    def has_ranges(self) -> bool:
        """Whether age targets are `(n, 303)`: see `src.training.targets.join_ranges`."""
        return self.maker.targets[1].shape[1] > AGE_CLASSES

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Arrays:
        batch = self._prefetcher.get(self.epoch, index)
        for name, reason in batch.unreadable:
            if name not in self._named:
                self._named.add(name)
                logger.warning("%s can no longer be read (%s); training continues without it", name, reason)
        self._known[index] = sum(np.count_nonzero(values) for values in batch.weights)
        if self._fill_up:
            batch = append_empty_rows(batch, self._filled_size)
            factor = np.float32(self._weight_factor)
            return batch.pictures, batch.targets, tuple(values * factor for values in batch.weights)
        return batch.pictures, batch.targets, batch.weights

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next batches belong to, and begins to read them."""
        self.epoch = epoch
        self._prefetcher.start(epoch)

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads for which some row of an epoch has a label; with `shuffle` any row of the table may be in it."""
        rows = slice(None) if self.maker.shuffle else slice(len(self) * self.maker.batch_size)
        return tuple(head for head, weights in zip(HEADS, self.maker.weights, strict=True) if weights[rows].any())

    @property
    def known_labels(self) -> int:
        """Labels in the last epoch's batches of this process; an image that can no longer be read has none."""
        return sum(self._known.values())

    def clear_labels(self, heads: Collection[str]) -> None:
        """Treat all labels of these heads as unknown."""
        pairs = zip(HEADS, self.maker.weights, strict=True)
        self.maker.weights = tuple(np.zeros_like(weights) if head in heads else weights for head, weights in pairs)

    def close(self) -> None:
        """Ends the workers; they start again when a batch is asked for."""
        self._prefetcher.close()


def append_empty_rows(batch: Batch, count: int) -> Batch:
    """Appends rows of zeros, whose weights are 0 too, until there are `count`."""

    def filled(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((count - len(values), *values.shape[1:]), values.dtype)])

    return Batch(
        filled(batch.pictures), tuple(map(filled, batch.targets)), tuple(map(filled, batch.weights)), batch.unreadable
    )
