import numpy as np
import pytest

from src.cli import UserError
from src.datasets import appa_real

HEADER = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n"


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "appa-real-release"
    folder.mkdir()
    (folder / "gt_avg_train.csv").write_text(
        HEADER + "000000.jpg,38,5.0526,2.04,4\n000001.jpg,36,100.7,3.5,101\n000002.jpg,30,40.5,4,39\n"
    )
    (folder / "gt_avg_valid.csv").write_text(HEADER + "004113.jpg,40,31.2,3.8,35\n")
    (folder / "gt_avg_test.csv").write_text(HEADER + "005613.jpg,41,20,2,21\n")
    return folder


def test_real_ages(release, tmp_path):
    table = appa_real.load(release, tmp_path / "ignore_list.txt", "real")
    assert table["age"].tolist() == [4, 100, 39, 35, 21]
    assert table["split"].tolist() == ["train", "train", "train", "val", "test"]
    assert table["path"][0] == str(release / "train" / "000000.jpg_face.jpg")
    assert table["path"][3] == str(release / "valid" / "004113.jpg_face.jpg")
    assert (table["margin"] == 0.4).all()
    assert table["gender"].isna().all()
    assert table["gender"].dtype == np.float64
    assert table["real_age"].tolist() == [4, 101, 39, 35, 21]
    assert table["apparent_age"].tolist() == [5.0526, 100.7, 40.5, 31.2, 20]
    assert table["file_name"].tolist()[:2] == ["000000.jpg", "000001.jpg"]
    assert "age_std" not in table


def test_apparent_ages_come_with_the_spread_of_the_votes(release, tmp_path):
    table = appa_real.load(release, tmp_path / "ignore_list.txt", "apparent")
    assert table["age"].tolist() == [5.0526, 100, 40.5, 31.2, 20]
    assert table["age_std"].tolist() == [2.04, 3.5, 4, 3.8, 2]


def test_ignore_list_counts_for_training_only(release, tmp_path, caplog):
    ignore_list = tmp_path / "ignore_list.txt"
    ignore_list.write_text("000001.jpg\n004113.jpg\n\n000000.jpg_face.jpg\ntrain/000002.jpg\n")
    table = appa_real.load(release, ignore_list, "real")
    assert table["file_name"].tolist() == ["000000.jpg", "000002.jpg", "004113.jpg", "005613.jpg"]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert caplog.messages == [
        f"{ignore_list}: 3 of 4 names exclude nothing, such as 000000.jpg_face.jpg:"
        " give the file_name of a training image as in gt_avg_train.csv"
    ]
    caplog.clear()
    (release / "gt_avg_train.csv").unlink()
    assert len(appa_real.load(release, ignore_list, "real")) == 2
    assert caplog.messages == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ignore_lists_of_windows_editors(release, tmp_path, encoding, caplog):
    (tmp_path / "ignore_list.txt").write_bytes("000000.jpg\r\n000002.jpg".encode(encoding))
    table = appa_real.load(release, tmp_path / "ignore_list.txt", "real")
    assert table["file_name"].tolist() == ["000001.jpg", "004113.jpg", "005613.jpg"]
    assert caplog.messages == []


def test_an_ignore_list_that_is_no_text(release, tmp_path):
    (tmp_path / "ignore_list.txt").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"ignore_list\.txt must be a text file, got a file that is no text"):
        appa_real.load(release, tmp_path / "ignore_list.txt", "real")


def test_missing_data_names_the_download(tmp_path):
    with pytest.raises(UserError, match=r"`\./download\.sh appa-real`"):
        appa_real.load(tmp_path, tmp_path / "ignore_list.txt", "real")


@pytest.mark.parametrize("text", ["", "file_name,real_age\na.jpg,4\n", HEADER + "a.jpg,1,old,2,4\n", "\x00\x01\n"])
def test_wrong_lists(release, tmp_path, text):
    (release / "gt_avg_valid.csv").write_text(text)
    with pytest.raises(UserError, match=r"gt_avg_valid\.csv"):
        appa_real.load(release, tmp_path / "ignore_list.txt", "real")
