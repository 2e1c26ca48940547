import os

import cv2
import numpy as np
import pytest

from src import images
from src.images import io as jpeg


@pytest.fixture
def photo():
    y, x = np.mgrid[:240, :320]
    return np.stack([255 * x / 320, 255 * y / 240, 128 + 60 * np.sin(x / 9)], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "height"), [(241, 240), (121, 240), (120, 120), (61, 120), (60, 60), (30, 30), (10, 30)]
)
def test_the_smallest_size_that_is_enough(tmp_path, photo, side, height):
    images.write_image(tmp_path / "a.jpg", photo)
    image = jpeg.read_at_least(tmp_path / "a.jpg", side)
    assert image.shape == (height, height * 4 // 3, 3)
    full = cv2.resize(photo, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - full).mean() < 2  # RGB, in its place


def test_other_formats_are_read_whole(tmp_path, photo):
    images.write_image(tmp_path / "a.png", photo)
    np.testing.assert_array_equal(jpeg.read_at_least(tmp_path / "a.png", 10), photo)


def test_smallest_side():
    image = np.zeros((30, 50, 3), np.uint8)
    for settings in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)):
        data = cv2.imencode(".jpg", image, settings)[1].tobytes()
        assert jpeg.smallest_side(data) == 30
    assert jpeg.smallest_side(data[:30]) == 0
    assert jpeg.smallest_side(cv2.imencode(".png", image)[1].tobytes()) == 0
    assert jpeg.smallest_side(b"") == 0


def test_exif_rotation_is_honoured(tmp_path, photo):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = jpeg.read_at_least(tmp_path / "a.jpg", 120)
    assert image.shape == (160, 120, 3)
    full = images.resize(images.read_image(tmp_path / "a.jpg"), 100)
    assert np.abs(images.resize(image, 100).astype(int) - full).mean() < 2


@pytest.mark.parametrize("length", [0, 300])
def test_damaged_files_raise_as_the_reader_does(tmp_path, photo, length):
    images.write_image(tmp_path / "a.jpg", photo)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:length])
    with pytest.raises(images.ImageError) as expected:
        images.read_image(tmp_path / "b.jpg")
    with pytest.raises(images.ImageError, match=str(expected.value)):
        jpeg.read_at_least(tmp_path / "b.jpg", 10)
    with pytest.raises(images.ImageError, match="No such file"):
        jpeg.read_at_least(tmp_path / "missing.jpg", 10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(images.ImageError, match="not a file"):
        jpeg.read_at_least(tmp_path / "a.jpg", 10)
