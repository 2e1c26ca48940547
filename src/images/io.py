"""Reading, writing and resizing pictures. An image is `uint8`, `(height, width, 3)`, RGB."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from src.files import write_whole

EXTENSIONS = frozenset(
    [".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
"""File name endings that count as pictures, in lower case."""

LARGEST_FILE = 2**30
"""Bytes; the largest picture that is read (see `src/__init__.py`), uncompressed, 16 bits in four channels."""
_FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


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
    with write_whole(path) as part:
        part.write_bytes(data.tobytes())


def resize(image: np.ndarray, size: int, how: str = "area") -> np.ndarray:
    """Resize to `(size, size, 3)`.

    Args:
        image: `(height, width, 3)`.
        size: Pixels a side.
        how: "area": area averaging when it shrinks (no aliasing), bilinear when it grows; "bilinear": always that.
    """
    if image.shape[:2] == (size, size):
        return image
    shrinks = how == "area" and min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def read_at_least(path: str | os.PathLike, side: float) -> np.ndarray:
    """Reads a picture, a large JPEG at the smallest size whose sides are at least `side` pixels.

    Others are read at their full size. Reduced pixels are averages of blocks, as `images.resize` makes them, but not
    to the last grey level; so this is for training, where pictures change more than that.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: as `images.read_image`.
    """
    data = read_bytes(path)
    smallest = smallest_side(data)
    factor = next((factor for factor in _FLAGS if smallest >= factor * side), None)
    if factor is None:
        return decode_image(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[factor])
    except cv2.error:
        image = None
    if image is None:
        return decode_image(data)  # words the reason
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def smallest_side(data: bytes) -> int:
    """The shorter side in pixels that the header of a JPEG file names; 0 for other files (ITU T.81, annex B)."""
    if data[:2] != b"\xff\xd8":
        return 0
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame, no table
            height, width = (int.from_bytes(data[place + k : place + k + 2]) for k in (5, 7))
            return min(height, width)
        place += 2 + length
    return 0
