"""Compare the speed of cleaning IMDB's labels with a plain loop over rows, on generated labels of IMDB's size.

    python benchmarks/create_db.py

Both start from loaded arrays; reading the .mat file is not timed. Their tables must be equal.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import JobError, Parser, run
from src.datasets import imdb_wiki
from src.datasets.csv_table import write_csv

IMDB_ENTRIES = 460_723
MIN_SCORE = 1.0

Arrays = dict[str, np.ndarray]


def generate_arrays(entries: int, rng: np.random.Generator) -> Arrays:
    """Generate labels like those of `src.datasets.imdb_wiki.load_arrays`, with all flaws of the real ones."""
    dob = rng.integers(693_000, 730_000, entries, dtype=np.int32)
    dob[rng.random(entries) < 0.01] = 1
    paths = np.empty(entries, dtype=object)
    paths[:] = [np.array([f"{n % 100:02}/nm{n % 20_284:07}_rm{n}_1950-1-1_2000.jpg"]) for n in range(entries)]
    return {
        "dob": dob,
        "photo_taken": rng.integers(1960, 2016, entries, dtype=np.uint16),
        "gender": np.where(rng.random(entries) < 0.02, np.nan, rng.integers(0, 2, entries)),
        "face_score": np.where(rng.random(entries) < 0.1, -np.inf, rng.normal(2.5, 1.5, entries)),
        "second_face_score": np.where(rng.random(entries) < 0.5, np.nan, rng.normal(2, 1, entries)),
        "full_path": paths,
    }


def clean_by_rows(arrays: Arrays) -> pd.DataFrame:
    """Apply the rules of `create_db.py` row by row, without numpy."""
    genders, ages, paths = [], [], []
    for row in range(len(arrays["dob"])):
        born = date.fromordinal(max(int(arrays["dob"][row]) - 366, 1))
        age = int(arrays["photo_taken"][row]) - born.year - (born.month >= 7)
        if arrays["face_score"][row] < MIN_SCORE or arrays["second_face_score"][row] > 0:
            continue
        if not 0 <= age <= 100 or math.isnan(arrays["gender"][row]):
            continue
        genders.append(int(arrays["gender"][row]))
        ages.append(age)
        paths.append(str(arrays["full_path"][row][0]))
    return pd.DataFrame({"genders": genders, "ages": ages, "img_paths": paths})


def clean_by_columns(arrays: Arrays) -> pd.DataFrame:
    return imdb_wiki.meta_table(imdb_wiki.label_table(arrays, MIN_SCORE))


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--entries", type=int, default=IMDB_ENTRIES, help="number of rows")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts")
    args = parser.parse_args()
    arrays = generate_arrays(args.entries, np.random.default_rng(0))
    table = clean_by_columns(arrays)
    if not table.equals(clean_by_rows(arrays)):
        raise JobError("the two tables differ")
    print(f"{args.entries:,} entries, {len(table):,} used, equal tables\n")
    print(f"{'':22}{'rows':>9}{'columns':>9}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder, "imdb.csv")
        for name, then in (("clean", lambda table: None), ("clean and write CSV", lambda table: write_csv(table, csv))):
            rows = best_time(lambda then=then: then(clean_by_rows(arrays)), args.repeats)
            columns = best_time(lambda then=then: then(clean_by_columns(arrays)), args.repeats)
            print(f"{name:22}{rows:8.2f}s{columns:8.2f}s{columns / rows:8.2f}")


if __name__ == "__main__":
    run(main)
