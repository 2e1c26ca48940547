import hashlib

import numpy as np
import pytest

from src.cli import UserError
from src.datasets.all_age_faces import load_train, load_val


def content_with_digit(digit: int) -> bytes:
    """Bytes whose SHA-256 puts them into the split of this digit."""
    contents = (f"image {number}".encode() for number in range(10_000))
    return next(data for data in contents if int(hashlib.sha256(data).hexdigest()[:8], 16) % 10 == digit)


@pytest.fixture
def folder(tmp_path):
    images = {
        "00000A02.jpg": content_with_digit(2),
        "00001A31.jpg": content_with_digit(0),
        "00002A80.jpg": content_with_digit(1),
        "00003A45.jpg": content_with_digit(3),
        "00004A45.jpg": content_with_digit(3),  # a copy with the same labels
        "00005A20.jpg": content_with_digit(4),
        "00006A21.jpg": content_with_digit(4),  # a copy with another age
        "00007A50.jpg": content_with_digit(5),  # stands in val.txt too, under another name
        "00008A50.jpg": content_with_digit(5),
        "00009A33.jpg": content_with_digit(6),
    }
    (tmp_path / "original images").mkdir()
    for name, data in images.items():
        (tmp_path / "original images" / name).write_bytes(data)
    return tmp_path


def write_lists(folder):
    (folder / "image sets").mkdir()
    train = ["00000A02.jpg 0", "00001A31.jpg 1", "00002A80.jpg 0", "00003A45.jpg 1", "00004A45.jpg 1"]
    train += ["00005A20.jpg 1", "00006A21.jpg 1", "00007A50.jpg 0", "99999A10.jpg 0"]
    (folder / "image sets" / "train.txt").write_text("\n".join(train) + "\n")
    (folder / "image sets" / "val.txt").write_text("00008A50.jpg 0\n00009A33.jpg 1\n")


def names(table):
    return [path.replace("\\", "/").rsplit("/", 1)[1] for path in table["path"]]


def test_train_list_is_split_by_content_without_copies(folder):
    write_lists(folder)
    table = load_train(folder)
    assert names(table) == ["00000A02.jpg", "00001A31.jpg", "00002A80.jpg", "00003A45.jpg"]
    assert table["split"].tolist() == ["train", "test", "val", "train"]
    assert table["age"].tolist() == [2, 31, 80, 45]
    assert table["gender"].tolist() == [0, 1, 0, 1]
    assert table["margin"].isna().all()
    assert table["path"].iloc[0] == str(folder / "original images" / "00000A02.jpg")


def test_val_list_is_all_test(folder):
    write_lists(folder)
    table = load_val(folder)
    assert names(table) == ["00008A50.jpg", "00009A33.jpg"]
    assert table["split"].tolist() == ["test", "test"]


def test_without_lists_genders_are_unknown(folder):
    table = load_train(folder)
    assert len(table) == 6  # of ten: two contradicting, two further copies
    assert table["gender"].isna().all()
    assert table["gender"].dtype == np.float64
    with pytest.raises(UserError, match=r"val\.txt"):
        load_val(folder)


def test_a_name_without_age_is_an_image_of_unknown_age(folder):
    (folder / "original images" / "someone.jpg").write_bytes(b"x")
    assert load_train(folder)["age"].isna().sum() == 1


def test_missing_data_and_wrong_lists(folder, tmp_path):
    with pytest.raises(UserError, match="no images of All-Age-Faces found"):
        load_train(tmp_path / "nowhere")
    (folder / "image sets").mkdir()
    for text in ("00000A02.jpg male\n", "00000A02.jpg\n"):
        (folder / "image sets" / "train.txt").write_text(text)
        with pytest.raises(UserError, match=r"must have lines `NAME\.jpg 0`"):
            load_train(folder)
