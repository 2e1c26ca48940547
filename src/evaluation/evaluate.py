"""Whole evaluations: weights and the name of a table in, figures out."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src import datasets
from src.cli import ROOT, UserError
from src.datasets import load_table
from src.evaluation import metrics, plots
from src.evaluation.predict_table import Estimator, predict_table
from src.evaluation.report import format_appa_real, format_report, skipped_pictures, summarise, to_plain, write_files

ALL = "all"
FACE_ENDING = "_face.jpg"


def evaluate(
    estimator: Estimator,
    db: str = "utkface",
    image_dir: str | None = None,
    split: str = "test",
    output_dir: Path | None = None,
    detect: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Evaluates weights on one split of a table.

    Args:
        estimator: A `src.inference.AgeGenderEstimator`.
        db: A name or path that `src.datasets.load_table` takes.
        image_dir: Where its pictures lie, if not in their usual place.
        split: `train`, `val`, `test` or `all`.
        output_dir: Gets `report.txt`, `report.json`, `predictions.csv`, `scatter.png` and `error_histogram.png`.
        detect: Find and cut the faces as the demo does, in face crops too, and compare with the table's own crops.

    Returns:
        The figures (see `src.evaluation.report.summarise`) and the lines that say them.

    Raises:
        UserError: no such table or no row in this split; the weights need a wider margin than the pictures have.
        JobError: no picture gave an answer.
        OSError: the output cannot be written.
    """
    table = select_split(load_table(db, image_dir), split, db)
    if output_dir:
        output_dir.mkdir(parents=True, exist_ok=True)
    outcome = predict_table(estimator, table.assign(margin=np.nan) if detect else table)
    report = {"model": estimator.describe(), "data": f"{db}, {split}", **summarise(outcome)}
    lines = [f"Model: {report['model']}", f"Data: {report['data']}", *format_report(report)]
    if detect and table["margin"].notna().any():
        same = table.loc[outcome.predictions.index]
        cuts = summarise(predict_table(estimator, same[same["margin"].notna()]))
        report["as_cut_by_the_table"] = {name: cuts[name] for name in ("pictures", "mae", "gender_accuracy")}
        lines.append(describe_cuts(**report["as_cut_by_the_table"]))
    if output_dir:
        write_files(output_dir, lines, report, prediction_columns(outcome.predictions))
        save_plots(output_dir, {"true age": (outcome.predictions["age"], outcome.predictions["predicted_age"])})
    return report, lines


