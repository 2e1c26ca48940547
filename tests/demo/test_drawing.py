import math

import cv2
import numpy as np
import pytest

from src.demo.drawing import COLOURS, draw_predictions, draw_status, label_text
from src.images.boxes import shared_area
from src.inference.predictor import Prediction

WOMAN, MAN = 0.1, 0.9


def ground(drawn, gender):
    """Bounding box of a label's ground: the rows and columns where much of its colour stands together."""
    mask = (drawn == COLOURS[gender]).all(axis=2).astype(np.uint8)
    solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_label_texts():
    assert label_text(Prediction((0, 0, 9, 9), 33.6, WOMAN)) == "34 F"
    assert label_text(Prediction((0, 0, 9, 9), 0.4, MAN)) == "0 M"
    assert label_text(Prediction((0, 0, 9, 9), 50.0, 0.5)) == "50 M"
    assert label_text(Prediction((0, 0, 9, 9), 50.0, math.nan)) == "50"
    assert label_text(Prediction((0, 0, 9, 9), math.nan, 0.5)) == "M"


def test_draws_on_a_copy():
    image = np.full((120, 160, 3), 77, np.uint8)
    drawn = draw_status(draw_predictions(image, [Prediction((40, 40, 80, 80), 30, MAN)]), "25 fps")
    assert (image == 77).all()
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    np.testing.assert_array_equal(draw_predictions(image, []), image)


def test_label_stands_above_its_box_and_only_there_is_drawn():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_predictions(image, [Prediction((200, 200, 300, 300), 30, WOMAN)])
    left, top, right, bottom = ground(drawn, "F")
    assert (left, bottom) == (200, 202)  # the box's line of two pixels stands next to it
    assert 170 <= top < bottom
    assert 230 <= right <= 300
    drawn[top:303, 197:303] = 0
    assert not drawn.any()


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_text_differs_from_its_ground_on_any_background(shade):
    image = np.full((480, 640, 3), shade, np.uint8)
    drawn = draw_predictions(image, [Prediction((200, 200, 300, 300), 30, MAN)])
    left, top, right, bottom = ground(drawn, "M")
    label = drawn[top:bottom, left:right]
    assert (label == COLOURS["M"]).all(axis=2).mean() > 0.4
    assert (label == 255).all(axis=2).mean() > 0.05


def relative_luminance(colour):
    """WCAG 2.1, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("gender", COLOURS)
def test_contrast_is_that_of_readable_text(gender):
    assert (1.0 + 0.05) / (relative_luminance(COLOURS[gender]) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 100, 100),
        (540, 0, 640, 100),
        (0, 380, 100, 480),
        (540, 380, 640, 480),
        (0, 0, 640, 480),
        (630, 200, 640, 210),
    ],
)
def test_whole_label_is_inside_the_image_at_its_edges(box):
    middle = draw_predictions(np.zeros((480, 640, 3), np.uint8), [Prediction((270, 190, 370, 290), 100, MAN)])
    drawn = draw_predictions(np.zeros((480, 640, 3), np.uint8), [Prediction(box, 100, MAN)])
    left, top, right, bottom = ground(drawn, "M")
    full = ground(middle, "M")
    face_height, full_height = box[3] - box[1], 100
    if face_height == full_height:
        assert (right - left, bottom - top) == (full[2] - full[0], full[3] - full[1])
    assert (drawn[top:bottom, left:right] == 255).all(axis=2).mean() > 0.05


@pytest.mark.parametrize("size", [(16, 16), (30, 200), (200, 30), (100, 100), (3000, 4000)])
def test_label_fits_and_grows_with_the_image(size):
    height, width = size
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    drawn = draw_predictions(np.zeros((*size, 3), np.uint8), [Prediction(box, 100, WOMAN)])
    left, top, right, bottom = ground(drawn, "F")
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert bottom - top >= min(12, height * 0.3, width * 0.2)
    if height == 3000:
        assert bottom - top > 100


def test_labels_keep_off_each_other_and_other_faces():
    image = np.zeros((480, 640, 3), np.uint8)
    upper, lower = Prediction((200, 100, 300, 200), 30, WOMAN), Prediction((200, 205, 300, 305), 40, MAN)
    drawn = draw_predictions(image, [upper, lower])
    first, second = ground(drawn, "F"), ground(drawn, "M")
    assert first[3] <= 102  # above its face
    assert second[1] >= 303  # below its face, since another face is above
    assert shared_area(first, second) == 0


def test_status_is_small_and_in_the_lower_left_corner():
    drawn = draw_status(np.full((480, 640, 3), 255, np.uint8), "25 fps  EfficientNetB3")
    rows, columns = np.nonzero((drawn != 255).any(axis=2))
    assert rows.max() == 479
    assert columns.min() == 0
    assert rows.min() > 440
    assert columns.max() < 320
