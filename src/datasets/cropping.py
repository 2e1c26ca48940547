"""Faces out of whole photographs: crops of one margin and a label table of them, the work of `crop_faces.py`.

The folder of the crops then holds
    faces.csv        genders,ages,img_paths,split,margin,left,top,right,bottom: one row a crop (`csv_table.py`); the
                     last four are the face box inside the crop, in pixels, since a crop at a picture's border is
                     clamped, as in the demo, and its face then stands off its centre
    not_used.csv     img_paths,reason,faces: the photographs without a crop, `faces` is how many were found
    crop_faces.jsonl what is done (`src.datasets.crop_journal`)
"""

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from src.cli import JobError, Progress, UserError
from src.datasets.crop_journal import Journal, Record, file_stamp
from src.datasets.crop_tables import (
    Photograph,
    faces_table,
    find_photographs,
    not_used_table,
    read_filled_in,
    read_photographs,
)
from src.datasets.csv_table import write_csv
from src.files import file_sha256
from src.images import (
    THRESHOLD,
    Box,
    FaceDetector,
    ImageError,
    check_margin,
    crop_box,
    find_main_face,
    grow_box,
    read_image,
    write_image,
)

FACES, NOT_USED = "faces.csv", "not_used.csv"
NO_FACE, SEVERAL, NO_MAIN_FACE = "no face", "several faces", "several faces, none clearly the main one"
UNREADABLE, CONTRADICTING = "unreadable", "labelled twice, differently"
SUBMITTED = 4096
"""Photographs that are handed to the threads at once; each costs some memory while it waits."""


@dataclass(frozen=True)
class CropSettings:
    """What the crops depend on, see the options of `crop_faces.py`."""

    margin: float = 0.4
    min_size: int = 0
    threshold: float = THRESHOLD
    max_side: int = 512
    main_face: bool = False


def crop_folder(
    input_dir: Path, output_dir: Path, labels: str | None = None, settings: CropSettings | None = None
) -> list[str]:
    """Cuts out the faces of a folder of photographs, on all cores; goes on where an earlier run stopped.

    Without labels every face of every photograph becomes a crop with empty cells, and cells of `faces.csv` that were
    filled in since an earlier run stay. With labels only the photographs of that table are used; where one has several
    faces or none, it is reported and not used. Every row has a split: that of the labels, or by the content of the
    photograph, so that all of its faces stand on one side.

    Args:
        input_dir: Photographs, in subfolders too.
        output_dir: A new folder, or one of an earlier run with the same settings.
        labels: Path of a `.csv` as `src.datasets.csv_table` describes it, with paths below `input_dir`; or a name that
            `src.datasets.table` knows.
        settings: By default those of `CropSettings`.

    Returns:
        Lines that say what became of the photographs.

    Raises:
        UserError: what was asked for is impossible.
        JobError: none of the photographs could be read.
        KeyboardInterrupt: Ctrl-C; the tables hold what is done.
        OSError: a result cannot be written.
    """
    settings = settings or CropSettings()
    _check(input_dir, output_dir, settings)
    if labels is None:
        photographs, contradicting = find_photographs(input_dir, output_dir), []
    else:
        photographs, contradicting = read_photographs(labels, input_dir, settings.margin)
    unused = dict.fromkeys(contradicting, (CONTRADICTING, ""))
    with Journal(output_dir, {"input": str(input_dir.resolve()), **asdict(settings)}) as journal:
        filled_in = read_filled_in(output_dir / FACES)
        try:
            _crop_new(photographs, journal, settings, unused)
        finally:
            records = _current_records(photographs, journal, unused)
            filled_in = filled_in.drop(index=journal.outdated, errors="ignore")
            faces = faces_table(photographs, records, filled_in, settings.margin)
            not_used = not_used_table(records, unused)
            write_csv(faces, output_dir / FACES)
            write_csv(not_used, output_dir / NOT_USED)
    if not records:
        raise JobError(f"none of {len(photographs):,} pictures could be read, see {output_dir / NOT_USED}")
    return _summary(faces, not_used, len(photographs) + len(contradicting), output_dir)


def choose_faces(boxes: Sequence[Box], size: tuple[int, int], main_face: bool, one: bool) -> tuple[list[Box], str]:
    """Decides which of the faces of a photograph are used.

    Args:
        boxes: All that were found, the largest first.
        size: Height and width of the photograph, pixels.
        main_face: Of several take the main one, if there is one.
        one: Several are none, since it would be a guess which one a label means.

    Returns:
        The boxes, and why there are none or "".
    """
    if not boxes:
        return [], NO_FACE
    if len(boxes) > 1 and main_face:
        main = find_main_face(boxes, size)
        return ([main], "") if main else ([], NO_MAIN_FACE)
    if len(boxes) > 1 and one:
        return [], SEVERAL
    return list(boxes), ""


