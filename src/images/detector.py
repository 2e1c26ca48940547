"""Face boxes by dlib's HOG detector (Dalal & Triggs 2005; King, arXiv 1502.00046)."""

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from src.cli import ROOT, THRESHOLD
from src.images.boxes import Box, box_area, grow_box, shared_area

if TYPE_CHECKING:
    import dlib

FRONTAL = ROOT / "pretrained_models" / "frontal_faces.svm"
"""dlib.get_frontal_face_detector() as its `save` writes it: read in 2 ms, where dlib unpacks its own in 0.7 seconds."""
MAX_SIDE = 640
MIN_AREA = 640 * 320
"""Pixels of the copy that "auto" searches at least: a panorama gets a longer one."""
MAX_ZOOM = 1.5
"""Maximum factor by which an image is enlarged: beyond it dlib finds no more faces."""
MIN_STEP = 1.5
"""Minimum factor between the sizes of two searched copies: below it there is too little to gain."""
REGION_SIDE = 192
"""Pixels of the searched copy of a region: its face is expected at 96, one step of the pyramid above dlib's 80."""
CLOSER_AREA = 2_100_000
"""Pixels of the copy on which "auto" searches for smaller faces beside those it found."""
CLEAR = 0.2
"""Minimum score of a face on a closer copy: 0.94 of 97 faces of 72 pixels have it, as many as have -0.5."""
GROUP = 3
"""Minimum number of faces in a group photo, which is searched at any size as long as that finds more."""
PROFILES = ROOT / "pretrained_models" / "profile_faces.svm"
"""dlib's five detectors of faces that look towards the camera, and four of heads that are turned away from it, all of
fewer separable filters than dlib's own, by `recipes/profile_detector.py`. The latter are shifted so that `THRESHOLD` is
right for them too."""
ROTATED = (3, 4)
"""Those of dlib's five detectors that look for faces tilted left and right. They keep dlib's own threshold 0: below it
nearly half of what they find is no face, against a fifth for the upright ones."""
FIRST_TURNED = 5
"""From this one on they look for turned heads."""
CLEARLY_TURNED = 0.3
"""Score from which a turned head is kept beside other faces or where it is small; chosen on validation images."""
CLEAR_AND_TURNED = 0.4
"""Minimum score of a turned head on a closer copy, which has more places to take for one."""
SMALL_FACES = ROOT / "pretrained_models" / "small_faces.svm"
"""One filter of faces that look towards the camera, of `SMALL_WINDOW` where the others have `WINDOW`, by
`recipes/small_faces.py`: less sure of them, but on a copy of a third of the pixels."""
WINDOW, SMALL_WINDOW = 80, 48
"""Pixels of the smallest face that a detector finds."""
HINT = -0.6
"""Minimum score of a hint at a small face: 0.91 of the faces on validation images have it, and 4 places of an image
without faces."""
MAX_HINTS = 8


class Face(NamedTuple):
    """A detected face: its box in pixels of the image, inside the image, the detector's score, and whether the
    head is turned away from the camera."""

    box: Box
    score: float
    turned: bool = False


