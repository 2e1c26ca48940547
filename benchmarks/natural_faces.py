"""Measures the whole way on photographs in which one labelled face is to be found: detection, crop, estimate.

    python benchmarks/natural_faces.py --image_dir DIR --labels DIR/labels.csv [--weight_file W]

The CSV has the columns `file_name,age_group,gender`, age groups such as `20-29` and `70+`, genders `Male` and `Female`.
Faces are found and cut as `demo.py` does; in a photograph with several the large and central one counts.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import UserError, run

ADULT_GROUPS_FROM = "20-29"
CHILD_GROUPS = ("0-2", "3-9")


def read_labels(csv: Path, image_dir: Path) -> pd.DataFrame:
    """A table of whole photographs (see `src.datasets.table`), with `group`, an index into `metrics.AGE_GROUPS`."""
    from src.evaluation.metrics import AGE_GROUPS
    from src.labels import GENDERS

    try:
        rows = pd.read_csv(csv, dtype=str)[["file_name", "age_group", "gender"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"expected the columns file_name,age_group,gender in {csv}, received: {error}") from error
    gender = rows["gender"].str.lower().map({name: float(index) for index, name in enumerate(GENDERS)})
    group = rows["age_group"].map({name: index for index, name in enumerate(AGE_GROUPS)})
    if group.isna().any():
        received = rows.loc[group.isna(), "age_group"].iloc[0]
        raise UserError(f"expected the age groups {', '.join(AGE_GROUPS)} in {csv}, received {received!r}")
    paths = [str(image_dir / name) for name in rows["file_name"]]
    return pd.DataFrame({"path": paths, "gender": gender, "age": np.nan, "margin": np.nan, "group": group.astype(int)})


def measure(table: pd.DataFrame, found: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Name of each figure -> share and how many photographs it is a share of."""
    from src.evaluation import metrics

    adults = found[found["group"] >= metrics.AGE_GROUPS.index(ADULT_GROUPS_FROM)]
    children = found[found["group"] < len(CHILD_GROUPS)]
    called_adult = (children["predicted_age"] >= metrics.ADULT_AGE).mean() if len(children) else np.nan
    return {
        "faces found": (len(found) / len(table), len(table)),
        "gender accuracy": (metrics.gender_accuracy(found["gender"], found["male_probability"]), len(found)),
        "gender accuracy from 20 years": (
            metrics.gender_accuracy(adults["gender"], adults["male_probability"]),
            len(adults),
        ),
        "age within one age group": (metrics.within_one_group(found["group"], found["predicted_age"]), len(found)),
        "children below 10 called 18 or older": (called_adult, len(children)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_dir", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--weight_file")
    args = parser.parse_args()

    from src.evaluation.predict_table import predict_table
    from src.evaluation.report import format_skipped, skipped_pictures
    from src.inference.estimator import AgeGenderEstimator

    table = read_labels(args.labels, args.image_dir)
    estimator = AgeGenderEstimator.load(args.weight_file)
    outcome = predict_table(estimator, table)
    print(f"Model: {estimator.describe()}")
    for name, (share, count) in measure(table, outcome.predictions).items():
        print(f"{name:38} {share:6.3f}  of {count:,}")
    print("\n".join(format_skipped(skipped_pictures(outcome))))


if __name__ == "__main__":
    run(main)
