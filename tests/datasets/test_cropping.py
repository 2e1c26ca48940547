"""Faces out of whole photos: hand-made photos in, crops and tables out."""

import errno
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from src.cli import ROOT, JobError, UserError
from src.datasets import cropping
from src.datasets.cropping import CropSettings, choose_faces, crop_folder, cut_face
from src.datasets.csv_table import read_csv
from src.datasets.table import load_table
from src.images.detector import Face, FaceDetector
from src.images.io import read_image, write_image

SAMPLES = ROOT / "samples"


@pytest.fixture(scope="module")
def portraits():
    """Two portraits of 216 x 216 pixels, the face in the middle."""
    astronaut = read_image(SAMPLES / "astronaut.png")[12:228, 116:332]
    grace_hopper = read_image(SAMPLES / "grace_hopper.jpg")
    (face,) = FaceDetector().detect(grace_hopper)
    crop, _ = cut_face(grace_hopper, face.box, 0.4, 216)
    return astronaut, crop


@pytest.fixture(scope="module")
def photos(portraits, tmp_path_factory):
    """A folder of `one.jpg`, `two.png` (the astronaut in the centre) and `none.jpg`, each 720 x 480 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    one, two, none = (np.full((480, 720, 3), 128, np.uint8) for _ in range(3))
    astronaut, grace_hopper = portraits
    paste(one, astronaut, 60, 100)
    paste(two, astronaut, 250, 130)
    paste(two, grace_hopper, 500, 20)
    none[100:200, 100:300] = 40
    for name, image in (("one.jpg", one), ("two.png", two), ("none.jpg", none)):
        write_image(folder / name, image)
    return folder


def paste(image, patch, left, top):
    image[top : top + patch.shape[0], left : left + patch.shape[1]] = patch


@pytest.fixture
def stub_detector(monkeypatch):
    """Finds one face in the middle half of every image, without looking."""

    def detect(self, image):
        height, width = image.shape[:2]
        return [Face((width // 4, height // 4, 3 * width // 4, 3 * height // 4), 1.0)]

    monkeypatch.setattr(FaceDetector, "detect", detect)


def make_images(folder, *names, shade=100):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.full((40, 80, 3), shade + number, np.uint8))


def write_labels(path, *lines):
    path.write_text("\n".join(["genders,ages,img_paths", *lines]) + "\n", encoding="utf-8")
    return str(path)


def cells(folder, name="faces.csv"):
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False)


def test_every_face_becomes_a_crop_with_empty_cells(photos, tmp_path):
    lines = crop_folder(photos, tmp_path / "faces")
    faces = cells(tmp_path / "faces")
    assert list(faces["img_paths"]) == ["one_0.jpg", "two_0.jpg", "two_1.jpg"]
    assert list(faces["genders"]) == list(faces["ages"]) == [""] * 3
    assert list(faces["margin"]) == ["0.4"] * 3
    assert faces["split"][1] == faces["split"][2]
    assert cells(tmp_path / "faces", "not_used.csv").to_numpy().tolist() == [["none.jpg", "no face", "0"]]
    assert lines == [
        f"3 faces out of 3 photos: {tmp_path / 'faces' / 'faces.csv'}",
        f"1 photos not used (1 no face): {tmp_path / 'faces' / 'not_used.csv'}",
    ]


def test_crops_show_the_face_that_the_detector_found(photos, tmp_path):
    image = read_image(photos / "one.jpg")
    face, *others = FaceDetector().detect(image)
    left, top, right, bottom = face.box
    assert not others
    assert 60 < left < right < 276  # inside the portrait that was pasted
    assert 100 < top < bottom < 316
    crop_folder(photos, tmp_path / "faces", settings=CropSettings(margin=0.25))
    row = cells(tmp_path / "faces").iloc[0]
    width, height = right - left, bottom - top
    dx, dy = round(0.25 * width), round(0.25 * height)
    inner = [int(row[edge]) for edge in ("left", "top", "right", "bottom")]
    assert inner == pytest.approx([dx, dy, dx + width, dy + height], abs=1)
    crop = read_image(tmp_path / "faces" / "one_0.jpg").astype(int)
    original = image[top - inner[1] :, left - inner[0] :][: crop.shape[0], : crop.shape[1]]
    assert np.abs(crop - original).mean() < 4  # JPEG


def test_labels_are_carried_over_and_several_faces_or_none_are_reported(photos, tmp_path):
    labels = write_labels(tmp_path / "labels.csv", "1,,two.png", "0,47.5,one.jpg", "0,3,none.jpg", "1,8,missing.jpg")
    lines = crop_folder(photos, tmp_path / "faces", labels)
    faces = cells(tmp_path / "faces")
    assert faces[["genders", "ages", "img_paths"]].to_numpy().tolist() == [["0", "47.5", "one_0.jpg"]]
    assert cells(tmp_path / "faces", "not_used.csv").to_numpy().tolist() == [
        ["missing.jpg", "unreadable: No such file or directory", ""],
        ["none.jpg", "no face", "0"],
        ["two.png", "several faces", "2"],
    ]
    assert lines[0].startswith("1 faces out of 4 photos")
    assert sorted(path.name for path in (tmp_path / "faces").glob("*.jpg")) == ["one_0.jpg"]


def test_main_face_takes_the_central_one(photos, tmp_path):
    labels = write_labels(tmp_path / "labels.csv", "1,30,two.png")
    crop_folder(photos, tmp_path / "faces", labels, CropSettings(main_face=True))
    (row,) = cells(tmp_path / "faces").to_dict("records")
    assert (row["genders"], row["ages"], row["img_paths"]) == ("1", "30", "two_0.jpg")
    crop = read_image(tmp_path / "faces" / "two_0.jpg")
    pasted = read_image(photos / "two.png")[130:346, 250:466]
    colours = np.abs(np.median(crop, axis=(0, 1)) - np.median(pasted, axis=(0, 1)))
    assert colours.max() < 40  # the astronaut's, in colour; the other portrait is pale


def test_min_size_leaves_small_faces_out(photos, tmp_path):
    widths = [face.box[2] - face.box[0] for face in FaceDetector().detect(read_image(photos / "two.png"))]
    assert len(widths) == 2
    crop_folder(photos, tmp_path / "faces", settings=CropSettings(min_size=max(widths) + 1))
    assert cells(tmp_path / "faces").empty
    assert list(cells(tmp_path / "faces", "not_used.csv")["reason"]) == ["no face"] * 3


def test_the_table_is_one_that_training_reads(photos, tmp_path):
    labels = write_labels(tmp_path / "labels.csv", "1,30,one.jpg", ",64,two.png")
    crop_folder(photos, tmp_path / "faces", labels, CropSettings(margin=0.3, main_face=True))
    table = load_table(str(tmp_path / "faces" / "faces.csv"))
    assert list(table["path"]) == [str(tmp_path / "faces" / name) for name in ("one_0.jpg", "two_0.jpg")]
    np.testing.assert_array_equal(table["gender"], [1, np.nan])
    np.testing.assert_array_equal(table["age"], [30, 64])
    np.testing.assert_array_equal(table["margin"], [0.3, 0.3])


def test_choose_faces():
    large, small = (0, 0, 60, 60), (70, 70, 90, 90)
    size = (100, 100)
    assert choose_faces([], size, main_face=False, one=False) == ([], "no face")
    assert choose_faces([large], size, main_face=True, one=True) == ([large], "")
    assert choose_faces([large, small], size, main_face=False, one=False) == ([large, small], "")
    assert choose_faces([large, small], size, main_face=False, one=True) == ([], "several faces")
    assert choose_faces([large, small], size, main_face=True, one=True) == ([large], "")  # 0.33 against 1.5 faces off
    assert choose_faces([small, (0, 0, 19, 19)], size, main_face=True, one=False) == (
        [],
        "several faces, none clearly the main one",
    )


def test_cut_face_tells_where_the_face_is_in_a_clamped_crop():
    image = np.zeros((100, 200, 3), np.uint8)
    crop, box = cut_face(image, (10, 20, 60, 70), 0.4, 512)  # grown by 20: -10..80, 0..90
    assert crop.shape == (90, 80, 3)
    assert box == (10, 20, 60, 70)
    crop, box = cut_face(image, (100, 30, 140, 70), 0.5, 512)  # grown by 20: 80..160, 10..90
    assert crop.shape == (80, 80, 3)
    assert box == (20, 20, 60, 60)


def test_cut_face_shrinks_to_the_longest_side():
    image = np.zeros((100, 200, 3), np.uint8)
    crop, box = cut_face(image, (10, 20, 60, 70), 0.4, 45)  # of 80 x 90 pixels
    assert crop.shape == (45, 40, 3)
    assert box == (5, 10, 30, 35)


def test_order_subfolders_and_names_of_any_script(tmp_path, stub_detector):
    names = ["b/日本語.jpg", "a.jpg", "ä ö/it's.PNG", "Ω.webp"]
    make_images(tmp_path / "in", *names)
    labels = write_labels(
        tmp_path / "labels.csv", *(f"{number % 2},{number},{name}" for number, name in enumerate(names))
    )
    crop_folder(tmp_path / "in", tmp_path / "out", labels)
    faces = cells(tmp_path / "out")
    assert list(faces["img_paths"]) == ["b/日本語_0.jpg", "a_0.jpg", "ä ö/it's_0.jpg", "Ω_0.jpg"]
    assert list(faces["ages"]) == ["0", "1", "2", "3"]
    assert len(load_table(str(tmp_path / "out" / "faces.csv"))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such names")
def test_names_that_are_no_utf8(tmp_path, stub_detector):
    name = "jos\udce9.jpg"
    make_images(tmp_path / "in", name)
    (tmp_path / "in" / "bad\udce9.jpg").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_bytes(b"genders,ages,img_paths\n1,20,jos\xe9.jpg\n")
    for labels in (None, str(tmp_path / "labels.csv")):
        crop_folder(tmp_path / "in", tmp_path / "out", labels)
    assert b"1,20,jos\xe9_0.jpg," in (tmp_path / "out" / "faces.csv").read_bytes()
    assert len(load_table(str(tmp_path / "out" / "faces.csv"))) == 1


def test_equal_stems_do_not_collide(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "a.png", "a.png.jpg", "x/a.jpg")
    make_images(tmp_path / "in", "A.bmp", shade=200)
    crop_folder(tmp_path / "in", tmp_path / "out")
    crops = list(cells(tmp_path / "out")["img_paths"])
    assert crops == ["A_0.jpg", "a.jpg_0.jpg", "a.png_0.jpg", "a.png.jpg_0.jpg", "x/a_0.jpg"]
    assert len({crop.casefold() for crop in crops}) == 5
    assert abs(read_image(tmp_path / "out" / "A_0.jpg").mean() - 200) < 2


def test_a_second_run_does_nothing_again(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    first = crop_folder(tmp_path / "in", tmp_path / "out")
    table = (tmp_path / "out" / "faces.csv").read_bytes()
    read = []
    monkeypatch.setattr(cropping, "read_image", lambda path: read.append(path.name) or read_image(path))
    assert crop_folder(tmp_path / "in", tmp_path / "out") == first
    assert read == []
    (tmp_path / "out" / "b_0.jpg").unlink()
    make_images(tmp_path / "in", "c.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    assert read == ["b.jpg", "c.jpg"] or read == ["c.jpg", "b.jpg"]
    assert (tmp_path / "out" / "faces.csv").read_bytes().startswith(table)


def test_labels_that_were_filled_in_stay(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    faces = cells(tmp_path / "out")
    faces["genders"], faces["ages"], faces["split"] = ["0", "1", ""], ["20", "", "30"], ["val", "test", "train"]
    faces.to_csv(tmp_path / "out" / "faces.csv", index=False)
    make_images(tmp_path / "in", "d.jpg")
    os.utime(tmp_path / "in" / "b.jpg", ns=(1, 1))  # touched, but not changed
    crop_folder(tmp_path / "in", tmp_path / "out")
    again = cells(tmp_path / "out")
    columns = ["genders", "ages", "split"]
    assert again.loc[:2, columns].equals(faces[columns])
    assert list(again.loc[3, ["genders", "ages"]]) == ["", ""]


def test_labels_that_were_filled_in_with_a_spreadsheet_stay(tmp_path, stub_detector):
    make_images(tmp_path / "in", "josé/ünï.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out" / "faces.csv"
    filled_in = table.read_text(encoding="utf-8").replace("\n,,", "\n1,20,").replace(",", ";")
    table.write_text(filled_in, encoding="cp1252", newline="\r\n")
    crop_folder(tmp_path / "in", tmp_path / "out")
    assert cells(tmp_path / "out")[["genders", "ages", "img_paths"]].values.tolist() == [["1", "20", "josé/ünï_0.jpg"]]


def crop_while(edit, folder, monkeypatch):
    """Crop `folder / "in"` into `folder / "out"` a second time; `edit` is called at the next photo."""

    def crop(image, *arguments):
        edit()
        return cut_face(image, *arguments)

    make_images(folder / "in", "new.jpg")
    monkeypatch.setattr(cropping, "cut_face", crop)
    return crop_folder(folder / "in", folder / "out")


def test_labels_that_are_filled_in_meanwhile_stay(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out" / "faces.csv"
    cells(tmp_path / "out").assign(ages=["20", ""]).to_csv(table, index=False)
    edited = cells(tmp_path / "out").assign(genders=["1", "0"], ages=["21", "30"], Notes=["", "blurred"])
    crop_while(lambda: edited.to_csv(table, index=False), tmp_path, monkeypatch)
    columns = ["genders", "ages", "img_paths", "Notes"]
    assert cells(tmp_path / "out")[columns].to_numpy().tolist() == [
        ["1", "21", "a_0.jpg", ""],
        ["0", "30", "b_0.jpg", "blurred"],
        ["", "", "new_0.jpg", ""],
    ]
    assert not (tmp_path / "out" / "faces_before_1.csv").exists()


def test_a_table_that_becomes_unreadable_meanwhile_is_copied(tmp_path, stub_detector, monkeypatch, caplog):
    make_images(tmp_path / "in", "a.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table, copy = tmp_path / "out" / "faces.csv", tmp_path / "out" / "faces_before_1.csv"
    cells(tmp_path / "out").assign(ages=["20"]).to_csv(table, index=False)
    half = table.read_text().replace("20", "21,girl")
    crop_while(lambda: table.write_text(half), tmp_path, monkeypatch)
    assert cells(tmp_path / "out")["ages"].tolist() == ["20", ""]
    assert copy.read_text() == half
    (message,) = caplog.messages
    assert message.startswith(f"{table} must have ")
    assert message.endswith(f"; {copy} is a copy, and the cells read at the start are kept")


def test_labels_stay_where_the_table_is_half_saved(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out" / "faces.csv"
    edited = cells(tmp_path / "out").assign(ages=["20", "30"], Notes=["x", "y"])
    edited.to_csv(table, index=False)
    crop_while(lambda: edited[:1].to_csv(table, index=False), tmp_path, monkeypatch)
    assert cells(tmp_path / "out")[["ages", "Notes"]].to_numpy().tolist() == [["20", "x"], ["30", "y"], ["", ""]]


def test_labels_stay_where_the_table_goes_meanwhile(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out" / "faces.csv"
    cells(tmp_path / "out").assign(ages=["20"]).to_csv(table, index=False)
    crop_while(lambda: table.unlink(missing_ok=True), tmp_path, monkeypatch)
    assert cells(tmp_path / "out")["ages"].tolist() == ["20", ""]


def test_labels_of_photos_that_are_gone_are_kept_aside(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out" / "faces.csv"
    lines = table.read_text().splitlines()
    labelled = "\n".join([*lines[:2], *(line.replace(",,", "1,20,", 1) for line in lines[2:])]) + "\n"
    table.write_text(labelled)  # all but a
    (tmp_path / "in" / "a.jpg").unlink()
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    assert lines == [f"3 faces out of 3 photos: {table}"]  # nothing was typed for a
    whole = table.read_text()
    (tmp_path / "in" / "b.jpg").unlink()
    (tmp_path / "in" / "c.jpg").write_bytes(b"damaged")
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    before = tmp_path / "out" / "faces_before_1.csv"
    assert lines[-1] == f"cells filled in for 2 crop(s) that are gone or changed: {before}"
    assert before.read_text() == whole
    assert list(cells(tmp_path / "out")["img_paths"]) == ["d_0.jpg"]


def test_an_ethnicity_alone_is_kept_aside_too(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    cells(tmp_path / "out").assign(ethnicity=["", "Black"]).to_csv(tmp_path / "out" / "faces.csv", index=False)
    (tmp_path / "in" / "b.jpg").unlink()
    assert "cells filled in for 1 crop(s)" in crop_folder(tmp_path / "in", tmp_path / "out")[-1]


def test_columns_that_a_user_added_stay(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    faces = cells(tmp_path / "out")
    faces.insert(0, "Notes", ["blurred, dark", "", "写真"])
    faces["age"] = ["about 30", "", ""]  # not `ages`
    faces.to_csv(tmp_path / "out" / "faces.csv", index=False)
    (tmp_path / "in" / "b.jpg").unlink()
    make_images(tmp_path / "in", "d.jpg")
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    again = cells(tmp_path / "out")
    assert list(again) == [*(name for name in faces if name not in ("Notes", "age")), "Notes", "age"]
    assert list(again["Notes"]) == ["blurred, dark", "写真", ""]
    assert list(again["age"]) == ["about 30", "", ""]
    assert len(lines) == 1  # nothing was noted for b
    (tmp_path / "in" / "c.jpg").unlink()
    before = tmp_path / "out" / "faces_before_1.csv"
    assert str(before) in crop_folder(tmp_path / "in", tmp_path / "out")[-1]
    assert cells(tmp_path / "out", before.name).equals(again)


def test_other_columns_of_the_labels_are_carried_over(tmp_path, stub_detector, caplog):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    labels, out = tmp_path / "labels.csv", tmp_path / "out"
    rows = ['"Doe, Jane",1,30,a.jpg,Black,x y,ü', ",0,40,b.jpg,,,", "p2,,50,c.jpg,White,,"]
    labels.write_text("\n".join(["Person,genders,ages,img_paths,ethnicity,name,source", *rows]), encoding="utf-8")
    crop_folder(tmp_path / "in", out, str(labels))
    assert not caplog.records
    faces = cells(out)
    assert list(faces)[-4:] == ["bottom", "Person", "name", "source"]
    assert faces["Person"].tolist() == ["Doe, Jane", "", "p2"]
    assert faces[["name", "source"]].to_numpy().tolist() == [["x y", "ü"], ["", ""], ["", ""]]
    assert load_table(out / "faces.csv")["ethnicity"].tolist() == ["Black", "", "White"]
    faces.loc[1, ["Person", "source"]] = "by hand"
    faces.assign(note="mine").to_csv(out / "faces.csv", index=False)
    rows = ["p1,1,30,a.jpg,s", "p1,1,30,a.jpg,t", ",0,40,b.jpg,", ",,50,c.jpg,"]
    labels.write_text("\n".join(["person,genders,ages,img_paths,source", *rows]))
    crop_folder(tmp_path / "in", out, str(labels))
    assert "several rows of a photo, such as a.jpg, the first row's other cells are used" in caplog.text
    faces = cells(out)
    assert list(faces)[-5:] == ["bottom", "person", "source", "name", "note"]
    assert faces["person"].tolist() == ["p1", "by hand", "p2"]
    assert faces["source"].tolist() == ["s", "by hand", ""]
    read_csv(out / "faces.csv")


def test_other_columns_of_a_table_in_cp1252_become_utf8(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_bytes("genders,ages,img_paths,ethnicity,Größe\n1,30,a.jpg,Métis,é\n".encode("cp1252"))
    crop_folder(tmp_path / "in", tmp_path / "out", str(labels))
    faces = cells(tmp_path / "out")
    assert faces.loc[0, ["ethnicity", "Größe"]].tolist() == ["Métis", "é"]


def test_a_column_without_a_name_is_no_note(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    faces = cells(tmp_path / "out")
    faces.to_csv(tmp_path / "out" / "faces.csv")  # pandas puts row numbers in front
    (tmp_path / "in" / "b.jpg").unlink()
    for _ in range(2):
        assert len(crop_folder(tmp_path / "in", tmp_path / "out")) == 1
        assert cells(tmp_path / "out").equals(faces[:1])


def test_labels_and_filled_in_cells_are_merged_cell_by_cell(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("genders,ages,img_paths\n1,,a.jpg\n0,,b.jpg\n,40,c.jpg\n")
    crop_folder(tmp_path / "in", tmp_path / "out", str(labels))
    faces = cells(tmp_path / "out")
    faces["genders"], faces["ages"] = ["0", "0", "1"], ["20", "", "41"]  # a's gender and c's age contradict the labels
    faces["age_min"], faces["age_max"] = ["", "25", ""], ["", "32", ""]
    faces["ethnicity"] = ["Black", "", "East Asian"]
    faces.to_csv(tmp_path / "out" / "faces.csv", index=False)
    crop_folder(tmp_path / "in", tmp_path / "out", str(labels))
    rows = [["1", "20", "", "", "Black"], ["0", "", "25", "32", ""], ["1", "40", "", "", "East Asian"]]
    columns = ["genders", "ages", "age_min", "age_max", "ethnicity"]
    assert cells(tmp_path / "out")[columns].to_numpy().tolist() == rows
    labels.write_text("age_min,age_max,genders,img_paths,ethnicity\n30,39,,a.jpg,White\n,,,b.jpg,Indian\n,,1,c.jpg,\n")
    crop_folder(tmp_path / "in", tmp_path / "out", str(labels))
    table = cells(tmp_path / "out").set_index("img_paths")[columns]
    assert table.loc["a_0.jpg"].tolist() == ["1", "", "30", "39", "White"]  # a range replaces an age
    assert table.loc["c_0.jpg"].tolist() == ["1", "40", "", "", "East Asian"]


def test_ranges_of_ages_are_carried_over_and_stay(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "sub/c.jpg")
    header = "genders,ages,age_min,age_max,img_paths"
    (tmp_path / "labels.csv").write_text(f"{header}\n0,,25,32,a.jpg\n1,35,,,b.jpg\n,,60,,sub\\c.jpg\n")
    crop_folder(tmp_path / "in", tmp_path / "out", str(tmp_path / "labels.csv"))
    faces = cells(tmp_path / "out")
    columns = ["genders", "ages", "age_min", "age_max", "img_paths"]
    rows = [["0", "", "25", "32", "a_0.jpg"], ["1", "35", "", "", "b_0.jpg"], ["", "", "60", "100", "sub/c_0.jpg"]]
    assert faces[columns].to_numpy().tolist() == rows
    crop_folder(tmp_path / "in", tmp_path / "out")  # as if filled in by hand
    assert cells(tmp_path / "out")[columns].to_numpy().tolist() == rows


def test_labels_of_a_replaced_photo_are_forgotten(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    faces = cells(tmp_path / "out").assign(ages=["20", "30"])
    faces.to_csv(tmp_path / "out" / "faces.csv", index=False)
    make_images(tmp_path / "in", "a.jpg", shade=220)
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["ages"]) == ["", "30"]
    assert lines[-1].startswith("cells filled in for 1 crop(s) that are gone or changed")
    assert cells(tmp_path / "out", "faces_before_1.csv").equals(faces)
    assert abs(read_image(tmp_path / "out" / "a_0.jpg").mean() - 220) < 2


def test_labels_given_later_decide_anew_about_several_faces(photos, tmp_path):
    crop_folder(photos, tmp_path / "faces")
    labels = write_labels(tmp_path / "labels.csv", "1,30,two.png", "0,40,one.jpg")
    crop_folder(photos, tmp_path / "faces", labels)
    assert list(cells(tmp_path / "faces")["img_paths"]) == ["one_0.jpg"]
    assert sorted(path.name for path in (tmp_path / "faces").glob("*.jpg")) == ["one_0.jpg"]


def test_a_journal_that_ends_in_half_a_line_is_used_up_to_it(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    whole = (tmp_path / "out" / "faces.csv").read_bytes()
    journal = tmp_path / "out" / "crop_faces.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])  # killed while it wrote
    (tmp_path / "out" / "faces.csv").unlink()
    crop_folder(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "faces.csv").read_bytes() == whole
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0.3}, "margin must be 0.4 as for the crops .* got 0.3: choose another -o"),
        ({"main_face": True}, "main_face must be False .* got True"),
    ],
)
def test_other_settings_are_refused(tmp_path, stub_detector, change, message):
    make_images(tmp_path / "in", "a.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match=message):
        crop_folder(tmp_path / "in", tmp_path / "out", settings=CropSettings(**change))


def test_a_folder_with_other_files_is_left_alone(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg")
    make_images(tmp_path / "out", "a_0.jpg", shade=7)
    before = (tmp_path / "out" / "a_0.jpg").read_bytes()
    with pytest.raises(UserError, match="-o must be a new folder, got .* with a_0.jpg in it"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "a_0.jpg").read_bytes() == before


def test_a_damaged_journal_is_one_line(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "crop_faces.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match="crop_faces.jsonl must have the settings in its first line"):
        crop_folder(tmp_path / "in", tmp_path / "out")


def test_a_full_disk_leaves_a_table_of_what_is_done(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")

    def write(path, crop):
        if path.name == "b_0.jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_image(path, crop)

    monkeypatch.setattr(cropping, "write_image", write)
    with pytest.raises(OSError, match="No space left on device"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["img_paths"]) == ["a_0.jpg"]
    monkeypatch.undo()


def test_an_interrupt_leaves_tables_and_says_how_to_resume(tmp_path, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    (tmp_path / "in" / "damaged.jpg").write_bytes(b"no image")
    make_images(tmp_path / "in", "z.jpg", shade=250)

    def detect(self, image):
        if image.mean() > 240:
            raise KeyboardInterrupt
        return [Face((20, 10, 60, 30), 1.0)]

    monkeypatch.setattr(FaceDetector, "detect", detect)
    with pytest.raises(KeyboardInterrupt, match="3 of 4 photos are done; the same command resumes"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["img_paths"]) == ["a_0.jpg", "b_0.jpg"]
    assert list(cells(tmp_path / "out", "not_used.csv")["img_paths"]) == ["damaged.jpg"]


def test_an_interrupt_keeps_labels_of_photos_that_it_did_not_come_to(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    crop_folder(tmp_path / "in", tmp_path / "out")
    cells(tmp_path / "out").assign(ages=["20", "30"]).to_csv(tmp_path / "out" / "faces.csv", index=False)
    for name in ("a.jpg", "b.jpg"):
        os.utime(tmp_path / "in" / name, ns=(1, 1))

    def stop(self, image):
        raise KeyboardInterrupt

    monkeypatch.setattr(FaceDetector, "detect", stop)
    with pytest.raises(KeyboardInterrupt, match="0 of 2"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["ages"]) == ["20", "30"]


def test_bad_files_are_named_and_the_rest_is_used(tmp_path, stub_detector, capsys):
    make_images(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    assert "skipped empty.jpg: the file is empty" in capsys.readouterr().err
    assert "1 photos not used (1 unreadable)" in lines[1]
    assert list(cells(tmp_path / "out")["img_paths"]) == ["a_0.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows limits whole paths, the image itself cannot be made")
def test_a_name_too_long_for_a_crop_is_a_bad_file(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg")
    shutil.copy(tmp_path / "in" / "a.jpg", tmp_path / "in" / ("b" * 251 + ".jpg"))
    with pytest.raises(JobError, match=r"1 file\(s\) failed, such as b+\.jpg: .* too long.*; 1 faces out of 2 photos"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["img_paths"]) == ["a_0.jpg"]
    assert "too long" in cells(tmp_path / "out", "not_used.csv")["reason"][0]


def test_photos_are_told_by_content_and_other_files_are_counted(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "from_browser.jpg")
    (tmp_path / "in" / "from_browser.jpg").rename(tmp_path / "in" / "from_browser.jfif")
    (tmp_path / "in" / "notes.txt").touch()
    make_images(tmp_path / "disk2", "b.jpg")
    (tmp_path / "in" / "more").symlink_to("../disk2")
    lines = crop_folder(tmp_path / "in", tmp_path / "out")
    assert lines[1:] == ["1 other file: 1 .txt"]
    assert set(cells(tmp_path / "out")["img_paths"]) == {"a_0.jpg", "from_browser_0.jpg", "more/b_0.jpg"}


def test_a_crop_that_cannot_be_written_costs_only_its_photo(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")

    def refuse(path, image):
        if path.name == "a_0.jpg":
            raise PermissionError(13, "Permission denied")
        write_image(path, image)

    monkeypatch.setattr(cropping, "write_image", refuse)
    with pytest.raises(JobError, match=r"such as a\.jpg: its crop cannot be written: Permission denied; 1 faces"):
        crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["img_paths"]) == ["b_0.jpg"]


def test_no_readable_image_fails_the_job(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(JobError, match="none of 1 photos could be read"):
        crop_folder(tmp_path / "in", tmp_path / "out")


def test_contradicting_labels_are_reported(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    rows = ["1,20,a.jpg", "1,30,b.jpg", "1,30,./b.jpg", "0,20,a.jpg", "1,5,c.jpg"]
    crop_folder(tmp_path / "in", tmp_path / "out", write_labels(tmp_path / "labels.csv", *rows))
    assert list(cells(tmp_path / "out")["img_paths"]) == ["b_0.jpg", "c_0.jpg"]
    not_used = cells(tmp_path / "out", "not_used.csv").to_numpy().tolist()
    assert not_used == [["a.jpg", "labelled twice, differently", ""]]


def test_the_split_of_the_labels_goes_before_that_of_the_content(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg", "b.jpg")
    path = tmp_path / "labels.csv"
    path.write_text("genders,ages,img_paths,split\n1,20,a.jpg,test\n1,20,b.jpg,\n")
    crop_folder(tmp_path / "in", tmp_path / "out", str(path))
    splits = list(cells(tmp_path / "out")["split"])
    assert splits[0] == "test"
    assert splits[1] in ("train", "val")


def test_the_split_is_that_of_the_photo(tmp_path, stub_detector, monkeypatch):
    make_images(tmp_path / "in", "a.jpg")
    monkeypatch.setattr(cropping, "file_sha256", lambda path: "0000000b" + "0" * 56)  # 11 mod 10 = 1: validation
    crop_folder(tmp_path / "in", tmp_path / "out")
    assert list(cells(tmp_path / "out")["split"]) == ["val"]


def test_a_known_table_by_name(tmp_path, stub_detector):
    make_images(tmp_path / "in" / "original images", "00000A02.jpg", "00001A70.jpg", "00002A33.jpg")
    (tmp_path / "in" / "image sets").mkdir()
    (tmp_path / "in" / "image sets" / "train.txt").write_text("00001A70.jpg 1\n00000A02.jpg 0\n")
    crop_folder(tmp_path / "in", tmp_path / "out", "aaf")
    faces = cells(tmp_path / "out")
    assert faces[["genders", "ages", "img_paths"]].to_numpy().tolist() == [
        ["1", "70", "original images/00001A70_0.jpg"],
        ["0", "2", "original images/00000A02_0.jpg"],
    ]
    table = load_table("aaf", image_dir=tmp_path / "in")
    assert list(faces["split"]) == list(table["split"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,20,nope.jpg", "none of the 1 images of .*labels.csv found below .*in, such as .*nope.jpg"),
        ("1,20,../in2/a.jpg", "the images must be below .*in, got .*in2/a.jpg: give -i"),
    ],
)
def test_labels_of_images_elsewhere(tmp_path, row, message):
    make_images(tmp_path / "in", "a.jpg")
    make_images(tmp_path / "in2", "a.jpg")
    with pytest.raises(UserError, match=message):
        crop_folder(tmp_path / "in", tmp_path / "out", write_labels(tmp_path / "labels.csv", row))
    assert not (tmp_path / "out").exists()


def test_crops_cannot_give_a_larger_margin(tmp_path):
    make_images(tmp_path / "in", "a.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("genders,ages,img_paths,margin\n1,20,a.jpg,0.1\n")
    with pytest.raises(UserError, match=r"--margin must be in 0\.\.0\.1, the margin of face crops .*a\.jpg, got 0\.4"):
        crop_folder(tmp_path / "in", tmp_path / "out", str(labels))


def test_unknown_name_of_labels(tmp_path):
    make_images(tmp_path / "in", "a.jpg")
    with pytest.raises(UserError, match="--labels must be a path to a .csv or one of .*aaf.*, got 'afa'"):
        crop_folder(tmp_path / "in", tmp_path / "out", "afa")


@pytest.mark.parametrize(
    "settings",
    [
        CropSettings(margin=40),
        CropSettings(margin=float("nan")),
        CropSettings(threshold=float("nan")),
        CropSettings(max_side=0),
    ],
)
def test_impossible_settings(tmp_path, settings):
    make_images(tmp_path / "in", "a.jpg")
    with pytest.raises(UserError, match="--(margin|threshold|max_side) must be"):
        crop_folder(tmp_path / "in", tmp_path / "out", settings=settings)


def test_impossible_folders(tmp_path):
    make_images(tmp_path / "in", "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, output, message in (
        ("nowhere", "out", "-i must be a folder of photos"),
        ("empty", "out", "no images found below"),
        ("in", "file", "-o must be a folder, got the file"),
        ("in", "in", "outside of"),
        ("in", ".", "outside of"),
    ):
        with pytest.raises(UserError, match=message):
            crop_folder(tmp_path / folder, tmp_path / output)


def test_faces_below_the_photos_are_no_photos(tmp_path, stub_detector):
    make_images(tmp_path / "in", "a.jpg")
    for _ in range(2):
        lines = crop_folder(tmp_path / "in", tmp_path / "in" / "faces")
    assert lines[0].startswith("1 faces out of 1 photos")
    assert list(read_csv(tmp_path / "in" / "faces" / "faces.csv")["path"]) == ["a_0.jpg"]
