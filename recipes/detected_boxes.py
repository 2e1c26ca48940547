"""Write a table of face crops with the boxes that this project's detector finds in them.

    python recipes/detected_boxes.py -o data/fairface_boxes.csv --db fairface
    python train.py data.db=[fairface,data/fairface_boxes.csv]

Crops of another detector hold the face where that one saw it. Training on both boxes of an image teaches a network
what it gets from `demo.py`. Of each table the train part is read; crops without a detected box on the face are left
out.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
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
    parser.add_argument("--db", nargs="+", required=True, help="tables as in data.db: names, or .csv files")
    parser.add_argument("--limit", type=int, help="only the first images")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".csv":
        raise UserError(f"--output must be a .csv file, got {args.output}")
    if args.output.resolve() in [Path(db).resolve() for db in args.db]:
        raise UserError(f"--output must be another file than the tables of --db, got {args.output}")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be >= 1, got {args.limit}")
    table = load_training_part(args.db)[: args.limit]
    if "image" in table:
        raise UserError(f"--db must be tables of image files, got {', '.join(args.db)} with images inside")
    found = detect_faces(table)
    if found.empty:
        raise JobError(f"none of the {len(table):,} images has a detected box on its face; nothing is written")
    write_table(found, args.output)
    print(f"{args.output}: boxes of {len(found):,} of {len(table):,} images")


def detect_faces(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of face crops in which a box is detected on the face, with that box."""
    detector = FaceDetector()

    def detect(row: tuple) -> Box | ImageError | None:
        try:
            return detect_face(detector, *row)
        except ImageError as error:
            return error

    rows = zip(table["path"], table["margin"], face_boxes(table), strict=True)
    boxes = list(Progress(map_ahead(detect, rows), len(table), "images", "detect"))
    for path, box in zip(table["path"], boxes, strict=True):
        if isinstance(box, ImageError):
            warn_skipped(path, str(box))
    found = [isinstance(box, tuple) for box in boxes]
    detected: Sequence[Box] = [box for box in boxes if isinstance(box, tuple)]
    columns = dict(zip(BOX_COLUMNS, np.array(detected).reshape(-1, 4).T, strict=True))
    return table[found].assign(**columns)


def detect_face(detector: FaceDetector, path: str, margin: float, table_box: Box | None) -> Box | None:
    """Detect the main face of a crop; None where its box is not on the face that the table says."""
    image = read_image(path)
    size = image.shape[:2]
    face = face_region(size, margin, 0, table_box)
    box = find_main_face([face.box for face in detector.detect(image)], size)
    return box if box and overlap(box, face) >= ON_FACE else None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write rows as a `.csv` of this project, with the paths of images relative to its folder."""
    folder = path.absolute().parent
    paths = [os.path.relpath(image, folder) for image in table["path"]]
    write_csv(table.assign(path=paths).rename(columns={"gender": "genders", "age": "ages", "path": "img_paths"}), path)


if __name__ == "__main__":
    run(main)
