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
        ("2,30,x.jpg", r"0 \(female\), 1 \(male\).*column genders.*received '2' in line 3"),
        ("F,30,x.jpg", "column genders.*received 'F' in line 3"),
        ("0.5,30,x.jpg", "column genders.*received '0.5' in line 3"),
        ("0,-1,x.jpg", "an age from 0 to 150.*column ages.*received '-1' in line 3"),
        ("0,1985,x.jpg", "column ages.*received '1985' in line 3"),
        ("0,inf,x.jpg", "column ages.*received 'inf' in line 3"),
        ("0,old,x.jpg", "column ages.*received 'old' in line 3"),
        ("0,30,", "a picture's path.*column img_paths.*received '' in line 3"),
    ],
)
def test_wrong_cells_name_their_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, HEADER + "0,30,fine.jpg\n" + row + "\n")


def test_line_numbers_count_empty_lines(tmp_path):
    with pytest.raises(UserError, match=r"in line 5 \(2 such lines\)"):
        read(tmp_path, HEADER + "0,30,a.jpg\n\n\n7,30,b.jpg\n8,30,c.jpg\n")


def test_wrong_split_and_margin(tmp_path):
    with pytest.raises(UserError, match="train, val, test or nothing in column split.*'valid' in line 2"):
        read(tmp_path, "genders,ages,img_paths,split\n0,30,a.jpg,valid\n")
    with pytest.raises(UserError, match="column margin.*'-0.1' in line 2"):
        read(tmp_path, "genders,ages,img_paths,margin\n0,30,a.jpg,-0.1\n")


def test_missing_columns_show_what_was_received(tmp_path):
    with pytest.raises(UserError, match=r"received gender,age,path: add \['genders', 'ages', 'img_paths'\]"):
        read(tmp_path, "gender,age,path\n0,30,a.jpg\n")
    with pytest.raises(UserError, match="received genders;ages;img_paths"):
        read(tmp_path, "genders;ages;img_paths\n0;30;a.jpg\n")


def test_lines_of_another_length(tmp_path):
    with pytest.raises(UserError, match="expected 3 cells a line in .*, received 4 in line 3"):
        read(tmp_path, HEADER + "0,30,a.jpg\n0,30,a,b.jpg\n")
    with pytest.raises(UserError, match="received 2 in line 2"):
        read(tmp_path, HEADER + "0,30\n")


def test_a_column_twice(tmp_path):
    with pytest.raises(UserError, match="every column once"):
        read(tmp_path, "genders,ages,ages,img_paths\n0,30,30,a.jpg\n")


def test_a_file_without_any_line(tmp_path):
    with pytest.raises(UserError, match="expected the columns genders,ages,img_paths"):
        read(tmp_path, "")


def test_binary_file_and_missing_file(tmp_path):
    (tmp_path / "my.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="expected"):
        read_csv(tmp_path / "my.csv")
    with pytest.raises(UserError, match="does not exist"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match="expected a CSV"):
        read_csv(tmp_path)


def test_empty_table(tmp_path):
    assert len(read(tmp_path, HEADER)) == 0


def test_writes_whole_files_with_plain_line_ends_into_new_folders(tmp_path):
    table = pd.DataFrame({"genders": [0, 1], "ages": [5, 6], "img_paths": ["a.jpg", "b,c.jpg"]})
    write_csv(table, tmp_path / "new" / "my.csv")
    assert (tmp_path / "new" / "my.csv").read_bytes() == b'genders,ages,img_paths\n0,5,a.jpg\n1,6,"b,c.jpg"\n'
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["my.csv"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "my.csv").write_text("old")
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda self, path, **_: path.write_text("half") and 1 / 0)
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
    with pytest.raises(UserError, match=r"boxes with left < right and top < bottom .* in line 2"):
        read_csv(tmp_path / "b.csv")
