"""Weight files: written whole, read back the same, in every layout that Keras has used."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from strange_files import (
    application,
    keras2,
    keras_imagenet_efficientnet,
    outputs,
    random_images,
    randomize,
    save,
    shorten_efficientnets,
    shorten_mobilenets,
    shorten_resnets,
)

import src
from src.cli import ROOT, UserError
from src.images import FaceDetector, crop_box, read_image, resize
from src.models import weights
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo

INFO = WeightsInfo(
    "MobileNetV3Small",
    32,
    0.25,
    data="utkface",
    epoch=7,
    metrics={"val_age_mae": 5.5},
    versions={"keras": "3"},
    label="trial",
    version="0.9",
)


pytestmark = pytest.mark.usefixtures("in_this_process")  # the other process: test_hostile_weights.py
filled_again = pytest.mark.usefixtures("networks_built_once")


@pytest.fixture(scope="module", autouse=True)
def short_networks():
    keras2()
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_efficientnets(monkeypatch, "keras", "tf_keras")
        shorten_mobilenets(monkeypatch, "keras", "tf_keras")
        shorten_resnets(monkeypatch)
        yield


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = get_model("MobileNetV3Small", 32)
    randomize(model)
    return model


@pytest.fixture
def file(model, tmp_path) -> Path:
    return weights.save_weights(model, tmp_path / "checkpoints" / "a.hdf5", INFO)


def assert_same_outputs(expected: keras.Model, received: keras.Model, size: int = 32, tolerance: float = 1e-5):
    values = random_images(size)
    (gender, age), (other_gender, other_age) = outputs(expected, values), outputs(received, values)
    assert np.ptp(age) > 1, "the images must tell networks apart"
    np.testing.assert_allclose(other_gender, gender, atol=tolerance)
    np.testing.assert_allclose(other_age, age, atol=100 * tolerance)


def test_what_is_saved_is_loaded(model, file):
    loaded, info = weights.load_model(file)
    assert info == INFO
    assert_same_outputs(model, loaded, tolerance=1e-7)
    assert [path.name for path in file.parent.iterdir()] == ["a.hdf5"]


@filled_again
def test_any_ending_is_accepted(model, tmp_path):
    path = weights.save_weights(model, tmp_path / "no-ending", INFO)
    assert_same_outputs(model, weights.load_model(path)[0], tolerance=1e-7)


def test_versions_are_filled_in(model, tmp_path):
    path = weights.save_weights(model, tmp_path / "a.hdf5", WeightsInfo("MobileNetV3Small", 32, 0.4))
    assert weights.identify(path).versions["keras"] == keras.__version__


def test_version_is_filled_in(model, tmp_path):
    path = weights.save_weights(model, tmp_path / "a.hdf5", WeightsInfo("MobileNetV3Small", 32, 0.4))
    assert weights.identify(path).version == src.__version__ == "1.0.0"


def test_a_file_from_before_a_field_has_its_default(model, tmp_path):
    info = WeightsInfo("MobileNetV3Small", 32, 0.4, resize="bilinear", mirrored=True, version="2")
    path = weights.save_weights(model, tmp_path / "a.hdf5", info)
    assert weights.identify(path) == dataclasses.replace(info, versions=weights.identify(path).versions)
    with h5py.File(path, "r+") as file:
        values = json.loads(file.attrs["age_gender"])
        kept = {key: value for key, value in values.items() if key not in ("resize", "mirrored", "version")}
        file.attrs["age_gender"] = json.dumps(kept)
    old = weights.identify(path)
    assert (old.resize, old.mirrored, old.version) == ("area", False, "")


def test_keras_itself_reads_the_file(model, file):
    other = get_model("MobileNetV3Small", 32)
    other.load_weights(file)
    assert_same_outputs(model, other, tolerance=1e-7)


def test_failed_write_keeps_the_older_file(model, file, monkeypatch):
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        weights.save_weights(model, file, INFO)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@pytest.fixture
def small_disk():
    """No file can grow beyond 0.5 MB."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes to set")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_an_os_error_and_leaves_nothing(model, small_disk, tmp_path):
    with pytest.raises(OSError, match="File too large"):
        weights.save_weights(model, tmp_path / "a.hdf5", INFO)
    assert os.listdir(tmp_path) == []


