"""WideResNet-16-8 (Zagoruyko & Komodakis, arXiv 1605.07146)."""

import keras
from keras import layers


def wide_resnet(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Build the network on raw values 0..255, without biases.

    A 3x3 convolution with 16 filters, then three groups of two pre-activation blocks with 128, 256 and 512 filters and
    strides 1, 2 and 2, average pooling 8x8 with stride 1, flattened.
    """
    x = _conv(inputs, 16, 3)
    for filters, stride in ((128, 1), (256, 2), (512, 2)):
        x = _wide_block(x, filters, stride)
        x = _wide_block(x, filters, 1)
    x = layers.AveragePooling2D(8, strides=1, padding="same")(_norm_relu(x))
    return layers.Flatten()(x)


def _wide_block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    """Add two 3x3 convolutions and a shortcut; a block that changes the width normalizes before both."""
    changes_width = x.shape[-1] != filters
    activated = _norm_relu(x)
    residual = _conv(activated, filters, 3, stride)
    residual = _conv(_norm_relu(residual), filters, 3)
    shortcut = _conv(activated, filters, 1, stride) if changes_width else x
    return layers.Add()([residual, shortcut])


def _norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def _conv(x: keras.KerasTensor, filters: int, size: int, stride: int = 1) -> keras.KerasTensor:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    return layers.Conv2D(filters, size, stride, **options)(x)
