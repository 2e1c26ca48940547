import re

import pytest
from omegaconf import OmegaConf

from src.cli import UserError
from src.training.launchers import Place, choose_local_devices, find_place, first_host, job_port


def keys(**given):
    return OmegaConf.create({"mode": "on", "processes": 1, "process_id": 0, "coordinator": None, **given})


SLURM = {
    "SLURM_JOB_ID": "70000",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}


def test_off_is_one_process_whatever_started_it():
    assert find_place(keys(mode="off", processes=4), SLURM) == Place(1, 0, None, None)


def test_keys_say_the_place():
    cfg = keys(processes=4, process_id=3, coordinator="10.0.0.1:4321")
    assert find_place(cfg, {}) == Place(4, 3, "10.0.0.1:4321", None)


def test_one_process_needs_no_connection():
    assert find_place(keys(coordinator="10.0.0.1:4321"), {}) == Place()
    assert find_place(keys(mode="auto"), {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == Place()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "yes"}, "distributed.mode to be one of off, on, auto, received 'yes'"),
        ({"processes": 0}, "distributed.processes to be a whole number of at least 1, received 0"),
        ({"processes": 2.5}, "distributed.processes to be a whole number of at least 1, received 2.5"),
        ({"processes": True}, "received True"),
        ({"processes": None}, "received None"),
        ({"processes": 2, "process_id": 2}, "distributed.process_id to be a whole number in 0..1, received 2"),
        ({"processes": 2, "process_id": -1}, "distributed.process_id to be a whole number in 0..1, received -1"),
        ({"process_id": 1}, "distributed.process_id to be a whole number in 0..0, received 1"),
        ({"processes": 2}, "distributed.coordinator=HOST:PORT, where process 0 can be reached, received None"),
        ({"processes": 2, "coordinator": "10.0.0.1"}, "received 10.0.0.1; give for instance"),
        ({"processes": 2, "coordinator": "host:0"}, "received host:0"),
        ({"processes": 2, "coordinator": "host:65536"}, "received host:65536"),
        ({"processes": 2, "coordinator": ":4321"}, "received :4321"),
        ({"mode": "auto"}, "a start by Slurm (srun) or Open MPI (mpirun) for distributed.mode=auto, received neither;"),
    ],
)
def test_impossible_keys_are_one_clear_line(given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        find_place(keys(**given), {})


def test_slurm_says_the_place():
    """Job 70000: port 61440 + 70000 mod 4096 = 61440 + 368."""
    assert find_place(keys(mode="auto"), SLURM) == Place(8, 5, "gpu03:61808", 1)
    own = find_place(keys(mode="auto", coordinator="10.0.0.7:99"), SLURM)
    assert own == Place(8, 5, "10.0.0.7:99", 1)


def test_a_job_of_slurm_without_srun():
    with pytest.raises(UserError, match="received neither, begun without srun; start with one of them"):
        find_place(keys(mode="auto"), {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "gpu1"})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu7,gpu9", "gpu7"),
        ("gpu[03-05,09],login1", "gpu03"),
        ("rack1-n[1-2]", "rack1-n1"),
        ("n[8,10-12]", "n8"),
        ("a.b.example,c", "a.b.example"),
    ],
)
def test_first_of_slurms_hosts(hosts, first):
    assert first_host(hosts) == first


def test_ports_of_jobs_are_valid():
    assert job_port(0) == 61440
    assert job_port(4095) == 65535
    assert job_port(4096) == 61440


def test_open_mpi_4_says_the_place():
    place = find_place(keys(mode="auto"), OPEN_MPI)
    assert (place.processes, place.process_id, place.local_id) == (4, 3, 1)
    assert re.fullmatch(r"10\.96\.0\.1:6[1-5][0-9]{3}", place.coordinator)
    other = find_place(keys(mode="auto"), {**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"})
    assert other.coordinator == place.coordinator


def test_open_mpi_4_over_ip_6():
    uri = "1314521088.0;tcp6://[fe80::1,fe80::2]:43370"
    place = find_place(keys(mode="auto"), {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": uri})
    assert place.coordinator.rsplit(":", 1)[0] == "[fe80::1]"


def test_open_mpi_5_on_one_machine_and_on_several():
    version5 = {key: value for key, value in OPEN_MPI.items() if not key.startswith("OMPI_MCA")}
    version5["PMIX_NAMESPACE"] = "prterun-login1-77@1"
    with pytest.raises(UserError, match="expected distributed.coordinator=HOST:PORT with this version of Open MPI"):
        find_place(keys(mode="auto"), version5)
    assert find_place(keys(mode="auto", coordinator="a:1"), version5).coordinator == "a:1"
    one_machine = {**version5, "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}
    assert find_place(keys(mode="auto"), one_machine).coordinator.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("local_id", "devices", "visible", "chosen"),
    [
        (None, "auto", "0,1", None),  # distributed.mode=on: the user says with CUDA_VISIBLE_DEVICES which
        (2, "auto", "", "2"),
        (2, "auto", "0,1,2,3", "2"),
        (2, "auto", "2", "0"),  # the launcher shows each process its own
        (1, 2, "0,1,2,3", "2,3"),
        (1, 2, "2,3", "0,1"),
        (1, 2, "", "2,3"),
    ],
)
def test_gpus_of_a_process(local_id, devices, visible, chosen):
    place = Place(4, 2, "a:1", local_id)
    assert choose_local_devices(place, devices, {"CUDA_VISIBLE_DEVICES": visible}) == chosen
