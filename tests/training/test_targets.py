import math

import numpy as np
import pytest

from src import labels
from src.cli import UserError
from src.training import targets

NAN = float("nan")


def test_gender_targets_and_weights():
    genders = np.array([0.0, 1.0, NAN])
    result = targets.gender_targets(genders)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[1, 0], [0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(targets.gender_weights(genders), [1, 1, 0])


def test_onehot_ages():
    result = targets.age_targets(np.array([0.0, 30.0, 100.0, 116.0, NAN]))
    assert result.shape == (5, 101)
    assert result.dtype == np.float32
    assert result[:4].argmax(axis=1).tolist() == [0, 30, 100, 100]
    np.testing.assert_array_equal(result[:4].max(axis=1), 1)
    np.testing.assert_allclose(result[4], 1 / 101)


def test_onehot_of_a_fraction_is_split_so_that_the_expectation_is_the_age():
    result = targets.age_targets(np.array([30.25, 99.5]))
    assert result[0, 30:32].tolist() == [0.75, 0.25]
    assert result[1, 99:].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(labels.expected_age(result), [30.25, 99.5])


def test_gaussian_ages():
    result = targets.age_targets(np.array([40.0, 40.5]), "gaussian", sigma=2.0)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)
    # A normal density of sigma 2: 1 / (2 sqrt(2 pi)) at the age, exp(-1/8) of it one year away.
    assert result[0, 40] == pytest.approx(1 / (2 * math.sqrt(2 * math.pi)), rel=1e-4)
    assert result[0, 41] / result[0, 40] == pytest.approx(math.exp(-1 / 8), rel=1e-5)
    assert result[1, 40] == result[1, 41]
    np.testing.assert_allclose(labels.expected_age(result), [40, 40.5], atol=1e-4)


def test_a_gaussian_is_cut_equally_far_on_both_sides():
    """Sigma 2: exp(-1/8) = 0.8825 of its top one year away, exp(-1/2) = 0.6065 two years away."""
    result = targets.age_targets(np.array([0.0, 1.0, 98.0, 100.0, 0.25]), "gaussian", sigma=2.0)
    one = np.array([0.8825, 1, 0.8825]) / 2.7650
    two = np.array([0.6065, 0.8825, 1, 0.8825, 0.6065]) / 3.9780
    np.testing.assert_allclose(result[0, :3], [1, 0, 0])
    np.testing.assert_allclose(result[1, :4], [*one, 0], atol=1e-4)
    np.testing.assert_allclose(result[2, 95:], [0, *two], atol=1e-4)
    np.testing.assert_allclose(result[3, 98:], [0, 0, 1])
    np.testing.assert_allclose(result[4, :4], [0.75 + 0.25 * one[0], *(0.25 * one[1:]), 0], atol=1e-4)


@pytest.mark.parametrize("kind", targets.AGE_TARGETS)
@pytest.mark.parametrize("spread", [NAN, 0.0, 5.0])
@pytest.mark.parametrize("sigma", [0.01, 2.0, 20.0])
def test_the_expectation_is_the_age(kind, spread, sigma):
    ages = np.arange(0, 100.05, 0.1)
    result = targets.age_targets(ages, kind, sigma, np.full(len(ages), spread))
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(labels.expected_age(result), np.minimum(ages, 100), atol=1e-4)


def test_spread_of_votes_is_the_width_where_it_is_known():
    """Votes that agree have a spread of 0.5: exp(-2) of its top one year away."""
    spreads = np.array([4.0, NAN, 0.0])
    result = targets.age_targets(np.array([50.0, 50.0, 50.25]), "gaussian", 2.0, spreads)
    years = np.arange(101)
    spread = np.sqrt((result * (years - 50) ** 2).sum(axis=1))
    np.testing.assert_allclose(spread[:2], [4, 2], atol=1e-3)
    near = math.exp(-2)
    assert result[2, 50] / result[2, 51] == pytest.approx((0.75 + 0.25 * near) / (0.75 * near + 0.25), rel=1e-4)


def test_votes_make_onehot_targets_soft_where_their_spread_is_known():
    result = targets.age_targets(np.array([50.0, 50.0, NAN]), "onehot", 2.0, np.array([4.0, NAN, 3.0]))
    # A normal density of sigma 4: exp(-1/32) of its top one year away.
    assert result[0, 51] / result[0, 50] == pytest.approx(math.exp(-1 / 32), rel=1e-5)
    assert result[0, 50] == pytest.approx(1 / (4 * math.sqrt(2 * math.pi)), rel=1e-4)
    assert result[1].tolist() == [float(year == 50) for year in range(101)]
    np.testing.assert_allclose(result[2], 1 / 101)


