"""Matches the layers of a weight file with those of a network and copies the numbers."""

import logging
import math
from pathlib import Path

import keras
import numpy as np

from src.cli import UserError
from src.models.backbones import IMAGENET_STD
from src.models.weights.hdf5 import SCALING_PREFIX, StoredLayer, WeightFile, open_weight_file, read_array

EXTRA_RESCALING = tuple(1 / math.sqrt(std) for std in IMAGENET_STD)
"""Factors of R, G, B in the additional rescaling of the EfficientNet that Keras builds with `weights="imagenet"`."""

logger = logging.getLogger(__name__)


def fill(model: keras.Model, path: Path) -> None:
    """Copies all numbers of a weight file into a network, or none of them.

    Layers are matched by their order in the graph, which Keras 2 and 3 share; names may differ.

    Args:
        model: A network of `factory.get_model`.
        path: A file in one of the layouts of `weights_data`.

    Raises:
        UserError: The file cannot be read, or its layers do not fit the network.
    """
    layers = [layer for layer in model.layers if layer.weights]
    with open_weight_file(path) as file:
        stored = file.layers_with_weights([type(layer).__name__ for layer in model.layers])
        check_layers(model, layers, file, stored)
        check_graph(model, file)
        fold = needs_folding(model, file)
        values = [layer_values(layer, from_file, path) for layer, from_file in zip(layers, stored, strict=True)]
    for layer, arrays in zip(layers, values, strict=True):
        if fold and isinstance(layer, keras.layers.Normalization):
            arrays[1] = fold_extra_rescaling(arrays[1])
        for variable, value in zip(variables(layer), arrays, strict=True):
            variable.assign(value)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy of its variables


def variables(layer: keras.Layer) -> list[keras.Variable]:
    """A layer's variables in the order of weight files."""
    return layer.trainable_weights + layer.non_trainable_weights


def check_layers(model: keras.Model, layers: list[keras.Layer], file: WeightFile, stored: list[StoredLayer]) -> None:
    """Raises `UserError` unless the file has as many layers with as many arrays as the network."""
    if len(stored) != len(layers):
        raise UserError(
            f"expected weights of {model.name}, {len(layers)} layers with numbers, received {file.path} with "
            f"{len(stored)}; it is for another network"
        )
    for layer, from_file in zip(layers, stored, strict=True):
        if len(from_file.arrays) != len(variables(layer)):
            raise UserError(
                f"expected weights of {model.name}, {len(variables(layer))} arrays in layer {layer.name}, received "
                f"{file.path} with {len(from_file.arrays)} in {from_file.name[:80]!r}; it is for another network"
            )


def layer_values(layer: keras.Layer, stored: StoredLayer, path: Path) -> list[np.ndarray]:
    """The numbers of one layer.

    Raises:
        UserError: They do not fit the layer's variables, are not finite, or are variances below 0.
    """
    values = []
    for variable, dataset in zip(variables(layer), stored.arrays, strict=True):
        name = f"{layer.name}/{variable.name}"
        try:
            value = read_array(dataset, tuple(variable.shape), variable.dtype)
        except ValueError as error:
            raise UserError(f"{path} does not fit the network at {name}: {error}; use another file") from error
        if "variance" in variable.name and value.min(initial=0) < 0:
            raise UserError(f"{path} does not fit the network at {name}: expected variances, received values below 0")
        values.append(value)
    return values


def check_graph(model: keras.Model, file: WeightFile) -> None:
    """Raises `UserError` when the file's graph does to pixels what ours cannot repeat, instead of answering wrong."""
    file.refuse_code()
    if scaling_layer(model) is None or file.has_our_scaling:
        return
    foreign = [name for name in file.layer_names if name.startswith(("rescaling", "normalization", "tf.", "tf_op"))]
    if foreign:
        raise UserError(
            f"expected {model.name} with this project's scaling of pixels or without any, received {file.path} with "
            f"{foreign[0][:80]!r}; save the weights of the network without it"
        )


def scaling_layer(model: keras.Model) -> keras.Layer | None:
    """The layer by which this project scales pixels (`backbones.SCALING`); None where the application does it."""
    return next((layer for layer in model.layers if layer.name.startswith(SCALING_PREFIX)), None)


def without_scaling(model: keras.Model) -> keras.Model:
    """The same network behind its scaling layer, sharing all weights: for files trained on raw values."""
    layer = scaling_layer(model)
    return model if layer is None else keras.Model(layer.output, model.outputs, name=model.name)


def needs_folding(model: keras.Model, file: WeightFile) -> bool:
    """Whether a file is for the EfficientNet with the additional rescaling, which our graph has not."""
    if not any(isinstance(layer, keras.layers.Normalization) and layer.weights for layer in model.layers):
        return False  # no EfficientNet; other networks of Keras keep their mean and variance as constants
    rescalings = [name for name in file.layer_names if name.startswith(("rescaling", "tf.math.truediv"))]
    if not rescalings:
        logger.warning(
            "%s does not tell whether its EfficientNet was built with Keras' ImageNet weights, which scale "
            "pixels once more; taken as built without",
            file.path,
        )
    check_factors(file)
    return len(rescalings) > 1


def check_factors(file: WeightFile) -> None:
    """Raises `UserError` when the file's graph scales R, G and B by other factors than Keras' own."""
    for layer in file.config_layers:
        factors = layer["config"].get("scale")
        if isinstance(factors, list) and not np.allclose(np.asarray(factors, float), EXTRA_RESCALING, rtol=1e-4):
            raise UserError(
                f"expected EfficientNet's own scaling of pixels, received {file.path} with the factors "
                f"{str(factors)[:80]}; save the weights of the network without it"
            )


def fold_extra_rescaling(variance: np.ndarray) -> np.ndarray:
    """Variance `(3,)` that normalises as the given one and the additional rescaling do together.

    `(x - mean) / sqrt(variance) / sqrt(std)` is `(x - mean) / sqrt(variance * std)`.
    """
    return (variance.astype(np.float64) * np.asarray(IMAGENET_STD)).astype(variance.dtype)
