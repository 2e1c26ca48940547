"""The recipe that repeats rows of a table."""

import pytest
from script_runs import error_line, run_script

TABLE = """genders,ages,age_min,img_paths,ethnicity,split
0,,10,007.jpg,Black,train
1,30,,b.jpg,White,Train
,,60,c.jpg,,train
"""


@pytest.fixture
def repeat(tmp_path):
    (tmp_path / "faces.csv").write_text(TABLE)

    def repeat(*conditions, output=tmp_path / "more.csv"):
        return run_script("recipes/repeat_rows.py", tmp_path / "faces.csv", "-o", output, "--where", *conditions)

    return repeat


def test_each_condition_adds_its_rows_once(repeat, tmp_path):
    result = repeat("ethnicity == 'Black'", "age_min >= 10", "genders == 1 and 25 <= ages < 35")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'more.csv'}: 7 rows\n"
    first, second, third = TABLE.splitlines(keepends=True)[1:]
    assert (tmp_path / "more.csv").read_text() == TABLE + first + first + third + second


@pytest.mark.parametrize("condition", ["no_such == 1", "ages ==", "import os"])
def test_a_condition_must_be_one_of_the_table(repeat, tmp_path, condition):
    message = (
        f"error: --where must be a condition on genders, ages, age_min, img_paths, ethnicity, split, got {condition!r}"
    )
    assert error_line(repeat(condition)).startswith(message)
    assert not (tmp_path / "more.csv").exists()


@pytest.mark.parametrize("condition", ["genders", "ages", "more = ages", "3 > 2"])
def test_a_condition_must_be_true_or_false_for_each_row(repeat, tmp_path, condition):
    message = f"error: --where must be a condition such as 'age_min == 10', got {condition!r}"
    assert error_line(repeat(condition)) == message
    assert not (tmp_path / "more.csv").exists()


def test_rows_that_are_held_out_stay_single(repeat, tmp_path):
    rows = ["1,20,a.jpg,train", "1,20,b.jpg,val", "1,20,c.jpg,test", "1,20,d.jpg,"]
    (tmp_path / "faces.csv").write_text("genders,ages,img_paths,split\n" + "\n".join(rows))
    repeat("ages == 20")
    assert (tmp_path / "more.csv").read_text().splitlines()[1:] == [*rows, rows[0]]


def test_tables_of_spreadsheets(repeat, tmp_path):
    (tmp_path / "faces.csv").write_text("genders;ages;img_paths;split\n1;20;a.jpg;train\n0;30;b.jpg;train\n")
    repeat("ages > 20")
    assert (tmp_path / "more.csv").read_text().splitlines()[1:] == ["1,20,a.jpg,train", *["0,30,b.jpg,train"] * 2]
    (tmp_path / "faces.csv").write_bytes(b"")
    assert error_line(repeat("ages > 20")).startswith(
        f"error: {tmp_path / 'faces.csv'} must have the columns img_paths,split"
    )


def test_mistakes_write_nothing(repeat, tmp_path):
    assert "got 'ages > 30', which holds for none" in error_line(repeat("ages > 30"))
    for output in ("more.txt", "elsewhere/more.csv"):
        line = error_line(repeat("ages > 20", output=tmp_path / output))
        assert line.startswith("error: --output must be a .csv file in the folder of ")
    assert error_line(repeat("ages > 20", output=tmp_path / "faces.csv")).startswith("error: --output must be another")
    assert (tmp_path / "faces.csv").read_text() == TABLE
    (tmp_path / "faces.csv").unlink()
    assert error_line(repeat("ages > 20")) == f"error: {tmp_path / 'faces.csv'} does not exist"
