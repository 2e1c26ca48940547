import hashlib

import numpy as np
import pandas as pd
import pytest
from imdb_wiki_files import serial_day, write_imdb_wiki
from scipy.io import savemat

from src.cli import UserError
from src.datasets import table as datasets, utkface
from src.datasets.csv_table import write_csv
from src.datasets.splits import content_split
from src.datasets.table import load_table, require_crops
from src.images import write_image

HEADER = "genders,ages,img_paths"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of its own, in whose folder the user does not stand."""
    root = tmp_path / "project"
    (root / "meta").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(datasets, "ROOT", root)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return root


def write_images(folder, names):
    """Files of different content; nothing here decodes them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"image {name}".encode())


def write_text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def digit(name: str) -> int:
    return int(hashlib.sha256(f"image {name}".encode()).hexdigest()[:8], 16) % 10


def test_content_split_is_offered_here():
    assert content_split("0000000b" + "0" * 56) == "val"


@pytest.mark.parametrize("storage", ["python", "pyarrow"])
def test_users_csv(root, tmp_path, storage):
    """Where pyarrow is installed, pandas keeps texts in it."""
    if storage == "pyarrow":
        pytest.importorskip("pyarrow")
    with pd.option_context("mode.string_storage", storage):
        check_users_csv(tmp_path)


def check_users_csv(tmp_path):
    names = [f"{number}.jpg" for number in range(40)]
    write_images(tmp_path / "faces", names)
    write_text(tmp_path / "my.csv", HEADER, *(f"{n % 2},{n},{name}" for n, name in enumerate(names)))
    table = load_table("../my.csv", image_dir="../faces")
    assert list(table.columns) == ["path", "gender", "age", "margin", "split"]
    assert table["path"].tolist() == [str(tmp_path / "faces" / name) for name in names]
    assert table["age"].tolist() == list(range(40))
    assert table["gender"].tolist() == [0, 1] * 20
    assert table["split"].tolist() == ["val" if digit(name) == 1 else "train" for name in names]
    assert {"train", "val"} == set(table["split"])


def test_users_csv_finds_images_beside_itself_and_by_absolute_paths(root, tmp_path):
    write_images(tmp_path / "faces", ["a.jpg", "b.jpg"])
    write_text(tmp_path / "faces" / "my.csv", HEADER, "0,1,a.jpg", f"0,2,{tmp_path / 'faces' / 'b.jpg'}")
    table = load_table(tmp_path / "faces" / "my.csv")
    assert table["path"].tolist() == [str(tmp_path / "faces" / "a.jpg"), str(tmp_path / "faces" / "b.jpg")]


def test_users_split_and_margin_are_carried(root, tmp_path, caplog):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    write_text(tmp_path / "my.csv", HEADER + ",split,margin", "0,1,a.jpg,test,0.2", ",2,b.jpg,,", "1,,c.jpg,val,0")
    table = load_table(str(tmp_path / "my.csv"))
    assert table["split"].tolist() == ["test", "val" if digit("b.jpg") == 1 else "train", "val"]
    np.testing.assert_array_equal(table["margin"], [0.2, np.nan, 0])
    np.testing.assert_array_equal(table["gender"], [0, np.nan, 1])
    np.testing.assert_array_equal(table["age"], [1, 2, np.nan])
    assert not caplog.messages


def test_csv_without_margin_is_taken_for_crops_and_says_so(root, tmp_path, caplog):
    write_images(tmp_path, ["a.jpg"])
    write_text(tmp_path / "my.csv", HEADER, "0,1,a.jpg")
    table = load_table(tmp_path / "my.csv")
    assert table["margin"].tolist() == [0.4]
    require_crops(table)
    (warning,) = caplog.messages
    assert "no column `margin`" in warning
    assert "\n" not in warning


