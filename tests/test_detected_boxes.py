"""The recipe that finds the faces of crops anew."""

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_script

from src.cli import ROOT
from src.datasets import face_boxes, load_table
from src.images import FaceDetector, crop_box, overlap, read_image, write_image


@pytest.fixture
def crops(tmp_path):
    """A face in the middle of its crop, one beside it, a crop without a face, a damaged one; and one to test."""
    photo = read_image(ROOT / "samples" / "astronaut.png")
    (face,) = FaceDetector().detect(photo)
    left, top, right, bottom = face.box
    aside = left + (right - left), top, right + (right - left), bottom
    images = [crop_box(photo, face.box, 0.12), crop_box(photo, aside, 0.5), np.zeros((100, 100, 3), np.uint8)]
    for name, image in zip(
        ["faces/0.png", "faces/1.png", "faces/2.png", "faces/4.png"], [*images, images[0]], strict=True
    ):
        (tmp_path / "faces").mkdir(exist_ok=True)
        write_image(tmp_path / name, image)
    (tmp_path / "faces" / "3.png").write_bytes(b"no image")
    table = pd.DataFrame({"img_paths": [f"{number}.png" for number in range(5)], "genders": 0, "margin": 0.12})
    table["age_min"], table["age_max"] = 40, 49
    table["ethnicity"] = ["White", "Black", "White", "White", "White"]
    table["split"] = ["train"] * 4 + ["test"]
    table.to_csv(tmp_path / "faces" / "faces.csv", index=False)
    return tmp_path


def detect(folder, *options):
    db = folder / "faces" / "faces.csv"
    return run_script("recipes/detected_boxes.py", "-o", folder / "boxes.csv", "--db", db, *options)


def test_the_table_has_the_boxes_that_lie_on_the_face(crops):
    result = detect(crops, "--twice", "White")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{crops / 'boxes.csv'}: boxes of 1 of 4 images, 2 rows\n"
    assert "3.png" in result.stderr
    table = load_table(crops / "boxes.csv")
    assert table["path"].tolist() == 2 * [str(crops / "faces" / "0.png")]
    assert table[["age_min", "age_max", "margin"]].to_numpy().tolist() == 2 * [[40, 49, 0.12]]
    assert set(table["split"]) == {"train"}
    height, width = read_image(table["path"][0]).shape[:2]
    middle = round(width * 0.097), round(height * 0.097), round(width * 0.903), round(height * 0.903)
    assert overlap(face_boxes(table)[0], middle) > 0.6


def test_mistakes_write_nothing(crops):
    result = detect(crops, "--twice", "Martian")
    assert error_line(result) == "error: --twice must name ethnicities of the table, got Martian"
    (crops / "faces" / "0.png").write_bytes((crops / "faces" / "2.png").read_bytes())
    result = detect(crops)
    assert error_line(result).startswith("error: none of the 4 images has a detected box on its face")
    assert not (crops / "boxes.csv").exists()
