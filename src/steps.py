"""What happens at every step of a training, without waiting for the device."""

import keras
from tqdm import tqdm


class StepCallbacks(keras.callbacks.CallbackList):
    """Keras' list of callbacks, which gives them no figures of single steps.

    Keras' own turns the figures of every step into Python numbers. For that the host waits until the device has done
    the step, and then the device waits for the host.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Tells each callback that a step was sent to the device."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch)

    def on_test_batch_end(self, batch, logs=None):
        """Tells each callback that a step of validation was sent to the device."""
        for callback in self.callbacks:
            callback.on_test_batch_end(batch)


class StepBar(keras.callbacks.Callback):
    """A bar over the steps of an epoch on a terminal; its figures stand in the line after the epoch."""

    def __init__(self, steps: int):
        super().__init__()
        self._steps = steps

    def on_epoch_begin(self, epoch, logs=None):
        """Begins a bar."""
        self._bar = tqdm(total=self._steps, unit="step", disable=None, leave=False)

    def on_train_batch_end(self, batch, logs=None):
        """Moves it."""
        self._bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Clears it away."""
        self._bar.close()
