"""Reading batches ahead in threads or processes. No Keras here: worker processes import this."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from src.cli import JobError
from src.training.batches import Batch, BatchMaker


class Prefetcher:
    """Gives any batch of any epoch, and has the ones after it made meanwhile.

    What is read ahead is kept by (epoch, index) and forgotten when another epoch starts, so a batch can never be
    delivered in the place of another.
    """

    def __init__(self, maker: BatchMaker, length: int, workers: int, use_processes: bool, ahead: int):
        """
        Args:
            maker: Makes the batches.
            length: Batches per epoch.
            workers: Threads or processes; 0 makes each batch when it is asked for.
            use_processes: Processes instead of threads.
            ahead: How many batches after the last one asked for are made.
        """
        self.maker, self.length, self.workers, self.ahead = maker, length, workers, ahead
        self.use_processes = use_processes
        self._lock = threading.Lock()
        self._pool: Executor | None = None
        self._epoch = -1
        self._futures: dict[int, Future[Batch]] = {}  # by index, of self._epoch

    def start(self, epoch: int) -> None:
        """Begins to make the first batches of an epoch; raises `JobError` as `get` does."""
        if self.workers:
            with _worker_errors(), self._lock:
                self._submit(epoch, 0)

    def get(self, epoch: int, index: int) -> Batch:
        """The batch `index` of `epoch`.

        Raises:
            JobError: a worker process was ended from outside.
        """
        if not self.workers:
            return self.maker.make(epoch, index)
        with _worker_errors():
            with self._lock:
                self._submit(epoch, index)
                future = self._futures.pop(index)
            return future.result()

    def close(self) -> None:
        """Ends the workers."""
        with self._lock:
            self._forget()
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _submit(self, epoch: int, index: int) -> None:
        """Has the batches from `index` on made that are not yet, forgets those before it; the lock is held."""
        if epoch != self._epoch:
            self._forget()
            self._epoch = epoch
        for earlier in [i for i in self._futures if i < index]:
            self._futures.pop(earlier).cancel()
        for later in range(index, min(index + 1 + self.ahead, max(self.length, index + 1))):
            if later not in self._futures:
                self._futures[later] = self._submit_one(epoch, later)

    def _submit_one(self, epoch: int, index: int) -> "Future[Batch]":
        if self._pool is None:
            self._pool = self._new_pool()
        if self.use_processes:
            return self._pool.submit(_make_in_process, epoch, index)
        return self._pool.submit(self.maker.make, epoch, index)

    def _forget(self) -> None:
        for future in self._futures.values():
            future.cancel()
        self._futures = {}

    def _new_pool(self) -> Executor:
        if not self.use_processes:
            cv2.setNumThreads(1)  # one picture is too small to share; the workers share the batches
            return ThreadPoolExecutor(self.workers, "read-pictures")
        # "spawn" is the one start method that is safe with threads (TensorFlow's, JAX's) and on every system.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, context, _start_process, (self.maker,))


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise JobError(
            "a worker process that reads pictures was ended (out of memory?); set fewer train.workers"
        ) from error


_maker: BatchMaker | None = None
"""The batch maker of a worker process."""


def _start_process(maker: BatchMaker) -> None:
    global _maker
    _maker = maker
    cv2.setNumThreads(1)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # after Ctrl-C the main process ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process with its parent, which may have been killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _make_in_process(epoch: int, index: int) -> Batch:
    return _maker.make(epoch, index)
