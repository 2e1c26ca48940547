"""What the demo says about a picture, and the files it says it in: `predictions.csv` and `predictions.jsonl`."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from src.files import write_whole
from src.inference import Prediction

CSV_NAME = "predictions.csv"
JSON_NAME = "predictions.jsonl"
FILE_NAMES = "surrogateescape"
"""How the bytes of a file name that is no UTF-8 reach the CSV: as they are. JSON has an escape for them."""
CSV_HEADER = ("image", "left", "top", "right", "bottom", "age", "gender", "male_probability")


class PredictionFiles:
    """Writes predictions picture by picture; what was written survives when the process is stopped.

    Args:
        folder: Where the files are written; it exists.
        with_json: Also write `predictions.jsonl`, one line a picture, pictures without a face included.
        keep: Names of pictures whose rows of an earlier run stay in the files; all other old rows go.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, with_json: bool = False, keep: frozenset[str] = frozenset()):
        rows = _read_rows(folder / CSV_NAME, keep)
        lines = _read_lines(folder / JSON_NAME, keep) if with_json else []
        self._csv_file = _begin(folder / CSV_NAME, _csv_text([CSV_HEADER, *rows]), FILE_NAMES)
        self._json_file = _begin(folder / JSON_NAME, "".join(lines), "backslashreplace") if with_json else None

    def write(self, image: str, predictions: Sequence[Prediction]) -> None:
        """Adds the faces of one picture, named as its path below the folder or as the frame's number."""
        self._csv_file.write(_csv_text(csv_row(image, prediction) for prediction in predictions))
        self._csv_file.flush()
        if self._json_file:
            self._json_file.write(json_line(image, predictions))
            self._json_file.flush()

    def close(self) -> None:
        self._csv_file.close()
        if self._json_file:
            self._json_file.close()

    def __enter__(self) -> "PredictionFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def csv_row(image: str, prediction: Prediction) -> tuple:
    """One face as a row under `CSV_HEADER`."""
    return (
        image,
        *prediction.box,
        f"{prediction.age:.2f}",
        prediction.gender,
        f"{prediction.male_probability:.4f}",
    )


def json_line(image: str, predictions: Sequence[Prediction]) -> str:
    """One picture with all of its faces as a line of JSON."""
    faces = [
        {
            "box": list(prediction.box),
            "age": round(prediction.age, 2),
            "gender": prediction.gender,
            "male_probability": round(prediction.male_probability, 4),
        }
        for prediction in predictions
    ]
    return json.dumps({"image": image, "faces": faces}, ensure_ascii=False) + "\n"


def _csv_text(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _begin(path: Path, text: str, errors: str) -> TextIO:
    """Replaces the file as a whole, so that no row of an earlier run is lost, and opens it for more."""
    with write_whole(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors, newline="\n")
    return path.open("a", encoding="utf-8", errors=errors, newline="\n")


def _read_rows(path: Path, keep: frozenset[str]) -> list[list[str]]:
    if not keep or not path.exists():
        return []
    with path.open(encoding="utf-8", errors=FILE_NAMES, newline="") as file:
        return [row for row in csv.reader(file) if len(row) == len(CSV_HEADER) and row[0] in keep]


def _read_lines(path: Path, keep: frozenset[str]) -> list[str]:
    if not keep or not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # names may hold other line ends
        try:
            if json.loads(line)["image"] in keep:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):  # the last line of a stopped run
            continue
    return kept
