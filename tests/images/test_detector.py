from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import dlib
import numpy as np
import pytest

from src.cli import ROOT
from src.images.boxes import box_area, shared_area
from src.images.detector import (
    FIRST_TURNED,
    FRONTAL,
    HINT as HINT_SCORE,
    MAX_HINTS,
    PROFILES,
    SMALL_FACES,
    SMALL_WINDOW,
    Face,
    FaceDetector,
    _gray,
    drop_doubtful,
    find_main_face,
    suppress_overlaps,
)
from src.images.io import read_image

EILEEN, GRACE = (175, 75, 270, 175), (160, 135, 380, 355)  # face boxes of the samples, read off the images by eye


@pytest.fixture(scope="module")
def eileen():
    return read_image(ROOT / "samples" / "astronaut.png")


@pytest.fixture(scope="module")
def grace():
    return read_image(ROOT / "samples" / "grace_hopper.jpg")


def overlap(box, other):
    shared = shared_area(box, other)
    return shared / (box_area(box) + box_area(other) - shared)


def test_finds_the_faces_of_the_samples_and_nothing_else(eileen, grace):
    (face,) = FaceDetector().detect(eileen)
    assert overlap(face.box, EILEEN) > 0.7
    (face,) = FaceDetector().detect(grace)
    assert overlap(face.box, GRACE) > 0.7


def test_box_is_in_pixels_of_the_original_however_large(grace):
    large = cv2.resize(grace, None, fx=5, fy=5)
    (face,) = FaceDetector().detect(large)
    assert overlap(tuple(edge / 5 for edge in face.box), GRACE) > 0.7


def test_largest_face_comes_first_and_the_image_stays_as_it_was(eileen, grace):
    both = np.hstack([eileen, grace[:512]])
    before = both.copy()
    first, second = FaceDetector().detect(both)
    assert first.box[0] > 512 > second.box[2]
    assert box_area(first.box) > box_area(second.box)
    np.testing.assert_array_equal(both, before)


def test_blank_images_and_high_thresholds_give_nothing(grace):
    assert FaceDetector().detect(np.full((200, 300, 3), 128, np.uint8)) == []
    assert FaceDetector().detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert FaceDetector(threshold=5).detect(grace) == []