def test_missing_images_are_counted_named_and_skipped(root, tmp_path, caplog):
    write_images(tmp_path, ["a.jpg", "z.jpg"])
    rows = [f"0,{number},{number}.jpg,0.4" for number in range(8)]
    write_text(tmp_path / "my.csv", HEADER + ",margin", "1,30,a.jpg,0.4", *rows, "1,31,z.jpg,0.4")
    table = load_table(tmp_path / "my.csv")
    assert table["age"].tolist() == [30, 31]
    assert table.index.tolist() == [0, 1]
    (error,) = caplog.messages
    assert "8 of 10 images" in error
    assert str(tmp_path / "0.jpg") in error
    assert "and 3 more" in error


def test_no_image_at_all(root, tmp_path):
    write_text(tmp_path / "my.csv", HEADER, "1,30,a.jpg")
    with pytest.raises(
        UserError,
        match=r"none of the 1 images of .*my\.csv found.*/a\.jpg: give the folder .* as data\.image_dir",
    ):
        load_table(tmp_path / "my.csv")
    write_text(tmp_path / "my.csv", HEADER)
    with pytest.raises(UserError, match="the table has no rows"):
        load_table(tmp_path / "my.csv")


def test_utkface(root, tmp_path):
    with pytest.raises(
        UserError,
        match=r"utkface\.csv not found, and .*data/UTKFace to build it from neither: put UTKFace's images there",
    ):
        load_table("utkface")
    write_text(root / "meta" / "utkface.csv", HEADER + ",split", "0,25,a.jpg,test", "1,30,b.jpg,train")
    write_images(root / "data" / "UTKFace", ["a.jpg", "b.jpg"])
    write_images(tmp_path / "other", ["a.jpg", "b.jpg"])
    table = load_table("utkface")
    assert table["path"].tolist() == [str(root / "data" / "UTKFace" / name) for name in ("a.jpg", "b.jpg")]
    assert table["split"].tolist() == ["test", "train"]
    assert (table["margin"] == utkface.MARGIN).all()
    write_text(root / "meta" / "utkface.csv", HEADER + ",split,margin", "0,25,a.jpg,test,0.3")  # of an older version
    assert load_table("utkface")["margin"].tolist() == [utkface.MARGIN]
    assert load_table("utkface", image_dir=tmp_path / "other")["path"][0] == str(tmp_path / "other" / "a.jpg")


def write_imdb(root, persons=200):
    rows = [(n % 2, n % 100, f"01/nm{n % persons:07}_rm{n}_1950-1-1_1990.jpg") for n in range(2 * persons)]
    write_csv(pd.DataFrame(rows, columns=HEADER.split(",")), root / "meta" / "imdb.csv")
    (root / "data" / "imdb_crop").mkdir(parents=True)


def test_imdb_is_split_by_person(root):
    write_imdb(root)
    table = load_table("imdb")
    assert table["path"][3] == str(root / "data" / "imdb_crop" / "01/nm0000003_rm3_1950-1-1_1990.jpg")
    assert table["person"][203] == "nm0000003"
    assert (table["margin"] == 0.4).all()
    assert (table.groupby("person")["split"].nunique() == 1).all()
    assert 0.03 < (table["split"] == "val").mean() < 0.2
    pd.testing.assert_frame_equal(table, load_table("imdb"))


def test_imdb_split_at_random(root):
    write_imdb(root)
    table = load_table("imdb", split="random")
    assert table["split"].value_counts().to_dict() == {"train": 360, "val": 40}
    assert (table.groupby("person")["split"].nunique() == 2).any()
    pd.testing.assert_frame_equal(table, load_table("imdb", split="random"))


def test_wiki_is_split_by_its_own_numbers(root, tmp_path):
    write_text(root / "meta" / "wiki.csv", HEADER, "0,25,17/10000217_1981-05-05_2009.jpg", "0,28,17/10000217_a.jpg")
    table = load_table("wiki", image_dir=tmp_path)
    assert table["person"].tolist() == ["10000217", "10000217"]
    assert table["split"].nunique() == 1


