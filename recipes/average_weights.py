"""Average the weights of several epochs of one training (after Izmailov et al., arXiv 1803.05407).

    python recipes/average_weights.py -o average.hdf5 --db utkface fairface -- NAME.03-1.05.hdf5 NAME.04-1.05.hdf5

Unlike there, the moving statistics of batch norm are averaged too, not measured anew. The validation images of `--db`
give the metrics that are written into the file.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run
from src.files import write_whole


def average(files: list[Path]):
    """Return a network with the mean of the files' weights, and the description of the last file without metrics."""
    from src.models import load_model

    models, infos = zip(*(load_model(path) for path in files), strict=True)
    if len({(info.model_name, info.img_size, info.run) for info in infos}) > 1:
        raise UserError(f"the files must come from one training, got {', '.join(map(str, files))}")
    weights = zip(*(model.get_weights() for model in models), strict=True)
    models[-1].set_weights([np.mean(values, 0) for values in weights])
    return models[-1], dataclasses.replace(infos[-1], metrics={})


def validate(weight_file: Path, rows: pd.DataFrame) -> dict[str, float]:
    """Measure the age error in years and the gender accuracy."""
    from src.evaluation.metrics import of_rows
    from src.evaluation.predict_table import predict_table
    from src.inference import AgeGenderEstimator

    measured = of_rows(predict_table(AgeGenderEstimator.load(weight_file), rows).predictions)
    return {"val_pred_age_mae": measured["mae"], "val_pred_gender_accuracy": measured["gender_accuracy"]}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="weight files (.hdf5) of one training")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--db", nargs="+", required=True, help="tables as in data.db")
    args = parser.parse_args()
    from src.datasets import load_table
    from src.models import save_weights

    tables = [load_table(name) for name in args.db]
    rows = pd.concat([table[table["split"] == "val"] for table in tables], ignore_index=True)
    model, info = average(args.files)
    with write_whole(args.output) as part:
        save_weights(model, part, info)
        info = dataclasses.replace(info, metrics=validate(part, rows))
        save_weights(model, part, info)
    print(f"{args.output}: {info.metrics}")


if __name__ == "__main__":
    run(main)
