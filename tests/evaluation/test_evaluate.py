import json
import math

import pandas as pd
import pytest
from appa_real_tree import write_split
from fake_estimator import FakeEstimator, face

from src.cli import ROOT, JobError, UserError
from src.demo.prediction_files import CSV_HEADER
from src.evaluation.evaluate import describe_cuts, evaluate, evaluate_appa_real
from src.images.detector import FaceDetector
from src.images.io import read_image, write_image

ROWS = [("000000.jpg", 21.5, 3.0, 24), ("000001.jpg", 40.0, 5.0, 35), ("000002.jpg", 8.0, 2.0, 8)]
# JPEG keeps a flat colour to within a level, so ages are off by up to that much.
NEAR = 1.01


@pytest.fixture
def my_table(tmp_path):
    """Three face crops of margin 0.4 with a known split, one of them unreadable."""
    lines = ["genders,ages,img_paths,split,margin"]
    for name, gender, age, split in [("a.png", 1, 20, "test"), ("b.png", 0, 44, "test"), ("c.png", "", 30, "train")]:
        write_image(tmp_path / name, face(40, green=255))
        lines.append(f"{gender},{age},{name},{split},0.4")
    (tmp_path / "d.png").write_bytes(b"damaged")
    lines.append("1,50,d.png,test,0.4")
    (tmp_path / "my.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "my.csv"


def test_evaluate_a_users_table(my_table, tmp_path):
    report, lines = evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "out")
    assert report["data"] == f"{my_table}, test"
    assert report["images"] == 2
    assert report["mae"] == 12  # |40 - 20| and |40 - 44|
    assert report["gender_accuracy"] == 0.5
    assert lines[0] == "Model: fake: 8 pixels; its error is not known"
    assert "MAE: 12.00 years" in lines
    assert lines[-2:] == [
        "Skipped, not readable: 1",
        f"  {my_table.with_name('d.png')}: not an image that OpenCV can read, or damaged",
    ]
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion_matrix.png",
        "error_histogram.png",
        "predictions.csv",
        "report.json",
        "report.txt",
        "scatter.png",
    ]
    assert (out / "predictions.csv").read_text() == (
        "path,true_age,predicted_age,true_gender,male_probability\n"
        f"{my_table.with_name('a.png')},20.0,40.0,1,1.0\n"
        f"{my_table.with_name('b.png')},44.0,40.0,0,1.0\n"
    )
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "report.txt").read_text().splitlines() == lines


def test_detecting_the_faces_is_compared_with_the_tables_crops(tmp_path):
    """A portrait as a face crop whose table knows where the face is; the detector finds it a little elsewhere."""
    portrait = read_image(ROOT / "samples" / "grace_hopper.jpg")
    left, top, right, bottom = FaceDetector().detect(portrait)[0].box
    painted = portrait.copy()
    painted[top:bottom, left : (left + right) // 2, 0] = 90  # the left half of the table's crop
    painted[: top + 3, :, 0] = 200  # which FakeEstimator sees only where another box reaches up there
    write_image(tmp_path / "a.png", painted)
    moved = (left, top + 3, right, bottom)
    cells = ",".join(map(str, moved))
    header = "genders,ages,img_paths,split,margin,left,top,right,bottom"
    (tmp_path / "my.csv").write_text(f"{header}\n0,90,a.png,test,0,{cells}\n")
    detected = FaceDetector().detect(painted)[0].box
    report, lines = evaluate(FakeEstimator(margin=0), str(tmp_path / "my.csv"), detect=True)
    assert report["images"] == 1
    assert detected != moved
    assert report["mae"] > 0
    assert report["as_cut_by_the_table"]["mae"] == 0
    assert lines[-1].startswith(
        "The same 1 images, cut as their table says: MAE 0.00 years, exact age group 1.000, gender accuracy "
    )


def test_evaluate_all_splits_and_unknown_labels(my_table, tmp_path):
    report, lines = evaluate(FakeEstimator(), str(my_table), split="all", output_dir=tmp_path / "out")
    assert (report["images"], report["ages"], report["genders"]) == (3, 3, 2)
    assert lines[0] == "Model: fake: 8 pixels; its error is not known"
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["true_gender"].isna().tolist() == [False, False, True]


def test_crops_that_are_too_narrow_are_detected_but_not_compared(tmp_path):
    write_image(tmp_path / "a.png", read_image(ROOT / "samples" / "grace_hopper.jpg"))
    (tmp_path / "my.csv").write_text("genders,ages,img_paths,split,margin\n0,90,a.png,test,0.1\n")
    report, _ = evaluate(FakeEstimator(margin=0.2), str(tmp_path / "my.csv"), detect=True)
    assert report["images"] == 1
    assert "as_cut_by_the_table" not in report


def test_a_report_that_cannot_be_written_is_printed(my_table, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot write into"):
        evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "file" / "out")
    assert capsys.readouterr().out == ""  # before anything slow
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "out")
    assert "MAE: 12.00 years" in capsys.readouterr().out.splitlines()


