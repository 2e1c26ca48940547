"""Whole evaluations: weights and the name of a table in, metrics out."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from src import datasets
from src.cli import ROOT, UserError
from src.evaluation import metrics, plots
from src.evaluation.age_groups import FAIRFACE
from src.evaluation.predict_table import predict_table
from src.evaluation.report import format_appa_real, format_report, prepare_folder, write_files
from src.evaluation.summary import skipped_images, summarise, to_plain
from src.inference import Estimator
from src.labels import HEADS


def evaluate(
    estimator: Estimator,
    db: str = "utkface",
    image_dir: str | None = None,
    split: str = "test",
    output_dir: Path | None = None,
    detect: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Evaluate weights on one split of a table.

    Args:
        estimator: A `src.inference.AgeGenderEstimator`.
        db: A name or path that `src.datasets.load_table` takes.
        image_dir: Where its images lie, if not in their usual place.
        split: `train`, `val`, `test` or `all`.
        output_dir: Gets `report.txt`, `report.json`, `predictions.csv` and, as far as the table knows ages,
            `scatter.png`, `error_histogram.png` and `confusion_matrix.png`.
        detect: Find and cut the faces as the demo does, in face crops too, and compare with the table's own crops.

    Returns:
        The metrics (see `src.evaluation.summary.summarise`) and the lines of the report.

    Raises:
        UserError: no such table, no row in this split, or none with a label of the weights' heads; the weights need a
            wider margin than the images have; `output_dir` has a `predictions.csv` that no evaluation wrote.
        JobError: no image got a prediction, or `output_dir` cannot be written.
        OSError: a file in it cannot be written; the lines of the report are printed before.
    """
    table = select_split(datasets.load_table(db, image_dir, only=split), split, db)
    require_labels(table, f"{db}, {split}", estimator.info.heads)
    if output_dir:
        prepare_folder(output_dir)
    outcome = predict_table(estimator, table, detect=detect)
    report = {"model": estimator.describe(), "data": f"{db}, {split}", **summarise(outcome)}
    lines = [f"Model: {report['model']}", f"Data: {report['data']}", *format_report(report)]
    cut = table["margin"].loc[outcome.predictions.index] >= estimator.info.margin
    if detect and cut.any():
        same = summarise(predict_table(estimator, table.loc[cut.index[cut]]))
        compared = ("images", "mae", "group_accuracy", "gender_accuracy")
        report["as_cut_by_the_table"] = {name: same[name] for name in compared}
        lines.append(describe_cuts(report["as_cut_by_the_table"]))
    if output_dir:
        with printed_if_lost(lines):
            write_files(output_dir, lines, report, prediction_columns(outcome.predictions))
            save_plots(output_dir, {"true age": (outcome.predictions["age"], outcome.predictions["predicted_age"])})
            if report["grouped"]:
                plots.save(plots.plot_confusion(**report["confusion"]), output_dir / "confusion_matrix.png")
    return report, lines


