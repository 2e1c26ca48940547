"""Track faces from frame to frame and smooth their predictions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from src.demo.scenes import is_cut, make_thumbnail
from src.images import Box, grow_box, overlap
from src.inference import Prediction

SAME_FACE = 0.3
"""Minimum intersection over union of a face's boxes in two frames."""
MEMORY = 20
"""A shown value is the mean of the first `MEMORY` estimates, then moves by 1 / MEMORY of each new difference."""
MISSES = 5
"""Number of frames for which a face that is not found stays shown; detectors miss single frames."""
DOUBTS = 10
"""Number of full searches after which a face that only searches around it find is dropped."""
REACH = 0.5
"""Share of its size by which a box grows on each side to the region that is searched for its face."""


@dataclass(eq=False)
class Track:
    """One tracked face.

    Attributes:
        seen: Number of estimates.
        missed: Number of frames since it was last found.
        doubts: Number of full searches since one found it.
        time: When the frame of the newest estimate was captured.
        region: Where the face is searched for. It stays while the face moves little, since dlib's boxes lie on a grid
            that begins at the edge of the searched image: with a region that follows every box a still face trembles.
    """

    box: Box
    age: float = 0.0
    male_probability: float = 0.0
    seen: int = 0
    missed: int = 0
    doubts: int = 0
    time: float = -math.inf
    region: Box = field(init=False)

    def __post_init__(self) -> None:
        self.region = grow_box(self.box, REACH)

    def move(self, box: Box) -> None:
        """Take the face's box in the next frame."""
        self.box, self.missed = box, 0
        if not fits(box, self.region):
            self.region = grow_box(box, REACH)

    def add(self, new: Prediction, time: float = 0.0) -> None:
        """Take an estimate."""
        self.seen += 1
        weight = 1 / min(self.seen, MEMORY)
        self.age += weight * (new.age - self.age)
        self.male_probability += weight * (new.male_probability - self.male_probability)
        self.time = time


class Tracker:
    """Turn the faces of single frames into steady ones."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._view: np.ndarray | None = None

    def see(self, image: np.ndarray) -> None:
        """Take the next frame itself, RGB, before its faces: a cut to another scene ends all tracks."""
        before, self._view = self._view, make_thumbnail(image)
        if before is not None and is_cut(before, self._view):
            self.tracks.clear()

    def update(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Take the faces of the next frame and return those to show, with smoothed age and probability.

        A face continues the track whose last box it overlaps most; the others begin new tracks, without a memory.
        """
        boxes = [new.box for new in predictions]
        tracks = self.follow(boxes)
        for index, box in enumerate(boxes):
            if index not in tracks:
                self.tracks.append(tracks.setdefault(index, Track(box)))
        for index, track in tracks.items():
            track.add(predictions[index])
        return self.shown()

    def follow(self, boxes: Sequence[Box]) -> dict[int, Track]:
        """Move the tracks to the boxes of the next frame that overlap them most, and forget those missed for long.

        Returns:
            The tracks that were found, by the index of their box.
        """
        found = match(self.tracks, boxes)
        for track in self.tracks:
            track.missed += 1
        for index, track in found.items():
            track.move(boxes[index])
        self.tracks = [track for track in self.tracks if track.missed <= MISSES]
        return found

    def begin(self, boxes: Sequence[Box]) -> None:
        """Take the boxes of a full search, maybe of an older frame: those of no track begin one.

        It counts as missed until it is followed, and is shown once it is estimated.
        """
        found = match(self.tracks, boxes)
        for track in self.tracks:
            track.doubts = 0 if track in found.values() else track.doubts + 1
        self.tracks = [track for track in self.tracks if track.doubts <= DOUBTS]
        self.tracks += [Track(box, missed=1) for index, box in enumerate(boxes) if index not in found]

    def shown(self) -> list[Prediction]:
        """Return the faces to show."""
        return [Prediction(track.box, track.age, track.male_probability) for track in self.tracks if track.seen]


def match(tracks: Sequence[Track], boxes: Sequence[Box]) -> dict[int, Track]:
    """Match boxes and tracks, the best overlap first; return the tracks by the index of their box."""
    pairs = sorted(
        (-overlap(track.box, box), number, index)
        for number, track in enumerate(tracks)
        for index, box in enumerate(boxes)
    )
    matched: dict[int, Track] = {}
    for negative, number, index in pairs:
        if -negative >= SAME_FACE and index not in matched and tracks[number] not in matched.values():
            matched[index] = tracks[number]
    return matched


def fits(box: Box, region: Box) -> bool:
    """Whether a region still suits a face: some room on each side, and not much more than twice the face's size."""
    left, top, right, bottom = grow_box(box, 0.15)
    inside = region[0] <= left and region[1] <= top and right <= region[2] and bottom <= region[3]
    return inside and _longer_side(region) <= 2.25 * _longer_side(box)


def _longer_side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])
