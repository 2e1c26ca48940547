"""Where images of any file system are found, and the Parquet files that their labels are written to."""

import glob
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSelector, FileSystem

from src.cli import UserError, warn_skipped
from src.images import BOX_COLUMNS, EXTENSIONS, find_images as find_local_images
from src.inference import LabelledImage

SECONDS_PER_FILE = 60
"""A Parquet file is written this often; labels newer than that are lost when this process is killed."""
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        *((side, pa.int32()) for side in BOX_COLUMNS),
        ("age", pa.float32()),
        ("gender", pa.string()),
        ("male_probability", pa.float32()),
        ("frame", pa.int64()),  # empty, as for all images in predictions.csv
        ("time", pa.float64()),
        ("error", pa.string()),
    ]
)
"""Columns of predictions.csv, and `error`."""


class Place(NamedTuple):
    """A folder or file; `filesystem` is None for this machine's own, `pattern` a glob below the folder or ""."""

    filesystem: FileSystem | None
    path: str
    pattern: str = ""


class Origin(NamedTuple):
    """What labels were made of, stored in each Parquet file: names count as done only below the same folder.

    Attributes:
        images: Folder below which the names of images are; an address where it is not on this machine.
        weights: Name of the weight file.
        sha256: Hash of its bytes; "" where they are not at hand.
    """

    images: str
    weights: str
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.images} by {self.weights}" + f" ({self.sha256[:8]})" * bool(self.sha256)

    def matches(self, other: "Origin") -> bool:
        """Tell whether labels can be in one folder; a weight file may have another name."""
        return (self.images, self.sha256 or self.weights) == (other.images, other.sha256 or other.weights)


def open_place(address: str) -> Place:
    """Split an address or a local path before its first wildcard; `?` and `[` are wildcards of local paths only.

    Raises:
        UserError: `pyarrow.fs` knows no such address.
    """
    remote = "://" in address
    path, question, query = address.partition("?") if remote else (os.path.abspath(address), "", "")
    wildcard = None if os.path.lexists(path) else re.search(r"\*" if remote else r"[*?[]", path)
    split = path.rfind("/", 0, wildcard.start()) if wildcard else len(path)
    folder, pattern = path[:split], path[split + 1 :]
    if not remote:
        return Place(None, folder, pattern)
    try:
        return Place(*FileSystem.from_uri(folder + question + query), pattern)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"cannot open {address}: {error}") from error


def find_images(place: Place) -> dict[str, bytes]:
    """Find images: in a local folder those that the demo finds, elsewhere by their ending; hidden ones are skipped.

    Returns:
        Names as in predictions.csv, which are paths below the folder, and the whole paths.

    Raises:
        UserError: There is no image.
    """
    found = {}
    for path in sorted(map(os.fspath, _find_paths(place))):
        name = path.removeprefix(place.path).lstrip("/") or os.path.basename(path)
        if not name.startswith(".") and "/." not in name:
            found[os.fsencode(name).decode("utf-8", "backslashreplace")] = os.fsencode(path)
    if not found:
        where = f"{place.path}/{place.pattern}".rstrip("/")
        raise UserError(f"--images must name images (.jpg, .png, ...), found none at {where}")
    return found


def find_root(place: Place, found: dict[str, bytes]) -> str:
    """Return the folder below which the names of the images are."""
    folder = os.path.dirname(place.path) if os.fsencode(place.path) in found.values() else place.path
    is_local = place.filesystem is None or place.filesystem.type_name == "local"
    return folder if is_local else f"{place.filesystem.type_name}://{folder}"


