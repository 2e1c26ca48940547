"""Label a large collection of images on all cores of a machine or a Ray cluster, into Parquet.

python recipes/label_with_ray.py --images photos --output_dir labels                           # all cores, this machine
python recipes/label_with_ray.py --images "photos/2024/*.jpg" --output_dir labels              # a glob, in quotes
python recipes/label_with_ray.py --images s3://bucket/photos --output_dir s3://bucket/labels   # any pyarrow.fs address
python recipes/label_with_ray.py --images /shared/photos --output_dir /shared/labels --address auto   # a cluster

Needs `pip install -r requirements-ray.txt`. `pandas.read_parquet("labels")` reads the result: the columns of
predictions.csv and `error`. An image has one row per face; one with an empty box if no face was found; one with the
reason in `error` if it could not be read. Images of a worker that died are labelled by another. See docs/scaling.md.
"""

import argparse
import importlib.util
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from src.inference import Predictor

ROOT = str(cli.ROOT)
MAX_IMAGES_PER_TASK = 256
"""A task is what the loss of a worker costs: at most so many images are labelled again."""
TASKS_PER_WORKER = 8
"""A small collection is cut into shorter tasks, so that no worker waits long for the last one of another."""


@dataclass
class Summary:
    """Counts of a run; `skipped` images had rows before."""

    images: int = 0
    faces: int = 0
    unreadable: int = 0
    skipped: int = 0

    def add(self, table: "pa.Table") -> int:
        """Count rows of whole images; returns the number of images."""
        images, errors = len(table["image"].unique()), len(table) - table["error"].null_count
        self.images += images - errors
        self.unreadable += errors
        self.faces += len(table) - table["left"].null_count
        return images

    def __str__(self) -> str:
        parts = [f"{self.faces} face(s) in {self.images} image(s)"]
        if self.skipped:
            parts.append(f"{self.skipped} done before")
        if self.unreadable:
            parts.append(f"{self.unreadable} unreadable")
        return ", ".join(parts)


class Labeller:
    """A worker: a block of names and paths in, rows of predictions out.

    Args:
        filesystem: Where the paths are; None: this machine.
        make_predictor: Loads the model and the detector, for a number of threads.
        threads: Threads that read images and find faces.
    """

    def __init__(self, filesystem: "FileSystem | None", make_predictor: "Callable[[int], Predictor]", threads: int):
        sys.path.insert(0, ROOT)  # a worker knows only the folders of the script and where it was started
        import cv2

        cv2.setNumThreads(threads)  # the cores beside are other workers'
        self.filesystem = filesystem
        self.predictor = make_predictor(threads)
        self.threads = threads

    def __call__(self, block: "pa.Table") -> "pa.Table":
        from recipes.places import make_table

        items = zip(block["image"].to_pylist(), block["path"].to_pylist(), strict=True)
        return make_table(self.predictor.predict_images(items, self.read, self.threads))

    def read(self, path: bytes) -> "np.ndarray":
        """Read an image as `src.images.read_image` does, from any file system."""
        from src import images

        if self.filesystem is None:
            return images.read_image(os.fsdecode(path))
        try:
            with self.filesystem.open_input_file(path.decode()) as file:
                if file.size() > images.MAX_FILE_BYTES:
                    raise images.ImageError("the file is too large for an image")
                data = file.read()
        except OSError as error:
            raise images.ImageError(os.strerror(error.errno) if error.errno else str(error)) from error
        return images.decode_image(data)


def load_predictor(threads: int, weight_file: str | None = None) -> "Predictor":
    """Load the model and the face detector, with the defaults of `demo.py`; `threads` are those of ONNX Runtime."""
    from src.images import FaceDetector
    from src.inference import AgeGenderEstimator, Predictor

    estimator = AgeGenderEstimator.load(weight_file, threads=threads)
    return Predictor(FaceDetector(), estimator, estimator.margin, estimator.info.resize)


