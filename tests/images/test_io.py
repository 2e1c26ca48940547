import os

import cv2
import numpy as np
import pytest

from src import images


def colours() -> np.ndarray:
    """2 x 3 pixels: red, green, blue above black, grey, white."""
    return np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [128, 128, 128], [255, 255, 255]]], np.uint8)


def test_written_and_read_back_in_rgb(tmp_path):
    images.write_image(tmp_path / "a.png", colours())
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), colours())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_file_names_in_any_script(tmp_path):
    path = tmp_path / "顔 ülké.png"
    images.write_image(path, colours())
    np.testing.assert_array_equal(images.read_image(path), colours())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),  # greyscale
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),  # 16-bit
    ],
)
def test_greyscale_and_16_bit(tmp_path, stored, expected):
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    image = images.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.shape == (1, 3, 3)
    np.testing.assert_array_equal(image[0, :, 0], expected)
    np.testing.assert_array_equal(image[0, :, 2], expected)


def test_alpha_is_dropped(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[30, 20, 10, 0]]], np.uint8))  # blue, green, red, alpha
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), [[[10, 20, 30]]])


def test_exif_rotation_is_honoured(tmp_path):
    """Orientation 6: the camera was turned, the image must be turned 90 degrees clockwise."""
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255  # the left half is white
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    image = images.read_image(tmp_path / "a.jpg")
    assert image.shape == (32, 16, 3)
    assert image[:16].mean() > 250  # now the upper half is
    assert image[16:].mean() < 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"not an image", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"0" * 40, "damaged")],
)
def test_damaged_files(tmp_path, data, reason):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(images.ImageError, match=reason):
        images.read_image(tmp_path / "a.png")


def test_a_damaged_file_is_named_by_its_error_alone(capfd):
    whole = cv2.imencode(".bmp", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    with pytest.raises(images.ImageError):
        images.decode_image(whole[: len(whole) // 2])
    assert capfd.readouterr().err == ""


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(images.ImageError, match="No such file"):
        images.read_image(tmp_path / "a.png")
    with pytest.raises(images.ImageError):
        images.read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(images.ImageError, match="not a file"):
        images.read_image(tmp_path / "a.jpg")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    images.write_image(tmp_path / "a.png", colours())
    monkeypatch.setattr("src.images.io.MAX_FILE_BYTES", (tmp_path / "a.png").stat().st_size - 1)
    with pytest.raises(images.ImageError, match="larger than any image"):
        images.read_image(tmp_path / "a.png")


def test_an_image_of_900_megapixels_is_refused(tmp_path):
    """A PNG header that declares 30,000 x 30,000 pixels."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    with pytest.raises(images.ImageError, match="more pixels than allowed"):
        images.read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("suffix", "width"), [(".jpg", 65_501), (".webp", 16_384)])
def test_an_image_too_large_for_its_format_is_an_error(tmp_path, suffix, width):
    with pytest.raises(OSError, match=rf"{width} x 1 pixels cannot be stored as {suffix}"):
        images.write_image(tmp_path / f"a{suffix}", np.zeros((1, width, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def disk_full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", disk_full)
    with pytest.raises(OSError, match="No space left"):
        images.write_image(tmp_path / "a.png", colours())
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"'\.xyz'"):
        images.write_image(tmp_path / "a.xyz", colours())


def test_resize_averages_when_it_shrinks():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2, ::2] = 200  # one pixel of each 2 x 2 block
    np.testing.assert_array_equal(images.resize(image, 2), np.full((2, 2, 3), 50))


def test_resize_keeps_the_right_size():
    image = colours()[:, :2]
    assert images.resize(image, 2) is image


def test_grow_box_by_margin_on_each_side():
    assert images.grow_box((10, 20, 30, 60), 0.4) == (2, 4, 38, 76)  # 0.4 * 20 = 8, 0.4 * 40 = 16


def test_crop_box_grows_and_clamps():
    image = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    np.testing.assert_array_equal(images.crop_box(image, (2, 2, 6, 6), 0.25), image[1:7, 1:7])
    np.testing.assert_array_equal(images.crop_box(image, (-2, 0, 6, 12), 0.0), image[0:10, 0:6])
    with pytest.raises(ValueError, match="outside the image of 10 x 10"):
        images.crop_box(image, (20, 20, 30, 30), 0.4)


def test_crop_to_margin_keeps_the_centre():
    image = np.arange(18 * 18 * 3).astype(np.uint8).reshape(18, 18, 3)
    # A face of 10 pixels with margin 0.4 fills 18; with margin 0.2 it fills 14, with margin 0 its own 10.
    np.testing.assert_array_equal(images.crop_to_margin(image, 0.4, 0.2), image[2:16, 2:16])
    np.testing.assert_array_equal(images.crop_to_margin(image, 0.4, 0.0), image[4:14, 4:14])
    np.testing.assert_array_equal(images.crop_to_margin(image, 0.4, 0.4), image)
    with pytest.raises(ValueError, match=r"must be <= 0\.1, the margin of the image, got 0\.4"):
        images.crop_to_margin(image, 0.1, 0.4)


def test_crop_to_margin_follows_a_face_that_is_not_in_the_centre():
    """Cut with margin 0.4 at the left border of a photograph: nothing was there to the left of the face."""
    image = np.arange(18 * 14 * 3).astype(np.uint8).reshape(18, 14, 3)
    box = (0, 4, 10, 14)
    np.testing.assert_array_equal(images.crop_to_margin(image, 0.4, 0.0, box), image[4:14, 0:10])
    np.testing.assert_array_equal(images.crop_to_margin(image, 0.4, 0.2, box), image[2:16, 0:12])
    with pytest.raises(ValueError, match="model margin must be <="):
        images.crop_to_margin(image, 0.1, 0.4, box)


@pytest.mark.parametrize("box", [(20, 4, 30, 14), (0, 30, 10, 40), (-9, 4, -4, 14)])
def test_a_face_box_outside_the_image_is_an_image_error(box):
    image = np.zeros((18, 14, 3), np.uint8)
    with pytest.raises(images.ImageError, match=r"lies outside the image of 14 x 18 pixels"):
        images.crop_to_margin(image, 0.4, 0.2, box)


def test_bilinear_resizing_does_not_average():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, 1::4] = stripes[:, 2::4] = 200
    assert (images.resize(stripes, 2) == 100).all()
    assert (images.resize(stripes, 2, "bilinear") == 200).all()


def test_unreadable_files_have_a_reason(tmp_path):
    images.write_image(tmp_path / "a.png", colours())
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("text")
    assert images.unreadable_reason(tmp_path / "a.png") is None
    assert images.unreadable_reason(tmp_path / "empty.jpg") == "the file is empty"
    assert images.unreadable_reason(tmp_path / "text.jpg") == "not an image that OpenCV can read, or damaged"
    assert images.unreadable_reason(tmp_path / "missing.jpg") == "No such file or directory"
