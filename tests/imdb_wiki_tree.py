"""Generate databases in the format of IMDB-WIKI, with drawn faces, for `check_dataset.ipynb` to show.

PYTHONPATH=. python tests/imdb_wiki_tree.py FOLDER        writes FOLDER/imdb_crop and FOLDER/wiki_crop
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from imdb_wiki_files import serial_day, write_imdb_wiki

from src.images.io import write_image

SHARE_OF_BAD_DATES, SHARE_OF_BAD_GENDERS, SHARE_OF_SECOND_FACES, SHARE_WITHOUT_FACE = 0.02, 0.02, 0.1, 0.08


def write_databases(folder: Path, seed: int = 0) -> None:
    """Write 429 entries of IMDB (60 persons) and 150 of WIKI (150 persons) with the flaws of the real ones."""
    rng = np.random.default_rng(seed)
    write_database(folder, "imdb", rng.geometric(0.15, 60).cumsum(), rng)
    write_database(folder, "wiki", np.arange(1, 151), rng)


def write_database(folder: Path, db: str, last_images: np.ndarray, rng: np.random.Generator) -> None:
    """Write persons whose images end before the given numbers."""
    rows, start = [], 0
    for person, end in enumerate(last_images):
        gender, born = float(rng.random() < 0.6), int(rng.integers(1930, 1996))
        rows += [make_row(db, person, gender, born, number, rng) for number in range(start, end)]
        start = end
    for row in rows:
        path = folder / f"{db}_crop" / row["full_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, draw_face(row["gender"], row["face_score"], rng))
    write_imdb_wiki(folder / f"{db}_crop" / f"{db}.mat", db, rows)


def make_row(db: str, person: int, gender: float, born: int, number: int, rng: np.random.Generator) -> dict:
    """Make an entry that sometimes is wrong."""
    taken = min(born + int(rng.integers(-20, 75)), 2015) if rng.random() < 0.05 else int(rng.integers(born + 15, 2016))
    dob = serial_day(born, int(rng.integers(1, 3)), 1)
    if rng.random() < SHARE_OF_BAD_DATES:
        dob = 1 if rng.random() < 0.5 else dob + 3653
    if rng.random() < SHARE_OF_BAD_GENDERS:
        gender = np.nan if rng.random() < 0.5 else 1 - gender
    name = f"nm{person:07}_rm{number}_{born}-1-1_{taken}.jpg" if db == "imdb" else f"{person}_{born}-01-01_{taken}.jpg"
    return {
        "dob": dob,
        "photo_taken": taken,
        "full_path": f"{number % 10:02}/{name}",
        "gender": gender,
        "face_score": -np.inf if rng.random() < SHARE_WITHOUT_FACE else rng.gamma(4, 0.8),
        "second_face_score": rng.gamma(3, 0.8) if rng.random() < SHARE_OF_SECOND_FACES else np.nan,
    }


def draw_face(gender: float, score: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a face of 64 x 64 pixels, with more spots the lower the score; without a score, no face."""
    image = np.full((64, 64, 3), rng.integers(90, 230, 3), np.uint8)
    if not np.isfinite(score):
        return image
    skin = tuple(int(value) for value in rng.integers((150, 110, 90), (240, 200, 180)))
    hair = tuple(int(value) for value in rng.integers(20, 120, 3))
    cv2.ellipse(image, (32, 30), (21, 26) if gender == 0 else (18, 20), 0, 0, 360, hair, -1, cv2.LINE_AA)
    cv2.ellipse(image, (32, 36), (16, 20), 0, 0, 360, skin, -1, cv2.LINE_AA)
    for x in (26, 38):
        cv2.circle(image, (x, 32), 2, (20, 20, 20), -1, cv2.LINE_AA)
    cv2.ellipse(image, (32, 44), (7, 4), 0, 0, 180, (150, 40, 40), 2, cv2.LINE_AA)
    spots = rng.normal(0, 90 / (1 + score), (8, 8))
    spots = cv2.resize(spots, (64, 64), interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
    return np.clip(image + spots, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    write_databases(Path(sys.argv[1]))
