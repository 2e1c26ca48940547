"""Pictures in, predictions out, in the same order: detection on all cores, faces of many pictures in one batch."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from src.images import Box, FaceDetector, ImageError, cut_faces

BATCH_SIZE = 32
AHEAD = 16
"""Pictures a thread that are read ahead, so that no core waits while the caller estimates and draws a batch."""
MEMORY = 2**28
"""Bytes of decoded pictures that wait for the network, and as many again that were read ahead."""


class Prediction(NamedTuple):
    """One face: box in pixels of the image, age in years, probability of being male, 0..1; NaN where not known."""

    box: Box
    age: float
    male_probability: float

    @property
    def gender(self) -> str:
        """`F` or `M`; empty where the gender is not known."""
        if math.isnan(self.male_probability):
            return ""
        return "M" if self.male_probability >= 0.5 else "F"


class Estimator(Protocol):
    """What the demo needs of `src.inference.AgeGenderEstimator`."""

    def predict(self, faces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass
class Picture:
    """One picture on its way; `image` is None and `error` says why where it could not be read."""

    name: str
    image: np.ndarray | None = None
    error: str = ""
    boxes: list = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)


class Predictor:
    """Detector, estimator and margin together: pictures in, predictions out.

    Args:
        margin: By how much boxes grow before the face is cut out.
        resize: How the weights want faces cut and resized, see `src.images.cut_faces`.
    """

    def __init__(self, detector: FaceDetector, estimator: Estimator, margin: float, resize: str = "area"):
        self.detector = detector
        self.estimator = estimator
        self.margin = margin
        self.resize = resize

    def predict(self, image: np.ndarray) -> list[Prediction]:
        """Finds and estimates the faces of one RGB picture, the largest first."""
        picture = self._find("", image, lambda image: image)
        self._estimate([picture])
        return picture.predictions

    def predict_pictures(
        self,
        items: Iterable[tuple[str, object]],
        read: Callable[[object], np.ndarray],
        workers: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Picture]:
        """Reads pictures and finds faces in a pool of threads, and estimates the faces of many pictures together.

        OpenCV and dlib release the interpreter lock, so threads use all cores while the network runs in the caller's
        thread. At most `batch_size + AHEAD * workers` pictures are in memory, fewer when they are large (`MEMORY`).

        Args:
            items: `(name, item)` of every picture; taken as they are needed.
            read: Turns an item into an RGB picture; `ImageError` makes a `Picture` with an `error`.
            workers: Threads, by default one a core.
            batch_size: So many faces or pictures are waited for before the estimator is called.

        Yields:
            One `Picture` for each item, in the order of the items. When `items` raises, those before come first.
        """
        workers = workers or os.cpu_count() or 1
        items, fault = iter(items), None
        futures: deque[Future[Picture]] = deque()
        pool = ThreadPoolExecutor(workers)

        def read_ahead() -> None:
            nonlocal items, fault
            while len(futures) < workers or (len(futures) < AHEAD * workers and _finished_bytes(futures) < MEMORY):
                try:
                    item = next(items)
                except StopIteration:
                    return
                except BaseException as error:  # a camera that is gone, Ctrl-C
                    items, fault = iter(()), error
                    return
                futures.append(pool.submit(self._find, *item, read))

        try:
            read_ahead()
            waiting: list[Picture] = []
            while futures:
                waiting.append(futures.popleft().result())
                read_ahead()
                faces = sum(len(picture.boxes) for picture in waiting)
                if max(faces, len(waiting)) >= batch_size or _bytes(waiting) >= MEMORY or not futures:
                    self._estimate(waiting)
                    yield from waiting
                    waiting = []
            if fault:
                raise fault
        finally:
            pool.shutdown(cancel_futures=True)

    def _find(self, name: str, item: object, read: Callable[[object], np.ndarray]) -> Picture:
        try:
            image = read(item)
        except ImageError as error:
            return Picture(name, error=str(error))
        return Picture(name, image, boxes=[face.box for face in self.detector.detect(image)])

    def _estimate(self, pictures: list[Picture]) -> None:
        faces = [
            face
            for picture in pictures
            if picture.boxes
            for face in cut_faces(picture.image, picture.boxes, self.margin, self.resize)
        ]
        if not faces:
            return
        results = zip(*self.estimator.predict(faces), strict=True)
        for picture in pictures:
            own = islice(results, len(picture.boxes))
            picture.predictions = [
                Prediction(box, float(age), float(male)) for box, (age, male) in zip(picture.boxes, own, strict=True)
            ]


def _bytes(pictures: Iterable[Picture]) -> int:
    return sum(picture.image.nbytes for picture in pictures if picture.image is not None)


def _finished_bytes(futures: Iterable[Future]) -> int:
    return _bytes(future.result() for future in futures if future.done() and not future.exception())
