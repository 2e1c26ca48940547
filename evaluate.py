"""Evaluate weights on a held-out labelled dataset.

The bundled model on UTKFace's test split, with plots:
    python evaluate.py --output_dir results/utkface
Weights trained on IMDB, tested on WIKI:
    python evaluate.py --weight_file checkpoints/NAME.hdf5 --db wiki --split all
FairFace's validation part, faces found as the demo finds them:
    python evaluate.py --db fairface --detect
Your own labelled images, photos or face crops:
    python evaluate.py --db my_table.csv --image_dir my_images --split all
"""

from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

from src.cli import Parser, run


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--weight_file", help="weights to evaluate (default: the bundled model)")
    parser.add_argument("--db", default="utkface", help="name of a table, or a .csv or .mat file")
    parser.add_argument("--image_dir", help="folder of the table's images (default: their usual place)")
    parser.add_argument("--split", default="test", choices=["train", "val", "test", "all"], help="part of the table")
    parser.add_argument("--flip", action=BooleanOptionalAction, help="average over mirror images (default: as trained)")
    parser.add_argument(
        "--detect", action="store_true", help="find the face in each image as demo.py does, and compare"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="faces per call of the model")
    parser.add_argument("--output_dir", type=Path, help="folder for the report, predictions.csv and plots")
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
