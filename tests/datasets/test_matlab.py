import h5py
import numpy as np
import pytest
from matlab_v73 import write_v73
from scipy.io import savemat

from src.datasets.matlab import load_mat

CELLS = np.empty((1, 2), dtype=object)
CELLS[0] = [np.array(["x.jpg"]), np.array(["längs.jpg"])]
CONTENT = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "counts": np.array([[1, 2]], dtype=np.uint16),
    "names": np.array(["male  ", "female"]),
    "my": {"dob": np.array([[700000.0, 1.5]]), "full_path": CELLS},
    "nothing": np.zeros((0, 0)),
}


@pytest.fixture(params=[savemat, write_v73])
def path(request, tmp_path):
    request.param(tmp_path / "my.mat", CONTENT)
    return tmp_path / "my.mat"


def test_both_formats_give_the_same_arrays(path):
    content = load_mat(path, "image", "counts", "names", "my/dob", "my/full_path", "nothing")
    assert set(content) == {"image", "counts", "names", "my/dob", "my/full_path", "nothing"}
    np.testing.assert_array_equal(content["image"], np.arange(24).reshape(2, 3, 4))
    assert content["image"].dtype == np.uint8
    assert content["counts"].tolist() == [[1, 2]]
    assert content["names"].tolist() == ["male  ", "female"]
    assert content["my/dob"].tolist() == [[700000.0, 1.5]]
    assert content["my/full_path"].shape == (1, 2)
    assert [cell.tolist() for cell in content["my/full_path"].ravel()] == [["x.jpg"], ["längs.jpg"]]
    assert content["nothing"].shape == (0, 0)


def test_reads_only_what_is_asked_for(path):
    assert list(load_mat(path, "counts")) == ["counts"]


def test_reads_all_variables_by_default(tmp_path):
    for write in (savemat, write_v73):
        write(tmp_path / "my.mat", {"a": np.eye(2), "b": np.zeros((0, 3))})
        assert {name: value.tolist() for name, value in load_mat(tmp_path / "my.mat").items()} == {
            "a": [[1, 0], [0, 1]],
            "b": [],
        }
        (tmp_path / "my.mat").unlink()


def test_files_of_other_writers_may_lack_the_classes(tmp_path):
    with h5py.File(tmp_path / "my.mat", "w") as file:
        file["years"] = np.array([[1990, 2000]], dtype=np.uint16).T
        file["a"] = np.array([[ord(letter) for letter in "x.jpg"]], dtype=np.uint16).T
        file["paths"] = np.array([[file["a"].ref]], dtype=h5py.ref_dtype).T
    content = load_mat(tmp_path / "my.mat")
    assert content["years"].tolist() == [[1990, 2000]]
    assert content["paths"][0, 0].tolist() == ["x.jpg"]
