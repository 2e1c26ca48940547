"""The files that hold what the demo predicts: `predictions.csv` and `predictions.jsonl`."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.cli import UserError
from src.demo.results import Result, Results
from src.files import RowWriter, append_lines, read_json_lines, write_whole
from src.inference import Prediction

CSV_NAME = "predictions.csv"
JSON_NAME = "predictions.jsonl"
FILE_NAMES = "surrogateescape"
"""How the bytes of a file name that is no UTF-8 reach the CSV: as they are. JSON has an escape for them."""
CSV_HEADER = ("image", "left", "top", "right", "bottom", "age", "gender", "male_probability", "frame", "time")
OLD_HEADER = CSV_HEADER[:8]


class PredictionFiles:
    """Append predictions to the files of an output folder, which other runs may extend at the same time.

    What was written survives when the process is stopped.
    """

    def __init__(self, results: Results, replaced: Iterable[str] = (), with_json: bool = False):
        """Create the files where they are missing, and remove old rows.

        Args:
            replaced: Names whose rows are removed; all others stay.
            with_json: Also write `predictions.jsonl`, one line per image or frame, those without a face included.

        Raises:
            UserError: There is a `predictions.csv` that the demo did not write.
            OSError: A file cannot be written.
        """
        self.results, self.with_json = results, with_json
        self._csv, self._json = results.folder / CSV_NAME, results.folder / JSON_NAME
        replaced = set(replaced)
        with results.lock:
            _replace(self._csv, _csv_text([CSV_HEADER, *_other_rows(self._csv, replaced)]), FILE_NAMES)
            results.reopen(replaced)
            if with_json or self._json.exists():
                _replace(self._json, _json_text(_other_lines(self._json, replaced)), "backslashreplace")

    def write(
        self,
        result: Result,
        predictions: Sequence[Prediction],
        frame: int | None = None,
        time: float | None = None,
        complete: bool = True,
    ) -> None:
        """Append the faces of one image, or of a frame at `time` seconds.

        Args:
            complete: Nothing more of this result will follow.

        Raises:
            OSError: A file cannot be written.
        """
        rows = _csv_text(csv_row(result.name, prediction, frame, time) for prediction in predictions)
        with self.results.lock:
            append_lines(self._csv, rows, FILE_NAMES)
            if self.with_json:
                append_lines(self._json, json_line(result.name, predictions, frame, time), "backslashreplace")
            if complete:
                self.results.finish(result, len(predictions))


def csv_row(image: str, prediction: Prediction, frame: int | None = None, time: float | None = None) -> tuple:
    """Return one face as a row under `CSV_HEADER`; cells of what is not known are empty."""
    return (
        image,
        *prediction.box,
        "" if math.isnan(prediction.age) else f"{prediction.age:.2f}",
        prediction.gender,
        "" if math.isnan(prediction.male_probability) else f"{prediction.male_probability:.4f}",
        "" if frame is None else frame,
        "" if time is None else f"{time:.3f}",
    )


def json_line(
    image: str, predictions: Sequence[Prediction], frame: int | None = None, time: float | None = None
) -> str:
    """Return one image or frame with all of its faces as a line of JSON."""
    faces = [
        {
            "box": list(prediction.box),
            "age": _known(prediction.age, 2),
            "gender": prediction.gender or None,
            "male_probability": _known(prediction.male_probability, 4),
        }
        for prediction in predictions
    ]
    moment = {} if frame is None else {"frame": frame, "time": round(time or 0.0, 3)}
    return _json_text([{"image": image, **moment, "faces": faces}])


def _known(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def count_rows(folder: Path) -> Counter[str]:
    """Count the rows of each name in `predictions.csv`."""
    return Counter(row[0] for row in _other_rows(folder / CSV_NAME, set()))


def names_in_json(folder: Path) -> set[str]:
    """Return the names that have a line in `predictions.jsonl`."""
    return {line["image"] for line in _other_lines(folder / JSON_NAME, set())}


def _csv_text(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(RowWriter(text)).writerows(rows)
    return text.getvalue()


def _replace(path: Path, text: str, errors: str) -> None:
    """Write a file as a whole, so that no row is lost at any moment."""
    data = text.encode("utf-8", errors)
    if not path.exists() or path.read_bytes() != data:
        with write_whole(path) as part:
            part.write_bytes(data)


def _other_rows(path: Path, without: set[str]) -> list[list[str]]:
    """Read the rows of all names but some; a torn last row goes, rows of older versions get two empty cells.

    A spreadsheet may have written the file anew, with `;` between the cells.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", errors=FILE_NAMES, newline="") as file:
        separator = ";" if file.readline().startswith(f"{CSV_HEADER[0]};") else ","
        file.seek(0)
        rows = csv.reader(file, delimiter=separator)
        header = tuple(next(rows, CSV_HEADER))
        if header not in (CSV_HEADER, OLD_HEADER):
            raise UserError(
                f"{path} must begin with the line {','.join(CSV_HEADER)} as demo.py writes it, got"
                f" {','.join(header)[:200]}; use another --output_dir"
            )
        empty = [""] * (len(CSV_HEADER) - len(header))
        return [[*row, *empty] for row in rows if len(row) == len(header) and row[0] not in without]


def _other_lines(path: Path, without: set[str]) -> list[dict]:
    lines = (line for line in read_json_lines(path) if isinstance(line, dict) and "image" in line)
    return [line for line in lines if line["image"] not in without]


def _json_text(lines: Iterable[dict]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
