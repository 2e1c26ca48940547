"""Networks in 8-bit integers: which convolutions, how far predictions may move."""

import re

import keras
import numpy as np
import onnx
import pytest
from strange_files import random_images, randomize

from src.cli import JobError, UserError
from src.models import export as exporting, weights
from src.models.export import export_model, int8_change, run_onnx
from src.models.weights.info import WeightsInfo


@pytest.fixture
def network(monkeypatch) -> keras.Model:
    """A network for 16 pixels with six plain and two depthwise convolutions, which all weight files then are."""
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


def faces(info: WeightsInfo) -> np.ndarray:
    assert info.img_size == 16
    return random_images(16, 16)


def test_the_later_convolutions_of_all_channels_become_integers(network, tmp_path):
    exact, quantized = tmp_path / "exact.onnx", tmp_path / "int8.onnx"
    export_model("any", "onnx", exact)
    text = export_model("any", "onnx", quantized, faces)
    assert re.search(r"\n8-bit integers change ages by 0\.\d\d years on average and 0\.0% of genders$", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exact.onnx", "int8.onnx"]
    assert weights.identify(quantized) == weights.identify(exact)
    tensors = [tensor for tensor in onnx.load(quantized).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert [list(tensor.dims) for tensor in tensors if len(tensor.dims) == 4] == 3 * [[8, 8, 1, 1]]
    ages, other_ages = (run_onnx(path, random_images(16, 16))[1] for path in (exact, quantized))
    np.testing.assert_allclose(ages, other_ages, atol=0.05)
    assert np.abs(ages - other_ages).max() > 1e-5, "nothing was rounded"


def test_a_network_that_moves_too_far_leaves_the_older_export(network, tmp_path, monkeypatch):
    output = tmp_path / "a.onnx"
    export_model("any", "onnx", output)
    before = output.read_bytes()

    def quantize_badly(path, faces, output):
        for layer in network.layers[-2:]:
            layer.set_weights([-values for values in layer.get_weights()])
        plain = exporting.plain_network(network, WeightsInfo("MobileNetV2", 16, 0.1))
        exporting.write(plain, exporting.FORMATS["onnx"], output)

    monkeypatch.setattr(exporting, "quantize", quantize_badly)
    with pytest.raises(JobError, match=r"8-bit integers must change .* is not kept; export without --int8"):
        export_model("any", "onnx", output, faces)
    monkeypatch.setattr(exporting, "quantize", lambda *_: 1 / 0)
    with pytest.raises(JobError, match="quantization failed: division by zero"):
        export_model("any", "onnx", output, faces)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    assert output.read_bytes() == before


def test_other_formats_have_no_8_bit_integers(network, tmp_path):
    with pytest.raises(UserError, match="--int8 requires --format onnx, got litert"):
        export_model("any", "litert", tmp_path / "a.tflite", faces)


def outputs(years: list[float], male: list[float]) -> tuple[np.ndarray, np.ndarray]:
    ages = np.zeros((len(years), 101))
    for row, age in enumerate(years):
        ages[row, [20, 30]] = (30 - age) / 10, (age - 20) / 10
    return np.stack([1 - np.array(male), male], axis=1), ages


def test_limits():
    before = outputs([24.0] * 50, [0.4] * 50)
    years, genders = int8_change(before, outputs([25.0] + [24.0] * 49, [0.6] + [0.4] * 49))
    assert (years, genders) == (pytest.approx(0.02), pytest.approx(0.02))
    for ages, male in (([24.51] * 50, [0.4] * 50), ([24.0] * 50, [0.6] * 2 + [0.4] * 48)):
        with pytest.raises(JobError, match=r"by <= 0.5 years on average and <= 2% of genders, got 0\.\d\d years and"):
            int8_change(before, outputs(ages, male))
    with pytest.raises(JobError, match="got nan years"):
        int8_change(before, outputs([float("nan")] * 50, [0.4] * 50))
