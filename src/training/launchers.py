"""Which process of a training this is, by the configuration or by Slurm's or Open MPI's variables. No Keras here."""

import dataclasses
import os
import re
import zlib
from collections.abc import Mapping

from omegaconf import DictConfig

from src.cli import UserError

MODES = ("off", "on", "auto")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands among the processes of a training.

    Attributes:
        processes: Number of processes.
        process_id: This one's number, from 0.
        coordinator: `HOST:PORT` at which process 0 can be reached; None for a single process.
        local_id: Number among the processes of this machine, or None where that is not known.
    """

    processes: int = 1
    process_id: int = 0
    coordinator: str | None = None
    local_id: int | None = None


def find_place(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> Place:
    """Which process of how many this is.

    Args:
        cfg: Keys `mode`, `processes`, `process_id` and `coordinator` of `distributed` in `src/config.yaml`.
        environment: Variables of Slurm or Open MPI, for mode "auto".

    Raises:
        UserError: a key is missing or impossible, or neither Slurm nor Open MPI started this process.
    """
    if cfg.mode not in MODES:
        raise UserError(f"expected distributed.mode to be one of {', '.join(MODES)}, received {cfg.mode!r}; correct it")
    if cfg.mode == "off":
        return Place()
    place = _place_of_config(cfg) if cfg.mode == "on" else _place_of_launcher(cfg.coordinator, environment)
    return Place() if place.processes == 1 else place


def _place_of_config(cfg: DictConfig) -> Place:
    check_whole(cfg.processes, "distributed.processes", 1, None)
    check_whole(cfg.process_id, "distributed.process_id", 0, cfg.processes - 1)
    return Place(cfg.processes, cfg.process_id, _checked_address(cfg.coordinator))


def check_whole(value, name: str, least: int, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= (value if most is None else most):
        expected = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise UserError(f"expected {name} to be a whole number {expected}, received {value!r}; correct it")


def _checked_address(address) -> str:
    match = re.fullmatch(r"(.+):([0-9]{1,5})", str(address))
    if match is None or not 0 < int(match[2]) < 65536:
        raise UserError(
            f"expected distributed.coordinator=HOST:PORT, where process 0 can be reached, received {address}; "
            "give for instance distributed.coordinator=10.0.0.1:4321"
        )
    return str(address)


def _place_of_launcher(coordinator: str | None, environment: Mapping[str, str]) -> Place:
    if "OMPI_COMM_WORLD_RANK" in environment:
        place = _place_of_open_mpi(environment, coordinator)
    elif "SLURM_STEP_NUM_TASKS" in environment:
        place = _place_of_slurm(environment, coordinator)
    else:
        found = ", begun without srun" if "SLURM_JOB_ID" in environment else ""
        raise UserError(
            "expected a start by Slurm (srun) or Open MPI (mpirun) for distributed.mode=auto, received "
            f"neither{found}; start with one of them, or use distributed.mode=on or off"
        )
    return place if coordinator is None else dataclasses.replace(place, coordinator=_checked_address(coordinator))


def _place_of_slurm(environment: Mapping[str, str], coordinator: str | None) -> Place:
    """Slurm's variables of a job step: https://slurm.schedmd.com/srun.html, "Output environment variables"."""
    host = first_host(environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"])
    return Place(
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_PROCID"]),
        f"{host}:{job_port(int(environment['SLURM_JOB_ID']))}",
        int(environment["SLURM_LOCALID"]),
    )


def first_host(hosts: str) -> str:
    """The first of Slurm's compressed list of hosts, such as `gpu[03-05,09],login1` or `rack1-n[1-2]`."""
    head, bracket, rest = re.match(r"([^,\[]+)(\[?)(.*)", hosts).groups()
    return head + re.match(r"[0-9]+", rest)[0] if bracket else head


def job_port(job: int) -> int:
    """A port in 61440..65535 that all processes of a job know and jobs beside it hardly share."""
    return 61440 + job % 4096


def _place_of_open_mpi(environment: Mapping[str, str], coordinator: str | None) -> Place:
    """Open MPI's variables, of version 4 or 5; where `mpirun` was started only version 4 tells, in `..._hnp_uri`.

    Two forms of it: `1531576320.0;tcp://10.96.0.1,10.148.0.1:34911` and `1314521088.0;tcp6://[fe80::1,fe80::2]:43370`.
    """
    processes, process_id, local_processes, local_id = (
        int(environment[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")
    )
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")
    host = re.match(r"[0-9.]+;tcp6?://(\[[^,\]]+|[^,:\[]+)", uri)
    job = zlib.crc32((uri.split(".")[0] or environment.get("PMIX_NAMESPACE") or str(os.getppid())).encode())
    if local_processes == processes:
        address = f"127.0.0.1:{job_port(job)}"
    elif host or coordinator:
        closing = "]" if host and host[1].startswith("[") else ""  # addresses of IPv6 keep their brackets
        address = f"{host[1]}{closing}:{job_port(job)}" if host else coordinator
    else:
        raise UserError(
            "expected distributed.coordinator=HOST:PORT with this version of Open MPI on several machines, received "
            "none; name the machine of process 0 and a free port"
        )
    return Place(processes, process_id, address, local_id)


def choose_local_devices(place: Place, devices: int | str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Which of a machine's GPUs a process takes, as JAX's variable `JAX_LOCAL_DEVICE_IDS`; None: all that it sees.

    With Slurm and Open MPI the processes of a machine share its GPUs: one each, or `devices` each. Where the launcher
    shows a process its own GPUs only (`CUDA_VISIBLE_DEVICES` of as many), it takes these.
    """
    if place.local_id is None:
        return None
    each = 1 if devices == "auto" else devices
    visible = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    first = 0 if len(visible) == each else place.local_id * each
    return ",".join(str(number) for number in range(first, first + each))