def label_images(
    images: str,
    output_dir: str,
    make_predictor: "Callable[[int], Predictor]" = load_predictor,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    skip_existing: bool = False,
    address: str | None = None,
) -> Summary:
    """Label every image once.

    Args:
        images: Folder (with subfolders), glob or image; a local path or an address of `pyarrow.fs`.
        output_dir: Folder of the Parquet files; a local path or an address of `pyarrow.fs`.
        make_predictor: Called once here, so that it fails early, and once in every worker, with its number of cores.
        workers: Maximum number of workers; None: as many as the cluster has room for at the start.
        cpus_per_worker: Cores that a worker reserves.
        skip_existing: Resume: skip images that have rows without an `error` in `output_dir`, from the same folder of
            images with the same weights.
        address: Ray cluster to use, where this process is not connected to one; see `connect`.

    Raises:
        UserError: There is no image, `output_dir` has Parquet files already (with `skip_existing`: of other images or
            weights), or the weights cannot be used.
        JobError: No image could be read.
        OSError: The results cannot be written.
    """
    from pyarrow.fs import LocalFileSystem

    from recipes.places import Origin, find_done, find_images, find_root, open_place, save
    from src.files import file_sha256

    source, target = open_place(images), open_place(output_dir)
    target = target._replace(filesystem=target.filesystem or LocalFileSystem())
    found = find_images(source)
    estimator = make_predictor(cpus_per_worker).estimator
    weights = Path(estimator.source or "")
    origin = Origin(find_root(source, found), weights.name, file_sha256(weights) or "")
    done = find_done(target, skip_existing, origin)
    todo = {name: path for name, path in found.items() if name not in done}
    summary = Summary(skipped=len(found) - len(todo))
    if todo:
        print(estimator.describe(), flush=True)
        connect(address)
        cli.interrupt_on_termination()  # Ray has set its own handlers
        arguments = (source.filesystem, make_predictor, cpus_per_worker)
        save(count(run_workers(todo, arguments, workers, cpus_per_worker), summary, len(todo)), target, origin)
    if summary.unreadable and not summary.images + summary.skipped:
        raise cli.JobError(f"none of {summary.unreadable} images could be read; see the column error in {output_dir}")
    return summary


def run_workers(
    found: dict[str, bytes], arguments: tuple, workers: int | None, cpus_per_worker: int
) -> Iterable["pa.Table"]:
    """Label images in a pool of workers; the rows of each task come in the order in which tasks end."""
    import pyarrow as pa
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    room = sum(count // cpus_per_worker for count in cores)
    if not room:
        raise cli.UserError(f"--cpus_per_worker must be <= {max(cores)}, got {cpus_per_worker}")
    workers = min(workers or room, len(found))
    per_task = min(math.ceil(len(found) / (workers * TASKS_PER_WORKER)), MAX_IMAGES_PER_TASK)
    table = pa.table({"image": list(found), "path": list(found.values())})
    tasks = ray.data.from_arrow([table.slice(start, per_task) for start in range(0, len(table), per_task)])
    rows = tasks.map_batches(
        Labeller,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=cpus_per_worker,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=min(workers, room)),
    )
    return rows.iter_batches(batch_size=None, batch_format="pyarrow")


def count(tables: Iterable["pa.Table"], summary: Summary, total: int) -> Iterator["pa.Table"]:
    """Pass tables on, count their rows and show the progress."""
    with cli.Progress(total=total, unit="images") as bar:
        for table in tables:
            bar.update(summary.add(table))
            yield table


def connect(address: str | None) -> None:
    """Connect to a Ray cluster (None: that of `RAY_ADDRESS`), else start one with the cores of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report each run to its makers
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(address, log_to_driver=False, logging_level="WARNING", include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def check_installed() -> None:
    """Raise a `UserError` unless the packages of requirements-ray.txt are there."""
    missing = [name for name in ("ray", "pyarrow", "fsspec") if not importlib.util.find_spec(name)]
    if missing:
        raise cli.UserError(f"the package {missing[0]} is missing; run pip install -r requirements-ray.txt")


def positive(text: str) -> int:
    """Parse a number >= 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("--images", required=True, help="folder, glob or image: a local path or a pyarrow.fs address")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder of the Parquet files")
    parser.add_argument("--skip_existing", action="store_true", help="resume: skip images labelled in --output_dir")
    parser.add_argument("--weight_file", metavar="FILE", help="weights (default: the bundled model)")
    parser.add_argument("--address", help="address of a Ray cluster, or auto (default: RAY_ADDRESS, else this machine)")
    parser.add_argument("--workers", type=positive, metavar="N", help="maximum number of workers (default: all cores)")
    parser.add_argument("--cpus_per_worker", type=positive, default=1, metavar="N", help="cores per worker")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    check_installed()
    weight_file = args.weight_file
    if weight_file and os.path.exists(weight_file):
        weight_file = os.path.abspath(weight_file)  # workers have a working folder of their own
    make_predictor = partial(load_predictor, weight_file=weight_file)
    summary = label_images(
        args.images,
        args.output_dir,
        make_predictor,
        args.workers,
        args.cpus_per_worker,
        args.skip_existing,
        args.address,
    )
    print(f"{summary}; results in {args.output_dir}")


if __name__ == "__main__":
    cli.run(main)
