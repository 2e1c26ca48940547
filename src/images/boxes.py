"""Face boxes: geometry, margins and crops.

A box is `(left, top, right, bottom)`, integers, pixels of its image, right and bottom exclusive.
"""

import numpy as np

Box = tuple[int, int, int, int]

BOX_COLUMNS = ["left", "top", "right", "bottom"]
"""Columns of a table that hold a box."""

LARGEST_MARGIN = 2.0


def grow_box(box: Box, margin: float) -> Box:
    """Grows a box by `margin * width` left and right and `margin * height` up and down, to whole pixels."""
    left, top, right, bottom = box
    dx, dy = margin * (right - left), margin * (bottom - top)
    return round(left - dx), round(top - dy), round(right + dx), round(bottom + dy)


def crop_box(image: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """Cuts a face box grown by `margin` and clamped to the image.

    Args:
        image: `(height, width, 3)`.
        box: Face box in pixels of `image`; may reach beyond it.
        margin: In box widths and heights per side, 0 or more.

    Returns:
        A view of `image`, at least 1 x 1 pixel.

    Raises:
        ValueError: the grown box lies outside the image.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = grow_box(box, margin)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise ValueError(f"box {box} lies outside the image of {width} x {height} pixels")
    return image[top:bottom, left:right]


def crop_to_margin(image: np.ndarray, picture_margin: float, model_margin: float, box: Box | None = None) -> np.ndarray:
    """Cuts a face picture of one margin to the margin that a model expects; see `face_region`."""
    left, top, right, bottom = face_region(image.shape[:2], picture_margin, model_margin, box)
    return image[top:bottom, left:right]


def face_region(size: tuple[int, int], picture_margin: float, model_margin: float, box: Box | None = None) -> Box:
    """Which part of a face picture a model of a smaller margin expects.

    Args:
        size: Height and width of the picture.
        picture_margin: Margin that it was cut with.
        model_margin: Margin to leave.
        box: The face in pixels of the picture, where it is known; a picture cut at the border of its photograph has
            less than its margin there. None: the face stands in the centre, and the central
            `(1 + 2 * model_margin) / (1 + 2 * picture_margin)` of each side stays.

    Raises:
        ValueError: `model_margin` is above `picture_margin`; the pixels between them do not exist.
    """
    if model_margin > picture_margin:
        raise ValueError(f"a picture with margin {picture_margin:g} cannot give the margin {model_margin:g}")
    height, width = size
    if box is not None:
        left, top, right, bottom = grow_box(box, model_margin)
        return max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    keep = (1 + 2 * model_margin) / (1 + 2 * picture_margin)
    new_height, new_width = max(round(height * keep), 1), max(round(width * keep), 1)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return left, top, left + new_width, top + new_height


def box_area(box: Box) -> int:
    """Pixels in a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def shared_area(box: Box, other: Box) -> int:
    """Pixels that two boxes have in common."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)
