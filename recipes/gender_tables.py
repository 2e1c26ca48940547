"""Write tables for training of photo collections whose genders are known.

    python recipes/gender_tables.py fiw data/FIW -o data/fiw.csv
    python train.py data.db=[fairface,data/fiw.csv]

    fiw        Families in the Wild (Robinson et al., arXiv 1604.02182), crops: F0001/mid.csv and F0001/MID1/*.jpg;
               those of further photos may lie in F0001_1/{Father,Mother,Child_male,Child_female}/*.jpg
    mtfl       MTFL (Zhang et al., ECCV 2014): training.txt, testing.txt, net_7876/ and AFLW/; without its part of LFW
    fgnet      FG-NET (Lanitis et al., 2002): 001A02.JPG ..., with ages; genders labelled by eye
    tskinface  TSKinFace (Qin et al., arXiv 1504.03386), its folder TSKinFace_source: FMS/*.jpg, FMS_information/*.txt
               ...; the faces are cut from its photos into faces/
    lag        Large Age-Gap (Bianco, arXiv 1602.06149): NAME/*.png, and NAME/y/*.png of the same person when young,
               whose gender is what the bundled model predicts for the others

Ages are unknown except for fgnet. All rows train. The boxes of the faces are near those of this project's detector;
`recipes/detected_boxes.py` refines them.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, Progress, UserError, run, warn_skipped
from src.datasets import write_csv
from src.files import map_ahead
from src.images import BOX_COLUMNS, ImageError, crop_box, crop_to_margin, read_image, write_image
from src.labels import FEMALE, MALE

GENDERS = {"f": FEMALE, "m": MALE}
ROLES = {"Mother": FEMALE, "Child_female": FEMALE, "Father": MALE, "Child_male": MALE}
FGNET_WOMEN = (
    "002 003 005 008 009 010 012 014 015 018 020 021 025 026 027 030 032 034 039 043 047 049 052 054 059 060 061 062"
    " 065 067 072 073 076 077"
)
"""Numbers of the women and girls."""
FIW_BOX = 0.056, 0.21, 0.87, 0.911
FURTHER_FIW_BOX = 0.067, 0.067, 0.871, 0.871
FGNET_BOX = 0.15, 0.2, 0.85, 0.8
LAG_BOX = 0.13, 0.13, 0.86, 0.86
"""Left, top, right and bottom of the face as fractions of the image's sides: medians of detected boxes (FG-NET: by
eye)."""
CUT_MARGIN = 0.6
"""Of the faces that are cut from photos of several people, in face widths per side."""
SURE = 0.9
"""Minimum mean probability of a gender over the photos of an adult."""
FACE_SIDE = 2.2
"""Median side of a detected box, in distances between the eyes or from there to the mouth, the longer of both."""


class Face(NamedTuple):
    """One labelled face; the box is in fractions of the image's sides where `relative`, else in pixels."""

    path: Path
    gender: int
    box: tuple[float, float, float, float]
    relative: bool = False
    age: int | None = None


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("dataset", choices=READERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="table to write, .csv, in a folder above")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.output.suffix != ".csv":
        raise UserError(f"--output must be a .csv file, got {args.output}")
    parent = args.output.absolute().parent
    if not args.folder.absolute().is_relative_to(parent):
        raise UserError(f"--output must be in a folder above {args.folder}, got {args.output}")
    try:
        faces = list(READERS[args.dataset](args.folder.absolute()))
    except (KeyError, IndexError, ValueError, FileNotFoundError) as error:
        raise UserError(f"{args.folder} must hold {args.dataset} as --help says, got {error!r}") from error
    if not faces:
        raise UserError(f"{args.folder} must hold {args.dataset} as --help says, got no labelled face")
    table = make_table(faces, parent)
    write_csv(table, args.output)
    print(f"{args.output}: {len(table):,} faces, {(table['genders'] == FEMALE).mean():.0%} female")


def make_table(faces: list[Face], parent: Path) -> pd.DataFrame:
    """Return the rows of a table in the folder `parent`; a face that is not in a readable image is reported."""
    rows = []
    for face, box in zip(faces, Progress(map_ahead(find_box, faces), len(faces), "faces", "read"), strict=True):
        if isinstance(box, ImageError):
            warn_skipped(str(face.path), str(box))
        else:
            path = face.path.relative_to(parent).as_posix()
            rows.append((path, face.gender, "" if face.age is None else face.age, *box))
    table = pd.DataFrame(rows, columns=["img_paths", "genders", "ages", *BOX_COLUMNS])
    return table.assign(margin=0.4, split="train")


def find_box(face: Face) -> tuple[int, ...] | ImageError:
    """Return the face in pixels, within the image."""
    try:
        height, width = read_image(str(face.path)).shape[:2]
    except ImageError as error:
        return error
    sides = np.array([width, height, width, height])
    box = face.box * sides if face.relative else face.box
    left, top, right, bottom = np.clip(np.round(box), 0, sides).astype(int).tolist()
    if left >= right or top >= bottom:
        return ImageError(f"the face at {face.box} is not in the image of {width}x{height} pixels")
    return left, top, right, bottom


