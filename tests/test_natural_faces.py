"""The figures of `benchmarks/natural_faces.py`, which the model card quotes."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.natural_faces import measure, read_labels
from src.cli import UserError


def test_labels_become_a_table_of_photographs(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("file_name,age_group,gender\na.jpg,0-2,Male\nb.jpg,70+,Female\n")
    table = read_labels(csv, Path("photos"))
    assert table["path"].tolist() == [str(Path("photos/a.jpg")), str(Path("photos/b.jpg"))]
    assert table["gender"].tolist() == [1, 0]
    assert table["group"].tolist() == [0, 8]
    assert table["margin"].isna().all()


def test_wrong_labels_are_named(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("file_name,age_group,gender\na.jpg,20-30,Male\n")
    with pytest.raises(UserError, match="received '20-30'"):
        read_labels(csv, tmp_path)
    csv.write_text("file,age\na.jpg,3\n")
    with pytest.raises(UserError, match="expected the columns file_name,age_group,gender"):
        read_labels(csv, tmp_path)


def test_figures_by_hand():
    # Groups: 0-2, 3-9, 10-19, 20-29; the fifth photograph showed no face.
    found = pd.DataFrame(
        {
            "group": [0, 1, 2, 3],
            "gender": [1.0, 0.0, 1.0, 0.0],
            "predicted_age": [25.0, 5.0, 31.0, 33.0],
            "male_probability": [0.9, 0.8, 0.7, 0.2],
        }
    )
    figures = measure(pd.concat([found, found[:1]]), found)
    assert figures == {
        "faces found": (0.8, 5),
        "gender accuracy": (0.75, 4),
        "gender accuracy from 20 years": (1.0, 1),
        "age within one age group": (0.5, 4),
        "children below 10 called 18 or older": (0.5, 2),
    }