def test_imdb_missing(root):
    with pytest.raises(
        UserError,
        match=r"wiki\.csv not found, and .*wiki_crop/wiki\.mat to build it from neither: run `\./download\.sh wiki`",
    ):
        load_table("wiki")
    write_text(root / "meta" / "wiki.csv", HEADER, "0,25,17/10000217_1981-05-05_2009.jpg")
    with pytest.raises(UserError, match=r"wiki_crop, the folder of wiki's images, not found.*`\./download\.sh wiki`"):
        load_table("wiki")


def test_missing_meta_tables_are_built_from_their_sources(root, capsys):
    rows = [
        {"dob": serial_day(1960, 1, 1), "photo_taken": 1990, "full_path": f"01/nm000000{n}_1.jpg"} for n in range(3)
    ]
    write_imdb_wiki(root / "data" / "imdb_crop" / "imdb.mat", "imdb", rows)
    assert load_table("imdb")["age"].tolist() == [30] * 3
    assert capsys.readouterr().err.splitlines() == [
        f"building {root / 'meta' / 'imdb.csv'} from {root / 'data' / 'imdb_crop' / 'imdb.mat'}"
    ]
    load_table("imdb")  # the table is there now
    assert capsys.readouterr().err == ""


def test_utkface_is_built_from_its_images(root, tmp_path, capsys):
    for number, name in enumerate(["25_1_3_20170109150557335.jpg.chip.jpg", "30_0_0_20170109150557336.jpg.chip.jpg"]):
        write_image(tmp_path / "a.jpg", np.full((20, 20, 3), 100 * number, np.uint8))
        (root / "data" / "UTKFace").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a.jpg").rename(root / "data" / "UTKFace" / name)
    table = load_table("utkface")
    assert table["age"].tolist() == [25, 30]
    assert table["gender"].tolist() == [0, 1]
    assert table["ethnicity"].tolist() == ["Indian", "White"]
    built = f"building {root / 'meta' / 'utkface.csv'} from {root / 'data' / 'UTKFace'}"
    assert capsys.readouterr().err.splitlines()[0] == built
    assert (root / "meta" / "utkface.csv").is_file()


def test_paths_written_on_another_system(root, tmp_path):
    names = ["sub/a.jpg", "sub/deep/ü.jpg", "sub/cafe\N{COMBINING ACUTE ACCENT}.jpg"]
    write_images(tmp_path, names)
    lines = [HEADER + ",margin", "0,1,sub\\a.jpg,0.4", "0,2,sub\\deep\\ü.jpg,0.4", "0,3,sub\\café.jpg,0.4"]
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "my.csv").write_bytes(("\n".join(lines) + "\n").encode(encoding))
        assert load_table(tmp_path / "my.csv")["path"].tolist() == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("name", ["my.tsv", "my.txt", "MY.CSV"])
def test_tables_of_other_endings(root, tmp_path, name):
    write_images(tmp_path, ["a.jpg"])
    write_text(tmp_path / name, "genders\tages\timg_paths\tmargin", "0\t1\ta.jpg\t0,4")
    assert load_table(tmp_path / name)["margin"].tolist() == [0.4]


def test_workbooks_are_named(root, tmp_path):
    (tmp_path / "my.xlsx").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserError, match=r"my\.xlsx must be a CSV, got a spreadsheet workbook .* export it as CSV"):
        load_table(tmp_path / "my.xlsx")


def test_a_backslash_in_a_file_name_stays(root, tmp_path):
    write_images(tmp_path, ["sub\\a.jpg", "sub/a.jpg"])
    write_text(tmp_path / "my.csv", HEADER + ",margin", "0,1,sub\\a.jpg,0.4")
    assert load_table(tmp_path / "my.csv")["path"].tolist() == [str(tmp_path / "sub\\a.jpg")]


def test_windows_paths_that_lead_nowhere_are_named(root, tmp_path):
    write_text(tmp_path / "my.csv", HEADER + ",margin", "0,1,C:\\faces\\a.jpg,0.4")
    with pytest.raises(UserError, match=r"none of the 1 images of .*C:\\faces\\a\.jpg \(a path from Windows\)"):
        load_table(tmp_path / "my.csv")


