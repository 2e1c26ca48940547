"""What an evaluation says: figures as plain data, lines and tables for people, files for an output folder."""

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from src.evaluation import metrics
from src.evaluation.predict_table import Outcome
from src.labels import GENDERS

ETHNICITIES = ("White", "Black", "Asian", "Indian", "Other")
"""UTKFace's names for the third field of its file names, 0..4."""
UTKFACE_NAME = re.compile(r"\d{1,3}_[01]_([0-4])_\d+")
YOUNG_CHILD_BELOW = 10

NAMED = 10
"""So many pictures of a kind are named in the text; `report.json` names all."""

COLUMNS = {
    "n": ("n", ",d"),
    "mae": ("MAE", ".2f"),
    "bias": ("bias", "+.2f"),
    "cs5": ("CS@5", ".3f"),
    "gender_accuracy": ("gender", ".3f"),
    "confidence": ("confidence", ".3f"),
    "accuracy": ("right", ".3f"),
}
"""Columns of the tables: heading and format."""


def summarise(outcome: Outcome) -> dict[str, Any]:
    """All figures of an outcome, ready for JSON (an unknown figure is None).

    Returns:
        Counts (`pictures`, `ages`, `genders`, `minors`, ...), figures (`mae`, `bias`, `cs5`, `gender_accuracy`,
        `minors_called_adult`, ...), `tables` (name -> list of rows), `skipped` and `faceless`.
    """
    rows = outcome.predictions
    age, predicted, gender, male = (rows[name] for name in ("age", "predicted_age", "gender", "male_probability"))
    reliability = metrics.reliability_table(gender, male)
    report = {
        "pictures": len(rows),
        "ages": int(age.notna().sum()),
        "mae": metrics.mean_absolute_error(age, predicted),
        "bias": metrics.mean_error(age, predicted),
        "cs5": metrics.cumulative_score(age, predicted, 5),
        "genders": int(gender.notna().sum()),
        "gender_accuracy": metrics.gender_accuracy(gender, male),
        "gender_calibration_error": metrics.expected_calibration_error(reliability),
        "minors": int((age < metrics.ADULT_AGE).sum()),
        "minors_called_adult": metrics.called_adult(age, predicted),
        "young_children": int((age < YOUNG_CHILD_BELOW).sum()),
        "young_children_called_adult": metrics.called_adult(age, predicted, below=YOUNG_CHILD_BELOW),
        "tables": group_tables(rows) | {"confidence in the gender": reliability},
    }
    return to_plain(report | skipped_pictures(outcome))


def skipped_pictures(outcome: Outcome) -> dict[str, Any]:
    """What got no answer: `skipped` (path and reason) and `faceless` (paths)."""
    return {"skipped": [skipped._asdict() for skipped in outcome.skipped], "faceless": outcome.faceless}


