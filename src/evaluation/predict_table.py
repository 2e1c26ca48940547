"""Runs an estimator over a table of labelled pictures.

*Predictions* are a DataFrame: the rows of the table that got an answer, with all of their columns (see
`src.datasets.table`) and `predicted_age` (float64, years) and `male_probability` (float64, 0..1).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from src.cli import JobError, Progress, UserError
from src.files import map_ahead
from src.images import BOX_COLUMNS, Box, ImageError, crop_to_margin, cut_faces, main_face, read_image, resize


class Estimator(Protocol):
    """What is needed of `src.inference.AgeGenderEstimator`."""

    info: Any
    batch_size: int

    def predict(self, faces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]: ...


class Skipped(NamedTuple):
    """A picture that got no answer, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came out for a table.

    Attributes:
        predictions: See the header of this module; the table's order.
        skipped: Pictures that could not be read.
        faceless: Whole photographs in which no face was found.
    """

    predictions: pd.DataFrame
    skipped: list[Skipped]
    faceless: list[str]


def predict_table(estimator: Estimator, table: pd.DataFrame, detector: Any = None) -> Outcome:
    """Estimates age and gender of every picture of a table.

    Pictures are read and cut in a pool of threads while the network runs. Face crops are cut from the margin that the
    table says to that of the weights, as in training; in whole photographs (margin NaN) the main face is detected
    and cut.

    Args:
        estimator: Its `info` says margin and input size; its `batch_size`, how many faces it takes at once.
        table: At least `path` and `margin`; pictures in a column `image` (uint8 RGB) need no file.
        detector: A `src.images.FaceDetector` to use instead of one with its defaults.

    Raises:
        UserError: the weights' margin is above that of a face crop.
        JobError: no picture gave an answer.
    """
    if estimator.batch_size < 1:
        raise UserError(f"expected a batch size of at least 1, received {estimator.batch_size}")
    check_margins(table, estimator.info.margin)
    if detector is None and table["margin"].isna().any():
        from src.images import FaceDetector

        detector = FaceDetector()

    images = table["image"] if "image" in table else [None] * len(table)
    pictures = zip(table["path"], table["margin"], images, _boxes(table), strict=True)
    faces = map_ahead(lambda picture: _prepare_face(*picture, estimator.info, detector), pictures)
    progress = Progress(faces, len(table), "images", "estimate")
    outcome = _collect(estimator, table, progress)
    if outcome.predictions.empty:
        raise JobError(_nothing_left(outcome, len(table)))
    return outcome


def check_margins(table: pd.DataFrame, margin: float) -> None:
    """Demands face crops of at least a margin; whole photographs can be cut with any.

    Raises:
        UserError: names both margins.
    """
    if (table["margin"] < margin).any():
        raise UserError(
            f"expected pictures with a margin of at least {margin:g}, that of the weights, received face crops with"
            f" margin {table['margin'].min():g}: choose weights of a smaller margin or pictures with a wider one"
        )


def _boxes(table: pd.DataFrame) -> list[Box | None]:
    """Where the face is in each picture; None where the table does not say."""
    if BOX_COLUMNS[0] not in table:
        return [None] * len(table)
    rows = table[BOX_COLUMNS].itertuples(index=False, name=None)
    return [None if np.isnan(row[0]) else tuple(map(int, row)) for row in rows]


def _prepare_face(
    path: str, picture_margin: float, image: Any, box: Box | None, info: Any, detector: Any
) -> np.ndarray | Skipped | None:
    """`(img_size, img_size, 3)`; None where a photograph shows no face."""
    if not isinstance(image, np.ndarray):
        try:
            image = read_image(path)
        except ImageError as error:
            return Skipped(path, str(error))
    if not np.isnan(picture_margin):
        return resize(crop_to_margin(image, picture_margin, info.margin, box), info.img_size, info.resize)
    found = main_face(detector.detect(image), image)
    if found is None:
        return None
    (face,) = cut_faces(image, [found], info.margin, info.resize)
    return resize(face, info.img_size, info.resize)


def _collect(estimator: Estimator, table: pd.DataFrame, faces: Iterable) -> Outcome:
    """Gathers faces into batches and asks the estimator."""
    rows, batch, answers, skipped, faceless = [], [], [], [], []
    for row, face in enumerate(faces):
        if isinstance(face, Skipped):
            skipped.append(face)
        elif face is None:
            faceless.append(table["path"].iloc[row])
        else:
            rows.append(row)
            batch.append(face)
        if len(batch) == estimator.batch_size:
            answers.append(np.array(estimator.predict(batch)))
            batch = []
    if batch:
        answers.append(np.array(estimator.predict(batch)))
    ages, male = np.concatenate(answers, axis=1) if answers else np.empty((2, 0))
    answered = table.iloc[rows].drop(columns="image", errors="ignore")
    return Outcome(answered.assign(predicted_age=ages, male_probability=male), skipped, faceless)


def _nothing_left(outcome: Outcome, count: int) -> str:
    if not count:
        return "the table is empty: there is nothing to evaluate"
    example = f", {outcome.skipped[0].path}: {outcome.skipped[0].reason}" if outcome.skipped else ""
    return (
        f"none of {count:,} pictures gave an answer: {len(outcome.skipped):,} could not be read{example};"
        f" {len(outcome.faceless):,} show no face that the detector finds"
    )
