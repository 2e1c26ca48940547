"""The functions of the default backend; those of several processes and other backends: `test_distribution.py`."""

import ast
import sys

import keras
import numpy as np
import pytest

from src.cli import ROOT
from src.models import backend

BACKENDS = {"tensorflow", "jax", "torch"}
ALLOWED = {
    "src/models/backend.py": BACKENDS,
    "src/models/efficientnet_lite.py": {"torch"},  # reads a weight file that PyTorch wrote; nothing is computed with it
    "src/models/export.py": {"tensorflow"},  # the runtime of the format SavedModel, as ONNX Runtime is that of ONNX
}
"""Who may import what. What is not `src/models/backend.py` reads a foreign format, whatever backend Keras has."""


def imported_backends(path) -> set[str]:
    """The backends that a file imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found & BACKENDS


def test_nothing_outside_the_one_module_imports_a_backend():
    files = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): imported_backends(path) for path in files}
    assert {name: names for name, names in found.items() if names} == ALLOWED


def test_no_backend_is_imported_at_the_top_of_a_file():
    """Else `KERAS_BACKEND=jax` would load two."""
    for name in ALLOWED:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not top & BACKENDS


@pytest.fixture
def model() -> keras.Model:
    """Of `(batch, 2, 2, 3)`: the sum of all values, and the highest."""
    inputs = keras.Input((2, 2, 3))
    flat = keras.layers.Flatten()(inputs)
    total = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(flat)
    return keras.Model(inputs, [total, keras.ops.max(flat, axis=1, keepdims=True)])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_compiled_predict(model, dtype):
    predict = backend.compile_predict(model)
    for count in (1, 3):  # the same function for any number of rows
        batch = np.arange(count * 12, dtype=dtype).reshape(count, 2, 2, 3)
        total, highest = predict(batch)
        assert isinstance(total, np.ndarray)
        np.testing.assert_allclose(total, batch.reshape(count, 12).sum(axis=1, keepdims=True, dtype=float))
        np.testing.assert_allclose(highest, batch.reshape(count, 12).max(axis=1, keepdims=True))


def test_padding_to_powers_of_two():
    assert [len(backend._pad_to_power_of_two(np.ones((n, 2)))) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 8]
    np.testing.assert_array_equal(backend._pad_to_power_of_two(np.ones((3, 1)))[:, 0], [1, 1, 1, 0])


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_sixteen_bit_type_follows_the_gpu(monkeypatch, capability, expected):
    """7.5: Turing; 8.0: Ampere; 9.0: Hopper."""
    monkeypatch.setattr(backend, f"_capability_{keras.backend.backend()}", lambda: capability)
    assert backend.sixteen_bit_type() == expected


def test_a_cpu_has_bfloat16():
    assert backend.sixteen_bit_type() == "bfloat16"


def test_moving_average_by_hand():
    """Decay 0.75: 0.75 * 1 + 0.25 * 5 = 2, then 0.75 * 2 + 0.25 * 6 = 3; the weights stay."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.compile("sgd")
    average = keras.Variable(np.ones((1, 1), np.float32), trainable=False)
    moving = backend.moving_average(model, model.weights, [average])
    for value in (5.0, 6.0):
        model.weights[0].assign([[value]])
        moving.step(0.75)
    moving.sync()
    assert float(keras.ops.convert_to_numpy(average)[0, 0]) == pytest.approx(3)
    assert model.get_weights()[0][0, 0] == 6


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on JAX keras.distribution names the devices")
def test_there_is_a_device():
    names = backend.device_names()
    assert len(names) >= 1
    assert all("cpu" in name.lower() or "cuda" in name or "gpu" in name.lower() for name in names)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_mirrored_scope_divides_among_its_devices():
    with backend.mirrored_scope(backend.device_names()[:1]):
        assert sys.modules["tensorflow"].distribute.get_strategy().num_replicas_in_sync == 1
