"""Track faces from frame to frame and smooth their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.images import Box, overlap
from src.inference import Prediction

SAME_FACE = 0.3
"""Minimum intersection over union of a face's boxes in two frames."""
MEMORY = 20
"""A shown value is the mean of the first `MEMORY` estimates, then moves by 1 / MEMORY of each new difference."""
MISSES = 5
"""Number of frames for which a face that is not found stays shown; detectors miss single frames."""


@dataclass
class Track:
    """One tracked face."""

    box: Box
    age: float
    male_probability: float
    seen: int = 1
    missed: int = 0


class Tracker:
    """Turn the predictions of single frames into steady ones."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []

    def update(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Take the faces of the next frame and return those to show, with smoothed age and probability.

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


def _follow(track: Track, new: Prediction) -> None:
    track.box, track.missed = new.box, 0
    track.seen += 1
    weight = 1 / min(track.seen, MEMORY)
    track.age += weight * (new.age - track.age)
    track.male_probability += weight * (new.male_probability - track.male_probability)
