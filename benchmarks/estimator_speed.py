"""Measure the time per face on one CPU thread: the bundled model, or other weights, and EfficientNetB3 at 224 pixels.

    python benchmarks/estimator_speed.py [--weight_file W1 W2]

All networks run in `AgeGenderEstimator` with a batch of one face of the network's size, in turn.
EfficientNetB3's weights are random, which does not change its time.
"""

import os
import sys
import time
from pathlib import Path

os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, run

CALLS = 100
REFERENCE, REFERENCE_SIZE = "EfficientNetB3", 224


def use_one_core() -> None:
    """Keep all threads of this process on one core, if the system supports it; those of ONNX Runtime leave it again."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--weight_file", nargs="+", help="weights to measure (default: the bundled model)")
    args = parser.parse_args()
    use_one_core()

    from src.inference.estimator import AgeGenderEstimator
    from src.models.backend import compile_predict
    from src.models.factory import get_model
    from src.models.weights.info import WeightsInfo

    reference = AgeGenderEstimator(
        compile_predict(get_model(REFERENCE, REFERENCE_SIZE)), WeightsInfo(REFERENCE, REFERENCE_SIZE, 0.4)
    )
    estimators = [*(AgeGenderEstimator.load(path, threads=1) for path in args.weight_file or [None]), reference]
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (size, size, 3), np.uint8) for size in (e.info.img_size for e in estimators)]
    seconds = np.empty((CALLS, len(estimators)))
    for call in range(-5, CALLS):  # the first calls warm up; timed calls overwrite the last values
        for column, (estimator, face) in enumerate(zip(estimators, faces, strict=True)):
            start = time.perf_counter()
            estimator.predict([face])
            seconds[call, column] = time.perf_counter() - start
    median = np.median(seconds, axis=0)
    for estimator, milliseconds in zip(estimators, 1000 * median, strict=True):
        name = estimator.source.name if estimator.source else estimator.info.model_name
        mirrored = "with mirror image" if estimator.mirrored else ""
        times = 1000 * median[-1] / milliseconds
        print(f"{name:28} {estimator.info.img_size} pixels {milliseconds:6.1f} ms per face {times:6.1f} x {mirrored}")
    print(f"x: times as fast as {REFERENCE} at {REFERENCE_SIZE} pixels, on one thread")


if __name__ == "__main__":
    run(main)
