"""Training on several devices of a machine and in several processes.

On JAX both go through `keras.distribution`: every variable is on all devices, every step's batch is divided among them,
and the step computes what one device would, batch norm included. On TensorFlow several devices of one machine run under
its MirroredStrategy, whose batch norm is per device.
"""

import dataclasses
import io
import os
import re
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Literal

import keras
import numpy as np

from src import cli, models
from src.cli import JobError, UserError
from src.training.config import Config

HEARTBEAT_SECONDS = 20
"""A process that JAX has not heard of for so long counts as ended, and all others end."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes and devices that train together."""

    processes: int = 1
    process_id: int = 0  # of this one; process 0 writes the files
    devices: int = 1  # of all processes together

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints progress."""
        return self.process_id == 0

    @property
    def share(self) -> tuple[int, int]:
        """What `ImageSequence` takes."""
        return self.process_id, self.processes

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Sum the arrays of all processes; they have one shape."""
        return array if self.processes == 1 else models.gather(array).sum(axis=0)

    def text_from_first(self, make: Callable[[], str]) -> str:
        """Return what `make`, called in process 0 only, returns there."""
        if self.processes == 1:
            return make()
        data = np.frombuffer(make().encode() if self.is_first else b"", np.uint8)
        length = int(self.sum(np.array(len(data), np.int32)))
        return models.broadcast(np.resize(data, length)).tobytes().decode()

    def arrays_from_first(self, make: Callable[[], list[np.ndarray]], like: list[np.ndarray]) -> list[np.ndarray]:
        """Return what `make`, called in process 0 only and outside of the distribution, returns there.

        The arrays have the shapes of `like`, which all processes know, and are converted to its types.
        """
        if self.processes == 1:
            return make()
        arrays = like
        if self.is_first:
            with _on_one_device():
                arrays = make()
        packed = b"".join(np.asarray(array, model.dtype).tobytes() for array, model in zip(arrays, like, strict=True))
        packed = models.broadcast(np.frombuffer(packed, np.uint8)).tobytes()
        ends = np.cumsum([array.nbytes for array in like])
        return [
            np.frombuffer(packed[end - array.nbytes : end], array.dtype).reshape(array.shape)
            for array, end in zip(like, ends, strict=True)
        ]

    def require_same(self, value: str, what: str) -> None:
        """Raise `UserError` unless `value` is the same in all processes; else they would wait for each other."""
        if self.text_from_first(lambda: value) != value:
            raise UserError(
                f"the {what} must be the same in every process, got another in process {self.process_id} than in "
                "process 0; start all with the same command but for distributed.process_id"
            )


ALONE = Group()
"""One process with one device."""


@contextmanager
def join(cfg: Config) -> Iterator[Group]:
    """Join this process with the others and take the devices, for the time of a training.

    Within it, processes other than the first print to stderr only. When one ends, JAX ends the others within
    `HEARTBEAT_SECONDS`, with a nonzero exit code.

    Args:
        cfg: Reads `distributed.*`, `train.devices`, `train.batch_size`, `train.seed`.

    Raises:
        UserError: the keys ask for something impossible, or the backend cannot do it.
        JobError: the connection with another process is lost.
    """
    keras.utils.set_random_seed(cfg.train.seed)
    processes, process_id = _meet(cfg)
    if processes == 1:
        with _use_devices(cfg) as count:
            yield Group(devices=count)
        return
    stdout = io.StringIO() if process_id else sys.stdout
    with redirect_stdout(stdout), _ending_together(process_id), _use_all_devices(processes, process_id, cfg) as count:
        yield Group(processes, process_id, count)


@contextmanager
def _ending_together(process_id: int) -> Iterator[None]:
    """Say in one line that another process has ended; JAX raises exceptions of several types.

    Process 0 waits 5 seconds after an error: the others lose JAX's service with it, and may be about to end too.
    """
    try:
        yield
    except BaseException as error:
        time.sleep(0 if process_id else 5)
        lost = re.search(r"Gloo|NCCL|UNAVAILABLE|[Cc]oordination|[Cc]onnection", str(error))
        if not lost or not isinstance(error, Exception) or isinstance(error, UserError | JobError | OSError):
            raise
        cli.raise_if_interrupted()  # in a terminal Ctrl-C reaches all processes
        raise JobError(
            "another process of this training has ended, or its machine is down; start all processes again with "
            "train.resume=true"
        ) from error


