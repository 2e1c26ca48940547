import keras
import numpy as np
import pytest

from src.training.losses import AgeAccuracy, AgeMeanAbsoluteError, age_loss, expected_age_error


def distribution(**shares: float) -> np.ndarray:
    """`(1, 101)` float32; `distribution(a20=0.5, a30=0.5)`."""
    row = np.zeros((1, 101), np.float32)
    for age, share in shares.items():
        row[0, int(age[1:])] = share
    return row


def test_expected_age_error_by_hand():
    """Expectations 30 and 0.25 * 10 + 0.75 * 50 = 40."""
    error = expected_age_error(*tensors(distribution(a30=1), distribution(a10=0.25, a50=0.75)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(error), [10], rtol=1e-6)


def test_without_expectation_it_is_kerass_own():
    assert age_loss(0) == "categorical_crossentropy"


def test_both_parts_by_hand():
    """Cross entropy -ln 0.5; expectations 30 and 25; with the weight 0.1: ln 2 + 0.5."""
    loss = age_loss(0.1)(*tensors(distribution(a30=1), distribution(a20=0.5, a30=0.5)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), [np.log(2) + 0.5], rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_it_compiles_for_one_output_with_weights(weight):
    inputs = keras.Input((101,))
    model = keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(inputs))
    model.compile(loss=age_loss(weight))
    predicted = np.concatenate([distribution(a20=0.5, a30=0.5), distribution(a5=1)])
    true = np.concatenate([distribution(a30=1), distribution(a90=1)])
    loss = model.evaluate(predicted, true, sample_weight=np.array([1.0, 0.0]), verbose=0)
    assert loss == pytest.approx((np.log(2) + weight * 5) / 2, rel=1e-5)  # the second counts as a row, not in the sum


def ranged(distribution=None, own=None, partner=None) -> np.ndarray:
    """`(1, 303)` float32; ranges as (first, last, share)."""
    row = np.zeros((3, 101), np.float32)
    if distribution is not None:
        row[0] = distribution
    for block, limits in enumerate((own, partner), start=1):
        if limits:
            row[block, limits[0] : limits[1] + 1] = limits[2]
    return row.reshape(1, 303)


def tensors(*arrays) -> list:
    return [keras.ops.convert_to_tensor(array) for array in arrays]


def values(tensor) -> list[float]:
    return keras.ops.convert_to_numpy(tensor).tolist()


PREDICTED = distribution(a5=0.25, a12=0.5, a30=0.25)  # expectation 14.75


def test_loss_of_a_range_is_minus_the_log_of_the_probability_within():
    """Within 10..19 lies 0.5, within 3..9 0.25, within 3..100 everything."""
    loss = age_loss(0, has_ranges=True)
    true = np.concatenate([ranged(own=(10, 19, 1)), ranged(own=(3, 9, 1)), ranged(own=(3, 100, 1))])
    predicted = np.repeat(PREDICTED, 3, axis=0)
    assert values(loss(*tensors(true, predicted))) == pytest.approx([np.log(2), np.log(4), 0], abs=1e-6)


def test_an_exact_age_costs_the_same_beside_ranges():
    loss = age_loss(0.1, has_ranges=True)(*tensors(ranged(distribution(a12=1)), PREDICTED))
    assert values(loss) == pytest.approx([np.log(2) + 0.1 * 2.75])


def test_mixed_rows_cost_the_mix_of_both_losses():
    """0.75 of 10..19 and 0.25 of 3..9; then 0.75 of the age 12 and 0.25 of 3..9."""
    loss = age_loss(0, has_ranges=True)
    two_ranges = ranged(own=(10, 19, 0.75), partner=(3, 9, 0.25))
    exact_and_range = ranged(0.75 * distribution(a12=1), partner=(3, 9, 0.25))
    expected = 0.75 * np.log(2) + 0.25 * np.log(4)
    assert values(loss(*tensors(two_ranges, PREDICTED))) == pytest.approx([expected])
    assert values(loss(*tensors(exact_and_range, PREDICTED))) == pytest.approx([expected])


def test_expected_age_is_off_by_its_distance_to_the_range():
    """14.75 lies within 10..19, 5.75 above 3..9, and 5.25 below 20..29."""
    true = np.concatenate([ranged(own=(10, 19, 1)), ranged(own=(3, 9, 1)), ranged(own=(20, 29, 1))])
    assert values(expected_age_error(*tensors(true, np.repeat(PREDICTED, 3, axis=0)))) == pytest.approx([0, 5.75, 5.25])


def test_impossible_range_costs_much_and_stays_finite():
    assert values(age_loss(0, has_ranges=True)(*tensors(ranged(own=(90, 100, 1)), PREDICTED))) == pytest.approx(
        [16.118], abs=1e-2
    )


def test_mean_absolute_error_counts_rows_with_an_exact_age_alone():
    metric = AgeMeanAbsoluteError()
    assert np.isnan(values(metric.result()))
    metric.update_state(*tensors(ranged(own=(50, 59, 1)), PREDICTED))
    assert np.isnan(values(metric.result()))
    metric.update_state(*tensors(ranged(distribution(a12=1)), PREDICTED))
    assert values(metric.result()) == pytest.approx(2.75)
    true = np.concatenate([distribution(a14=1), distribution(a90=1)])
    metric.update_state(*tensors(true, np.repeat(PREDICTED, 2, axis=0), [1.0, 0.0]))
    assert values(metric.result()) == pytest.approx((2.75 + 0.75) / 2)


def test_accuracy_of_classes_and_ranges():
    metric = AgeAccuracy()
    rows = [ranged(distribution(a12=1)), ranged(distribution(a5=1)), ranged(own=(10, 19, 1)), ranged(own=(3, 9, 1))]
    metric.update_state(*tensors(np.concatenate(rows), np.repeat(PREDICTED, 4, axis=0)))
    assert values(metric.result()) == pytest.approx(0.5)
    metric.reset_state()
    true = np.concatenate([distribution(a12=1), distribution(a30=1)])
    metric.update_state(*tensors(true, np.repeat(PREDICTED, 2, axis=0), [1.0, 0.0]))
    assert values(metric.result()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("share", "own", "partner", "hit"),
    [(0.9, (3, 9), None, 0), (0.1, (3, 9), None, 1), (0.9, (10, 19), None, 1), (0.1, (3, 9), (10, 19), 1)],
)
def test_of_a_mixed_row_the_largest_share_counts(share, own, partner, hit):
    """12 years are predicted; without another range the partner is 12 years old."""
    metric = AgeAccuracy()
    exact = distribution(a12=1) * (1 - share) if partner is None else distribution(a5=1) * 0
    ranges = {"own": (*own, share)} | ({"partner": (*partner, 1 - share)} if partner else {})
    metric.update_state(*tensors(ranged(exact, **ranges), PREDICTED))
    assert values(metric.result()) == pytest.approx(hit)
