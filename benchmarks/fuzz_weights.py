"""Identify randomly damaged weight files and report what happens.

    python benchmarks/fuzz_weights.py --seconds 60

Every file must be identified or refused with one line. Batches of files are read in separate processes, without the
sandbox of `src.models.weights`, which would take most of the time. If such a process crashes, hangs or needs too
much memory, its file is kept and passed to the real `identify` with the sandbox, which must refuse it.
The exit code is 1 if there are findings. Linux and macOS.
"""

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import h5py
import numpy as np

from src.cli import Parser, UserError
from src.models import weights
from src.models.weights.hdf5 import read_facts
from src.models.weights.info import ATTRIBUTE, to_json
from src.models.weights.store import identify_facts

BATCH = 100
"""Files per process."""
HANGS = 5
"""Maximum seconds of processor time of a batch, which takes about one."""
SLEEPS = 60.0
"""Maximum seconds of a batch, which may wait, or run on a busy machine."""
MEMORY = 2**29
"""Bytes of address space that a batch may allocate."""
NAMES = ("MobileNetV2_32_x.hdf5", "x.hdf5", "weights.28-3.73.hdf5", "EfficientNetB0_224_x.keras", "a.weights.h5")


def write_seeds(folder: Path) -> list[Path]:
    """Write small files of every layout that can be read."""
    layers = [
        {"class_name": "InputLayer", "config": {"name": "image", "batch_shape": [None, 32, 32, 3]}},
        *({"class_name": "Dense", "config": {"name": f"dense_{i}"}} for i in range(8)),
    ]
    config = json.dumps({"class_name": "Functional", "config": {"name": "model", "layers": layers}})
    ordered, counted, zipped = folder / "ordered.hdf5", folder / "counted.weights.h5", folder / "zipped.keras"
    with h5py.File(ordered, "w") as file:
        file.attrs[ATTRIBUTE] = to_json(weights.WeightsInfo("MobileNetV2", 32, 0.4, metrics={"val_age_mae": 5.0}))
        file.attrs["model_config"] = config
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer["config"]["name"].encode() for layer in layers]
        for layer in layers:
            name = layer["config"]["name"]
            group.create_group(name).attrs["weight_names"] = [f"{name}/kernel".encode()]
            group[name].create_dataset(f"{name}/kernel", data=np.ones((8, 8), np.float32), compression="gzip")
    with h5py.File(counted, "w") as file:
        for i in range(8):
            variables = file.create_group(f"layers/dense_{i}/vars" if i else "layers/dense/vars")
            variables.attrs["name"] = f"dense_{i}"
            variables["0"] = np.ones((8, 8), np.float32)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("config.json", config)
        archive.write(counted, "model.weights.h5")
    return [ordered, counted, zipped]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Apply up to 20 mutations: flip bits, replace bytes, copy or delete blocks, truncate."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 4096))
        length = rng.choice((1, 2, 4, 8, 64, 512))
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
            case 2:
                data[at : at + length] = rng.randbytes(length)
            case 3:
                source = rng.randrange(len(data))
                data[at : at + length] = data[source : source + length]
            case 4:
                del data[at : at + length]
            case 5 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def read(path: Path) -> str:
    """Read a file as `identify` does, without the sandbox; return the outcome in one word."""
    try:
        identify_facts(path, read_facts(path, content=True))
    except UserError as error:
        return "refused" if str(error).isprintable() else "refused with control characters"
    return "identified"


def run_batch(folder: Path, seed: int) -> None:
    """Do the work of one process: mutate and read files, and print one outcome per line."""
    seeds = [path.read_bytes() for path in write_seeds(folder)]
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (HANGS, HANGS))
    for number in range(BATCH):
        rng = random.Random(f"{seed}-{number}")
        path = folder / rng.choice(NAMES)
        path.write_bytes(mutate(rng.choice(seeds), rng))
        print(read(path), flush=True)  # at once: the next file may end this process
        path.unlink()


def fuzz(seconds: float, seed: int, keep: Path) -> tuple[Counter[str], list[str]]:
    """Run batches for that much processor time; return counts of outcomes and descriptions of findings."""
    outcomes: Counter[str] = Counter()
    findings = []
    while processor_time() < seconds:
        with tempfile.TemporaryDirectory() as folder:
            problem = read_batch(Path(folder), seed, outcomes)
            for path in [path for path in Path(folder).iterdir() if path.name in NAMES]:
                outcomes[f"unguarded reading {problem[:40]}"] += 1
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{seed}-{path.name}"
                kept.write_bytes(path.read_bytes())
                if guarded(kept) != "refused":
                    findings.append(f"{kept}: unguarded reading {problem}, and it is not refused")
        seed += 1
    findings += [f"{count} x {kind}" for kind, count in outcomes.items() if "control" in kind]
    return outcomes, findings


def read_batch(folder: Path, seed: int, outcomes: Counter[str]) -> str:
    """Run one batch, count its outcomes and return how it failed, if it did; the file at fault stays in `folder`."""
    command = [sys.executable, __file__, "--batch", str(folder), "--seed", str(seed)]
    with (folder / "outcomes.txt").open("w+") as output:
        try:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.PIPE, text=True, check=False, timeout=SLEEPS
            )
        except subprocess.TimeoutExpired:
            problem = "hangs"
        else:
            problem = f"ends with code {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else ""
            if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
                problem = "hangs"
        output.seek(0)
        outcomes.update(output.read().splitlines())
    return problem


def processor_time() -> float:
    """Return the seconds of processor time of all batches."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def guarded(path: Path) -> str:
    """Pass a file on which unguarded reading failed to the real `identify`; return the outcome."""
    try:
        weights.identify(path)
    except UserError as error:
        print(f"{path}: {error}")
        return "refused"
    return "identified"


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time to spend")
    parser.add_argument("--seed", type=int, default=0, help="number of the first batch")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"), help="folder for files at fault")
    parser.add_argument("--batch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        run_batch(args.batch, args.seed)
        return 0
    outcomes, findings = fuzz(args.seconds, args.seed, args.keep)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()) if count))
    print("\n".join(findings) or "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
