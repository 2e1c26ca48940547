"""Follow faces through live video: a quick search around known faces, a full one now and then, an estimate at a time.

The three steps run in threads of their own, so that a slow network or search delays no box.
"""

import math
import threading
from typing import NamedTuple

import numpy as np

from src.demo.tracking import Tracker
from src.inference import Prediction, Predictor


class Captured(NamedTuple):
    """A frame, the second of `time.monotonic` at which it was captured, and the seconds since the one before."""

    image: np.ndarray
    time: float
    interval: float = 0.0


class Labels(NamedTuple):
    """Faces to show.

    Attributes:
        time: When the frame was captured in which their boxes were found.
        estimated: When the frame of the newest estimate was captured, of the face for which it is oldest.
    """

    predictions: list[Prediction]
    time: float
    estimated: float


class Faces:
    """The faces of a live video; every step may run in another thread."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._tracker = Tracker()
        self._frame: Captured | None = None
        self._lock = threading.Lock()

    def follow(self, frame: Captured) -> bool:
        """Find the known faces in the next frame; return whether there are some and none is missing."""
        with self._lock:
            self._tracker.see(frame.image)
            regions = [track.region for track in self._tracker.tracks]
        found = self._predictor.detector.detect_in(frame.image, regions)
        with self._lock:
            self._tracker.follow([face.box for face in found])
            self._frame = frame
            return bool(self._tracker.tracks) and not any(track.missed for track in self._tracker.tracks)

    def search(self, frame: Captured) -> None:
        """Search a whole frame for new faces."""
        found = self._predictor.detector.detect(frame.image)
        with self._lock:
            self._tracker.begin([face.box for face in found])

    def estimate(self) -> bool:
        """Estimate the face whose estimate is oldest, in the newest frame; return False if all are up to date."""
        with self._lock:
            frame = self._frame
            found = [track for track in self._tracker.tracks if not track.missed]
            if frame is None or not (waiting := [track for track in found if track.time < frame.time]):
                return False
            track = min(waiting, key=lambda track: track.time)
            box = track.box
        (new,) = self._predictor.estimate(frame.image, [box])
        with self._lock:
            track.add(new, frame.time)
        return True

    def labels(self) -> Labels:
        """Return the faces to show now."""
        with self._lock:
            times = [track.time for track in self._tracker.tracks if track.seen]
            time = self._frame.time if self._frame else -math.inf
            return Labels(self._tracker.shown(), time, min(times, default=time))
