from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.cli import UserError
from src.datasets import fairface, load_table
from src.datasets.splits import content_split_without_test
from src.files import file_sha256

HEADER = "file,age,gender,race,service_test"


def write_part(folder, part, *rows, header=HEADER):
    """Label file and images, each of other bytes; nothing here decodes them."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows, start=1):
        (folder / part / f"{number}.jpg").write_bytes(f"image {part} {number}".encode())
        lines.append(f"{part}/{number}.jpg,{row}")
    (folder / f"fairface_label_{part}.csv").write_text("\n".join([header, *lines]) + "\n")


def test_loads_the_official_layout(tmp_path):
    write_part(tmp_path, "val", "3-9,Male,East Asian,False", "more than 70,Female,Latino_Hispanic,True")
    write_part(tmp_path, "train", *["20-29,Female,Black,True"] * 30)
    table = load_table("fairface", image_dir=tmp_path)
    test = table[table["split"] == "test"].set_index("path").sort_index()
    assert test.index.tolist() == [str(tmp_path / "val" / "1.jpg"), str(tmp_path / "val" / "2.jpg")]
    assert test["gender"].tolist() == [1, 0]
    assert test["age_min"].tolist() == [3, 70]
    assert test["age_max"].tolist() == [9, 100]
    assert test["ethnicity"].tolist() == ["East Asian", "Latino Hispanic"]
    assert table["age"].isna().all()
    assert (table["margin"] == 0.12).all()
    others = table[table["split"] != "test"]
    assert len(others) == 30
    assert others["split"].tolist() == [content_split_without_test(file_sha256(path)) for path in others["path"]]
    assert set(others["split"]) == {"train", "val"}


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_part_alone(tmp_path, part):
    write_part(tmp_path, part, "30-39,Male,White,False")
    table = fairface.load(tmp_path)
    assert len(table) == 1
    assert (table["split"] == "test").tolist() == [part == "val"]


def test_the_published_test_part_needs_no_hash(tmp_path, monkeypatch):
    write_part(tmp_path, "train", "30-39,Male,White,False")
    write_part(tmp_path, "val", "3-9,Male,East Asian,False", "20-29,Female,Black,True")
    whole = load_table("fairface", tmp_path)
    expected = whole[whole["split"] == "test"].reset_index(drop=True)
    monkeypatch.setattr(fairface, "hash_files", None)
    pd.testing.assert_frame_equal(load_table("fairface", tmp_path, only="test"), expected)
    monkeypatch.undo()
    assert (load_table("fairface", tmp_path, only="train")["split"] != "test").any()
    (tmp_path / "fairface_label_val.csv").unlink()
    assert len(load_table("fairface", tmp_path, only="test")) == 1  # whoever asks can say what there is instead


@pytest.mark.parametrize(
    ("cell", "group"),
    [
        ("0-2", (0, 2)),
        ("3-9", (3, 9)),
        ("10-19", (10, 19)),
        ("20 - 29", (20, 29)),
        ("60\N{EN DASH}69", (60, 69)),
        ("more than 70", (70, 100)),
        ("70+", (70, 100)),
        (">70", (70, 100)),
        # 3-9 and 10-19 as spreadsheets of several languages show and export them
        ("03-Sep", (3, 9)),
        ("3-Sep", (3, 9)),
        ("Sep-03", (3, 9)),
        ("9-Mar", (3, 9)),
        ("09. Mrz", (3, 9)),
        ("03.Sept", (3, 9)),
        ("2020-09-03 00:00:00", (3, 9)),
        ("3/9/2020", (3, 9)),
        ("Oct-19", (10, 19)),
        ("19-Oct", (10, 19)),
        ("Okt 19", (10, 19)),
        ("2019-10-01", (10, 19)),
        ("10/1/2019", (10, 19)),
        ("", None),
        ("70", None),
        ("25", None),
        ("4-7", None),
        ("more than 60", None),
        ("43739", None),
    ],
)
def test_age_groups_and_what_spreadsheets_make_of_them(cell, group):
    assert fairface.parse_age_group(cell) == group


def test_labels_through_a_spreadsheet_with_semicolons(tmp_path):
    write_part(tmp_path, "val", "03. Sep;Male;White", "Okt 19;Female;Black", header="\ufefffile;age;gender;race")
    text = (tmp_path / "fairface_label_val.csv").read_text().replace(".jpg,", ".jpg;")
    (tmp_path / "fairface_label_val.csv").write_text(text)
    table = fairface.load(tmp_path)
    assert table["age_min"].tolist() == [3, 10]
    assert table["age_max"].tolist() == [9, 19]


def test_unknown_labels(tmp_path):
    write_part(tmp_path, "val", ",Male,White,", "0-2,,,")
    table = fairface.load(tmp_path)
    np.testing.assert_array_equal(table["age_min"], [np.nan, 0])
    np.testing.assert_array_equal(table["gender"], [1, np.nan])
    assert table["ethnicity"].tolist() == ["White", ""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4-7,Male,White,True", r"line 3: age must be an age group such as 3-9, got '4-7'"),
        ("3-9,1,White,True", r"line 3: gender must be Male, Female or empty \(unknown\), got '1'"),
    ],
)
def test_wrong_cells_name_their_line(tmp_path, row, message):
    write_part(tmp_path, "val", "3-9,Male,White,True", row)
    with pytest.raises(UserError, match=message):
        fairface.load(tmp_path)


def test_missing_files(tmp_path, caplog):
    with pytest.raises(UserError, match=r"fairface_label_train\.csv not found.*data\.image_dir"):
        fairface.load(tmp_path)
    write_part(tmp_path, "val", "3-9,Male,White,True", "0-2,Male,White,True")
    (tmp_path / "val" / "1.jpg").unlink()
    assert len(fairface.load(tmp_path)) == 1
    assert "1 of 2 images of FairFace" in caplog.messages[0]
    (tmp_path / "val" / "2.jpg").unlink()
    with pytest.raises(UserError, match=r"none of the 2 images.*val/1\.jpg"):
        fairface.load(tmp_path)
    (tmp_path / "fairface_label_val.csv").write_text("file,age\nval/1.jpg,0-2\n")
    with pytest.raises(UserError, match=r"must have the columns file,age,gender,race.*add \['gender', 'race'\]"):
        fairface.load(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path, capsys, monkeypatch):
    write_part(tmp_path, "train", "3-9,Male,White,True", "0-2,Male,White,True")
    monkeypatch.setattr("src.datasets.image_files.file_sha256", lambda path: None if "2.jpg" in path else "ab" * 32)
    assert len(fairface.load(tmp_path)) == 1
    assert f"skipped {tmp_path / 'train' / '2.jpg'}: the file cannot be read" in capsys.readouterr().err


def test_copies_count_once_and_not_where_they_are_tested(tmp_path):
    rows = ["3-9,Male,White,True", "0-2,Male,White,True", "20-29,Male,White,True", "0-2,Male,Black,True"]
    write_part(tmp_path, "train", *rows, *rows[:1])
    write_part(tmp_path, "val", rows[0], rows[0])
    (tmp_path / "val" / "2.jpg").write_bytes((tmp_path / "val" / "1.jpg").read_bytes())  # stays: the part is published
    (tmp_path / "train" / "1.jpg").write_bytes((tmp_path / "val" / "1.jpg").read_bytes())
    (tmp_path / "train" / "3.jpg").write_bytes((tmp_path / "train" / "2.jpg").read_bytes())  # another age group
    (tmp_path / "train" / "5.jpg").write_bytes((tmp_path / "train" / "4.jpg").read_bytes())  # another age group, too
    table = fairface.load(tmp_path)
    assert table["path"].tolist() == [str(tmp_path / "val" / "1.jpg"), str(tmp_path / "val" / "2.jpg")]
    (tmp_path / "train" / "3.jpg").write_bytes(b"another image")
    (tmp_path / "train" / "5.jpg").write_bytes(b"a third image")
    table = fairface.load(tmp_path)
    assert sorted(Path(path).name for path in table.loc[table["split"] != "test", "path"]) == [
        "2.jpg",
        "3.jpg",
        "4.jpg",
        "5.jpg",
    ]
