import dataclasses
import errno
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import distributed_process
import keras
import numpy as np
import pandas as pd
import pytest
from virtual_screen import wait_for
from warm_python import warm_python

from src.cli import ROOT, JobError, UserError
from src.images.io import read_image
from src.inference.estimator import AgeGenderEstimator
from src.models import WeightsInfo, backbones, weights
from src.training.config import Config
from src.training.data import choose_margin, make_sequences
from src.training.losses import AgeMeanAbsoluteError
from src.training.resume import read_state
from src.training.targets import age_class_weights, age_counts
from src.training.train import open_run, train
from src.training.weight_average import WeightAverage

TINY = str(ROOT / "tests" / "tiny_train.py")
METRICS = ["loss", "pred_gender_loss", "pred_age_loss", "pred_gender_accuracy", "pred_age_accuracy", "pred_age_mae"]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "checkpoints"


@pytest.mark.slow
def test_train_learn_save_load_estimate(compose, training_overrides, folder, faces_csv):
    overrides = ["train.epochs=15", "model.batch_size=8", "augment.enabled=false", "train.age_loss_weight=0.1"]
    overrides += ["train.export_onnx=true", "model.mirrored=true"]
    history = train(compose(*training_overrides, *overrides))
    assert set(history.history) == {"epoch", "lr", *METRICS, *(f"val_{name}" for name in METRICS)}
    assert history.history["pred_gender_accuracy"][-1] >= 15 / 16
    assert history.history["pred_gender_loss"][-1] < 0.3
    log = pd.read_csv(folder / "MobileNet_32_log.csv")
    assert log["epoch"].tolist() == list(range(1, 16))
    np.testing.assert_allclose(log["val_loss"], history.history["val_loss"], rtol=1e-6)
    assert (folder / "MobileNet_32_curves.png").stat().st_size > 10_000

    best = int(np.argmin(log["val_loss"])) + 1
    file = folder / f"MobileNet_32_weights.{best:02d}-{log['val_loss'][best - 1]:.2f}.hdf5"
    info = weights.identify(file)
    assert (info.model_name, info.img_size, info.epoch, info.data) == ("MobileNet", 32, best, "faces.csv")
    assert info.metrics["val_pred_age_mae"] == pytest.approx(log["val_pred_age_mae"][best - 1])

    # The file predicts what validation measured: its metrics come out again.
    estimator = AgeGenderEstimator.load(file, mirrored=False)
    table = pd.read_csv(faces_csv).query("split == 'val'")
    faces = [read_image(faces_csv.with_suffix("") / name) for name in table["img_paths"]]
    ages, male_probability = estimator.predict(faces)
    assert np.abs(ages - table["ages"]).mean() == pytest.approx(info.metrics["val_pred_age_mae"], abs=1e-3)
    hits = (male_probability > 0.5) == (table["genders"] == 1)
    assert hits.mean() == pytest.approx(info.metrics["val_pred_gender_accuracy"])
    assert f"{info.metrics['val_pred_age_mae']:.2f} years" in estimator.describe()

    assert info.mirrored
    exported = AgeGenderEstimator.load(file.with_suffix(".onnx"), mirrored=False)
    np.testing.assert_allclose(exported.predict(faces)[0], estimator.predict(faces)[0], atol=1e-3)


