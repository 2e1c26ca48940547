"""Read MATLAB files of every version: up to 7 by scipy, 7.3 (which is HDF5) by h5py, both into the same arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py


def load_mat(path: Path, *names: str) -> dict:
    """Read variables of a `.mat`.

    Args:
        names: The variables, by default all of them; `struct/field` for a field of a struct.

    Returns:
        Name -> array of at least two dimensions, as MATLAB shows it: texts are arrays of str with one entry per row,
        cell arrays have dtype object.

    Raises:
        Exception: almost any; damaged files make both libraries raise what they will.
    """
    import h5py  # here, so that other tables are read where these are not installed
    from scipy.io import loadmat

    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return {name: _from_hdf5(file[name]) for name in names or file if not name.startswith("#")}
    content = loadmat(path, variable_names={name.split("/")[0] for name in names} or None)
    return {name: _from_scipy(content, name) for name in names or content if not name.startswith("__")}


def _from_scipy(content: dict[str, np.ndarray], name: str) -> np.ndarray:
    variable, _, field = name.partition("/")
    return content[variable][field].item() if field else content[variable]


def _from_hdf5(item: h5py.Dataset) -> np.ndarray:
    """Convert to an array; MATLAB stores its dimensions reversed, texts as 16-bit numbers, cells as references."""
    import h5py

    kind = item.attrs.get("MATLAB_class")
    if item.attrs.get("MATLAB_empty"):  # the dataset holds the size of what is empty
        return np.zeros(item[()], dtype=np.str_ if kind == b"char" else np.float64)
    values = item[()].T
    if item.dtype == h5py.ref_dtype:
        cells, file = np.empty(values.size, dtype=object), item.file
        cells[:] = [as_text(file[cell][()].T) for cell in values.ravel()]
        return cells.reshape(values.shape)
    return as_text(values) if kind == b"char" else values


def as_text(values: np.ndarray) -> np.ndarray:
    """Decode rows of 16-bit numbers, `(n, length)` -> `(n,)` str; other arrays stay as they are."""
    return np.array(["".join(map(chr, row)) for row in values]) if values.dtype == np.uint16 else values