def evaluate_appa_real(
    estimator: Estimator,
    folder: Path | None = None,
    split: str = "valid",
    output_dir: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Evaluates weights on one split of APPA-REAL, against the age that people see and the one in the passport.

    Args:
        folder: The unpacked `appa-real-release`, if not in `appa-real/`.
        split: `train`, `valid` or `test`, as the data set calls them.
        output_dir: As for `evaluate`; `predictions.csv` has `file_name,predicted_age,apparent_age_avg,real_age`.

    Returns:
        The figures and the lines that say them, the two MAEs first.

    Raises:
        UserError, JobError, OSError: as for `evaluate`.
    """
    folder = folder or ROOT / "appa-real" / "appa-real-release"
    if not (folder / f"gt_avg_{split}.csv").is_file():
        raise UserError(f"expected {folder / f'gt_avg_{split}.csv'}, which is not there: run `./download.sh appa-real`")
    ours = {theirs: ours for ours, theirs in datasets.APPA_REAL_FOLDERS.items()}
    # `folder` is no file and so no list of pictures to ignore: such a list is for training only.
    table = datasets.load_appa_real(folder, ignore_list=folder, target="real")
    table = table[table["split"] == ours[split]]
    if output_dir:
        output_dir.mkdir(parents=True, exist_ok=True)
    with_picture = table["path"].map(os.path.isfile)
    outcome = predict_table(estimator, table[with_picture])
    rows = outcome.predictions
    counts = {"rows_without_picture": table.loc[~with_picture, "file_name"].tolist()}
    counts["pictures_without_row"] = _unlisted(folder / split, table["path"])
    report = {"model": estimator.describe(), "data": f"APPA-REAL, {split}", **summarise_appa_real(rows)}
    report = to_plain(report | counts | skipped_pictures(outcome))
    lines = format_appa_real(report)
    if output_dir:
        write_files(output_dir, lines, report, appa_real_columns(rows))
        names = {"apparent age": "apparent_age", "real age": "real_age"}
        save_plots(output_dir, {what: (rows[name], rows["predicted_age"]) for what, name in names.items()})
    return report, lines


def summarise_appa_real(rows: pd.DataFrame) -> dict[str, Any]:
    """Figures of predictions that also have `apparent_age`, `apparent_std` (of the votes) and `real_age`, in years."""
    predicted = rows["predicted_age"]
    report: dict[str, Any] = {"pictures": len(rows)}
    tables = {}
    for target in ("apparent", "real"):
        true = rows[f"{target}_age"]
        report[f"mae_{target}"] = metrics.mean_absolute_error(true, predicted)
        report[f"bias_{target}"] = metrics.mean_error(true, predicted)
        report[f"cs5_{target}"] = metrics.cumulative_score(true, predicted, 5)
        groups = metrics.age_group_index(true)
        tables[f"{target} age"] = metrics.table_by_group(rows.assign(age=true), groups, metrics.AGE_GROUPS)
    report["epsilon_error"] = metrics.epsilon_error(rows["apparent_age"], rows["apparent_std"], predicted)
    return report | {"tables": tables}


def appa_real_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """`predictions.csv` of an evaluation on APPA-REAL."""
    return pd.DataFrame(
        {
            "file_name": rows["file_name"],
            "predicted_age": rows["predicted_age"].round(2),
            "apparent_age_avg": rows["apparent_age"],
            "real_age": rows["real_age"],
        }
    )


def _unlisted(folder: Path, paths: pd.Series) -> list[str]:
    """Faces in a split's folder that no row names."""
    faces = {path.name for path in folder.glob(f"*{FACE_ENDING}")}
    return sorted(faces - {Path(path).name for path in paths})


def select_split(table: pd.DataFrame, split: str, db: str) -> pd.DataFrame:
    """The rows of one split, or all of them.

    Raises:
        UserError: no row has this split.
    """
    if split == ALL:
        return table
    if not (table["split"] == split).any():
        sizes = ", ".join(f"{name} ({count:,})" for name, count in table["split"].value_counts(sort=False).items())
        raise UserError(
            f"expected rows of the split {split!r} in {db}, which has {sizes or 'no row'}: name another --split"
        )
    return table[table["split"] == split]


def describe_cuts(pictures: int, mae: float | None, gender_accuracy: float | None) -> str:
    """One line: the figures of the pictures in which a face was detected, without detecting it."""
    age = "" if mae is None else f" MAE {mae:.2f} years"
    gender = "" if gender_accuracy is None else f" gender accuracy {gender_accuracy:.3f}"
    return f"The same {pictures:,} pictures, cut as their table says:" + ",".join(filter(None, (age, gender)))


def prediction_columns(predictions: pd.DataFrame) -> pd.DataFrame:
    """What `predictions.csv` says of a table's pictures."""
    return pd.DataFrame(
        {
            "path": predictions["path"],
            "true_age": predictions["age"],
            "predicted_age": predictions["predicted_age"].round(2),
            "true_gender": predictions["gender"].astype("Int64"),
            "male_probability": predictions["male_probability"].round(4),
        }
    )


def save_plots(folder: Path, ages: plots.Ages) -> None:
    """Writes `scatter.png` and `error_histogram.png`, each with a panel for each entry that has any known age."""
    known = {what: (true, predicted) for what, (true, predicted) in ages.items() if true.notna().any()}
    if known:
        plots.save(plots.plot_scatter(known), folder / "scatter.png")
        plots.save(plots.plot_error_histogram(known), folder / "error_histogram.png")
