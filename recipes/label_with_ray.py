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
import glob
import importlib.util
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from src.inference import Picture, Predictor

ROOT = str(cli.ROOT)
MAX_IMAGES_PER_TASK = 256
"""A task is what the loss of a worker costs: at most so many images are labelled again."""
TASKS_PER_WORKER = 8
"""A small collection is cut into shorter tasks, so that no worker waits long for the last one of another."""
MAX_RETRIES = 20
"""A task that lost so many workers fails the job; an image that crashes its worker would otherwise do so forever."""
SECONDS_PER_FILE = 60
"""A Parquet file is written this often; labels newer than that are lost when this process is killed."""


class Place(NamedTuple):
    """A folder or file; `filesystem` is None for this machine's own, `pattern` a glob below the folder or ""."""

    filesystem: "FileSystem | None"
    path: str
    pattern: str = ""


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
    """A worker: a block of names and paths in, rows of `schema()` out.

    Args:
        filesystem: Where the paths are; None: this machine.
        make_predictor: Loads the model and the detector.
        threads: Threads that read images and find faces.
    """

    def __init__(self, filesystem: "FileSystem | None", make_predictor: "Callable[[], Predictor]", threads: int):
        sys.path.insert(0, ROOT)  # a worker knows only the folders of the script and where it was started
        import cv2

        cv2.setNumThreads(threads)  # the cores beside are other workers'
        self.filesystem = filesystem
        self.predictor = make_predictor()
        self.threads = threads

    def __call__(self, block: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        items = zip(block["image"].to_pylist(), block["path"].to_pylist(), strict=True)
        images = self.predictor.predict_pictures(items, self.read, self.threads)
        return pa.Table.from_pylist([row for image in images for row in image_rows(image)], schema())

    def read(self, path: bytes) -> "np.ndarray":
        """Read an image as `src.images.read_image` does, from any file system."""
        from src import images

        if self.filesystem is None:
            return images.read_image(os.fsdecode(path))
        try:
            with self.filesystem.open_input_file(path.decode()) as file:
                if file.size() > images.LARGEST_FILE:
                    raise images.ImageError("the file is too large for an image")
                data = file.read()
        except OSError as error:
            raise images.ImageError(os.strerror(error.errno) if error.errno else str(error)) from error
        return images.decode_image(data)


def schema() -> "pa.Schema":
    """Columns of the Parquet files: those of predictions.csv, and `error`."""
    import pyarrow as pa

    box = [(side, pa.int32()) for side in ("left", "top", "right", "bottom")]
    face = [("age", pa.float32()), ("gender", pa.string()), ("male_probability", pa.float32())]
    video = [("frame", pa.int64()), ("time", pa.float64())]  # empty, as those of images in predictions.csv
    return pa.schema([("image", pa.string()), *box, *face, *video, ("error", pa.string())])


def image_rows(image: "Picture") -> list[dict]:
    """One row per face; one without a box where there is no face or an error."""
    if not image.predictions:
        return [{"image": image.name, "error": image.error or None}]
    return [
        {
            "image": image.name,
            **dict(zip(("left", "top", "right", "bottom"), prediction.box, strict=True)),
            "age": prediction.age,
            "gender": prediction.gender,
            "male_probability": prediction.male_probability,
        }
        for prediction in image.predictions
    ]


def load_predictor(weight_file: str | None = None) -> "Predictor":
    """Load the model and the face detector, with the defaults of `demo.py`."""
    from src.images import FaceDetector
    from src.inference import AgeGenderEstimator, Predictor

    estimator = AgeGenderEstimator.load(weight_file)
    return Predictor(FaceDetector(), estimator, estimator.margin)


def label_images(
    images: str,
    output_dir: str,
    make_predictor: "Callable[[], Predictor]" = load_predictor,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    skip_existing: bool = False,
    address: str | None = None,
) -> Summary:
    """Label every image once.

    Args:
        images: Folder (with subfolders), glob or image; a local path or an address of `pyarrow.fs`.
        output_dir: Folder of the Parquet files; a local path or an address of `pyarrow.fs`.
        make_predictor: Called once here, so that it fails early, and once in every worker.
        workers: Maximum number of workers; None: as many as the cluster has room for.
        cpus_per_worker: Cores that a worker reserves.
        skip_existing: Resume: skip images that have rows in `output_dir`.
        address: Ray cluster to use, where this process is not connected to one; see `connect`.

    Raises:
        UserError: There is no image, `output_dir` has Parquet files already, or the weights cannot be used.
        JobError: No image could be read.
        OSError: The results cannot be written.
    """
    from pyarrow.fs import LocalFileSystem

    source, target = open_place(images), open_place(output_dir)
    target = target._replace(filesystem=target.filesystem or LocalFileSystem())
    found = find_images(source)
    done = find_done(target, skip_existing)
    todo = {name: path for name, path in found.items() if name not in done}
    summary = Summary(skipped=len(found) - len(todo))
    if todo:
        print(make_predictor().estimator.describe(), flush=True)
        connect(address)
        arguments = (source.filesystem, make_predictor, cpus_per_worker)
        save(count(run_workers(todo, arguments, workers, cpus_per_worker), summary, len(todo)), target)
    if summary.unreadable and not summary.images + summary.skipped:
        raise cli.JobError(f"none of {summary.unreadable} images could be read; see the column error in {output_dir}")
    return summary


def open_place(address: str) -> Place:
    """Split an address or a local path before its first wildcard; `?` and `[` are wildcards of local paths only.

    Raises:
        UserError: `pyarrow.fs` knows no such address.
    """
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    remote = "://" in address
    path, question, query = address.partition("?") if remote else (os.path.abspath(address), "", "")
    wildcard = None if os.path.lexists(path) else re.search(r"\*" if remote else r"[*?[]", path)
    split = path.rfind("/", 0, wildcard.start()) if wildcard else len(path)
    folder, pattern = path[:split], path[split + 1 :]
    if not remote:
        return Place(None, folder, pattern)
    try:
        return Place(*FileSystem.from_uri(folder + question + query), pattern)
    except (ArrowInvalid, OSError) as error:
        raise cli.UserError(f"cannot open {address}: {error}") from error


def find_images(place: Place) -> dict[str, bytes]:
    """Find image files by their ending; hidden ones are skipped.

    Returns:
        Names as in predictions.csv, which are paths below the folder, and the whole paths.

    Raises:
        UserError: There is no image.
    """
    from src.images import EXTENSIONS

    found = {}
    for path in sorted(map(os.fspath, _find_paths(place))):
        name = path.removeprefix(place.path).lstrip("/") or os.path.basename(path)
        if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".") and "/." not in name:
            found[os.fsencode(name).decode("utf-8", "backslashreplace")] = os.fsencode(path)
    if not found:
        where = f"{place.path}/{place.pattern}".rstrip("/")
        raise cli.UserError(f"--images must name images (.jpg, .png, ...), found none at {where}")
    return found


