import csv
import json

import pytest

from src.demo.prediction_files import CSV_NAME, JSON_NAME, PredictionFiles, csv_row, json_line
from src.inference.predictor import Prediction

ANNA, BO = Prediction((1, 2, 30, 40), 33.456, 0.12345), Prediction((5, 6, 70, 80), 7.0, 0.5)


def read_csv(folder):
    return (folder / CSV_NAME).read_bytes().decode().split("\n")


def test_gender():
    assert (ANNA.gender, BO.gender) == ("F", "M")


def test_row_and_line():
    assert csv_row("a/b.jpg", ANNA) == ("a/b.jpg", 1, 2, 30, 40, "33.46", "F", "0.1235")
    assert json.loads(json_line("ä.jpg", [BO])) == {
        "image": "ä.jpg",
        "faces": [{"box": [5, 6, 70, 80], "age": 7.0, "gender": "M", "male_probability": 0.5}],
    }


def test_files_are_complete_after_every_picture(tmp_path):
    with PredictionFiles(tmp_path, with_json=True) as files:
        assert read_csv(tmp_path) == ["image,left,top,right,bottom,age,gender,male_probability", ""]
        files.write("ä, b.jpg", [ANNA, BO])
        assert read_csv(tmp_path)[1:] == [
            '"ä, b.jpg",1,2,30,40,33.46,F,0.1235',
            '"ä, b.jpg",5,6,70,80,7.00,M,0.5000',
            "",
        ]
        files.write("none.jpg", [])
    lines = (tmp_path / JSON_NAME).read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["image"], len(json.loads(line)["faces"])) for line in lines] == [
        ("ä, b.jpg", 2),
        ("none.jpg", 0),
    ]


def test_no_json_unless_asked_for(tmp_path):
    with PredictionFiles(tmp_path) as files:
        files.write("a.jpg", [ANNA])
    assert [path.name for path in tmp_path.iterdir()] == [CSV_NAME]


def test_a_new_run_begins_anew_and_a_continued_one_keeps_what_is_done(tmp_path):
    for keep, expected in [((), ["c.jpg"]), (("a.jpg",), ["a.jpg", "a.jpg", "c.jpg"])]:
        with PredictionFiles(tmp_path, with_json=True) as files:
            files.write("a.jpg", [ANNA, BO])
            files.write("b.jpg", [BO])
        with (tmp_path / CSV_NAME).open("a") as file:
            file.write("a.jpg,1,2")  # a run that was killed while it wrote
        with (tmp_path / JSON_NAME).open("a") as file:
            file.write('{"image": "a.j')
        with PredictionFiles(tmp_path, with_json=True, keep=frozenset(keep)) as files:
            files.write("c.jpg", [ANNA])
        assert [line.split(",")[0] for line in read_csv(tmp_path)[1:-1]] == expected
        lines = (tmp_path / JSON_NAME).read_text().splitlines()
        assert [json.loads(line)["image"] for line in lines] == sorted(set(expected))


@pytest.mark.parametrize("name", [b"latin \xe9.jpg".decode("utf-8", "surrogateescape"), "\u2028 \x85.jpg", "a\nb.jpg"])
def test_strange_file_names_go_in_and_come_back(tmp_path, name):
    with PredictionFiles(tmp_path, with_json=True) as files:
        files.write(name, [ANNA])
    with PredictionFiles(tmp_path, with_json=True, keep=frozenset([name])):
        pass
    with (tmp_path / CSV_NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [name]
    lines = (tmp_path / JSON_NAME).read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["image"] for line in lines[:-1]] == [name]


def test_continuing_without_files_is_a_new_run(tmp_path):
    with PredictionFiles(tmp_path, with_json=True, keep=frozenset(["a.jpg"])):
        pass
    assert len(read_csv(tmp_path)) == 2


def test_unwritable_folder(tmp_path):
    with pytest.raises(OSError, match="predictions"):
        PredictionFiles(tmp_path / "missing")
