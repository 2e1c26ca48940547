"""Trainings in processes of their own: three backends, several devices, several processes.

Augmentation is on, mixup off. 16 rows of training and 8 of validation in batches of 12: both last batches are odd.
"""

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import distributed_process
import keras
import numpy as np
import pandas as pd
import pytest
from warm_python import WarmProcess, warm_python

from src import models
from src.cli import ROOT, UserError
from src.images.io import write_image
from src.models import WeightsInfo, backbones
from src.training.config import Config
from src.training.distributed import ALONE, Group, check_batch_size, describe_open_mpi_5, join, local_devices
from src.training.resume import ResumeFile
from src.training.train import open_run, train

LOSSES = ["loss", "pred_gender_loss", "pred_age_loss", "val_loss", "val_pred_gender_loss", "val_pred_age_loss"]
STEM = "MobileNet_32"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with `faces.csv`, `faces` (brightness tells age, colour gender) and `start.hdf5`."""
    root = tmp_path_factory.mktemp("distribution")
    rng = np.random.default_rng(0)
    (root / "faces").mkdir()
    lines = ["genders,ages,img_paths,split"]
    for i in range(24):
        gender, age = i % 2, int(rng.integers(0, 101))
        image = np.full((40, 40, 3), age * 2, np.uint8)
        image[..., 2 * gender] = 255 - age
        image += rng.integers(0, 20, image.shape, dtype=np.uint8)
        write_image(root / "faces" / f"{i:02d}.png", image)
        lines.append(f"{gender},{age},{i:02d}.png,{'train' if i < 16 else 'val'}")
    (root / "faces.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "build", distributed_process.build)
        keras.utils.set_random_seed(0)
        models.save_weights(models.get_model("MobileNet", 32), root / "start.hdf5", WeightsInfo("MobileNet", 32, 0.4))
    return root


Start = Callable[..., WarmProcess | subprocess.Popen]


@pytest.fixture(scope="module")
def warm_jax(tmp_path_factory):
    """Starts processes that have imported JAX, that share what they compile and do not optimise it: it runs seconds."""
    cache = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    cache |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    with warm_python(KERAS_BACKEND="jax", **cache) as start:
        yield start


@pytest.fixture
def start(data, tmp_path, warm_jax):
    """`start(*overrides, folder=..., moment=..., **environment)` begins a training; what still runs is killed after."""
    processes = []

    def start_process(*overrides: str, folder: Path = tmp_path / "run", moment: str = "never", **environment: str):
        process = start_training(warm_jax, data, folder, overrides, moment, environment)
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def start_training(warm_jax: Start, data: Path, folder: Path, overrides, moment: str, environment):
    command = [
        str(ROOT / "tests" / "distributed_process.py"),
        moment,
        f"data.db={data / 'faces.csv'}",
        f"data.image_dir={data / 'faces'}",
        f"model.weights={data / 'start.hdf5'}",
        f"train.checkpoint_dir={folder}",
        "model.model_name=MobileNet",
        "model.img_size=32",
        "model.batch_size=12",
        "train.optimizer_name=sgd",
        "train.lr=0.01",
        "train.schedule=constant",
        "train.epochs=2",
        "train.workers=0",
        "train.export_onnx=false",
        "train.ema=0.5",
        "augment.mixup_alpha=0",
        *overrides,
    ]
    if environment["KERAS_BACKEND"] == "jax":
        return warm_jax(*command, **environment)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command], stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
    )


def finish(process: WarmProcess | subprocess.Popen, code: int = 0, timeout: float = 900) -> tuple[str, str]:
    """What it printed to stdout and stderr."""
    out, errors = process.communicate(timeout=timeout)
    assert process.returncode == code, errors
    return out, errors


def losses(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / f"{STEM}_log.csv")[LOSSES]


def assert_losses(folder: Path, expected: pd.DataFrame, rtol: float) -> None:
    found = losses(folder)
    pd.testing.assert_frame_equal(found, expected.iloc[: len(found)], rtol=rtol, atol=0)


@pytest.fixture(scope="module")
def reference(data, warm_jax, tmp_path_factory) -> pd.DataFrame:
    """The losses of four epochs on JAX, in one process with one device."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start_training(warm_jax, data, folder, ["train.epochs=4"], "never", {"KERAS_BACKEND": "jax"}))
    table = losses(folder)
    assert len(table) == 4
    return table


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start_group(start: Start, count: int, *overrides: str, moments: dict[int, str] | None = None, **kwargs):
    """Begins `count` processes that train together."""
    port = free_port()
    return [
        start(
            "distributed.mode=on",
            f"distributed.processes={count}",
            f"distributed.process_id={number}",
            f"distributed.coordinator=127.0.0.1:{port}",
            *overrides,
            moment=(moments or {}).get(number, "never"),
            KERAS_BACKEND="jax",
            **kwargs,
        )
        for number in range(count)
    ]


