"""Write what networks predict for the training images of tables, for `train_on_answers.py`.

    python recipes/ask_networks.py -o checkpoints/answers.npz --db utkface fairface --weight_file A.onnx B.onnx

Each network sees each image once, cut as in evaluation, and as a mirror image where its weight file or `--flip` says
so. The file holds the mean over the networks.
"""

import sys
from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, Progress, UserError, run
from src.datasets import face_boxes, load_table, require_crops, require_margin
from src.files import map_ahead, write_whole
from src.images import crop_to_margin, read_image, resize
from src.inference import AgeGenderEstimator
from src.labels import HEADS


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--db", nargs="+", required=True, help="names of tables, or .csv files")
    parser.add_argument("--weight_file", nargs="+", required=True, help="networks to ask")
    parser.add_argument("--flip", action=BooleanOptionalAction, help="average over mirror images (default: as trained)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".npz" or not args.output.parent.is_dir():
        raise UserError(f"--output must be an .npz file in a folder that exists, got {args.output}")
    table = load_table(args.db)
    table = table[table["split"] == "train"].drop_duplicates("path", ignore_index=True)
    require_crops(table)
    estimators = [AgeGenderEstimator.load(path, 64, args.flip) for path in args.weight_file]
    for estimator in estimators:
        if estimator.info.heads != HEADS:
            raise UserError(f"{estimator.source} must have both heads, got {', '.join(estimator.info.heads)}")
        require_margin(table, estimator.margin, f"the margin of {estimator.source}")
    genders, ages = (np.mean(values, axis=0) for values in zip(*(ask(each, table) for each in estimators), strict=True))
    with write_whole(args.output) as part:
        np.savez(part, path=table["path"].to_numpy(str), gender=genders.astype("f4"), age=ages.astype("f4"))
    print(f"{args.output}: predictions for {len(table):,} images")


def ask(estimator: AgeGenderEstimator, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Predict the genders `(n, 2)` and ages `(n, 101)` of a table of face crops."""

    def cut(row: tuple) -> np.ndarray:
        path, margin, box = row
        crop = crop_to_margin(read_image(path), margin, estimator.margin, box)
        return resize(crop, estimator.info.img_size, estimator.info.resize)

    rows = zip(table["path"], table["margin"], face_boxes(table), strict=True)
    faces = Progress(map_ahead(cut, rows), len(table), "images", Path(estimator.source or "").name)
    answers = [estimator.predict_distributions(batch) for batch in batches(faces, estimator.batch_size)]
    genders, ages = map(np.concatenate, zip(*answers, strict=True))
    return genders, ages


def batches(faces, size: int):
    """Gather faces into lists of at most `size`."""
    batch = []
    for face in faces:
        batch.append(face)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    run(main)
