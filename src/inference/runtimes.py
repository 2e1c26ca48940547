"""The runtimes of networks behind one kind of function: a batch of faces in, two outputs out.

`.onnx` files run in ONNX Runtime, without Keras; all others run in Keras.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from src import models
from src.models import WeightsInfo

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Batch `(n, size, size, 3)`, uint8 or float32, 0..255, in the channel order of the weights -> `pred_gender (n, 2)` in
their gender order and `pred_age (n, 101)`."""

PART = 4
"""Largest batch that ONNX Runtime gets at once on a CPU; 64 images at once cost twice the processor time of 16 x 4."""


def open_runtime(weight_file: str | Path, background: bool = False, threads: int = 0) -> tuple[Run, WeightsInfo]:
    """Open a weight file in the runtime that it is for.

    Args:
        weight_file: A path, or the name of a published file.
        background: Return as soon as the file is identified. Where it needs Keras, a thread builds the network; the
            first call waits for it, and raises what went wrong.
        threads: Threads of ONNX Runtime; 0: all cores.

    Raises:
        UserError: No weight file that this project knows.
        JobError: A download failed.
    """
    path = models.resolve(weight_file)
    if models.is_onnx(path):
        return onnx_runtime(path, threads)
    info = models.identify(path)
    return InBackground(lambda: keras_runtime(path)) if background else keras_runtime(path), info


def onnx_runtime(path: Path, threads: int = 0) -> tuple[Run, WeightsInfo]:
    """Open an `.onnx` file that `models.resolve` returned in ONNX Runtime."""
    session, info = models.open_session(path, threads)
    name = session.get_inputs()[0].name
    parts = Parts(lambda: run if threads == 1 else onnx_runtime(path, 1)[0], threads or os.cpu_count() or 1)
    on_gpu = "CUDAExecutionProvider" in session.get_providers()

    def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(batch) > PART and not on_gpu:
            return parts(batch)
        return tuple(session.run(None, {name: np.asarray(batch, np.float32)}))

    return run, info


class Parts:
    """Run a large batch in parts, each on one thread: together their arrays fit into the cache of a CPU.

    Args:
        open_one: Opens the runtime of one thread, at the first call.
    """

    def __init__(self, open_one: Callable[[], Run], threads: int):
        self._open_one = open_one
        self._one: Run | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="parts")

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._one = self._one or self._open_one()
        parts = np.array_split(batch, math.ceil(len(batch) / PART))
        genders, ages = zip(*self._pool.map(self._one, parts), strict=True)
        return np.concatenate(genders), np.concatenate(ages)


def keras_runtime(path: Path) -> Run:
    """Build the network of any other file that `models.resolve` returned in Keras, and compile it."""
    model, _ = models.load_model(path)
    return models.compile_predict(model)


class InBackground:
    """A runtime that a thread makes; calls wait for it and raise what went wrong."""

    def __init__(self, make: Callable[[], Run]):
        pool = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._future = pool.submit(make)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until the runtime is there."""
        self._future.result()

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a batch."""
        return self._future.result()(batch)
