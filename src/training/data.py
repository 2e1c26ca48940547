"""From the configuration to the batches of training and validation."""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from src import cli, datasets, images
from src.cli import JobError, Progress, UserError
from src.files import file_sha256, map_ahead
from src.labels import AGE_CLASSES, GENDERS, HEADS
from src.training.config import Config, TargetConfig
from src.training.distributed import ALONE, Group
from src.training.generator import BatchSettings, ImageSequence
from src.training.targets import age_class_weights, has_ranges


def make_sequences(cfg: Config, group: Group = ALONE) -> tuple[ImageSequence, ImageSequence, float, str]:
    """Make the training and validation batches, and choose the model's margin.

    Of several processes each gets its share of every batch.

    Returns:
        The batches of both parts, the margin, and a fingerprint of what is learned: it changes with the rows whose
        image can be read, their labels and margins, and the predictions, but not with the folder of the images.

    Raises:
        UserError: a table is missing, empty, without labels, of whole photos, or has a smaller margin.
    """
    data = cfg.data
    table = datasets.load_table(data.db, data.image_dir, data.target, data.split)
    parts = {split: table[table["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    for split, part in parts.items():
        if part.empty:
            raise UserError(f"the {split} part of {', '.join(table_names(cfg))} has no images; add rows")
        datasets.require_crops(part)
    margin = choose_margin(cfg.data.margin, pd.concat(parts.values(), ignore_index=True))
    group.require_same(hash_rows(parts, margin, cfg.train.predictions), "rows, labels, margins or predictions")
    parts = {split: drop_and_report(part, split, group) for split, part in parts.items()}
    fingerprint = hash_rows(parts, margin, cfg.train.predictions)
    ranges, workers = has_ranges(table), cfg.train.workers
    common = BatchSettings(cfg.model.img_size, cfg.train.batch_size, margin, cfg.train.seed, share=group.share)
    settings = dataclasses.replace(common, shuffle=True, steps=cfg.train.steps_per_epoch)
    class_weights = age_class_weights(parts["train"], cfg.train.age_class_weights)
    predictions = read_predictions(cfg.train.predictions, parts["train"]["path"]) if cfg.train.predictions else None
    share = cfg.train.predictions_share
    target = TargetConfig(cfg.train.age_target, cfg.train.age_sigma, class_weights, ranges, predictions, share)
    training = ImageSequence(parts["train"], settings, cfg.augment, target, workers)
    settings = dataclasses.replace(common, fill_up=True, steps=cfg.train.validation_steps)
    validation = ImageSequence(parts["val"], settings, target=TargetConfig(has_ranges=ranges), workers=workers)
    require_labels(training, validation, ", ".join(table_names(cfg)))
    return training, validation, margin, fingerprint


def hash_rows(parts: Mapping[str, pd.DataFrame], margin: float, predictions: str | None) -> str:
    """Hash the rows of each part in their order (names, labels, margins, boxes), the margin, and the predictions."""
    digest = hashlib.sha256(f"{margin:g} {predictions and file_sha256(predictions)}".encode())
    for split, part in parts.items():
        numbers = part.select_dtypes("number")
        digest.update(f"{split} {list(numbers)}".encode())
        digest.update(os.fsencode("\n".join(map(os.path.basename, part["path"]))))
        digest.update(numbers.to_numpy(np.float64, na_value=np.nan).tobytes())
    return digest.hexdigest()


def read_predictions(file: str, paths: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Read what `recipes/predict_targets.py` wrote.

    Returns:
        Genders `(n, 2)` and ages `(n, 101)` in the order of `paths`, float32; NaN for images that the file lacks, whose
        number is printed.

    Raises:
        UserError: no such file, another kind of file, or one without any of the images.
    """
    try:
        with np.load(file) as arrays:
            names, genders, ages = (arrays[key] for key in ("path", "gender", "age"))
        rows = {name: row for row, name in enumerate(names.tolist())}
        if [genders.shape, ages.shape] != [(len(rows), len(GENDERS)), (len(rows), AGE_CLASSES)]:
            raise ValueError(f"arrays of {genders.shape} and {ages.shape} for {len(rows)} images")
        genders, ages = genders.astype(np.float32), ages.astype(np.float32)
    except (EOFError, OSError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"train.predictions must be a file of recipes/predict_targets.py, got {file}: {cli.one_line(error)}"
        ) from error
    order = np.array([rows.get(path, -1) for path in paths])
    missing = int((order < 0).sum())
    if missing == len(order):
        raise UserError(
            f"train.predictions must have the images of training, got {file} with none of them; run "
            "recipes/predict_targets.py on the tables of data.db, with their images in the same place"
        )
    if missing:
        print(f"train: {missing:,} images have no prediction in {file} and learn from their labels alone")
    found = order[:, np.newaxis] >= 0
    none = np.float32(np.nan)
    return np.where(found, genders[order], none), np.where(found, ages[order], none)


def require_labels(training: ImageSequence, validation: ImageSequence, names: str) -> None:
    """Require labels to train and to validate on; clear those of heads that are not trained.

    A head that is not trained, or trained and not validated, is named.

    Args:
        names: The tables, for people.

    Raises:
        UserError: training has no label of any head, or validation none of any head that is trained.
    """
    validation.clear_labels([head for head in HEADS if training.heads and head not in training.heads])
    for part, sequence, heads in [("train", training, HEADS), ("val", validation, training.heads)]:
        if not sequence.heads:
            used = "" if sequence.covers_table else f"in the first {len(sequence)} batches "
            raise UserError(
                f"no row {used}of the {part} part of {names} has a known {' or '.join(heads)}; "
                "fill in the columns genders or ages"
            )
    for head in HEADS:
        if head not in training.heads:
            print(f"no {head} is known in the train part: that head is not trained, and its output will be hidden")
        elif head not in validation.heads:
            print(
                f"warning: no {head} is known in validation: that head is trained, but not measured, and the best "
                "weights are chosen without it",
                file=sys.stderr,
            )


def drop_and_report(part: pd.DataFrame, split: str, group: Group) -> pd.DataFrame:
    """Select the rows whose image can be read; of several processes each tries its share.

    Raises:
        JobError: no row is left.
    """
    own = part.assign(row=np.arange(len(part))).iloc[group.process_id :: group.processes]
    kept, unreadable = drop_unreadable(own)
    for path, reason in unreadable:
        cli.warn_skipped(path, reason)
    readable = np.zeros(len(part), np.int32)
    readable[kept["row"]] = 1
    kept = part[group.sum(readable) > 0].reset_index(drop=True)
    if kept.empty:
        example = f", such as {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise JobError(f"none of the {len(part):,} images for {split} can be read{example}")
    skipped = len(part) - len(kept)
    print(f"{split}: {len(kept):,} images" + (f", {skipped:,} unreadable skipped" if skipped else ""))
    return kept


def drop_unreadable(table: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Drop the rows whose image file, if any, cannot be read; each is decoded once, at an eighth of its size.

    Returns:
        The table without these rows, with a new index, and `(path, reason)` of each unreadable file.
    """
    is_file = table["image"].isna() if "image" in table else np.full(len(table), True)
    paths = table.loc[is_file, "path"].drop_duplicates()
    reasons = zip(paths, map_ahead(images.unreadable_reason, paths), strict=True)
    unreadable = []
    for path, reason in Progress(reasons, len(paths), "images", "check", leave=False):
        cli.raise_if_interrupted()
        if reason is not None:
            unreadable.append((path, reason))
    kept = table[~table["path"].isin([path for path, _ in unreadable])].reset_index(drop=True)
    return kept, unreadable


def choose_margin(margin: float | None, table: pd.DataFrame) -> float:
    """Return the configured margin, or the smallest of the table.

    Raises:
        UserError: the configured margin is negative or above the table's.
    """
    if margin is None:
        return float(table["margin"].min())
    datasets.require_margin(table, margin, "data.margin")
    return float(margin)


def table_names(cfg: Config) -> list[str]:
    """Return the names of the tables for people, without folders."""
    return [Path(name).name for name in ([cfg.data.db] if isinstance(cfg.data.db, str) else cfg.data.db)]
