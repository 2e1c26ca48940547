"""The recipe that makes tables of photo collections whose genders are known."""

import numpy as np
import pytest
from script_runs import error_line, run_script

from src.cli import ROOT
from src.datasets import face_boxes, load_table
from src.images import FaceDetector, crop_box, overlap, read_image, write_image


def write_photo(path, width=100, height=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((height, width, 3), 99, np.uint8))


def make_table(dataset, folder):
    output = folder.parent / "table.csv"
    result = run_script("recipes/gender_tables.py", dataset, folder, "-o", output)
    assert result.returncode == 0, result.stderr
    table = load_table(output)
    assert set(table["split"]) == {"train"}
    rows = zip(table["path"], table["gender"], face_boxes(table), strict=True)
    return {path.removeprefix(f"{folder}/"): (gender, box) for path, gender, box in rows}, result, table


def test_families(tmp_path):
    folder = tmp_path / "FIW"
    for name in ("MID1/P1_face0.jpg", "MID2/P1_face1.jpg", "MID10/P2_face0.jpg", "MID3/P2_face1.jpg"):
        write_photo(folder / "F0001" / name)
    members = "MID,1,2,Name,Gender\n1,0,4,ann,F\n2,4,0,jos\xe9,m \n3,1,1,x,\n10,0,0,kim,f\n"
    (folder / "F0001" / "mid.csv").write_text(members, "latin-1")
    write_photo(folder / "F0001_1" / "Father" / "P1_face3.jpg")  # a photo that the first part knows
    write_photo(folder / "F0001_1" / "Mother" / "P7_face0.jpg")
    write_photo(folder / "F0001_2" / "Mother" / "P7_face0.jpg")  # a copy of it
    write_photo(folder / "F0001_2" / "Child_male" / "P8_face0.jpg")
    write_photo(folder / "F0001_3" / "Child_female" / "P8_face0.jpg")  # of two genders
    rows, _, table = make_table("fiw", folder)
    box, further_box = (6, 42, 87, 182), (7, 13, 87, 174)
    assert rows == {
        "F0001/MID1/P1_face0.jpg": (0, box),
        "F0001/MID2/P1_face1.jpg": (1, box),
        "F0001/MID10/P2_face0.jpg": (0, box),
        "F0001_1/Mother/P7_face0.jpg": (0, further_box),
    }
    assert table["age"].isna().all()


def test_mtfl_without_its_part_of_lfw(tmp_path):
    folder = tmp_path / "MTFL"
    points = "30 70 50 35 65 80 80 100 120 120"  # eyes 40 apart, the mouth 40 below
    (folder / "AFLW").mkdir(parents=True)
    (folder / "training.txt").write_text(
        f"lfw_5590\\Ann_Lee_0001.jpg {points} 2 2 2 3\n net_7876\\1.jpg {points} 1 2 2 3\n\n"
    )
    (folder / "testing.txt").write_text(f" AFLW/2.jpg {points} 2 1 1 3\nAFLW/3.jpg {points} 1 1 1 3\n")
    write_photo(folder / "net_7876" / "1.jpg")
    write_photo(folder / "AFLW" / "2.jpg", width=90)
    (folder / "AFLW" / "3.jpg").write_bytes(b"no image")
    rows, result, _ = make_table("mtfl", folder)
    assert rows == {"net_7876/1.jpg": (1, (6, 56, 94, 144)), "AFLW/2.jpg": (0, (6, 56, 90, 144))}
    assert result.stderr.count("3.jpg") == 1


def test_fgnet_has_ages(tmp_path):
    folder = tmp_path / "FGNET"
    for name in ("001A02.JPG", "002A29b.JPG", "readme.JPG"):
        write_photo(folder / name)
    rows, _, table = make_table("fgnet", folder)
    assert rows == {"001A02.JPG": (1, (15, 40, 85, 160)), "002A29b.JPG": (0, (15, 40, 85, 160))}
    assert table["age"].tolist() == [2, 29]


def test_faces_of_tskinface_are_cut_from_photos(tmp_path):
    folder = tmp_path / "TSKinFace_source"
    (folder / "FMS_information").mkdir(parents=True)
    lines = ["FMS-1.jpg F 60 60 20", "FMS-1.jpg M 5 60 20", "FMS-1.jpg S 300 60 9", "none.jpg S 9 9 9"]
    text = "".join(f"FMS\\{line}\r\n\r\n" for line in lines)
    (folder / "FMS_information" / "FMS_FaceList_Last_combine.txt").write_text(text)
    write_photo(folder / "FMS" / "FMS-1.jpg", width=200)
    rows, result, table = make_table("tskinface", folder)
    assert {path: gender for path, (gender, _) in rows.items()} == {"faces/FMS-1-F.jpg": 1, "faces/FMS-1-M.jpg": 0}
    assert read_image(table["path"][0]).shape == (88, 88, 3)
    assert rows["faces/FMS-1-F.jpg"][1] == (24, 24, 64, 64)
    assert "FMS-1.jpg S: " in result.stderr
    assert "none.jpg S: " in result.stderr


def test_young_faces_get_the_gender_of_the_adult(tmp_path):
    folder = tmp_path / "LAG"
    photo = read_image(ROOT / "samples" / "astronaut.png")
    (found,) = FaceDetector().detect(photo)
    face = crop_box(photo, found.box, (1 / 0.73 - 1) / 2)
    for name in ("eileen/1.png", "eileen/y/2.png", "eileen/y/3.png", "unknown/y/4.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, face)
    (folder / "eileen" / "5.png").write_bytes(b"no image")
    rows, result, _ = make_table("lag", folder)
    assert "5.png" in result.stderr
    assert {path: gender for path, (gender, _) in rows.items()} == {"eileen/y/2.png": 0, "eileen/y/3.png": 0}
    (again,) = FaceDetector().detect(face)
    assert all(overlap(box, again.box) > 0.9 for _, box in rows.values())


@pytest.mark.parametrize(("dataset", "problem"), [("fiw", "no labelled face"), ("mtfl", "FileNotFoundError")])
def test_mistakes(tmp_path, dataset, problem):
    folder = tmp_path / "photos"
    folder.mkdir()
    result = run_script("recipes/gender_tables.py", dataset, folder, "-o", tmp_path / "table.csv")
    assert error_line(result).startswith(f"error: {folder} must hold {dataset} as --help says, got {problem}")
    elsewhere = run_script("recipes/gender_tables.py", dataset, folder, "-o", folder / "below" / "table.csv")
    assert error_line(elsewhere).startswith(f"error: --output must be in a folder above {folder}")
    no_table = run_script("recipes/gender_tables.py", dataset, folder, "-o", tmp_path / "table.txt")
    assert error_line(no_table).startswith("error: --output must be a .csv file")
