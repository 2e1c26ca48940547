"""Validates an untrusted weight file in a process of its own, with a limit on time and memory.

The HDF5 library trusts what a file says about itself: bytes that are wrong in the right place make it loop for ever
(seen in 1.14.6, `H5HG__cache_heap_deserialize`), ask for gigabytes or crash. In another process that costs a moment.
"""

import os
import subprocess
import sys
from pathlib import Path

from src.cli import ROOT, UserError
from src.models.weights import onnx, published

SECONDS = 20.0
"""Time for the process, besides one second for every `BYTES_A_SECOND`."""
BYTES_A_SECOND = 5 * 10**6
"""What the slowest disk or network folder reads."""
MEMORY = 2**30
"""Bytes of address space for the process, besides `COPIES` of the file; limited where the system can."""
COPIES = 4
"""ONNX Runtime holds a file's values as read, and again as the processor likes them."""
REFUSED = 2


def resolve(weight_file: str | Path) -> Path:
    """Return the path of a weight file that can safely be read.

    Args:
        weight_file: A path, or a name of `published.PUBLISHED`, which is downloaded when it is not there.

    Raises:
        UserError: No such file, or `rehearse` refuses it.
        JobError: A download failed.
    """
    path = published.resolve(weight_file)
    if path.parent.resolve() != ROOT / "pretrained_models" or path.stem != published.BUNDLED:
        rehearse(path)
    return path


def rehearse(path: Path) -> None:
    """Reads all of a weight file in another process, so that what reads it afterwards will come to an end.

    Raises:
        UserError: It cannot be read, or the process crashed, took too long or too much memory.
    """
    published.check_regular(path)
    if not sys.executable:  # Python inside another program: there is nothing to start
        read_through(path)
        return
    command = [sys.executable, "-m", "src.models.weights.sandbox", str(path.resolve())]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # its threads take address space
    limit = SECONDS + path.stat().st_size / BYTES_A_SECOND
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"expected a weight file, received {path}, which cannot be read in {limit:.0f} s") from error
    if done.returncode == REFUSED:
        raise UserError(done.stdout.strip().replace(str(path.resolve()), str(path)))
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise UserError(
            f"expected a weight file, received {path}, on which reading ends with code {done.returncode}: {reason}"
        )


def read_through(path: Path) -> None:
    """Reads everything that identification and loading may read, in whatever order.

    Raises:
        UserError: It cannot be read.
    """
    from src.models.weights.hdf5 import read_facts

    if onnx.is_onnx(path):
        onnx.validate(path)
        return
    read_facts(path, content=True)


def limit_memory(size: int) -> None:
    """Limits the address space of this process, on systems that can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ImportError, ValueError, OSError):  # Windows; macOS
        pass


def main() -> int:
    path = Path(sys.argv[1])
    limit_memory(MEMORY + COPIES * path.stat().st_size)
    try:
        read_through(path)
    except UserError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
