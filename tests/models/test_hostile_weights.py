"""Broken and hostile weight files: one line, exit code 2, no code run, little memory."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from strange_files import application, keras2, random_images, save, shorten_mobilenets

from src import cli
from src.cli import ROOT
from src.models import weights
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo

NAME = "MobileNetV3Small_32_x.hdf5"
MANY = 10 * 2**30 // 4
"""float32 numbers in 10 GiB."""


@pytest.fixture(scope="module", autouse=True)
def short_networks():
    keras2()
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_mobilenets(monkeypatch, "keras", "tf_keras")
        yield


@pytest.fixture(scope="module")
def our_network() -> keras.Model:
    return get_model("MobileNetV3Small", 32)


@pytest.fixture(scope="module")
def good(our_network, tmp_path_factory) -> bytes:
    """A whole weight file of this project."""
    path = tmp_path_factory.mktemp("good") / "good.hdf5"
    info = WeightsInfo("MobileNetV3Small", 32, 0.4, versions={"keras": "3"})
    return weights.save_weights(our_network, path, info).read_bytes()


@pytest.fixture
def file(good, tmp_path) -> Path:
    """A copy of the good file to spoil; without its description it is identified by its name."""
    path = tmp_path / NAME
    path.write_bytes(good)
    return path


def refuse(path: Path, capsys) -> str:
    """Loads a file as a script does; checks the exit code and returns the one line printed."""
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: weights.load_model(path) and None)
    err = capsys.readouterr().err
    assert stop.value.code == 2, err
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in err
    return lines[0]


def change_info(path: Path, **values) -> None:
    with h5py.File(path, "r+") as file:
        info = json.loads(file.attrs["age_gender"])
        file.attrs["age_gender"] = json.dumps({**info, **values})


def replace_weights(path: Path, array: str, make) -> None:
    """Replaces an array of the file by what `make(group, name)` creates."""
    with h5py.File(path, "r+") as file:
        group_name, name = f"model_weights/{array}".rsplit("/", 1)
        del file[group_name][name]
        make(file[group_name], name)


HEAD = "pred_age/pred_age/kernel"


def test_good_file_is_good(file):
    assert weights.load_model(file)[1].model_name == "MobileNetV3Small"


@pytest.mark.parametrize("ending", ["weights.h5", "keras"])
def test_good_files_of_keras_alone_are_good(our_network, ending, tmp_path):
    assert weights.identify(save(our_network, tmp_path / f"MobileNetV3Small_32_x.{ending}")).margin == 0.4


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("content", [b"", b"x", b"a text\n" * 1000, bytes(5000), b"PK\x03\x04" + bytes(99)])
def test_no_weights_at_all(content, tmp_path, capsys):
    path = tmp_path / NAME
    path.write_bytes(content)
    assert str(path) in refuse(path, capsys)


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated(part, good, tmp_path, capsys):
    path = tmp_path / NAME
    path.write_bytes(good[: int(part * len(good))])
    assert "cannot be read" in refuse(path, capsys)


def test_places_that_are_no_files(tmp_path, capsys):
    assert "folder" in refuse(tmp_path, capsys)
    assert "does not exist" in refuse(tmp_path / "missing.hdf5", capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")
def test_links_and_pipes(tmp_path, capsys):
    loop, other = tmp_path / "loop.hdf5", tmp_path / "other.hdf5"
    loop.symlink_to(other)
    other.symlink_to(loop)
    assert "symbolic link" in refuse(loop, capsys)
    pipe = tmp_path / "pipe.hdf5"
    os.mkfifo(pipe)
    assert "no regular file" in refuse(pipe, capsys)


@pytest.mark.usefixtures("in_this_process", "networks_built_once")
def test_another_network(tmp_path, capsys):
    path = save(application(keras, "MobileNetV2", 32), tmp_path / NAME)
    assert "another network" in refuse(path, capsys)


@pytest.fixture(scope="module")
def network_of_50_classes() -> keras.Model:
    return application(keras, "MobileNetV3Small", 32, age_classes=50)


@pytest.mark.usefixtures("in_this_process", "networks_built_once")
@pytest.mark.parametrize("ending", ["hdf5", "weights.h5", "keras"])
def test_wrong_number_of_classes(network_of_50_classes, ending, tmp_path, capsys):
    path = save(network_of_50_classes, tmp_path / f"MobileNetV3Small_32_x.{ending}")
    line = refuse(path, capsys)
    assert "another network" in line
    assert line.index("(576, 101)") < line.index("(576, 50)")  # expected, received


@pytest.mark.usefixtures("in_this_process", "networks_built_once")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(bad, file, capsys):
    with h5py.File(file, "r+") as opened:
        opened["model_weights"][HEAD][5, 7] = bad
    assert "pred_age/kernel: weights must be finite" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process", "networks_built_once")
def test_numbers_too_large_for_the_network(file, capsys):
    replace_weights(file, HEAD, lambda group, name: group.create_dataset(name, data=np.full((576, 101), 1e300)))
    assert "finite" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process", "networks_built_once")
def test_negative_variance(file, capsys):
    with h5py.File(file, "r+") as opened:
        opened["model_weights/conv_bn/conv_bn/moving_variance"][3] = -1
    assert "variances" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("dtype", ["S8", h5py.string_dtype(), np.dtype([("a", "f4")]), "c8", h5py.ref_dtype])
def test_arrays_of_other_things(dtype, file, capsys):
    replace_weights(file, HEAD, lambda group, name: group.create_dataset(name, (576, 101), dtype))
    assert "must hold numbers" in refuse(file, capsys)


def lambda_model(package):
    """The network of the good file with a layer that runs code of the file once it is deserialised and called."""
    arguments = {"include_top": False, "weights": None, "input_shape": (32, 32, 3), "pooling": "avg"}
    base = package.applications.MobileNetV3Small(**arguments)
    touch = lambda x: (__import__("pathlib").Path(__import__("os").environ["RAN"]).touch(), x)[1]  # noqa: E731
    code = package.layers.Lambda(touch, output_shape=base.output.shape[1:], name="innocent")
    heads = [package.layers.Dense(classes, activation="softmax")(code(base.output)) for classes in (2, 101)]
    return package.Model(base.input, heads)


@pytest.fixture(scope="module", params=["keras2", "keras3"])
def network_with_code(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAN", str(tmp_path_factory.mktemp("built") / "ran"))
        return lambda_model(keras2() if request.param == "keras2" else keras)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("ending", ["hdf5", "keras"])
def test_lambda_layer(network_with_code, our_network, ending, tmp_path, capsys, monkeypatch):
    ran = tmp_path / "ran"
    monkeypatch.setenv("RAN", str(ran))
    path = save(network_with_code, tmp_path / f"MobileNetV3Small_32_x.{ending}")
    network_with_code(random_images(32))
    assert ran.exists()
    ran.unlink()
    assert "'Lambda', whose code is never run" in refuse(path, capsys)
    with pytest.raises(cli.UserError, match="Lambda"):
        weights.load_weights_into(our_network, path)
    assert not ran.exists()


@pytest.mark.usefixtures("in_this_process")
def test_custom_layer_in_the_graph(file, capsys):
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        config["config"]["layers"][5]["class_name"] = "evil>Layer"
        opened.attrs["model_config"] = json.dumps(config)
    assert "evil>Layer" in refuse(file, capsys)


def declared(group, name):
    group.create_dataset(name, (MANY,), "f4")


def declared_and_packed(group, name):
    group.create_dataset(name, (MANY,), "f4", chunks=(2**20,), compression="gzip")


def one_large_piece(group, name):
    group.create_dataset(name, (576, 101), "f4", chunks=(2**14, 2**14), maxshape=(None, None), compression="gzip")


@pytest.mark.parametrize("make", [declared, declared_and_packed, one_large_piece])
def test_declared_size(make, file, capsys):
    replace_weights(file, HEAD, make)
    assert "pred_age/kernel" in refuse(file, capsys)


def soft_link(group, name):
    group[name] = h5py.SoftLink("/model_weights/pred_gender/pred_gender/kernel")


def link_to_itself(group, name):
    group[name] = h5py.SoftLink(f"{group.name}/{name}")


def external_link(group, name):
    group[name] = h5py.ExternalLink(group.file.filename + ".other", "/secret")


def virtual_data(group, name):
    layout = h5py.VirtualLayout((576, 101), "f4")
    layout[:] = h5py.VirtualSource(group.file.filename + ".other", "secret", (576, 101))
    group.create_virtual_dataset(name, layout)


def external_data(group, name):
    group.create_dataset(name, (576, 101), "f4", external=[("/dev/zero", 0, 576 * 101 * 4)])


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("make", [soft_link, link_to_itself, external_link])
def test_links_inside(make, file, capsys):
    replace_weights(file, HEAD, make)
    assert "inside the file itself" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("make", [virtual_data, external_data])
def test_numbers_of_another_file(make, file, capsys):
    with h5py.File(f"{file}.other", "w") as other:
        other["secret"] = np.zeros((576, 101), np.float32)
    replace_weights(file, HEAD, make)
    assert "another file" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
def test_unknown_filter(file, capsys):
    def packed(group, name):
        group.create_dataset(name, (576, 101), "f4", chunks=(576, 101), compression="lzf")

    replace_weights(file, HEAD, packed)
    assert "unknown filter" in refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "values",
    [
        {"img_size": 64},
        {"img_size": 10**9},
        {"img_size": -32},
        {"img_size": "32"},
        {"img_size": 32.0},
        {"img_size": True},
        {"img_size": None},
        {"model_name": "MobileNetV2"},
        {"model_name": "../../etc/passwd"},
        {"model_name": "__import__"},
        {"model_name": ["MobileNetV3Small"]},
        {"margin": float("nan")},
        {"margin": -1},
        {"margin": "0.4"},
        {"colour": "CMYK"},
        {"gender_order": ["male"]},
        {"gender_order": 5},
        {"gender_order": ["male", "male"]},
        {"age_decoding": "argmax"},
        {"metrics": {"mae": "\x1b[31m"}},
        {"data": "\x1b]0;title\x07"},
        {"label": "x" * 5000},
        {"versions": {str(i): "" for i in range(1000)}},
        {"epoch": 1.5},
        {"scaled": "yes"},
        {"resize": "cubic"},
        {"resize": None},
        {"mirrored": 1},
        {"version": "\x1b[31m"},
        {"format_version": 2},
        {"surprise": 1},
    ],
    ids=lambda values: str(values)[:40],
)
def test_description_that_lies(values, file, capsys):
    change_info(file, **values)
    line = refuse(file, capsys)
    assert line.isprintable()
    assert len(line) < 1000


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a":' * 50_000, "9" * 10_000, "{}"])
def test_description_that_is_none(text, file, capsys):
    with h5py.File(file, "r+") as opened:
        opened.attrs["age_gender"] = text
    refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("attribute", ["age_gender", "model_config"])
@pytest.mark.parametrize(
    "value",
    [np.arange(5), 3.5, b"\xff\xfe", h5py.Empty("S10"), np.array([b"a", b"b"]), np.zeros((), [("a", "i4")])],
    ids=str,
)
def test_attributes_of_other_kinds(attribute, value, file, capsys):
    with h5py.File(file, "r+") as opened:
        opened.attrs[attribute] = value
    refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "config",
    [3, [], {}, {"config": 3}, {"config": {"layers": 3}}, {"config": {"layers": [3]}}, {"config": {"layers": [{}]}}],
)
def test_graph_that_is_none(config, file, capsys):
    with h5py.File(file, "r+") as opened:
        opened.attrs["model_config"] = json.dumps(config)
    refuse(file, capsys)


@pytest.mark.usefixtures("in_this_process")
def test_names_that_lead_nowhere(file, capsys):
    with h5py.File(file, "r+") as opened:
        names = list(opened["model_weights"].attrs["layer_names"])
        opened["model_weights"].attrs["layer_names"] = [*names[:-1], "/model_weights/../../secret"]
    assert "inside the file itself" in refuse(file, capsys)


def archive(path: Path, compress: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compress) as opened:
        for name, content in members.items():
            opened.writestr(name.replace("_json", ".json").replace("_h5", ".weights.h5"), content)
    return path


def test_archives(tmp_path, good, capsys):
    path = tmp_path / "MobileNetV3Small_32_x.keras"
    assert "config.json" in refuse(archive(path, model_h5=good), capsys)
    assert "model.weights.h5" in refuse(archive(path, config_json=b"{}"), capsys)
    assert "unpacks to" in refuse(archive(path, config_json=b"{}", model_h5=bytes(10**8)), capsys)
    assert "config.json of more" in refuse(archive(path, config_json=bytes(10**8), model_h5=good), capsys)


def spoil_heap(path: Path) -> None:
    """Puts an object of no size into the file's heap of texts, at which HDF5 1.14.6 goes round for ever."""
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)