def test_predictions_of_the_demo_are_not_replaced(my_table, tmp_path):
    write_split(tmp_path, "valid", ROWS)
    out = tmp_path / "out"
    out.mkdir()
    demo = ",".join(CSV_HEADER) + "\n"
    (out / "predictions.csv").write_text(demo)
    words = r"out/predictions\.csv must begin with path,true_age or file_name,.*, got 'image,left.*--output_dir"
    estimator = FakeEstimator()
    for run, data in ((evaluate, str(my_table)), (evaluate_appa_real, tmp_path)):
        with pytest.raises(UserError, match=words):
            run(estimator, data, output_dir=out)
    assert estimator.calls == []  # before anything slow
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("predictions.csv", demo)]
    (out / "predictions.csv").unlink()
    for _ in range(2):  # its own are
        evaluate(estimator, str(my_table), output_dir=out)
        evaluate_appa_real(estimator, tmp_path, output_dir=out)


def test_table_without_ages_gets_no_plots(my_table, tmp_path):
    my_table.write_text("genders,ages,img_paths,split,margin\n1,,a.png,test,0.4\n")
    report, _ = evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "out")
    assert report["gender_accuracy"] == 1
    assert not list((tmp_path / "out").glob("*.png"))


def test_split_without_rows(my_table):
    with pytest.raises(UserError, match=r"my.csv has no rows of the split 'val', it has test \(3\), train \(1\)"):
        evaluate(FakeEstimator(), str(my_table), split="val")


def test_appa_real_metrics_by_hand(tmp_path):
    write_split(tmp_path, "valid", ROWS)
    report, lines = evaluate_appa_real(FakeEstimator(), tmp_path)
    # Predicted is the real age: errors against the apparent one are 2.5, 5 and 0.
    assert report["mae_apparent"] == pytest.approx(7.5 / 3, abs=NEAR)
    assert report["mae_real"] == pytest.approx(0, abs=NEAR)
    epsilon = (1 - math.exp(-(2.5**2) / 18) + 1 - math.exp(-0.5)) / 3
    assert report["epsilon_error"] == pytest.approx(epsilon, abs=0.15)
    assert report["cs5_real"] == 1
    assert lines[0] == f"MAE Apparent: {report['mae_apparent']:.2f}"
    assert lines[1] == f"MAE Real: {report['mae_real']:.2f}"
    assert [row["group"] for row in report["tables"]["real age"]] == ["3-9", "20-29", "30-39", "all"]
    assert [row["group"] for row in report["tables"]["apparent age"]] == ["3-9", "20-29", "40-49", "all"]
    assert "Images: 3" in lines
    assert "gender" not in "\n".join(lines)


def test_appa_real_metrics_exactly(tmp_path):
    """Grey levels that JPEG keeps exactly, so that every figure can be worked out."""
    write_split(tmp_path, "test", [("000000.jpg", 30.0, 5.0, 20), ("000001.jpg", 80.0, 4.0, 88)])
    for name, age in [("000000.jpg", 25), ("000001.jpg", 84)]:
        png = tmp_path / f"{name}.png"
        write_image(png, face(age, size=20))
        png.replace(tmp_path / "test" / f"{name}_face.jpg")  # what an image is, is told by its bytes
    report, lines = evaluate_appa_real(FakeEstimator(), tmp_path, split="test")
    assert lines[:2] == ["MAE Apparent: 4.50", "MAE Real: 4.50"]  # (5 + 4) / 2 twice
    assert report["bias_apparent"] == -0.5
    assert report["bias_real"] == 0.5
    assert report["epsilon_error"] == pytest.approx(1 - math.exp(-0.5))


def test_appa_real_counts_what_does_not_match(tmp_path):
    write_split(tmp_path, "valid", ROWS)
    (tmp_path / "valid" / "000001.jpg_face.jpg").unlink()
    (tmp_path / "valid" / "000002.jpg_face.jpg").write_bytes(b"")
    write_image(tmp_path / "valid" / "000009.jpg_face.jpg", face(3))
    report, lines = evaluate_appa_real(FakeEstimator(), tmp_path)
    assert report["images"] == 1
    assert report["rows_without_image"] == ["000001.jpg"]
    assert report["images_without_row"] == ["000009.jpg_face.jpg"]
    assert [skipped["reason"] for skipped in report["skipped"]] == ["the file is empty"]
    text = "\n".join(lines)
    assert "Rows without an image: 1\n  000001.jpg\nImages without a row: 1\n  000009.jpg_face.jpg" in text