def _find_paths(place: Place) -> Iterable[str | Path]:
    if place.filesystem is None and not place.pattern:
        if not os.path.exists(place.path):
            return []
        found = find_local_images(place.path)
        for name, reason in {**found.unreadable, **dict.fromkeys(found.results, "results of demo.py")}.items():
            warn_skipped(name, reason)
        return found.paths
    pattern = f"{place.path}/{place.pattern}"
    if place.filesystem is None:
        paths = filter(os.path.isfile, glob.iglob(pattern, recursive=True))
    else:
        files = ArrowFSWrapper(place.filesystem)
        paths = files.glob(pattern) if place.pattern else files.find(place.path)
    return (path for path in paths if os.path.splitext(path)[1].lower() in EXTENSIONS)


def find_done(target: Place, skip_existing: bool, origin: Origin) -> frozenset[str]:
    """Names of the images that are labelled in the Parquet files of the output folder.

    An image whose rows all have an `error` is not: it may have been a lost connection. Where it has a row without an
    error from a later run, that one counts.

    Raises:
        UserError: There are such files, and `skip_existing` is not asked for, or they are of another origin.
    """
    parts = list_parts(target)
    if parts and not skip_existing:
        raise UserError(
            f"--output_dir {target.path} already has {len(parts)} Parquet file(s); "
            "name another folder, or give --skip_existing to label the remaining images"
        )
    if not parts:
        return frozenset()
    rows = pa.dataset.dataset(parts, schema=SCHEMA, filesystem=target.filesystem, format="parquet")
    for fragment in rows.get_fragments():
        _check_origin(target, fragment.physical_schema.metadata or {}, origin)
    labelled = rows.to_table(columns=["image"], filter=pyarrow.dataset.field("error").is_null())
    return frozenset(labelled["image"].unique().to_pylist())


def _check_origin(target: Place, metadata: dict[bytes, bytes], origin: Origin) -> None:
    values = [metadata.get(field.encode()) for field in Origin._fields]
    if None in values:  # written by version 1.0.0
        return
    known = Origin(*map(os.fsdecode, values))
    if not known.matches(origin):
        raise UserError(f"--output_dir {target.path} holds labels of {known}, got {origin}; name another folder")


def list_parts(target: Place) -> list[str]:
    """Parquet files of an output folder, without half-written ones."""
    infos = target.filesystem.get_file_info(FileSelector(target.path, allow_not_found=True))
    return sorted(info.path for info in infos if info.extension == "parquet" and not info.base_name.startswith("."))


def make_table(images: Iterable[LabelledImage]) -> pa.Table:
    """Make one row per face; one without a box for an image without a face or with an error."""
    rows = []
    for image in images:
        rows += [
            {
                "image": image.name,
                **dict(zip(BOX_COLUMNS, face.box, strict=True)),
                "age": face.age,
                "gender": face.gender,
                "male_probability": face.male_probability,
            }
            for face in image.predictions
        ] or [{"image": image.name, "error": image.error or None}]
    return pa.Table.from_pylist(rows, SCHEMA)


def save(tables: Iterable[pa.Table], target: Place, origin: Origin) -> None:
    """Write tables to Parquet files, one for every `SECONDS_PER_FILE`; what has arrived before an error is written."""
    waiting, begin = [], time.monotonic()
    try:
        for table in tables:
            waiting.append(table)
            if time.monotonic() - begin >= SECONDS_PER_FILE:
                write_part(target, waiting, origin)
                waiting, begin = [], time.monotonic()
    finally:
        if waiting:
            write_part(target, waiting, origin)


def write_part(target: Place, tables: list[pa.Table], origin: Origin) -> None:
    """Write the next Parquet file; it appears whole or not at all."""
    numbers = [int(number) for path in list_parts(target) for number in re.findall(r"(\d+)\.parquet$", path)]
    name = f"part-{max(numbers, default=-1) + 1:05d}.parquet"
    target.filesystem.create_dir(target.path)
    metadata = {field: os.fsencode(value) for field, value in origin._asdict().items()}
    table = pa.concat_tables(tables).replace_schema_metadata(metadata)
    pa.parquet.write_table(table, f"{target.path}/.{name}", filesystem=target.filesystem)
    target.filesystem.move(f"{target.path}/.{name}", f"{target.path}/{name}")
