"""Measure images per second of the input pipeline, compared with a plain reader.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --image_dir data/UTKFace --img_size 96

Without `--image_dir` it writes JPEG files of 300 pixels to a temporary folder. "per CPU second" counts the processor
time of all threads, so it is comparable on a busy machine too.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import images
from src.cli import ROOT, Parser
from src.training.config import AugmentConfig, Config
from src.training.generator import BatchSettings, ImageSequence


def write_images(folder: Path, count: int, side: int = 300) -> None:
    """Write JPEG files (about 20 kB each) whose detail decreases with its scale, as in photos."""
    import cv2

    rng = np.random.default_rng(0)
    for number in range(count):
        image = np.full((side, side, 3), 128.0)
        for cells in (2, 5, 12, 30, 75, 150):
            noise = rng.normal(0, 60 / cells**0.5, (cells, cells, 3))
            image += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        images.write_image(folder / f"{number}.jpg", np.clip(image, 0, 255).astype(np.uint8))


def make_table(paths: list[Path]) -> pd.DataFrame:
    """Make a table of faces with margin 0.4 and random labels."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "gender": rng.integers(0, 2, len(paths)).astype(float),
            "age": rng.integers(0, 101, len(paths)).astype(float),
            "margin": 0.4,
        }
    )


def read_plainly(paths: list[Path], size: int, batch_size: int) -> Iterator[np.ndarray]:
    """Read as the reference does: one thread, float arithmetic, only shift, scale, rotation, brightness and flip."""
    import cv2

    rng = np.random.default_rng(0)
    for start in range(0, len(paths), batch_size):
        batch = []
        for path in paths[start : start + batch_size]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            image = cv2.resize(image, (size, size))
            matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-20, 20), rng.uniform(0.8, 1.2))
            matrix[:, 2] += rng.uniform(-size / 32, size / 32, 2)
            image = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
            image = image.astype(np.float32) * rng.uniform(0.8, 1.2) + 255 * rng.uniform(-0.2, 0.2)
            image = np.clip(image, 0, 255)
            batch.append(image[:, ::-1] if rng.random() < 0.5 else image)
        yield np.stack(batch)


def read_batches(sequence: ImageSequence) -> Iterator[np.ndarray]:
    """Yield all batches of one epoch, as Keras gets them."""
    _ = sequence[0]  # starts the workers
    sequence.set_epoch(1)
    for index in range(len(sequence)):
        yield sequence[index][0]
    sequence.close()


def measure(batches: Callable[[], Iterator[np.ndarray]]) -> tuple[float, float]:
    """Return `(images per second, images per CPU second)`; the first excludes the time until the first batch."""
    cpu = sum(os.times()[:4])
    iterator = batches()
    count = len(next(iterator))
    first, start = count, time.perf_counter()
    for batch in iterator:
        count += len(batch)
    wall = time.perf_counter() - start
    return (count - first) / wall, count / (sum(os.times()[:4]) - cpu)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--image_dir", type=Path, help="folder of images (default: generated ones)")
    parser.add_argument("--img_size", type=int, default=224, help="side of the model's input, pixels")
    parser.add_argument("--batch_size", type=int, default=64, help="images per batch")
    parser.add_argument("--count", type=int, default=2000, help="images to read per row")
    parser.add_argument("--side", type=int, default=300, help="side of the generated images, pixels")
    parser.add_argument("--workers", type=int, default=2, help="threads in the last row")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; rows take turns, and the best of each counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.image_dir is None:
            write_images(Path(folder), 300, args.side)
        paths = images.list_images(args.image_dir or Path(folder))
        paths = (paths * (args.count // len(paths) + 1))[: args.count]
        kilobytes = np.mean([path.stat().st_size for path in paths]) / 1000
        print(f"{len(paths)} images of {kilobytes:.0f} kB on average, size {args.img_size}, {os.cpu_count()} cores")
        print_table(make_readers(paths, args.img_size, args.batch_size, args.workers), args.rounds)


def make_readers(paths: list[Path], size: int, batch_size: int, workers: int) -> dict[str, Callable]:
    """Return the rows of the table, the reference first."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "src"), version_base="1.3"):
        augment = Config.check(compose("config")).augment
    settings = BatchSettings(size, batch_size, margin=0.4, shuffle=True)
    table = make_table(paths)

    def read(changes: AugmentConfig | None, workers: int) -> Iterator[np.ndarray]:
        return read_batches(ImageSequence(table, settings, changes, workers=workers))

    return {
        "plain reader, 1 thread": lambda: read_plainly(paths, size, batch_size),
        "no changes, 1 thread": lambda: read(None, 0),
        "everything on, 1 thread": lambda: read(augment, 0),
        f"everything on, {workers} threads": lambda: read(augment, workers),
    }


def print_table(readers: dict[str, Callable], rounds: int) -> None:
    """Measure and print the best round of each row."""
    measured = [[measure(batches) for batches in readers.values()] for _ in range(rounds)]
    best = np.max(measured, axis=0)  # (rows, 2)
    print(f"{'':28}{'images/s':>12}{'ratio':>8}{'per CPU second':>16}{'ratio':>8}")
    for name, (rate, cpu_rate) in zip(readers, best, strict=True):
        print(f"{name:28}{rate:12.0f}{rate / best[0, 0]:8.2f}{cpu_rate:16.0f}{cpu_rate / best[0, 1]:8.2f}")


if __name__ == "__main__":
    main()
