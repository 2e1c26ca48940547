"""Load weight files into networks: Keras reads the arrays, after this module has checked that they fit."""

import logging
import math
import warnings
from pathlib import Path

import keras
import numpy as np

from src.cli import UserError, one_line
from src.models.backbones import IMAGENET_STD, finalize_normalization, fold_extra_rescaling
from src.models.weights.hdf5 import SCALING_PREFIX, FileFacts, named_for_keras

EXTRA_RESCALING = tuple(1 / math.sqrt(std) for std in IMAGENET_STD)
"""Factors of R, G, B in the additional rescaling of the EfficientNet that Keras builds with `weights="imagenet"`."""

logger = logging.getLogger(__name__)


def fill(model: keras.Model, path: Path, facts: FileFacts) -> None:
    """Load all weights of a file into a network, or none of them.

    Layers are matched by their order in the graph, which Keras 2 and 3 share; names may differ. Raise `UserError` if
    the file is for another network, or has values that are not finite.
    """
    if facts.arrays != len(model.weights):
        raise UserError(
            f"{path} must have the {len(model.weights)} arrays of {model.name}, got {facts.arrays} of another network"
        )
    check_graph(model, path, facts)
    fold = needs_folding(model, path, facts)
    before = model.get_weights()
    try:
        load_by_keras(model, path, facts)
        check_values(model, path)
    except UserError:
        model.set_weights(before)
        raise
    if fold:
        fold_extra_rescaling(model)
    finalize_normalization(model)


def load_by_keras(model: keras.Model, path: Path, facts: FileFacts) -> None:
    """Let Keras read the arrays; raise `UserError` when they are not those of the network."""
    try:
        with named_for_keras(path, facts) as named, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the error says too
            model.load_weights(named)
    except Exception as error:  # Keras has several readers
        raise UserError(f"{path} is for another network than {model.name}: {one_line(error, 300)}") from error


def check_values(model: keras.Model, path: Path) -> None:
    """Raise `UserError` for weights that are not finite, and for variances below 0."""
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        if not np.isfinite(value).all():
            raise UserError(f"{path}, {variable.path}: weights must be finite, got NaN or infinity")
        if "variance" in variable.name and value.min(initial=0) < 0:
            raise UserError(f"{path}, {variable.path}: variances must be >= 0, got {value.min():g}")


def check_graph(model: keras.Model, path: Path, facts: FileFacts) -> None:
    """Raise `UserError` if the file's graph scales pixels in a way that ours does not support."""
    if scaling_layer(model) is None or facts.has_our_scaling:
        return
    foreign = [name for name in facts.layer_names if name.startswith(("rescaling", "normalization", "tf.", "tf_op"))]
    if foreign:
        raise UserError(
            f"{path} must scale pixels as this project's {model.name} does or not at all, got the layer "
            f"{foreign[0][:80]!r}; save the weights of the network without it"
        )


def scaling_layer(model: keras.Model) -> keras.Layer | None:
    """Return the input scaling layer of this project (`backbones.SCALING`); None if the application scales."""
    return next((layer for layer in model.layers if layer.name.startswith(SCALING_PREFIX)), None)


def without_scaling(model: keras.Model) -> keras.Model:
    """Return the network without its scaling layer, sharing all weights: for files trained on raw values."""
    layer = scaling_layer(model)
    return model if layer is None else keras.Model(layer.output, model.outputs, name=model.name)


def needs_folding(model: keras.Model, path: Path, facts: FileFacts) -> bool:
    """Tell whether a file is for the EfficientNet with the additional rescaling, which our graph does not have."""
    if not any(isinstance(layer, keras.layers.Normalization) and layer.weights for layer in model.layers):
        return False  # no EfficientNet; other networks of Keras keep their mean and variance as constants
    rescalings = [name for name in facts.layer_names if name.startswith(("rescaling", "tf.math.truediv"))]
    if not rescalings:
        logger.warning(
            "%s does not tell whether its EfficientNet was built with Keras' ImageNet weights, which scale "
            "pixels once more; taken as built without",
            path,
        )
    for scale in facts.factors:
        if len(scale) != len(EXTRA_RESCALING) or not np.allclose(scale, EXTRA_RESCALING, rtol=1e-4):
            raise UserError(
                f"{path} must scale pixels as EfficientNet does, got the factors {str(scale)[:80]}; "
                "save the weights of the network without it"
            )
    return len(rescalings) > 1
