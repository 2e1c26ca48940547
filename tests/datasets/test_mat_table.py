import numpy as np
import pandas as pd
import pytest
from matlab_v73 import write_v73
from scipy.io import loadmat, savemat

from src.cli import UserError
from src.datasets import utkface
from src.datasets.mat_table import check_size, read_mat, write_mat
from src.datasets.table import load_table

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)


def original(**changes):
    """What the original's `create_db_utkface.py` saves: BGR, gender 0 = male."""
    content = {
        "image": IMAGES,
        "gender": np.array([0, 1, 1, 0, 1]),
        "age": np.array([5, 116, 30, 40, 0]),
        "db": "utk",
        "img_size": 8,
        "min_score": -1,
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


def test_original_utkface_file_is_converted(tmp_path):
    savemat(tmp_path / "UTKFace.mat", original())
    table, db = read_mat(tmp_path / "UTKFace.mat")
    assert db == "utk"
    assert table["gender"].tolist() == [1, 0, 0, 1, 0]
    assert table["age"].tolist() == [5, 100, 30, 40, 0]
    assert set(table["split"]) <= {"train", "val"}
    for image, bgr in zip(table["image"], IMAGES, strict=True):
        np.testing.assert_array_equal(image, bgr[:, :, ::-1])
        assert image.flags.c_contiguous
        assert image.dtype == np.uint8


def test_matlab_73_files_are_read_alike(tmp_path):
    content = original(
        gender=np.array([[0, 1, 1, 0, 1]]), age=np.array([[5, 116, 30, 40, 0]]), img_size=np.array([[8]])
    )
    savemat(tmp_path / "five.mat", content)
    write_v73(tmp_path / "seven.mat", content | {"db": np.array(["utk"]), "min_score": np.array([[-1.0]])})
    (five, db), (seven, same) = read_mat(tmp_path / "five.mat"), read_mat(tmp_path / "seven.mat")
    assert db == same == "utk"
    columns = ["gender", "age", "split"]
    pd.testing.assert_frame_equal(seven[columns], five[columns])
    np.testing.assert_array_equal(np.stack(seven["image"]), np.stack(five["image"]))


def test_original_imdb_file_keeps_its_gender_order(tmp_path):
    savemat(tmp_path / "imdb_db.mat", original(db="imdb", gender=np.array([0.0, 1, np.nan, 0, 1])))
    table, _ = read_mat(tmp_path / "imdb_db.mat")
    np.testing.assert_array_equal(table["gender"], [0, 1, np.nan, 0, 1])
    assert (load_table(tmp_path / "imdb_db.mat")["margin"] == 0.4).all()


def test_split_by_content_does_not_depend_on_the_order(tmp_path):
    images = np.random.default_rng(1).integers(0, 255, (200, 2, 2, 3), dtype=np.uint8)
    labels = {"gender": np.zeros(200), "age": np.arange(200) % 90}
    savemat(tmp_path / "a.mat", original(image=images, **labels))
    savemat(tmp_path / "b.mat", original(image=images[::-1], **labels))
    first, second = read_mat(tmp_path / "a.mat")[0]["split"], read_mat(tmp_path / "b.mat")[0]["split"]
    assert first.tolist() == second.tolist()[::-1]
    assert 5 < (first == "val").sum() < 40


def test_own_file(tmp_path):
    rows = pd.DataFrame(
        {
            "genders": [0.0, 1, 1, 0, 1],
            "ages": [1.0, 2, 3, 4, 100],
            "split": ["train", "val", "test", "train", "val"],
            "sha256": [f"{number:064x}" for number in range(5)],
        }
    )
    write_mat(tmp_path / "my.mat", IMAGES, rows, "utk")
    content = loadmat(tmp_path / "my.mat")
    assert {"image", "gender", "age", "db", "img_size", "min_score"} < set(content)
    assert content["image"].shape == (5, 8, 8, 3)
    assert content["gender"].tolist() == [[0, 1, 1, 0, 1]]
    assert content["img_size"].tolist() == [[8]]
    assert content["sha256"].tolist() == rows["sha256"].tolist()
    assert content["colour"].tolist() == ["RGB"]
    table = load_table(tmp_path / "my.mat")
    assert table["gender"].tolist() == rows["genders"].tolist()
    assert table["age"].tolist() == rows["ages"].tolist()
    assert table["split"].tolist() == rows["split"].tolist()
    assert (table["margin"] == utkface.MARGIN).all()
    np.testing.assert_array_equal(np.stack(table["image"]), IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["my.mat"]


def test_one_image(tmp_path):
    rows = pd.DataFrame({"genders": [1], "ages": [30], "split": ["val"], "sha256": ["0" * 64]})
    write_mat(tmp_path / "my.mat", IMAGES[:1], rows, "utk")
    table = load_table(tmp_path / "my.mat")
    assert table["split"].tolist() == ["val"]
    np.testing.assert_array_equal(table["image"][0], IMAGES[0])


def test_a_folder_of_images_is_not_used(tmp_path, caplog):
    savemat(tmp_path / "my.mat", original())
    assert len(load_table(tmp_path / "my.mat", image_dir=tmp_path / "faces")) == 5
    assert caplog.messages == [
        f"{tmp_path / 'my.mat'} holds its images itself: data.image_dir, {tmp_path / 'faces'}, is not used for it"
    ]
    caplog.clear()
    load_table(tmp_path / "my.mat")
    assert caplog.messages == []


def test_keys_say_another_order(tmp_path):
    savemat(tmp_path / "my.mat", original(gender_order=np.array(["male", "female"]), colour="BGR"))
    assert read_mat(tmp_path / "my.mat")[0]["gender"].tolist() == [1, 0, 0, 1, 0]
    savemat(tmp_path / "my.mat", original(gender_order=np.array(["female", "male"]), colour="RGB"))
    table, _ = read_mat(tmp_path / "my.mat")
    assert table["gender"].tolist() == [0, 1, 1, 0, 1]
    np.testing.assert_array_equal(table["image"][1], IMAGES[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"image": None},
        {"gender": None},
        {"image": IMAGES[:4]},
        {"image": IMAGES.astype(float)},
        {"image": IMAGES[..., 0]},
        {"gender": np.array([0, 1, 2, 0, 1])},
        {"age": np.array([0, 1, -2, 0, 1])},
        {"age": np.array([0, 1])},
        {"split": np.array(["train", "val", "dev", "val", "val"])},
    ],
)
def test_other_contents(tmp_path, changes):
    savemat(tmp_path / "my.mat", original(**changes))
    with pytest.raises(UserError, match=r"my\.mat"):
        read_mat(tmp_path / "my.mat")


def test_damaged_and_missing_files(tmp_path):
    savemat(tmp_path / "my.mat", original(), do_compression=True)
    whole = (tmp_path / "my.mat").read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "my.mat").write_bytes(data)
        with pytest.raises(UserError, match="must be a table made by"):
            read_mat(tmp_path / "my.mat")
    with pytest.raises(UserError, match=r"none\.mat"):
        read_mat(tmp_path / "none.mat")


def test_size_that_fits_into_the_format():
    # 23,094 images: 3 * 23,094 * 176**2 = 2,146,079,232 < 2**31 < 3 * 23,094 * 177**2
    check_size(23_094, 176)
    with pytest.raises(UserError, match=r"23,094 images of 177 x 177 pixels .*: use --img_size 176 at most"):
        check_size(23_094, 177)
    with pytest.raises(UserError, match="--img_size must be >= 1, got -1"):
        check_size(10, -1)
    check_size(0, 64)
