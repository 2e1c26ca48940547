"""Random changes of face images for training.

Every change is two pure functions: `draw_...(rng, config)` draws its parameters from an explicit
`numpy.random.Generator`, and `apply_...` applies them and draws nothing, so that a test can inject the draw.
Images stay `uint8` `(size, size, 3)` RGB all the way; mixup works on whole batches.

The order is that of the world: pose and framing, light, optics, sensor and compression; then random erasing and
mixup, which imitate nothing.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from src import images
from src.training.config import AugmentConfig, Pair
from src.training.random_erasing import Erasing, apply_erasing, draw_erasing

Region = tuple[float, float, float, float]
"""`(left, top, right, bottom)` of the model's input in an image, pixels, not necessarily whole."""


# ------------------------------------------------------------------------------------------------- pose and framing


class Geometry(NamedTuple):
    """One similarity transform about the centre of the model's input."""

    flip: bool = False
    shift_x: float = 0.0  # fraction of the side, to the right
    shift_y: float = 0.0  # fraction of the side, down
    scale: float = 1.0  # above 1 the face grows
    angle: float = 0.0  # degrees, anticlockwise


class CropJitter(NamedTuple):
    """How a detector's box may differ from the one of the data set."""

    shift_x: float = 0.0  # fraction of the region's width, to the right
    shift_y: float = 0.0
    scale: float = 1.0  # above 1 the region grows


def draw_geometry(rng: np.random.Generator, config: AugmentConfig) -> Geometry:
    """Draw flip, shift, scale and rotation, each uniform within its limits."""
    flip = rng.random() < config.flip_probability
    if rng.random() >= config.geometry_probability:
        return Geometry(flip)
    shift_x, shift_y = rng.uniform(-config.shift, config.shift, 2)
    scale = rng.uniform(1 - config.scale, 1 + config.scale)
    return Geometry(flip, shift_x, shift_y, scale, rng.uniform(-config.rotation, config.rotation))


def draw_crop_jitter(rng: np.random.Generator, config: AugmentConfig) -> CropJitter:
    """Draw a displacement and a change of size of the crop, each uniform within its limits."""
    if rng.random() >= config.crop_jitter_probability:
        return CropJitter()
    shift_x, shift_y = rng.uniform(-config.crop_jitter_shift, config.crop_jitter_shift, 2)
    return CropJitter(shift_x, shift_y, rng.uniform(1 - config.crop_jitter_scale, 1 + config.crop_jitter_scale))


def apply_crop_jitter(region: Region, height: int, width: int, jitter: CropJitter) -> Region:
    """Move and scale a region, as far as the image of `height` x `width` has pixels for it."""
    left, right = _jitter_side(region[0], region[2], width, jitter.shift_x, jitter.scale)
    top, bottom = _jitter_side(region[1], region[3], height, jitter.shift_y, jitter.scale)
    return left, top, right, bottom


def _jitter_side(start: float, end: float, limit: int, shift: float, scale: float) -> tuple[float, float]:
    length = min((end - start) * scale, limit)
    start = (start + end) / 2 + shift * (end - start) - length / 2
    start = min(max(start, 0.0), limit - length)
    return start, start + length


