"""Makes weight files of other programs for the tests: of Keras 2, of Keras 3 without our description."""

import contextlib
import importlib
import warnings
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest

AGES = np.arange(101.0)


def random_images(size: int, count: int = 4) -> np.ndarray:
    """Up to 16 coarse random patterns `(count, size, size, 3)`, float32 whole values 0..255."""
    coarse = np.random.default_rng(3).integers(0, 256, (16, 4, 4, 3))
    return np.kron(coarse, np.ones((1, size // 4, size // 4, 1)))[:count].astype(np.float32)


def randomize(model) -> None:
    """Gives a network of Keras 2 or 3 weights under which different images get clearly different outputs."""
    rng = np.random.default_rng(5)
    for layer in model.layers:
        names = [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
        values = zip(names, layer.get_weights(), strict=True)
        layer.set_weights([random_like(name, value, rng) for name, value in values])
        if "normalization" in layer.name and hasattr(layer, "finalize_state"):
            layer.finalize_state()
    settle_batch_norm(model)


def settle_batch_norm(model) -> None:
    """Sets all running statistics by 16 images, so that signals neither die nor explode on their way.

    All channels of a layer get the same variance: rare ones would be amplified, and with them the rounding. Without
    dropout, which would make other statistics each time.
    """
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    with contextlib.ExitStack() as stack:
        for layer in norms:
            stack.enter_context(mock.patch.object(layer, "momentum", 0.0))
        for layer in model.layers:
            if hasattr(layer, "rate"):
                stack.enter_context(mock.patch.object(layer, "rate", 0.0))
        model(random_images(model.inputs[0].shape[1], 16), training=True)
    for layer in norms:
        *others, variance = layer.get_weights()
        layer.set_weights([*others, np.full_like(variance, variance.mean())])


def random_like(name: str, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "mean":
        return np.array([0.485, 0.456, 0.406], value.dtype)
    if name == "variance":
        return np.array([0.229, 0.224, 0.225], value.dtype) ** 2
    if name == "count":
        return value
    if "variance" in name or name == "gamma":
        return rng.uniform(0.7, 1.3, value.shape).astype(value.dtype)
    if name in ("beta", "moving_mean", "bias"):
        return rng.normal(0, 0.1, value.shape).astype(value.dtype)
    fan_in = np.prod(value.shape[:2] if name == "depthwise_kernel" else value.shape[:-1])
    return rng.normal(0, fan_in**-0.5, value.shape).astype(value.dtype)


def shorten_efficientnets(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Leave EfficientNetB0 five of its sixteen blocks, in which every kind of layer occurs.

    Args:
        packages: "keras", "tf_keras".
    """
    for package in packages:
        module = importlib.import_module(f"{package}.src.applications.efficientnet")
        monkeypatch.setattr(module, "DEFAULT_BLOCKS_ARGS", module.DEFAULT_BLOCKS_ARGS[:3])


def shorten_mobilenets(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Leave MobileNetV2 four of its seventeen blocks and MobileNetV3Small six of eleven: those of different kinds.

    Args:
        packages: "keras", "tf_keras".
    """
    for package in packages:
        for name, kept in (("mobilenet_v2", {0, 1, 2, 3}), ("mobilenet_v3", {0, 1, 2, 3, 4, 8})):
            module = importlib.import_module(f"{package}.src.applications.{name}")
            monkeypatch.setattr(module, "_inverted_res_block", only_blocks(kept, module._inverted_res_block))


def only_blocks(kept: set[int], add_block):
    def add_or_skip(x, *args, **kwargs):
        number = kwargs["block_id"] if kwargs else args[-1]
        return add_block(x, *args, **kwargs) if number in kept else x

    return add_or_skip


def shorten_resnets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave ResNet50 of Keras 3 two blocks in each of its four stages, with an eighth of their filters."""
    module = importlib.import_module("keras.src.applications.resnet")
    stack = module.stack_residual_blocks_v1
    short = lambda x, filters, blocks, **kwargs: stack(x, filters // 8, 2, **kwargs)  # noqa: E731
    monkeypatch.setattr(module, "stack_residual_blocks_v1", short)


def heads(package, features, use_bias: bool = True):
    """The two softmax heads of either Keras on features `(batch, n)`."""
    return [
        package.layers.Dense(classes, activation="softmax", use_bias=use_bias, name=name)(features)
        for name, classes in (("pred_gender", 2), ("pred_age", 101))
    ]


def application(package, name: str, size: int, age_classes: int = 101):
    """A network of `keras.applications` with our heads and no scaling of ours, in Keras 2 or 3."""
    base = getattr(package.applications, name)(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    gender, age = heads(package, base.output)
    if age_classes != 101:
        age = package.layers.Dense(age_classes, activation="softmax", name="ages")(base.output)
    model = package.Model(base.input, [gender, age])
    randomize(model)
    return model


def wide_resnet(package, depth: int = 16, width: int = 8):
    """WideResNet-16-8 for 64 pixels as the published files have it (Zagoruyko & Komodakis, arXiv 1605.07146)."""
    layers = package.layers

    def convolve(x, filters, side, stride=1):
        return layers.Conv2D(filters, side, strides=stride, padding="same", use_bias=False)(x)

    def activate(x):
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    def block(x, filters, stride):
        widens = int(x.shape[-1]) != filters
        if widens:
            x = activate(x)
            branch = convolve(x, filters, 3, stride)
        else:
            branch = convolve(activate(x), filters, 3, stride)
        branch = convolve(activate(branch), filters, 3)
        shortcut = convolve(x, filters, 1, stride) if widens else x
        return layers.Add()([branch, shortcut])

    inputs = layers.Input((64, 64, 3))
    x = convolve(inputs, 16, 3)
    for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for number in range((depth - 4) // 6):
            x = block(x, filters, stride if number == 0 else 1)
    x = layers.AveragePooling2D(8, strides=1, padding="same")(activate(x))
    model = package.Model(inputs, heads(package, layers.Flatten()(x), use_bias=False))
    randomize(model)
    for layer in model.layers[-2:]:  # averages over 8x8 pixels are much alike
        layer.set_weights([value * 10 for value in layer.get_weights()])
    return model


def outputs(model, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Male or female probabilities `(n, 2)` and ages `(n,)` of a network of either Keras."""
    gender, age = (np.asarray(output) for output in model(values, training=False))
    return gender, age.astype(np.float64) @ AGES


def save(model, path: Path) -> Path:
    """Saves by either Keras without its advice against older layouts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.endswith((".weights.h5", ".only.h5")):
            model.save_weights(path)
        elif path.suffix == ".keras":
            model.save(path)
        else:
            model.save(path, include_optimizer=False)
    return path


def keras2():
    """Keras 2 as a package beside Keras 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras
    return tf_keras


def keras_imagenet_efficientnet(monkeypatch: pytest.MonkeyPatch, folder: Path, size: int = 32) -> keras.Model:
    """Keras' own EfficientNetB0 as `weights="imagenet"` builds it, with our heads; its download is a file of ours."""
    file = folder / "imagenet.weights.h5"
    arguments = {"include_top": False, "input_shape": (size, size, 3), "pooling": "avg"}
    keras.applications.EfficientNetB0(weights=None, **arguments).save_weights(file)
    monkeypatch.setattr("keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(file))
    base = keras.applications.EfficientNetB0(weights="imagenet", **arguments)
    model = keras.Model(base.input, heads(keras, base.output))
    randomize(model)
    base.save_weights(file)
    return model
