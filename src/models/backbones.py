"""Backbones by name: every classification network of `keras.applications`, EfficientNet-Lite, and WideResNet-16-8.

A backbone maps `(batch, size, size, 3)` RGB values in 0..255 to `(batch, features)`. The input scaling that it was
designed for is part of the graph, exactly once.
"""

import difflib
import inspect
import math
from collections.abc import Callable
from functools import cache

import keras
import numpy as np
from keras import layers

from src.cli import JobError, UserError
from src.models import efficientnet_lite
from src.models.weights.info import MAX_SIZE
from src.models.wide_resnet import wide_resnet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB values in 0..1, with which torch-style networks are normalized."""

WIDE_RESNET = "WideResNet"


def scale_caffe(x):
    """Convert RGB 0..255 to BGR around the ImageNet mean, not scaled (VGG, ResNet)."""
    x = keras.ops.flip(x, axis=-1)
    return layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="scale_caffe")(x)


def scale_signed(x):
    """Scale 0..255 to -1..1 (Inception, Xception, MobileNet, MobileNetV2, NASNet, ResNetV2, EfficientNet-Lite)."""
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale_signed")(x)


def scale_torch(x):
    """Scale 0..255 to zero mean and unit variance over ImageNet (DenseNet)."""
    scale = [1 / (255 * std) for std in IMAGENET_STD]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return layers.Rescaling(scale, offset=offset, name="scale_torch")(x)


def scale_inside(x):
    """Return the input unchanged: the network scales it (EfficientNet, EfficientNetV2, ConvNeXt, MobileNetV3)."""
    return x


SCALING: dict[str, Callable] = {
    **dict.fromkeys(("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"), scale_inside),
    **dict.fromkeys(("inception_resnet_v2", "inception_v3", "mobilenet", "mobilenet_v2"), scale_signed),
    **dict.fromkeys(("nasnet", "resnet_v2", "xception"), scale_signed),
    **dict.fromkeys(("resnet", "resnet50", "vgg16", "vgg19"), scale_caffe),
    "densenet": scale_torch,
}
"""Scaling step by the module of `keras.applications` whose networks need it."""

MIN_SIZE = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}
"""Smallest input side by module; 32 for all others."""


@cache
def model_names() -> tuple[str, ...]:
    """Return all names that `build` knows, sorted."""
    applications = keras.applications
    names = [
        name
        for name in dir(applications)
        if name[0].isupper() and "include_top" in inspect.signature(getattr(applications, name)).parameters
    ]
    return tuple(sorted([*names, *efficientnet_lite.SCALES, WIDE_RESNET]))


def family(model_name: str) -> str | None:
    """Return the module of `keras.applications` of a network, such as `efficientnet`; None for other networks."""
    if model_name == WIDE_RESNET or model_name in efficientnet_lite.SCALES:
        return None
    return getattr(keras.applications, model_name).__module__.rsplit(".", 1)[-1]


def check_name(model_name: str) -> None:
    """Raise `UserError`, with the closest known names, unless `build` knows `model_name`."""
    names = model_names()
    if model_name not in names:
        lower = {name.lower(): name for name in names}
        near = difflib.get_close_matches(str(model_name).lower(), lower, n=3, cutoff=0.5)
        nearest = ", ".join(lower[name] for name in near) or ", ".join(names)
        raise UserError(
            f"model.model_name must be a network of keras.applications, EfficientNetLite0..2 or {WIDE_RESNET}, "
            f"got {model_name!r}; the nearest are {nearest}"
        )


def check_size(model_name: str, img_size: int) -> None:
    """Raise `UserError` if the network, or a weight file, does not support `img_size` pixels."""
    smallest = MIN_SIZE.get(family(model_name) or "", 32)
    if img_size < smallest:
        raise UserError(f"model.img_size must be >= {smallest} for {model_name}, got {img_size}")
    if img_size > MAX_SIZE:
        raise UserError(f"model.img_size must be <= {MAX_SIZE}, got {img_size}")


def build(model_name: str, img_size: int, weights: str | None = None) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Build a backbone with its input scaling.

    Args:
        model_name: One of `model_names()`.
        img_size: Side of the square input, pixels.
        weights: None (random) or "imagenet" (downloaded by Keras unless in its cache; those of EfficientNet-Lite
            come from a package).

    Returns:
        The input `(batch, img_size, img_size, 3)`, RGB 0..255, and the features `(batch, features)`.

    Raises:
        UserError: Unknown name, size too small, or no ImageNet weights for this network.
        JobError: The ImageNet weights could not be downloaded, or their package is missing.
    """
    check_name(model_name)
    check_size(model_name, img_size)
    inputs = keras.Input((img_size, img_size, 3), name="image")
    if model_name in efficientnet_lite.SCALES:
        features = efficientnet_lite.efficientnet_lite(scale_signed(inputs), model_name)
        if weights is not None:
            efficientnet_lite.load_imagenet(keras.Model(inputs, features), model_name)
        return inputs, features
    if model_name == WIDE_RESNET:
        if weights is not None:
            raise UserError(f"{WIDE_RESNET} has no ImageNet weights; use model.weights=null")
        return inputs, wide_resnet(inputs)
    scale = SCALING[family(model_name) or ""]
    network = _application(model_name, img_size, weights, input_tensor=scale(inputs))
    return inputs, network.output


