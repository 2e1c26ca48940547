"""Faces of the train part of a table, as networks get them in evaluation."""

import numpy as np
import pandas as pd
import pytest

from src.cli import UserError
from src.datasets.faces import load_training_part, read_faces
from src.images import read_image, resize, write_image

BOX = ["left", "top", "right", "bottom"]


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png", rng.integers(0, 256, (28, 28, 3), np.uint8))
    return pd.DataFrame(
        {"img_paths": ["a.png", "b.png", "c.png"], "genders": 0, "ages": 30, "split": "train", "margin": 0.2}
    )


def load(table: pd.DataFrame, folder) -> pd.DataFrame:
    table.to_csv(folder / "t.csv", index=False)
    return load_training_part([folder / "t.csv"])


def test_each_image_comes_once_with_its_face(table, tmp_path):
    part = load(table.assign(split=["train", "val", "train"]), tmp_path)
    assert len(pd.concat([part, part])) == 2 * len(load_training_part([tmp_path / "t.csv"] * 2))
    faces = dict(read_faces(part, 0.0, 10))
    assert list(faces) == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    for path, face in faces.items():  # a margin of 0.2 is 4 of 28 pixels on each side
        np.testing.assert_array_equal(face, resize(read_image(path)[4:24, 4:24], 10))


def test_arrays_need_no_file(table, tmp_path):
    part = load(table, tmp_path)
    images = [read_image(path) for path in part["path"]]
    expected = [face for _, face in read_faces(part, 0.1, 8)]
    rows = part.assign(path=["x[0]", "x[1]", "x[2]"], image=images)
    np.testing.assert_array_equal([face for _, face in read_faces(rows, 0.1, 8)], expected)


def test_a_damaged_image_is_named_and_skipped(table, tmp_path, capsys):
    part = load(table, tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    assert [path[-5:] for path, _ in read_faces(part, 0.1, 8)] == ["a.png", "c.png"]
    assert "b.png" in capsys.readouterr().err


def test_other_tables_are_refused(table, tmp_path):
    with pytest.raises(UserError, match="the tables must have a train part, got .*t.csv without one"):
        load(table.assign(split="test"), tmp_path)
    boxes = pd.DataFrame([[4, 4, 24, 24], [4, 4, 24, 24], [2, 2, 20, 20]], columns=BOX)
    twice = table.assign(img_paths=["a.png", "b.png", "b.png"]).join(boxes)
    with pytest.raises(UserError, match="must have one face per image, got several in 1, such as .*b.png; cut them"):
        load(twice, tmp_path)
    with pytest.raises(UserError, match="the margin of the weights must be in 0..0.2"):
        list(read_faces(load(table, tmp_path), 0.3, 8))