def test_appa_real_files(tmp_path):
    write_split(tmp_path, "valid", ROWS)
    evaluate_appa_real(FakeEstimator(), tmp_path, output_dir=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table) == ["file_name", "predicted_age", "apparent_age_avg", "real_age"]
    assert table["file_name"].tolist() == ["000000.jpg", "000001.jpg", "000002.jpg"]
    assert table["apparent_age_avg"].tolist() == [21.5, 40.0, 8.0]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"scatter.png", "error_histogram.png"}


def test_appa_real_requires_an_age_head(tmp_path):
    write_split(tmp_path, "valid", ROWS)
    estimator = FakeEstimator()
    estimator.info.heads = ("gender",)
    with pytest.raises(UserError, match=r"APPA-REAL requires weights with a trained age head, got fake: 8"):
        evaluate_appa_real(estimator, tmp_path)
    assert estimator.calls == []


def test_appa_real_missing(tmp_path):
    with pytest.raises(UserError, match=r"gt_avg_valid.csv not found: run `./download.sh appa-real`"):
        evaluate_appa_real(FakeEstimator(), tmp_path)


def test_unknown_metrics_are_not_compared():
    same = {"images": 2, "mae": None, "group_accuracy": None, "gender_accuracy": 0.5}
    assert describe_cuts(same) == "The same 2 images, cut as their table says: gender accuracy 0.500"
    same = {"images": 2, "mae": 4.0, "group_accuracy": 0.75, "gender_accuracy": None}
    assert describe_cuts(same) == "The same 2 images, cut as their table says: MAE 4.00 years, exact age group 0.750"


def test_table_without_labels_is_an_error(my_table):
    my_table.write_text("genders,ages,img_paths,split,margin\n,,a.png,test,0.4\n1,20,b.png,train,0.4\n")
    with pytest.raises(UserError, match=r"none of the 1 rows of .*my\.csv, test has a known age or gender"):
        evaluate(FakeEstimator(), str(my_table))
    assert evaluate(FakeEstimator(), str(my_table), split="all")[0]["images"] == 2


@pytest.mark.parametrize(
    ("head", "header", "cells"),
    [
        ("gender", "ages,img_paths", "20,a.png"),
        ("gender", "age_min,img_paths", "20,a.png"),
        ("age", "ages,img_paths", ",a.png"),
    ],
)
def test_labels_of_another_head_than_the_trained_one_are_none(my_table, head, header, cells):
    gender = "" if head == "gender" else "1"
    my_table.write_text(f"genders,{header},split,margin\n{gender},{cells},test,0.4\n")
    estimator = FakeEstimator()
    estimator.info.heads = (head,)
    with pytest.raises(UserError, match=f"none of the 1 rows of .* has a known {head}, the only trained head of the"):
        evaluate(estimator, str(my_table))
    assert estimator.calls == []


def test_ranges_of_ages(my_table, tmp_path):
    header = "genders,ages,age_min,age_max,img_paths,split,margin,ethnicity"
    my_table.write_text(
        f"{header}\n1,,40,49,a.png,test,0.4,Black\n0,44,,,b.png,test,0.4,White\n1,,20,29,c.png,test,0.4,\n"
    )
    report, lines = evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "out")  # predicted is 40 and male
    assert report["mae"] == 4
    assert report["group_accuracy"] == pytest.approx(2 / 3)
    assert report["within_one_group"] == pytest.approx(2 / 3)
    assert report["worst_ethnicity"]["group"] == "White"
    assert "Exact age group: 0.667 (of 3)" in lines
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert predictions["true_age_min"].tolist()[::2] == [40, 20]
    assert predictions["true_age_max"].isna().tolist() == [False, True, False]
    assert (tmp_path / "out" / "confusion_matrix.png").stat().st_size > 1000


def test_only_ranges_make_no_plots_of_ages(my_table, tmp_path):
    my_table.write_text("genders,age_min,age_max,img_paths,split,margin\n1,40,49,a.png,test,0.4\n")
    evaluate(FakeEstimator(), str(my_table), output_dir=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["confusion_matrix.png"]


def test_a_head_that_was_not_trained_is_not_judged(my_table):
    my_table.write_text("genders,age_min,age_max,img_paths,split,margin\n1,40,49,a.png,test,0.4\n")
    estimator = FakeEstimator()
    estimator.info.heads = ["gender"]
    report, _ = evaluate(estimator, str(my_table))
    assert report["gender_accuracy"] == 1
    assert report["grouped"] == report["age_ranges"] == 0
