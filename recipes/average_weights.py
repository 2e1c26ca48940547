"""Average weight files of one training: often better than each of them (Izmailov et al., arXiv 1803.05407).

    python recipes/average_weights.py -o average.hdf5 --db utkface fairface -- NAME.03-1.05.hdf5 NAME.04-1.05.hdf5

The validation images of `--db` give the metrics that are written into the file.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run


def average(files: list[Path], output: Path) -> None:
    """Write the mean of the files' weights, with the description of the last one, but no metrics."""
    from src.models import load_model, save_weights

    models, infos = zip(*(load_model(path) for path in files), strict=True)
    if len({(info.model_name, info.img_size) for info in infos}) > 1:
        raise UserError(f"the files must hold one network of one size, got {', '.join(map(str, files))}")
    weights = zip(*(model.get_weights() for model in models), strict=True)
    models[-1].set_weights([np.mean(values, 0) for values in weights])
    save_weights(models[-1], output, dataclasses.replace(infos[-1], metrics={}))


def validate(weight_file: Path, tables: list[str]) -> dict[str, float]:
    """Measure the age error in years and the gender accuracy on the validation parts of tables."""
    from src.datasets import load_table
    from src.evaluation.metrics import of_rows
    from src.evaluation.predict_table import predict_table
    from src.inference import AgeGenderEstimator

    estimator = AgeGenderEstimator.load(weight_file)
    parts = [table[table["split"] == "val"] for table in map(load_table, tables)]
    measured = of_rows(pd.concat([predict_table(estimator, part).predictions for part in parts]))
    return {"val_pred_age_mae": measured["mae"], "val_pred_gender_accuracy": measured["gender_accuracy"]}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="weight files (.hdf5) of the same network")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--db", nargs="+", required=True, help="tables as in data.db")
    args = parser.parse_args()
    average(args.files, args.output)
    metrics = validate(args.output, args.db)
    from src.models import load_model, save_weights

    model, info = load_model(args.output)
    save_weights(model, args.output, dataclasses.replace(info, metrics=metrics))
    print(f"{args.output}: {metrics}")


if __name__ == "__main__":
    run(main)
