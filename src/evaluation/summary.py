"""The metrics of an evaluation as plain data."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from src.evaluation import metrics
from src.evaluation.age_groups import AgeGroups, choose_groups, label_range
from src.evaluation.predict_table import Outcome
from src.labels import GENDERS

YOUNG_CHILD_BELOW = 10
GROWN_FROM = 20
MIN_OVERLAP = 0.5
"""Intersection over union with the table's face from which a box is on the face."""


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Compute all metrics of an outcome, ready for JSON (an unknown metric is None).

    Returns:
        Counts (`images`, `ages`, `age_ranges`, `genders`, `minors`, ...), metrics (`mae`, `bias`, `cs5`,
        `group_accuracy`, `within_one_group`, `gender_accuracy`, `minors_called_adult`, ...), `tables` (name -> list of
        rows), `confusion`, `worst_ethnicity`, `detection`, `skipped` and `faceless`.
    """
    groups = choose_groups(outcome.predictions)
    rows = with_groups(outcome.predictions, groups)
    report = {"images": len(rows)} | age_metrics(rows) | group_metrics(rows, groups) | gender_metrics(rows)
    reliability = metrics.reliability_table(rows["gender"], rows["male_probability"])
    report["gender_calibration_error"] = metrics.expected_calibration_error(reliability)
    tables = group_tables(rows, groups)
    report["worst_ethnicity"] = worst_ethnicity(tables)
    report["tables"] = tables | {"confidence in the gender": reliability}
    return to_plain(report | detection_metrics(outcome.detections) | skipped_images(outcome))


def with_groups(predictions: pd.DataFrame, groups: AgeGroups) -> pd.DataFrame:
    """Add `age_group` (true, -1 = unknown) and `predicted_group`, indices into the groups."""
    true = groups.containing(*label_range(predictions))
    return predictions.assign(age_group=true, predicted_group=groups.nearest(predictions["predicted_age"]))


def age_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute metrics of ages in years; ranges count only where all of their years fall below a limit."""
    age, predicted = rows["age"], rows["predicted_age"]
    oldest = label_range(rows)[1]
    return {
        "ages": int(age.notna().sum()),
        "mae": metrics.mean_absolute_error(age, predicted),
        "bias": metrics.mean_error(age, predicted),
        "cs5": metrics.cumulative_score(age, predicted, 5),
        "minors": int((oldest < metrics.ADULT_AGE).sum()),
        "minors_called_adult": metrics.called_adult(oldest, predicted),
        "young_children": int((oldest < YOUNG_CHILD_BELOW).sum()),
        "young_children_called_adult": metrics.called_adult(oldest, predicted, below=YOUNG_CHILD_BELOW),
    }


def group_metrics(rows: pd.DataFrame, groups: AgeGroups) -> dict[str, Any]:
    """Compute metrics of age groups, for ages that are known exactly and as ranges alike."""
    true, predicted = rows["age_group"], rows["predicted_group"]
    matrix = metrics.confusion_matrix(true, predicted, len(groups.ranges))
    return {
        "age_ranges": int(rows["age_min"].notna().sum()) if "age_min" in rows else 0,
        "grouped": int((true >= 0).sum()),
        "group_accuracy": metrics.group_accuracy(true, predicted),
        "within_one_group": metrics.group_accuracy(true, predicted, tolerance=1),
        "confusion": {"groups": list(groups.names), "counts": matrix.tolist()},
    }


def gender_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute the accuracy of genders, of all rows and of those from 20 years."""
    grown = rows[(label_range(rows)[0] >= GROWN_FROM) & rows["gender"].notna()]
    return {
        "genders": int(rows["gender"].notna().sum()),
        "gender_accuracy": metrics.gender_accuracy(rows["gender"], rows["male_probability"]),
        "genders_from_20": len(grown),
        "gender_accuracy_from_20": metrics.gender_accuracy(grown["gender"], grown["male_probability"]),
    }


def detection_metrics(detections: pd.DataFrame) -> dict[str, Any]:
    """Compute how often the detector found a face and, where the table knows where the face is, found that face."""
    if detections.empty:
        return {"detection": None}
    known = detections[detections["overlap"].notna()]
    on_face = int((known["overlap"] >= MIN_OVERLAP).sum())
    found: dict[str, Any] = {"images": len(detections), "with_a_box": int((detections["boxes"] > 0).sum())}
    if len(known):
        others = int(known["boxes"].sum()) - on_face
        found |= {"known": len(known), "on_face": on_face, "found": on_face / len(known)}
        found["other_boxes_per_image"] = others / len(known)
    return {"detection": found}


def skipped_images(outcome: Outcome) -> dict[str, Any]:
    """Name what got no prediction: `skipped` (path and reason) and `faceless` (paths)."""
    return {"skipped": [skipped._asdict() for skipped in outcome.skipped], "faceless": outcome.faceless}


def group_tables(rows: pd.DataFrame, groups: AgeGroups) -> dict[str, pd.DataFrame]:
    """Tabulate metrics by age group, gender and, where the table knows it, ethnicity; without empty tables."""
    ethnicity = rows["ethnicity"] if "ethnicity" in rows else pd.Series("", rows.index)
    ethnicities = [name for name, _ in Counter(ethnicity[ethnicity != ""]).most_common()]
    groupings = {
        "age group": (rows["age_group"], groups.names),
        "gender": (rows["gender"].fillna(-1).astype(int), GENDERS),
        "ethnicity": (ethnicity.map({name: index for index, name in enumerate(ethnicities)}).fillna(-1), ethnicities),
    }
    return {
        name: metrics.table_by_group(rows, index, names)
        for name, (index, names) in groupings.items()
        if (index >= 0).any()
    }


def worst_ethnicity(tables: dict[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Return the ethnicity with the lowest accuracy of genders: `group`, `n`, `gender_accuracy`."""
    if "ethnicity" not in tables:
        return None
    rows = tables["ethnicity"].iloc[:-1].dropna(subset="gender_accuracy")  # the last row is `all`
    if rows.empty:
        return None
    return rows.loc[rows["gender_accuracy"].idxmin(), ["group", "n", "gender_accuracy"]].to_dict()


def to_plain(value: Any) -> Any:
    """Convert tables to lists of rows and NaN to None, all the way down: what JSON can hold."""
    if isinstance(value, pd.DataFrame):
        return to_plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
