"""The recipe that finds the faces of crops anew."""

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_script

from recipes.detected_boxes import detect_face
from src.cli import ROOT
from src.datasets import face_boxes, load_table
from src.images import FaceDetector, crop_box, overlap, read_image, write_image


@pytest.fixture
def crops(tmp_path):
    """Two crops with a face, one with a face elsewhere, one without, a damaged one, and one to test."""
    photo = read_image(ROOT / "samples" / "astronaut.png")
    (face,) = FaceDetector().detect(photo)
    left, top, right, bottom = face.box
    width, height = right - left, bottom - top
    middle = crop_box(photo, face.box, 0.12)
    beside = photo[max(top - height, 0) : bottom + height // 8, left - width : right + width // 8]
    folder = tmp_path / "faces"
    folder.mkdir()
    for number, image in enumerate([middle, middle, beside, np.zeros((100, 100, 3), np.uint8), middle, middle]):
        write_image(folder / f"{number}.png", image)
    (folder / "4.png").write_bytes(b"no image")
    table = pd.DataFrame({"img_paths": [f"{number}.png" for number in range(6)], "genders": 0, "margin": 0.12})
    table["age_min"], table["age_max"] = 40, 49
    table["split"] = ["train"] * 5 + ["test"]
    table.to_csv(folder / "faces.csv", index=False)
    return tmp_path


def detect(folder, *options):
    db = folder / "faces" / "faces.csv"
    return run_script("recipes/detected_boxes.py", "-o", folder / "boxes.csv", "--db", db, *options)


def test_the_table_has_the_boxes_that_lie_on_the_face(crops):
    result = detect(crops)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{crops / 'boxes.csv'}: boxes of 2 of 5 images\n"
    assert "4.png" in result.stderr
    table = load_table(crops / "boxes.csv")
    assert table["path"].tolist() == [str(crops / "faces" / f"{number}.png") for number in (0, 1)]
    assert table[["age_min", "age_max", "margin"]].to_numpy().tolist() == 2 * [[40, 49, 0.12]]
    assert set(table["split"]) == {"train"}
    height, width = read_image(table["path"][0]).shape[:2]
    middle = round(width * 0.097), round(height * 0.097), round(width * 0.903), round(height * 0.903)
    assert all(overlap(box, middle) > 0.6 for box in face_boxes(table))


def test_a_face_beside_the_place_that_the_table_says_is_left_out(crops):
    path = crops / "faces" / "2.png"
    detector = FaceDetector()
    (face,) = detector.detect(read_image(path))
    assert detect_face(detector, str(path), 0.12, None) is None
    assert detect_face(detector, str(path), 0.12, face.box) == face.box


def test_mistakes_write_nothing(crops):
    assert error_line(detect(crops, "-o", "a.txt")) == "error: --output must be a .csv file, got a.txt"
    table = crops / "faces" / "faces.csv"
    before = table.read_bytes()
    assert error_line(detect(crops, "-o", table)).startswith("error: --output must be another file than the tables of")
    assert table.read_bytes() == before
    for number in (0, 1):
        (crops / "faces" / f"{number}.png").write_bytes((crops / "faces" / "3.png").read_bytes())
    assert error_line(detect(crops)).startswith("error: none of the 5 images has a detected box on its face")
    assert not (crops / "boxes.csv").exists()