def test_small_face_is_found_by_the_second_look(eileen):
    small = np.full((400, 400, 3), 120, np.uint8)
    small[100:356, 100:356] = cv2.resize(eileen, (256, 256), interpolation=cv2.INTER_AREA)  # the face is 45 pixels wide
    assert FaceDetector(upsample=0).detect(small) == []
    (face,) = FaceDetector("auto").detect(small)
    assert overlap(face.box, tuple(100 + edge // 2 for edge in EILEEN)) > 0.5


class Recorder(FaceDetector):
    """Notes the size of each search; dlib is asked for nothing."""

    def __init__(self, results, **options):
        super().__init__(**options)
        self.searched, self.asked, self.results = [], [], results

    def _dlib(self, file):
        def run(image, upsample, threshold):
            self.searched.append(image.shape[:2])
            self.asked.append((file, threshold))
            return self.results.pop(0)

        return SimpleNamespace(run=run)


def rectangle(left, top, right, bottom):
    """As dlib gives it: right and bottom inclusive."""
    return SimpleNamespace(left=lambda: left, top=lambda: top, right=lambda: right - 1, bottom=lambda: bottom - 1)


NOTHING = ([], [], [])


def test_second_look_only_where_the_first_found_nothing():
    image = np.zeros((300, 400, 3), np.uint8)
    detector = Recorder([NOTHING, NOTHING])
    detector.detect(image)
    assert detector.searched == [(300, 400), (600, 800)]
    detector = Recorder([([rectangle(0, 0, 9, 9)], [1.0], [0])])
    detector.detect(image)
    assert detector.searched == [(300, 400)]
    detector = Recorder([NOTHING], upsample=2)
    detector.detect(image)
    assert detector.searched == [(1200, 1600)]


def test_search_runs_on_a_copy_of_at_most_max_side():
    detector = Recorder([NOTHING, NOTHING], upsample=0)
    detector.detect(np.zeros((1000, 2000, 3), np.uint8))
    detector.max_side = 100
    detector.detect(np.zeros((1000, 2000, 3), np.uint8))
    assert detector.searched == [(320, 640), (50, 100)]


def test_boxes_are_scaled_back_and_cut_at_the_border():
    found = (
        [rectangle(-10, 20, 90, 120), rectangle(600, 300, 700, 400), rectangle(700, 0, 800, 100)],
        [1, 0.5, 0.4],
        [0] * 3,
    )
    faces = Recorder([found], upsample=0).detect(np.zeros((700, 1280, 3), np.uint8))
    # The copy is 640 wide: everything doubles. The third box lies outside the image.
    assert faces == [Face((0, 40, 180, 240), 1.0), Face((1200, 600, 1280, 700), 0.5)]


def test_detectors_of_tilted_faces_keep_dlibs_own_threshold():
    boxes = [rectangle(100 * i, 0, 100 * i + 90, 90) for i in range(6)]
    found = boxes, [-0.4, -0.4, -0.4, -0.1, 0.1, 0.0], [0, 1, 2, 3, 4, 3]
    faces = Recorder([found], upsample=0).detect(np.zeros((300, 640, 3), np.uint8))
    assert sorted(face.box[0] for face in faces) == [0, 100, 200, 400, 500]


def test_overlapping_boxes_leave_the_one_with_the_higher_score():
    outer, inner, beside = Face((0, 0, 100, 100), 0.5), Face((20, 20, 60, 60), 0.9), Face((60, 0, 160, 100), 0.1)
    assert suppress_overlaps([outer, inner, beside]) == [inner, beside]
    half = Face((50, 0, 150, 100), 0.2)  # shares 5,000 of 10,000 pixels: exactly half stays
    assert suppress_overlaps([outer, half]) == [outer, half]
    assert suppress_overlaps([]) == []


def test_areas_by_hand():
    assert box_area((2, 3, 7, 5)) == 10
    assert shared_area((0, 0, 10, 10), (5, 8, 20, 20)) == 5 * 2
    assert shared_area((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_one_detector_serves_many_threads(eileen, grace):
    detector = FaceDetector()
    expected = [detector.detect(eileen), detector.detect(grace)] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, [eileen, grace] * 4)) == expected


def test_every_thread_has_its_own_dlib_detector():
    detector = FaceDetector()
    own = detector._dlib(FRONTAL)
    assert detector._dlib(FRONTAL) is own
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(detector._dlib, FRONTAL).result() is not own


def test_the_stored_detector_is_dlibs_own(tmp_path):
    dlib.get_frontal_face_detector().save(str(tmp_path / "own.svm"))
    assert FRONTAL.read_bytes() == (tmp_path / "own.svm").read_bytes()


def test_the_main_face_is_at_the_centre_or_twice_as_wide():
    size = (200, 200)
    beside, central = (90, 0, 250, 160), (60, 60, 180, 180)  # both cover the centre: 0.44 and 0.17 faces off
    assert find_main_face([beside, central], size) == central
    head, button, neighbour = (60, 10, 120, 70), (20, 150, 50, 180), (0, 10, 31, 41)  # the head is one face too high
    assert find_main_face([head, button], size) == head
    assert find_main_face([head, neighbour, button], size) is None  # 60 < 2 * 31


def test_main_face_is_large_and_central():
    size = (100, 200)
    corner, centre, small = (0, 0, 50, 50), (80, 30, 120, 70), (95, 45, 105, 55)
    assert find_main_face([corner, centre, small], size) == centre
    assert find_main_face([corner], size) == corner
    assert find_main_face([], size) is None


def test_a_doubtful_turned_head_stays_only_alone_and_large():
    frontal, doubtful = Face((0, 0, 50, 50), -0.4), Face((100, 0, 150, 50), 0.29, turned=True)
    clear = Face((200, 0, 240, 40), 0.3, turned=True)
    assert drop_doubtful([frontal, doubtful, clear], 400) == [frontal, clear]
    assert drop_doubtful([doubtful], 200) == [doubtful]  # as wide as a quarter of the image
    assert drop_doubtful([doubtful], 201) == []
    assert drop_doubtful([], 100) == []


def test_detector_of_turned_heads_finds_upright_faces_nearly_as_dlibs_own(grace, eileen):
    for image in (grace, eileen):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        own = dlib.get_frontal_face_detector().run(gray, 0, 0)
        both = dlib.fhog_object_detector(str(PROFILES)).run(gray, 0, 0)
        assert list(both[0])[: len(own[0])] == list(own[0])
        np.testing.assert_allclose(list(both[1])[: len(own[0])], list(own[1]), atol=0.1)  # fewer separable parts
        assert list(own[2]) == list(both[2])[: len(own[0])]


@pytest.mark.parametrize(("profiles", "count"), [(True, 9), (False, 5)])
def test_turned_heads_are_optional(profiles, count):
    detector = FaceDetector(profiles=profiles)
    assert detector._dlib(detector._file).num_detectors == count


def test_group_photo_is_searched_up_to_its_own_resolution():
    image = np.zeros((1000, 2000, 3), np.uint8)
    group = [rectangle(100 * i, 0, 100 * i + 80, 80) for i in range(3)], [1.0] * 3, [0] * 3
    more = [rectangle(100 * i, 300, 100 * i + 80, 380) for i in range(4)], [1.0] * 4, [0] * 4
    detector = Recorder([group, more, NOTHING])
    assert len(detector.detect(image)) == 7
    assert detector.searched == [(320, 640), (1000, 2000)]
    image = np.zeros((2000, 4000, 3), np.uint8)
    detector = Recorder([group, more, NOTHING])
    assert len(detector.detect(image)) == 7
    assert detector.searched == [(320, 640), (1025, 2049), (2049, 4099)]
    detector = Recorder([group, NOTHING])  # nothing new ends it
    assert len(detector.detect(image)) == 3
    detector = Recorder([group], max_side=640)
    assert len(detector.detect(image)) == 3
    assert detector.searched == [(320, 640)]


HINT = [rectangle(360, 180, 408, 228)], [-0.5], [0]
"""Of a face at (600, 300, 680, 380) in an image of 1000 x 2000 pixels, which is looked at in 0.6 of its size."""
CONFIRMED = [rectangle(48, 48, 144, 144)], [1.0], [0]
"""The same face in its surroundings, which are searched on a copy of 192 pixels."""


def test_a_face_that_is_not_clear_on_a_closer_copy_is_dropped():
    near, doubtful = ([rectangle(0, 0, 200, 200)], [1.0], [0]), ([rectangle(600, 300, 680, 380)], [0.19], [0])
    turned = [rectangle(600, 300, 680, 380)], [0.39], [FIRST_TURNED]
    for found in (doubtful, turned):
        detector = Recorder([near, HINT, CONFIRMED, found])
        assert [face.score for face in detector.detect(np.zeros((1000, 2000, 3), np.uint8))] == [1.0]
        assert len(detector.searched) == 4


def test_smaller_faces_beside_one_or_two_are_searched_once_where_a_quick_look_hints_at_one():
    image = np.zeros((1000, 2000, 3), np.uint8)
    pair = [rectangle(100 * i, 0, 100 * i + 80, 80) for i in range(2)], [1.0] * 2, [0] * 2
    behind = [rectangle(600, 300, 680, 380)], [1.0], [0]
    detector = Recorder([pair, HINT, CONFIRMED, behind])
    assert len(detector.detect(image)) == 3
    assert detector.searched == [(320, 640), (600, 1200), (192, 192), (1000, 2000)]
    usual = PROFILES, detector.threshold
    assert detector.asked == [usual, (SMALL_FACES, HINT_SCORE), usual, usual]
    detector = Recorder([pair, HINT, NOTHING])  # not confirmed
    assert len(detector.detect(image)) == 2
    known = [rectangle(0, 0, 150, 150)], [0.9], [0]
    detector = Recorder([pair, known])  # the hint is one of the pair
    assert len(detector.detect(image)) == 2
    detector = Recorder([pair, NOTHING])
    assert len(detector.detect(image)) == 2
    assert detector.searched == [(320, 640), (600, 1200)]
    many = [rectangle(100 * i, 400, 100 * i + 48, 448) for i in range(11)], [-0.1] * 11, [0] * 11
    detector = Recorder([pair, many, *[NOTHING] * MAX_HINTS])
    assert len(detector.detect(image)) == 2
    assert not detector.results
    own = [rectangle(-1000, -600, -600, -200)], [1.0], [0]  # the search of the place finds one of the pair
    detector = Recorder([pair, HINT, own])
    assert len(detector.detect(image)) == 2
    detector = Recorder([pair], few_too=False)
    assert len(detector.detect(image)) == 2
    assert detector.searched == [(320, 640)]
    detector = Recorder([pair])  # at less than 1.5 times the size there is nothing to gain
    assert len(detector.detect(image[:450, :900])) == 2
    assert detector.searched == [(320, 640)]
    detector = Recorder([pair], max_side=640)
    assert len(detector.detect(image)) == 2
    assert detector.searched == [(320, 640)]


def test_a_hundred_faces_are_found(grace):
    small = cv2.resize(grace, (171, 200), interpolation=cv2.INTER_AREA)
    faces = FaceDetector().detect(np.tile(small, (10, 10, 1)))
    cells = {((left + right) // 2 // 171, (top + bottom) // 2 // 200) for (left, top, right, bottom), *_ in faces}
    assert len(faces) == len(cells) == 100


def test_ten_faces_behind_a_near_one_are_found(grace):
    image = np.full((1200, 1710, 3), 100, np.uint8)
    image[:200] = np.tile(cv2.resize(grace, (171, 200), interpolation=cv2.INTER_AREA), (1, 10, 1))
    image[380:1180, 500:1184] = cv2.resize(grace, (684, 800))
    assert len(FaceDetector().detect(image)) == 11


def test_all_faces_of_a_panorama_are_found(grace):
    wide = np.full((400, 6000, 3), 128, np.uint8)
    for k in range(6):
        wide[:, k * 1000 : k * 1000 + 341] = cv2.resize(grace, (341, 400), interpolation=cv2.INTER_AREA)
    faces = FaceDetector().detect(wide)
    assert sorted(face.box[0] // 1000 for face in faces) == list(range(6))


@pytest.mark.parametrize("scale", [0.6, 1, 4])
def test_a_face_is_found_again_in_its_region_whatever_its_size(grace, scale):
    image = cv2.resize(grace, None, fx=scale, fy=scale)
    region = tuple(round(edge * scale) for edge in (50, 25, 490, 465))  # the face grown by half on each side
    (face,) = FaceDetector().detect_in(image, [region])
    assert overlap(tuple(edge / scale for edge in face.box), GRACE) > 0.6


def test_regions_are_cut_at_the_border_and_boxes_are_those_of_the_image():
    found = [rectangle(-10, 10, 90, 106)], [1.0], [0]
    detector = Recorder([found, NOTHING])
    faces = detector.detect_in(np.zeros((300, 400, 3), np.uint8), [(-96, 0, 96, 192), (250, 150, 442, 534)])
    assert detector.searched == [(192, 96), (75, 75)]  # the second is searched at half its size
    assert faces == [Face((0, 10, 90, 106), 1.0)]
    detector = Recorder([found])
    assert detector.detect_in(np.zeros((300, 400, 3), np.uint8), [(100, 50, 292, 242)])[0].box == (90, 60, 190, 156)
    assert Recorder([]).detect_in(np.zeros((300, 400, 3), np.uint8), [(500, 0, 692, 192)]) == []


def test_a_face_in_two_regions_is_found_once_and_turned_heads_at_any_score():
    same, doubtful = ([rectangle(0, 0, 96, 96)], [0.5], [0]), ([rectangle(100, 0, 190, 90)], [-0.4], [5])
    detector = Recorder([same, same, doubtful])
    faces = detector.detect_in(np.zeros((300, 400, 3), np.uint8), [(0, 0, 192, 192)] * 3)
    assert faces == [Face((0, 0, 96, 96), 0.5), Face((100, 0, 190, 90), -0.4, turned=True)]


def test_a_small_face_beside_a_large_one_is_found(grace, eileen):
    image = np.full((3000, 4000, 3), 100, np.uint8)
    image[:2340, :2000] = cv2.resize(grace, (2000, 2340))
    image[200:712, 2500:3012] = cv2.resize(eileen, (512, 512))  # her face has 95 pixels; 40 of the copy searched last
    image[1500:2500, 2500:3500] = cv2.resize(eileen, (1000, 1000))
    assert len(FaceDetector(few_too=False).detect(image)) == 1
    assert len(FaceDetector().detect(image)) == 2


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.125, 0.7, 1])
def test_a_reduced_copy_is_nearly_that_of_one_step(scale):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (401, 301, 3), dtype=np.uint8), (0, 0), 6)
    size = round(301 * scale), round(401 * scale)
    copy, expected = _gray(image, scale), cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    assert copy.shape == (size[1], size[0])
    np.testing.assert_allclose(copy, cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY).astype(int), atol=6)


@pytest.mark.parametrize("shape", [(1, 5000, 3), (5000, 1, 3), (3, 1921, 3), (1, 1, 3)])
def test_images_without_room_for_a_face_have_none(shape):
    assert FaceDetector(max_side=640).detect(np.zeros(shape, np.uint8)) == []


def test_the_stored_filter_of_small_faces_finds_one_of_its_window(grace):
    detector = FaceDetector()._dlib(SMALL_FACES)
    assert (detector.num_detectors, detector.detection_window_width) == (1, SMALL_WINDOW)
    scale = SMALL_WINDOW / (GRACE[2] - GRACE[0])
    (found,), _, _ = detector.run(_gray(grace, scale), 0, HINT_SCORE)
    box = found.left(), found.top(), found.right(), found.bottom()
    np.testing.assert_allclose(box, np.array(GRACE) * scale, atol=10)
