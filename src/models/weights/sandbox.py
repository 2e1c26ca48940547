"""Validate an untrusted weight file in a separate process, with limits on time and memory.

The HDF5 library trusts the file: wrong bytes can make it loop forever (seen in 1.14.6,
`H5HG__cache_heap_deserialize`), allocate gigabytes or crash. In a separate process this does no harm.
"""

import contextlib
import functools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

from src.cli import ROOT, UserError
from src.files import file_stamp
from src.models.weights import onnx, published

SECONDS = 20.0
"""Maximum processor seconds of the process, plus one second per `BYTES_A_SECOND`."""
BYTES_A_SECOND = 5 * 10**6
"""Minimum speed of a disk or network folder."""
TOO_SLOW = -getattr(signal, "SIGXCPU", 0)
"""Exit code at the limit of processor time; 0 where the system has no such limit."""
PATIENCE = 10 if TOO_SLOW else 1
"""How many times as long the process may take on a busy machine."""
MEMORY = 2**30
"""Maximum bytes of address space of the process, plus `COPIES` of the file, if the system supports such limits."""
COPIES = 4
"""ONNX Runtime keeps the values as read, and again in the layout of the processor."""
REFUSED = 2


def resolve(weight_file: str | Path) -> Path:
    """Return the path of a weight file that can safely be read.

    Args:
        weight_file: A path, or a name of `published.PUBLISHED`, which is downloaded when it is not there.

    Raises:
        UserError: No such file, or `validate` refuses it.
        JobError: A download failed.
    """
    path = published.resolve(weight_file)
    if path.parent.resolve() != ROOT / "pretrained_models" or path.stem != published.BUNDLED:
        _validate_once(path, file_stamp(path))
    return path


@functools.lru_cache
def _validate_once(path: Path, stamp: tuple[int, int]) -> None:
    """Validate a file unless this process has done so since it was changed last."""
    validate(path)


def validate(path: Path) -> None:
    """Raise `UserError` unless another process reads all of a weight file, in time, within memory, without a crash."""
    published.check_regular(path)
    if not sys.executable:  # Python embedded in another program: no interpreter to start
        read_through(path)
        return
    limit = math.ceil(SECONDS + path.stat().st_size / BYTES_A_SECOND)
    command = [sys.executable, "-m", "src.models.weights.sandbox", str(path.resolve()), str(limit)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # its threads take address space
    too_slow = UserError(f"the weight file {path} cannot be read in {limit} s")
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            timeout=PATIENCE * limit,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise too_slow from error
    if done.returncode == TOO_SLOW != 0:
        raise too_slow
    if done.returncode == REFUSED:
        raise UserError(done.stdout.strip().replace(str(path.resolve()), str(path)))
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise UserError(f"reading the weight file {path} ends with code {done.returncode}: {reason}")


def read_through(path: Path) -> None:
    """Read everything that identification and loading may read; raise `UserError` if it cannot be read."""
    if onnx.is_onnx(path):
        onnx.validate(path)
    else:
        from src.models.weights.hdf5 import read_facts

        read_facts(path, content=True)


def limit_process(seconds: int, memory: int) -> None:
    """Limit the processor time and the address space of this process, if the system supports it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def main() -> int:
    path = Path(sys.argv[1])
    limit_process(int(sys.argv[2]), MEMORY + COPIES * path.stat().st_size)
    try:
        read_through(path)
    except UserError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
