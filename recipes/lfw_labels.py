"""Write the genders of Labeled Faces in the Wild as labels for `crop_faces.py`.

    python recipes/lfw_labels.py data/LFW -o data/lfw.csv
    python crop_faces.py -i data/LFW/lfw-deepfunneled -o data/lfw_faces --labels data/lfw.csv --main_face --margin 0.2

The folder has `lfw-deepfunneled/NAME/NAME_0001.jpg` (Huang et al., University of Massachusetts, 07-49) and
`male_names.txt` and `female_names.txt`, one file name per line (Afifi and Abdelhamed, arXiv 1706.04277; a copy is in
the repository Lukeli0425/Gender-Classification on GitHub). People in both lists are skipped, and of each person all but
the first images. Ages are unknown. All rows train.
"""

import re
import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run
from src.datasets import write_csv
from src.labels import FEMALE, MALE

LISTS = {"female_names.txt": FEMALE, "male_names.txt": MALE}
FILE_NAME = re.compile(r"(.+)_[0-9]{4}\.jpg")
MAX_IMAGES = 4
"""Per person; without a maximum a few politicians would have hundreds."""


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="images and both lists")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table to write, .csv")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".csv":
        raise UserError(f"--output must be a .csv file, got {args.output}")
    table = read_genders(args.folder)
    write_csv(table, args.output)
    print(f"{args.output}: {len(table):,} images of {table['person'].nunique():,} people")


def read_genders(folder: Path) -> pd.DataFrame:
    """Return columns `genders`, `ages` (empty), `img_paths` below `lfw-deepfunneled`, `split` and `person`.

    Raises:
        UserError: a list is missing or has other lines than file names, or both are empty.
    """
    parts = []
    for name, gender in LISTS.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder} must have {' and '.join(LISTS)}, got none at {path}")
        files = path.read_text(encoding="utf-8", errors="replace").split()
        if wrong := [file for file in files if not FILE_NAME.fullmatch(file)]:
            raise UserError(f"{path} must have file names such as Ann_Lee_0001.jpg, got {wrong[0]!r}")
        parts.append(pd.DataFrame({"genders": gender, "ages": "", "file": files}))
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise UserError(f"{' and '.join(LISTS)} must have file names, got none in {folder}")
    table["person"] = table["file"].str.replace(FILE_NAME, r"\1", regex=True)
    people = table.groupby("person")
    table = table[people["genders"].transform("nunique") == 1].groupby("person").head(MAX_IMAGES)
    return table.assign(img_paths=table["person"] + "/" + table["file"], split="train").drop(columns="file")


if __name__ == "__main__":
    run(main)
