"""Training on several devices of a machine and in several processes.

On JAX both go through `keras.distribution`: every variable is on all devices, every step's batch is divided among them,
and the step computes what one device would, batch norm included. On TensorFlow several devices of one machine run under
its MirroredStrategy, whose batch norm is per device.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import keras
import numpy as np
from omegaconf import DictConfig

from src import models
from src.cli import JobError, UserError
from src.training.launchers import Place, check_whole, choose_local_devices, find_place
from src.training.peers import TOKEN_BYTES, Peers, accept_all, connect, listen

START_SECONDS = 300
"""How long the processes wait for each other at the start; JAX's own limit."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes and devices that train together.

    Attributes:
        processes: Number of processes.
        process_id: This one's number, from 0; process 0 writes the files.
        devices: Devices of all processes together.
    """

    processes: int = 1
    process_id: int = 0
    devices: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.process_id == 0

    @property
    def share(self) -> tuple[int, int]:
        """What `ImageSequence` takes."""
        return self.process_id, self.processes

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of the arrays of all processes; they have one shape."""
        return array if self.processes == 1 else models.gather(array).sum(axis=0)

    def text_from_first(self, make: Callable[[], str]) -> str:
        """What `make`, called in process 0 only, gives there."""
        if self.processes == 1:
            return make()
        data = np.frombuffer(make().encode() if self.is_first else b"", np.uint8)
        length = int(self.sum(np.array(len(data), np.int32)))
        return models.broadcast(np.resize(data, length)).tobytes().decode()

    def arrays_from_first(self, make: Callable[[], list[np.ndarray]], like: list[np.ndarray]) -> list[np.ndarray]:
        """What `make`, called in process 0 only and outside of the distribution, gives there.

        Args:
            make: Gives arrays of the shapes of `like`; they are converted to its types.
            like: Any arrays of the right shapes and types, known in all processes.
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
        """Raises `UserError` unless `value` is the same in all processes; else they would wait for each other."""
        if self.text_from_first(lambda: value) != value:
            raise UserError(
                f"expected the same {what} in every process, received others in process {self.process_id} than in "
                "process 0; start all with the same command but for distributed.process_id"
            )


ALONE = Group()
"""One process with one device."""


@contextmanager
def join(cfg: DictConfig) -> Iterator[Group]:
    """Joins this process with the others and takes the devices, for the time of a training.

    Within it, processes other than the first print to stderr only. When one fails, all end.

    Args:
        cfg: The configuration of a training; reads `distributed.*`, `train.devices`, `train.batch_size`, `train.seed`.

    Raises:
        UserError: the keys ask for something impossible, or the backend cannot do it.
        JobError: the other processes cannot be reached.
    """
    devices = cfg.train.devices
    if devices != "auto":
        check_whole(devices, "train.devices (which may be auto too)", 1, None)
    place = find_place(cfg.distributed)
    keras.utils.set_random_seed(cfg.train.seed)
    if place.processes == 1:
        with _use_devices(cfg) as count:
            yield Group(devices=count)
        return
    peers = _meet(place, devices)
    try:
        with _quiet(place.process_id > 0), _use_all_devices(place, cfg) as count:
            yield Group(place.processes, place.process_id, count)
    except BaseException as error:
        peers.leave(error)
        raise
    peers.leave()


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    if not quiet:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def _use_devices(cfg: DictConfig) -> Iterator[int]:
    """One process: as many of the machine's devices as `train.devices` says."""
    wanted, name = cfg.train.devices, keras.backend.backend()
    available = keras.distribution.list_devices() if name == "jax" else models.device_names()
    count = len(available) if wanted == "auto" else wanted
    if count > len(available):
        more = "; the backend torch trains on one, KERAS_BACKEND=jax on several" if name == "torch" else ""
        raise UserError(
            f"expected train.devices to be auto or 1..{len(available)}, the devices that {name} sees, received "
            f"{count}{more}; correct train.devices"
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
    """Raises `UserError` unless the devices divide a batch."""
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"expected model.batch_size to be a multiple of the {devices} devices, received {batch_size}; "
            f"use {nearest}, or another train.devices"
        )


def _meet(place: Place, devices: int | str) -> Peers:
    """Starts JAX's own connection of the processes, then ours, by which they end together."""
    if keras.backend.backend() != "jax":
        raise UserError(
            f"expected KERAS_BACKEND=jax for a training of {place.processes} processes, received "
            f"{keras.backend.backend()}; start with KERAS_BACKEND=jax python train.py ..."
        )
    host, port = place.coordinator.rsplit(":", 1)
    host = host.strip("[]")  # of IPv6; JAX wants them, sockets do not
    _check_coordinator(host, int(port), place.process_id)
    local_devices = choose_local_devices(place, devices)
    if local_devices is not None:
        os.environ.setdefault("JAX_LOCAL_DEVICE_IDS", local_devices)
    keras.distribution.initialize(place.coordinator, place.processes, place.process_id)
    server, token = listen() if place.process_id == 0 else (None, bytes(TOKEN_BYTES))
    port = server.getsockname()[1] if server else 0
    known = models.broadcast(np.frombuffer(port.to_bytes(4, "big") + token, np.uint8)).tobytes()
    if server:
        connections = accept_all(server, token, place.processes)
    else:
        connections = connect(host, int.from_bytes(known[:4], "big"), known[4:], place.process_id)
    return Peers(place.process_id, place.processes, connections)


def _check_coordinator(host: str, port: int, process_id: int) -> None:
    """Process 0: the port is free; the others: something answers there. JAX would abort, or wait without a word."""
    if process_id == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UserError(
                f"expected a free port on this machine, received distributed.coordinator={host}:{port} "
                f"({error.strerror}); choose another port"
            ) from error
        return
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, port), 5).close()
            return
        except socket.gaierror as error:
            raise UserError(
                f"expected distributed.coordinator to name the machine of process 0, received {host}:{port} "
                f"({error.strerror}); correct it"
            ) from error
        except OSError as error:
            if time.monotonic() > end:
                raise JobError(
                    f"expected process 0 at {host}:{port}, received {error} for {START_SECONDS} seconds; start process "
                    "0, and see that this machine can reach it"
                ) from error
            time.sleep(1)


@contextmanager
def _use_all_devices(place: Place, cfg: DictConfig) -> Iterator[int]:
    """Several processes: all devices that JAX sees; as many in every process."""
    local, count = models.local_device_count(), len(keras.distribution.list_devices())
    wanted = cfg.train.devices
    if wanted not in ("auto", local) or local * place.processes != count:
        raise UserError(
            f"expected the same number of devices in every process, train.devices or auto, received {local} in process "
            f"{place.process_id}, {count} in all {place.processes} and train.devices={wanted}; correct train.devices"
        )
    check_batch_size(cfg.train.batch_size, count)
    with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
        yield count


@contextmanager
def _on_one_device() -> Iterator[None]:
    """Within it new variables are on the first device of this process alone."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
