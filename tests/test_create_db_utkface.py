import numpy as np
import pytest
from script_runs import run_help, run_script

from src.datasets.table import load_table
from src.images.io import write_image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "UTKFace").mkdir()
    for number in range(6):
        image = np.full((20, 20, 3), 40 * number, np.uint8)
        write_image(tmp_path / "UTKFace" / f"{number + 20}_{number % 2}_0_2017011618{number}.jpg", image)
    (tmp_path / "UTKFace" / "30_0_0_1.jpg").write_bytes(b"damaged")
    return tmp_path


def test_csv_in_the_working_folder(folder):
    done = run_script("create_db_utkface.py", "-i", "UTKFace", "-o", "my.csv")
    assert done.returncode == 0, done.stderr
    assert "not used, unreadable: 30_0_0_1.jpg" in done.stdout
    assert "        6 used" in done.stdout
    assert f"data.db=my.csv data.image_dir={folder / 'UTKFace'}" in done.stdout
    table = load_table("my.csv", image_dir="UTKFace")
    assert table["age"].tolist() == [20, 21, 22, 23, 24, 25]
    assert table["gender"].tolist() == [1, 0, 1, 0, 1, 0]


def test_mat(folder):
    done = run_script("create_db_utkface.py", "--input", "UTKFace", "--output", "UTKFace.mat", "--img_size", "12")
    assert done.returncode == 0, done.stderr
    table = load_table("UTKFace.mat")
    assert table["image"][0].shape == (12, 12, 3)
    assert table["age"].tolist() == [20, 21, 22, 23, 24, 25]
    assert run_script("create_db_utkface.py", "-i", "UTKFace", "-o", "UTKFace.mat").returncode == 0
    assert load_table("UTKFace.mat")["image"][0].shape == (64, 64, 3)


def test_mistakes_are_one_line(folder):
    for arguments in (["-i", "missing", "-o", "my.csv"], ["-i", "UTKFace", "-o", "my.txt"]):
        done = run_script("create_db_utkface.py", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    (folder / "bad").mkdir()
    (folder / "bad" / "30_0_0_1.jpg").write_bytes(b"damaged")
    done = run_script("create_db_utkface.py", "-i", "bad", "-o", "my.csv")
    assert done.returncode == 1
    assert "1 unreadable" in done.stderr


def test_help_is_quick():
    done = run_help("create_db_utkface.py")
    assert done.returncode == 0, done.stderr
    assert "--img_size" in done.stdout
