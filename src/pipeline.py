"""Pictures in, predictions out, in the same order: detection on all cores, faces of many pictures in one batch."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from src.detector import FaceDetector
from src.images import ImageError, crop_box
from src.predictions import Prediction

BATCH_SIZE = 32
MEMORY = 2**28
"""Bytes of decoded pictures that wait for the network, and as many again that were read ahead."""


class Estimator(Protocol):
    """What the demo needs of `src.estimator.AgeGenderEstimator`."""

    def predict(self, faces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass
class Picture:
    """One picture on its way; `image` is None and `error` says why where it could not be read."""

    name: str
    image: np.ndarray | None = None
    error: str = ""
    boxes: list = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)


def predict_faces(image: np.ndarray, boxes: list, estimator: Estimator, margin: float) -> list[Prediction]:
    """Ages and genders of the faces at `boxes` of one picture."""
    picture = Picture("", image, boxes=boxes)
    _estimate([picture], estimator, margin)
    return picture.predictions


def predict_pictures(
    items: Iterable[tuple[str, object]],
    read: Callable[[object], np.ndarray],
    detector: FaceDetector,
    estimator: Estimator,
    margin: float,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Picture]:
    """Reads pictures and finds faces in a pool of threads, and estimates the faces of many pictures together.

    OpenCV and dlib release the interpreter lock, so threads use all cores while the network runs in the caller's
    thread. At most `batch_size + 4 * workers` pictures are in memory, fewer when they are large (`MEMORY`).

    Args:
        items: `(name, item)` of every picture; taken as they are needed.
        read: Turns an item into an RGB picture; `ImageError` makes a `Picture` with an `error`.
        margin: By how much boxes grow before the face is cut out, see `src.images.crop_box`.
        workers: Threads, by default one a core.
        batch_size: Faces in one call of the estimator, at least where so many pictures have a face.

    Yields:
        One `Picture` for each item, in the order of the items.
    """
    workers = workers or os.cpu_count() or 1
    items = iter(items)
    pool = ThreadPoolExecutor(workers)

    def find(name: str, item: object) -> Picture:
        try:
            image = read(item)
        except ImageError as error:
            return Picture(name, error=str(error))
        return Picture(name, image, boxes=[face.box for face in detector.detect(image)])

    futures: deque[Future[Picture]] = deque()

    def read_ahead() -> None:
        while len(futures) < workers or (len(futures) < 4 * workers and _finished_bytes(futures) < MEMORY):
            try:
                futures.append(pool.submit(find, *next(items)))
            except StopIteration:
                return

    try:
        read_ahead()
        waiting: list[Picture] = []
        while futures:
            waiting.append(futures.popleft().result())
            read_ahead()
            faces = sum(len(picture.boxes) for picture in waiting)
            if max(faces, len(waiting)) >= batch_size or _bytes(waiting) >= MEMORY or not futures:
                _estimate(waiting, estimator, margin)
                yield from waiting
                waiting = []
    finally:
        pool.shutdown(cancel_futures=True)


def _bytes(pictures: Iterable[Picture]) -> int:
    return sum(picture.image.nbytes for picture in pictures if picture.image is not None)


def _finished_bytes(futures: Iterable[Future]) -> int:
    return _bytes(future.result() for future in futures if future.done() and not future.exception())


def _estimate(pictures: list[Picture], estimator: Estimator, margin: float) -> None:
    faces = [crop_box(picture.image, box, margin) for picture in pictures for box in picture.boxes]
    if not faces:
        return
    results = zip(*estimator.predict(faces), strict=True)
    for picture in pictures:
        picture.predictions = [
            Prediction(box, float(age), float(male))
            for box, (age, male) in zip(picture.boxes, islice(results, len(picture.boxes)), strict=True)
        ]