def read_fiw(folder: Path) -> Iterator[Face]:
    """Read Families in the Wild; of further photos those that the first part lacks, and none of two genders."""
    known = set()
    for members in sorted(folder.glob("F*/mid.csv")):
        table = pd.read_csv(members, dtype=str, encoding_errors="replace", index_col=False)
        for number, gender in zip(table["MID"], table["Gender"].str.strip().str.lower(), strict=True):
            for path in sorted(members.parent.glob(f"MID{number}/*.jpg")):
                known.add((members.parent.name, path.name.split("_")[0]))
                if gender in GENDERS:
                    yield Face(path, GENDERS[gender], FIW_BOX, relative=True)
    further: dict[tuple[str, str], list[Face]] = {}
    for role, gender in ROLES.items():
        for path in sorted(folder.glob(f"F*_*/{role}/*.jpg")):
            family = path.parts[-3].split("_")[0]
            if (family, path.name.split("_")[0]) not in known:
                further.setdefault((family, path.name), []).append(Face(path, gender, FURTHER_FIW_BOX, relative=True))
    for copies in further.values():
        if len({face.gender for face in copies}) == 1:
            yield copies[0]


def read_lines(path: Path) -> list[list[str]]:
    """Return the words of each line that has some, with the paths of Windows as those of all systems."""
    return [line.split() for line in path.read_text().replace("\\", "/").splitlines() if line.strip()]


def read_mtfl(folder: Path) -> Iterator[Face]:
    """Read MTFL, whose lines are a path, x of eyes, nose and corners of the mouth, their y, gender and other labels."""
    for path, *numbers in [*read_lines(folder / "training.txt"), *read_lines(folder / "testing.txt")]:
        if not path.startswith("lfw"):
            points = np.array(numbers[:10], dtype=float).reshape(2, 5)
            eyes, mouth = points[:, :2], points[:, 3:]
            lengths = np.diff(eyes), mouth.mean(axis=1) - eyes.mean(axis=1)
            half = FACE_SIDE * max(map(np.linalg.norm, lengths)) / 2
            x, y = points.mean(axis=1)
            box = x - half, y - half, x + half, y + half
            yield Face(folder / path, MALE if numbers[10] == "1" else FEMALE, box)


def read_fgnet(folder: Path) -> Iterator[Face]:
    """Read FG-NET, whose file names are person and age: `001A02.JPG`."""
    for path in sorted(folder.glob("*.JPG")):
        if match := re.match(r"(\d{3})A(\d{2})", path.name):
            person, age = match.groups()
            yield Face(path, FEMALE if person in FGNET_WOMEN else MALE, FGNET_BOX, relative=True, age=int(age))


def read_tskinface(folder: Path) -> Iterator[Face]:
    """Cut the faces of TSKinFace, whose lines are a photo, who it is (F, M, S or D), the center x, y and the radius."""
    before = CUT_MARGIN / (1 + 2 * CUT_MARGIN)
    middle = before, before, 1 - before, 1 - before
    (folder / "faces").mkdir(exist_ok=True)
    for file in sorted(folder.glob("*_information/*List*.txt")):
        for photo, role, *numbers in read_lines(file):
            x, y, radius = map(int, numbers)
            box = x - radius, y - radius, x + radius, y + radius
            face = folder / "faces" / f"{Path(photo).stem}-{role}.jpg"
            try:
                write_image(face, crop_box(read_image(str(folder / photo)), box, CUT_MARGIN))
            except ImageError as error:
                warn_skipped(f"{folder / photo} {role}", str(error))
            else:
                yield Face(face, MALE if role in "FS" else FEMALE, middle, relative=True)


def read_lag(folder: Path) -> Iterator[Face]:
    """Read the young faces of Large Age-Gap, of adults whose gender is predicted with certainty."""
    from src.inference import AgeGenderEstimator

    estimator = AgeGenderEstimator.load()
    margin = (1 / (LAG_BOX[2] - LAG_BOX[0]) - 1) / 2
    for young in sorted(folder.glob("*/y")):
        faces = []
        for path in sorted(young.parent.glob("*.png")):
            try:
                faces.append(crop_to_margin(read_image(str(path)), margin, estimator.margin))
            except ImageError as error:
                warn_skipped(str(path), str(error))
        male = estimator.predict(faces)[1].mean() if faces else 0.5
        if max(male, 1 - male) >= SURE:
            for path in sorted(young.glob("*.png")):
                yield Face(path, MALE if male > 0.5 else FEMALE, LAG_BOX, relative=True)


READERS = {
    "fiw": read_fiw,
    "mtfl": read_mtfl,
    "fgnet": read_fgnet,
    "tskinface": read_tskinface,
    "lag": read_lag,
}

if __name__ == "__main__":
    run(main)
