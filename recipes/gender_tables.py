"""Write the tables of the two data sets that know the gender but no age.

    python recipes/gender_tables.py labels   # data/lfw.csv and data/mw.csv, for crop_faces.py
    python recipes/gender_tables.py thin     # data/lfw_faces/few.csv

Labeled Faces in the Wild is labelled by its lists of male and female file names (names in both or in neither are not
used) and validated on a tenth of its persons; the set of men and women by its folders. Thinning keeps, for training,
two images of each man and four of each woman, so that a few hundred famous people do not outweigh the rest.
"""

import hashlib
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser

DATA = Path(__file__).resolve().parent.parent / "data"
COLUMNS = ["genders", "ages", "img_paths"]


def write_labels(data: Path = DATA) -> None:
    """Write `lfw.csv` and `mw.csv` into the data folder."""
    male, female = (set((data / f"{gender}_names.txt").read_text().split()) for gender in ("male", "female"))
    lfw = [
        (int(path.name in male), "", f"{path.parent.name}/{path.name}", lfw_split(path.parent.name))
        for path in sorted((data / "lfw-deepfunneled").glob("*/*.jpg"))
        if (path.name in male) != (path.name in female)
    ]
    pd.DataFrame(lfw, columns=[*COLUMNS, "split"]).to_csv(data / "lfw.csv", index=False)
    images = sorted((data / "gender_dataset_face").glob("*man/*"))
    rows = [(int(path.parent.name == "man"), "", f"{path.parent.name}/{path.name}") for path in images]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(data / "mw.csv", index=False)


def lfw_split(person: str) -> str:
    """`val` for a tenth of the persons, by the hash of the name."""
    return "val" if int(hashlib.sha256(person.encode()).hexdigest()[:8], 16) % 10 == 0 else "train"


def thin_lfw(data: Path = DATA) -> None:
    """Write `lfw_faces/few.csv` out of `lfw_faces/faces.csv`."""
    table = pd.read_csv(data / "lfw_faces" / "faces.csv", dtype=str, keep_default_na=False).sort_values("img_paths")
    nth = table.groupby(table["img_paths"].str.split("/").str[0]).cumcount()
    few = table[(table["split"] == "val") | (nth < table["genders"].map({"1": 2, "0": 4}))]
    few.to_csv(data / "lfw_faces" / "few.csv", index=False)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("step", choices=("labels", "thin"), help="labels: before crop_faces.py; thin: after it")
    {"labels": write_labels, "thin": thin_lfw}[parser.parse_args().step]()