def group_tables(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Figures by age group, by gender and, where file names are UTKFace's, by ethnicity; empty ones are left out."""
    codes = [UTKFACE_NAME.match(PurePath(path).name) for path in predictions["path"]]
    groupings = {
        "age group": (metrics.age_group_index(predictions["age"]), metrics.AGE_GROUPS),
        "gender": (predictions["gender"].fillna(-1).astype(int), GENDERS),
        "ethnicity": (np.array([int(code[1]) if code else -1 for code in codes]), ETHNICITIES),
    }
    return {
        name: metrics.table_by_group(predictions, index, names)
        for name, (index, names) in groupings.items()
        if (index >= 0).any()
    }


def to_plain(value: Any) -> Any:
    """Tables as lists of rows and NaN as None, all the way down: what JSON can hold."""
    if isinstance(value, pd.DataFrame):
        return to_plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def format_report(report: dict[str, Any]) -> list[str]:
    """The lines of a report of `summarise`."""
    lines = [
        f"Pictures: {report['pictures']:,} ({report['ages']:,} with a known age, {report['genders']:,} with a gender)",
        f"MAE: {number(report['mae'])} years",
        f"Mean error: {number(report['bias'], '+.2f')} years",
        f"CS@5: {number(report['cs5'], '.3f')}",
        f"Gender accuracy: {number(report['gender_accuracy'], '.3f')}",
        f"Expected calibration error of gender: {number(report['gender_calibration_error'], '.3f')}",
        f"Minors (below 18) called 18 or older: {share(report, 'minors')}",
        f"Children below 10 called 18 or older: {share(report, 'young_children')}",
    ]
    return [*lines, *format_tables(report), "", *format_skipped(report)]


def format_appa_real(report: dict[str, Any]) -> list[str]:
    """The lines of a report of `src.evaluation.evaluate.evaluate_appa_real`; other programs read the first two."""
    lines = [
        f"MAE Apparent: {number(report['mae_apparent'])}",
        f"MAE Real: {number(report['mae_real'])}",
        f"Model: {report['model']}",
        f"Data: {report['data']}",
        f"Pictures: {report['pictures']:,}",
        f"Mean error Apparent: {number(report['bias_apparent'], '+.2f')}",
        f"Mean error Real: {number(report['bias_real'], '+.2f')}",
        f"CS@5 Apparent: {number(report['cs5_apparent'], '.3f')}",
        f"CS@5 Real: {number(report['cs5_real'], '.3f')}",
        f"Epsilon-error: {number(report['epsilon_error'], '.3f')}",
    ]
    without_picture, without_row = report["rows_without_picture"], report["pictures_without_row"]
    left_out = [f"Rows without a picture: {len(without_picture):,}", *named(without_picture)]
    left_out += [f"Pictures without a row: {len(without_row):,}", *named(without_row)]
    return [*lines, *format_tables(report), "", *left_out, *format_skipped(report)]


def format_tables(report: dict[str, Any]) -> list[str]:
    """All tables of a report, an empty line before each."""
    return [line for name, rows in report["tables"].items() for line in ["", *format_table(name, rows)]]


def number(value: float | None, form: str = ".2f") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None or pd.isna(value) else f"{value:{form}}"


def share(report: dict[str, Any], group: str) -> str:
    """`0.123 (of 45)`: the share of a group that is called adult."""
    return f"{number(report[f'{group}_called_adult'], '.3f')} (of {report[group]:,})"


def format_table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A table of `summarise` in aligned columns; columns without any figure are left out."""
    if not rows:
        return [f"{name}: no row"]
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    labels = [row.get("group") or f"{row['confidence_from']:.1f}-{row['confidence_to']:.1f}" for row in rows]
    cells = [[COLUMNS[key][0] for key in shown]]
    cells += [[number(row[key], COLUMNS[key][1]) for key in shown] for row in rows]
    first = max(map(len, [name, *labels]))
    widths = [max(7, *(len(line[column]) for line in cells)) for column in range(len(shown))]
    return [
        label.ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for label, line in zip([name, *labels], cells, strict=True)
    ]


def format_skipped(report: dict[str, Any]) -> list[str]:
    """What got no answer, counted and named."""
    lines = [f"Skipped, not readable: {len(report['skipped']):,}"]
    lines += named(f"{skipped['path']}: {skipped['reason']}" for skipped in report["skipped"])
    if report["faceless"]:
        lines += [f"Skipped, no face found: {len(report['faceless']):,}", *named(report["faceless"])]
    return lines


def named(items: Iterable[str]) -> list[str]:
    """The first few items as indented lines, and how many more there are."""
    items = list(items)
    more = [f"  ... and {len(items) - NAMED:,} more"] if len(items) > NAMED else []
    return [f"  {item}" for item in items[:NAMED]] + more


def write_files(folder: Path, lines: list[str], report: dict[str, Any], predictions: pd.DataFrame) -> None:
    """Writes `report.txt`, `report.json` and `predictions.csv` (the columns of `predictions`, without index).

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    text = json.dumps(report, indent=1, ensure_ascii=True, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    predictions.to_csv(
        folder / "predictions.csv", index=False, lineterminator="\n", encoding="utf-8", errors="surrogateescape"
    )
