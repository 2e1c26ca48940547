"""Cuts the faces out of whole photographs and writes a table that waits for labels or carries them over.

python crop_faces.py -i photos -o faces                                      # all faces, labels to be filled in
python crop_faces.py -i photos -o faces --labels photos.csv --margin 0.4     # one face a picture, labels carried over
python crop_faces.py -i "data/All-Age-Faces" -o data/aaf_faces --labels aaf  # a table that train.py knows by name

Then train on it with `python train.py data.db=faces/faces.csv`. The same command goes on where an earlier run stopped.
"""

import argparse
from pathlib import Path

from src import cli


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FOLDER", help="photographs, in subfolders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="new folder for the faces")
    parser.add_argument(
        "--margin", type=float, default=0.4, help="share of its size that a face box grows on each side (default: 0.4)"
    )
    parser.add_argument(
        "--labels",
        metavar="CSV",
        help="table genders,ages,img_paths[,split] with paths below -i, or a name such as aaf: only its pictures are"
        " used, and only those with one face",
    )
    parser.add_argument(
        "--main_face",
        action="store_true",
        help="of several faces take the one at the centre of the picture, else one that is twice as wide as all others",
    )
    parser.add_argument(
        "--min_size", type=int, default=0, metavar="N", help="least width of a face in pixels (default: any)"
    )
    parser.add_argument("--threshold", type=float, help="least score of a face (default: that of demo.py)")
    parser.add_argument(
        "--max_side", type=int, default=512, metavar="N", help="larger crops are shrunk to this side (default: 512)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    from src.datasets import CropSettings, crop_folder  # after parsing, so that --help answers at once
    from src.images import THRESHOLD

    threshold = THRESHOLD if args.threshold is None else args.threshold
    settings = CropSettings(args.margin, args.min_size, threshold, args.max_side, args.main_face)
    print("\n".join(crop_folder(args.input, args.output, args.labels, settings)))


if __name__ == "__main__":
    cli.run(main)
