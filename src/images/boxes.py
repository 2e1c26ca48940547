"""Face boxes: geometry, margins and crops.

A box is `(left, top, right, bottom)`, integers, pixels of its image, right and bottom exclusive.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from src.images.io import ImageError

Box = tuple[int, int, int, int]

BOX_COLUMNS = ["left", "top", "right", "bottom"]
"""Columns of a table that hold a box."""

ORIGINAL_SIDE = 640
"""Longest side of the copy of a photo that the original project cuts faces out of, pixels."""


def grow_box(box: Box, margin: float) -> Box:
    """Grow a box by `margin * width` left and right and `margin * height` up and down, to whole pixels."""
    left, top, right, bottom = box
    dx, dy = margin * (right - left), margin * (bottom - top)
    return round(left - dx), round(top - dy), round(right + dx), round(bottom + dy)


def crop_box(image: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """Crop a face box, grown by `margin` and clamped to the image.

    Args:
        image: `(height, width, 3)`.
        box: Face box in pixels of `image`; may reach beyond it.
        margin: In box widths and heights per side, 0 or more.

    Returns:
        A view of `image`, at least 1 x 1 pixel.

    Raises:
        ImageError: The grown box lies outside the image.
    """
    left, top, right, bottom = _grow_inside(image.shape[:2], box, margin)
    return image[top:bottom, left:right]


def _grow_inside(size: tuple[int, int], box: Box, margin: float) -> Box:
    """Grow a box as `grow_box` does and clamp it to an image of this height and width."""
    height, width = size
    left, top, right, bottom = grow_box(box, margin)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise ImageError(f"face box {box} lies outside the image of {width} x {height} pixels")
    return left, top, right, bottom


def cut_faces(image: np.ndarray, boxes: Sequence[Box], margin: float, resize: str = "area") -> list[np.ndarray]:
    """Cut the faces out of a photo for a model.

    Args:
        image: `(height, width, 3)`.
        boxes: Face boxes in pixels of `image`.
        margin: In box widths and heights per side, 0 or more.
        resize: "area": out of the photo itself, see `crop_box`; "bilinear": as the original project does it, out of a
            copy whose longest side is 640 pixels (https://github.com/yu4u/age-gender-estimation, demo.py).
    """
    if resize == "area" or not boxes:
        return [crop_box(image, box, margin) for box in boxes]
    height, width = image.shape[:2]
    scale = ORIGINAL_SIDE / max(height, width)
    copy = cv2.resize(image, (max(int(width * scale), 1), max(int(height * scale), 1)))
    return [_cut_as_original(copy, [round(edge * scale) for edge in box], margin) for box in boxes]


def _cut_as_original(image: np.ndarray, box: Sequence[int], margin: float) -> np.ndarray:
    """Cut a face as the original does: corners rounded down, the last row and column included."""
    left, top, right, bottom = box
    dx, dy = margin * (right - left), margin * (bottom - top)
    rows = slice(max(math.floor(top - dy), 0), math.floor(bottom + dy) + 1)
    columns = slice(max(math.floor(left - dx), 0), math.floor(right + dx) + 1)
    return image[rows, columns]


def crop_to_margin(image: np.ndarray, image_margin: float, model_margin: float, box: Box | None = None) -> np.ndarray:
    """Crop a face image of one margin to the margin that a model expects; see `face_region`."""
    left, top, right, bottom = face_region(image.shape[:2], image_margin, model_margin, box)
    return image[top:bottom, left:right]


def face_region(size: tuple[int, int], image_margin: float, model_margin: float, box: Box | None = None) -> Box:
    """Compute the part of a face image that a model with a smaller margin expects.

    Args:
        size: Height and width of the image.
        image_margin: Margin of the image.
        model_margin: Margin of the result.
        box: The face in pixels of the image, if known; an image cropped at the border of its photo has a smaller
            margin there. None: the face is in the center, and the result is the central
            `(1 + 2 * model_margin) / (1 + 2 * image_margin)` of each side.

    Raises:
        ValueError: `model_margin` is above `image_margin`.
        ImageError: The box, grown by `model_margin`, lies outside the image.
    """
    if model_margin > image_margin:
        raise ValueError(f"model margin must be <= {image_margin:g}, the margin of the image, got {model_margin:g}")
    if box is not None:
        return _grow_inside(size, box, model_margin)
    height, width = size
    keep = (1 + 2 * model_margin) / (1 + 2 * image_margin)
    new_height, new_width = max(round(height * keep), 1), max(round(width * keep), 1)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return left, top, left + new_width, top + new_height


def box_area(box: Box) -> int:
    """Return the number of pixels in a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def shared_area(box: Box, other: Box) -> int:
    """Return the number of pixels that two boxes share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)


def overlap(box: Box, other: Box) -> float:
    """Compute the intersection over union of two boxes, 0..1."""
    shared = shared_area(box, other)
    return shared / (box_area(box) + box_area(other) - shared)
