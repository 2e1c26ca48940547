"""Networks in 8-bit integers: which convolutions, how far predictions may move."""

import keras
import numpy as np
import onnx
import pytest
from strange_files import random_images, randomize

from src.cli import JobError
from src.models import export as exporting, weights
from src.models.export import export_model, run_onnx
from src.models.quantize import MAX_AGE_CHANGE, MAX_GENDER_CHANGE, describe_change
from src.models.weights.info import WeightsInfo
from src.models.weights.onnx import validate


@pytest.fixture
def network(monkeypatch) -> keras.Model:
    """A network for 16 pixels with six whole convolutions and two by channels, which all weight files then are."""
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(x)
    for block in range(6):
        x = layers.ReLU(6)(layers.BatchNormalization()(layers.Conv2D(8, 1 if block else 3, padding="same")(x)))
        if block in (1, 4):
            x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    heads = [layers.Dense(size, "softmax", name=name)(x) for size, name in ((2, "pred_gender"), (101, "pred_age"))]
    model = keras.Model(inputs, heads)
    randomize(model)
    monkeypatch.setattr(weights, "load_model", lambda _: (model, WeightsInfo("MobileNetV2", 16, 0.1)))
    return model


def test_the_later_whole_convolutions_become_integers(network, tmp_path):
    exact, quantized = tmp_path / "exact.onnx", tmp_path / "int8.onnx"
    export_model("any", "onnx", exact)
    text = export_model("any", "onnx", quantized, random_images(16, 16))
    assert "\n8-bit integers changed ages by " in text
    assert text.endswith("of 8 images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exact.onnx", "int8.onnx"]
    validate(quantized)
    assert weights.identify(quantized) == weights.identify(exact)
    graph = onnx.load(quantized).graph
    integers = [
        tensor.dims for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims
    ]
    assert [list(dims) for dims in integers if len(dims) == 4] == 3 * [[8, 8, 1, 1]]
    values = random_images(16, 16)
    ages, other_ages = (run_onnx(path, values)[1] for path in (exact, quantized))
    np.testing.assert_allclose(ages, other_ages, atol=0.05)
    assert np.abs(ages - other_ages).max() > 1e-5, "nothing was rounded"


def test_a_network_that_moves_too_far_leaves_no_file(network, tmp_path, monkeypatch):
    def other_weights(path, faces):
        for layer in network.layers[-2:]:
            layer.set_weights([-values for values in layer.get_weights()])
        exporting.write(exporting.plain_network(network, WeightsInfo("MobileNetV2", 16, 0.1)), FORM, path)

    FORM = exporting.FORMATS["onnx"]
    monkeypatch.setattr(exporting, "quantize", other_weights)
    with pytest.raises(JobError, match=r"8-bit integers must change .* nothing is kept; export without --int8"):
        export_model("any", "onnx", tmp_path / "a.onnx", random_images(16, 16))
    assert list(tmp_path.iterdir()) == []


def outputs(years: list[float], male: list[float]):
    ages = np.zeros((len(years), 101))
    for row, age in enumerate(years):
        ages[row, [20, 30]] = (30 - age) / 10, (age - 20) / 10
    return np.stack([1 - np.array(male), male], axis=1), ages


def test_limits():
    before = outputs([24.0] * 50, [0.4] * 50)
    line = describe_change(before, outputs([24.9] + [24.0] * 49, [0.6] + [0.4] * 49))
    assert line == (
        "8-bit integers changed ages by 0.02 years on average and 0.90 at most, 2.0% of genders, of 50 images"
    )
    for years, male in (([24 + MAX_AGE_CHANGE + 0.01] * 50, [0.4] * 50), ([24.0] * 50, [0.6] * 2 + [0.4] * 48)):
        with pytest.raises(JobError, match=f"at most 0.5 years on average and {MAX_GENDER_CHANGE:.0%} of genders, got"):
            describe_change(before, outputs(years, male))
    with pytest.raises(JobError, match="nan years"):
        describe_change(before, outputs([float("nan")] * 50, [0.4] * 50))
