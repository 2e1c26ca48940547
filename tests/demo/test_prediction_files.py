import csv
import json

import pytest

from src.cli import UserError
from src.demo.prediction_files import (
    CSV_NAME,
    JSON_NAME,
    PredictionFiles,
    count_rows,
    csv_row,
    json_line,
    names_in_json,
)
from src.demo.results import Result, Results
from src.inference.predictor import Prediction

ANNA, BO = Prediction((1, 2, 30, 40), 33.456, 0.12345), Prediction((5, 6, 70, 80), 7.0, 0.5)
HEADER = "image,left,top,right,bottom,age,gender,male_probability,frame,time"


def read_csv(folder):
    return (folder / CSV_NAME).read_bytes().decode().split("\n")


def result(name):
    return Result(name, name, "root", name)


def write(folder, *items, replaced=(), with_json=True):
    files = PredictionFiles(Results(folder), replaced, with_json)
    for name, predictions in items:
        files.write(result(name), predictions)
    return files


def test_gender():
    assert (ANNA.gender, BO.gender) == ("F", "M")


def test_row_and_line():
    unknown = Prediction((1, 2, 30, 40), float("nan"), float("nan"))
    assert csv_row("a.jpg", unknown) == ("a.jpg", 1, 2, 30, 40, "", "", "", "", "")
    face = {"box": [1, 2, 30, 40], "age": None, "gender": None, "male_probability": None}
    assert json.loads(json_line("a.jpg", [unknown])) == {"image": "a.jpg", "faces": [face]}
    assert csv_row("a/b.jpg", ANNA) == ("a/b.jpg", 1, 2, 30, 40, "33.46", "F", "0.1235", "", "")
    assert csv_row("a.mp4", ANNA, 7, 0.28)[-2:] == (7, "0.280")
    assert json.loads(json_line("ä.jpg", [BO])) == {
        "image": "ä.jpg",
        "faces": [{"box": [5, 6, 70, 80], "age": 7.0, "gender": "M", "male_probability": 0.5}],
    }
    assert json.loads(json_line("a.mp4", [], 7, 0.28)) == {"image": "a.mp4", "frame": 7, "time": 0.28, "faces": []}


def test_files_are_complete_after_every_image(tmp_path):
    files = write(tmp_path)
    assert read_csv(tmp_path) == [HEADER, ""]
    files.write(result("ä, b.jpg"), [ANNA, BO])
    assert read_csv(tmp_path)[1:] == [
        '"ä, b.jpg",1,2,30,40,33.46,F,0.1235,,',
        '"ä, b.jpg",5,6,70,80,7.00,M,0.5000,,',
        "",
    ]
    files.write(result("none.jpg"), [])
    lines = (tmp_path / JSON_NAME).read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["image"], len(json.loads(line)["faces"])) for line in lines] == [
        ("ä, b.jpg", 2),
        ("none.jpg", 0),
    ]
    assert count_rows(tmp_path) == {"ä, b.jpg": 2}
    assert names_in_json(tmp_path) == {"ä, b.jpg", "none.jpg"}


def test_no_json_unless_asked_for(tmp_path):
    write(tmp_path, ("a.jpg", [ANNA]), with_json=False)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".demo"] == [CSV_NAME]


@pytest.mark.parametrize("replaced", [(), ("a.jpg",), ("a.jpg", "b.jpg")])
def test_rows_of_others_stay_and_torn_lines_go(tmp_path, replaced):
    write(tmp_path, ("a.jpg", [ANNA, BO]), ("b.jpg", [BO]))
    with (tmp_path / CSV_NAME).open("a") as file:
        file.write("a.jpg,1,2")  # a run that was killed while it wrote
    with (tmp_path / JSON_NAME).open("a") as file:
        file.write('{"image": "a.j')
    write(tmp_path, ("c.jpg", [ANNA]), replaced=replaced)
    expected = [name for name in ("a.jpg", "a.jpg", "b.jpg", "c.jpg") if name not in replaced]
    assert [line.split(",")[0] for line in read_csv(tmp_path)[1:-1]] == expected
    lines = (tmp_path / JSON_NAME).read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == sorted(set(expected))


def test_without_json_no_stale_line_stays(tmp_path):
    write(tmp_path, ("a.jpg", [ANNA]), ("b.jpg", [BO]))
    write(tmp_path, ("a.jpg", [BO]), replaced=["a.jpg"], with_json=False)
    assert names_in_json(tmp_path) == {"b.jpg"}


def test_runs_at_the_same_time_lose_nothing(tmp_path):
    """Each removes old rows of its own while the other writes; one is killed amid a line."""
    first = write(tmp_path, ("a.jpg", [ANNA]))
    second = write(tmp_path, ("b.jpg", [BO]), replaced=["b.jpg", "c.jpg"])
    first.write(result("a2.jpg"), [ANNA])
    with (tmp_path / CSV_NAME).open("a") as file:
        file.write("x.jpg,1,2")
    second.write(result("c.jpg"), [BO])
    first.write(result("a3.jpg"), [ANNA])
    assert count_rows(tmp_path) == dict.fromkeys(["a.jpg", "a2.jpg", "a3.jpg", "b.jpg", "c.jpg"], 1)
    assert names_in_json(tmp_path) == {"a.jpg", "a2.jpg", "a3.jpg", "b.jpg", "c.jpg"}


def test_rows_of_older_versions_stay(tmp_path):
    (tmp_path / CSV_NAME).write_text(
        "image,left,top,right,bottom,age,gender,male_probability\n0,1,2,3,4,5.00,F,0.1000\n"
    )
    write(tmp_path, ("a.jpg", [ANNA]))
    assert read_csv(tmp_path)[:2] == [HEADER, "0,1,2,3,4,5.00,F,0.1000,,"]


@pytest.mark.parametrize(("start", "separator", "line_end"), [("", ";", "\n"), ("\ufeff", ",", "\r\n")])
def test_rows_that_a_spreadsheet_wrote_stay(tmp_path, start, separator, line_end):
    write(tmp_path, ("a;b.jpg", [ANNA]), ("c.jpg", [ANNA]))
    before = read_csv(tmp_path)
    text = (tmp_path / CSV_NAME).read_text(encoding="utf-8").replace("a;b.jpg", '"a;b.jpg"')
    text = start + text.replace(",", separator)
    (tmp_path / CSV_NAME).write_text(text, encoding="utf-8", newline=line_end)
    write(tmp_path, ("d.jpg", []))
    assert read_csv(tmp_path) == before


def test_a_table_of_another_program_is_not_replaced(tmp_path):
    (tmp_path / CSV_NAME).write_text("file_name,predicted_age\na.jpg,30\n")
    with pytest.raises(UserError, match=r"must begin with the line image,.*, got file_name,predicted_age;"):
        write(tmp_path)
    assert (tmp_path / CSV_NAME).read_text() == "file_name,predicted_age\na.jpg,30\n"


@pytest.mark.parametrize(
    "name",
    [
        b"latin \xe9.jpg".decode("utf-8", "surrogateescape"),
        "\u2028 \x85.jpg",
        *map("a{}b.jpg".format, ["\n", "\r", "\r\n"]),
    ],
)
def test_strange_file_names_go_in_and_come_back(tmp_path, name):
    write(tmp_path, (name, [ANNA]))
    write(tmp_path)
    with (tmp_path / CSV_NAME).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [name]
    lines = (tmp_path / JSON_NAME).read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["image"] for line in lines[:-1]] == [name]


def test_unwritable_folder(tmp_path):
    with pytest.raises(OSError, match="missing"):
        Results(tmp_path / "missing")
