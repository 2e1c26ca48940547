"""The one module that touches a backend, for what Keras does not wrap."""

import contextlib
import functools
from collections.abc import Callable

import keras
import numpy as np

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def compile_predict(model: keras.Model) -> Predict:
    """Compile a model from `(batch, size, size, 3)`, uint8 or float32, to two numpy arrays for inference.

    `model.predict` builds a data pipeline at every call, which takes as long as a face in a medium network.
    `model.predict_on_batch` compiles anew for other batch sizes, and TensorFlow's is slower where these change.
    """
    compilers = {"tensorflow": _compile_tensorflow, "jax": _compile_jax, "torch": _compile_torch}
    return compilers[keras.backend.backend()](model)


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
    """Update the model's variables to the last step; JAX trains on copies of them."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


# ------------------------------------------------------------------------------------------------------------ training


def sixteen_bit_type() -> str:
    """Choose the fast 16-bit type of the device: "float16" on GPUs older than NVIDIA's Ampere, else "bfloat16".

    bfloat16 has the range of float32; float16 has not, so Keras scales the loss there.
    """
    capability = {"tensorflow": _capability_tensorflow, "jax": _capability_jax, "torch": _capability_torch}
    return "float16" if capability[keras.backend.backend()]() < (8, 0) else "bfloat16"


_NO_GPU = (99, 0)


def _capability_tensorflow() -> tuple[int, int]:
    """Return NVIDIA's compute capability of the first GPU; `_NO_GPU` for other devices."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", _NO_GPU) if gpus else _NO_GPU


def _capability_jax() -> tuple[int, int]:
    import jax

    capability = getattr(jax.local_devices()[0], "compute_capability", None)  # "9.0"; other devices have none
    if not capability:
        return _NO_GPU
    major, minor = map(int, capability.split("."))
    return major, minor


def _capability_torch() -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else _NO_GPU


class MovingAverage:
    """Move averages towards the weights of a model in training, with one asynchronous compiled call per step.

    Args:
        model: In training.
        weights: Those of its variables that are averaged.
        averages: Variables of the same shapes; between `sync` and the next `step` they hold the averages.
    """

    def __init__(self, model: keras.Model, weights: list[keras.Variable], averages: list[keras.Variable]):
        self._model, self._weights, self._averages = model, weights, averages

    def step(self, decay: float) -> None:
        """`average = decay * average + (1 - decay) * weight` for all of them."""
        raise NotImplementedError

    def sync(self) -> None:
        """Update the variables of the averages to the last step."""


def moving_average(model: keras.Model, weights: list[keras.Variable], averages: list[keras.Variable]) -> MovingAverage:
    """Create the `MovingAverage` of the backend."""
    kinds = {"tensorflow": _AverageTensorflow, "jax": _AverageJax, "torch": _AverageTorch}
    return kinds[keras.backend.backend()](model, weights, averages)


class _AverageTensorflow(MovingAverage):
    def __init__(self, model, weights, averages):
        super().__init__(model, weights, averages)
        import tensorflow as tf

        @tf.function(jit_compile=model.jit_compile)
        def move(share):
            for average, weight in zip(averages, weights, strict=True):
                average.assign(average.value + share * (weight.value - average.value))

        self._move = lambda decay: move(tf.constant(1 - decay, tf.float32))

    def step(self, decay):
        self._move(decay)


class _AverageTorch(MovingAverage):
    def step(self, decay):
        import torch

        with torch.no_grad():
            averages, weights = ([variable.value for variable in part] for part in (self._averages, self._weights))
            torch._foreach_lerp_(averages, weights, 1 - decay)


class _AverageJax(MovingAverage):
    """Keep the averages as plain arrays from the first step to `sync`, like Keras' trainer does with the weights."""

    def __init__(self, model, weights, averages):
        super().__init__(model, weights, averages)
        import jax

        @functools.partial(jax.jit, donate_argnums=0)
        def move(averages, weights, share):
            return [average + share * (weight - average) for average, weight in zip(averages, weights, strict=True)]

        self._move = move
        self._arrays = None
        places = {
            id(variable): (kind, place)
            for kind in ("trainable_variables", "non_trainable_variables")
            for place, variable in enumerate(getattr(model, kind))
        }
        self._places = [places[id(weight)] for weight in weights]

    def step(self, decay):
        if self._arrays is None:
            self._arrays = [average.value for average in self._averages]
        state = getattr(self._model, "_jax_state", None)  # what a step has left; the variables are empty meanwhile
        values = [state[kind][place] for kind, place in self._places] if state else [w.value for w in self._weights]
        self._arrays = self._move(self._arrays, values, np.float32(1 - decay))

    def sync(self):
        if self._arrays is not None:
            for average, value in zip(self._averages, self._arrays, strict=True):
                average.assign(value)
            self._arrays = None


# --------------------------------------------------------------------------------------- several devices and processes


def device_names() -> list[str]:
    """List the devices that TensorFlow or torch can train on: all GPUs, or the CPU (TensorFlow may know several)."""
    if keras.backend.backend() == "torch":
        import torch

        return ["cuda:0" if torch.cuda.is_available() else "cpu"]
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def mirrored_scope(devices: list[str]) -> contextlib.AbstractContextManager:
    """Return the scope of TensorFlow's MirroredStrategy; models created and trained in it use all devices."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices).scope()


def join_processes(
    coordinator: str | None, processes: int | None, process_id: int | None, heartbeat_seconds: int
) -> tuple[int, int]:
    """Connect this process with the others of a training (JAX); a process that ends takes the others with it.

    Args:
        coordinator: `HOST:PORT` of process 0; `None`, as for the next two: what Slurm or Open MPI say.
        processes: Number of processes.
        process_id: Number of this one, from 0.
        heartbeat_seconds: A process that is silent for so long counts as ended.

    Returns:
        The number of processes, and this one's.
    """
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM from `src.cli`
    jax.distributed.initialize(
        coordinator,
        processes,
        process_id,
        cluster_detection_method=None if processes is None else "deactivate",
        heartbeat_timeout_seconds=heartbeat_seconds,
    )
    return jax.process_count(), jax.process_index()


def local_device_count() -> int:
    """Return the number of JAX devices of this process."""
    import jax

    return jax.local_device_count()


def gather(array: np.ndarray) -> np.ndarray:
    """Gather arrays of equal shape from all processes (JAX): `(processes, ...)`."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array)


def broadcast(array: np.ndarray) -> np.ndarray:
    """Return the array of process 0 in all processes (JAX); shapes and types must be equal."""
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(array)