class FaceDetector:
    """Find faces; one object serves any number of threads.

    dlib's detector is not thread-safe but releases the interpreter lock, so every thread gets its own.

    Args:
        upsample: How often the searched copy is doubled in size, 0 or more. The smallest face that is found is about
            80 pixels high on that copy, and each doubling costs four times the time. "auto" searches once more at
            twice the size only where the first look found nothing.
        threshold: Minimum score of a face. dlib's own is 0; lower finds more faces and more that are none.
        max_side: Longest side of the searched copy before doubling, pixels; smaller images are searched as they are.
            "auto" is 640, or more for a panorama; with `upsample="auto"`, larger images are searched again: for smaller
            faces at up to 2.1 megapixels, beside one or two only if a quick look hints at more; and where no face or at
            least three were found at twice the size each time.
        profiles: Also find heads that are turned away from the camera.
        few_too: Search large images with one or two faces again; False for videos, where it takes too long.
    """

    def __init__(
        self,
        upsample: int | str = "auto",
        threshold: float = THRESHOLD,
        max_side: int | str = "auto",
        profiles: bool = True,
        few_too: bool = True,
    ):
        self.upsample = upsample
        self.threshold = threshold
        self.max_side = max_side
        self._file = PROFILES if profiles else FRONTAL
        self.few_too = few_too
        self._own = threading.local()

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an image.

        Args:
            image: `(height, width, 3)` uint8 RGB.

        Returns:
            Faces, the largest box first.
        """
        scale = self._first_scale(*image.shape[:2])
        if isinstance(self.upsample, int):
            return _largest_first(self._look(image, scale * 2**self.upsample))
        faces = self._look(image, scale)
        if not faces:
            scale *= 2
            faces = self._look(image, scale)
        if self.max_side != "auto":
            return _largest_first(faces)
        while not faces and 2 * scale <= MAX_ZOOM:
            scale *= 2
            faces = self._look(image, scale)
        before = 0
        while len(faces) > before and (closer := self._closer_scale(image, scale, len(faces))):
            if len(faces) < GROUP and not self._may_show_more(image, closer, faces):
                break
            scale, before = closer, len(faces)
            faces = suppress_overlaps(faces + [face for face in self._look(image, scale) if is_clear(face)])
        return _largest_first(faces)

    def _first_scale(self, height: int, width: int) -> float:
        """Scale of the copy that is searched first."""
        if isinstance(self.max_side, int):
            return min(1.0, self.max_side / max(height, width))
        return min(1.0, max(MAX_SIDE / max(height, width), math.sqrt(MIN_AREA / (height * width))))

    def _closer_scale(self, image: np.ndarray, scale: float, count: int) -> float | None:
        """Scale of the copy on which faces smaller than the `count` found at `scale` are searched, if there is one."""
        if count < GROUP and not self.few_too:
            return None
        height, width = image.shape[:2]
        closer = min(1.0, math.sqrt(CLOSER_AREA / (height * width)))
        if closer >= MIN_STEP * scale:
            return closer
        return 2 * scale if count >= GROUP and 2 * scale <= MAX_ZOOM else None

    def _may_show_more(self, image: np.ndarray, scale: float, faces: list[Face]) -> bool:
        """Tell whether a quick look hints at a face that a search at `scale` would find beside those found."""
        small = scale * SMALL_WINDOW / WINDOW
        rectangles, scores, _ = self._dlib(SMALL_FACES).run(_gray(image, small), 0, HINT)
        known = [face.box for face in faces]

        def is_new(box: Box) -> bool:
            return not any(_mostly_shared(box, other) for other in known)

        by_score = sorted(zip(rectangles, scores, strict=True), key=lambda hint: -hint[1])
        hints = [box for box in (_box(rectangle, small) for rectangle, _ in by_score) if is_new(box)]
        for hint in hints[:MAX_HINTS]:
            found = self.detect_in(image, [grow_box(hint, 0.5)])
            if any(is_clear(face) and is_new(face.box) for face in found):
                return True
        return False

    def detect_in(self, image: np.ndarray, regions: Sequence[Box]) -> list[Face]:
        """Find faces in parts of an image that are known to hold some, so turned heads are kept at any score.

        Args:
            image: `(height, width, 3)` uint8 RGB.
            regions: May reach beyond the image. Each is searched for faces of about half its size; the smallest is
                0.42 of it.

        Returns:
            Faces, the highest score first.
        """
        height, width = image.shape[:2]
        faces = []
        for left, top, right, bottom in regions:
            part = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
            if part[0] < part[2] and part[1] < part[3]:
                faces += self._search(image, REGION_SIDE / max(right - left, bottom - top), part)
        return suppress_overlaps(faces)

    def _look(self, image: np.ndarray, scale: float) -> list[Face]:
        height, width = image.shape[:2]
        return drop_doubtful(suppress_overlaps(self._search(image, scale, (0, 0, width, height))), min(height, width))

    def _search(self, image: np.ndarray, scale: float, region: Box) -> list[Face]:
        height, width = image.shape[:2]
        x, y, end_x, end_y = region
        gray = _gray(image[y:end_y, x:end_x], scale)
        faces = []
        for rectangle, score, part in zip(*self._dlib(self._file).run(gray, 0, self.threshold), strict=True):
            if part in ROTATED and score < 0:
                continue
            left, top, right, bottom = _box(rectangle, scale)
            box = max(left + x, 0), max(top + y, 0), min(right + x, width), min(bottom + y, height)
            if box[0] < box[2] and box[1] < box[3]:
                faces.append(Face(box, float(score), part >= FIRST_TURNED))
        return faces

    def _dlib(self, file: Path) -> "dlib.fhog_object_detector":
        import dlib  # here, so that what only reads or draws images does without it

        if not hasattr(self._own, "detectors"):
            self._own.detectors = {}
        if file not in self._own.detectors:
            self._own.detectors[file] = dlib.fhog_object_detector(str(file))
        return self._own.detectors[file]


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -box_area(face.box))


def is_clear(face: Face) -> bool:
    """Tell whether a face that was found on a closer copy is kept."""
    return face.score >= (CLEAR_AND_TURNED if face.turned else CLEAR)


def drop_doubtful(faces: list[Face], side: int) -> list[Face]:
    """Drop turned heads of a score below `CLEARLY_TURNED`, except one that has the highest score and is large.

    Args:
        side: The shorter side of the image, pixels; a large head is as wide as a quarter of it.
    """
    best = max((face.score for face in faces), default=0)

    def is_plausible(face: Face) -> bool:
        alone = face.score == best and face.box[2] - face.box[0] >= side / 4
        return not face.turned or face.score >= CLEARLY_TURNED or alone

    return [face for face in faces if is_plausible(face)]


def suppress_overlaps(faces: list[Face]) -> list[Face]:
    """Drop every face that shares more than half of the smaller box with a face of a higher score.

    dlib itself removes boxes that overlap by a large part of their union; a box inside a larger one passes it.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_mostly_shared(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _mostly_shared(box: Box, other: Box) -> bool:
    return shared_area(box, other) > 0.5 * min(box_area(box), box_area(other))


def _box(rectangle: "dlib.rectangle", scale: float) -> Box:
    """Convert a rectangle on a copy of an image to pixels of the image."""
    edges = (rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)
    left, top, right, bottom = (round(edge / scale) for edge in edges)
    return left, top, right, bottom


def _gray(image: np.ndarray, scale: float) -> np.ndarray:
    """Convert to gray, which is searched a quarter faster than colour, and resize by `scale`."""
    height, width = image.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if scale > 0.5:
        return cv2.cvtColor(_resized(image, size, scale), cv2.COLOR_RGB2GRAY)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    while scale <= 0.5:  # seven times as fast as at once
        height, width = (max(side // 2, 1) for side in gray.shape)
        gray = _resized(gray[: 2 * height, : 2 * width], (width, height), 0.5)
        scale *= 2
    return _resized(gray, size, scale)


def _resized(image: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def find_main_face(boxes: Sequence[Box], size: tuple[int, int]) -> Box | None:
    """Choose the face that a photo is about: the one at its centre, else one twice as wide as every other.

    At the centre is the face whose middle is nearest to that of the photo, measured in its own widths and heights (so
    that a large one is nearer than a small one), if it covers the middle of the photo.

    Args:
        boxes: The largest first, as `FaceDetector.detect` returns them.
        size: Height and width of the photo, pixels.

    Returns:
        One of the boxes; None where there is none, or several and none is clearly the main one.
    """
    if len(boxes) < 2:
        return boxes[0] if boxes else None
    nearest = min(boxes, key=lambda box: np.hypot(*_off_centre(box, size)))
    if max(_off_centre(nearest, size)) <= 0.5:
        return nearest
    widths = [right - left for left, _, right, _ in boxes]
    return boxes[0] if widths[0] >= 2 * max(widths[1:]) else None


def _off_centre(box: Box, size: tuple[int, int]) -> tuple[float, float]:
    """Measure how far a box lies off the centre of the photo, in box widths and box heights."""
    left, top, right, bottom = box
    height, width = size
    return abs(left + right - width) / 2 / (right - left), abs(top + bottom - height) / 2 / (bottom - top)
