"""The recipe of the bundled model: its tables, and commands that the scripts take."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from recipes import face_network
from src.cli import ROOT, JobError, UserError
from src.images import write_image

STUB = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def commands(tmp_path) -> list[list[str]]:
    """What the recipe runs, in a copy of its folder with an interpreter that only takes notes."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "pretrained_models").mkdir()
    for table in ("meta/utkface.csv", "data/UTKFace/utkface.csv"):
        (tmp_path / table).parent.mkdir(parents=True)
        (tmp_path / table).touch()
    shutil.copy(ROOT / "recipes" / "bundled_model.sh", tmp_path / "recipes")
    for run in (
        "heads",
        "all",
        "distilled",
        "refined",
        "more",
        "enlarged",
        "mirrored",
        "longer",
        "last",
        "wider",
        "final",
    ):
        (tmp_path / "checkpoints" / run).mkdir(parents=True)
        (tmp_path / "checkpoints" / run / "MobileNet_160_weights.01-1.00.hdf5").touch()
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(STUB.format(python=sys.executable, log=str(log)))
    stub.chmod(0o755)
    (tmp_path / "git").symlink_to(stub)
    environment = {"PYTHON": str(stub), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([tmp_path / "recipes" / "bundled_model.sh"], env=environment, check=True, timeout=60)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_commands_of_the_recipe_are_valid(commands, compose):
    scripts = [command[0] for command in commands if command[0] != "show"]
    assert all((ROOT / script).is_file() for script in scripts)
    assert scripts == [
        "create_db_utkface.py",
        "crop_faces.py",
        "recipes/lfw_labels.py",
        "crop_faces.py",
        "recipes/face_network.py",
        "recipes/train_on_cpu.py",
        "recipes/train_on_cpu.py",
        "recipes/predict_targets.py",
        "recipes/train_on_cpu.py",
        "recipes/detected_boxes.py",
        *6 * ["recipes/repeat_rows.py"],
        "recipes/predict_targets.py",
        "recipes/train_on_cpu.py",
        "recipes/predict_targets.py",
        *3 * ["recipes/train_on_cpu.py"],
        "recipes/predict_targets.py",
        *2 * ["recipes/train_on_cpu.py"],
        *5 * ["recipes/gender_tables.py"],
        *3 * ["recipes/detected_boxes.py"],
        *2 * ["recipes/train_on_cpu.py"],
        "recipes/average_weights.py",
        "export.py",
    ]
    trainings = [compose(*command[1:]) for command in commands if command[0] == "recipes/train_on_cpu.py"]
    _, all_, distilled, refined, more, enlarged, mirrored, longer, last, wider, final = trainings
    assert all_.data.db == ["utkface", *3 * ["data/aaf_faces/faces.csv"], "fairface"]
    assert sorted(set(distilled.data.db)) == sorted(set(all_.data.db))
    assert [cfg.model.img_size for cfg in trainings] == [160, 160, 160, 176, 176, 208, *5 * [192]]
    assert [cfg.model.frozen for cfg in trainings] == [0.96, 0.2, 0.3, *8 * [0.2]]
    assert [cfg.train.age_loss_weight for cfg in trainings] == 11 * [0.35]
    last_five = trainings[-5:]
    assert distilled.model.mirrored
    assert refined.model.mirrored
    assert [cfg.model.mirrored for cfg in (more, enlarged, *last_five)] == [False, False, *5 * [True]]
    rates = [cfg.train.lr for cfg in (more, enlarged, *last_five)]
    assert rates == [0.0006, 0.0005, 0.0002, 0.0006, 0.00015, 0.0006, 0.00015]
    assert mirrored.augment.rotation > longer.augment.rotation > last.augment.rotation
    written = {command[0]: [] for command in commands}
    for command in commands:
        if "-o" in command:
            written[command[0]].append(command[command.index("-o") + 1])
    predictions = [cfg.train.predictions for cfg in (distilled, refined, more, longer)]
    assert predictions == written["recipes/predict_targets.py"]
    black, hard, more_aaf, women, older, older_utkface = written["recipes/repeat_rows.py"]
    assert refined.data.db == [*all_.data.db[:1], *all_.data.db, black]
    expected = ["utkface", "utkface", more_aaf, "fairface", hard, women]
    assert more.data.db == enlarged.data.db == expected
    assert mirrored.data.db == [black if db == hard else db for db in expected]
    assert longer.data.db == last.data.db == [older_utkface, older_utkface, more_aaf, "fairface", older, women]
    assert longer.model.weights.startswith("checkpoints/mirrored/")
    assert last.model.weights.startswith("checkpoints/longer/")
    assert wider.data.db == final.data.db
    fiw, mtfl, _, _, lag = written["recipes/gender_tables.py"]
    _, mtfl_boxes, fgnet, tskinface = written["recipes/detected_boxes.py"]
    assert wider.data.db == [*longer.data.db, fiw, mtfl, mtfl_boxes, *2 * [fgnet, tskinface, lag]]
    assert wider.model.weights.startswith("checkpoints/last/")
    assert final.model.weights.startswith("checkpoints/wider/")
    assert {cfg.train.predictions for cfg in (last, wider, final)} == {longer.train.predictions}
    assert more.train.predictions == enlarged.train.predictions == mirrored.train.predictions
    files = [f"checkpoints/{run}/MobileNet_160_weights.01-1.00.hdf5" for run in ("last", "final")]
    assert commands[-2][1:3] == files
    assert written["recipes/average_weights.py"] == ["pretrained_models/MobileNet_192.hdf5"]
    assert "pretrained_models/MobileNet_192.hdf5" in commands[-1]
    assert "--int8" in commands[-1]


def test_start_keeps_the_network_and_its_batch_norms_fit_the_images():
    import keras

    from src.models import get_model

    rng = np.random.default_rng(0)
    model = get_model("MobileNet", 32)
    arrays = {}
    for layer in model.layers:
        if layer.name.startswith("conv") and layer.name.endswith("_bn"):
            name, shape = layer.name.removesuffix("_bn"), layer.gamma.shape
            kernel = model.get_layer(name).kernel
            arrays[f"{name}/kernel"] = rng.normal(0, np.sqrt(2 / np.prod(kernel.shape[:-1])), kernel.shape)
            arrays[f"{layer.name}/batchnorm_1/sub"] = rng.normal(0, 0.1, shape)
            if "_dw_" in name:
                arrays[f"{layer.name}/batchnorm_1/mul"] = rng.uniform(0.5, 2, shape)
    arrays["conv1/kernel"] /= 100  # for input in 0..255
    face_network.set_layers(model, arrays)
    images = rng.uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    first = keras.Model(model.input, model.get_layer("conv1_bn").output)
    before = np.asarray(first(images))
    window = images[:, :3, :3, ::-1] - face_network.BGR_MEAN
    expected = np.einsum("nhwc,hwcf->nf", window, arrays["conv1/kernel"]) + arrays["conv1_bn/batchnorm_1/sub"]
    np.testing.assert_allclose(before[:, 0, 0], expected, rtol=1e-3, atol=1e-3)
    norm = model.get_layer("conv_dw_1_bn")
    inputs, outputs = (np.asarray(values) for values in keras.Model(model.input, [norm.input, norm.output])(images))
    factor, offset = (arrays[f"conv_dw_1_bn/batchnorm_1/{part}"] for part in ("mul", "sub"))
    np.testing.assert_allclose(outputs, inputs * factor + offset, rtol=1e-3, atol=1e-3)
    outputs = [np.asarray(output) for output in model(images)]
    face_network.calibrate(model, images)
    for one, two in zip(outputs, model(images), strict=True):
        np.testing.assert_allclose(one, np.asarray(two), atol=1e-4)
    statistics = np.asarray(keras.Model(model.input, model.get_layer("conv1").output)(images)).mean((0, 1, 2))
    np.testing.assert_allclose(model.get_layer("conv1_bn").moving_mean, statistics, rtol=1e-3, atol=1e-3)
    del arrays["conv_dw_1_bn/batchnorm_1/mul"]
    with pytest.raises(JobError, match="conv_dw_1_bn must have"):
        face_network.set_layers(model, arrays)


def test_start_reads_faces_cut_to_their_smallest_margin(tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.full((60, 60, 3), 50, np.uint8))
    rows = "0,30,a.png,train,0.2\n1,30,b.png,train,0.1\n1,30,c.png,val,0.1\n"
    (tmp_path / "faces.csv").write_text("genders,ages,img_paths,split,margin\n" + rows)
    faces, margin = face_network.load_images(str(tmp_path / "faces.csv"), 5, 32)
    assert (faces.shape, faces.dtype, margin) == ((2, 32, 32, 3), np.float32, 0.1)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(JobError, match="none of the images of --db .* can be read"):
        face_network.load_images(str(tmp_path / "faces.csv"), 5, 32)


def test_a_network_to_train_on_predicts_nothing(tmp_path):
    from src.inference import AgeGenderEstimator
    from src.models import WeightsInfo, get_model, save_weights

    model = get_model("MobileNet", 32)
    path = save_weights(model, tmp_path / "start.hdf5", WeightsInfo("MobileNet", 32, 0.12, heads=()))
    with pytest.raises(UserError, match="has no trained heads; train on it"):
        AgeGenderEstimator.load(path)
