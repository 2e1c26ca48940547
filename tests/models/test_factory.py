import keras
import numpy as np
import pytest

from src.cli import UserError
from src.models import factory


def rates(*args, steps, **kwargs):
    schedule = factory.get_scheduler(*args, **kwargs)
    return [float(schedule(step)) for step in steps]


def test_model_has_gender_first_and_both_heads_sum_to_one():
    model = factory.get_model("MobileNet", 32)
    assert model.output_names == ["pred_gender", "pred_age"]
    assert model.input_shape == (None, 32, 32, 3)
    assert [tuple(output.shape) for output in model.outputs] == [(None, 2), (None, 101)]


def test_heads_stay_float32_under_mixed_precision():
    policy = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        model = factory.get_model("MobileNet", 32)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    assert [output.dtype for output in model.outputs] == ["float32", "float32"]


def test_dropout_stands_before_the_heads(tiny_network):
    model = factory.get_model("MobileNet", 32, dropout=0.3)
    assert model.get_layer("dropout").rate == 0.3
    assert model.get_layer("pred_age").input is model.get_layer("dropout").output
    assert not any(layer.name == "dropout" for layer in factory.get_model("MobileNet", 32).layers)


def test_step_schedule_falls_to_a_fifth_at_25_50_and_75_percent():
    # 8 epochs of 10 steps: drops at the beginning of epochs 2, 4 and 6 (from 0).
    steps = [0, 19, 20, 39, 40, 59, 60, 79]
    expected = [1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008]
    np.testing.assert_allclose(rates("step", 1.0, 8, 10, steps=steps), expected, rtol=1e-5)


def test_cosine_schedule_with_warm_up():
    # 2 of 10 epochs of 10 steps rise linearly, then half a cosine over the other 80 steps.
    got = rates("cosine", 1.0, 10, 10, 2, steps=[0, 9, 19, 20, 60, 100])
    np.testing.assert_allclose(got, [0.05, 0.5, 1.0, 1.0, 0.5, 0.0], atol=1e-6)


def test_constant_schedule():
    np.testing.assert_allclose(rates("constant", 0.3, 4, 10, steps=[0, 39]), [0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", keras.optimizers.SGD), ("adam", keras.optimizers.Adam), ("AdamW", keras.optimizers.AdamW)],
)
def test_optimizers_by_name(name, kind):
    assert type(factory.get_optimizer(name, 0.1)) is kind


def test_sgd_is_nesterov_with_momentum():
    optimizer = factory.get_optimizer("sgd", 0.1)
    assert optimizer.nesterov
    assert optimizer.momentum == 0.9


def test_unknown_names_list_the_known():
    with pytest.raises(UserError, match="one of sgd, adam, adamw, got 'lion'"):
        factory.get_optimizer("lion", 0.1)
    with pytest.raises(UserError, match="one of step, cosine, constant, got 'linear'"):
        factory.get_scheduler("linear", 0.1, 1, 1)


def test_weight_decay_spares_batch_norm_and_biases():
    """With zero gradients only weight decay moves a variable: w * (1 - lr * decay)."""
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, x)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = factory.get_optimizer("adamw", 0.5, weight_decay=0.1)
    factory.exclude_from_weight_decay(optimizer, model)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    values = {v.name: float(np.ravel(v.numpy())[0]) for v in model.trainable_variables}
    assert values == {"kernel": pytest.approx(0.95), "bias": 1, "gamma": 1, "beta": 1}
