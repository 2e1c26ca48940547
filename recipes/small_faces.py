"""Make `pretrained_models/small_faces.svm`, which tells quickly whether a photo may show small faces.

    python recipes/small_faces.py --faces data/FairFace --photos data/All-Age-Faces --backgrounds /usr/share/backgrounds

One frontal filter of 48 pixels, by dlib's own trainer, where the detector's have 80. Learns from rows of the split
`train` only, and from images without faces, such as those of Debian's gnome-backgrounds and mate-backgrounds.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import dlib
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipes.profile_detector import blur_faces
from src import cli
from src.datasets import load_table
from src.files import map_threads
from src.images import SMALL_FACES, SMALL_WINDOW, FaceDetector, read_image

SIZES = 0.87, 1.2
"""Minimum and maximum width of a face to learn from, in windows."""
BACKGROUND_AREA = 300_000
"""Pixels of a background."""


def shrink_faces(rows: pd.DataFrame, rng: np.random.Generator) -> tuple[list[np.ndarray], list[dlib.rectangle]]:
    """Read images in which dlib finds one face clear of the border, as gray, shrunk so that it has `SIZES`."""
    detector = FaceDetector(upsample=0, profiles=False, max_side=640)
    sides = SMALL_WINDOW * rng.uniform(*SIZES, len(rows))

    def shrink(path_and_side: tuple[str, float]) -> tuple[np.ndarray, dlib.rectangle] | None:
        path, side = path_and_side
        image = read_image(path)
        faces = detector.detect(image)
        if len(faces) != 1 or faces[0].score < 0 or not _is_clear(faces[0].box, image.shape):
            return None
        left, _, right, _ = faces[0].box
        scale = side / (right - left)
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return small, dlib.rectangle(*(round(edge * scale) for edge in faces[0].box))

    tasks = list(zip(rows["path"], sides, strict=True))
    found = [pair for pair in map_threads(shrink, tasks, "shrink faces") if pair]
    if not found:
        raise cli.UserError(f"the images must show faces that dlib finds, got none in {len(rows)}")
    return [image for image, _ in found], [box for _, box in found]


def join(
    images: list[np.ndarray], boxes: list[dlib.rectangle], count: int = 8
) -> Iterator[tuple[np.ndarray, list[dlib.rectangle]]]:
    """Put `count` images each side by side: alone they are too small for the trainer to see all of a face."""
    for start in range(0, len(images), count):
        row, moved, left = images[start : start + count], [], 0
        height = max(image.shape[0] for image in row)
        for image, box in zip(row, boxes[start:], strict=False):
            moved.append(dlib.translate_rect(box, dlib.point(left, 0)))
            left += image.shape[1]
        padded = [cv2.copyMakeBorder(image, 0, height - image.shape[0], 0, 0, cv2.BORDER_REFLECT_101) for image in row]
        yield np.hstack(padded), moved


def _is_clear(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> bool:
    left, top, right, bottom = box
    return min(left, top, shape[1] - right, shape[0] - bottom) > 4


def read_backgrounds(folder: Path) -> list[np.ndarray]:
    """Read every second image of a folder tree as gray; the others are for validation.

    Raises:
        UserError: the folder has no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".webp"))
    if not paths:
        raise cli.UserError(f"--backgrounds must be a folder of images without faces, got none in {folder}")
    images = []
    for path in paths[::2]:
        gray = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
        scale = min(1, np.sqrt(BACKGROUND_AREA / gray.size))
        images.append(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return images


def train(
    images: list[np.ndarray], boxes: list[dlib.rectangle], empty: list[np.ndarray]
) -> dlib.simple_object_detector:
    """Train one filter on images of one face each and on images without."""
    options = dlib.simple_object_detector_training_options()
    options.detection_window_size = SMALL_WINDOW**2
    options.C = 1
    options.num_threads = 2
    options.add_left_right_image_flips = True
    options.epsilon = 0.02
    rows, found = zip(*join(images, boxes), strict=True)
    return dlib.train_simple_object_detector([*rows, *empty], [*found, *([] for _ in empty)], options)


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--faces", default="data/FairFace", help="folder of FairFace")
    parser.add_argument("--photos", default="data/All-Age-Faces", help="folder of All-Age-Faces")
    parser.add_argument("--backgrounds", type=Path, default="/usr/share/backgrounds", help="images without faces")
    parser.add_argument("--output", type=Path, default=SMALL_FACES, help="file to write")
    parser.add_argument("--limit", type=int, default=2500, help="images to search of each dataset")
    args = parser.parse_args()
    tables = load_table("fairface", args.faces), load_table("aaf", args.photos)
    faces, photos = (table[table["split"] == "train"].sample(frac=1, random_state=0)[: args.limit] for table in tables)
    images, boxes = shrink_faces(pd.concat([faces, photos]).sample(frac=1, random_state=0), np.random.default_rng(0))
    empty = [example.image for example in blur_faces(photos[:150])] + read_backgrounds(args.backgrounds)
    train(images, boxes, empty).save(str(args.output))
    print(f"{args.output}: {len(images):,} faces, {len(empty)} images without")


if __name__ == "__main__":
    cli.run(main)