def _find_paths(place: Place) -> Iterable[str | Path]:
    from fsspec.implementations.arrow import ArrowFSWrapper

    from src.images import list_images

    pattern = f"{place.path}/{place.pattern}"
    if place.filesystem is not None:
        files = ArrowFSWrapper(place.filesystem)
        return files.glob(pattern) if place.pattern else files.find(place.path)
    if place.pattern:
        return filter(os.path.isfile, glob.iglob(pattern, recursive=True))
    return [place.path] if os.path.isfile(place.path) else list_images(place.path)


def find_done(target: Place, skip_existing: bool) -> frozenset[str]:
    """Names of the images that have rows in the Parquet files of the output folder.

    Raises:
        UserError: There are such files, and `skip_existing` is not asked for.
    """
    import pyarrow.dataset

    parts = list_parts(target)
    if parts and not skip_existing:
        raise cli.UserError(
            f"--output_dir {target.path} already has {len(parts)} Parquet file(s); "
            "name another folder, or give --skip_existing to label the remaining images"
        )
    if not parts:
        return frozenset()
    rows = pyarrow.dataset.dataset(parts, schema=schema(), filesystem=target.filesystem, format="parquet")
    return frozenset(rows.to_table(columns=["image"])["image"].unique().to_pylist())


def list_parts(target: Place) -> list[str]:
    """Parquet files of an output folder, without half-written ones."""
    from pyarrow.fs import FileSelector

    infos = target.filesystem.get_file_info(FileSelector(target.path, allow_not_found=True))
    return sorted(info.path for info in infos if info.extension == "parquet" and not info.base_name.startswith("."))


