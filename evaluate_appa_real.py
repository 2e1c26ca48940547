"""Evaluate weights on APPA-REAL (`./download.sh appa-real` fetches it).

The bundled model on the 1,500 images of the validation part:
    python evaluate_appa_real.py
Other weights on the test part, with plots:
    python evaluate_appa_real.py --weight_file checkpoints/NAME.hdf5 --split test --output_dir results/appa-real
"""

from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

from src.cli import Parser, run


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--weight_file", help="weights to evaluate (default: the bundled model)")
    parser.add_argument("--split", default="valid", choices=["valid", "test", "train"], help="part of the dataset")
    parser.add_argument("--image_dir", type=Path, help="the dataset's folder (default: appa-real/appa-real-release)")
    parser.add_argument("--flip", action=BooleanOptionalAction, help="average over mirror images (default: as trained)")
    parser.add_argument("--batch_size", type=int, default=32, help="faces per call of the model")
    parser.add_argument("--output_dir", type=Path, help="folder for the report, predictions.csv and plots")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from src.evaluation import evaluate_appa_real
    from src.inference import AgeGenderEstimator  # after --help has answered: these imports take seconds

    estimator = AgeGenderEstimator.load(args.weight_file, args.batch_size, args.flip)
    _, lines = evaluate_appa_real(estimator, args.image_dir, args.split, args.output_dir)
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
