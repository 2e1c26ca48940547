"""Exported networks give the same outputs in their own runtimes, or there is no file."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from strange_files import random_images, randomize, shorten_efficientnets, shorten_mobilenets

from src.cli import ROOT, JobError, UserError
from src.models import efficientnet_lite, export as exporting, weights
from src.models.export import FORMATS, export_beside, export_model
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo
from src.models.weights.store import save_weights

OUTPUTS = {"onnx": "a.onnx", "litert": "a.tflite", "openvino": "a.xml", "saved_model": "a"}
LEFT_BEHIND = {"onnx": ["a.onnx"], "litert": ["a.tflite"], "openvino": ["a.bin", "a.xml"], "saved_model": ["a"]}


def folder_of(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def small_model(offset: float = 0.0) -> keras.Model:
    """A network for 16 pixels with the layers that exporters are known to lose something of; its input has no name."""
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Normalization(name="normalization")(layers.Rescaling(1 / 255)(inputs))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="same")(x))
    x = layers.Activation("silu")(x)
    x = layers.Activation("gelu")(layers.DepthwiseConv2D(3)(x))
    x = layers.Activation("gelu")(layers.Conv2D(8, 3, groups=8)(x))
    x = layers.GlobalAveragePooling2D()(x)
    gender = layers.Dense(2, activation="softmax", name="pred_gender")(x)
    age = layers.Dense(101, activation="softmax", name="pred_age")(x)
    model = keras.Model(inputs, [gender, age])
    randomize(model)
    head = model.get_layer("pred_age")
    head.set_weights([head.get_weights()[0], head.get_weights()[1] + offset * np.arange(101)])
    return model


@pytest.fixture
def small(monkeypatch):
    """`small(offset=..., colour=...)` makes all weight files those of `small_model` with such a description."""

    def pretend(offset: float = 0.0, **info) -> keras.Model:
        model = small_model(offset)
        loaded = model, WeightsInfo("MobileNetV2", 16, 0.1, **info)
        monkeypatch.setattr(weights, "load_model", lambda _: loaded)
        return model

    return pretend


def assert_rgb_and_female_first(received, model: keras.Model, images: np.ndarray, bgr: bool, male_first: bool):
    """Compares an exported network's outputs to RGB images with those of the model that it was made of."""
    gender, age = (np.asarray(output) for output in model(images[..., ::-1] if bgr else images, training=False))
    assert np.ptp(gender[:, 0]) > 0.01, "the images must tell networks apart"
    np.testing.assert_allclose(received[0], gender[:, ::-1] if male_first else gender, atol=1e-4)
    np.testing.assert_allclose(received[1], age, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form", "description"),
    [
        ("EfficientNetB0", "onnx", {"colour": "BGR", "gender_order": ("male", "female")}),
        ("EfficientNetB0", "litert", {"gender_order": ("male", "female")}),
        ("EfficientNetB0", "openvino", {"colour": "BGR"}),
        ("MobileNetV2", "onnx", {}),
        ("EfficientNetLite0", "litert", {"colour": "BGR"}),
        ("EfficientNetLite0", "openvino", {}),
    ],
)
def test_networks_answer_in_their_own_runtime(name, form, description, tmp_path, monkeypatch, in_this_process):
    shorten_efficientnets(monkeypatch, "keras")
    shorten_mobilenets(monkeypatch, "keras")
    monkeypatch.setattr(efficientnet_lite, "STAGES", efficientnet_lite.STAGES[:3])
    model = get_model(name, 32)
    randomize(model)
    for head in model.layers[-2:]:  # calm heads: rounding, not chance, is what is compared
        head.set_weights([0.2 * value for value in head.get_weights()])
    file = save_weights(model, tmp_path / "weights" / "a.hdf5", WeightsInfo(name, 32, 0.25, **description))
    output = tmp_path / "new" / OUTPUTS[form]
    line = export_model(file, form, output)
    assert line.startswith(f"{output}: {name}, float32 (n, 32, 32, 3) RGB 0..255, face crops with margin 0.25")
    assert folder_of(output.parent) == LEFT_BEHIND[form]
    bgr, male_first = description.get("colour") == "BGR", "gender_order" in description
    assert_rgb_and_female_first(FORMATS[form].run(output, random_images(32)), model, random_images(32), bgr, male_first)
    assert [value.shape for value in FORMATS[form].run(output, random_images(32, 1))] == [(1, 2), (1, 101)]
    if form == "onnx":
        told = weights.identify(output)
        assert told == dataclasses.replace(weights.identify(file), colour="RGB", gender_order=("female", "male"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_better_network_replaces_the_older_one(form, small, tmp_path):
    output = tmp_path / OUTPUTS[form]
    for offset in (0.0, 0.1):
        model = small(offset)
        export_model("any", form, output)
        values = random_images(16)
        assert_rgb_and_female_first(FORMATS[form].run(output, values), model, values, False, False)
        assert folder_of(tmp_path) == LEFT_BEHIND[form]


def lose_normalization(monkeypatch):
    """An exporter that drops mean and variance, as Keras 3.15 does on the way to ONNX."""
    monkeypatch.setattr(exporting, "as_rescaling", lambda layer: keras.layers.Rescaling(1.0, name=layer.name))


@pytest.mark.parametrize("form", FORMATS)
def test_other_answers_leave_no_file(form, small, tmp_path, monkeypatch):
    small()
    lose_normalization(monkeypatch)
    with pytest.raises(
        JobError, match=r"differ from those of the weights by up to .* years; the exported network is not kept"
    ):
        export_model("any", form, tmp_path / OUTPUTS[form])
    assert folder_of(tmp_path) == []


def test_an_older_network_survives_a_wrong_one(small, tmp_path, monkeypatch):
    small()
    output = tmp_path / "a.xml"
    export_model("any", "openvino", output)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lose_normalization(monkeypatch)
    with pytest.raises(JobError):
        export_model("any", "openvino", output)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_keras_itself_loses_is_caught(small, tmp_path, monkeypatch):
    """Keras 3.15's own export: the constants of `Normalization` become inputs of the ONNX graph."""
    small()
    monkeypatch.setattr(exporting, "plain_network", lambda model, _: model)
    with pytest.raises(JobError):
        export_model("any", "onnx", tmp_path / "a.onnx")
    assert folder_of(tmp_path) == []


def test_a_runtime_that_gives_something_else_is_caught(small, tmp_path, monkeypatch):
    model = small()
    gender, age = (np.asarray(output) for output in model(exporting.example_images(16), training=False))
    for outputs in ((age, gender), (gender, age[:4]), (gender[:, ::-1], age), (gender, np.full_like(age, np.nan))):
        form = dataclasses.replace(FORMATS["saved_model"], run=lambda *_, outputs=outputs: outputs)
        monkeypatch.setitem(FORMATS, "saved_model", form)
        with pytest.raises(JobError, match="not kept"):
            export_model("any", "saved_model", tmp_path / "a")
        assert folder_of(tmp_path) == []


def test_numbers_are_not_rounded_on_gpus(small, tmp_path, monkeypatch):
    import tensorflow as tf

    rounded = tf.config.experimental.tensor_float_32_execution_enabled
    seen = []
    form = FORMATS["saved_model"]
    look = dataclasses.replace(form, run=lambda *arguments: (seen.append(rounded()), form.run(*arguments))[1])
    monkeypatch.setitem(FORMATS, "saved_model", look)
    small()
    export_model("any", "saved_model", tmp_path / "a")
    assert seen == [False]
    assert rounded()  # TensorFlow's own default is back


def test_limits_of_the_check():
    ages = np.zeros((1, 101))
    ages[0, 20] = 1.0
    moved = ages.copy()
    moved[0, [0, 100]] = 1.4e-5, 0  # 0.00028 years towards 0
    genders = np.array([[0.5, 0.5]])
    probability, years = exporting.compare((genders, ages), (genders + 0.9e-4, moved))
    assert probability == pytest.approx(0.9e-4)
    assert years < 1e-3
    with pytest.raises(JobError, match="0.00011 in probability"):
        exporting.compare((genders, ages), (genders + 1.1e-4, ages))
    moved[0, [20, 70]] = 1 - 3e-5, 3e-5  # a small probability, 50 years away
    with pytest.raises(JobError, match="0.0015 years"):
        exporting.compare((genders, ages), (genders, moved))


def test_example_images_cover_the_range():
    images = exporting.example_images(32)
    assert images.shape == (8, 32, 32, 3)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 255)


@pytest.mark.parametrize(("form", "module"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert"), ("openvino",) * 2])
def test_a_missing_package_is_named(form, module, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    package = FORMATS[form].packages[module]
    with pytest.raises(UserError, match=f"missing {package}; run pip install -r requirements-export.txt"):
        export_model(tmp_path / "unread.hdf5", form, tmp_path / "a.xml")
    assert re.search(f"^{package}>", (ROOT / "requirements-export.txt").read_text(), re.MULTILINE)


def test_another_backend_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="got jax; set KERAS_BACKEND=tensorflow"):
        export_model(tmp_path / "unread.hdf5", "saved_model", tmp_path / "a")


def test_places_that_are_no_earlier_export(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "text.txt").write_text("mine")
    (tmp_path / "mine.bin").write_bytes(b"mine")
    file = save_weights(small_model(), tmp_path / "weights.hdf5", WeightsInfo("MobileNetV2", 16, 0.1))
    before = file.read_bytes()
    for form, output, words in (
        ("onnx", notes, "got the folder"),
        ("saved_model", notes, "must be a new folder or an older SavedModel"),
        ("saved_model", notes / "text.txt", "must be a new folder"),
        ("openvino", tmp_path / "a.onnx", "must end in .xml"),
        ("openvino", tmp_path / "mine.xml", "mine.bin"),
        ("onnx", file, r"must be a new file or an older export \(.onnx\), got .*weights.hdf5"),
        ("litert", notes / "text.txt", "must be a new file or an older export"),
    ):
        with pytest.raises(UserError, match=words):
            export_model(file, form, output)
    assert file.read_bytes() == before
    assert folder_of(tmp_path) == ["mine.bin", "notes", "weights.hdf5"]
    assert folder_of(notes) == ["text.txt"]


def test_files_beside_an_older_saved_model_are_not_deleted(tmp_path):
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "fingerprint.pb", "labels.txt", "client.py"):
        (model / name).touch()
    with pytest.raises(UserError, match=r"got .*model with 2 other file\(s\), such as client\.py: move them or"):
        export_model(tmp_path / "unread.hdf5", "saved_model", model)
    assert folder_of(model) == ["client.py", "fingerprint.pb", "labels.txt", "saved_model.pb", "variables"]


def test_an_export_beside_that_fails_is_one_line_with_the_command(tmp_path):
    line = export_beside(tmp_path / "my weights.hdf5")
    assert line.startswith("No my weights.onnx written (")
    path = f"{tmp_path}/my weights"
    assert line.endswith(f"run python export.py --weight_file '{path}.hdf5' --format onnx -o '{path}.onnx'")
    assert "\n" not in line
    assert folder_of(tmp_path) == []
