import cv2
import dlib
import numpy as np
import pytest

from recipes import profile_detector as recipe
from recipes.fhog import SIZE, fhog, mirror_order, read_detector, write_detector
from src.cli import ROOT
from src.images import FRONTAL, PROFILES, read_image


@pytest.fixture(scope="module")
def grace():
    face = read_image(ROOT / "samples" / "grace_hopper.jpg")[100:340, 140:380]
    return cv2.cvtColor(cv2.resize(face, (96, 96), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def test_features_give_dlibs_own_score():
    image = read_image(ROOT / "samples" / "grace_hopper.jpg")
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, None, fx=0.38, fy=0.38, interpolation=cv2.INTER_AREA)  # found on the first level
    _, (score,), (part,) = dlib.get_frontal_face_detector().run(small, 0, 0)
    filters, overlap = read_detector(FRONTAL)
    windows = next(recipe.windows_of(recipe.Example(small)))
    assert (windows @ filters[part, :-1] - filters[part, -1]).max() == pytest.approx(score, abs=0.05)
    assert overlap == pytest.approx((0.33, 0.79), abs=0.01)


def test_a_detector_file_is_read_as_it_was_written(tmp_path):
    filters, overlap = read_detector(PROFILES)
    assert filters.shape == (9, SIZE + 1)
    write_detector(tmp_path / "copy.svm", filters, overlap)
    assert (tmp_path / "copy.svm").read_bytes() == PROFILES.read_bytes()
    assert dlib.fhog_object_detector(str(tmp_path / "copy.svm")).num_detectors == 9


def test_mirror_order_gives_the_mirror_image(grace):
    plain, mirrored = fhog(grace[None]).ravel(), fhog(grace[None, :, ::-1]).ravel()
    order = mirror_order()
    assert np.array_equal(order[order], np.arange(SIZE))
    assert np.abs(plain[order] - mirrored).mean() < 0.25 * np.abs(plain - mirrored).mean()


def test_near_windows_hold_the_face(grace):
    filters, _ = read_detector(PROFILES)
    windows = recipe.draw_near(filters, [grace])
    assert windows.shape == (8, SIZE)  # three levels; the last is one window wide
    assert (windows @ filters[:, :-1].T - filters[:, -1]).max() > 0


def test_filter_separates_and_its_penalty_has_the_right_slope():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=SIZE)
    windows = rng.normal(size=(60, SIZE)) + np.repeat([1, -1], 30)[:, None] * direction
    positive, negative = windows[:30].astype(np.float32), windows[30:].astype(np.float32)
    filter_ = recipe.fit_filter(positive, negative, np.zeros(SIZE + 1))
    assert (positive @ filter_[:-1] - filter_[-1]).min() > (negative @ filter_[:-1] - filter_[-1]).max()
    step = 1e-5 * direction
    value, slope = recipe._nuclear_norm(direction)
    assert recipe._nuclear_norm(direction + step)[0] - value == pytest.approx(slope @ step, rel=1e-3)


def test_overlap_with_the_truth_by_hand():
    overlap = recipe._overlap((2, 3), 1.0, (0, 0, 80, 80))
    # windows begin at -8, 0, 8 pixels
    assert overlap[1, 1] == 1
    assert overlap[0, 1] == pytest.approx(72 * 80 / (2 * 80 * 80 - 72 * 80))
    assert overlap[1, 2] == overlap[1, 0]


def test_reduced_rank_keeps_the_largest_values():
    rng = np.random.default_rng(0)
    parts = 0.01 * rng.normal(size=(31, 10, 2)) @ rng.normal(size=(31, 2, 10))  # 62 separable filters
    filter_ = np.append(parts, 0.5)
    windows = rng.normal(size=(400, SIZE)).astype(np.float32)
    reduced = recipe.reduce_rank(filter_, 50, windows)
    values = np.linalg.svd(reduced[:-1].reshape(31, 10, 10), compute_uv=False)
    assert (values > 1e-9).sum() == 50
    new, old = recipe.Filters(reduced[None]).scores(windows)[:, 0], recipe.Filters(filter_[None]).scores(windows)[:, 0]
    assert np.corrcoef(new, old)[0, 1] > 0.95
    same = recipe.reduce_rank(filter_, 62, windows)
    np.testing.assert_allclose(same, filter_, atol=1e-4)