@pytest.mark.slow
def test_tensorflow_computes_the_losses_of_jax(start, reference, tmp_path):
    finish(start(KERAS_BACKEND="tensorflow"))
    assert_losses(tmp_path / "run", reference, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is optional: pip install torch")
def test_torch_computes_the_losses_of_jax(start, reference, tmp_path):
    finish(start(KERAS_BACKEND="torch"))
    assert_losses(tmp_path / "run", reference, rtol=1e-3)


def jax_devices(count: int) -> dict[str, str]:
    return {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


@pytest.mark.slow
def test_four_devices_of_jax_compute_the_losses_of_one(start, reference, tmp_path):
    finish(start(**jax_devices(4)))
    assert_losses(tmp_path / "run", reference, rtol=1e-4)


@pytest.mark.slow
def test_a_batch_that_the_devices_do_not_divide_is_refused(start):
    _, errors = finish(start("model.batch_size=13", "train.devices=3", **jax_devices(4)), code=2)
    assert errors.strip().splitlines()[-1] == (
        "error: model.batch_size must be a multiple of the 3 devices, got 13; use 12 or 15, or another train.devices"
    )


@pytest.mark.slow
def test_mirrored_strategy_runs_and_learns(start, tmp_path):
    overrides = ["train.epochs=12", "train.optimizer_name=adam", "augment.enabled=false"]
    finish(start(*overrides, KERAS_BACKEND="tensorflow", CPU_DEVICES="2"))
    log = pd.read_csv(tmp_path / "run" / f"{STEM}_log.csv")
    assert log["loss"].iloc[-1] < 0.75 * log["loss"][0]
    assert log["pred_age_mae"].iloc[-1] < 0.75 * log["pred_age_mae"][0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_compute_the_losses_of_one(start, reference, tmp_path, count):
    outputs = [finish(process) for process in start_group(start, count)]
    assert_losses(tmp_path / "run", reference, rtol=1e-4)
    assert "Epoch 2/2" in outputs[0][0]
    for out, _ in outputs[1:]:  # process 0 alone talks; Gloo, by which JAX's processes talk to each other, is no Python
        assert [line for line in out.splitlines() if not line.startswith("[Gloo]")] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
def test_sigterm_is_noted_in_a_group_of_processes():
    join = f"models.join_processes('127.0.0.1:{free_port()}', 1, 0, 20)"
    main = f"def main():\n {join}\n print('ready', flush=True)\n while True: cli.raise_if_interrupted()"
    script = f"from src import cli, models\n{main}\ncli.defer_interrupts()\ncli.end(cli.call(main))"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        try:
            assert process.wait(timeout=60) == 128 + signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is of Unix")
@pytest.mark.parametrize(("count", "victim", "counts_after"), [(3, 1, [2, 1]), (2, 0, [2])])
def test_a_killed_process_ends_the_others_and_any_number_resumes(
    start, reference, tmp_path, count, victim, counts_after
):
    """The kill comes in the middle of epoch 3."""
    folder = tmp_path / "run"
    processes = start_group(start, count, "train.epochs=4", moments={victim: "batch"})
    finish(processes[victim], code=-signal.SIGKILL)
    killed = time.monotonic()
    others = [process for process in processes if process is not processes[victim]]
    outputs = [process.communicate(timeout=300) for process in others]
    assert time.monotonic() - killed < 90  # 25 seconds on an idle machine, 60 promised
    assert all(process.returncode for process in others)  # 1, or -6 where JAX itself ends the process first
    for _, errors in outputs:
        assert "Traceback" not in errors
    for count_after in counts_after:
        own = tmp_path / f"resumed_by_{count_after}"
        shutil.copytree(folder, own)
        resumed = start_group(start, count_after, "train.epochs=4", "train.resume=true", folder=own)
        outputs = [finish(process) for process in resumed]
        assert f"Resuming run {STEM} in {own} after epoch 2 of 4." in outputs[0][0]
        assert len(losses(own)) == 4
        assert_losses(own, reference, rtol=1e-4)


@pytest.mark.slow
def test_a_mistake_is_one_line_in_every_process(start, tmp_path):
    for process in start_group(start, 2, "model.batch_size=13"):
        _, errors = finish(process, code=2)
        line = errors.strip().splitlines()[-1]
        assert line.startswith("error: model.batch_size must be a multiple of the 2 devices, got 13; use 12")
        assert "Traceback" not in errors
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.slow
def test_an_occupied_port_is_one_line(start):
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        keys = ["distributed.mode=on", "distributed.processes=2", f"distributed.coordinator={address}"]
        _, errors = finish(start(*keys, KERAS_BACKEND="jax"), code=2)
    assert f"error: distributed.coordinator must name a free port of this machine, got {address}" in errors
    assert "Traceback" not in errors


def test_more_devices_than_there_are(compose, training_overrides):
    with pytest.raises(UserError, match=re.escape("train.devices must be auto or in 1..1, the devices that")):
        train(compose(*training_overrides, "train.devices=99"))


def test_a_mode_without_its_launcher(compose, training_overrides, monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # begun without srun
    with pytest.raises(UserError, match=re.escape("distributed.mode=auto needs a start by Slurm (srun) or Open MPI")):
        train(compose(*training_overrides, "distributed.mode=auto"))


def test_off_is_one_process_whatever_started_it(compose, training_overrides, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with join(Config.check(compose(*training_overrides))) as group:
        assert (group.processes, group.process_id) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "open_mpi_4", "open_mpi_5"])
def test_a_launcher_says_the_place(start, reference, tmp_path, launcher):
    """The variables that Slurm's and Open MPI's processes get, on one machine."""
    job = random.SystemRandom().randrange(100, 4000)

    def variables(number: int) -> dict[str, str]:
        if launcher == "slurm":
            steps = {
                "SLURM_JOB_ID": job,
                "SLURM_STEP_NUM_TASKS": 2,
                "SLURM_NTASKS": 2,
                "SLURM_STEP_NODELIST": "localhost",
            }
            return steps | {"SLURM_PROCID": number, "SLURM_LOCALID": number}
        kinds = {"SIZE": 2, "LOCAL_SIZE": 2, "RANK": number, "LOCAL_RANK": number}
        where = {
            "open_mpi_4": {"OMPI_MCA_orte_hnp_uri": f"{job * 4096}.0;tcp://127.0.0.1:34911"},
            "open_mpi_5": {"PMIX_NAMESPACE": f"prterun-login1-{job}@1"},
        }
        return {f"OMPI_COMM_WORLD_{name}": value for name, value in kinds.items()} | where[launcher]

    processes = [
        start("distributed.mode=auto", KERAS_BACKEND="jax", **{k: str(v) for k, v in variables(number).items()})
        for number in range(2)
    ]
    for process in processes:
        finish(process)
    assert_losses(tmp_path / "run", reference, rtol=1e-4)


def test_open_mpi_5_on_several_machines_needs_a_coordinator():
    variables = {
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "PMIX_NAMESPACE": "prterun-login1-77@1",
    }
    with pytest.raises(UserError, match=re.escape("distributed.coordinator must be HOST:PORT on several machines")):
        describe_open_mpi_5(variables, None)
    describe_open_mpi_5(variables, "a:1")
    assert "OMPI_MCA_orte_hnp_uri" in variables


@pytest.mark.parametrize(
    ("local_id", "devices", "visible", "chosen"),
    [
        (2, "auto", "", "2"),
        (2, "auto", "0,1,2,3", "2"),
        (2, "auto", "2", "0"),  # the launcher shows each process its own
        (1, 2, "0,1,2,3", "2,3"),
        (1, 2, "2,3", "0,1"),
        (1, 2, "", "2,3"),
    ],
)
def test_gpus_of_a_process(local_id, devices, visible, chosen):
    assert local_devices(local_id, devices, {"CUDA_VISIBLE_DEVICES": visible}) == chosen


@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") == "jax", reason="it is the right backend")
def test_several_processes_want_jax(compose, training_overrides):
    keys = ["distributed.mode=on", "distributed.processes=2", "distributed.coordinator=127.0.0.1:4321"]
    with pytest.raises(UserError, match="a training of 2 processes needs KERAS_BACKEND=jax, got"):
        train(compose(*training_overrides, *keys))


def test_one_process_of_one_needs_no_coordinator_to_answer(compose, training_overrides):
    keys = ["distributed.mode=on", "distributed.coordinator=127.0.0.1:4321"]
    with join(Config.check(compose(*training_overrides, *keys))) as group:
        assert group == Group(processes=1, process_id=0, devices=1)


def test_batch_sizes_that_the_devices_divide():
    check_batch_size(12, 4)
    with pytest.raises(UserError, match="multiple of the 8 devices, got 20; use 16 or 24"):
        check_batch_size(20, 8)
    with pytest.raises(UserError, match="multiple of the 8 devices, got 5; use 8,"):
        check_batch_size(5, 8)


def test_one_process_is_its_own_group():
    assert (ALONE.is_first, ALONE.share) == (True, (0, 1))
    np.testing.assert_array_equal(ALONE.sum(np.array([1, 2])), [1, 2])
    assert ALONE.text_from_first(lambda: "Zoë") == "Zoë"
    ALONE.require_same("anything", "value")
    assert ALONE.arrays_from_first(lambda: [np.ones(2)], [np.zeros(2)])[0].tolist() == [1, 1]


def test_a_resume_file_says_nothing_of_the_number_of_processes(compose, training_overrides, tmp_path):
    """Keys of the group may change when a run is resumed."""
    run, state = open_run(Config.check(compose(*training_overrides)))
    ResumeFile(run.resume, _no_variables()).save(state)
    run.release()
    keys = ["train.resume=true", "train.devices=4", "distributed.mode=on", "distributed.processes=8"]
    keys.append("distributed.coordinator=10.0.0.1:4321")
    resumed, _ = open_run(Config.check(compose(*training_overrides, *keys)))
    assert resumed.name == run.name
    resumed.release()


def _no_variables():
    class Nothing:
        variables = ()

    model = Nothing()
    model.optimizer = Nothing()
    return model
