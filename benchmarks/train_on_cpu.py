"""Measure how much faster than `train.py` a CPU trains with `recipes/train_on_cpu.py`.

    pip install torch
    python benchmarks/train_on_cpu.py model.model_name=MobileNet model.img_size=160 model.batch_size=64 --steps 15
    python benchmarks/train_on_cpu.py model.model_name=MobileNet train.mixed_precision=true

Runs `benchmarks/train_step.py`, with the keys given, in a process for each way to train, one after the other: images
per second end to end, and ratios to TensorFlow.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import ROOT, JobError, Parser, run

STEP = str(ROOT / "benchmarks/train_step.py")
RECIPE = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from recipes import train_on_cpu
train_on_cpu.run(pathlib.Path({STEP!r}))
"""
WAYS = {
    "TensorFlow": ("tensorflow", [STEP]),
    "PyTorch": ("torch", [STEP]),
    "PyTorch, recipes/train_on_cpu.py": ("torch", ["-c", RECIPE]),
}
"""By name: the backend of Keras, and what Python runs."""


def measure(way: str, arguments: list[str]) -> float:
    """Return images per second."""
    backend, script = WAYS[way]
    environment = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, *script, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise JobError(f"{way} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return float(done.stdout.splitlines()[-1].split()[2])


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of train.py")
    parser.add_argument("--steps", type=int, default=20, help="steps per epoch")
    parser.add_argument("--rounds", type=int, default=1, choices=range(1, 10), help="the best one counts")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    arguments = [*args.overrides, "--steps", str(args.steps)]
    rates = dict.fromkeys(WAYS, 0.0)
    for _ in range(args.rounds):
        for way in WAYS:
            rates[way] = max(rates[way], measure(way, arguments))
    print(f"{'':34}{'images per second':>18}{'ratio':>8}")
    for way, rate in rates.items():
        print(f"{way:34}{rate:18.1f}{rate / rates['TensorFlow']:8.2f}")


if __name__ == "__main__":
    run(main)
