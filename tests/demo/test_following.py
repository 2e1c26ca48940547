import numpy as np
import pytest

from src.demo.following import Captured, Faces
from src.demo.tracking import MISSES
from src.images.detector import Face
from src.inference.predictor import Prediction

LEFT, RIGHT = (0, 0, 100, 100), (300, 0, 400, 100)


class Scene:
    """Detector and predictor in one: finds `faces`, and estimates as age the number of estimates so far."""

    def __init__(self, *faces):
        self.faces, self.detector, self.regions, self.estimated = list(faces), self, [], []

    def detect(self, image):
        return [Face(box, 1.0) for box in self.faces]

    def detect_in(self, image, regions):
        self.regions = regions
        held = [box for box in self.faces if any(left <= box[0] and box[2] <= right for left, _, right, _ in regions)]
        return [Face(box, 1.0) for box in held]

    def estimate(self, image, boxes):
        self.estimated += boxes
        return [Prediction(box, float(len(self.estimated)), 0.0) for box in boxes]


def frame(time):
    return Captured(np.zeros((480, 640, 3), np.uint8), time)


@pytest.fixture
def scene():
    return Scene(LEFT, RIGHT)


@pytest.fixture
def faces(scene):
    """The faces of the scene, followed into the frame at second 1 and not yet estimated."""
    faces = Faces(scene)
    assert not faces.follow(frame(0.9))  # none is known
    faces.search(frame(0.9))
    assert faces.follow(frame(1.0))
    return faces


def test_only_known_faces_are_searched_for(faces, scene):
    assert scene.regions == [(-50, -50, 150, 150), (250, -50, 450, 150)]
    scene.faces.append((500, 300, 600, 400))
    assert faces.follow(frame(1.1))
    assert len(scene.regions) == 2
    faces.search(frame(1.1))
    faces.follow(frame(1.2))
    assert len(scene.regions) == 3


def test_nothing_is_estimated_before_a_face_is_followed(scene):
    faces = Faces(scene)
    assert not faces.estimate()
    faces.follow(frame(0.9))
    faces.search(frame(0.9))
    assert not faces.estimate()  # its box may be of an older frame than the newest one


def test_the_oldest_estimate_comes_first_and_each_frame_counts_once(faces, scene):
    assert faces.labels() == ([], 1.0, 1.0)
    assert faces.estimate()
    assert faces.labels() == ([Prediction(LEFT, 1.0, 0.0)], 1.0, 1.0)
    faces.follow(frame(2.0))
    assert faces.estimate()
    assert scene.estimated == [LEFT, RIGHT]
    assert faces.labels().estimated == 1.0  # the left one's
    assert faces.estimate()
    assert scene.estimated == [LEFT, RIGHT, LEFT]
    assert faces.labels() == ([Prediction(LEFT, 2.0, 0.0), Prediction(RIGHT, 2.0, 0.0)], 2.0, 2.0)
    assert not faces.estimate()


def test_boxes_are_those_of_the_newest_frame_though_the_estimates_are_older(faces, scene):
    faces.estimate(), faces.estimate()
    scene.faces = [(20, 0, 120, 100), RIGHT]
    faces.follow(frame(2.0))
    labels = faces.labels()
    assert labels.predictions[0] == Prediction((20, 0, 120, 100), 1.0, 0.0)
    assert (labels.time, labels.estimated) == (2.0, 1.0)


def test_a_face_that_left_is_missing_and_then_forgotten(faces, scene):
    faces.estimate(), faces.estimate()
    scene.faces = [RIGHT]
    for number in range(MISSES):
        assert not faces.follow(frame(2.0 + number))
        assert len(faces.labels().predictions) == 2
        assert faces.estimate()
        assert not faces.estimate()
    assert faces.follow(frame(9.0))
    assert [face.box for face in faces.labels().predictions] == [RIGHT]


def test_a_cut_to_another_scene_forgets_the_faces(faces, scene):
    one, other = np.zeros((2, 480, 640, 3), np.uint8)
    one[:, 320:], other[240:] = 100, 200
    assert faces.follow(Captured(one, 2.0))
    faces.estimate(), faces.estimate()
    assert faces.follow(Captured(one, 3.0))
    assert len(faces.labels().predictions) == 2
    assert not faces.follow(Captured(other, 4.0))
    assert faces.labels().predictions == []
    faces.search(Captured(other, 4.0))
    assert faces.follow(Captured(other, 5.0))


def test_a_face_that_moves_on_keeps_its_number(faces, scene):
    faces.estimate(), faces.estimate()
    for number in range(1, 11):
        scene.faces = [(20 * number, 0, 20 * number + 100, 100)]
        faces.follow(frame(1.0 + number))
    assert faces.labels().predictions == [Prediction((200, 0, 300, 100), 1.0, 0.0)]
