"""Write what networks predict for the training images of tables, to train on with `train.predictions`.

    python recipes/predict_targets.py -o checkpoints/predictions.npz --db utkface fairface --weight_file A.onnx B.onnx
    python train.py data.db=[utkface,fairface] train.predictions=checkpoints/predictions.npz

Each network sees each image once, cut as in evaluation, and as a mirror image where its weight file or `--flip` says
so. The file holds the mean over the networks. Tables are read from their usual places (no `data.image_dir`) and split
as by default.
"""

import sys
from argparse import BooleanOptionalAction, Namespace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import JobError, Parser, UserError, run
from src.datasets import load_training_part, read_faces
from src.files import write_whole
from src.inference import AgeGenderEstimator
from src.labels import HEADS


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--db", nargs="+", required=True, help="tables as in data.db: names, or .csv or .mat files")
    parser.add_argument("--weight_file", nargs="+", required=True, help="networks that predict")
    parser.add_argument("--flip", action=BooleanOptionalAction, help="average over mirror images (default: as trained)")
    parser.add_argument("--limit", type=int, help="only the first images")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".npz" or not args.output.parent.is_dir():
        raise UserError(f"--output must be an .npz file in a folder that exists, got {args.output}")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be >= 1, got {args.limit}")
    estimators = [AgeGenderEstimator.load(path, 64, args.flip) for path in args.weight_file]
    for estimator in estimators:
        if estimator.info.heads != HEADS:
            raise UserError(f"--weight_file must have both heads, got {estimator.source} without one")
    table = load_training_part(args.db)[: args.limit]
    predictions = [predict(estimator, table) for estimator in estimators]
    paths = [path for path in predictions[0] if all(path in others for others in predictions)]
    if not paths:
        raise JobError(f"none of the {len(table):,} images can be read; nothing is written")
    genders, ages = (np.mean([[each[path][head] for path in paths] for each in predictions], axis=0) for head in (0, 1))
    with write_whole(args.output) as part:
        np.savez(part, path=np.array(paths), gender=genders.astype("f4"), age=ages.astype("f4"))
    print(f"{args.output}: predictions for {len(paths):,} of {len(table):,} images")


def predict(estimator: AgeGenderEstimator, table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predict genders `(2,)` and ages `(101,)` of the images of a table, by path."""
    info = estimator.info
    predictions = {}
    images = read_faces(table, info.margin, info.img_size, info.resize)
    while batch := list(islice(images, estimator.batch_size)):
        paths, faces = zip(*batch, strict=True)
        outputs = estimator.predict_distributions(faces)
        predictions |= dict(zip(paths, zip(*(values.astype("f4") for values in outputs), strict=True), strict=True))
    return predictions


if __name__ == "__main__":
    run(main)