def run_workers(
    found: dict[str, bytes], arguments: tuple, workers: int | None, cpus_per_worker: int
) -> Iterable["pa.Table"]:
    """Label images in a pool of workers; the rows of each task come in the order in which tasks end."""
    import pyarrow as pa
    import ray
    from ray.util.annotations import RayDeprecationWarning

    room = max(int(ray.cluster_resources().get("CPU", 1)) // cpus_per_worker, 1)
    workers = min(workers or room, room, len(found))
    per_task = min(math.ceil(len(found) / (workers * TASKS_PER_WORKER)), MAX_IMAGES_PER_TASK)
    table = pa.table({"image": list(found), "path": list(found.values())})
    tasks = ray.data.from_arrow([table.slice(start, per_task) for start in range(0, len(table), per_task)])
    with warnings.catch_warnings():  # Ray 2.60 has no other way to limit retries
        warnings.simplefilter("ignore", RayDeprecationWarning)
        rows = tasks.map_batches(
            Labeller,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=cpus_per_worker,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            max_task_retries=MAX_RETRIES,
        )
    return rows.iter_batches(batch_size=None, batch_format="pyarrow")


def count(tables: Iterable["pa.Table"], summary: Summary, total: int) -> Iterator["pa.Table"]:
    """Pass tables on, count their rows and show the progress."""
    from tqdm import tqdm

    with tqdm(total=total, unit="image", disable=None) as bar:
        for table in tables:
            bar.update(summary.add(table))
            yield table


def save(tables: Iterable["pa.Table"], target: Place) -> None:
    """Write tables to Parquet files, one for every `SECONDS_PER_FILE`; what has arrived before an error is written."""
    waiting, begin = [], time.monotonic()
    try:
        for table in tables:
            waiting.append(table)
            if time.monotonic() - begin >= SECONDS_PER_FILE:
                write_part(target, waiting)
                waiting, begin = [], time.monotonic()
    finally:
        if waiting:
            write_part(target, waiting)


def write_part(target: Place, tables: list["pa.Table"]) -> None:
    """Write the next Parquet file; it appears whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet

    numbers = [int(number) for path in list_parts(target) for number in re.findall(r"(\d+)\.parquet$", path)]
    name = f"part-{max(numbers, default=-1) + 1:05d}.parquet"
    target.filesystem.create_dir(target.path)
    pa.parquet.write_table(pa.concat_tables(tables), f"{target.path}/.{name}", filesystem=target.filesystem)
    target.filesystem.move(f"{target.path}/.{name}", f"{target.path}/{name}")


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


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder, glob or image: a local path or a pyarrow.fs address")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder of the Parquet files")
    parser.add_argument("--skip_existing", action="store_true", help="resume: skip images with rows in --output_dir")
    parser.add_argument("--weight_file", metavar="FILE", help="weights (default: the bundled model)")
    parser.add_argument("--address", help="address of a Ray cluster, or auto (default: RAY_ADDRESS, else this machine)")
    parser.add_argument("--workers", type=int, metavar="N", help="maximum number of workers (default: all cores)")
    parser.add_argument("--cpus_per_worker", type=int, default=1, metavar="N", help="cores per worker (default: 1)")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    check_installed()
    weight_file = args.weight_file
    if weight_file and os.path.exists(weight_file):
        weight_file = os.path.abspath(weight_file)  # workers have a working folder of their own
    make_predictor = partial(load_predictor, weight_file)
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