def evaluate_appa_real(
    estimator: Estimator, folder: Path | None = None, split: str = "valid", output_dir: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Evaluate weights on one split of APPA-REAL, against the apparent and the real age.

    Args:
        folder: The unpacked `appa-real-release`, if not in `appa-real/`.
        split: `train`, `valid` or `test`, as the data set calls them.
        output_dir: As for `evaluate`; `predictions.csv` has `file_name,predicted_age,apparent_age_avg,real_age`.

    Returns:
        The metrics and the lines of the report, the two MAEs first.

    Raises:
        UserError: the weights have no trained age head; else as for `evaluate`.
        JobError, OSError: as for `evaluate`.
    """
    if "age" not in estimator.info.heads:
        raise UserError(f"APPA-REAL requires weights with a trained age head, got {estimator.describe()}")
    folder = folder or ROOT / "appa-real" / "appa-real-release"
    if not (folder / f"gt_avg_{split}.csv").is_file():
        raise UserError(f"{folder / f'gt_avg_{split}.csv'} not found: run `./download.sh appa-real`")
    ours = {theirs: ours for ours, theirs in datasets.APPA_REAL_FOLDERS.items()}
    # `folder` is no file and so no list of images to ignore: such a list is for training only.
    table = datasets.load_appa_real(folder, ignore_list=folder, target="real")
    table = table[table["split"] == ours[split]]
    if output_dir:
        prepare_folder(output_dir)
    with_image = table["path"].map(os.path.isfile)
    outcome = predict_table(estimator, table[with_image])
    rows = outcome.predictions
    faces = {path.name for path in (folder / split).glob("*_face.jpg")}
    unmatched = {
        "rows_without_image": table.loc[~with_image, "file_name"].tolist(),
        "images_without_row": sorted(faces - {Path(path).name for path in table["path"]}),
    }
    report = {"model": estimator.describe(), "data": f"APPA-REAL, {split}", **summarise_appa_real(rows)}
    report = to_plain(report | unmatched | skipped_images(outcome))
    lines = format_appa_real(report)
    if output_dir:
        predictions = rows[["file_name", "predicted_age", "apparent_age", "real_age"]].round({"predicted_age": 2})
        names = {"apparent age": "apparent_age", "real age": "real_age"}
        with printed_if_lost(lines):
            write_files(output_dir, lines, report, predictions.rename(columns={"apparent_age": "apparent_age_avg"}))
            save_plots(output_dir, {what: (rows[name], rows["predicted_age"]) for what, name in names.items()})
    return report, lines


@contextmanager
def printed_if_lost(lines: list[str]) -> Iterator[None]:
    """Print the lines of a report if its files cannot be written, as on a full disk."""
    try:
        yield
    except OSError:
        print("\n".join(lines))
        raise


def summarise_appa_real(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute metrics of predictions with `apparent_age`, `apparent_std` (of the votes) and `real_age`, in years."""
    predicted = rows["predicted_age"]
    report: dict[str, Any] = {"images": len(rows)}
    tables = {}
    for target in ("apparent", "real"):
        true = rows[f"{target}_age"]
        report[f"mae_{target}"] = metrics.mean_absolute_error(true, predicted)
        report[f"bias_{target}"] = metrics.mean_error(true, predicted)
        report[f"cs5_{target}"] = metrics.cumulative_score(true, predicted, 5)
        groups = FAIRFACE.nearest(true)
        tables[f"{target} age"] = metrics.table_by_group(rows.assign(age=true), groups, FAIRFACE.names)
    report["epsilon_error"] = metrics.epsilon_error(rows["apparent_age"], rows["apparent_std"], predicted)
    return report | {"tables": tables}


def select_split(table: pd.DataFrame, split: str, db: str) -> pd.DataFrame:
    """Select the rows of one split, or with "all" those of all splits.

    Raises:
        UserError: no row has this split.
    """
    if split == "all":
        return table
    if not (table["split"] == split).any():
        sizes = ", ".join(f"{name} ({count:,})" for name, count in table["split"].value_counts(sort=False).items())
        raise UserError(f"{db} has no rows of the split {split!r}, it has {sizes or 'no rows'}: choose another --split")
    return table[table["split"] == split]


def require_labels(table: pd.DataFrame, what: str, heads: Collection[str] = HEADS) -> None:
    """Raise `UserError` unless any row has a label of these heads; a range of ages is one of "age"."""
    columns = [*heads, *(["age_min"] if "age" in heads else [])]
    if not any(name in table and table[name].notna().any() for name in columns):
        only = "" if len(heads) == len(HEADS) else ", the only trained head of the weights"
        raise UserError(
            f"none of the {len(table):,} rows of {what} has a known {' or '.join(sorted(heads))}{only}: fill in some"
        )


def describe_cuts(same: dict[str, float | None]) -> str:
    """Describe in one line the metrics of the images with a detected face, without detecting it."""
    forms = {"mae": "MAE {:.2f} years", "group_accuracy": "exact age group {:.3f}"}
    forms["gender_accuracy"] = "gender accuracy {:.3f}"
    known = [form.format(same[name]) for name, form in forms.items() if same[name] is not None]
    return f"The same {same['images']:,} images, cut as their table says: {', '.join(known)}"


def prediction_columns(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the `predictions.csv` of a table; the range of an age only where the table has such."""
    ranges = {
        f"true_{name}": predictions[name].astype("Int64") for name in ("age_min", "age_max") if name in predictions
    }
    return pd.DataFrame(
        {
            "path": predictions["path"],
            "true_age": predictions["age"],
            **ranges,
            "predicted_age": predictions["predicted_age"].round(2),
            "true_gender": predictions["gender"].astype("Int64"),
            "male_probability": predictions["male_probability"].round(4),
        }
    )


def save_plots(folder: Path, ages: dict[str, tuple[pd.Series, pd.Series]]) -> None:
    """Write `scatter.png` and `error_histogram.png`, a panel for each entry with any true age."""
    known = {what: (true, predicted) for what, (true, predicted) in ages.items() if true.notna().any()}
    if known:
        plots.save(plots.plot_scatter(known), folder / "scatter.png")
        plots.save(plots.plot_error_histogram(known), folder / "error_histogram.png")