def geometry_matrix(region: Region, size: int, geometry: Geometry) -> np.ndarray:
    """Compute the `(2, 3)` float64 matrix that takes pixel indices of an image to those of the model's input."""
    left, top, right, bottom = region
    cos, sin = (f(math.radians(geometry.angle)) * geometry.scale for f in (math.cos, math.sin))
    zoom_x, zoom_y = (-1 if geometry.flip else 1) * size / (right - left), size / (bottom - top)
    xx, xy, yx, yy = cos * zoom_x, sin * zoom_y, -sin * zoom_x, cos * zoom_y
    # Pixel i covers i .. i + 1, so its index is the place of its centre less one half.
    centre_x, centre_y = (left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5
    target_x, target_y = ((0.5 + shift) * size - 0.5 for shift in (geometry.shift_x, geometry.shift_y))
    return np.array(
        [
            [xx, xy, target_x - xx * centre_x - xy * centre_y],
            [yx, yy, target_y - yx * centre_x - yy * centre_y],
        ]
    )


def apply_geometry(image: np.ndarray, region: Region, size: int, geometry: Geometry) -> np.ndarray:
    """Crop, resize, flip, shift, scale and rotate in one resampling.

    What the model's input shows of the image outside `region` are the image's own pixels; beyond its edges it is
    mirrored.

    Args:
        image: `(height, width, 3)` uint8.
        region: What becomes the model's input where `geometry` is the identity.
        size: Side of the result in pixels.

    Returns:
        `(size, size, 3)` uint8.
    """
    matrix = geometry_matrix(region, size, geometry)
    image, matrix = _shrink_before(image, matrix, size)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _shrink_before(image: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink by area averaging what the transform will show, where bilinear sampling alone would alias."""
    (xx, xy, _), (yx, yy, _) = matrix.tolist()
    factor = 1 / math.sqrt(abs(xx * yy - xy * yx))
    if factor < 1.5:
        return image, matrix
    height, width = image.shape[:2]
    corners = np.array([[0, 0, size, size], [0, size, 0, size]]) - matrix[:, 2:]
    shown = np.linalg.solve(matrix[:, :2], corners)  # (x, y) of the four corners in the image
    border = 2 * factor
    left, top = (int(max(v - border, 0)) for v in shown.min(axis=1))
    right, bottom = (int(min(v + border, side)) for v, side in zip(shown.max(axis=1), (width, height), strict=True))
    if right - left < factor or bottom - top < factor:
        return image, matrix
    cut = image[top:bottom, left:right]
    small = cv2.resize(
        cut, (round((right - left) / factor), round((bottom - top) / factor)), interpolation=cv2.INTER_AREA
    )
    zoom = np.array([(right - left) / small.shape[1], (bottom - top) / small.shape[0]])
    # index in the image = (index in small + 0.5) * zoom - 0.5 + (left, top)
    linear = matrix[:, :2] * zoom
    offset = matrix[:, 2] + matrix[:, :2] @ (0.5 * zoom - 0.5 + np.array([left, top]))
    return small, np.column_stack([linear, offset])


# ------------------------------------------------------------------------------------------------------------ light


class Light(NamedTuple):
    """A change of every pixel by itself: gamma, then the gains of the channels, then contrast and brightness."""

    gamma: float = 1.0  # above 1 darkens
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)  # red, green, blue
    contrast: float = 1.0
    brightness: float = 0.0  # fraction of full white
    grey: bool = False


def draw_light(rng: np.random.Generator, config: AugmentConfig) -> Light:
    """Draw gamma (uniform in its logarithm), colour cast, contrast, brightness and greyscale."""
    gamma, gains, contrast, brightness = 1.0, (1.0, 1.0, 1.0), 1.0, 0.0
    if rng.random() < config.gamma_probability:
        gamma = _log_uniform(rng, config.gamma)
    if rng.random() < config.colour_cast_probability:
        gains = tuple(rng.uniform(1 - config.colour_cast, 1 + config.colour_cast, 3))
    if rng.random() < config.brightness_contrast_probability:
        contrast = rng.uniform(1 - config.contrast, 1 + config.contrast)
        brightness = rng.uniform(-config.brightness, config.brightness)
    return Light(gamma, gains, contrast, brightness, rng.random() < config.grey_probability)


def apply_light(image: np.ndarray, light: Light) -> np.ndarray:
    """Apply one table per channel to an RGB image `(height, width, 3)` uint8; greyscale comes first."""
    if light.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if light[:4] == Light()[:4]:
        return image
    values = 255 * (np.arange(256) / 255) ** light.gamma
    values = np.outer(values, light.gains) * light.contrast + 255 * light.brightness
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[np.newaxis])


# ----------------------------------------------------------------------------------------- optics, sensor, compression


class Camera(NamedTuple):
    """What lens, sensor and file format take away; `None` and 0 take nothing."""

    sigma: float = 0.0  # of a Gaussian blur, fraction of the side
    motion: float = 0.0  # length of a straight motion blur, fraction of the side
    motion_angle: float = 0.0  # degrees
    pixels: int | None = None  # side in pixels at which the image was taken
    quality: int | None = None  # of JPEG, 1..100


def draw_camera(rng: np.random.Generator, config: AugmentConfig) -> Camera:
    """Draw blur, motion blur, resolution (uniform in its logarithm) and JPEG quality."""
    sigma = motion = angle = 0.0
    pixels = quality = None
    if rng.random() < config.blur_probability:
        sigma = rng.uniform(*config.blur_sigma)
    if rng.random() < config.motion_probability:
        motion, angle = rng.uniform(*config.motion_length), rng.uniform(0, 180)
    if rng.random() < config.low_resolution_probability:
        pixels = round(_log_uniform(rng, config.low_resolution_pixels))
    if rng.random() < config.jpeg_probability:
        quality = round(rng.uniform(*config.jpeg_quality))
    return Camera(sigma, motion, angle, pixels, quality)


def apply_camera(image: np.ndarray, camera: Camera) -> np.ndarray:
    """Blur an image `(size, size, 3)` uint8 RGB, shrink and compress it as a camera does, and resize it back."""
    size = image.shape[0]
    if camera.sigma * size > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), camera.sigma * size)
    if camera.motion * size > 1:
        image = cv2.filter2D(image, -1, motion_kernel(camera.motion * size, camera.motion_angle))
    if camera.pixels is not None and camera.pixels < size:
        image = images.resize(image, camera.pixels)
    if camera.quality is not None:
        image = compress_jpeg(image, camera.quality)
    return images.resize(image, size)


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Build an odd, square, float32 kernel of sum 1: a line of `length` pixels at `angle` degrees (anticlockwise)."""
    half = math.ceil((length - 1) / 2)
    samples = 8 * math.ceil(length)
    along = ((np.arange(samples) + 0.5) / samples - 0.5) * length  # pixels from the middle
    x = np.rint(along * math.cos(math.radians(angle))).astype(int)
    y = np.rint(-along * math.sin(math.radians(angle))).astype(int)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    np.add.at(kernel, (half + y, half + x), 1)
    return (kernel / kernel.sum()).astype(np.float32)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Write and read an RGB image as JPEG of `quality` 1..100, in memory."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was just encoded
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _log_uniform(rng: np.random.Generator, limits: Pair) -> float:
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


# ------------------------------------------------------------------------------------------------- an image, a batch


class Augmentation(NamedTuple):
    """All that is drawn for one image."""

    geometry: Geometry
    jitter: CropJitter
    light: Light
    camera: Camera
    erasing: Erasing | None


def draw_augmentation(rng: np.random.Generator, config: AugmentConfig, size: int) -> Augmentation:
    """Draw all changes of one image whose model input has `size` pixels a side; mixup is drawn per batch."""
    return Augmentation(
        draw_geometry(rng, config),
        draw_crop_jitter(rng, config),
        draw_light(rng, config),
        draw_camera(rng, config),
        draw_erasing(rng, size, size, config),
    )


def apply_augmentation(image: np.ndarray, region: Region, size: int, augmentation: Augmentation) -> np.ndarray:
    """Cut the region out of an image, change it and resize it to the model's input.

    Where neither crop nor geometry changes, the cut and resizing are those of the evaluation.

    Args:
        image: `(height, width, 3)` uint8 RGB.
        region: The model's crop in this image.

    Returns:
        `(size, size, 3)` uint8 RGB; `image` is not written into.
    """
    geometry, jitter, light, camera, erasing = augmentation
    if jitter == CropJitter() and geometry[1:] == Geometry()[1:]:
        left, top, right, bottom = (round(v) for v in region)
        image = images.resize(image[top:bottom, left:right], size)
        image = cv2.flip(image, 1) if geometry.flip else image
    else:
        region = apply_crop_jitter(region, image.shape[0], image.shape[1], jitter)
        image = apply_geometry(image, region, size, geometry)
    return apply_erasing(apply_camera(apply_light(image, light), camera), erasing)
