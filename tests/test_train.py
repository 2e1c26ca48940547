"""`train.py` as a command: how it reads its arguments, and several trainings at once."""

import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from src import cli, models
from src.cli import ROOT
from src.training import hydra_arguments

TINY = [sys.executable, str(ROOT / "tests" / "tiny_train.py")]


def read(argument: str, several: bool = False):
    """The value or values that Hydra reads out of an argument as `train.py` passes it on."""
    (quoted,) = hydra_arguments([argument], several)
    override = OverridesParser.create().parse_override(quoted)
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return override.value()


@pytest.mark.parametrize(
    "path",
    [
        "josé/t.csv",
        "顔/t.csv",
        "faces (1)/t.csv",
        "[a]/t.csv",
        "~/d/t.csv",
        "a=b/t.csv",
        "a,b/t.csv",
        "it's",
        'a"b',
        "C:\\data\\t.csv",
        "\\\\server\\share",
        "a#b;c&d!e$f|g*h?i<j>k^l`m",
        "100%",
        "123",
        " blank ",
        "back\\",
        "x{y}:z@w",
        "\udce9/t.csv",
    ],
)
def test_a_path_is_read_as_typed(path):
    assert read(f"data.db={path}") == path
    assert read(f"+data.image_dir={path}") == path
    assert read(f"train.predictions={path}") == path


def test_lists_quotes_and_constants_are_hydras():
    assert read("data.db=[utkface, josé/t.csv,'a,b']") == ["utkface", "josé/t.csv", "a,b"]
    assert read("data.db='a b'") == "a b"
    assert read("model.weights=null") is None
    assert read("train.resume=true") is True
    assert read("train.lr=0.1") == 0.1
    assert hydra_arguments(["--multirun", "hydra.verbose=true"]) == ["--multirun", "hydra.verbose=true"]


def test_a_file_that_looks_like_a_list_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("[a]").touch()
    assert read("data.db=[a]") == "[a]"


def test_a_file_that_looks_like_an_interpolation_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a${b}").touch()
    with hydra.initialize_config_dir(str(ROOT / "src"), version_base="1.3"):
        config = hydra.compose("config", hydra_arguments(["data.db=a${b}", "wandb.project=${data.db}"]))
    assert (config.data.db, config.wandb.project) == ("a${b}", "a${b}")


def test_commas_separate_the_trainings_of_a_sweep():
    assert read("data.db=josé (1).csv,b.csv", several=True) == ["'josé (1).csv'", "'b.csv'"]


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_a_printed_command_can_be_pasted():
    arguments = ["train.py", "data.db=it's (1)/é ~$HOME.csv", "-m"]
    command = cli.shell_command(sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{arguments}\n"
    assert shlex.split(command)[3:] == arguments


@pytest.mark.slow
def test_a_sweep_trains_all_and_names_those_that_fail(training_overrides, faces_csv, tmp_path):
    """The second of three fails; the others are as they would be alone, in one folder. The path is a user's."""
    odd = tmp_path / "faces (1), josé=~"
    faces_csv.with_suffix("").rename(odd)
    overrides = [o for o in training_overrides if not o.startswith("data.image_dir")]
    command = [*TINY, "-m", *overrides, f"data.image_dir='{odd}'", "train.epochs=1"]
    command += ["train.schedule=constant", "train.lr=0.001,-1,0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "multirun").exists()  # Hydra's own files are in the project's outputs/
    assert done.stderr.splitlines()[-1] == "error: 1 of 3 trainings failed: #1 train.export_onnx=False train.lr=-1"
    assert "Launching 3 jobs" in done.stdout
    assert (done.stderr.count("no column `margin`"), done.stdout.count("no column")) == (2, 0)  # not by Hydra again
    logs = [tmp_path / "checkpoints" / f"MobileNet_32{run}_log.csv" for run in ("", "_run2")]
    assert [pd.read_csv(log)["lr"].round(6).tolist() for log in logs] == [[0.001], [0.1]]
    runs = [models.identify(path).run for path in (tmp_path / "checkpoints").glob("*.hdf5")]
    assert sorted(run.partition(",")[0] for run in runs) == ["MobileNet_32", "MobileNet_32_run2"]


def test_one_training_writes_nothing_of_hydra(tmp_path, monkeypatch):
    import train

    (tmp_path / "root").touch()  # no folder can be made below it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "ROOT", tmp_path / "root")
    monkeypatch.setattr(sys, "argv", ["train.py", "train.lr=0.5"])
    monkeypatch.setattr(train, "run_job", lambda cfg, printed: int(cfg.train.lr * 10))
    assert train.run_jobs(("", "")) == {"#0 ": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_trainings_of_a_sweep_have_folders_of_their_own():
    import train

    assert train.job_folder(["train.lr=0.1", "model.weights='a/b c'"], 3).name == "train.lr=0.1,model.weights=_a_b_c_"
    assert train.job_folder(["data.db=" + 100 * "x"], 3) == ROOT / "checkpoints" / "3"
