import math

import cv2
import numpy as np
import pytest

from src import images
from src.training import augmentation
from src.training.augmentation import Camera, CropJitter, Geometry, Light
from src.training.config import AugmentConfig, Config
from src.training.mixup import Mixup, apply_mixup, draw_mixup, mix_weights
from src.training.random_erasing import Erasing, apply_erasing, draw_erasing

RAMP = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
WHOLE = (0, 0, 4, 4)


def rng(*seed):
    return np.random.default_rng(seed or 0)


def face(height=60, width=60):
    """A smooth image that is not symmetric."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x % 256, 3 * y % 256, (x + y) % 256], axis=2).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------- geometry


def test_flip_mirrors_left_and_right():
    result = augmentation.apply_geometry(RAMP, WHOLE, 4, Geometry(flip=True))
    np.testing.assert_array_equal(result, RAMP[:, ::-1])


def test_shift_by_a_whole_pixel_moves_right_and_down_and_mirrors_the_border():
    result = augmentation.apply_geometry(RAMP, WHOLE, 4, Geometry(shift_x=0.25, shift_y=0.25))
    np.testing.assert_array_equal(result[1:, 1:], RAMP[:-1, :-1])
    np.testing.assert_array_equal(result[0, 1:], RAMP[1, :-1])  # reflect-101: row -1 is row 1


def test_shift_shows_the_images_own_pixels_outside_the_region():
    result = augmentation.apply_geometry(RAMP, (1, 1, 3, 3), 2, Geometry(shift_x=0.5))
    np.testing.assert_array_equal(result, RAMP[1:3, 0:2])


def test_positive_angle_turns_anticlockwise():
    result = augmentation.apply_geometry(RAMP, WHOLE, 4, Geometry(angle=90))
    np.testing.assert_array_equal(result, np.rot90(RAMP))


def test_scale_about_the_centre():
    matrix = augmentation.geometry_matrix((0, 0, 10, 10), 10, Geometry(scale=2.0))
    # The centre, index 4.5, stays; one pixel to its right becomes two.
    np.testing.assert_allclose(matrix @ [4.5, 4.5, 1], [4.5, 4.5])
    np.testing.assert_allclose(matrix @ [5.5, 4.5, 1], [6.5, 4.5])


def test_region_of_any_shape_becomes_the_square_input():
    matrix = augmentation.geometry_matrix((10, 20, 50, 100), 20, Geometry())
    np.testing.assert_allclose(matrix @ [9.5, 19.5, 1], [-0.5, -0.5])  # outer corners: index - 0.5
    np.testing.assert_allclose(matrix @ [49.5, 99.5, 1], [19.5, 19.5])


@pytest.mark.parametrize("geometry", [Geometry(scale=0.999), Geometry(flip=True, angle=15, shift_x=0.03, scale=0.8)])
def test_large_images_are_averaged_not_sampled(geometry):
    image = face(480, 400)
    fine = np.indices((480, 400)).sum(axis=0) % 2 * 255  # a chequerboard that sampling would leave black or white
    image = np.stack([fine] * 3, axis=2).astype(np.uint8)
    result = augmentation.apply_geometry(image, (0, 0, 400, 480), 40, geometry)
    assert np.abs(result.astype(int) - 127).max() <= 2


def test_shrinking_first_keeps_everything_in_its_place():
    large = cv2.resize(face(), (600, 600), interpolation=cv2.INTER_LINEAR)
    geometry = Geometry(angle=12, shift_x=0.02, shift_y=-0.03, scale=1.1)
    small = augmentation.apply_geometry(images.resize(large, 60), (6, 6, 54, 54), 40, geometry).astype(int)
    shrunk = augmentation.apply_geometry(large, (60, 60, 540, 540), 40, geometry).astype(int)
    assert np.median(np.abs(small - shrunk)) <= 1  # 4 grey levels per pixel: half a pixel off would give 2


def test_drawn_geometry_fills_its_ranges():
    config = AugmentConfig(flip_probability=0.3, geometry_probability=0.5, shift=0.1, scale=0.2, rotation=20)
    generator = rng()
    drawn = [augmentation.draw_geometry(generator, config) for _ in range(4000)]
    changed = [g for g in drawn if g[1:] != Geometry()[1:]]
    assert abs(np.mean([g.flip for g in drawn]) - 0.3) < 0.03
    assert abs(len(changed) / len(drawn) - 0.5) < 0.03
    for values, low, high in [
        ([g.shift_x for g in changed], -0.1, 0.1),
        ([g.shift_y for g in changed], -0.1, 0.1),
        ([g.scale for g in changed], 0.8, 1.2),
        ([g.angle for g in changed], -20, 20),
    ]:
        width = high - low
        assert low <= min(values) < low + 0.02 * width
        assert high - 0.02 * width < max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < 0.03 * width


# -------------------------------------------------------------------------------------------------------- crop jitter


def test_crop_jitter_moves_and_scales():
    jitter = CropJitter(shift_x=0.1, shift_y=-0.05, scale=1.2)
    # 100 wide about (100, 100) -> 120 wide about (110, 95)
    assert augmentation.apply_crop_jitter((50, 50, 150, 150), 200, 200, jitter) == pytest.approx((50, 35, 170, 155))


def test_crop_jitter_stays_within_the_image():
    jitter = CropJitter(shift_x=0.5, shift_y=-0.5, scale=1.5)
    assert augmentation.apply_crop_jitter((10, 10, 90, 90), 100, 100, jitter) == pytest.approx((0, 0, 100, 100))
    jitter = CropJitter(shift_x=0.5)
    assert augmentation.apply_crop_jitter((10, 10, 90, 90), 100, 100, jitter) == pytest.approx((20, 10, 100, 90))


def test_crop_jitter_cuts_other_pixels():
    drawn = augmentation.draw_augmentation(rng(), AugmentConfig(), 2)._replace(jitter=CropJitter(shift_x=0.5))
    result = augmentation.apply_augmentation(RAMP, (1, 1, 3, 3), 2, drawn)
    np.testing.assert_array_equal(result, RAMP[1:3, 2:4])


def test_drawn_crop_jitter_fills_its_ranges():
    config = AugmentConfig(crop_jitter_probability=0.5, crop_jitter_shift=0.1, crop_jitter_scale=0.2)
    generator = rng()
    drawn = [augmentation.draw_crop_jitter(generator, config) for _ in range(4000)]
    changed = [jitter for jitter in drawn if jitter != CropJitter()]
    assert abs(len(changed) / 4000 - 0.5) < 0.03
    assert 0.098 < max(j.shift_x for j in changed) <= 0.1
    assert -0.1 <= min(j.shift_y for j in changed) < -0.098
    assert 0.8 <= min(j.scale for j in changed) < 0.804
    assert 1.196 < max(j.scale for j in changed) <= 1.2


# ------------------------------------------------------------------------------------------------------------- light


def pixel(*rgb):
    return np.array(rgb, np.uint8).reshape(1, 1, 3)


@pytest.mark.parametrize(
    ("light", "before", "after"),
    [
        (Light(brightness=0.2), (0, 100, 250), (51, 151, 255)),  # 0.2 * 255 = 51
        (Light(brightness=-0.2), (0, 100, 250), (0, 49, 199)),
        (Light(contrast=1.2), (0, 100, 250), (0, 120, 255)),
        (Light(contrast=0.8, brightness=0.2), (0, 100, 250), (51, 131, 251)),
        (Light(gamma=2.0), (0, 51, 255), (0, 10, 255)),  # 255 * 0.2 ** 2 = 10.2
        (Light(gamma=0.5), (0, 51, 255), (0, 114, 255)),  # 255 * 0.2 ** 0.5 = 114.04
        (Light(gains=(1.1, 1.0, 0.5)), (100, 100, 100), (110, 100, 50)),
        (Light(grey=True), (255, 0, 0), (76, 76, 76)),  # 0.299 * 255 = 76.2: the weight of red, so RGB it is
        (Light(grey=True, gains=(1.0, 0.5, 1.0)), (100, 100, 100), (100, 50, 100)),
    ],
)
def test_light(light, before, after):
    np.testing.assert_array_equal(augmentation.apply_light(pixel(*before), light), pixel(*after))


def test_drawn_light_fills_its_ranges():
    config = AugmentConfig(
        brightness_contrast_probability=0.5,
        brightness=0.2,
        contrast=0.3,
        gamma_probability=0.4,
        gamma=(0.5, 2.0),
        colour_cast_probability=0.3,
        colour_cast=0.1,
        grey_probability=0.2,
    )
    generator = rng()
    drawn = [augmentation.draw_light(generator, config) for _ in range(4000)]
    gammas = [light.gamma for light in drawn if light.gamma != 1]
    gains = [light.gains for light in drawn if light.gains != (1, 1, 1)]
    contrasts = [light.contrast for light in drawn if light.contrast != 1]
    assert abs(len(gammas) / 4000 - 0.4) < 0.03
    assert abs(len(gains) / 4000 - 0.3) < 0.03
    assert abs(len(contrasts) / 4000 - 0.5) < 0.03
    assert abs(np.mean([light.grey for light in drawn]) - 0.2) < 0.03
    assert 0.5 <= min(gammas) < 0.51
    assert 1.97 < max(gammas) <= 2.0
    assert abs(np.mean(np.array(gammas) < 1) - 0.5) < 0.04  # uniform in the logarithm: half of them darken
    assert 0.9 <= np.min(gains) < 0.902
    assert 1.098 < np.max(gains) <= 1.1
    assert 0.7 <= min(contrasts) < 0.704
    assert 0.198 < max(light.brightness for light in drawn) <= 0.2


# ------------------------------------------------------------------------------------------------------------ camera


def test_blur_spreads_a_point_as_a_gaussian():
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, 50] = 255
    blurred = augmentation.apply_camera(image, Camera(sigma=0.01))  # 1.01 pixels
    centre = 255 / (2 * math.pi * 1.01**2)
    assert blurred[50, 50, 0] == pytest.approx(centre, abs=2)
    assert blurred[50, 51, 0] == pytest.approx(centre * math.exp(-0.5 / 1.01**2), abs=2)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, [[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]]),
        (90, [[0, 0.25, 0], [0, 0.5, 0], [0, 0.25, 0]]),
        (45, None),
    ],
)
def test_motion_kernel_is_a_line(angle, expected):
    kernel = augmentation.motion_kernel(2.0, angle)
    assert kernel.shape == (3, 3)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)  # a shift of the image would be a lie
    if expected is None:
        assert kernel[0, 2] == kernel[2, 0] > kernel[0, 0] == kernel[2, 2]  # anticlockwise: up to the right
    else:
        np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_motion_blur_keeps_the_place_of_a_point():
    image = np.zeros((100, 100, 3), np.uint8)
    image[50, 40] = 255
    blurred = augmentation.apply_camera(image, Camera(motion=0.09, motion_angle=0))[:, :, 0].astype(float)
    columns = blurred.sum(axis=0)
    assert columns @ np.arange(100) / columns.sum() == pytest.approx(40, abs=0.05)
    assert np.flatnonzero(columns).tolist() == list(range(36, 45))  # 9 pixels
    assert np.flatnonzero(blurred.sum(axis=1)).tolist() == [50]


def test_low_resolution_averages_blocks():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 200
    lowered = augmentation.apply_camera(image, Camera(pixels=4))
    np.testing.assert_array_equal(lowered, np.full((8, 8, 3), 100))


def test_resolution_above_the_size_changes_nothing():
    np.testing.assert_array_equal(augmentation.apply_camera(face(), Camera(pixels=60)), face())
    np.testing.assert_array_equal(augmentation.apply_camera(face(), Camera(pixels=500)), face())


def test_jpeg_loses_more_at_low_quality_and_keeps_the_channels():
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 200
    assert np.abs(augmentation.compress_jpeg(red, 90).astype(int) - red).max() <= 3
    image = rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)
    errors = [
        np.abs(augmentation.apply_camera(image, Camera(quality=q)).astype(int) - image).mean() for q in (95, 50, 5)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_compression_happens_at_the_low_resolution():
    image = face(64, 64)
    by_hand = images.resize(augmentation.compress_jpeg(images.resize(image, 20), 10), 64)
    np.testing.assert_array_equal(augmentation.apply_camera(image, Camera(pixels=20, quality=10)), by_hand)


def test_drawn_camera_fills_its_ranges():
    config = AugmentConfig(
        blur_probability=0.5,
        blur_sigma=(0.01, 0.02),
        motion_probability=0.4,
        motion_length=(0.02, 0.08),
        low_resolution_probability=0.3,
        low_resolution_pixels=(16, 64),
        jpeg_probability=0.2,
        jpeg_quality=(30, 90),
    )
    generator = rng()
    drawn = [augmentation.draw_camera(generator, config) for _ in range(4000)]
    sigmas = [camera.sigma for camera in drawn if camera.sigma]
    motions = [camera.motion for camera in drawn if camera.motion]
    pixels = [camera.pixels for camera in drawn if camera.pixels is not None]
    qualities = [camera.quality for camera in drawn if camera.quality is not None]
    shares = [len(values) / 4000 for values in (sigmas, motions, pixels, qualities)]
    np.testing.assert_allclose(shares, [0.5, 0.4, 0.3, 0.2], atol=0.03)
    assert 0.01 <= min(sigmas) <= max(sigmas) <= 0.02
    assert 0.02 <= min(motions) <= max(motions) <= 0.08
    assert (min(pixels), max(pixels)) == (16, 64)
    assert abs(np.mean(np.array(pixels) < 32) - 0.5) < 0.05  # uniform in the logarithm
    assert (min(qualities), max(qualities)) == (30, 90)


# ----------------------------------------------------------------------------------------------------------- erasing


def test_erasing_puts_the_drawn_rectangle_into_a_copy():
    image = np.zeros((5, 6, 3), np.uint8)
    values = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3)
    erased = apply_erasing(image, Erasing(top=3, left=1, values=values))
    np.testing.assert_array_equal(erased[3:5, 1:3], values)
    assert np.count_nonzero(erased) == 12
    assert not image.any()
    assert apply_erasing(image, None) is image


def test_drawn_erasing_fills_its_ranges():
    config = AugmentConfig(erasing_probability=0.5)
    generator = rng()
    drawn = [draw_erasing(generator, 100, 100, config) for _ in range(4000)]
    erased = [erasing for erasing in drawn if erasing is not None]
    assert abs(len(erased) / 4000 - 0.5) < 0.03
    shapes = np.array([erasing.values.shape[:2] for erasing in erased])
    areas, aspects = shapes.prod(axis=1) / 10000, shapes[:, 0] / shapes[:, 1]
    assert 0.019 < areas.min() < 0.03
    assert 0.38 < areas.max() < 0.405
    assert 0.28 < aspects.min() < 0.35
    assert 3.1 < aspects.max() < 3.6
    places = np.array([(erasing.top, erasing.left) for erasing in erased])
    assert (places >= 0).all()
    assert (places + shapes <= 100).all()
    assert (places + shapes == 100).any()
    values = np.concatenate([erasing.values.ravel() for erasing in erased[:20]])
    assert (values.min(), values.max()) == (0, 255)
    assert abs(values.mean() - 127.5) < 1


def test_erasing_that_never_fits_erases_nothing():
    config = AugmentConfig(erasing_probability=1, erasing_area=(0.9, 0.9), erasing_aspect=(10, 10))
    assert draw_erasing(rng(), 100, 100, config) is None


# ------------------------------------------------------------------------------------------------------------- mixup


def test_mixup_of_two_constant_images():
    batch = np.stack([np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 200, np.uint8)])
    labels = np.eye(2, dtype=np.float32)
    mixup = Mixup(partner=np.array([1, 0]), share=np.array([0.25, 1.0], np.float32))
    mixed = apply_mixup(batch, mixup)
    assert mixed.dtype == np.uint8
    assert np.unique(mixed[0]).tolist() == [175]  # 0.25 * 100 + 0.75 * 200
    assert np.unique(mixed[1]).tolist() == [200]
    mixed_labels = apply_mixup(labels, mixup)
    assert mixed_labels.dtype == np.float32
    np.testing.assert_allclose(mixed_labels, [[0.25, 0.75], [0, 1]])
    assert batch[0, 0, 0, 0] == 100


def test_mixed_images_are_rounded_not_cut():
    batch = np.array([10, 11], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 1, 1, 3), np.uint8)
    mixed = apply_mixup(batch, Mixup(np.array([1, 0]), np.array([0.3, 0.7], np.float32)))
    assert mixed[:, 0, 0, 0].tolist() == [11, 11]  # 10.7 and 10.7


def test_mixed_rows_take_the_lesser_weight():
    mixup = Mixup(partner=np.array([1, 2, 0]), share=np.array([0.9, 0.5, 0.1], np.float32))
    np.testing.assert_array_equal(mix_weights(np.array([1.0, 0.0, 2.0]), mixup), [0, 0, 1])


def test_drawn_mixup_follows_beta_and_permutes():
    mixup = draw_mixup(rng(), np.zeros(20000, int), AugmentConfig(mixup_alpha=0.4))
    assert mixup.share.dtype == np.float32
    assert mixup.share.min() >= 0.5  # each row shows mostly itself
    variance = np.mean((mixup.share - 0.5) ** 2)
    assert variance == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.005)  # that of Beta(a, a), about its mean
    assert sorted(mixup.partner) == list(range(20000))
    assert len(np.unique(mixup.share)) > 15000  # one per row


def test_mixup_stays_within_the_kind():
    kinds = np.array([0, 1, 0, 1, 2, 0, 1, 0] * 10)
    mixup = draw_mixup(rng(), kinds, AugmentConfig(mixup_alpha=0.2))
    np.testing.assert_array_equal(kinds[mixup.partner], kinds)
    assert (mixup.partner != np.arange(80)).mean() > 0.7


# ------------------------------------------------------------------------------------------------------- all together


def test_everything_on_is_determined_by_the_generator_and_writes_nothing_into_the_image(compose):
    config = Config.check(compose()).augment
    image = face()
    before = image.copy()
    results = [
        augmentation.apply_augmentation(
            image, (5, 5, 55, 55), 32, augmentation.draw_augmentation(rng(1, number), config, 32)
        )
        for number in [*range(50), 0]
    ]
    assert all(image.shape == (32, 32, 3) and image.dtype == np.uint8 for image in results)
    np.testing.assert_array_equal(results[0], results[-1])
    assert len({image.tobytes() for image in results}) == 50
    np.testing.assert_array_equal(image, before)
