"""Large JPEG files at a half, a quarter or an eighth of their size, which the format gives almost for nothing."""

import os

import cv2
import numpy as np

from src import images

_FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def read_at_least(path: str | os.PathLike, side: float) -> np.ndarray:
    """Reads a picture, a large JPEG at the smallest size whose sides are at least `side` pixels.

    Others are read at their full size. Reduced pixels are averages of blocks, as `images.resize` makes them, but not
    to the last grey level; so this is for training, where pictures change more than that.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: as `images.read_image`.
    """
    data = images.read_bytes(path)
    smallest = smallest_side(data)
    factor = next((factor for factor in _FLAGS if smallest >= factor * side), None)
    if factor is None:
        return images.decode_image(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[factor])
    except cv2.error:
        image = None
    if image is None:
        return images.decode_image(data)  # words the reason
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
