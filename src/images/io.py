"""Read, write and resize images. An image is `uint8`, `(height, width, 3)`, RGB."""

import errno
import os
import stat
from pathlib import Path

import cv2
import numpy as np

from src.files import write_whole
from src.images.jpeg import is_cut_off, smallest_side, warn_if_damaged

MAX_FILE_BYTES = 2**30
"""The largest image that is read (see `src/__init__.py`), uncompressed, 4 x 16 bits."""
_FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class ImageError(ValueError):
    """The file is not a readable image; the message says why, without the file's name."""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file of any format that OpenCV decodes.

    Applies EXIF rotation, except in AVIF files; converts grayscale, alpha and 16-bit images to 8-bit RGB. A warning
    names, once, a JPEG that can be read although a part of it is damaged; see `jpeg.warn_if_damaged`.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: The file is missing, empty, damaged, no image, or larger than the limit of `src/__init__.py`.
    """
    data = read_bytes(path)
    image = decode_image(data)
    warn_if_damaged(path, data)
    return image


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read the bytes of an image file.

    Raises:
        ImageError: The file is missing, not regular (reading a pipe would block), or larger than any allowed image.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError("larger than any image of the allowed size")
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def unreadable_reason(path: str | os.PathLike) -> str | None:
    """Return why `read_image` will not read a file, or None where it will, perhaps with the same warning.

    Decodes it at an eighth of its size.
    """
    try:
        data = read_bytes(path)
        if data and cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is not None:
            warn_if_damaged(path, data)
            return None
    except (ImageError, cv2.error):
        pass  # read_image words the reason
    try:
        read_image(path)
    except ImageError as error:
        return str(error)
    return None


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file; see `read_image`."""
    if not data:
        raise ImageError("the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        too_large = "CV_IO_MAX_IMAGE" in str(error)
        raise ImageError("more pixels than allowed" if too_large else "damaged image") from error
    if image is None:
        cut_off = is_cut_off(data)
        raise ImageError("the JPEG file is cut off" if cut_off else "not an image that OpenCV can read, or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # in place: a new array costs more than the swap


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an RGB image in the format of the path's suffix, to a temporary file that is then renamed.

    Raises:
        ValueError: No image format has this suffix.
        OSError: The file cannot be written, or its format cannot hold so large an image.
    """
    path = Path(path)
    try:
        encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"no image format has the suffix {path.suffix!r}") from error
    if not encoded:
        height, width = image.shape[:2]
        raise OSError(errno.EINVAL, f"{width} x {height} pixels cannot be stored as {path.suffix}", str(path))
    with write_whole(path) as part:
        part.write_bytes(data.tobytes())


def resize(image: np.ndarray, size: int, how: str = "area") -> np.ndarray:
    """Resize to `(size, size, 3)`.

    Args:
        image: `(height, width, 3)`.
        size: Side of the result, pixels.
        how: "area": area averaging to shrink (no aliasing), bilinear to enlarge; "bilinear": always bilinear.
    """
    if image.shape[:2] == (size, size):
        return image
    shrinks = how == "area" and min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def read_at_least(path: str | os.PathLike, side: float) -> np.ndarray:
    """Read an image; decode a large JPEG at the smallest size whose sides are at least `side` pixels.

    Other formats are read at full size. Reduced pixels are block averages, equal to those of `resize` only up to a few
    gray levels, so use this for training only, where augmentation changes more.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: See `read_image`.
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
        return decode_image(data)  # raises with the reason
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