def cut_face(image: np.ndarray, box: Box, margin: float, max_side: int) -> tuple[np.ndarray, Box]:
    """Cuts a face with its margin, clamped to the image, and shrinks it where its longer side is above `max_side`.

    Args:
        image: `(height, width, 3)` uint8 RGB.
        box: Face box in pixels of `image`, inside it.

    Returns:
        The crop, and the face box in pixels of the crop.
    """
    crop = crop_box(image, box, margin)
    left, top = (max(edge, 0) for edge in grow_box(box, margin)[:2])
    height, width = crop.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    x, y = crop.shape[1] / width, crop.shape[0] / height
    inside = (box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y
    return crop, tuple(round(edge) for edge in inside)


def _check(input_dir: Path, output_dir: Path, settings: CropSettings) -> None:
    check_margin(settings.margin)
    if settings.max_side < 1:
        raise UserError(f"expected --max_side of 1 pixel or more, received {settings.max_side}")
    if not input_dir.is_dir():
        raise UserError(f"expected a folder of photographs, received {input_dir}, which is none: give -i FOLDER")
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"expected a folder for the faces, received the file {output_dir}: name another -o")
    photographs, faces = input_dir.resolve(), output_dir.resolve()
    if faces == photographs or faces in photographs.parents:
        raise UserError(f"expected the folder of the faces outside of {input_dir} or below it, received {output_dir}")


def _crop_new(
    photographs: list[Photograph], journal: Journal, settings: CropSettings, unused: dict[str, tuple[str, object]]
) -> None:
    """Crops what is not done yet into the journal's folder; adds unreadable photographs to `unused`."""
    todo = [p for p in photographs if not journal.is_done(p.name, file_stamp(p.path), p.labelled)]
    done = len(photographs) - len(todo)
    try:
        for photograph, result in _crop_all(todo, journal, settings):
            if isinstance(result, Record):
                journal.add(result)
            else:
                unused[photograph.name] = (f"{UNREADABLE}: {result}", "")
                tqdm.write(f"skipped {photograph.name}: {result}", file=sys.stderr)
            done += 1
    except KeyboardInterrupt:
        message = f"{done:,} of {len(photographs):,} pictures are done; the same command goes on"
        raise KeyboardInterrupt(message) from None


def _current_records(photographs: list[Photograph], journal: Journal, unused: dict) -> dict[str, Record]:
    """Of all that was ever done; after a stop also older records of photographs that it did not come to."""
    records = ((photograph, journal.records.get(photograph.name)) for photograph in photographs)
    return {p.name: r for p, r in records if r and r.labelled == p.labelled and p.name not in unused}


def _crop_all(
    photographs: list[Photograph], journal: Journal, settings: CropSettings
) -> Iterator[tuple[Photograph, Record | str]]:
    """Crops on all cores, in order; OpenCV and dlib release the interpreter lock.

    Yields:
        A photograph with its record, or with the reason why there is none.
    """
    detector = FaceDetector(threshold=settings.threshold)
    stems = journal.choose_stems(photograph.name for photograph in photographs)

    def crop(photograph: Photograph) -> Record | str:
        try:
            return _crop_one(photograph, stems[photograph.name], journal.folder, detector, settings)
        except ImageError as error:
            return str(error)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        starts = range(0, len(photographs), SUBMITTED)
        results = (result for start in starts for result in pool.map(crop, photographs[start : start + SUBMITTED]))
        progress = Progress(results, len(photographs), "photos", "crop")
        yield from zip(photographs, progress, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _crop_one(
    photograph: Photograph, stem: str, output_dir: Path, detector: FaceDetector, settings: CropSettings
) -> Record:
    stamp = file_stamp(photograph.path)
    image = read_image(photograph.path)
    boxes = [face.box for face in detector.detect(image) if face.box[2] - face.box[0] >= settings.min_size]
    chosen, reason = choose_faces(boxes, image.shape[:2], settings.main_face, photograph.labelled)
    cuts = [cut_face(image, box, settings.margin, settings.max_side) for box in chosen]
    sha256 = file_sha256(photograph.path)
    if sha256 is None:
        raise ImageError("the file has gone")
    inner = [list(box) for _, box in cuts]
    record = Record(photograph.name, stamp, photograph.labelled, sha256, stem, inner, len(boxes), reason)
    for name, (crop, _) in zip(record.crops, cuts, strict=True):
        _write_crop(output_dir / name, crop)
    return record


def _write_crop(path: Path, crop: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, crop)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ImageError("its name is too long for the name of a crop") from error
        raise


def _summary(faces: pd.DataFrame, not_used: pd.DataFrame, photographs: int, output_dir: Path) -> list[str]:
    lines = [f"{len(faces):,} faces out of {photographs:,} pictures: {output_dir / FACES}"]
    if len(not_used):
        reasons = Counter(reason.split(":")[0] for reason in not_used["reason"])
        counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        lines.append(f"{len(not_used):,} pictures not used ({counted}): {output_dir / NOT_USED}")
    return lines
