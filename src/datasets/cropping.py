"""Crop faces out of photos with one margin and write a label table of them, the work of `crop_faces.py`.

The output folder holds
    faces.csv        genders,ages,img_paths,split,margin,left,top,right,bottom: one row per crop (`csv_table.py`),
                     with age_min,age_max where a label is a range, and ethnicity where one is known; the last four
                     are the face box inside the crop, in pixels, since a crop at a photo's border is clamped and its
                     face then stands off its centre; behind these come other columns of the labels, such as `person`,
                     and those that a user has added
    not_used.csv     img_paths,reason,faces: the photos without a crop, `faces` is how many were found
    faces_before_1.csv   an older faces.csv with cells, filled in by hand, of photos that a later run did not find,
                     could not read or found changed; or one that became unreadable while a run cropped
    crop_faces.jsonl what is done (`crop_journal.py`)
"""

import errno
import itertools
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.cli import (
    MARGIN,
    MAX_CROP_SIDE,
    THRESHOLD,
    JobError,
    Progress,
    UserError,
    check_margin,
    check_threshold,
    warn_skipped,
)
from src.datasets.crop_journal import Journal, Record
from src.datasets.crop_tables import LABELS, Photo, faces_table, list_photos, not_used_table, read_filled_in
from src.datasets.csv_table import write_csv
from src.files import file_sha256, file_stamp, map_ahead
from src.images import (
    Box,
    FaceDetector,
    ImageError,
    crop_box,
    find_main_face,
    grow_box,
    read_image,
    write_image,
)

FACES, NOT_USED = "faces.csv", "not_used.csv"
UNREADABLE = "unreadable"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropSettings:
    """What the crops depend on, see the options of `crop_faces.py`."""

    margin: float = MARGIN
    min_size: int = 0
    threshold: float = THRESHOLD
    max_side: int = MAX_CROP_SIDE
    main_face: bool = False
    profiles: bool = True


def crop_folder(
    input_dir: Path, output_dir: Path, labels: str | None = None, settings: CropSettings | None = None
) -> list[str]:
    """Crop the faces of a folder of photos, on all cores; resume where an earlier run stopped.

    Without labels every face of every photo becomes a crop with empty cells, and cells of `faces.csv` that were
    filled in since an earlier run, or while this one crops, stay. With labels only the photos of that table are used;
    where one has several faces or none, it is reported and not used. Every row has a split: that of the labels, or by
    the content of the photo, so that all of its faces stand on one side.

    Args:
        input_dir: Photos, in subfolders too.
        output_dir: A new folder, or one of an earlier run with the same settings.
        labels: Path of a `.csv` as `src.datasets.csv_table` describes it, with paths below `input_dir`; or a name that
            `src.datasets.table` knows.
        settings: By default those of `CropSettings`.

    Returns:
        The lines to print: how many faces and unused photos.

    Raises:
        UserError: an invalid request.
        JobError: none of the photos could be read, or a file failed that exists but cannot be opened or written; the
            others are done.
        KeyboardInterrupt: Ctrl-C; the tables hold what is done.
        OSError: a result cannot be written.
    """
    settings = settings or CropSettings()
    _check(input_dir, output_dir, settings)
    photos, contradicting, found = list_photos(labels, input_dir, output_dir, settings.margin)
    unused: dict[str, tuple[str, object]] = dict.fromkeys(contradicting, ("labelled twice, differently", ""))
    failed = dict(found.unreadable)
    unused |= {name: (f"{UNREADABLE}: {reason}", "") for name, reason in failed.items()}
    journal = Journal(output_dir, {"input": str(input_dir.resolve()), **asdict(settings)})
    filled_in, added = read_filled_in(output_dir / FACES)
    try:
        _crop_new(photos, journal, settings, unused, failed)
    finally:
        records = _current_records(photos, journal, unused)
        filled_in, added = _read_again(filled_in, added, output_dir)
        labels_now, added_now = (table.drop(index=journal.outdated, errors="ignore") for table in (filled_in, added))
        faces = faces_table(photos, records, labels_now, added_now, settings.margin)
        not_used = not_used_table(records, unused)
        kept = _keep_cells(filled_in, added, labels_now.index.intersection(faces["img_paths"]), output_dir)
        write_csv(faces, output_dir / FACES)
        write_csv(not_used, output_dir / NOT_USED)
    if not records:
        raise JobError(f"none of {len(photos):,} photos could be read, see {output_dir / NOT_USED}")
    lines = [*_summary(faces, not_used, len(photos) + len(contradicting), output_dir), *kept, *found.notes()]
    if failed:
        name, reason = next(iter(failed.items()))
        raise JobError(f"{len(failed):,} file(s) failed, such as {name}: {reason}; {'; '.join(lines)}")
    return lines


def choose_faces(boxes: Sequence[Box], size: tuple[int, int], main_face: bool, one: bool) -> tuple[list[Box], str]:
    """Decide which of the faces of a photo are used.

    Args:
        boxes: All that were found, the largest first.
        size: Height and width of the photo, pixels.
        main_face: Of several take the main one, if there is one.
        one: Several are none, since it would be a guess which one a label means.

    Returns:
        The boxes, and why there are none or "".
    """
    if not boxes:
        return [], "no face"
    if len(boxes) > 1 and main_face:
        main = find_main_face(boxes, size)
        return ([main], "") if main else ([], "several faces, none clearly the main one")
    if len(boxes) > 1 and one:
        return [], "several faces"
    return list(boxes), ""


