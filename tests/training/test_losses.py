import keras
import numpy as np
import pytest

from src.training.losses import age_loss, expected_age_error


def distribution(**shares: float) -> np.ndarray:
    """`(1, 101)` float32; `distribution(a20=0.5, a30=0.5)`."""
    row = np.zeros((1, 101), np.float32)
    for age, share in shares.items():
        row[0, int(age[1:])] = share
    return row


def test_expected_age_error_by_hand():
    """Expectations 30 and 0.25 * 10 + 0.75 * 50 = 40."""
    error = expected_age_error(distribution(a30=1), distribution(a10=0.25, a50=0.75))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(error), [10], rtol=1e-6)


def test_without_expectation_it_is_kerass_own():
    assert age_loss(0) == "categorical_crossentropy"


def test_both_parts_by_hand():
    """Cross entropy -ln 0.5; expectations 30 and 25; with the weight 0.1: ln 2 + 0.5."""
    loss = age_loss(0.1)(distribution(a30=1), distribution(a20=0.5, a30=0.5))
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