@pytest.fixture(scope="module")
def warm():
    """`warm(script, *arguments)` starts a process that has imported Keras."""
    with warm_python() as start:
        yield start


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is of Unix")
def test_a_killed_run_goes_on_as_if_unbroken(tiny_network, in_this_process, training_overrides, tmp_path, warm):
    overrides = [*training_overrides, "train.epochs=4", "train.ema=0.9", "train.optimizer_name=adamw"]
    overrides += ["train.weight_decay=0.01", "train.schedule=cosine", "train.warmup_epochs=1", "model.dropout=0.1"]

    def log_of(folder: Path) -> pd.DataFrame:
        return pd.read_csv(folder / "MobileNet_32_log.csv")

    def run(moment: str, overrides: list[str]) -> tuple[int, str, str]:
        process = warm(ROOT / "tests" / "distributed_process.py", moment, *overrides)
        out, errors = process.communicate(timeout=1200)
        return process.returncode, out, errors

    unbroken = tmp_path / "unbroken"
    code, _, errors = run("never", [*overrides, f"train.checkpoint_dir={unbroken}"])
    assert code == 0, errors
    expected = log_of(unbroken)
    assert len(expected) == 4
    best = expected["val_loss"].idxmin() + 1
    for moment, kept in [
        ("batch", 2),
        ("MobileNet_32_weights", 2),
        ("MobileNet_32_resume", 2),
        ("MobileNet_32_log", 3),
    ]:
        folder = tmp_path / moment
        own = [*overrides, f"train.checkpoint_dir={folder}"]
        code, _, errors = run(moment, own)
        if moment == "MobileNet_32_weights" and code == 0:
            continue  # epoch 3 was no best one here, so that no weights were written in it
        assert code == -signal.SIGKILL, errors
        for file in folder.glob("MobileNet_32_weights*.hdf5"):
            weights.load_model(file)  # what stands under its name is whole
        code, out, errors = run("never", [*own, "train.resume=true"])
        assert code == 0, errors
        assert f"Resuming run MobileNet_32 in {folder} after epoch {kept} of 4." in out
        pd.testing.assert_frame_equal(log_of(folder), expected, rtol=1e-4)
        assert list(folder.glob(f"MobileNet_32_weights.{best:02d}-*.hdf5"))