@pytest.mark.parametrize(("kind", "sigma"), [("uniform", 2.0), ("gaussian", 0.0)])
def test_wrong_target_is_one_line(kind, sigma):
    with pytest.raises(UserError, match=f"onehot, gaussian with a sigma > 0, got {kind}"):
        targets.age_targets(np.array([1.0]), kind, sigma)


def test_age_weights():
    class_weights = np.arange(101.0)
    ages = np.array([3.0, NAN, 3.6, 120.0])
    np.testing.assert_array_equal(targets.age_weights(ages), [1, 0, 1, 1])
    np.testing.assert_array_equal(targets.age_weights(ages, class_weights), [3, 0, 4, 100])


def test_age_ranges_mark_their_classes():
    ranges = targets.age_ranges(np.array([0.0, 70.0, NAN, 110.0]), np.array([2.0, 120.0, NAN, 120.0]))
    assert ranges.dtype == np.float32
    assert [np.flatnonzero(row).tolist() for row in ranges] == [[0, 1, 2], list(range(70, 101)), [], [100]]


def test_exact_ages_and_ranges_side_by_side():
    distributions = targets.age_targets(np.array([30.0, NAN, NAN]))
    ranges = targets.age_ranges(np.array([NAN, 3.0, NAN]), np.array([NAN, 9.0, NAN]))
    joined = targets.join_ranges(distributions, ranges)
    assert joined.shape == (3, 303)
    assert np.flatnonzero(joined[0]).tolist() == [30]
    assert np.flatnonzero(joined[1]).tolist() == list(range(101 + 3, 101 + 10))
    np.testing.assert_allclose(joined[2, :101], 1 / 101)
    assert not joined[2, 101:].any()


def test_mixed_ranges_keep_both_scaled_by_their_shares():
    distributions = targets.age_targets(np.array([30.0, NAN]))
    ranges = targets.age_ranges(np.array([NAN, 3.0]), np.array([NAN, 4.0]))
    share, partner = np.array([0.75, 0.5], np.float32), np.array([1, 1])
    mixed = targets.mix_age_targets(targets.join_ranges(distributions, ranges), share, partner)
    assert mixed[0, 30] == 0.75
    assert mixed[0, 202 + 3 : 202 + 5].tolist() == [0.25, 0.25]
    assert mixed[0].sum() == pytest.approx(1.25)
    assert mixed[1, 101 + 3] == mixed[1, 202 + 3] == 0.5
    exact = targets.mix_age_targets(distributions[:1], share[:1], np.array([0]))
    np.testing.assert_array_equal(exact, distributions[:1])


def test_weight_of_a_range_is_the_mean_of_its_classes():
    ranges = targets.age_ranges(np.array([10.0, NAN, NAN]), np.array([12.0, NAN, NAN]))
    ages = np.array([NAN, 5.0, NAN])
    np.testing.assert_array_equal(targets.age_weights(ages, np.arange(101.0), ranges), [11, 5, 0])
    np.testing.assert_array_equal(targets.age_weights(ages, ranges=ranges), [1, 1, 0])


@pytest.mark.parametrize("has_ranges", [False, True])
def test_predictions_have_their_share_beside_labels_and_ranges(has_ranges):
    genders = targets.gender_targets(np.array([0.0, 1.0, 1.0]))
    ages = targets.age_targets(np.array([10.0, NAN, 30.0]))
    if has_ranges:
        ages = targets.join_ranges(ages, targets.age_ranges(np.array([NAN, 20.0, NAN]), np.array([NAN, 29.0, NAN])))
    predictions = np.array([[0.6, 0.4], [0.2, 0.8], [NAN, NAN]]), np.eye(101)[[12, 35, 31]]
    predictions[1][2] = NAN
    before = genders.copy(), ages.copy()
    blended_genders, blended_ages = targets.blend((genders, ages), predictions, 0.25)
    np.testing.assert_array_equal(genders, before[0])
    np.testing.assert_array_equal(ages, before[1])
    np.testing.assert_allclose(blended_genders, [[0.9, 0.1], [0.05, 0.95], [0, 1]], atol=1e-6)
    assert (blended_genders.dtype, blended_ages.dtype, blended_ages.shape) == (np.float32, np.float32, ages.shape)
    np.testing.assert_allclose(blended_ages[0, [10, 12]], [0.75, 0.25])
    np.testing.assert_array_equal(blended_ages[2], ages[2])
    if has_ranges:
        years = np.arange(101)
        np.testing.assert_allclose(blended_ages[1, :101], 0.25 * (years == 35))
        np.testing.assert_allclose(blended_ages[1, 101:202], 0.75 * ((years >= 20) & (years <= 29)))
