"""Speed of the demo against the straightforward loop, as ratios of one run.

    python benchmarks/demo_speed.py      # pictures made from samples/; EfficientNetB3 and the bundled model
    python benchmarks/demo_speed.py --image_dir DIR --weight_file pretrained_models/FILE

The straightforward loop takes one picture after the other: read, resize to 640, detect with one upsampling,
`model.predict`, draw. Both sides draw and neither writes files; the last row adds the writing. The sides take turns, so
that a busy machine slows both, and the best round of each counts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import dlib
import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli
from src.demo.drawing import draw_predictions
from src.demo.folder import run_folder_to_files
from src.demo.live import run_live
from src.demo.sources import Source
from src.images.boxes import crop_box
from src.images.detector import FaceDetector
from src.images.folder import FoundImages, list_images
from src.images.io import read_image, resize, write_image
from src.inference.estimator import AgeGenderEstimator
from src.inference.predictor import Prediction, Predictor
from src.labels import expected_age
from src.models import factory
from src.models.weights.info import WeightsInfo
from src.models.weights.published import bundled
from src.models.weights.store import load_model

SIZES = ((640, 480), (960, 720), (1280, 960))
LARGE = "EfficientNetB3", 224
"""Network and input size of the published model; random weights are as fast as its own."""


def make_pictures(folder: Path, count: int) -> None:
    """JPEG files of three sizes with one of the samples somewhere on a noisy ground."""
    rng = np.random.default_rng(0)
    samples = [read_image(path) for path in list_images(cli.ROOT / "samples")]
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        picture = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
        sample = samples[number % len(samples)]
        scale = rng.uniform(0.8, 1.0) * height / sample.shape[0]
        sample = cv2.resize(sample, None, fx=scale, fy=scale)
        x = rng.integers(0, width - sample.shape[1] + 1)
        picture[: sample.shape[0], x : x + sample.shape[1]] = sample
        write_image(folder / f"{number:03d}.jpg", picture)


def plain_loop(paths: list[Path], model: keras.Model, info: WeightsInfo) -> int:
    """The straightforward loop; returns the number of faces."""
    detector = dlib.get_frontal_face_detector()
    count = 0
    for path in paths:
        image = read_image(path)
        scale = 640 / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale)
        found = detector(image, 1)
        boxes = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in found]
        if boxes:
            faces = np.stack([resize(crop_box(image, box, info.margin), info.img_size) for box in boxes])
            genders, ages = model.predict(faces, verbose=0)
            draw_predictions(image, list(map(Prediction, boxes, expected_age(ages), genders[:, 1])))
        count += len(boxes)
    return count


def folder_mode(paths: list[Path], predictor: Predictor) -> int:
    """The demo's way without its files; returns the number of faces."""
    count = 0
    for picture in predictor.predict_pictures([(path.name, path) for path in paths], read_image):
        draw_predictions(picture.image, picture.predictions)
        count += len(picture.predictions)
    return count


def folder_mode_with_files(paths: list[Path], predictor: Predictor) -> int:
    """Folder mode with annotated pictures and predictions on disk; returns the number of faces."""
    with tempfile.TemporaryDirectory() as output:
        return run_folder_to_files(FoundImages(paths[0].parent, paths), Path(output), predictor).faces


def measure_folder(paths: list[Path], model: keras.Model, info: WeightsInfo, rounds: int) -> None:
    estimator = AgeGenderEstimator(model, info)
    predictor = Predictor(FaceDetector(), estimator, estimator.margin)
    jobs = {
        "straightforward loop": lambda: plain_loop(paths, model, info),
        "folder mode": lambda: folder_mode(paths, predictor),
        "folder mode, with files": lambda: folder_mode_with_files(paths, predictor),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    faces = {}
    for number in range(rounds + 1):  # the first round warms up
        for name, job in jobs.items():
            start = time.perf_counter()
            faces[name] = job()
            if number:
                seconds[name].append(time.perf_counter() - start)
    baseline = min(seconds["straightforward loop"])
    print(f"\n{estimator.describe()}\n{len(paths)} pictures\n")
    print("| | pictures a second | ratio | faces |\n|---|---|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {len(paths) / min(times):.1f} | {baseline / min(times):.2f} | {faces[name]} |")


class NoWindow:
    """Takes frames like the demo's window, without a screen."""

    def show(self, image: np.ndarray) -> None:
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def key(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)


def measure_live(paths: list[Path], model: keras.Model, info: WeightsInfo, seconds: int) -> None:
    """Plays a 640 x 480 video of 30 frames a second; the picture moves."""
    image = cv2.resize(read_image(paths[0]), (720, 540))
    predictor = Predictor(FaceDetector(), AgeGenderEstimator(model, info), info.margin)
    predictor.predict(image)  # warm-up
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (640, 480))
        for number in range(30 * seconds):
            x, y = round(40 + 40 * np.sin(number / 15)), round(30 + 30 * np.cos(number / 20))
            writer.write(np.ascontiguousarray(image[y : y + 480, x : x + 640, ::-1]))
        writer.release()
        with Source(str(path)) as source:
            summary = run_live(source, NoWindow(), predictor, info.model_name)
    age = statistics.median(summary.label_ages) * 1000 if summary.label_ages else float("nan")
    print(
        f"\nlive, 640 x 480 at 30 a second: {summary.rate:.1f} frames a second shown, labels {age:.0f} ms old (median)"
    )


def load_models(weight_files: list[str]) -> Iterator[tuple[keras.Model, WeightsInfo]]:
    if weight_files:
        yield from map(load_model, weight_files)
        return
    yield factory.get_model(*LARGE), WeightsInfo(*LARGE, margin=0.4, label="random weights")
    yield load_model(bundled())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_dir", type=Path, help="pictures (default: made from samples/)")
    parser.add_argument("--weight_file", action="append", default=[], help="may be given several times")
    parser.add_argument("--limit", type=int, default=48, help="pictures (default: 48)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--live", type=int, default=10, metavar="SECONDS", help="live mode (default: 10; 0: none)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if arguments.image_dir is None:
            make_pictures(Path(made), arguments.limit)
        paths = list_images(arguments.image_dir or made)[: arguments.limit]
        for model, info in load_models(arguments.weight_file):
            measure_folder(paths, model, info, arguments.rounds)
            if arguments.live:
                measure_live(paths, model, info, arguments.live)


if __name__ == "__main__":
    main()
