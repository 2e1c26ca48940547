"""Averaged weights: validated and written in the place of the weights that training continues with."""

from contextlib import contextmanager, nullcontext

import keras

from src.models import moving_average, sync_state


class WeightAverage(keras.callbacks.Callback):
    """Exponential moving average of all weights, batch norm statistics included (Polyak & Juditsky, 1992).

    Validation and weight files use the averages, training continues with the weights. The first steps average over
    fewer: the decay of step t is at most (1 + t) / (10 + t).
    """

    def __init__(self, model: keras.Model, decay: float):
        super().__init__()
        self.decay = decay
        self._weights = [w for w in model.weights if "float" in w.dtype]
        # Through numpy: on TensorFlow a variable made from a variable's value shares its memory.
        self._averages = [
            keras.Variable(keras.ops.convert_to_numpy(weight), trainable=False, name=f"average_{i}")
            for i, weight in enumerate(self._weights)
        ]
        self._moving = moving_average(model, self._weights, self._averages)
        self._step = None
        self._applied = nullcontext()

    @property
    def shadow(self) -> list[keras.Variable]:
        """The averages, in the order of the weights."""
        self._moving.sync()
        return self._averages

    def on_train_batch_end(self, batch, logs=None):
        if self._step is None:  # later steps are counted: asking the optimizer is waiting for the device
            sync_state(self.model)
            self._step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        else:
            self._step += 1
        self._moving.step(min(self.decay, (1 + self._step) / (10 + self._step)))

    def on_test_begin(self, logs=None):
        sync_state(self.model)
        self._applied = self.applied()
        self._applied.__enter__()

    def on_test_end(self, logs=None):
        self._applied.__exit__(None, None, None)

    @contextmanager
    def applied(self):
        """Give the model the averages for weights, for the time of a `with` block."""
        kept = [keras.ops.copy(weight.value) for weight in self._weights]
        try:
            for weight, average in zip(self._weights, self.shadow, strict=True):
                weight.assign(keras.ops.copy(average.value))  # JAX's steps consume the arrays that they are given
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=True):
                weight.assign(value)
