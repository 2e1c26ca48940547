"""Write a table of face crops with the boxes that this project's detector finds in them.

    python recipes/detected_boxes.py -o data/fairface_boxes.csv --db fairface --twice Black
    python train.py data.db=[fairface,data/fairface_boxes.csv]

Crops of another detector hold the face where that one saw it. Training on both boxes of an image teaches a network
what it gets from `demo.py`. A crop in which no box lies on the face keeps that of its table alone.
"""

import os
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import JobError, Parser, Progress, UserError, run, warn_skipped
from src.datasets import face_boxes, load_training_part, write_csv
from src.files import map_ahead
from src.images import BOX_COLUMNS, Box, FaceDetector, ImageError, face_region, find_main_face, overlap, read_image

ON_FACE = 0.4
"""Minimum intersection over union with the face of the table."""


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="table to write, .csv")
    parser.add_argument("--db", nargs="+", required=True, help="tables as in data.db: names, or .csv or .mat files")
    parser.add_argument("--twice", nargs="*", default=[], metavar="ETHNICITY", help="write these rows twice")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".csv":
        raise UserError(f"--output must be a .csv file, got {args.output}")
    table = load_training_part(args.db)
    missing = set(args.twice).difference(table.get("ethnicity", ()))
    if missing:
        raise UserError(f"--twice must name ethnicities of the table, got {', '.join(sorted(missing))}")
    detector = FaceDetector()

    def find(row: tuple) -> Box | ImageError | None:
        path, margin, known = row
        try:
            image = read_image(path)
        except ImageError as error:
            return error
        size = image.shape[:2]
        found = find_main_face([face.box for face in detector.detect(image)], size)
        return found if found and overlap(found, face_region(size, margin, 0, known)) >= ON_FACE else None

    rows = zip(table["path"], table["margin"], face_boxes(table), strict=True)
    boxes = list(Progress(map_ahead(find, rows), len(table), "images", "detect"))
    for path, box in zip(table["path"], boxes, strict=True):
        if isinstance(box, ImageError):
            warn_skipped(path, str(box))
    on_face = np.array([isinstance(box, tuple) for box in boxes])
    if not on_face.any():
        raise JobError(f"none of the {len(table):,} images has a detected box on its face; nothing is written")
    found = table[on_face].reset_index(drop=True)
    found[BOX_COLUMNS] = np.array([box for box in boxes if isinstance(box, tuple)])
    if args.twice:
        found = pd.concat([found, found[found["ethnicity"].isin(args.twice)]])
    folder = args.output.absolute().parent
    found["path"] = [os.path.relpath(path, folder) for path in found["path"]]
    write_csv(found.rename(columns={"gender": "genders", "age": "ages", "path": "img_paths"}), args.output)
    print(f"{args.output}: boxes of {on_face.sum():,} of {len(table):,} images, {len(found):,} rows")


if __name__ == "__main__":
    run(main)
