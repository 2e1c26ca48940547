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


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Compute all metrics of an outcome, ready for JSON (an unknown metric is None).

    Returns:
        Counts (`images`, `ages`, `age_ranges`, `genders`, `minors`, ...), metrics (`mae`, `bias`, `cs5`,
        `group_accuracy`, `within_one_group`, `gender_accuracy`, `minors_called_adult`, ...), `tables` (name -> list of
        rows), `confusion`, `worst_ethnicity`, `detection`, `skipped` and `faceless`.
    """
    groups = choose_groups(outcome.predictions)
    true_groups = groups.containing(*label_range(outcome.predictions))
    predicted_groups = groups.nearest(outcome.predictions["predicted_age"])
    rows = outcome.predictions.assign(age_group=true_groups, predicted_group=predicted_groups)
    report = {"images": len(rows)} | count_labels(rows) | metrics.of_rows(rows) | metrics_of_some(rows)
    matrix = metrics.confusion_matrix(true_groups, predicted_groups, len(groups.ranges))
    report["confusion"] = {"groups": list(groups.names), "counts": matrix.tolist()}
    reliability = metrics.reliability_table(rows["gender"], rows["male_probability"])
    report["gender_calibration_error"] = metrics.expected_calibration_error(reliability)
    tables = group_tables(rows, groups)
    report["worst_ethnicity"] = worst_ethnicity(tables)
    report["tables"] = tables | {"confidence in the gender": reliability}
    return to_plain(report | detection_metrics(outcome.detections) | skipped_images(outcome))


def count_labels(rows: pd.DataFrame) -> dict[str, int]:
    """Count the rows with a known age, range of ages, age group and gender."""
    return {
        "ages": int(rows["age"].notna().sum()),
        "age_ranges": int(rows["age_min"].notna().sum()) if "age_min" in rows else 0,
        "grouped": int((rows["age_group"] >= 0).sum()),
        "genders": int(rows["gender"].notna().sum()),
    }


def metrics_of_some(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute metrics of children and of adults; a range counts where all of its years fall within the limit."""
    youngest, oldest = label_range(rows)
    grown = rows[(youngest >= 20) & rows["gender"].notna()]
    return {
        "minors": int((oldest < metrics.ADULT_AGE).sum()),
        "minors_called_adult": metrics.called_adult(oldest, rows["predicted_age"]),
        "young_children": int((oldest < YOUNG_CHILD_BELOW).sum()),
        "young_children_called_adult": metrics.called_adult(oldest, rows["predicted_age"], below=YOUNG_CHILD_BELOW),
        "genders_from_20": len(grown),
        "gender_accuracy_from_20": metrics.gender_accuracy(grown["gender"], grown["male_probability"]),
    }


def detection_metrics(detections: pd.DataFrame) -> dict[str, Any]:
    """Compute how often the detector found a face and, where the table knows where the face is, found that face."""
    if detections.empty:
        return {"detection": None}
    known = detections[detections["overlap"].notna()]
    on_face = int((known["overlap"] >= 0.5).sum())  # intersection over union with the table's face
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
