"""The report of an evaluation: lines and tables for people, files for an output folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from src.cli import UserError
from src.datasets import write_csv
from src.files import prepare_output, write_whole

MAX_NAMED = 10
"""Maximum number of images per kind that the text names; `report.json` names all."""

PREDICTIONS = "predictions.csv"
FIRST_COLUMNS = ("path,true_age", "file_name,predicted_age")
"""How the `predictions.csv` of `evaluate` and of `evaluate_appa_real` begin; that of the demo begins otherwise."""

COLUMNS = {
    "n": ("n", ",d"),
    "mae": ("MAE", ".2f"),
    "bias": ("bias", "+.2f"),
    "cs5": ("CS@5", ".3f"),
    "group_accuracy": ("exact", ".3f"),
    "within_one_group": ("near", ".3f"),
    "gender_accuracy": ("gender", ".3f"),
    "confidence": ("confidence", ".3f"),
    "accuracy": ("right", ".3f"),
}
"""Columns of the tables: heading and format; `exact` and `near` are the age group, and that or one beside it."""


def format_report(report: dict[str, Any]) -> list[str]:
    """Return the lines of a report of `summarise`."""
    known = [f"{report['ages']:,} with a known age", f"{report['genders']:,} with a gender"]
    if report["age_ranges"]:
        known.insert(1, f"{report['age_ranges']:,} with a range of ages")
    lines = [
        f"Images: {report['images']:,} ({', '.join(known)})",
        f"MAE: {number(report['mae'])} years",
        f"Mean error: {number(report['bias'], '+.2f')} years",
        f"CS@5: {number(report['cs5'], '.3f')}",
        f"Gender accuracy: {number(report['gender_accuracy'], '.3f')}",
        f"Expected calibration error of gender: {number(report['gender_calibration_error'], '.3f')}",
        f"Minors (below 18) called 18 or older: {share(report, 'minors')}",
        f"Children below 10 called 18 or older: {share(report, 'young_children')}",
        *format_groups(report),
    ]
    return [*lines, *format_tables(report), "", *format_skipped(report)]


def format_groups(report: dict[str, Any]) -> list[str]:
    """Return the lines of metrics that only some tables allow."""
    lines = []
    if report["grouped"]:
        lines.append(f"Exact age group: {report['group_accuracy']:.3f} (of {report['grouped']:,})")
        lines.append(f"Within one age group: {report['within_one_group']:.3f}")
    if report["genders_from_20"]:
        accuracy, count = report["gender_accuracy_from_20"], report["genders_from_20"]
        lines.append(f"Gender accuracy from 20 years: {accuracy:.3f} (of {count:,})")
    if worst := report["worst_ethnicity"]:
        lines.append(f"Gender accuracy, worst ethnicity: {worst['gender_accuracy']:.3f} ({worst['group']})")
    return [*lines, *format_detection(report["detection"])]


def format_detection(found: dict[str, Any] | None) -> list[str]:
    """Return the lines of what the detector found, if it was used."""
    if not found:
        return []
    lines = [f"Faces found: {found['with_a_box'] / found['images']:.3f} (of {found['images']:,})"]
    if "found" in found:
        lines.append(f"Faces found on the face: {found['found']:.3f} (of {found['known']:,})")
        lines.append(f"Other boxes per image: {found['other_boxes_per_image']:.3f}")
    return lines


def format_appa_real(report: dict[str, Any]) -> list[str]:
    """Return the lines of a report of `evaluate_appa_real`; other programs read the first two."""
    lines = [
        f"MAE Apparent: {number(report['mae_apparent'])}",
        f"MAE Real: {number(report['mae_real'])}",
        f"Model: {report['model']}",
        f"Data: {report['data']}",
        f"Images: {report['images']:,}",
        f"Mean error Apparent: {number(report['bias_apparent'], '+.2f')}",
        f"Mean error Real: {number(report['bias_real'], '+.2f')}",
        f"CS@5 Apparent: {number(report['cs5_apparent'], '.3f')}",
        f"CS@5 Real: {number(report['cs5_real'], '.3f')}",
        f"Epsilon-error: {number(report['epsilon_error'], '.3f')}",
    ]
    without_image, without_row = report["rows_without_image"], report["images_without_row"]
    unmatched = [f"Rows without an image: {len(without_image):,}", *named(without_image)]
    unmatched += [f"Images without a row: {len(without_row):,}", *named(without_row)]
    return [*lines, *format_tables(report), "", *unmatched, *format_skipped(report)]


def format_tables(report: dict[str, Any]) -> list[str]:
    """Return all tables of a report, an empty line before each."""
    return [line for name, rows in report["tables"].items() for line in ["", *format_table(name, rows)]]


def number(value: float | None, form: str = ".2f") -> str:
    """Format a metric, an unknown one as a dash."""
    return "-" if value is None or pd.isna(value) else f"{value:{form}}"


def share(report: dict[str, Any], group: str) -> str:
    """Format the share of a group that is called adult: `0.123 (of 45)`."""
    return f"{number(report[f'{group}_called_adult'], '.3f')} (of {report[group]:,})"


def format_table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Format a table of `summarise` in aligned columns, without columns that no row knows."""
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
    """Return the lines that count and name what got no prediction."""
    lines = [f"Skipped, not readable: {len(report['skipped']):,}"]
    lines += named(f"{skipped['path']}: {skipped['reason']}" for skipped in report["skipped"])
    if report["faceless"]:
        lines += [f"Skipped, no face found: {len(report['faceless']):,}", *named(report["faceless"])]
    return lines


def named(items: Iterable[str]) -> list[str]:
    """Return the first few items as indented lines, and how many more there are."""
    items = list(items)
    more = [f"  ... and {len(items) - MAX_NAMED:,} more"] if len(items) > MAX_NAMED else []
    return [f"  {item}" for item in items[:MAX_NAMED]] + more


def prepare_folder(folder: Path) -> None:
    """Create the folder of a report and check that it can be written, before anything slow begins.

    Raises:
        UserError: It has a `predictions.csv` that no evaluation wrote.
        JobError: It cannot be created or written.
    """
    prepare_output(folder)
    path = folder / PREDICTIONS
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline(200).strip()
    if not header.startswith(FIRST_COLUMNS):
        raise UserError(
            f"{path} must begin with {' or '.join(FIRST_COLUMNS)} as an evaluation writes it, got {header!r};"
            " use another --output_dir"
        )


def write_files(folder: Path, lines: list[str], report: dict[str, Any], predictions: pd.DataFrame) -> None:
    """Write `report.txt`, `report.json` and `predictions.csv` (the columns of `predictions`, without index).

    Raises:
        OSError: A file cannot be written; an older one is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / "report.txt") as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    text = json.dumps(report, indent=1, ensure_ascii=True, allow_nan=False)
    with write_whole(folder / "report.json") as part:
        part.write_text(text + "\n", encoding="utf-8")
    write_csv(predictions, folder / PREDICTIONS)
