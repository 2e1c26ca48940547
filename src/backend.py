"""The one module that touches a backend, for what Keras does not wrap."""

from collections.abc import Callable

import keras
import numpy as np

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def compile_predict(model: keras.Model) -> Predict:
    """A compiled call of a model in inference mode.

    `model.predict` builds a data pipeline at every call, which costs as much as a face in a middle-sized network.

    Args:
        model: From `(batch, size, size, 3)` to two outputs.

    Returns:
        A function from uint8 or float32 arrays of the model's input shape to the two outputs as numpy arrays.
    """
    return {"tensorflow": _compile_tensorflow, "jax": _compile_jax, "torch": _compile_torch}[keras.backend.backend()](
        model
    )


def _compile_tensorflow(model: keras.Model) -> Predict:
    import tensorflow as tf

    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32)]
    call = tf.function(lambda batch: model(batch, training=False), input_signature=signature)
    return lambda batch: tuple(output.numpy() for output in call(tf.cast(batch, tf.float32)))


def _compile_jax(model: keras.Model) -> Predict:
    import jax

    @jax.jit
    def call(trainable, non_trainable, batch):
        return model.stateless_call(trainable, non_trainable, batch, training=False)[0]

    def predict(batch):
        trainable = [variable.value for variable in model.trainable_variables]
        non_trainable = [variable.value for variable in model.non_trainable_variables]
        count = len(batch)
        padded = _pad_to_power_of_two(np.asarray(batch, np.float32))  # every new shape is a new compilation
        return tuple(np.asarray(output)[:count] for output in call(trainable, non_trainable, padded))

    return predict


def _compile_torch(model: keras.Model) -> Predict:
    import torch

    def predict(batch):
        with torch.inference_mode():
            outputs = model(np.asarray(batch, np.float32), training=False)
        return tuple(output.cpu().numpy() for output in outputs)

    return predict


def _pad_to_power_of_two(batch: np.ndarray) -> np.ndarray:
    count = len(batch)
    rows = 1 << max(count - 1, 0).bit_length()
    return np.concatenate([batch, np.zeros((rows - count, *batch.shape[1:]), batch.dtype)])


def sync_state(model: keras.Model) -> None:
    """Brings the model's variables up to the last step; JAX trains on copies of them."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
