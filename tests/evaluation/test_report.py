import json

import pandas as pd
import pytest

from src.evaluation.predict_table import Outcome, Skipped
from src.evaluation.report import format_report, format_table, named, number, summarise, write_files

NAN = float("nan")


@pytest.fixture
def outcome():
    """Errors of age 2, 10, 4 and one unknown; genders right, wrong, unknown, right."""
    predictions = pd.DataFrame(
        {
            "path": [
                "/d/5_1_0_20170109150557335.jpg.chip.jpg",
                "/d/12_0_4_20170109150557336.jpg.chip.jpg",
                "/d/61_1_20170109142408075.jpg.chip.jpg",  # no third field, as in the real set
                "/d/photo.jpg",
            ],
            "age": [5, 12, 61, NAN],
            "gender": [0, 1, NAN, 1],
            "predicted_age": [7.0, 22.0, 57.0, 33.0],
            "male_probability": [0.1, 0.45, 0.8, 0.95],
        }
    )
    return Outcome(predictions, [Skipped("/d/broken.jpg", "the file is empty")], ["/d/landscape.jpg"])


def test_figures_by_hand(outcome):
    report = summarise(outcome)
    assert (report["pictures"], report["ages"], report["genders"]) == (4, 3, 3)
    assert report["mae"] == pytest.approx(16 / 3)
    assert report["bias"] == pytest.approx(8 / 3)
    assert report["cs5"] == pytest.approx(2 / 3)
    assert report["gender_accuracy"] == pytest.approx(2 / 3)
    assert (report["minors"], report["minors_called_adult"]) == (2, 0.5)
    assert (report["young_children"], report["young_children_called_adult"]) == (1, 0)
    # Confidences 0.9 and 0.95 right, 0.55 wrong.
    assert report["gender_calibration_error"] == pytest.approx((0.55 + 2 * (1 - 0.925)) / 3)


def test_tables_by_hand(outcome):
    tables = summarise(outcome)["tables"]
    assert [row["group"] for row in tables["age group"]] == ["3-9", "10-19", "60-69", "all"]
    assert [row["mae"] for row in tables["age group"]] == pytest.approx([2, 10, 4, 16 / 3])
    assert [(row["group"], row["n"], row["gender_accuracy"]) for row in tables["gender"]] == [
        ("female", 1, 1),
        ("male", 2, 0.5),
        ("all", 3, pytest.approx(2 / 3)),
    ]
    assert tables["gender"][1]["mae"] == 10  # of the two men one has no known age
    assert [row["group"] for row in tables["ethnicity"]] == ["White", "Other", "all"]
    assert [row["n"] for row in tables["confidence in the gender"]] == [1, 2]


def test_tables_without_rows_are_left_out(outcome):
    photographs = outcome.predictions[3:]
    report = summarise(Outcome(photographs, [], []))
    assert list(report["tables"]) == ["gender", "confidence in the gender"]
    assert report["mae"] is None
    lines = format_report(report)
    assert "MAE: - years" in lines
    assert "Minors (below 18) called 18 or older: - (of 0)" in lines


def test_report_of_ages_only(outcome):
    ages_only = outcome.predictions[2:3]
    lines = format_report(summarise(Outcome(ages_only, [], [])))
    assert "confidence in the gender: no row" in lines
    assert "Gender accuracy: -" in lines


def test_text(outcome):
    lines = format_report(summarise(outcome))
    assert lines[:8] == [
        "Pictures: 4 (3 with a known age, 3 with a gender)",
        "MAE: 5.33 years",
        "Mean error: +2.67 years",
        "CS@5: 0.667",
        "Gender accuracy: 0.667",
        "Expected calibration error of gender: 0.233",
        "Minors (below 18) called 18 or older: 0.500 (of 2)",
        "Children below 10 called 18 or older: 0.000 (of 1)",
    ]
    assert lines[-4:] == [
        "Skipped, not readable: 1",
        "  /d/broken.jpg: the file is empty",
        "Skipped, no face found: 1",
        "  /d/landscape.jpg",
    ]


def test_table_is_aligned_and_drops_empty_columns():
    rows = [
        {"group": "female", "n": 1234, "mae": 4.567, "bias": -1.0, "cs5": 0.5, "gender_accuracy": None},
        {"group": "all", "n": 5, "mae": None, "bias": None, "cs5": None, "gender_accuracy": None},
    ]
    assert format_table("gender", rows) == [
        "gender        n      MAE     bias     CS@5",
        "female    1,234     4.57    -1.00    0.500",
        "all           5        -        -        -",
    ]


def test_number_and_named():
    assert number(None) == number(NAN) == "-"
    assert number(3.14159, ".1f") == "3.1"
    assert named("abc") == ["  a", "  b", "  c"]
    assert named([str(i) for i in range(12)])[-2:] == ["  9", "  ... and 2 more"]


def test_files(outcome, tmp_path):
    report = summarise(outcome)
    write_files(
        tmp_path / "new" / "folder", ["first", "second"], report, pd.DataFrame({"path": ["a,b.jpg"], "age": [1]})
    )
    folder = tmp_path / "new" / "folder"
    assert (folder / "report.txt").read_bytes() == b"first\nsecond\n"
    assert (folder / "predictions.csv").read_bytes() == b'path,age\n"a,b.jpg",1\n'
    assert json.loads((folder / "report.json").read_text()) == report
