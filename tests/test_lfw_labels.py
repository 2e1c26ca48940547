"""The recipe that reads the genders of Labeled Faces in the Wild."""

import numpy as np
import pandas as pd
from script_runs import error_line, run_script

from src.datasets import load_table
from src.images import write_image


def test_labels_of_people_with_one_gender(tmp_path):
    women = ["Ann_Lee_0001.jpg", "Kim_0001.jpg"]
    men = ["Kim_0002.jpg", *(f"Bob_{number:04}.jpg" for number in range(1, 7))]
    (tmp_path / "female_names.txt").write_text("\n".join(women))
    (tmp_path / "male_names.txt").write_text("".join(f"{name}\r\n" for name in men))
    output = tmp_path / "lfw.csv"
    result = run_script("recipes/lfw_labels.py", tmp_path, "-o", output)
    assert result.stdout == f"{output}: 5 images of 2 people\n", result.stderr
    paths = pd.read_csv(output)["img_paths"].tolist()
    assert paths == ["Ann_Lee/Ann_Lee_0001.jpg", *(f"Bob/Bob_000{number}.jpg" for number in (1, 2, 3, 4))]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_image(tmp_path / path, np.full((20, 20, 3), 99, np.uint8))
    table = load_table(output)
    assert table["gender"].tolist() == [0, 1, 1, 1, 1]
    assert table["age"].isna().all()
    assert set(table["split"]) == {"train"}


def test_mistakes(tmp_path):
    assert error_line(run_script("recipes/lfw_labels.py", tmp_path, "-o", "lfw.txt")).startswith("error: --output must")
    message = f"error: {tmp_path} must have female_names.txt and male_names.txt, got none at "
    assert error_line(run_script("recipes/lfw_labels.py", tmp_path, "-o", tmp_path / "l.csv")).startswith(message)
    for name in ("female_names.txt", "male_names.txt"):
        (tmp_path / name).touch()
    empty = run_script("recipes/lfw_labels.py", tmp_path, "-o", tmp_path / "l.csv")
    names = "female_names.txt and male_names.txt"
    assert error_line(empty) == f"error: {names} must have file names, got none in {tmp_path}"
    (tmp_path / "male_names.txt").write_bytes(b"Bob_0001.jpg\nJos\xe9.jpg\n")
    wrong = run_script("recipes/lfw_labels.py", tmp_path, "-o", tmp_path / "l.csv")
    assert "male_names.txt must have file names such as Ann_Lee_0001.jpg, got 'Jos" in error_line(wrong)
    assert not (tmp_path / "l.csv").exists()
