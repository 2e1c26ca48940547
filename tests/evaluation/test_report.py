import json
from pathlib import Path

import pandas as pd
import pytest

from src.evaluation.predict_table import Outcome, Skipped
from src.evaluation.report import format_report, format_table, named, number, write_files
from src.evaluation.summary import summarise

NAN = float("nan")
NO_DETECTION = pd.DataFrame({"boxes": [], "overlap": []})


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
            "ethnicity": ["White", "Other", "", ""],
        }
    )
    return Outcome(predictions, [Skipped("/d/broken.jpg", "the file is empty")], ["/d/landscape.jpg"], NO_DETECTION)


@pytest.fixture
def ranges():
    """FairFace's groups 0-2, 3-9, 10-19, 20-29, 70+ and one age; the detector missed one face and one box was off."""
    predictions = pd.DataFrame(
        {
            "path": list("abcdef"),
            "age": [NAN, NAN, NAN, NAN, NAN, 44],
            "age_min": [0, 3, 10, 20, 70, NAN],
            "age_max": [2, 9, 19, 29, 100, NAN],
            "gender": [1, 0, 1, 0, 0, NAN],
            "predicted_age": [25.0, 5.0, 31.0, 33.0, 75.0, 45.0],
            "male_probability": [0.9, 0.8, 0.7, 0.2, 0.6, 0.5],
            "ethnicity": ["Black", "Black", "Indian", "Black", "Black", ""],
        }
    )
    overlaps = {"boxes": [1.0, 2, 1, 1, 1, 1, 0, 1], "overlap": [0.8, 0.7, 0.6, 0.5, 0.9, 0.2, 0, NAN]}
    return Outcome(predictions, [], ["g"], pd.DataFrame(overlaps))


def test_metrics_by_hand(outcome):
    report = summarise(outcome)
    assert (report["images"], report["ages"], report["genders"]) == (4, 3, 3)
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


def test_tables_without_rows_are_skipped(outcome):
    photographs = outcome.predictions[3:]
    report = summarise(Outcome(photographs, [], [], NO_DETECTION))
    assert list(report["tables"]) == ["gender", "confidence in the gender"]
    assert report["mae"] is None
    lines = format_report(report)
    assert "MAE: - years" in lines
    assert "Minors (below 18) called 18 or older: - (of 0)" in lines


def test_report_of_ages_only(outcome):
    ages_only = outcome.predictions[2:3]
    lines = format_report(summarise(Outcome(ages_only, [], [], NO_DETECTION)))
    assert "confidence in the gender: no row" in lines
    assert "Gender accuracy: -" in lines


def test_text(outcome):
    lines = format_report(summarise(outcome))
    assert lines[:8] == [
        "Images: 4 (3 with a known age, 3 with a gender)",
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


def test_ranges_count_in_groups_and_never_in_years(ranges):
    report = summarise(ranges)
    assert (report["ages"], report["age_ranges"], report["grouped"]) == (1, 5, 6)
    assert report["mae"] == 1  # of the one age
    # 0-2 -> 20-29, 3-9 -> 3-9, 10-19 -> 30-39, 20-29 -> 30-39, 70+ -> 70+, 44 -> 40-49
    assert report["group_accuracy"] == 0.5
    assert report["within_one_group"] == pytest.approx(4 / 6)
    assert (report["young_children"], report["young_children_called_adult"]) == (2, 0.5)
    assert report["minors"] == 2  # those of 10-19 may be 18 or 19
    assert report["gender_accuracy"] == pytest.approx(3 / 5)
    assert (report["genders_from_20"], report["gender_accuracy_from_20"]) == (2, 0.5)
    assert report["worst_ethnicity"] == {"group": "Black", "n": 4, "gender_accuracy": 0.5}
    assert report["confusion"]["groups"] == ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"]
    counts = report["confusion"]["counts"]
    assert [(row, line.index(1)) for row, line in enumerate(counts) if any(line)] == [
        (0, 3),
        (1, 1),
        (2, 4),
        (3, 4),
        (5, 5),
        (8, 8),
    ]
    by_age = {row["group"]: row for row in report["tables"]["age group"]}
    assert by_age["20-29"] == {
        "group": "20-29",
        "n": 1,
        "mae": None,
        "bias": None,
        "cs5": None,
        "group_accuracy": 0,
        "within_one_group": 1,
        "gender_accuracy": 1,
    }
    assert [row["group"] for row in report["tables"]["ethnicity"]] == ["Black", "Indian", "all"]


def test_detection(ranges):
    detection = summarise(ranges)["detection"]
    assert detection["images"] == 8
    assert detection["with_a_box"] == 7
    assert (detection["known"], detection["on_face"]) == (7, 5)
    assert detection["found"] == pytest.approx(5 / 7)
    assert detection["other_boxes_per_image"] == pytest.approx(2 / 7)  # the second box of one, the one that is off


def test_text_of_groups_and_detection(ranges):
    lines = format_report(summarise(ranges))
    assert lines[0] == "Images: 6 (1 with a known age, 5 with a range of ages, 5 with a gender)"
    assert lines[8:15] == [
        "Exact age group: 0.500 (of 6)",
        "Within one age group: 0.667",
        "Gender accuracy from 20 years: 0.500 (of 2)",
        "Gender accuracy, worst ethnicity: 0.500 (Black)",
        "Faces found: 0.875 (of 8)",
        "Faces found on the face: 0.714 (of 7)",
        "Other boxes per image: 0.286",
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


def test_a_full_disk_leaves_the_older_files(outcome, tmp_path, monkeypatch):
    def fail_text(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    def fail_csv(table, file, **_):
        file.write("half")
        raise OSError(28, "No space left on device")

    for owner, method, fail, name in [
        (pd.DataFrame, "to_csv", fail_csv, "predictions.csv"),
        (Path, "write_text", fail_text, "report.txt"),
    ]:
        (tmp_path / name).write_bytes(b"older")
        monkeypatch.setattr(owner, method, fail)
        with pytest.raises(OSError, match="No space left"):
            write_files(tmp_path, ["line"], summarise(outcome), pd.DataFrame({"age": [1]}))
        assert (tmp_path / name).read_bytes() == b"older"
    assert {path.name for path in tmp_path.iterdir()} == {"report.txt", "report.json", "predictions.csv"}
