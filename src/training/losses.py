"""What training minimises beside Keras' own losses."""

from collections.abc import Callable

import keras

from src.labels import AGE_CLASSES


def age_loss(expectation_weight: float = 0.0) -> str | Callable:
    """Loss of the age head: cross entropy, and the error of the expected age, which is what evaluation counts.

    The sum is that of DLDL-v2 (Gao et al., "Age Estimation Using Expectation of Label Distribution Learning", IJCAI
    2018), where both parts have the weight 1; cross entropy differs from its divergence by a constant.

    Args:
        expectation_weight: Weight of each year between the expectations, at least 0; 0 is cross entropy alone.

    Returns:
        What `keras.Model.compile` takes for one output of `(batch, 101)`.
    """
    if expectation_weight == 0:
        return "categorical_crossentropy"

    def distribution_and_expectation(true, predicted):
        cross_entropy = keras.losses.categorical_crossentropy(true, predicted)
        return cross_entropy + expectation_weight * expected_age_error(true, predicted)

    return distribution_and_expectation


def expected_age_error(true, predicted):
    """Absolute difference of expected ages, years; `(batch, 101)` twice -> `(batch,)`."""
    years = keras.ops.arange(AGE_CLASSES, dtype="float32")
    return keras.ops.abs(keras.ops.sum((true - predicted) * years, axis=-1))
