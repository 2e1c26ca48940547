"""Read MATLAB files of every version: up to 7 by scipy, 7.3 (which is HDF5) by h5py, both into the same arrays."""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat


def load_mat(path: Path, *names: str) -> dict:
    """Read variables of a `.mat`.

    Args:
        path: The file.
        names: The variables, by default all of them.

    Returns:
        Name -> array of at least two dimensions, as MATLAB shows it: texts are arrays of str with one entry per row,
        cell arrays have dtype object. A struct of one element is a dictionary of such arrays.

    Raises:
        Exception: almost any; damaged files make both libraries raise what they will.
    """
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return {name: _from_hdf5(file[name], file) for name in names or file if not name.startswith("#")}
    content = loadmat(path, variable_names=names or None)
    return {name: _from_scipy(value) for name, value in content.items() if not name.startswith("__")}


def _from_scipy(value: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
    if value.dtype.names and value.size == 1:
        return {field: value[field].item() for field in value.dtype.names}
    return value


def _from_hdf5(item: h5py.Group | h5py.Dataset, file: h5py.File, default: bytes = b"") -> np.ndarray | dict:
    """An array or a struct; MATLAB stores arrays with their dimensions reversed, and texts as 16-bit numbers."""
    if isinstance(item, h5py.Group):
        return {field: _from_hdf5(item[field], file) for field in item}
    kind = item.attrs.get("MATLAB_class", default)
    if item.attrs.get("MATLAB_empty"):  # the dataset holds the size of what is empty
        return np.zeros(item[()], dtype=np.str_ if kind == b"char" else np.float64)
    values = item[()].T
    if item.dtype == h5py.ref_dtype:
        cells = np.empty(values.size, dtype=object)
        cells[:] = [_from_hdf5(file[reference], file, b"char") for reference in values.ravel()]
        return cells.reshape(values.shape)
    return as_text(values) if kind == b"char" else values


def as_text(values: np.ndarray) -> np.ndarray:
    """Decode rows of 16-bit numbers, `(n, length)` -> `(n,)` str; other arrays stay as they are."""
    return np.array(["".join(map(chr, row)) for row in values]) if values.dtype == np.uint16 else values
