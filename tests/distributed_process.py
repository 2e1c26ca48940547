"""As `training_process.py`, with a network that compiles within a second, and on as many TensorFlow devices as wanted.

    CPU_DEVICES=2 python tests/distributed_process.py MOMENT OVERRIDE ...

JAX divides the CPU by itself, with `XLA_FLAGS=--xla_force_host_platform_device_count=2`.
"""

import os

import keras
import training_process  # beside this file

from src.models import backbones


def build(model_name, img_size, weights=None, filters=(8, 16)):
    """In the place of `backbones.build`: two convolutions, each with batch norm."""
    inputs = keras.Input((img_size, img_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for count in filters:
        x = keras.layers.Conv2D(count, 3, strides=2, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return inputs, keras.layers.GlobalAveragePooling2D()(x)


def divide_cpu(count: int) -> None:
    import tensorflow as tf

    part = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [part] * count)


if __name__ == "__main__":
    backbones.build = build
    if "CPU_DEVICES" in os.environ:
        divide_cpu(int(os.environ["CPU_DEVICES"]))
    training_process.main()
