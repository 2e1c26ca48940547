"""Writes MATLAB 7.3 files (HDF5) as `save -v7.3` does."""

from itertools import count
from pathlib import Path

import h5py
import numpy as np

CLASSES = {"float64": "double", "float32": "single", "bool": "logical"}


def write_v73(path: Path, content: dict) -> None:
    """Write variables: arrays (of texts too) as MATLAB shows them, object arrays as cells, dicts as structs."""
    with h5py.File(path, "w", userblock_size=512) as file:
        numbers = count()
        for name, value in content.items():
            _write(file, file, name, value, numbers)


def _write(file: h5py.File, group: h5py.Group, name: str, value, numbers) -> None:
    if isinstance(value, dict):
        struct = group.create_group(name)
        for field, item in value.items():
            _write(file, struct, field, item, numbers)
        return
    if value.dtype.kind == "U":  # 16-bit numbers, one text per row
        data, kind = np.array([[ord(letter) for letter in row] for row in value], dtype=np.uint16), "char"
    elif value.dtype == object:
        data, kind = np.empty(value.shape, dtype=h5py.ref_dtype), "cell"
        for place, item in np.ndenumerate(value):
            key = f"#refs#/{next(numbers)}"
            _write(file, file, key, item, numbers)
            data[place] = file[key].ref
    else:
        data, kind = value, CLASSES.get(value.dtype.name, value.dtype.name)
    if data.size:
        group[name] = data.T  # dimensions are reversed
    else:
        group[name] = np.array(data.shape, dtype=np.uint64)
        group[name].attrs["MATLAB_empty"] = np.uint8(1)
    group[name].attrs["MATLAB_class"] = np.bytes_(kind)
