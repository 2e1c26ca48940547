"""Writes small `.mat` files in the true nesting of IMDB-WIKI's."""

from pathlib import Path

import numpy as np
from scipy.io import savemat


def serial_day(year: int, month: int, day: int) -> int:
    """MATLAB's serial day, in which 1 January of year 1 is day 367."""
    return (np.datetime64(f"{year:04}-{month:02}-{day:02}") - np.datetime64("0001-01-01")).astype(int).item() + 367


def write_imdb_wiki(path: Path, db: str, rows: list[dict]) -> None:
    """Writes `{db: struct}`; a row holds dob, photo_taken, full_path and may hold gender and the two scores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = np.empty((1, len(rows)), dtype=object)
    locations = np.empty((1, len(rows)), dtype=object)
    for number, row in enumerate(rows):
        paths[0, number] = row["full_path"]
        locations[0, number] = np.array([[1.0, 2.0, 3.0, 4.0]])
    fields = {
        "dob": np.array([[row["dob"] for row in rows]], dtype=np.int32),
        "photo_taken": np.array([[row["photo_taken"] for row in rows]], dtype=np.uint16),
        "full_path": paths,
        "gender": np.array([[row.get("gender", 1.0) for row in rows]], dtype=np.float64),
        "face_location": locations,
        "face_score": np.array([[row.get("face_score", 4.0) for row in rows]], dtype=np.float64),
        "second_face_score": np.array([[row.get("second_face_score", np.nan) for row in rows]], dtype=np.float64),
    }
    struct = np.empty((1, 1), dtype=[(name, object) for name in fields])
    for name, values in fields.items():
        struct[name][0, 0] = values
    savemat(path, {db: struct}, do_compression=True)
