import os

import cv2
import numpy as np
import pytest

from src import images
from src.images import jpeg


@pytest.fixture
def photo():
    y, x = np.mgrid[:240, :320]
    return np.stack([255 * x / 320, 255 * y / 240, 128 + 60 * np.sin(x / 9)], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "height"), [(241, 240), (121, 240), (120, 120), (61, 120), (60, 60), (30, 30), (10, 30)]
)
def test_the_smallest_size_that_is_enough(tmp_path, photo, side, height):
    images.write_image(tmp_path / "a.jpg", photo)
    image = images.read_at_least(tmp_path / "a.jpg", side)
    assert image.shape == (height, height * 4 // 3, 3)
    full = cv2.resize(photo, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - full).mean() < 2  # RGB, in its place


def test_other_formats_are_read_whole(tmp_path, photo):
    images.write_image(tmp_path / "a.png", photo)
    np.testing.assert_array_equal(images.read_at_least(tmp_path / "a.png", 10), photo)


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
    image = images.read_at_least(tmp_path / "a.jpg", 120)
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
        images.read_at_least(tmp_path / "b.jpg", 10)
    with pytest.raises(images.ImageError, match="No such file"):
        images.read_at_least(tmp_path / "missing.jpg", 10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(images.ImageError, match="not a file"):
        images.read_at_least(tmp_path / "a.jpg", 10)


def noise(*settings):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


def with_zeros(data):
    middle = len(data) // 2
    return data[:middle] + bytes(2000) + data[middle + 2000 :]


def with_random_bytes(data):
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(1).bytes(2000) + data[middle + 2000 :]


@pytest.mark.parametrize("read", [images.read_image, images.unreadable_reason])
@pytest.mark.parametrize(
    "damaged",
    [
        with_zeros(noise()),
        with_zeros(noise(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        with_zeros(noise(cv2.IMWRITE_JPEG_RST_INTERVAL, 4)),
        with_random_bytes(noise()),  # of a progressive one OpenCV reads nothing
        with_random_bytes(noise(cv2.IMWRITE_JPEG_RST_INTERVAL, 4)),
    ],
    ids=range(5),
)
def test_a_file_that_is_damaged_inside_is_read_and_named_once(tmp_path, caplog, read, damaged):
    path = tmp_path / "a.jpg"
    path.write_bytes(damaged)
    for _ in range(2):
        read(path)
    assert caplog.messages == [f"{path} is damaged; what could be read of it is used"]


def test_healthy_files_are_not_named(tmp_path, caplog):
    flat = np.full((2000, 2000, 3), 255, np.uint8)
    zeros = cv2.imencode(".jpg", flat, (cv2.IMWRITE_JPEG_OPTIMIZE, 1))[1].tobytes()
    assert jpeg.has_zeroed_block(zeros)  # codes of one bit, but nothing is wrong
    healthy = noise()
    padded = healthy + bytes(4096)
    comment = healthy[:2] + b"\xff\xfe\x10\x02" + bytes(4096) + healthy[2:]
    filled = comment[:2] + b"\xff" * 3 + comment[2:] + b"a trailer"  # fill bytes may stand before a marker
    assert jpeg.smallest_side(filled) == 100
    for data in (healthy, padded, comment, filled):
        assert not jpeg.has_zeroed_block(data)
    progressive = noise(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for data in (healthy, progressive, noise(cv2.IMWRITE_JPEG_RST_INTERVAL, 4), filled + b"\xff\x01", b"", b"\xff\x01"):
        assert not jpeg.has_misplaced_marker(data)
    for data in (zeros, healthy, padded, comment, filled):
        (tmp_path / "a.jpg").write_bytes(data)
        images.read_image(tmp_path / "a.jpg")
    assert caplog.messages == []


@pytest.mark.parametrize("settings", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_file_that_is_cut_off_is_an_error_that_says_so(tmp_path, settings):
    whole = noise(*settings)
    for length in (3, 100, len(whole) * 6 // 10, len(whole) - 1):
        (tmp_path / "a.jpg").write_bytes(whole[:length])
        assert images.unreadable_reason(tmp_path / "a.jpg") == "the JPEG file is cut off"


def test_a_file_with_a_damaged_header_is_not_called_cut_off(tmp_path):
    whole = noise()
    (tmp_path / "a.jpg").write_bytes(whole[:2] + bytes(20) + whole[22:])
    assert images.unreadable_reason(tmp_path / "a.jpg") == "not an image that OpenCV can read, or damaged"


def test_a_file_whose_end_was_never_written_is_named(tmp_path, caplog):
    whole = noise()
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))  # zeros are codes for what is missing
    images.read_image(path)
    assert caplog.messages == [f"{path} is damaged; what could be read of it is used"]
