"""Crop the faces from photos and write a table of them, with your labels or ready for labelling.

python crop_faces.py -i photos -o faces                                      # all faces; fill in the labels
python crop_faces.py -i photos -o faces --labels photos.csv --margin 0.4     # one face per photo, with its labels
python crop_faces.py -i "data/All-Age-Faces" -o data/aaf_faces --labels aaf  # labels of a known dataset

Then train on it with `python train.py data.db=faces/faces.csv`. To resume a stopped run, repeat the command.
"""

from argparse import Namespace
from pathlib import Path

from src import cli


def parse_args(arguments: list[str] | None = None) -> Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FOLDER", help="photos; subfolders count")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="new folder for the faces")
    parser.add_argument(
        "--margin", type=float, default=cli.MARGIN, help="share of its size by which a face box grows on each side"
    )
    parser.add_argument(
        "--labels",
        metavar="CSV",
        help="table genders,ages,img_paths[,split] with paths below -i, or a name such as aaf: use only its images,"
        " and of these only those with one face",
    )
    parser.add_argument(
        "--main_face",
        action="store_true",
        help="of several faces use the one at the center, else one that is twice as wide as all others",
    )
    parser.add_argument("--min_size", type=int, default=0, metavar="N", help="minimum width of a face, pixels")
    parser.add_argument(
        "--no_profiles", dest="profiles", action="store_false", help="find only faces that look towards the camera"
    )
    parser.add_argument("--threshold", type=float, default=cli.THRESHOLD, help="minimum score of a face")
    parser.add_argument(
        "--max_side", type=int, default=cli.MAX_CROP_SIDE, metavar="N", help="shrink larger crops to this side, pixels"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    from src.datasets import CropSettings, crop_folder  # after parsing, so that --help answers at once

    settings = CropSettings(args.margin, args.min_size, args.threshold, args.max_side, args.main_face, args.profiles)
    print("\n".join(crop_folder(args.input, args.output, args.labels, settings)))


if __name__ == "__main__":
    cli.run(main)
