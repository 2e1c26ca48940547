"""Reading batches ahead in threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import cv2

Batch = TypeVar("Batch")


class Prefetcher(Generic[Batch]):
    """Return any batch of any epoch, and prepare the following ones meanwhile.

    What is read ahead is kept by (epoch, index) and forgotten when another epoch starts, so a batch can never be
    delivered in the place of another.

    Args:
        make: Makes the batch of an epoch and an index.
        length: Batches per epoch.
        workers: Threads; 0 makes each batch when it is asked for.
        ahead: How many batches after the last one asked for are made.
    """

    def __init__(self, make: Callable[[int, int], Batch], length: int, workers: int, ahead: int):
        self.make, self.length, self.workers, self.ahead = make, length, workers, ahead
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._epoch = -1
        self._futures: dict[int, Future[Batch]] = {}  # by index, of self._epoch

    def start(self, epoch: int) -> None:
        """Begin to make the first batches of an epoch."""
        if self.workers:
            with self._lock:
                self._submit(epoch, 0)

    def get(self, epoch: int, index: int) -> Batch:
        """Return the batch `index` of `epoch`; raise what `make` raises."""
        if not self.workers:
            return self.make(epoch, index)
        with self._lock:
            self._submit(epoch, index)
            future = self._futures.pop(index)
        return future.result()

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            self._forget()
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _submit(self, epoch: int, index: int) -> None:
        """Have the batches from `index` on made that are not yet, forget those before it; the lock is held."""
        if epoch != self._epoch:
            self._forget()
            self._epoch = epoch
        if self._pool is None:
            cv2.setNumThreads(1)  # one image is too small to share; the workers share the batches
            self._pool = ThreadPoolExecutor(self.workers, "read-images")
        for earlier in [i for i in self._futures if i < index]:
            self._futures.pop(earlier).cancel()
        for later in range(index, min(index + 1 + self.ahead, max(self.length, index + 1))):
            if later not in self._futures:
                self._futures[later] = self._pool.submit(self.make, epoch, later)

    def _forget(self) -> None:
        for future in self._futures.values():
            future.cancel()
        self._futures = {}
