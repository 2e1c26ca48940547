"""`ImageSequence`: a table of pictures as a data set for `keras.Model.fit`, on every backend.

Use it with the callback `EpochSetter` and `fit(..., shuffle=False)`. Keras 3.15 does not tell a data set its epoch in
time: TensorFlow's trainer calls `on_epoch_end` once before the first epoch, and Keras' own workers start before
`on_epoch_begin`; on JAX they even deliver what they had read while the model was built as the first batches of the
training, and every epoch after that begins with the last batches of the one before. So batches are read ahead here, by
workers of our own that are asked for (epoch, index), and Keras' workers stay off.
"""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from src import images
from src.augmentation import AugmentConfig
from src.batches import Batch, BatchMaker, TargetConfig
from src.cli import JobError
from src.prefetch import Prefetcher

Arrays = tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class ImageSequence(keras.utils.PyDataset):
    """Batches of a table; the same pictures in the same order with the same changes whatever reads them.

    `sequence[index]` is `(pictures, (gender, age), (gender_weight, age_weight))`: `(n, size, size, 3)` uint8 RGB;
    `(n, 2)` and `(n, 101)` float32, rows sum to 1; `(n,)` float32, 0 where the label is unknown. See `src/batches.py`
    for why they are tuples. A picture that can no longer be read has weight 0 in both heads and is named once.

    Args:
        table: Rows as in `src/datasets.py`.
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

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Arrays:
        batch = self._prefetcher.get(self.epoch, index)
        for name, reason in batch.unreadable:
            if name not in self._named:
                self._named.add(name)
                print(f"warning: {name} can no longer be read ({reason}); training goes on without it", file=sys.stderr)
        if self._fill_up:
            batch = append_empty_rows(batch, self._filled_size)
            factor = np.float32(self._weight_factor)
            return batch.pictures, batch.targets, tuple(values * factor for values in batch.weights)
        return batch.pictures, batch.targets, batch.weights

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next batches belong to, and begins to read them."""
        self.epoch = epoch
        self._prefetcher.start(epoch)

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


class EpochSetter(keras.callbacks.Callback):
    """Tells an `ImageSequence` the epoch before its first batch is read, and ends its workers after the training."""

    def __init__(self, sequence: ImageSequence):
        super().__init__()
        self.sequence = sequence

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.sequence.set_epoch(epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.sequence.close()


def drop_unreadable(table: pd.DataFrame, workers: int = 8) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Leaves out the rows whose picture file cannot be read; each file is decoded once, at an eighth of its size.

    Args:
        table: Rows as in `src/datasets.py`; pictures inside the table need no check.
        workers: Threads.

    Returns:
        The table without these rows, with a new index, and `(path, reason)` of each unreadable file.

    Raises:
        JobError: no row is left.
    """
    is_file = table["image"].isna() if "image" in table else np.full(len(table), True)
    paths = table.loc[is_file, "path"].drop_duplicates()
    with ThreadPoolExecutor(workers) as pool:
        reasons = pool.map(unreadable_reason, paths)
        checked = tqdm(zip(paths, reasons, strict=True), "checking pictures", len(paths), disable=None, leave=False)
        unreadable = [(path, reason) for path, reason in checked if reason is not None]
    kept = table[~table["path"].isin([path for path, _ in unreadable])].reset_index(drop=True)
    if kept.empty:
        example = f"; the first: {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise JobError(f"expected pictures to train on, none of the {len(table)} can be read{example}")
    return kept, unreadable


def unreadable_reason(path: str) -> str | None:
    """Why `images.read_image` will not read a file, or `None` where it will."""
    try:
        data = np.fromfile(path, np.uint8)
        if data.size and cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8) is not None:
            return None
    except (OSError, cv2.error):
        pass  # read_image words the reason
    try:
        images.read_image(path)
    except images.ImageError as error:
        return str(error)
    return None
