import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from src.cli import JobError, UserError
from src.datasets import utkface
from src.datasets.splits import content_split
from src.datasets.table import load_table
from src.images.io import read_image, resize, write_image


def make_image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def write(folder, name, number):
    """Writes an image; the same number gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / "new.jpg", make_image(number))
    (folder / "new.jpg").rename(folder / name)


USED = {  # name: age and gender in our order
    "100_0_0_20170112213500903.jpg.chip.jpg": (100, 1),
    "116_1_2_20170112220255239.jpg.chip.jpg": (100, 0),
    "1_1_4_20161219154612988.jpg.chip.jpg": (1, 0),
    "24_0_1_20170116220224657 .jpg.chip.jpg": (24, 1),
    "39_1_20170116174525125.jpg.chip.jpg": (39, 0),
    "55_0_0_20170116232725357jpg.chip.jpg": (55, 1),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "UTKFace"
    for number, name in enumerate(USED):
        write(folder, name, number)
    write(folder, "someone.jpg", 20)
    write(folder, "30_2_0_20170112.jpg", 21)
    write(folder, "40_0_0_1.jpg.chip.jpg", 30)
    write(folder, "40_0_1_2.jpg.chip.jpg", 30)  # a copy; that the third field differs is no contradiction
    write(folder, "50_0_0_1.jpg.chip.jpg", 31)
    write(folder, "50_1_0_2.jpg.chip.jpg", 31)
    write(folder, "60_0_0_1.jpg.chip.jpg", 32)
    (folder / "60_0_0_1.jpg.chip.jpg").write_bytes((folder / "60_0_0_1.jpg.chip.jpg").read_bytes()[:-300])
    (folder / "61_0_0_1.jpg.chip.jpg").write_bytes(b"")
    (folder / "62_0_0_1.jpg.chip.jpg").write_bytes(b"")
    (folder / "63_1_0_1.jpg.chip.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden_1_0_1.jpg").write_text("no image")
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("100_0_0_20170112213500903.jpg.chip.jpg", (100, 1)),
        ("61_1_20170109142408075.jpg.chip.jpg", (61, 0)),
        ("110_1_0_1.jpg", (100, 0)),
        ("7_1.jpg", (7, 0)),
        ("25_1", None),  # no ending
        ("25_3_0_1.jpg", None),
        ("25_10_0_1.jpg", None),
        ("25__0_1.jpg", None),
        ("_1_0_1.jpg", None),
        ("a25_1_0_1.jpg", None),
        ("1985_1_0_1.jpg", None),
        ("٣_1_0_1.jpg", None),
        ("", None),
    ],
)
def test_parse_name(name, expected):
    assert utkface.parse_name(name) == expected


def test_each_file_falls_to_one_rule(folder):
    frame = utkface.scan(folder)
    utkface.check_images(frame, folder)
    rules = frame.groupby("rule")["img_paths"].apply(list).to_dict()
    assert rules == {
        "": sorted([*USED, "40_0_0_1.jpg.chip.jpg"]),
        "copy": ["40_0_1_2.jpg.chip.jpg"],
        "contradicting": ["50_0_0_1.jpg.chip.jpg", "50_1_0_2.jpg.chip.jpg"],
        "ending": ["notes.txt"],
        "name": ["30_2_0_20170112.jpg", "someone.jpg"],
        "unreadable": [f"6{number}_{gender}_0_1.jpg.chip.jpg" for number, gender in enumerate([0, 0, 0, 1])],
    }


def test_csv(folder, tmp_path):
    lines = utkface.create_db(folder, tmp_path / "new" / "my.csv")
    header, *rows = (tmp_path / "new" / "my.csv").read_text().splitlines()
    assert header == "genders,ages,img_paths,split,margin"
    assert len(rows) == 7
    for name, (age, gender) in USED.items():
        split = content_split(hashlib.sha256((folder / name).read_bytes()).hexdigest())
        assert f"{gender},{age},{name},{split},{utkface.MARGIN}" in rows
    assert "not used, unreadable: 61_0_0_1.jpg.chip.jpg" in lines
    assert "not used, no age and gender in the name: someone.jpg" in lines
    counts = [line.split()[0] for line in lines if not line.startswith("not used")][:-1]
    assert counts == ["17", "-1", "-2", "-4", "-2", "-1", "7"]
    assert lines[-1].endswith(f"data.image_dir={folder}")
    assert lines[-1].startswith("train on it: python train.py data.db=")


def test_csv_is_loaded_again(folder, tmp_path):
    utkface.create_db(folder, tmp_path / "my.csv")
    table = load_table(tmp_path / "my.csv", image_dir=folder)
    by_name = {path.replace("\\", "/").rsplit("/", 1)[1]: row for row, path in enumerate(table["path"])}
    for name, labels in USED.items():
        assert (table["age"][by_name[name]], table["gender"][by_name[name]]) == labels
    assert (table["margin"] == utkface.MARGIN).all()


def test_mat_holds_the_same_table_and_the_images(folder, tmp_path):
    utkface.create_db(folder, tmp_path / "my.csv")
    utkface.create_db(folder, tmp_path / "my.mat", img_size=16)
    from_csv, from_mat = load_table(tmp_path / "my.csv", image_dir=folder), load_table(tmp_path / "my.mat")
    for column in ("age", "gender", "margin", "split"):
        assert from_mat[column].tolist() == from_csv[column].tolist()
    for path, image in zip(from_csv["path"], from_mat["image"], strict=True):
        np.testing.assert_array_equal(image, resize(read_image(path), 16))
    assert from_mat["path"][3] == f"{tmp_path / 'my.mat'}[3]"


def test_too_large_a_mat_is_refused_before_images_are_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(utkface, "check_images", lambda *_: pytest.fail("decoded"))
    # 9 different files have labels that no copy contradicts: the 7 that are used and two that are damaged.
    with pytest.raises(UserError, match=r"9 images of 20000 x 20000 pixels .*: use --img_size \d+ at most"):
        utkface.create_db(folder, tmp_path / "my.mat", img_size=20_000)
    assert not (tmp_path / "my.mat").exists()


def test_images_in_folders_below(tmp_path):
    write(tmp_path / "part1", "5_0_0_1.jpg", 1)
    write(tmp_path / "part2", "6_0_0_1.jpg", 2)
    utkface.create_db(tmp_path, tmp_path / "my.csv")
    rows = (tmp_path / "my.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [["1", "5", "part1/5_0_0_1.jpg"], ["1", "6", "part2/6_0_0_1.jpg"]]


def test_linked_folders_are_searched_once(tmp_path):
    for path in ("utk/part1/5_0_0_1.jpg", "elsewhere/6_0_0_1.jpg", "utk/.hidden/7_0_0_1.jpg"):
        write(tmp_path / Path(path).parent, Path(path).name, len(path))
    (tmp_path / "utk" / "part2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "utk")
    (tmp_path / "utk" / "a").symlink_to("part1")  # the folder keeps its name
    files = [path.relative_to(tmp_path / "utk").as_posix() for path in utkface.list_files(tmp_path / "utk")]
    assert files == ["part1/5_0_0_1.jpg", "part2/6_0_0_1.jpg"]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="got no folder"):
        utkface.create_db(tmp_path / "missing", tmp_path / "my.csv")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="no images of UTKFace"):
        utkface.create_db(tmp_path, tmp_path / "my.csv")
    with pytest.raises(UserError, match=r"\.csv or \.mat"):
        utkface.create_db(tmp_path, tmp_path / "my.txt")
    (tmp_path / "20_1_0_1.jpg").write_text("no image")
    for name in ("my.csv", "my.mat"):
        with pytest.raises(JobError, match=r"none of the \d files .* can be used: .*1 unreadable"):
            utkface.create_db(tmp_path, tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(UserError, match=r"--img_size requires an --output that ends in \.mat, got .*my\.csv"):
        utkface.create_db(tmp_path, tmp_path / "my.csv", img_size=64)
    with pytest.raises(UserError, match="--img_size must be >= 1, got 0"):
        utkface.create_db(tmp_path, tmp_path / "my.mat", img_size=0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such file names")
def test_names_that_are_no_utf8(tmp_path):
    write(tmp_path / "odd", "20_1_0_1.jpg", 1)
    os.rename(tmp_path / "odd" / "20_1_0_1.jpg", os.fsencode(tmp_path / "odd") + b"/20_1_0_\xff\n.jpg")
    (tmp_path / "odd" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    lines = utkface.create_db(tmp_path / "odd", tmp_path / "my.csv")
    assert lines[0].encode("ascii")
    table = load_table(tmp_path / "my.csv", image_dir=tmp_path / "odd")
    np.testing.assert_array_equal(read_image(table["path"][0]).shape, (40, 30, 3))
