from functools import cache

import keras
import numpy as np
import pytest
from strange_files import shorten_efficientnets

from src.cli import JobError, UserError
from src.models import backbones, factory

APPLICATIONS = [name for name in backbones.model_names() if backbones.family(name)]
SCALED_BY_US = [
    name for name in APPLICATIONS if backbones.SCALING[backbones.family(name)] is not backbones.scale_inside
]
SCALED_INSIDE = [name for name in APPLICATIONS if name not in SCALED_BY_US]


def random_pixels(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def test_knows_every_classification_network_of_keras():
    assert len(APPLICATIONS) == 40
    assert {"EfficientNetB3", "ResNet50", "MobileNetV2", "NASNetLarge", "ConvNeXtXLarge"} <= set(APPLICATIONS)
    others = {"EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2", "WideResNet"}
    assert set(backbones.model_names()) - set(APPLICATIONS) == others


@pytest.mark.parametrize("name", SCALED_BY_US)
def test_scaling_equals_preprocess_input_of_keras(name):
    module = getattr(keras.applications, backbones.family(name))
    pixels = random_pixels(4)
    inputs = keras.Input((4, 4, 3))
    scaled = keras.Model(inputs, backbones.SCALING[backbones.family(name)](inputs))(pixels)
    np.testing.assert_allclose(scaled, module.preprocess_input(pixels.copy()), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def network():
    """`network(name)` is a network for its smallest images, the same one in all tests."""
    return cache(lambda name: factory.get_model(name, backbones.MIN_SIZE.get(backbones.family(name), 32)))


def scalings(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EfficientNetB0", ["Rescaling", "Normalization"]),  # to 0..1, then to ImageNet's mean and variance
        ("EfficientNetV2B0", ["Rescaling", "Normalization"]),
        ("EfficientNetV2S", ["Rescaling"]),
        ("ConvNeXtTiny", ["Normalization"]),
        ("MobileNetV3Small", ["Rescaling"]),
        ("MobileNetV2", ["Rescaling"]),
        ("DenseNet121", ["Rescaling"]),
        ("ResNet50", ["Rescaling"]),
        ("EfficientNetLite0", ["Rescaling"]),
        ("WideResNet", []),
    ],
)
def test_there_is_exactly_one_scaling_inside(network, name, expected):
    assert [type(layer).__name__ for layer in scalings(network(name))] == expected


@pytest.mark.parametrize("name", SCALED_INSIDE)
def test_preprocess_input_is_the_identity_where_the_network_scales(name):
    module = getattr(keras.applications, backbones.family(name))
    pixels = random_pixels(4)
    np.testing.assert_array_equal(module.preprocess_input(pixels.copy()), pixels)


@pytest.mark.parametrize("name", ["EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_networks_that_scale_inside_see_the_mean_and_deviation_of_imagenet(network, name):
    model = network(name)
    normalised = keras.Model(model.input, scalings(model)[-1].output)
    pixels = random_pixels(32)
    expected = (pixels / 255 - backbones.IMAGENET_MEAN) / backbones.IMAGENET_STD
    np.testing.assert_allclose(normalised(pixels), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "low", "high"), [("MobileNetV3Small", -1, 1), ("EfficientNetV2S", -1, 255 / 128 - 1)])
def test_networks_that_scale_inside_see_values_around_zero(network, name, low, high):
    model = network(name)
    scaled = keras.Model(model.input, scalings(model)[-1].output)
    ends = np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), 255.0)])
    np.testing.assert_allclose(np.asarray(scaled(ends))[:, 0, 0, 0], [low, high], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ConvNeXtTiny",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetLite2",
        "EfficientNetV2B0",
        "InceptionResNetV2",
        "InceptionV3",
        "MobileNet",
        "MobileNetV2",
        "MobileNetV3Small",
        "NASNetMobile",
        "ResNet50",
        "ResNet50V2",
        "VGG16",
        "WideResNet",
        "Xception",
    ],
)
def test_one_network_of_each_family_gives_two_softmaxes(network, name):
    model = network(name)
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]), "uint8")
    genders, ages = model(images)
    assert genders.shape == (2, 2)
    assert ages.shape == (2, 101)
    np.testing.assert_allclose(np.sum(genders, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sum(ages, axis=1), 1, rtol=1e-5)


def test_every_family_has_a_scaling():
    assert {backbones.family(name) for name in APPLICATIONS} <= set(backbones.SCALING)


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UserError, match="got 'efficientnet_b3'; the nearest are EfficientNetB3"):
        backbones.build("efficientnet_b3", 64)


def test_too_small_a_size_names_the_smallest():
    with pytest.raises(UserError, match="must be >= 75 for InceptionV3, got 64"):
        backbones.build("InceptionV3", 64)


def test_without_network_imagenet_weights_are_one_clear_line(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(
        keras.applications.mobilenet_v2.MobileNetV2, "__module__", "keras.src.applications.mobilenet_v2"
    )
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(JobError, match=r"ImageNet weights of MobileNetV2: .* with model.weights=null"):
        factory.get_model("MobileNetV2", 64, "imagenet")


def test_wide_resnet_has_no_imagenet_weights():
    with pytest.raises(UserError, match="model.weights=null"):
        factory.get_model("WideResNet", 64, "imagenet")


def test_imagenet_weights_answer_as_in_keras_own_graph(tmp_path, monkeypatch):
    """Keras' graph for ImageNet weights has one more rescaling; ours folds it into the normalisation."""
    shorten_efficientnets(monkeypatch, "keras")
    rng = np.random.default_rng(0)
    arguments = {"include_top": False, "input_shape": (32, 32, 3), "pooling": "avg"}
    plain = keras.applications.EfficientNetB0(weights=None, **arguments)
    plain.set_weights([rng.uniform(0.5, 1.5, w.shape) * 0.1 for w in plain.get_weights()])
    file = tmp_path / "imagenet.weights.h5"
    plain.save_weights(file)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *args, **kwargs: str(file))
    theirs = keras.applications.EfficientNetB0(weights="imagenet", **arguments)
    assert len(scalings(theirs)) == 3  # the extra rescaling is there

    inputs, features = backbones.build("EfficientNetB0", 32, "imagenet")
    ours = keras.Model(inputs, features)
    assert len(scalings(ours)) == 2
    pixels = random_pixels(32)
    expected = np.asarray(theirs(pixels))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(ours(pixels), expected, rtol=1e-4, atol=1e-6)


def test_wide_resnet_is_depth_16_and_width_8():
    model = factory.get_model("WideResNet", 64)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len([c for c in convolutions if c.kernel_size == (3, 3)]) == 13  # 1 + 3 groups x 2 blocks x 2
    assert [c.filters for c in convolutions if c.kernel_size == (1, 1)] == [128, 256, 512]
    assert not any(layer.use_bias for layer in convolutions)
    assert model.get_layer("pred_age").get_weights()[0].shape == (16 * 16 * 512, 101)
    assert len(model.get_layer("pred_age").get_weights()) == 1


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.9), (100, 0.9), (200, 0.95), (10_000, 0.99)])
def test_batch_norm_momentum_fits_the_steps(steps, momentum):
    assert backbones.batch_norm_momentum(steps) == pytest.approx(momentum)


def test_batch_norm_momentum_reaches_every_layer():
    model = factory.get_model("MobileNetV2", 32)
    backbones.set_batch_norm_momentum(model, 0.9)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 52
    assert {layer.momentum for layer in norms} == {0.9}
    with pytest.raises(UserError, match="got 1.5"):
        backbones.set_batch_norm_momentum(model, 1.5)