def test_identify_needs_no_keras(file):
    script = f"""
import sys
from src.models import weights
print(weights.identify({str(file)!r}).model_name, "keras" in sys.modules, "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["MobileNetV3Small", "False", "False"]


def test_load_weights_into_a_given_network(model, file):
    other = get_model("MobileNetV3Small", 32)
    weights.load_weights_into(other, file)
    assert_same_outputs(model, other, tolerance=1e-7)


def test_another_network_changes_nothing(file):
    other = get_model("MobileNetV2", 32)
    before = other.get_weights()
    with pytest.raises(UserError, match="another network"):
        weights.load_weights_into(other, file)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


@filled_again
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_networks_with_our_scaling_come_back(name, tmp_path):
    model = get_model(name, 32)
    randomize(model)
    path = weights.save_weights(model, tmp_path / "a.hdf5", WeightsInfo(name, 32, 0.4))
    loaded, info = weights.load_model(path)
    assert info.scaled
    assert_same_outputs(model, loaded)


@pytest.mark.parametrize("ending", ["h5", "weights.h5", "keras"])
def test_our_networks_saved_by_keras_alone(model, ending, tmp_path):
    path = save(model, tmp_path / f"MobileNetV3Small_32_x.{ending}")
    loaded, info = weights.load_model(path)
    assert (info.model_name, info.img_size, info.colour, info.margin) == ("MobileNetV3Small", 32, "BGR", 0.4)
    assert_same_outputs(model, loaded)


@pytest.fixture(scope="module")
def scaled_model() -> keras.Model:
    model = get_model("MobileNetV2", 32)
    randomize(model)
    return model


@filled_again
@pytest.mark.parametrize("ending", ["hdf5", "weights.h5", "keras"])
def test_our_scaling_is_kept_where_the_file_has_it(scaled_model, ending, tmp_path):
    loaded, info = weights.load_model(save(scaled_model, tmp_path / f"MobileNetV2_32_x.{ending}"))
    assert info.scaled
    assert_same_outputs(scaled_model, loaded)


@filled_again
@pytest.mark.parametrize("package", ["keras2", "keras3"])
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
def test_networks_of_others(package, name, tmp_path):
    package = keras2() if package == "keras2" else keras
    model = application(package, name, 32)
    endings = ["hdf5", "weights.h5", "keras"] + (["only.h5"] if package is not keras else [])
    for ending in endings:
        loaded, info = weights.load_model(save(model, tmp_path / f"{name}_32_x.{ending}"))
        assert info.model_name == name
        assert not info.scaled
        assert_same_outputs(model, loaded)


@pytest.fixture(scope="module")
def imagenet_model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield keras_imagenet_efficientnet(monkeypatch, tmp_path_factory.mktemp("imagenet"))


@filled_again
@pytest.mark.parametrize("ending", ["hdf5", "weights.h5", "keras"])
def test_extra_rescaling_of_keras_efficientnet_is_folded(ending, imagenet_model, tmp_path):
    model = imagenet_model
    assert sum(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) == 2
    loaded, _ = weights.load_model(save(model, tmp_path / f"EfficientNetB0_32_x.{ending}"))
    assert sum(isinstance(layer, keras.layers.Rescaling) for layer in loaded.layers) == 1
    assert_same_outputs(model, loaded)


@filled_again
def test_extra_rescaling_is_folded_once(imagenet_model, tmp_path):
    loaded, info = weights.load_model(save(imagenet_model, tmp_path / "EfficientNetB0_32_x.hdf5"))
    again, _ = weights.load_model(weights.save_weights(loaded, tmp_path / "ours.hdf5", info))
    assert_same_outputs(imagenet_model, again)


@filled_again
def test_old_weights_file_that_hides_its_graph_is_taken_as_plain(tmp_path, caplog):
    model = application(keras, "EfficientNetB0", 32)
    path = save(model, tmp_path / "EfficientNetB0_32_x.weights.h5")
    with h5py.File(path, "r+") as file:  # early Keras 3 left no groups for layers without weights
        for key in [key for key in file["layers"] if not len(file["layers"][key].get("vars", ()))]:
            del file["layers"][key]
    loaded, _ = weights.load_model(path)
    assert_same_outputs(model, loaded)
    assert sum("scale pixels once more" in record.getMessage() for record in caplog.records) == 1


@filled_again
def test_efficientnet_trained_from_imagenet_answers_the_same_after_loading(imagenet_model, tmp_path):
    theirs = imagenet_model
    ours = get_model("EfficientNetB0", 32, weights="imagenet")
    for name in ("pred_gender", "pred_age"):
        ours.get_layer(name).set_weights(theirs.get_layer(name).get_weights())
    assert_same_outputs(theirs, ours)
    loaded, _ = weights.load_model(
        weights.save_weights(ours, tmp_path / "a.hdf5", WeightsInfo("EfficientNetB0", 32, 0.4))
    )
    assert_same_outputs(theirs, loaded)


def test_size_in_the_name_against_the_graph(model, tmp_path):
    path = save(model, tmp_path / "MobileNetV3Small_64_x.hdf5")
    with pytest.raises(UserError, match=r"input of 64 pixels.*graph for 32"):
        weights.identify(path)


def test_unknown_network_by_name(model, tmp_path):
    path = save(model, tmp_path / "MobilNetV3Small_32_x.hdf5")
    with pytest.raises(UserError, match="MobileNetV3Small"):
        weights.load_model(path)


def test_nameless_file_is_refused_with_all_ways(model, tmp_path):
    path = save(model, tmp_path / "mine.hdf5")
    with pytest.raises(UserError) as error:
        weights.identify(path)
    for way in ("age_gender", "weights.28-3.73.hdf5", "{model_name}_{img_size}_*"):
        assert way in str(error.value)


def test_bundled_names_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr("src.models.weights.published.ROOT", tmp_path)
    with pytest.raises(UserError, match="pretrained_models"):
        weights.bundled()


def test_attribute_is_plain_json(file):
    with h5py.File(file) as opened:
        values = json.loads(opened.attrs["age_gender"])
    assert values["format_version"] == 1
    assert values["margin"] == 0.25


def test_float16_halves_the_file_and_hardly_changes_ages(tmp_path):
    """The bundled network on the faces of the sample photos, framed in several ways."""
    model, info = weights.load_model(weights.bundled(".hdf5"))
    path = weights.save_weights(model, tmp_path / "half.hdf5", info, dtype="float16")
    whole = weights.save_weights(model, tmp_path / "whole.hdf5", info)
    assert path.stat().st_size < 0.6 * whole.stat().st_size
    halved, halved_info = weights.load_model(path)
    assert halved_info == weights.identify(whole)
    photos = [read_image(ROOT / "samples" / name) for name in ("astronaut.png", "grace_hopper.jpg")]
    boxes = [FaceDetector().detect(photo)[0].box for photo in photos]
    faces = [crop_box(*face, margin) for face in zip(photos, boxes, strict=True) for margin in (0, 0.1, 0.2)]
    values = np.stack([resize(face, info.img_size) for face in faces])
    (gender, age), (halved_gender, halved_age) = outputs(model, values), outputs(halved, values)
    assert np.ptp(age) > 1, "the images must tell networks apart"
    np.testing.assert_allclose(halved_age, age, atol=0.02)
    np.testing.assert_allclose(halved_gender, gender, atol=0.002)


def test_float16_keeps_what_it_cannot_hold(tmp_path):
    layers = [keras.layers.Dense(64, name=name) for name in ("few_inputs", "large", "usual")]
    model = keras.Sequential([keras.Input((63,)), *layers])
    kernels = [np.full((63, 64), 0.5), np.full((64, 64), 1e6), np.full((64, 64), 0.5)]
    model.set_weights([values for kernel in kernels for values in (kernel, np.zeros(64))])
    path = weights.save_weights(model, tmp_path / "half.hdf5", INFO, dtype="float16")
    with h5py.File(path) as file:
        layers = file["model_weights"]
        names = [name for name in layers.attrs["layer_names"] if len(layers[name].attrs["weight_names"])]
        dtypes = {
            (name, array.rsplit("/", 1)[-1]): str(layers[name][array].dtype)
            for name in names
            for array in layers[name].attrs["weight_names"]
        }
    assert dtypes.pop(("usual", "kernel")) == "float16"
    assert len(dtypes) == 5
    assert set(dtypes.values()) == {"float32"}
