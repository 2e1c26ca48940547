import csv

import numpy as np
import pandas as pd
import pytest

from src.cli import UserError
from src.datasets.csv_table import read_csv, write_csv

HEADER = "genders,ages,img_paths\n"


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "my.csv").write_bytes(text.encode(encoding))
    return read_csv(tmp_path / "my.csv")


def test_reads_labels_and_takes_empty_cells_as_unknown(tmp_path):
    table = read(tmp_path, HEADER + "0,25,a.jpg\n,31.5,b/c.jpg\n1.0,,d e.jpg\nnan,NaN,f.jpg\n")
    np.testing.assert_array_equal(table["gender"], [0, np.nan, 1, np.nan])
    np.testing.assert_array_equal(table["age"], [25, 31.5, np.nan, np.nan])
    assert table["path"].tolist() == ["a.jpg", "b/c.jpg", "d e.jpg", "f.jpg"]
    assert list(table.columns) == ["path", "gender", "age"]
    assert table["gender"].dtype == table["age"].dtype == np.float64


def test_ages_above_100_count_as_100(tmp_path):
    assert read(tmp_path, HEADER + "0,116,a.jpg\n0,100,b.jpg\n0,0,c.jpg\n")["age"].tolist() == [100, 100, 0]


def test_optional_columns_order_byte_order_mark_blanks_and_windows_line_ends(tmp_path):
    text = "\ufeffimg_paths, split ,margin,genders,ages,note\r\n a.jpg , val, 0.4, 0, 3,x\r\n\r\nb.jpg,,,1,,\r\n"
    table = read(tmp_path, text)
    assert table["path"].tolist() == ["a.jpg", "b.jpg"]
    assert table["split"].tolist() == ["val", ""]
    np.testing.assert_array_equal(table["margin"], [0.4, np.nan])


def test_paths_are_taken_literally(tmp_path):
    table = read(tmp_path, HEADER + '0,1,"a,b.jpg"\n0,1,NA\n0,1,007\n0,1,ünï.jpg\n')
    assert table["path"].tolist() == ["a,b.jpg", "NA", "007", "ünï.jpg"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,30,x.jpg", r"line 3: genders must be 0 \(female\), 1 \(male\).*got '2'"),
        ("F,30,x.jpg", "line 3: genders must be .*got 'F'"),
        ("0.5,30,x.jpg", "line 3: genders must be .*got '0.5'"),
        ("0,-1,x.jpg", "line 3: ages must be an age from 0 to 150.*got '-1'"),
        ("0,1985,x.jpg", "line 3: ages must be .*got '1985'"),
        ("0,inf,x.jpg", "line 3: ages must be .*got 'inf'"),
        ("0,old,x.jpg", "line 3: ages must be .*got 'old'"),
        ("0,30,", "line 3: img_paths must be the path of an image, got ''"),
    ],
)
def test_wrong_cells_name_their_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, HEADER + "0,30,fine.jpg\n" + row + "\n")


def test_line_numbers_count_empty_lines(tmp_path):
    with pytest.raises(UserError, match=r"line 5: genders.*got '7' \(2 such lines\)"):
        read(tmp_path, HEADER + "0,30,a.jpg\n\n\n7,30,b.jpg\n8,30,c.jpg\n")


def test_wrong_split_and_margin(tmp_path):
    with pytest.raises(UserError, match="line 2: split must be train, val, test or empty, got 'valid'"):
        read(tmp_path, "genders,ages,img_paths,split\n0,30,a.jpg,valid\n")
    with pytest.raises(
        UserError, match=r"line 2: margin must be a number from 0 to 10 \(face widths\) or empty, got '-0"
    ):
        read(tmp_path, "genders,ages,img_paths,margin\n0,30,a.jpg,-0.1\n")


def test_missing_columns_show_what_was_received(tmp_path):
    with pytest.raises(UserError, match=r"got gender,age,path: add \['genders', 'ages', 'img_paths'\]"):
        read(tmp_path, "gender,age,path\n0,30,a.jpg\n")
    with pytest.raises(UserError, match="got genders:ages:img_paths: add"):
        read(tmp_path, "genders:ages:img_paths\n0:30:a.jpg\n")


def test_lines_of_another_length(tmp_path):
    with pytest.raises(UserError, match="must have 3 cells per line, got 4 in line 3"):
        read(tmp_path, HEADER + "0,30,a.jpg\n0,30,a,b.jpg\n")
    with pytest.raises(UserError, match="got 2 in line 2"):
        read(tmp_path, HEADER + "0,30\n")


