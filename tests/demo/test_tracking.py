import numpy as np
import pytest

from src.demo.tracking import DOUBTS, MEMORY, MISSES, Tracker, fits, overlap
from src.inference.predictor import Prediction

LEFT, RIGHT = (0, 0, 100, 100), (300, 0, 400, 100)


def moved(box, dx):
    return box[0] + dx, box[1], box[2] + dx, box[3]


def test_overlap_by_hand():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap(LEFT, LEFT) == 1
    assert overlap(LEFT, RIGHT) == 0


def test_shown_values_are_first_the_mean_of_all_estimates():
    tracker = Tracker()
    for age, male, mean_age, mean_male in [(20, 0.0, 20, 0.0), (40, 1.0, 30, 0.5), (60, 0.5, 40, 0.5)]:
        (shown,) = tracker.update([Prediction(LEFT, age, male)])
        assert shown.age == pytest.approx(mean_age)
        assert shown.male_probability == pytest.approx(mean_male)


def test_later_ones_move_it_by_their_share():
    tracker = Tracker()
    for _ in range(100):
        tracker.update([Prediction(LEFT, 20, 0.0)])
    (shown,) = tracker.update([Prediction(LEFT, 60, 1.0)])
    assert shown.age == pytest.approx(20 + 40 / MEMORY)
    assert shown.male_probability == pytest.approx(1 / MEMORY)


def test_faces_are_followed_whatever_their_order():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 20, 0.0), Prediction(RIGHT, 60, 1.0)])
    shown = tracker.update([Prediction(moved(RIGHT, 20), 70, 1.0), Prediction(moved(LEFT, 20), 10, 0.0)])
    assert [(face.box, face.age) for face in shown] == [(moved(LEFT, 20), 15), (moved(RIGHT, 20), 65)]


def test_the_better_overlap_wins_a_face():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 20, 0.0), Prediction(moved(LEFT, 60), 60, 0.0)])
    shown = tracker.update([Prediction(moved(LEFT, 50), 60, 0.0)])
    assert [(face.box, face.age) for face in shown] == [(LEFT, 20), (moved(LEFT, 50), 60)]  # the first only blinks


def test_a_blink_of_the_detector_is_bridged_and_then_the_face_is_forgotten():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 20, 0.0)])
    for _ in range(MISSES):
        assert [face.box for face in tracker.update([])] == [LEFT]
    assert tracker.update([]) == []
    (shown,) = tracker.update([Prediction(LEFT, 60, 1.0)])
    assert (shown.age, shown.male_probability) == (60, 1.0)


def test_a_cut_ends_all_tracks():
    scenes = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scenes[1] //= 4
    tracker = Tracker()
    for number, ages in [(0, [20]), (0, [20]), (1, [60]), (1, [60]), (0, [])]:
        tracker.see(scenes[number])
        assert [face.age for face in tracker.update([Prediction(LEFT, age, 0.0) for age in ages])] == ages


def test_another_face_elsewhere_does_not_inherit_the_number():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 20, 0.0)])
    assert {face.age for face in tracker.update([Prediction(RIGHT, 60, 1.0)])} == {20, 60}


def test_a_region_stays_while_its_face_is_well_inside():
    tracker = Tracker()
    tracker.begin([LEFT])
    (track,) = tracker.tracks
    assert track.region == (-50, -50, 150, 150)
    tracker.follow([moved(LEFT, 30)])
    assert track.region == (-50, -50, 150, 150)
    tracker.follow([moved(LEFT, 40)])  # 10 pixels from the edge, 15 are wanted
    assert track.region == (-10, -50, 190, 150)


def test_a_region_fits_faces_of_about_half_its_size():
    region = (0, 0, 200, 200)
    assert fits((50, 50, 150, 150), region)
    assert fits((56, 56, 145, 145), region)
    assert not fits((60, 60, 140, 140), region)  # 2.5 times the face
    assert not fits((10, 10, 190, 190), region)


def test_a_new_face_is_shown_once_it_is_followed_and_estimated():
    tracker = Tracker()
    tracker.begin([LEFT])
    assert tracker.shown() == []
    assert tracker.follow([moved(LEFT, 10)]) == {0: tracker.tracks[0]}
    assert tracker.shown() == []
    tracker.tracks[0].add(Prediction(LEFT, 30, 1.0))
    assert tracker.shown() == [Prediction(moved(LEFT, 10), 30, 1.0)]


def test_following_begins_no_track_and_full_searches_move_none():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 30, 1.0)])
    tracker.follow([LEFT, RIGHT])
    tracker.begin([moved(LEFT, 20)])
    assert [track.box for track in tracker.tracks] == [LEFT]


def test_a_face_that_full_searches_do_not_find_is_dropped_in_the_end():
    tracker = Tracker()
    tracker.update([Prediction(LEFT, 30, 1.0)])
    for _ in range(DOUBTS):
        tracker.begin([])
    tracker.begin([LEFT])
    for _ in range(DOUBTS):
        tracker.begin([])
    assert len(tracker.tracks) == 1
    tracker.begin([])
    assert tracker.tracks == []
