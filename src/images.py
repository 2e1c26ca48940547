"""Reading, writing, resizing and cropping pictures.

An image is `uint8`, `(height, width, 3)`, RGB. A box is `(left, top, right, bottom)`, integers, pixels, right and
bottom exclusive.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

Box = tuple[int, int, int, int]
BOX_COLUMNS = ["left", "top", "right", "bottom"]
"""Columns of a table that hold a box."""

EXTENSIONS = frozenset(
    [".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
"""File name endings that count as pictures, in lower case."""

LARGEST_FILE = 2**30
"""Bytes; the largest picture that is read (see `src/__init__.py`), uncompressed, 16 bits in four channels."""


class ImageError(ValueError):
    """A file that is no readable picture; the message says why, without the file's name."""


def list_images(folder: str | os.PathLike, recursive: bool = True) -> list[Path]:
    """Picture files (by ending) below `folder`, sorted by path; hidden files and folders are left out."""
    return sorted(_walk_images(Path(folder), recursive))


def _walk_images(folder: Path, recursive: bool) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(parent, name)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture file of any kind that OpenCV decodes, whatever the script of its name.

    EXIF rotation is honoured; greyscale, alpha and 16-bit pictures become 8-bit RGB.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: the file is missing, empty, damaged, no picture, or larger than the limit of `src/__init__.py`.
    """
    return decode_image(read_bytes(path))


def read_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a picture file.

    Raises:
        ImageError: the file is missing, no file (a pipe would be waited for), or too large for any allowed picture.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file")
        if status.st_size > LARGEST_FILE:
            raise ImageError("more bytes than a picture of the allowed size has")
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def decode_image(data: bytes) -> np.ndarray:
    """Decodes the bytes of a picture file; see `read_image`."""
    if not data:
        raise ImageError("the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        too_large = "CV_IO_MAX_IMAGE" in str(error)
        raise ImageError("more pixels than allowed" if too_large else "damaged picture") from error
    if image is None:
        raise ImageError("not a picture that OpenCV can read, or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # in place: pages of a new array cost more than the swap


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an RGB picture in the format of the path's ending; the file appears whole or not at all.

    Raises:
        ValueError: no picture format has this ending.
        OSError: the file cannot be written.
    """
    path = Path(path)
    try:
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"cannot write pictures ending in {path.suffix!r}") from error
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data.tobytes())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to `(size, size, 3)`: area averaging when it shrinks (no aliasing), bilinear when it grows."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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
