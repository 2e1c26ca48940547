import h5py
import numpy as np
import pytest
from scipy.io import savemat

from src.datasets.matlab import load_mat


def text(file, name, *rows):
    """A character array as MATLAB 7.3 stores it: 16-bit numbers, dimensions reversed."""
    data = np.array([[ord(letter) for letter in row] for row in rows], dtype=np.uint16).T
    file[name] = data
    file[name].attrs["MATLAB_class"] = np.bytes_("char")
    return file[name]


def write_v73(path):
    """A struct, a number array, a small uint16 array and texts, as `save -v7.3` writes them."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["image"] = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).T
        file["counts"] = np.array([[1, 2]], dtype=np.uint16).T
        file["counts"].attrs["MATLAB_class"] = np.bytes_("uint16")
        text(file, "names", "male  ", "female")
        file["my/dob"] = np.array([[700000.0, 1.5]]).T
        cells = [text(file, f"#refs#/{name}", row).ref for name, row in zip("ab", ["x.jpg", "längs.jpg"], strict=True)]
        file["my/full_path"] = np.array([cells], dtype=h5py.ref_dtype).T
        file["nothing"] = np.array([0, 0], dtype=np.uint64)
        file["nothing"].attrs["MATLAB_empty"] = np.uint8(1)


@pytest.fixture(params=["5", "7.3"])
def path(request, tmp_path):
    path = tmp_path / "my.mat"
    if request.param == "7.3":
        write_v73(path)
        return path
    cells = np.empty((1, 2), dtype=object)
    cells[0] = ["x.jpg", "längs.jpg"]
    content = {
        "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "counts": np.array([[1, 2]], dtype=np.uint16),
        "names": np.array(["male", "female"]),
        "my": {"dob": np.array([[700000.0, 1.5]]), "full_path": cells},
        "nothing": np.zeros((0, 0)),
    }
    savemat(path, content)
    return path


def test_both_formats_give_the_same_arrays(path):
    content = load_mat(path)
    assert set(content) == {"image", "counts", "names", "my", "nothing"}
    np.testing.assert_array_equal(content["image"], np.arange(24).reshape(2, 3, 4))
    assert content["image"].dtype == np.uint8
    assert content["counts"].tolist() == [[1, 2]]
    assert content["names"].tolist() == ["male  ", "female"]
    assert content["my"]["dob"].tolist() == [[700000.0, 1.5]]
    assert content["my"]["full_path"].shape == (1, 2)
    assert [cell.tolist() for cell in content["my"]["full_path"].ravel()] == [["x.jpg"], ["längs.jpg"]]
    assert content["nothing"].shape == (0, 0)


def test_reads_only_what_is_asked_for(path):
    assert list(load_mat(path, "counts")) == ["counts"]