@contextmanager
def _use_devices(cfg: Config) -> Iterator[int]:
    """Take as many of the machine's devices as `train.devices` says, for a single process."""
    wanted, name = cfg.train.devices, keras.backend.backend()
    available = keras.distribution.list_devices() if name == "jax" else models.device_names()
    count = len(available) if wanted == "auto" else wanted
    if count > len(available):
        more = "; the backend torch trains on one, KERAS_BACKEND=jax on several" if name == "torch" else ""
        raise UserError(
            f"train.devices must be auto or in 1..{len(available)}, the devices that {name} sees, got {count}{more}"
        )
    check_batch_size(cfg.train.batch_size, count)
    if count == 1:
        scope = nullcontext()
    elif name == "jax":
        scope = keras.distribution.DataParallel(devices=available[:count], auto_shard_dataset=False).scope()
    else:
        scope = models.mirrored_scope(available[:count])
    with scope:
        yield count


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raise `UserError` unless the devices divide a batch."""
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"model.batch_size must be a multiple of the {devices} devices, got {batch_size}; "
            f"use {nearest}, or another train.devices"
        )


def _meet(cfg: Config) -> tuple[int, int]:
    """Connect the processes of a training; return their number and this one's."""
    keys, environment = cfg.distributed, os.environ
    launched = environment.get("OMPI_COMM_WORLD_SIZE") or environment.get("SLURM_STEP_NUM_TASKS")
    processes = {"off": 1, "on": keys.processes, "auto": int(launched or 0)}[keys.mode]
    if processes == 0:
        raise UserError("distributed.mode=auto needs a start by Slurm (srun) or Open MPI (mpirun); otherwise use on")
    if processes == 1:
        return 1, 0
    if keras.backend.backend() != "jax":
        raise UserError(
            f"a training of {processes} processes needs KERAS_BACKEND=jax, got {keras.backend.backend()}; "
            "start with KERAS_BACKEND=jax python train.py ..."
        )
    if keys.mode == "on" and keys.coordinator is not None:
        _check_coordinator(keys.coordinator, keys.process_id)
        return models.join_processes(keys.coordinator, processes, keys.process_id, HEARTBEAT_SECONDS)
    describe_open_mpi_5(environment, keys.coordinator)
    local_id = environment.get("OMPI_COMM_WORLD_LOCAL_RANK") or environment.get("SLURM_LOCALID")
    environment.setdefault("JAX_LOCAL_DEVICE_IDS", local_devices(int(local_id or 0), cfg.train.devices, environment))
    return models.join_processes(keys.coordinator, None, None, HEARTBEAT_SECONDS)


def local_devices(local_id: int, devices: int | Literal["auto"], environment: Mapping[str, str]) -> str:
    """Choose which GPUs of its machine a process takes, as JAX's variable `JAX_LOCAL_DEVICE_IDS`.

    The processes of a machine share its GPUs: one each, or `devices` each. Where the launcher shows a process its own
    GPUs only (`CUDA_VISIBLE_DEVICES` of as many), it takes these. `local_id` numbers the processes of the machine.
    """
    each = 1 if devices == "auto" else devices
    visible = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    first = 0 if len(visible) == each else local_id * each
    return ",".join(str(number) for number in range(first, first + each))


def describe_open_mpi_5(environment: MutableMapping[str, str], coordinator: str | None) -> None:
    """Set the variable of Open MPI 4 from which JAX reads where process 0 is; version 5 has none.

    Raises:
        UserError: several machines, and no coordinator.
    """
    variable = "OMPI_MCA_orte_hnp_uri"
    if "OMPI_COMM_WORLD_SIZE" not in environment or variable in environment:
        return
    if coordinator is None and environment["OMPI_COMM_WORLD_LOCAL_SIZE"] != environment["OMPI_COMM_WORLD_SIZE"]:
        raise UserError(
            "with this version of Open MPI distributed.coordinator must be HOST:PORT on several machines, got None; "
            "name the machine of process 0 and a free port"
        )
    job = zlib.crc32(environment.get("PMIX_NAMESPACE", str(os.getppid())).encode())
    environment[variable] = f"{job}.0;tcp://127.0.0.1:1"


def _check_coordinator(coordinator: str, process_id: int) -> None:
    """For process 0 the port must be free, for the others the host must be known; JAX would abort."""
    host, port = coordinator.rsplit(":", 1)
    key = "distributed.coordinator"
    try:
        if process_id == 0:
            socket.create_server(("", int(port))).close()
        else:
            socket.getaddrinfo(host.strip("[]"), int(port))
    except socket.gaierror as error:
        raise UserError(f"{key} must name the machine of process 0, got {coordinator} ({error.strerror})") from error
    except OSError as error:
        raise UserError(f"{key} must name a free port of this machine, got {coordinator} ({error.strerror})") from error


@contextmanager
def _use_all_devices(processes: int, process_id: int, cfg: Config) -> Iterator[int]:
    """Take all devices that JAX sees, as many in every process."""
    local, count = models.local_device_count(), len(keras.distribution.list_devices())
    wanted = cfg.train.devices
    if wanted not in ("auto", local) or local * processes != count:
        raise UserError(
            f"every process must have the same number of devices, train.devices={wanted}, got {local} in process "
            f"{process_id} and {count} in all {processes}"
        )
    check_batch_size(cfg.train.batch_size, count)
    with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
        yield count


@contextmanager
def _on_one_device() -> Iterator[None]:
    """Create new variables on the first device of this process alone."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