def test_ranges_of_ages_and_ages_in_several_tables(root, tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write_text(
        tmp_path / "a.csv", "genders,age_min,age_max,img_paths,margin,split,ethnicity", "0,3,9,a.jpg,0.1,train,x"
    )
    write_text(tmp_path / "b.csv", HEADER + ",margin,split", "1,30,b.jpg,0.1,train")
    table = load_table([tmp_path / "a.csv", tmp_path / "b.csv"])
    np.testing.assert_array_equal(table["age"], [np.nan, 30])
    np.testing.assert_array_equal(table["age_min"], [3, np.nan])
    np.testing.assert_array_equal(table["age_max"], [9, np.nan])
    assert table["ethnicity"].tolist() == ["x", ""]


def write_appa_real(folder):
    text = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age"
    write_text(folder / "gt_avg_train.csv", text, "000000.jpg,38,5.5,2.0,4", "000001.jpg,38,20,3,21")
    write_text(folder / "gt_avg_valid.csv", text, "004113.jpg,40,31.2,3.8,35")


def test_appa_real(root, tmp_path):
    with pytest.raises(UserError, match=r"`\./download\.sh appa-real`"):
        load_table("appa_real")
    write_appa_real(root / "appa-real" / "appa-real-release")
    write_text(root / "appa-real" / "ignore_list.txt", "000001.jpg")
    table = load_table("appa_real")
    assert table["age"].tolist() == [4, 35]
    assert load_table("appa_real", target="apparent")["age"].tolist() == [5.5, 31.2]
    write_appa_real(tmp_path / "release")
    elsewhere = load_table("appa_real", image_dir="../release")
    assert elsewhere["path"][0] == str(tmp_path / "release" / "train" / "000000.jpg_face.jpg")


def test_all_age_faces(root):
    names = ["00000A02.jpg", "00001A31.jpg"]
    write_images(root / "data" / "All-Age-Faces" / "original images", names)
    write_text(root / "data" / "All-Age-Faces" / "image sets" / "train.txt", "00000A02.jpg 0")
    write_text(root / "data" / "All-Age-Faces" / "image sets" / "val.txt", "00001A31.jpg 1")
    table = load_table("aaf")
    assert table["age"].tolist() == [2]
    assert load_table("aaf_val")["age"].tolist() == [31]
    with pytest.raises(UserError, match=r"1 whole photos.*00000A02\.jpg.*`python crop_faces\.py"):
        require_crops(table)


def test_several_tables_with_and_without_their_own_folder(root, tmp_path):
    write_images(tmp_path / "faces", ["a.jpg", "b.jpg"])
    write_text(tmp_path / "a.csv", HEADER + ",margin,split", "0,1,a.jpg,0.1,train")
    write_text(tmp_path / "b.csv", HEADER + ",margin,split", ",2,b.jpg,0.2,val")
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    savemat(tmp_path / "c.mat", {"image": images, "gender": [0, 1], "age": [8, 9], "db": "utk", "colour": "RGB"})
    write_appa_real(tmp_path / "release")
    dbs = [tmp_path / "a.csv", str(tmp_path / "b.csv"), str(tmp_path / "c.mat"), "appa_real"]
    folders = [tmp_path / "faces", str(tmp_path / "faces"), None, tmp_path / "release"]
    table = load_table(dbs, image_dir=folders, target="apparent")
    assert table.index.tolist() == list(range(7))
    np.testing.assert_array_equal(table["age"], [1, 2, 8, 9, 5.5, 20, 31.2])
    np.testing.assert_array_equal(table["gender"], [0, np.nan, 1, 0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(table["age_std"], [np.nan] * 4 + [2, 3, 3.8])
    assert [image is None for image in table["image"]] == [True, True, False, False, True, True, True]
    np.testing.assert_array_equal(table["image"][3], images[1])
    both = load_table(dbs[:2], image_dir="../faces")
    assert both["split"].tolist() == ["train", "val"]


def test_table_named_twice_is_trained_on_twice_and_judged_once(root, tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    rows = ["0,1,a.jpg,0.1,train", "0,2,b.jpg,0.1,val", "0,3,c.jpg,0.1,test"]
    write_text(tmp_path / "a.csv", HEADER + ",margin,split", *rows)
    write_text(tmp_path / "b.csv", HEADER + ",margin,split", "1,4,a.jpg,0.1,train")
    table = load_table([tmp_path / "a.csv", tmp_path / "b.csv", str(tmp_path / "a.csv")])
    assert table["age"].tolist() == [1, 2, 3, 4, 1]
    assert table.index.tolist() == [0, 1, 2, 3, 4]


def test_images_in_several_rows_are_counted_and_named(root, tmp_path, caplog):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/e.jpg"])
    rows = ["0,1,a.jpg,train", "0,,./a.jpg,train", "1,2,b.jpg,train", "1,2,sub/../b.jpg,train", "0,9,d.jpg,val"]
    write_text(tmp_path / "a.csv", HEADER + ",split,margin", *(f"{row},0.1" for row in rows))
    write_text(tmp_path / "b.csv", HEADER + ",split,margin", "0,5,c.jpg,train,0.1", ",5,d.jpg,train,0.1")
    table = load_table([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "b.csv"])
    assert len(table) == 9  # all rows are used
    assert caplog.messages == [
        f"2 image(s) have several rows with different labels, such as {tmp_path / 'a.jpg'}: all are used",
        f"1 image(s) have several rows with equal labels, such as {tmp_path / 'b.jpg'}: each row counts",
        f"1 image(s) are in more than one split, such as {tmp_path / 'd.jpg'}: metrics on training images are too good",
    ]
    caplog.clear()
    boxes = ["0,1,a.jpg,0.1,0,0,9,9", "1,2,a.jpg,0.1,9,0,18,9"]  # two faces
    write_text(tmp_path / "c.csv", HEADER + ",margin,left,top,right,bottom", *boxes)
    load_table([tmp_path / "c.csv"])
    load_table([tmp_path / "b.csv", tmp_path / "b.csv"])  # as often as it is named: that is asked for
    assert caplog.messages == []


def test_folders_for_another_number_of_tables(root, tmp_path):
    with pytest.raises(UserError, match="one for each"):
        load_table(["imdb", "wiki"], image_dir=[tmp_path])
    with pytest.raises(UserError, match="data.db must name tables"):
        load_table([])


@pytest.mark.parametrize(
    ("db", "hint"), [("imbd", "did you mean imdb"), ("UTKFace", "did you mean utkface"), ("x", "")]
)
def test_unknown_names_list_the_known_ones(root, db, hint):
    with pytest.raises(UserError, match=f"imdb, wiki, utkface, aaf, aaf_val, appa_real.*got '{db}'.*{hint}"):
        load_table(db)


def test_unknown_choices(root):
    with pytest.raises(UserError, match=r"data\.target must be real or apparent, got 'both'"):
        load_table("appa_real", target="both")
    with pytest.raises(UserError, match=r"data\.split must be person or random, got 'content'"):
        load_table("imdb", split="content")


def test_require_crops_takes_any_margin():
    require_crops(pd.DataFrame({"path": ["a", "b"], "margin": [0.0, 0.4]}))


@pytest.mark.slow
def test_imdb_at_its_real_size_stays_small(root):
    numbers = np.arange(460_723)
    table = pd.DataFrame({"genders": numbers % 2, "ages": numbers % 101})
    table["img_paths"] = [f"{n % 100:02}/nm{n % 20_284:07}_rm{n}_1950-1-1_2000.jpg" for n in numbers]
    write_csv(table, root / "meta" / "imdb.csv")
    (root / "data" / "imdb_crop").mkdir(parents=True)
    loaded = load_table("imdb")
    assert len(loaded) == 460_723
    assert loaded.memory_usage(deep=True).sum() < 250e6
    assert (loaded.groupby("person")["split"].nunique() == 1).all()
