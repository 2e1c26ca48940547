"""Follows faces from frame to frame and smooths what is said about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.images import Box, box_area, shared_area
from src.inference import Prediction

SAME_FACE = 0.3
"""Least intersection over union of a face's boxes in two frames."""
MEMORY = 20
"""A shown value is the mean of the first so many estimates, then moves by 1 / MEMORY of each new difference."""
MISSES = 5
"""Frames for which a face stays shown where it was last found; detectors blink."""


@dataclass
class Track:
    """One followed face."""

    box: Box
    age: float
    male_probability: float
    seen: int = 1
    missed: int = 0


class Tracker:
    """Turns the predictions of single frames into steady ones."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []

    def update(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Takes the faces of the next frame and returns those to show, with smoothed age and probability.

        A face continues the track whose last box it overlaps most; the others begin new tracks, without a memory.
        """
        pairs = sorted(
            (-overlap(track.box, new.box), number, index)
            for number, track in enumerate(self._tracks)
            for index, new in enumerate(predictions)
        )
        matched: dict[int, int] = {}
        for negative, number, index in pairs:
            if -negative >= SAME_FACE and number not in matched and index not in matched.values():
                matched[number] = index
        for number, track in enumerate(self._tracks):
            if number in matched:
                _follow(track, predictions[matched[number]])
            else:
                track.missed += 1
        kept = [track for track in self._tracks if track.missed <= MISSES]
        new = [Track(*predictions[index]) for index in range(len(predictions)) if index not in matched.values()]
        self._tracks = kept + new
        return [Prediction(track.box, track.age, track.male_probability) for track in self._tracks]


def overlap(box: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    shared = shared_area(box, other)
    return shared / (box_area(box) + box_area(other) - shared)


def _follow(track: Track, new: Prediction) -> None:
    track.box, track.missed = new.box, 0
    track.seen += 1
    weight = 1 / min(track.seen, MEMORY)
    track.age += weight * (new.age - track.age)
    track.male_probability += weight * (new.male_probability - track.male_probability)
