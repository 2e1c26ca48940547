import keras
import numpy as np
import pytest

from src.cli import Progress
from src.training.callbacks import StepBar, StepCallbacks


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(("train", batch, logs))

    def on_test_batch_end(self, batch, logs=None):
        self.steps.append(("test", batch, logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs)


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="zeros")(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    return model


def test_steps_give_no_metrics_and_epochs_the_right_ones(model):
    """Metrics of a step are numbers of the host, which waits for the device to get them. The loss is 1 in every row."""
    recorder = Recorder()
    x, y = np.zeros((6, 1)), np.ones((6, 1))
    steps = {"verbose": 0, "epochs": 1, "steps": 3}
    callbacks = StepCallbacks([recorder], add_history=True, model=model, **steps)
    model.fit(x, y, batch_size=2, validation_data=(x[:2], y[:2]), callbacks=callbacks, verbose=0)
    assert [(kind, logs) for kind, _, logs in recorder.steps] == [("train", None)] * 3 + [("test", None)]
    assert recorder.epochs[0]["loss"] == pytest.approx(1)
    assert recorder.epochs[0]["val_loss"] == pytest.approx(1)


def test_the_steps_are_counted_and_a_log_gets_a_line_a_minute(monkeypatch, capsys):
    monkeypatch.setattr(Progress, "LINE_EVERY", 0.0)  # every step is a minute late
    bar = StepBar(4, 2)
    bar.on_epoch_begin(6)
    for step in range(3):
        bar.on_train_batch_end(step)
    assert (bar._bar.total, bar._bar.n) == (4, 3)
    bar.on_test_begin()
    bar.on_test_batch_end(0)
    assert (bar._bar.total, bar._bar.n) == (2, 1)
    bar.on_epoch_end(6)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("epoch 7: 3 of 4 steps, ") and line.endswith(" left") for line in lines)
    assert any(line.startswith("validation: 1 of 2 steps, ") for line in lines)
