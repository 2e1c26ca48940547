"""Trains a tiny model and tells which batches each step really got; run as a script for other backends."""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import pandas as pd
from keras import ops

from src.training.callbacks import EpochSetter
from src.training.generator import BatchSettings, ImageSequence

EPOCHS = 3
STEPS = 8


@keras.saving.register_keras_serializable("tests")
class RecordedAge(keras.metrics.Metric):
    """The mean age of every batch of an epoch, in order, `(STEPS,)`."""

    def __init__(self, name="recorded"):
        super().__init__(name=name)
        self.ages = self.add_weight(shape=(STEPS,), initializer="zeros", name="ages")
        self.step = self.add_weight(shape=(), initializer="zeros", name="step")

    def update_state(self, y_true, y_pred, sample_weight=None):
        mean = ops.mean(ops.cast(ops.argmax(y_true, axis=-1), "float32"))
        place = ops.one_hot(ops.cast(ops.convert_to_tensor(self.step), "int32"), STEPS)
        self.ages.assign(self.ages + mean * place)
        self.step.assign(self.step + 1)

    def result(self):
        return self.ages + 0

    def reset_state(self):
        self.ages.assign(ops.zeros((STEPS,)))
        self.step.assign(0.0)


def make_table(count=22):
    return pd.DataFrame(
        {
            "path": [f"faces.mat[{row}]" for row in range(count)],
            "gender": [float(row % 2) for row in range(count)],
            "age": [float(row) for row in range(count)],
            "margin": 0.1,
            "image": [np.full((8, 8, 3), 10 * row % 256, np.uint8) for row in range(count)],
        }
    )


@cache
def make_model() -> keras.Model:
    """One for all cases: it is compiled once, and no record depends on its weights."""
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    heads = [keras.layers.Dense(2, "softmax", name="pred_gender"), keras.layers.Dense(101, "softmax", name="pred_age")]
    model = keras.Model(inputs, [head(flat) for head in heads])
    model.compile("sgd", loss="categorical_crossentropy", metrics={"pred_age": [RecordedAge()]})
    return model


def record_epochs(initial_epoch=0, workers=0, **settings):
    """Fits `EPOCHS` epochs with validation.

    Returns:
        `(training, validation, expected)`, each a list of the mean ages of the batches for every epoch.
    """
    table = make_table()
    common = {"img_size": 8, "batch_size": 4, "margin": 0.1, **settings}
    sequence = ImageSequence(table, BatchSettings(**common, shuffle=True, seed=3), workers=workers)
    model = make_model()
    history = model.fit(
        sequence,
        validation_data=ImageSequence(table, BatchSettings(**common), workers=workers),
        initial_epoch=initial_epoch,
        epochs=initial_epoch + EPOCHS,
        callbacks=[EpochSetter(sequence)],
        shuffle=False,
        verbose=0,
    ).history
    got = [[np.array(row)[: len(sequence)].tolist() for row in history[k + "pred_age_recorded"]] for k in ("", "val_")]
    ages = table["age"].to_numpy()
    expected = [
        [float(ages[sequence.rows(initial_epoch + epoch, index)].mean()) for index in range(len(sequence))]
        for epoch in range(EPOCHS)
    ]
    return *got, expected


CASES = (
    {"workers": 0},
    {"workers": 1},
    {"workers": 2},
    {"workers": 2, "initial_epoch": 5},
    {"workers": 2, "steps": 3},
)

if __name__ == "__main__":
    print(json.dumps([keras.backend.backend(), [record_epochs(**case) for case in CASES]]))
