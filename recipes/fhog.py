"""HOG features as dlib computes them, and dlib's detector files.

Features: Felzenszwalb et al., "Object Detection with Discriminatively Trained Part-Based Models" (2010): 31 numbers per
cell of 8 x 8 pixels: 18 signed orientations, 9 unsigned ones, 4 sums by block. Images are uint8 `(n, height, width)`.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

CELL, CELLS, PLANES = 8, 10, 31
WINDOW = CELL * CELLS
"""Pixels; dlib reports a box of 0.91 of this."""
SIZE = PLANES * CELLS * CELLS
HEADER = [2, 1, 0, 0, CELL, 0, WINDOW, WINDOW, 1000, 64, 64, 0, 11, SIZE]
"""Version, feature extractor, cell, padding, window, levels of the pyramid, its smallest one, nuclear norm, size."""


def fhog(images: np.ndarray) -> np.ndarray:
    """Compute features of images of one size.

    Returns:
        `(n, 31, rows - 2, columns - 2)` float32 of `height / 8` rows and `width / 8` columns of cells; the outer cells
        serve the normalisation of the others only.
    """
    count, height, width = images.shape
    rows, columns = int(height / CELL + 0.5), int(width / CELL + 0.5)
    bottom, right = min(rows * CELL, height) - 1, min(columns * CELL, width) - 1
    gray = images.astype(np.float32)
    dx = gray[:, 1:bottom, 2 : right + 1] - gray[:, 1:bottom, : right - 1]
    dy = gray[:, 2 : bottom + 1, 1:right] - gray[:, : bottom - 1, 1:right]
    magnitude, angle = (
        flat.reshape(dx.shape) for flat in cv2.cartToPolar(dx.reshape(count, -1), dy.reshape(count, -1))
    )
    orientation = np.ceil(angle * np.float32(9 / np.pi) - np.float32(0.52)).astype(np.int64) % 18  # ties as in dlib
    histogram = _histogram(magnitude, orientation, (rows, columns))
    return _normalise(histogram)


def _histogram(magnitude: np.ndarray, orientation: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Sum the gradients by cell and orientation, each shared by the four nearest cells: `(n, 18, rows, columns)`."""
    count, height, width = magnitude.shape
    shape = count, 18, cells[0] + 2, cells[1] + 2
    (y, y_share), (x, x_share) = _cells(height), _cells(width)
    first = np.ravel_multi_index((np.arange(count)[:, None, None], orientation, y[:, None], x), shape).ravel()
    histogram = np.zeros(np.prod(shape))
    for row in (0, 1):
        for column in (0, 1):
            share = np.abs(1 - row - y_share)[:, None] * np.abs(1 - column - x_share)
            weights = (magnitude * share.astype(np.float32)).ravel()
            histogram += np.bincount(first + row * shape[3] + column, weights, len(histogram))
    return histogram.reshape(shape)[:, :, 1:-1, 1:-1].astype(np.float32)


def _cells(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of the two nearest cells of each pixel, counted from one before the image, and the second's share."""
    position = (np.arange(1, pixels + 1) + 0.5) / CELL - 0.5
    cell = np.floor(position).astype(np.int64)
    return cell + 1, position - cell


def _normalise(histogram: np.ndarray) -> np.ndarray:
    unsigned = histogram[:, :9] + histogram[:, 9:]
    energy = (unsigned**2).sum(1)
    block = energy[:, :-1, :-1] + energy[:, 1:, :-1] + energy[:, :-1, 1:] + energy[:, 1:, 1:]
    norm = 1 / np.sqrt(block + 1e-4)
    norms = np.stack([norm[:, 1:, 1:], norm[:, :-1, 1:], norm[:, 1:, :-1], norm[:, :-1, :-1]], 1)[:, None]
    signed, unsigned = (
        np.minimum(part[:, :, None, 1:-1, 1:-1] * norms, 0.2) for part in (histogram, unsigned)
    )  # (n, orientation, block, rows, columns)
    return np.concatenate([signed.sum(2) / 2, unsigned.sum(2) / 2, 0.2357 * signed.sum(1)], 1)


def mirror_order() -> np.ndarray:
    """`features[order]` of a flat window are those of its mirror image."""
    planes = [(9 - k) % 18 for k in range(18)] + [18 + (9 - k) % 9 for k in range(9)] + [29, 30, 27, 28]
    return np.arange(SIZE).reshape(PLANES, CELLS, CELLS)[planes][:, :, ::-1].ravel()


def write_detector(path: Path, filters: Sequence[np.ndarray], overlap: tuple[float, float]) -> None:
    """Write a file that `dlib.fhog_object_detector` reads.

    Args:
        filters: `(3101,)` each: weights of a window's features, and what is subtracted from their sum.
        overlap: A box is dropped when it shares more with a better one: of their union, of the smaller box.
    """
    data = b"".join(map(_integer, HEADER)) + b"".join(map(_real, overlap)) + _integer(len(filters))
    for weights in filters:
        data += _integer(-len(weights)) + _integer(-1) + b"".join(map(_real, weights))
    path.write_bytes(data)


def read_detector(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Read the filters, `(n, 3101)`, and the overlap of a file with one window of 80 pixels, such as dlib's own."""
    numbers, data, place = [], path.read_bytes(), 0
    while place < len(data):
        length = data[place] & 15
        number = int.from_bytes(data[place + 1 : place + 1 + length], "little")
        numbers.append(-number if data[place] & 128 else number)
        place += 1 + length
    start = len(HEADER)
    overlap = tuple(numbers[start + i] * 2.0 ** numbers[start + i + 1] for i in (0, 2))
    mantissas_exponents = np.array(numbers[start + 5 :], float).reshape(numbers[start + 4], 2 * (SIZE + 2))[:, 2:]
    return mantissas_exponents[:, ::2] * 2.0 ** mantissas_exponents[:, 1::2], overlap


def _integer(number: int) -> bytes:
    """One byte with sign and length, then the bytes of the number, the lowest first."""
    length = max((abs(number).bit_length() + 7) // 8, 1)
    return bytes([length | 128 * (number < 0)]) + abs(number).to_bytes(length, "little")


def _real(number: float) -> bytes:
    """Mantissa of 24 bits and exponent."""
    mantissa, exponent = np.frexp(np.float64(number))
    return _integer(round(mantissa * 2**24)) + _integer(int(exponent) - 24)
