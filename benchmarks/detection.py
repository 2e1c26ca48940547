"""Share of faces found, boxes elsewhere and time of the face detector for its settings.

    python benchmarks/detection.py FOLDER [FOLDER ...] [--limit 300] [--sheet boxes.png]

The pictures must each show one main face in the middle; it counts as found when a box holds the middle of the picture.
Boxes elsewhere are false ones and faces in the background alike: `--sheet` shows those of the default setting, to be
told apart by eye.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.images.boxes import crop_box
from src.images.detector import FaceDetector
from src.images.io import ImageError, list_images, read_image, resize, write_image

SETTINGS = [(upsample, threshold) for upsample in (0, "auto", 1) for threshold in (0.0, -0.3, -0.4, -0.5, -0.6, -0.7)]
TILE = 112


def read_some(folder: Path, limit: int) -> list[np.ndarray]:
    """Up to `limit` readable pictures, spread evenly over the folder."""
    paths = list_images(folder)
    pictures = []
    for path in paths[:: max(len(paths) // limit, 1)][:limit]:
        try:
            pictures.append(read_image(path))
        except ImageError as error:
            print(f"skipped {path}: {error}", file=sys.stderr)
    return pictures


def holds_middle(box: tuple[int, int, int, int], image: np.ndarray) -> bool:
    y, x = image.shape[0] / 2, image.shape[1] / 2
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def measure(pictures: list[np.ndarray], detector: FaceDetector) -> tuple[float, float, float]:
    """Share of pictures with the main face found, boxes elsewhere a picture, processor milliseconds a picture."""
    found = elsewhere = 0
    start = time.process_time()
    for image in pictures:
        main = [holds_middle(face.box, image) for face in detector.detect(image)]
        found += any(main)
        elsewhere += len(main) - any(main)
    milliseconds = (time.process_time() - start) * 1000
    return found / len(pictures), elsewhere / len(pictures), milliseconds / len(pictures)


def draw_sheet(pictures: list[np.ndarray], detector: FaceDetector) -> np.ndarray:
    """All boxes elsewhere than in the middle, with a margin and the score, ten in a row."""
    tiles = []
    for image in pictures:
        for face in detector.detect(image):
            if not holds_middle(face.box, image):
                tile = resize(crop_box(image, face.box, 0.3), TILE).copy()
                cv2.putText(tile, f"{face.score:.2f}", (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
                tiles.append(tile)
    tiles += [np.zeros((TILE, TILE, 3), np.uint8)] * (-len(tiles) % 10 or 10 * (not tiles))
    return np.vstack([np.hstack(tiles[start : start + 10]) for start in range(0, len(tiles), 10)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=300, help="pictures of each folder (default: 300)")
    parser.add_argument("--sheet", type=Path, help="picture file for the boxes elsewhere")
    arguments = parser.parse_args()
    sheets = []
    for folder in arguments.folders:
        pictures = read_some(folder, arguments.limit)
        print(f"\n{folder.name}, {len(pictures)} pictures\n")
        print("| upsample | threshold | main face found | other boxes a picture | processor ms |")
        print("|---|---|---|---|---|")
        for upsample, threshold in SETTINGS:
            found, elsewhere, ms = measure(pictures, FaceDetector(upsample, threshold))
            print(f"| {upsample} | {threshold:g} | {found:.3f} | {elsewhere:.2f} | {ms:.0f} |", flush=True)
        sheets.append(draw_sheet(pictures, FaceDetector()))
    if arguments.sheet:
        write_image(arguments.sheet, np.vstack(sheets))


if __name__ == "__main__":
    main()