def test_a_column_twice(tmp_path):
    with pytest.raises(UserError, match="must have every column once, got genders,ages,ages,img_paths"):
        read(tmp_path, "genders,ages,ages,img_paths\n0,30,30,a.jpg\n")


def test_a_file_without_any_line(tmp_path):
    with pytest.raises(UserError, match="must have the columns genders,ages,img_paths, got nothing"):
        read(tmp_path, "")


def test_binary_file_and_missing_file(tmp_path):
    (tmp_path / "my.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match=r"my\.csv must be a CSV, got a file that is no text"):
        read_csv(tmp_path / "my.csv")
    with pytest.raises(UserError, match="does not exist"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match="must be a CSV: Is a directory"):
        read_csv(tmp_path)


@pytest.mark.parametrize("data", [b"\0", b"\0\0", b"g\0e", b"\0g\0", b"\xff\xfeg\0e"])
def test_files_cut_off_within_a_character(tmp_path, data):
    (tmp_path / "my.csv").write_bytes(data)
    with pytest.raises(UserError, match=r"my\.csv must be a CSV, got (a file that is no text|UTF-16 that is cut off)"):
        read_csv(tmp_path / "my.csv")


def test_empty_table(tmp_path):
    assert len(read(tmp_path, HEADER)) == 0


def test_writes_whole_files_with_plain_line_ends_into_new_folders(tmp_path):
    table = pd.DataFrame({"genders": [0, 1], "ages": [5, 6], "img_paths": ["a.jpg", "b,c.jpg"]})
    write_csv(table, tmp_path / "new" / "my.csv")
    assert (tmp_path / "new" / "my.csv").read_bytes() == b'genders,ages,img_paths\n0,5,a.jpg\n1,6,"b,c.jpg"\n'
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["my.csv"]


def test_line_ends_in_names_come_back(tmp_path):
    names = ["a\rb.jpg", "a\nb.jpg", "a\r\nb.jpg", "b\r", 'c"\r\n']
    write_csv(pd.DataFrame({"img_paths": names}), tmp_path / "my.csv")
    with (tmp_path / "my.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["img_paths"], *([name] for name in names)]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "my.csv").write_text("old")
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda self, file, **_: file.write("half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_csv(pd.DataFrame({"a": [1]}), tmp_path / "my.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("my.csv", "old")]


def test_boxes_of_faces_in_their_crops(tmp_path):
    header = "genders,ages,img_paths,margin,left,top,right,bottom\n"
    (tmp_path / "a.csv").write_text(header + "0,1,a.png,0.4,1,2,30,40\n1,2,b.png,0.4,,,,\n")
    table = read_csv(tmp_path / "a.csv")
    assert table.loc[0, ["left", "top", "right", "bottom"]].tolist() == [1, 2, 30, 40]
    assert table.loc[1, ["left", "top", "right", "bottom"]].isna().all()
    (tmp_path / "b.csv").write_text(header + "0,1,a.png,0.4,30,2,1,40\n")
    with pytest.raises(UserError, match=r"line 2: left must be less than right, and top less than bottom"):
        read_csv(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("columns", "missing"),
    [("left,top,width,height", r"got left,top: add \['right', 'bottom'\]"), ("left,top,right", r"add \['bottom'\]")],
)
def test_boxes_of_which_a_column_is_missing(tmp_path, columns, missing):
    cells = ",1" * len(columns.split(","))
    with pytest.raises(
        UserError, match=f"must have all of the columns left,top,right,bottom or none of them, .*{missing}"
    ):
        read(tmp_path, f"genders,ages,img_paths,{columns}\n0,1,a.png{cells}\n")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("first_line", ["", "sep={}\r\n", '"sep={}"\r\n'])
def test_what_spreadsheets_write(tmp_path, separator, encoding, first_line):
    lines = ["genders,ages,img_paths,split", "0,25,ünï.jpg,val", "1,30,b.jpg,"]
    text = first_line.format(separator) + "\r\n".join(lines).replace(",", separator) + "\r\n"
    table = read(tmp_path, text, encoding)
    assert table["gender"].tolist() == [0, 1]
    assert table["age"].tolist() == [25, 30]
    assert table["path"].tolist() == ["ünï.jpg", "b.jpg"]
    assert table["split"].tolist() == ["val", ""]


def test_names_of_columns_and_splits_in_capitals(tmp_path):
    table = read(tmp_path, "\ufeffsep=;\nGenders;AGES;Img_Paths;Split\n1;30,5;A.jpg;Train\n")
    assert table.values.tolist() == [["A.jpg", 1.0, 30.5, "train"]]


def test_two_byte_order_marks(tmp_path):
    assert len(read(tmp_path, "\ufeff\ufeff" + HEADER + "1,30,a.jpg\n")) == 1


@pytest.mark.parametrize("rest", ["", '0,20,"c.jpg"\n'])
def test_a_quote_that_is_not_closed_is_no_cell_of_many_lines(tmp_path, rest):
    with pytest.raises(UserError, match=r"must be a CSV: .*, in the cells that end in line [34]$"):
        read(tmp_path, HEADER + '1,30,"a.jpg\n1,30,b.jpg\n' + rest)


def test_a_line_that_names_the_separator_counts_as_a_line(tmp_path):
    with pytest.raises(UserError, match="line 4: genders must be"):
        read(tmp_path, "sep=;\ngenders;ages;img_paths\n0;1;a.jpg\n5;1;b.jpg\n")


def test_empty_columns_at_the_end_need_not_be_complete(tmp_path):
    text = "genders,ages,img_paths,split,,\n0,25,a.jpg,val,,\n1,30,b.jpg,,,\n1,31,c.jpg\n0,32,d.jpg,test\n,,,,,\n"
    table = read(tmp_path, text)
    assert table["path"].tolist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert table["split"].tolist() == ["val", "", "", "test"]


def test_line_ends_of_old_macs(tmp_path):
    table = read(tmp_path, "genders,ages,img_paths\r0,25,a.jpg\r1,30,b.jpg\r")
    assert table["path"].tolist() == ["a.jpg", "b.jpg"]


def test_decimal_commas(tmp_path):
    table = read(tmp_path, "genders;ages;img_paths;margin\n0;25,5;a.jpg;0,4\n")
    assert table["age"].tolist() == [25.5]
    assert table["margin"].tolist() == [0.4]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"PK\x03\x04rest", r"a spreadsheet workbook \(\.xlsx, \.ods\)"),
        (b"\xd0\xcf\x11\xe0rest", r"an old Excel workbook \(\.xls\)"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_files_that_are_no_table_are_named(tmp_path, data, cause):
    (tmp_path / "my.csv").write_bytes(data)
    with pytest.raises(UserError, match=rf"my\.csv must be a CSV, got {cause}"):
        read_csv(tmp_path / "my.csv")


def test_ages_and_ranges_in_one_table(tmp_path):
    rows = ["0,25,,,a.jpg", "0,,20,29,b.jpg", "1,,70,,c.jpg", "1,,,12,d.jpg", ",,,,e.jpg", "0,,30,30,f.jpg"]
    rows += ["0,22,20,29,g.jpg", "0,,90,120,h.jpg"]
    table = read(tmp_path, "genders,ages,age_min,age_max,img_paths\n" + "\n".join(rows) + "\n")
    np.testing.assert_array_equal(table["age"], [25, np.nan, np.nan, np.nan, np.nan, 30, 22, np.nan])
    np.testing.assert_array_equal(table["age_min"], [np.nan, 20, 70, 0, np.nan, np.nan, np.nan, 90])
    np.testing.assert_array_equal(table["age_max"], [np.nan, 29, 100, 12, np.nan, np.nan, np.nan, 100])
    assert table["age_min"].dtype == table["age_max"].dtype == np.float64


def test_ranges_in_place_of_ages(tmp_path):
    table = read(tmp_path, "genders,age_min,age_max,img_paths,ethnicity\n0,20,29,a.jpg,Indian\n,70,,b.jpg,\n")
    assert table["age"].isna().all()
    assert table["age_min"].tolist() == [20, 70]
    assert table["age_max"].tolist() == [29, 100]
    assert table["ethnicity"].tolist() == ["Indian", ""]
    alone = read(tmp_path, "genders,age_min,img_paths\n0,20,a.jpg\n")
    assert (alone["age_min"].tolist(), alone["age_max"].tolist()) == ([20], [100])
    beside = read(tmp_path, "genders,ages,age_max,img_paths\n0,,12,a.jpg\n0,5,,b.jpg\n")
    np.testing.assert_array_equal(beside["age_min"], [0, np.nan])
    np.testing.assert_array_equal(beside["age_max"], [12, np.nan])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,,30,20,x.jpg", "line 2: age_min must be at most age_max, got '30'"),
        ("0,,20.5,30,x.jpg", "line 2: age_min must be a whole number of years from 0 to 150 or empty, got '20.5'"),
        ("0,,20,1985,x.jpg", "line 2: age_max must be a whole number of years from 0 to 150 or empty, got '1985'"),
        ("0,45,20,29,x.jpg", r"line 2: ages must be within age_min\.\.age_max, got '45'"),
    ],
)
def test_wrong_ranges(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "genders,ages,age_min,age_max,img_paths\n" + row + "\n")
