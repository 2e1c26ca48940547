"""Predict from images, in their order: detect on all cores, estimate the faces of many images in one batch."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np

from src.images import Box, FaceDetector, ImageError, cut_faces
from src.labels import MALE_FROM

BATCH_SIZE = 32
AHEAD = 16
"""Images per thread that are read ahead, so that no core waits while the caller estimates and draws a batch."""
MEMORY = 2**28
"""Bytes of decoded images that wait for the network, and as many again that were read ahead."""


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
        return "M" if self.male_probability >= MALE_FROM else "F"


class Estimator(Protocol):
    """What is needed of `src.inference.AgeGenderEstimator`; `Predictor` calls `predict` only."""

    info: Any
    batch_size: int

    def describe(self) -> str: ...

    def predict(self, faces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass
class LabelledImage:
    """An image with its faces; if it could not be read, `image` is None and `error` says why."""

    name: str
    image: np.ndarray | None = None
    error: str = ""
    boxes: list = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)


class Predictor:
    """Detector, estimator and margin together: images in, predictions out.

    Args:
        margin: Share of its size by which a box grows before the face is cropped.
        resize: How faces are cropped and resized for the weights, see `src.images.cut_faces`.
    """

    def __init__(self, detector: FaceDetector, estimator: Estimator, margin: float, resize: str = "area"):
        self.detector = detector
        self.estimator = estimator
        self.margin = margin
        self.resize = resize

    def predict(self, image: np.ndarray) -> list[Prediction]:
        """Find and estimate the faces of one RGB image, the largest first."""
        return self.estimate(image, [face.box for face in self.detector.detect(image)])

    def estimate(self, image: np.ndarray, boxes: list[Box]) -> list[Prediction]:
        """Estimate the faces in known boxes of one RGB image."""
        labelled = LabelledImage("", image, boxes=boxes)
        self._estimate([labelled])
        return labelled.predictions

    def predict_images(
        self,
        items: Iterable[tuple[str, Any]],
        read: Callable[[Any], np.ndarray],
        workers: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[LabelledImage]:
        """Read images and find faces in a pool of threads, and estimate the faces of many images together.

        OpenCV and dlib release the interpreter lock, so threads use all cores while the network runs in the caller's
        thread. At most `batch_size + AHEAD * workers` images are in memory, fewer if they are large (`MEMORY`).

        Args:
            items: `(name, item)` per image, read lazily.
            read: Reads an item as an RGB image; an `ImageError` becomes the `error` of its `LabelledImage`.
            workers: Threads, by default one per core.
            batch_size: Faces or images to collect before the estimator is called.

        Yields:
            One `LabelledImage` per item, in their order. If `items` raises, the images before are yielded first.
        """
        workers = workers or os.cpu_count() or 1
        rest: Iterator[tuple[str, Any]] = iter(items)
        fault: BaseException | None = None
        futures: deque[tuple[Future[LabelledImage], int]] = deque()  # with the bytes of the item
        pool = ThreadPoolExecutor(workers)

        def read_ahead() -> None:
            nonlocal rest, fault
            while len(futures) < workers or (len(futures) < AHEAD * workers and _queued_bytes(futures) < MEMORY):
                try:
                    name, item = next(rest)
                except StopIteration:
                    return
                except BaseException as error:  # a camera that is gone, Ctrl-C
                    rest, fault = iter(()), error
                    return
                futures.append((pool.submit(self._find, name, item, read), _array_bytes(item)))

        try:
            read_ahead()
            waiting: list[LabelledImage] = []
            while futures:
                waiting.append(futures.popleft()[0].result())
                read_ahead()
                faces = sum(len(labelled.boxes) for labelled in waiting)
                if max(faces, len(waiting)) >= batch_size or _bytes(waiting) >= MEMORY or not futures:
                    self._estimate(waiting)
                    yield from waiting
                    waiting = []
            if fault:
                raise fault
        finally:
            pool.shutdown(cancel_futures=True)

    def _find(self, name: str, item: Any, read: Callable[[Any], np.ndarray]) -> LabelledImage:
        try:
            image = read(item)
        except ImageError as error:
            return LabelledImage(name, error=str(error))
        return LabelledImage(name, image, boxes=[face.box for face in self.detector.detect(image)])

    def _estimate(self, images: list[LabelledImage]) -> None:
        faces = [
            face
            for labelled in images
            if labelled.image is not None and labelled.boxes
            for face in cut_faces(labelled.image, labelled.boxes, self.margin, self.resize)
        ]
        if not faces:
            return
        results = zip(*self.estimator.predict(faces), strict=True)
        for labelled in images:
            own = islice(results, len(labelled.boxes))
            labelled.predictions = [
                Prediction(box, float(age), float(male)) for box, (age, male) in zip(labelled.boxes, own, strict=True)
            ]


def _array_bytes(item: Any) -> int:
    return item.nbytes if isinstance(item, np.ndarray) else 0


def _bytes(images: Iterable[LabelledImage]) -> int:
    return sum(_array_bytes(labelled.image) for labelled in images)


def _queued_bytes(futures: Iterable[tuple[Future, int]]) -> int:
    """Sum the bytes of images that are read, and of decoded items (frames of a video) that wait for a thread."""
    return sum(
        _array_bytes(future.result().image) if future.done() and not future.exception() else item_bytes
        for future, item_bytes in futures
    )