@pytest.mark.slow
def test_ctrl_c_keeps_the_finished_epochs_and_says_how_to_resume(training_overrides, folder, warm):
    process = warm(TINY, *training_overrides, "train.epochs=500")
    wait_for(lambda: ["Epoch 3/"] if "\nEpoch 3/" in process.stdout.read_text() else [])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    epochs = read_state(folder / "MobileNet_32_resume.npz").epochs
    assert 2 <= epochs < 500
    last = errors.strip().splitlines()[-1]
    start, _, printed = last.partition("; resume with: ")
    assert start == f"interrupted: {epochs} of 500 epochs are kept in {folder / 'MobileNet_32_resume.npz'}"
    script, *arguments = shlex.split(printed)[1:]
    assert Path(script) == ROOT / "train.py"
    assert arguments == [*training_overrides, "train.epochs=500", "train.resume=true"]
    done = warm(TINY, *arguments, f"train.epochs={epochs}")
    out, errors = done.communicate()
    assert done.returncode == 0, errors
    assert f"All {epochs} epochs are done" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "event", "number"),
    [("stderr", "numpy._core", signal.SIGINT), ("stdout", "Run MobileNet_32", signal.SIGTERM)],
)
def test_a_stop_before_the_first_epoch(training_overrides, folder, stream, event, number):
    """By Ctrl-C while Python imports, and by SIGTERM while the table is read."""
    arguments = [*training_overrides, "train.epochs=500"]
    command = [sys.executable, *(["-X", "importtime"] if stream == "stderr" else []), TINY, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in getattr(process, stream):
            if event in line:
                process.send_signal(number)
                break
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + number, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("interrupted: no epoch is done")
    assert last.endswith(f"start again with: {shlex.join(['python', str(ROOT / 'train.py'), *arguments])}")
    assert "Traceback" not in errors
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(training_overrides, tmp_path):
    """The first is noted by a process that does not look at it."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from src import cli; cli.defer_interrupts();"
        "cli.set_interrupt_text(lambda: 'try again'); print('ready', flush=True)\n"
        "while True: time.sleep(0.1)"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("stopping as soon as the current step is done; press Ctrl-C again")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "interrupted: try again\n"
    assert process.returncode == 130


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_last_good_weights(
    training_overrides, folder, tmp_path, warm, monkeypatch
):
    """The limit on the size of a file stands in for the disk: weights fit (0.3 MB), the state (0.9 MB) does not."""
    pytest.importorskip("resource")
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    process = warm(script, ROOT / "train.py", *training_overrides)
    _, errors = process.communicate()
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"error: File too large: {folder / 'MobileNet_32_resume.npz'}; no epoch is done")
    assert last.endswith(f"start again with: {shlex.join(['python', str(ROOT / 'train.py'), *training_overrides])}")
    assert "Traceback" not in errors
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) == 1  # no half-written file beside it
    monkeypatch.setattr(backbones, "build", partial(distributed_process.build, filters=(8, 400)))
    weights.load_model(folder / files[0])


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(("file", "kept"), [("MobileNet_32_resume.npz", 1), ("MobileNet_32_curves.png", 2)])
def test_a_disk_full_in_the_second_epoch_says_what_is_kept_and_how_to_resume(
    compose, training_overrides, folder, monkeypatch, file, kept
):
    overrides, written = [*training_overrides, "train.epochs=3"], []

    def replace(part, path, real=os.replace):
        written.append(path.name)
        if written.count(file) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(part, path)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", replace)
        with pytest.raises(JobError) as raised:
            train(compose(*overrides), ("train.py", "train.py train.resume=true"))
    assert str(raised.value) == (
        f"No space left on device: {folder / file}; {kept} of 3 epochs are kept in"
        f" {folder / 'MobileNet_32_resume.npz'}; resume with: train.py train.resume=true"
    )
    assert read_state(folder / "MobileNet_32_resume.npz").epochs == kept
    assert len(train(compose(*overrides, "train.resume=true")).epoch) == 3
    assert list(pd.read_csv(folder / "MobileNet_32_log.csv")["epoch"]) == [1, 2, 3]


@pytest.mark.usefixtures("tiny_network")
def test_a_reader_that_closes_the_pipe_is_no_full_disk(compose, training_overrides, monkeypatch):
    def replace(part, path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(BrokenPipeError):
        train(compose(*training_overrides))


LIMITED = """
import resource, runpy, signal, sys
from functools import partial
from distributed_process import build
from src.models import backbones
backbones.build = partial(build, filters=(8, 400))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_resume_without_a_run_says_so(compose, training_overrides, folder):
    message = f"no run of MobileNet_32 to resume in {folder}; start a new run with train.resume=false"
    with pytest.raises(UserError, match=re.escape(message)):
        train(compose(*training_overrides, "train.resume=true"))


def test_resume_refuses_another_training(compose, training_overrides, folder):
    run, state = open_run(Config.check(compose(*training_overrides)))
    np.savez(run.resume, state=np.array(json.dumps(dataclasses.asdict(state))))
    run.release()
    with pytest.raises(UserError, match=r"train\.lr must be 0\.001 as in the run MobileNet_32, got 0\.5;"):
        open_run(Config.check(compose(*training_overrides, "train.resume=true", "train.lr=0.5", "train.epochs=9")))
    run, state = open_run(Config.check(compose(*training_overrides, "train.resume=true", "train.epochs=9")))
    run.release()
    assert (run.name, state.config["train"]["epochs"]) == ("MobileNet_32", 9)


def test_what_a_run_killed_after_its_last_epoch_lacks_is_written(compose, training_overrides, folder, monkeypatch):
    overrides = [*training_overrides, "train.export_onnx=true", "model.model_name=MobileNetV2"]
    run, state = open_run(Config.check(compose(*overrides)))
    state.history += [{"epoch": epoch, "loss": 1.0, "val_loss": loss} for epoch, loss in [(1, 2.5), (2, 3.0)]]
    np.savez(run.resume, state=np.array(json.dumps(dataclasses.asdict(state))))
    run.release()
    exported = []
    monkeypatch.setattr(importlib.import_module("src.training.train"), "export_beside", exported.append)
    history = train(compose(*overrides, "train.resume=true"))
    assert history.history["val_loss"] == [2.5, 3.0]
    assert list(pd.read_csv(run.log)["epoch"]) == [1, 2]
    assert run.curves.is_file()
    assert exported == []  # the weights are gone
    best = folder / "MobileNetV2_32_weights.01-2.50.hdf5"
    best.touch()
    train(compose(*overrides, "train.resume=true"))
    assert exported == []  # another's
    info = WeightsInfo("MobileNetV2", 32, 0.4, run=state.id)
    monkeypatch.setattr("src.training.callbacks.models.identify", lambda path: info)
    for _ in range(2):
        train(compose(*overrides, "train.resume=true"))
        best.with_suffix(".onnx").touch()
    assert exported == [best]


def test_resume_refuses_other_labels(tiny_network, compose, training_overrides, folder, faces_csv):
    """The names of tables may hold any characters, and the weight files name them."""
    table = faces_csv.rename(faces_csv.with_name("顔\u3000写真.csv"))
    overrides = [*(o for o in training_overrides if not o.startswith("data.db=")), f"data.db='{table}'"]
    overrides += [f"data.image_dir={faces_csv.with_suffix('')}", "train.steps_per_epoch=1", "train.validation_steps=1"]
    train(compose(*overrides, "train.epochs=1"))
    (file,) = folder.glob("*.hdf5")
    assert weights.identify(file).data == "顔\\u3000写真.csv"
    table.write_text(table.read_text().replace("\n0,", "\n1,", 1))
    with pytest.raises(UserError, match="rows, labels, margins and predictions must be those"):
        train(compose(*overrides, "train.epochs=2", "train.resume=true"))


def test_an_image_that_can_no_longer_be_read_is_a_missing_row(compose, training_overrides, faces_csv):
    cfg = Config.check(compose(*training_overrides))
    before = make_sequences(cfg)[-1]
    assert make_sequences(cfg)[-1] == before
    (faces_csv.with_suffix("") / "20.png").write_bytes(b"")
    damaged = make_sequences(cfg)[-1]
    (faces_csv.with_suffix("") / "20.png").unlink()
    assert before != damaged == make_sequences(cfg)[-1]


def test_resume_from_a_damaged_file(compose, training_overrides, folder):
    folder.mkdir()
    (folder / "MobileNet_32_resume.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="MobileNet_32_resume.npz is not the state of an earlier run"):
        train(compose(*training_overrides, "train.resume=true"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.db=nowhere.csv", "nowhere.csv"),
        ("data.margin=0.5", "data.margin must be in 0..0.4, the margin of face crops such as"),
    ],
)
def test_impossible_values_are_one_clear_line(compose, training_overrides, override, message):
    overrides = [o for o in training_overrides if o.split("=")[0] != override.split("=")[0]]
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        train(compose(*overrides, override))


@pytest.mark.slow
def test_train_py_as_a_command_with_wandb_offline(training_overrides, tmp_path, folder):
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    command = [sys.executable, str(ROOT / "train.py"), *training_overrides, "train.epochs=1", "wandb.project=faces"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"{name}: " in done.stdout for name in METRICS)
    assert len(list(folder.glob("*.hdf5"))) == 1
    records = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(records) == 1
    content = records[0].read_bytes()
    assert b"val_pred_age_mae" in content
    assert b"optimizer_name" in content
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/curves_*.png"))


def test_unknown_keys_fail_with_hydras_message():
    command = [sys.executable, str(ROOT / "train.py"), "train.learning_rate=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Key 'learning_rate' is not in struct" in done.stderr


def test_help_shows_the_keys_without_importing_a_backend():
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print('backends:', sorted({'keras', 'tensorflow', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "optimizer_name: adam" in done.stdout
    assert "backends: []" in done.stdout


def test_margin_is_the_smallest_of_the_tables_or_the_configured():
    table = pd.DataFrame({"margin": [0.4, 0.1, 0.4], "path": ["a", "b", "c"]})
    assert choose_margin(None, table) == 0.1
    assert choose_margin(0.05, table) == 0.05
    with pytest.raises(
        UserError, match=r"data\.margin must be in 0\.\.0\.1, the margin of face crops such as b, got 0\.4"
    ):
        choose_margin(0.4, table)


def test_age_class_weights_raise_rare_ages():
    table = pd.DataFrame({"age": [20.0] * 90 + [80.0] * 10 + [np.nan]})
    assert age_class_weights(table, 0.0) is None
    weights = age_class_weights(table, 1.0)
    assert weights.shape == (101,)
    assert weights[80] / weights[20] == pytest.approx(9)
    assert weights[table["age"].dropna().astype(int)].mean() == pytest.approx(1)
    half = age_class_weights(table, 0.5)
    assert half[80] / half[20] == pytest.approx(3)


def test_age_class_weights_are_equal_where_all_ages_are_equally_frequent():
    weights = age_class_weights(pd.DataFrame({"age": np.arange(101.0)}), 1.0)
    np.testing.assert_allclose(weights, 1)


def test_a_range_counts_in_equal_parts_for_its_ages():
    table = pd.DataFrame(
        {"age": [20.0, np.nan, np.nan], "age_min": [np.nan, 3, np.nan], "age_max": [np.nan, 6, np.nan]}
    )
    counts = age_counts(table)
    assert counts[20] == 1
    assert counts[3:7].tolist() == [0.25] * 4
    assert counts.sum() == 2


def test_age_error_by_hand():
    true, predicted = np.zeros((2, 101), np.float32), np.zeros((2, 101), np.float32)
    true[0, 30], predicted[0, 20], predicted[0, 30] = 1, 0.5, 0.5  # 30 against 25
    true[1, 10], predicted[1, 90] = 1, 1
    metric = AgeMeanAbsoluteError()
    metric.update_state(true, predicted, sample_weight=np.array([1, 0]))  # an unknown age does not count
    assert float(metric.result()) == pytest.approx(5)


def test_weight_average_by_hand():
    """Decay 0.5: after weights 1 (start), 2 and 4 the average is 0.5 * (0.5 * 1 + 0.5 * 2) + 0.5 * 4."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))
    model.compile("sgd")
    average = WeightAverage(model, 0.5)
    average.set_model(model)
    model.optimizer.iterations.assign(100)
    for value in (2.0, 4.0):
        model.weights[0].assign([[value]])
        average.on_train_batch_end(0)
    assert float(average.shadow[0].numpy()[0, 0]) == pytest.approx(2.75)
    with average.applied():
        assert model.get_weights()[0][0, 0] == pytest.approx(2.75)
    assert model.get_weights()[0][0, 0] == 4


def test_weight_average_begins_with_few_steps():
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    model.compile("sgd")
    average = WeightAverage(model, 0.999)
    average.set_model(model)
    model.optimizer.iterations.assign(1)
    model.weights[0].assign([[11.0]])
    average.on_train_batch_end(0)
    assert float(average.shadow[0].numpy()[0, 0]) == pytest.approx(9)  # decay 2/11


@pytest.mark.slow
def test_early_stopping(tiny_network, compose, training_overrides, capsys):
    overrides = ["train.early_stopping=1", "train.epochs=50", "train.lr=0"]  # nothing gets better after epoch 1
    overrides = [*training_overrides, *overrides, "augment.enabled=false"]
    epochs = len(train(compose(*overrides)).history["loss"])
    assert 2 <= epochs < 10
    assert len(train(compose(*overrides, "train.resume=true")).history["loss"]) == epochs
    assert f"All {epochs} epochs are done (training ended early); raise train.early_stop" in capsys.readouterr().out


@pytest.mark.slow
def test_wandb_without_a_login_is_one_line_before_training(training_overrides, tmp_path, folder):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "train.py"), *training_overrides, "wandb.project=faces"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 2
    assert "error: wandb needs a login; run `wandb login`" in done.stderr
    assert not folder.exists()
    assert "Traceback" not in done.stderr
