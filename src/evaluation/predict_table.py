"""Run an estimator over a table of labelled images.

*Predictions* are a DataFrame: the rows of the table that got a prediction, with all of their columns (see
`src.datasets.table`) and `predicted_age` (float64, years) and `male_probability` (float64, 0..1).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src.cli import JobError, Progress, UserError
from src.datasets import face_boxes, require_margin
from src.files import map_ahead
from src.images import (
    Box,
    FaceDetector,
    ImageError,
    crop_to_margin,
    cut_faces,
    face_region,
    find_main_face,
    overlap,
    read_image,
    resize,
)
from src.inference import Estimator
from src.labels import AGE_RANGE_COLUMNS, HEADS


class Skipped(NamedTuple):
    """An image that got no prediction, and why."""

    path: str
    reason: str


class Prepared(NamedTuple):
    """The model's input, and what the detector did."""

    face: np.ndarray | None  # `(img_size, img_size, 3)`, None where no face was found
    boxes: float = math.nan  # how many the detector found, NaN where it did not run
    # Intersection over union of the chosen box (0 for none) and the face that the table knows of; NaN: it knows none.
    overlap: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """What came out for a table."""

    predictions: pd.DataFrame  # see the header of this module; the table's order
    skipped: list[Skipped]  # images that could not be read, or whose face box lies outside
    faceless: list[str]  # images in which no face was found
    # One row per image in which faces were searched for: `boxes` and `overlap` (float64), see `Prepared`.
    detections: pd.DataFrame


def predict_table(estimator: Estimator, table: pd.DataFrame, detector: Any = None, detect: bool = False) -> Outcome:
    """Estimate age and gender of every image of a table.

    Images are read and cut in a pool of threads while the network runs. Face crops are cut from the margin that the
    table says to that of the weights, as in training; in photos (margin NaN) the main face is detected
    and cut, or the largest where none is clearly the main one.

    Args:
        estimator: Its `info` says margin and input size; its `batch_size`, how many faces it takes at once.
        table: At least `path` and `margin`; images in a column `image` (uint8 RGB) need no file.
        detector: A `src.images.FaceDetector` to use instead of one with its defaults.
        detect: Detect the main face in face crops too.

    Raises:
        UserError: the weights' margin is above that of a face crop.
        JobError: no image got a prediction.
    """
    untrained = [head for head in HEADS if head not in estimator.info.heads and head in table]
    untrained += [name for name in AGE_RANGE_COLUMNS if "age" in untrained and name in table]
    table = table.assign(**dict.fromkeys(untrained, np.nan))  # nothing is measured of a head that was not trained
    if estimator.batch_size < 1:
        raise UserError(f"--batch_size must be >= 1, got {estimator.batch_size}")
    searched = table["margin"].isna() | detect
    require_margin(table[~searched], estimator.info.margin, "the margin of the weights")
    if detector is None and searched.any():
        detector = FaceDetector()
    images = table["image"] if "image" in table else [None] * len(table)
    rows = zip(table["path"], table["margin"], images, face_boxes(table), searched, strict=True)
    faces = map_ahead(lambda row: _prepare_face(*row, estimator.info, detector), rows)
    progress = Progress(faces, len(table), "images", "estimate")
    outcome = _collect(estimator, table, progress)
    if outcome.predictions.empty:
        raise JobError(_nothing_left(outcome, len(table)))
    return outcome


def _prepare_face(
    path: str, margin: float, image: Any, box: Box | None, searched: bool, info: Any, detector: Any
) -> Prepared | Skipped:
    try:
        if not isinstance(image, np.ndarray):
            image = read_image(path)
        if not searched:
            return Prepared(resize(crop_to_margin(image, margin, info.margin, box), info.img_size, info.resize))
        known = None if np.isnan(margin) else face_region(image.shape[:2], margin, 0, box)
    except ImageError as error:
        return Skipped(path, str(error))
    boxes = [face.box for face in detector.detect(image)]
    if not boxes:
        return Prepared(None, 0, math.nan if known is None else 0.0)
    found = find_main_face(boxes, image.shape[:2]) or boxes[0]
    (face,) = cut_faces(image, [found], info.margin, info.resize)
    face = resize(face, info.img_size, info.resize)
    return Prepared(face, len(boxes), math.nan if known is None else overlap(found, known))


def _collect(estimator: Estimator, table: pd.DataFrame, images: Iterable[Prepared | Skipped]) -> Outcome:
    """Gather faces into batches and predict them."""
    rows, batch, predicted, skipped, faceless, detections = [], [], [], [], [], []
    for row, image in enumerate(images):
        if isinstance(image, Skipped):
            skipped.append(image)
            continue
        detections.append((image.boxes, image.overlap))
        if image.face is None:
            faceless.append(table["path"].iloc[row])
            continue
        rows.append(row)
        batch.append(image.face)
        if len(batch) == estimator.batch_size:
            predicted.append(np.array(estimator.predict(batch)))
            batch = []
    if batch:
        predicted.append(np.array(estimator.predict(batch)))
    ages, male = np.concatenate(predicted, axis=1) if predicted else np.empty((2, 0))
    predictions = table.iloc[rows].drop(columns="image", errors="ignore")
    return Outcome(
        predictions.assign(predicted_age=ages, male_probability=male),
        skipped,
        faceless,
        pd.DataFrame(detections, columns=["boxes", "overlap"], dtype=np.float64).dropna(subset="boxes"),
    )


def _nothing_left(outcome: Outcome, count: int) -> str:
    if not count:
        return "the table is empty: there is nothing to evaluate"
    example = f", {outcome.skipped[0].path}: {outcome.skipped[0].reason}" if outcome.skipped else ""
    return (
        f"none of {count:,} images got a prediction: {len(outcome.skipped):,} could not be read{example};"
        f" in {len(outcome.faceless):,} the detector finds no face"
    )
