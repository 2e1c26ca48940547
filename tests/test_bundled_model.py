"""The recipe of the bundled model: its tables, and commands that the scripts take."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from recipes.average_weights import average
from src.cli import ROOT, UserError

STUB = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture(scope="module")
def gender_tables():
    spec = importlib.util.spec_from_file_location("gender_tables", ROOT / "recipes" / "gender_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(tmp_path) -> list[list[str]]:
    """What the recipe runs, in a copy of its folder with an interpreter that only takes notes."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "pretrained_models").mkdir()
    shutil.copy(ROOT / "recipes" / "bundled_model.sh", tmp_path / "recipes")
    for run in ("80", "112", "128", "fairface", "frozen", "annealed", "160", "gender"):
        (tmp_path / "checkpoints" / run).mkdir(parents=True)
        (tmp_path / "checkpoints" / run / "EfficientNetLite0_128_weights.01-1.00.hdf5").touch()
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(STUB.format(python=sys.executable, log=str(log)))
    stub.chmod(0o755)
    environment = {"PYTHON": str(stub), "PATH": "/usr/bin:/bin"}
    subprocess.run([tmp_path / "recipes" / "bundled_model.sh"], env=environment, check=True, timeout=60)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_commands_of_the_recipe_are_valid(commands, compose):
    scripts = [command[0] for command in commands]
    assert all((ROOT / script).is_file() for script in scripts)
    assert scripts[-3:] == ["train.py", "recipes/average_weights.py", "export.py"]
    trainings = [compose(*command[1:]) for command in commands if command[0] == "train.py"]
    assert [cfg.model.img_size for cfg in trainings] == [80, 112, 128, 128, 128, 128, 160, 160]
    assert trainings[-1].data.db == ["utkface", *3 * ["data/aaf_faces/faces.csv"], "fairface"]
    assert [cfg.train.age_loss_weight for cfg in trainings[-2:]] == [0.5, 0.35]
    assert [cfg.model.frozen for cfg in trainings[-5:]] == [0, 0.32, 0.32, 0.32, 0.32]


def test_labels_by_list_and_by_folder(gender_tables, tmp_path):
    for name in (
        "lfw-deepfunneled/A_B/A_B_0001.jpg",
        "lfw-deepfunneled/C_D/C_D_0001.jpg",
        "lfw-deepfunneled/E/E_1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for name in ("man/1.jpg", "woman/2.jpg"):
        (tmp_path / "gender_dataset_face" / name).parent.mkdir(parents=True)
        (tmp_path / "gender_dataset_face" / name).touch()
    (tmp_path / "male_names.txt").write_text("A_B_0001.jpg\nE_1.jpg\n")
    (tmp_path / "female_names.txt").write_text("C_D_0001.jpg\nE_1.jpg\n")
    gender_tables.write_labels(tmp_path)
    lfw = pd.read_csv(tmp_path / "lfw.csv")
    assert lfw[["genders", "img_paths"]].values.tolist() == [[1, "A_B/A_B_0001.jpg"], [0, "C_D/C_D_0001.jpg"]]
    assert set(lfw["split"]) <= {"train", "val"}
    people = pd.read_csv(tmp_path / "mw.csv")
    assert people[["genders", "img_paths"]].values.tolist() == [[1, "man/1.jpg"], [0, "woman/2.jpg"]]


def test_thinning_keeps_two_images_of_a_man_and_four_of_a_woman(gender_tables, tmp_path):
    people = [("1", "Man", "train"), ("0", "Woman", "train"), ("1", "Other", "val")]
    rows = [(gender, "", f"{name}/{i}.jpg", split) for gender, name, split in people for i in range(6)]
    (tmp_path / "lfw_faces").mkdir()
    faces = pd.DataFrame(rows, columns=["genders", "ages", "img_paths", "split"])
    faces.to_csv(tmp_path / "lfw_faces" / "faces.csv", index=False)
    gender_tables.thin_lfw(tmp_path)
    few = pd.read_csv(tmp_path / "lfw_faces" / "few.csv")
    names = few["img_paths"].str.split("/").str[0]
    assert names.value_counts().to_dict() == {"Other": 6, "Woman": 4, "Man": 2}


def test_weights_are_averaged(tmp_path):
    from src.models import WeightsInfo, get_model, load_model, save_weights

    files = [tmp_path / name for name in ("first.hdf5", "second.hdf5", "other.hdf5")]
    for path, size in zip(files, (32, 32, 64), strict=True):
        info = WeightsInfo("EfficientNetLite0", size, 0.06)
        save_weights(get_model("EfficientNetLite0", size, weights=None), path, info)
    first, second = (load_model(path)[0].get_weights() for path in files[:2])
    mean = average(files[:2])[0].get_weights()
    assert not np.array_equal(first[0], second[0])
    for one, two, both in zip(first, second, mean, strict=True):
        np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-5, atol=1e-7)
    with pytest.raises(UserError, match="must come from one training"):
        average(files)