def test_file_that_makes_the_library_hang(file, capsys, monkeypatch):
    spoil_heap(file)
    monkeypatch.setattr("src.models.weights.sandbox.SECONDS", 2.0)
    before = os.times()
    assert "cannot be read in 3 s" in refuse(file, capsys)
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) < 30  # processor seconds of child processes


@pytest.mark.skipif(sys.platform == "win32", reason="needs a command that fails")
def test_crash_of_the_library(file, capsys, monkeypatch):
    monkeypatch.setattr("src.models.weights.sandbox.sys.executable", shutil.which("false"))
    assert "ends with code 1" in refuse(file, capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the most memory used")
def test_memory_stays_flat(good, tmp_path):
    """Files that declare 10 GiB cost less than 100 MB more than a good file, in a process of their own."""
    paths = []
    for make in (declared, declared_and_packed, one_large_piece):
        paths.append(tmp_path / f"MobileNetV3Small_32_{make.__name__}.hdf5")
        paths[-1].write_bytes(good)
        replace_weights(paths[-1], HEAD, make)
    large = {"config_json": bytes(5 * 10**8), "model_h5": bytes(3 * 10**8)}
    paths.append(archive(tmp_path / "MobileNetV3Small_32_x.keras", **large))
    first = tmp_path / NAME
    first.write_bytes(good)
    script = f"""
import resource, sys
sys.path.append("tests")
import pytest
from strange_files import shorten_mobilenets
from src.models import weights
from src.cli import UserError
shorten_mobilenets(pytest.MonkeyPatch(), "keras")
weights.load_model({str(first)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in {[str(path) for path in paths]}:
    try:
        weights.load_model(path)
    except UserError as error:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    *refused, growth = done.stdout.split()
    assert refused == ["refused"] * 4
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(growth) * unit < 100e6
