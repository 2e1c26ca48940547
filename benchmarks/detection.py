"""Share of faces found, other boxes and time of the face detector for its settings.

    python benchmarks/detection.py PHOTOS [PHOTOS ...] [--limit 300] [--sheet boxes.png]
    python benchmarks/detection.py test.csv --image_dir data/FairFace --face 0.8
    python benchmarks/detection.py PHOTOS --megapixels 12    # enlarged to 12 megapixels, as phones take

PHOTOS is a folder, or a list (.csv, .txt) whose first column names images in `--image_dir`. The images must each show
one main face in the middle. With `--face`, the share of the image's width that the face takes, it counts as found when
a box overlaps the central square of that share (intersection over union of at least 0.5); without, when a box holds the
middle of the image. Other boxes are false ones and faces in the background alike: `--sheet` shows those of the default
setting, to be told apart by eye. `--cnn` adds dlib's CNN detector, whose file the package face_recognition_models has,
on copies with a longest side of at most 640 pixels. All settings search the same image in turn, so that a busy machine
slows all alike.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import dlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run
from src.images import (
    Box,
    Face,
    FaceDetector,
    ImageError,
    box_area,
    crop_box,
    decode_image,
    list_images,
    read_bytes,
    read_image,
    resize,
    shared_area,
    write_image,
)

SETTINGS = {
    "default": {},
    "threshold 0": {"threshold": 0.0},
    "threshold -0.3": {"threshold": -0.3},
    "threshold -0.7": {"threshold": -0.7},
    "upsample 0": {"upsample": 0},
    "upsample 1": {"upsample": 1},
    "max_side 640": {"max_side": 640},
    "no profiles": {"profiles": False},
    "no profiles, upsample 0, max_side 640": {"profiles": False, "upsample": 0, "max_side": 640},
}
READING = "(decoding the image)"
TILE = 112


class CnnDetector:
    """dlib's CNN detector, with the interface of `FaceDetector`."""

    def __init__(self, path: Path):
        self._find = dlib.cnn_face_detection_model_v1(str(path))

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an RGB image."""
        scale = min(1.0, 640 / max(image.shape[:2]))
        faces = []
        for found in self._find(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)):
            box = found.rect
            edges = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
            faces.append(Face(tuple(round(edge / scale) for edge in edges), found.confidence))
        return faces


@dataclass
class Result:
    """What one setting did to the images so far."""

    found: int = 0
    others: int = 0
    seconds: float = 0.0

    def add(self, faces: list[Face], image: np.ndarray, face: float | None) -> None:
        main = [is_main(box.box, image, face) for box in faces]
        self.found += any(main)
        self.others += len(main) - sum(main)


def list_paths(photos: Path, image_dir: Path, limit: int) -> list[Path]:
    """Up to `limit` images of a folder or a list, spread evenly over it."""
    if photos.is_dir():
        paths = list_images(photos)
    else:
        rows = photos.read_text(encoding="utf-8").splitlines()
        paths = [image_dir / row.split("," if photos.suffix == ".csv" else " ")[0] for row in rows]
        paths = [path for path in paths if path.suffix]  # a header has none
    if not paths:
        raise UserError(f"{photos} must name images, got none")
    return [paths[row] for row in np.linspace(0, len(paths) - 1, min(limit, len(paths))).astype(int)]


def is_main(box: Box, image: np.ndarray, face: float | None) -> bool:
    """Whether a box is on the main face."""
    height, width = image.shape[:2]
    if face is None:
        return box[0] <= width / 2 < box[2] and box[1] <= height / 2 < box[3]
    side = face * width / 2
    centre = tuple(round(edge) for edge in (width / 2 - side, height / 2 - side, width / 2 + side, height / 2 + side))
    shared = shared_area(box, centre)
    return shared >= 0.5 * (box_area(box) + box_area(centre) - shared)


def read(path: Path, megapixels: float | None) -> tuple[np.ndarray, float]:
    """Read an image, enlarged if asked; the second value is the processor time of decoding it, seconds."""
    if megapixels:
        image = read_image(path)
        scale = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
        large = cv2.resize(image[:, :, ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        encoded = cv2.imencode(".jpg", large)[1].tobytes()
    else:
        encoded = read_bytes(path)
    start = time.process_time()
    return decode_image(encoded), time.process_time() - start


def measure(
    paths: list[Path], face: float | None, cnn: Path | None = None, megapixels: float | None = None
) -> tuple[dict[str, Result], list[np.ndarray]]:
    """What every setting did to the images, and tiles of the default's other boxes with a margin and the score."""
    detectors = {name: FaceDetector(**options) for name, options in SETTINGS.items()}
    if cnn:
        detectors["dlib's CNN"] = CnnDetector(cnn)
    results = {name: Result() for name in [*detectors, READING]}
    tiles = []
    for path in paths:
        try:
            image, seconds = read(path, megapixels)
        except ImageError as error:
            print(f"skipped {path}: {error}", file=sys.stderr)
            continue
        results[READING].seconds += seconds
        for name, detector in detectors.items():
            start = time.process_time()
            faces = detector.detect(image)
            results[name].seconds += time.process_time() - start
            results[name].add(faces, image, face)
            if name == "default":
                tiles += [draw_tile(image, box) for box in faces if not is_main(box.box, image, face)]
    return results, tiles


def draw_tile(image: np.ndarray, face: Face) -> np.ndarray:
    tile = resize(crop_box(image, face.box, 0.3), TILE).copy()
    return cv2.putText(tile, f"{face.score:.2f}", (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)


def draw_sheet(tiles: list[np.ndarray]) -> np.ndarray:
    """All tiles, ten in a row."""
    tiles = tiles + [np.zeros((TILE, TILE, 3), np.uint8)] * (-len(tiles) % 10 or 10 * (not tiles))
    return np.vstack([np.hstack(tiles[start : start + 10]) for start in range(0, len(tiles), 10)])


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("photos", nargs="+", type=Path, help="folders or lists of images")
    parser.add_argument("--image_dir", type=Path, default=Path(), help="where the images of a list are")
    parser.add_argument("--limit", type=int, default=300, help="images of each folder or list")
    parser.add_argument("--face", type=float, help="share of the image's width that the central face takes")
    parser.add_argument("--sheet", type=Path, help="image file for the default's other boxes")
    parser.add_argument("--cnn", type=Path, metavar="FILE", help="mmod_human_face_detector.dat of dlib")
    parser.add_argument("--megapixels", type=float, help="size to which the images are enlarged")
    arguments = parser.parse_args()
    if arguments.megapixels is not None and arguments.megapixels <= 0:
        raise UserError(f"--megapixels must be above 0, got {arguments.megapixels:g}")
    tiles = []
    for photos in arguments.photos:
        paths = list_paths(photos, arguments.image_dir, arguments.limit)
        results, others = measure(paths, arguments.face, arguments.cnn, arguments.megapixels)
        if not results["default"].seconds:
            raise UserError(f"{photos} must name images that can be read, got none")
        tiles += others
        print(f"\n{photos.name}, {len(paths)} images\n")
        print("| setting | main face found | other boxes per image | time (ratio) |")
        print("|---|---|---|---|")
        for name, result in results.items():
            found = f"{result.found / len(paths):.3f}" if name != READING else ""
            elsewhere = f"{result.others / len(paths):.2f}" if name != READING else ""
            print(f"| {name} | {found} | {elsewhere} | {result.seconds / results['default'].seconds:.2f} |")
    if arguments.sheet:
        write_image(arguments.sheet, draw_sheet(tiles))


if __name__ == "__main__":
    run(main)
