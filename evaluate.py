"""Says how right weights are on a table of labelled faces that they did not learn from.

The bundled model on UTKFace's test split, with plots:
    python evaluate.py --output_dir results/utkface
Weights trained on IMDB, tested on WIKI:
    python evaluate.py --weight_file checkpoints/NAME.hdf5 --db wiki --split all
Your own labelled pictures, whole photographs or face crops:
    python evaluate.py --db my_table.csv --image_dir my_pictures --split all
"""

import argparse
from pathlib import Path

from src.cli import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight_file", help="weights to evaluate (default: the bundled model)")
    parser.add_argument("--db", default="utkface", help="a table's name, .csv or .mat file (default: utkface)")
    parser.add_argument("--image_dir", help="where the table's pictures lie (default: their usual place)")
    parser.add_argument("--split", default="test", choices=["train", "val", "test", "all"], help="(default: test)")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="average over mirror images (default: as trained)"
    )
    parser.add_argument(
        "--detect", action="store_true", help="find the face in each picture as demo.py does, and compare"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="faces in one call of the model (default: 32)")
    parser.add_argument("--output_dir", type=Path, help="write report, predictions.csv and plots here")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from src.evaluation import evaluate
    from src.inference import AgeGenderEstimator  # after --help has answered: these imports take seconds

    estimator = AgeGenderEstimator.load(args.weight_file, args.batch_size, args.flip)
    _, lines = evaluate(estimator, args.db, args.image_dir, args.split, args.output_dir, args.detect)
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