def cut_face(image: np.ndarray, box: Box, margin: float, max_side: int) -> tuple[np.ndarray, Box]:
    """Cut a face with its margin, clamped to the image, and shrink it where its longer side is above `max_side`.

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
    check_threshold(settings.threshold)
    if settings.max_side < 1:
        raise UserError(f"--max_side must be >= 1, got {settings.max_side}")
    if not input_dir.is_dir():
        raise UserError(f"-i must be a folder of photos, got {input_dir}, which is none")
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"-o must be a folder, got the file {output_dir}")
    photos, faces = Path(os.path.realpath(input_dir)), Path(os.path.realpath(output_dir))
    if faces == photos or faces in photos.parents:
        raise UserError(f"-o must be outside of {input_dir} or below it, got {output_dir}")


def _read_again(filled_in: pd.DataFrame, added: pd.DataFrame, output_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the older table once more, as it may have been filled in meanwhile; if it cannot be read, copy it.

    Args:
        filled_in: Labels of the first reading, see `read_filled_in`.
        added: Columns of a user of the first reading.

    Returns:
        The new reading, or the first one where there is none, as of rows that the new one lacks: the table may be half
        saved.
    """
    try:
        labels, columns = read_filled_in(output_dir / FACES)
    except UserError as error:
        logger.warning(f"{error}; {_set_aside(output_dir)} is a copy, and the cells read at the start are kept")
        return filled_in, added
    lost = filled_in.index.difference(labels.index)
    if lost.empty:
        return labels, columns
    return pd.concat([labels, filled_in.loc[lost]]), pd.concat([columns, added.loc[lost]]).fillna("")


def _keep_cells(filled_in: pd.DataFrame, added: pd.DataFrame, staying: pd.Index, output_dir: Path) -> list[str]:
    """Copy the older table before it is replaced, if labels or cells of added columns do not stay."""
    texts = added.assign(ethnicity=filled_in["ethnicity"])
    has_cells = filled_in.reindex(columns=list(LABELS)).notna().any(axis=1) | (texts != "").any(axis=1)
    count = int(has_cells[~has_cells.index.isin(staying)].sum())
    if not count:
        return []
    return [f"cells filled in for {count:,} crop(s) that are gone or changed: {_set_aside(output_dir)}"]


def _set_aside(output_dir: Path) -> Path:
    """Copy the older table to the first free `faces_before_N.csv`."""
    copies = (output_dir / f"faces_before_{number}.csv" for number in itertools.count(1))
    copy = next(path for path in copies if not path.exists())
    shutil.copyfile(output_dir / FACES, copy)
    return copy


def _crop_new(
    photos: list[Photo],
    journal: Journal,
    settings: CropSettings,
    unused: dict[str, tuple[str, object]],
    failed: dict[str, str],
) -> None:
    """Crop what is not done yet into the journal's folder; add unreadable photos to `unused`.

    Those that exist but cannot be opened, or whose crops cannot be written, are added to `failed` too.
    """
    todo = [p for p in photos if not journal.is_done(p.name, file_stamp(p.path), p.labelled)]
    done = len(photos) - len(todo)
    try:
        for photo, result in _crop_all(todo, journal, settings):
            if isinstance(result, Record):
                journal.add(result)
            else:
                unused[photo.name] = (f"{UNREADABLE}: {result}", "")
                if isinstance(result.__cause__, OSError) and not isinstance(result.__cause__, FileNotFoundError):
                    failed[photo.name] = str(result)
                warn_skipped(photo.name, result)
            done += 1
    except KeyboardInterrupt:
        message = f"{done:,} of {len(photos):,} photos are done; the same command resumes"
        raise KeyboardInterrupt(message) from None


def _current_records(photos: list[Photo], journal: Journal, unused: dict) -> dict[str, Record]:
    """Select the records of these photos; after a stop also older ones of photos that it did not come to."""
    records = ((photo, journal.records.get(photo.name)) for photo in photos)
    return {p.name: r for p, r in records if r and r.labelled == p.labelled and p.name not in unused}


def _crop_all(
    photos: list[Photo], journal: Journal, settings: CropSettings
) -> Iterator[tuple[Photo, Record | ImageError]]:
    """Yield each photo with its record or error, in order, cropped on all cores (OpenCV and dlib release the lock)."""
    detector = FaceDetector(threshold=settings.threshold, profiles=settings.profiles)
    stems = journal.choose_stems(photo.name for photo in photos)

    def crop(photo: Photo) -> Record | ImageError:
        try:
            return _crop_one(photo, stems[photo.name], journal.folder, detector, settings)
        except ImageError as error:
            return error

    yield from zip(photos, Progress(map_ahead(crop, photos), len(photos), "photos", "crop"), strict=True)


def _crop_one(photo: Photo, stem: str, output_dir: Path, detector: FaceDetector, settings: CropSettings) -> Record:
    stamp, image = file_stamp(photo.path), read_image(photo.path)
    boxes = [face.box for face in detector.detect(image) if face.box[2] - face.box[0] >= settings.min_size]
    chosen, reason = choose_faces(boxes, image.shape[:2], settings.main_face, photo.labelled)
    cuts = [cut_face(image, box, settings.margin, settings.max_side) for box in chosen]
    sha256 = file_sha256(photo.path)
    if sha256 is None:
        raise ImageError("the file has gone")
    inner = [list(box) for _, box in cuts]
    record = Record(photo.name, stamp, photo.labelled, sha256, stem, inner, len(boxes), reason)
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):  # no other crop could be written
            raise
        raise ImageError(f"its crop cannot be written: {error.strerror}") from error


def _summary(faces: pd.DataFrame, not_used: pd.DataFrame, photos: int, output_dir: Path) -> list[str]:
    lines = [f"{len(faces):,} faces out of {photos:,} photos: {output_dir / FACES}"]
    if len(not_used):
        reasons = Counter(reason.split(":")[0] for reason in not_used["reason"])
        counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        lines.append(f"{len(not_used):,} photos not used ({counted}): {output_dir / NOT_USED}")
    return lines