def _application(model_name: str, img_size: int, weights: str | None, input_tensor=None) -> keras.Model:
    constructor = getattr(keras.applications, model_name)
    arguments = {"include_top": False, "input_shape": (img_size, img_size, 3), "pooling": "avg"}
    network = constructor(weights=None, input_tensor=input_tensor, **arguments)
    if weights is not None:
        network.set_weights(_download(constructor, weights, arguments).get_weights())
    if family(model_name) == "efficientnet":
        if weights is None:
            _set_normalization(network, np.array(IMAGENET_MEAN), np.array(IMAGENET_STD) ** 2)
        else:
            fold_extra_rescaling(network)
    return network


def _download(constructor: Callable, weights: str, arguments: dict) -> keras.Model:
    try:
        return constructor(weights=weights, **arguments)
    except Exception as error:  # URLError, timeouts, wrong hashes: they have no common class
        raise JobError(
            f"could not download the ImageNet weights of {constructor.__name__}: "
            f"{str(error).strip() or type(error).__name__}; check the network, or train from random weights with "
            "model.weights=null"
        ) from error


def fold_extra_rescaling(network: keras.Model) -> None:
    """Fold the additional rescaling of Keras' EfficientNet for ImageNet weights, by 1 / sqrt(std), into the variance.

    `(x - mean) / sqrt(variance) / sqrt(std)` is `(x - mean) / sqrt(variance * std)`.
    """
    mean, variance = (keras.ops.convert_to_numpy(value) for value in _normalization(network).weights[:2])
    _set_normalization(network, mean, variance * np.array(IMAGENET_STD))


def _normalization(network: keras.Model) -> layers.Normalization:
    return next(layer for layer in network.layers if isinstance(layer, layers.Normalization))


def _set_normalization(network: keras.Model, mean: np.ndarray, variance: np.ndarray) -> None:
    """Set the statistics of EfficientNet's normalization of RGB values in 0..1; shapes `(3,)`."""
    layer = _normalization(network)
    count = [np.zeros(weight.shape, weight.dtype) for weight in layer.weights[2:]]
    layer.set_weights([mean, variance, *count])
    layer.finalize_state()


def finalize_normalization(model: keras.Model) -> None:
    """Finalize EfficientNet's normalization after a model's variables were set: it computes with a copy of them."""
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def batch_norm_momentum(steps_per_epoch: int) -> float:
    """Return the momentum that averages over about a tenth of an epoch, within 0.9..0.99.

    Keras' applications average over 100 to 1,000 steps; in a short training these statistics lag behind the weights.
    """
    return min(max(1 - 10 / max(steps_per_epoch, 1), 0.9), 0.99)


def set_batch_norm_momentum(model: keras.Model, momentum: float) -> None:
    """Set the momentum of every batch normalization of a model, before it is compiled."""
    if not (0 <= momentum < 1 and math.isfinite(momentum)):
        raise UserError(f"train.batch_norm_momentum must be >= 0 and < 1, got {momentum}")
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum
