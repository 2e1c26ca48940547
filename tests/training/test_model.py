import numpy as np

from src.training.config import Config
from src.training.model import make_model


def test_frozen_layers_keep_their_weights(compose, training_overrides, tiny_network):
    model = make_model(Config.check(compose(*training_overrides, "model.frozen=0.5")), steps_per_epoch=1)
    count = round(0.5 * len(model.layers))
    assert any(layer.weights for layer in model.layers[:count])
    before = [[np.array(weight) for weight in layer.get_weights()] for layer in model.layers]
    rng = np.random.default_rng(0)
    genders, ages = (
        np.eye(2, dtype="float32")[rng.integers(0, 2, 6)],
        np.eye(101, dtype="float32")[rng.integers(0, 101, 6)],
    )
    model.train_on_batch(rng.uniform(0, 255, (6, 32, 32, 3)), (genders, ages))
    changed = [
        any(np.any(old != new) for old, new in zip(weights, layer.get_weights(), strict=True))
        for weights, layer in zip(before, model.layers, strict=True)
    ]
    assert not any(changed[:count])
    assert all(changed[index] for index, layer in enumerate(model.layers) if index >= count and layer.weights)
