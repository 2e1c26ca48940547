"""Make `pretrained_models/profile_faces.svm`, the detector of heads that are turned away from the camera.

python recipes/profile_detector.py --faces data/FairFace --photos data/All-Age-Faces

1. Face crops of FairFace's training part in which dlib's frontal detector finds nothing are positives. They are split
   into groups and mirrored so that the heads of a group look one way, by k-means over both mirror images.
2. One linear filter per group learns them against windows without a face, with a squared hinge loss and, as penalty,
   the nuclear norm of each feature plane (King, arXiv 1502.00046), which makes the filters fast.
3. False boxes in photos whose faces are blurred, and boxes off the face in the crops, join the negatives; again from 2.
4. `--shift`, chosen on validation rows with `benchmarks/detection.py`, makes `src.cli.THRESHOLD` right for the filters.
5. They, their mirror images and dlib's five are each replaced by a sum of few separable filters that scores windows
   near the threshold nearly the same. The file holds these nine.

Learns from rows of the split `train` only. Takes about 10 minutes of one core.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipes.fhog import CELL, CELLS, PLANES, SIZE, WINDOW, fhog, mirror_order, read_detector, write_detector
from src import cli
from src.datasets import load_table
from src.files import map_threads
from src.images import FRONTAL, PROFILES, FaceDetector, read_image

CHIP = 224
"""Pixels; the size of FairFace's crops."""
TRUTH = (12, 5, 212, 205)
"""Where the window of a face is in such a crop."""
GROUPS = 2
ROUNDS = 6
NUCLEAR, RIDGE = 0.004, 1e-5
"""Weights of the penalties on the filters."""
RANK = 40
"""Separable parts of a filter; dlib's own have 54 to 66, and each costs time."""
MINED_PER_IMAGE = 12
MIRROR = mirror_order()


class Example(NamedTuple):
    """An image to mine false boxes in, `(height, width)` uint8, and the window of its face, if it shows one."""

    image: np.ndarray
    truth: tuple[int, int, int, int] | None = None


class Filters:
    """Filters, one per group, and their mirror images, in turns.

    Args:
        weights: `(groups, 3101)`: those of a window's features, then what is subtracted from their sum.
    """

    def __init__(self, weights: np.ndarray):
        mirrored = np.concatenate([weights[:, :-1][:, MIRROR], weights[:, -1:]], 1)
        self.own = weights
        self.all = np.stack([weights, mirrored], 1).reshape(-1, SIZE + 1)

    def scores(self, windows: np.ndarray) -> np.ndarray:
        """Score `(n, 3100)` windows: `(n, 2 * groups)`."""
        return windows @ self.all[:, :-1].T.astype(np.float32) - self.all[:, -1]


def find_misses(faces: pd.DataFrame) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read face crops as `(224, 224)` gray: those in which the frontal detector finds nothing, and the others."""
    detector = FaceDetector(upsample=0, profiles=False)

    def search(path: str) -> tuple[np.ndarray, bool]:
        image = read_image(path)
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), bool(detector.detect(image))

    searched = map_threads(search, faces["path"].tolist(), "search faces")
    return [gray for gray, found in searched if not found], [gray for gray, found in searched if found]


def blur_faces(photos: pd.DataFrame) -> list[Example]:
    """Read photos as gray, with the boxes of dlib's frontal detector blurred; skip those in which it finds nothing."""
    detector = FaceDetector(profiles=False, max_side=640)

    def blur(path: str) -> Example | None:
        image = read_image(path)
        gray, faces = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), detector.detect(image)
        for left, top, right, bottom in (face.box for face in faces):
            size = max((right - left) // 4, 1)
            part = gray[top:bottom, left:right]
            part[:] = cv2.blur(cv2.blur(part, (size, size)), (size, size))
        return Example(gray) if faces else None

    return [example for example in map_threads(blur, photos["path"].tolist(), "blur faces") if example]


def cut_window(chip: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Cut a face's window and the cells round it out of a crop, moved and scaled a little: `(96, 96)`."""
    dx, dy, zoom = (0, 0, 1) if rng is None else (*rng.uniform(-8, 8, 2), np.exp(rng.uniform(-0.12, 0.12)))
    side = (TRUTH[2] - TRUTH[0]) * zoom * (CELLS + 2) / CELLS
    left, top = (TRUTH[0] + TRUTH[2]) / 2 + dx - side / 2, (TRUTH[1] + TRUTH[3]) / 2 + dy - side / 2
    scale = WINDOW * (CELLS + 2) / CELLS / side
    matrix = np.array([[scale, 0, scale / 2 - 0.5 - scale * left], [0, scale, scale / 2 - 0.5 - scale * top]])
    smooth = cv2.GaussianBlur(chip, (0, 0), 0.4 / scale)
    size = CELL * (CELLS + 2)
    return cv2.warpAffine(smooth, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def cut_at_border(chip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features of the whole crop as dlib sees one that fills its image, nothing beyond the border: `(31, 10, 10)`."""
    features = fhog(cv2.resize(chip, (90, 90), interpolation=cv2.INTER_AREA)[None])[0]
    y, x = rng.integers(0, CELLS - features.shape[1] + 1, 2)
    return np.pad(features, ((0, 0), (y, 1 - y), (x, 1 - x)))


def positives(chips: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Features of every crop in three versions: as it is, moved, and at a border: `(n, 3, 3100)`."""
    exact = np.concatenate([fhog(cut_window(chip)[None]) for chip in chips])
    moved = np.concatenate([fhog(cut_window(chip, rng)[None]) for chip in chips])
    border = np.stack([cut_at_border(chip, rng) for chip in chips])
    return np.stack([exact, moved, border], 1).reshape(len(chips), 3, SIZE)


def group_by_pose(features: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split heads into groups and turn those of a group one way: k-means in which the nearer mirror image counts.

    Returns:
        Group and whether to mirror, `(n,)` each.
    """
    both = np.stack([features, features[:, MIRROR]], 1)
    flat = both.reshape(-1, SIZE) - both.mean((0, 1))
    _, _, axes = np.linalg.svd(flat[:: max(len(flat) // 4000, 1)], full_matrices=False)
    both = (flat @ axes[:60].T).reshape(len(features), 2, 60)
    both /= np.linalg.norm(both, axis=2, keepdims=True)
    centres = both[rng.choice(len(both), GROUPS, replace=False), 0]
    for _ in range(60):
        best = (both @ centres.T).reshape(len(both), -1).argmax(1)
        mirrored, group = np.divmod(best, GROUPS)
        nearer = both[np.arange(len(both)), mirrored]
        centres = np.stack([nearer[group == k].mean(0) for k in range(GROUPS)])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return group, mirrored == 1


def fit_filter(positive: np.ndarray, negative: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit one filter, `(3101,)`; both classes weigh the same."""
    windows = np.concatenate([positive, negative])
    label = np.repeat(np.float32([1, -1]), [len(positive), len(negative)])
    share = np.repeat(np.float32([1 / len(positive), 1 / len(negative)]), [len(positive), len(negative)])

    def loss(filter_: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = filter_[:-1].astype(np.float32), np.float32(filter_[-1])
        miss = np.maximum(1 - label * (windows @ weights - bias), 0)
        slope = -2 * share * miss * label
        norm, norm_slope = _nuclear_norm(filter_[:-1])
        value = float(share @ miss**2) + NUCLEAR * norm + RIDGE * filter_[:-1] @ filter_[:-1]
        gradient = slope @ windows + NUCLEAR * norm_slope + 2 * RIDGE * filter_[:-1]
        return value, np.append(gradient, -slope.sum())

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x


def _nuclear_norm(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of the singular values of all planes, smoothed near 0, and its gradient."""
    left, values, right = np.linalg.svd(weights.reshape(PLANES, CELLS, CELLS))
    smooth = np.sqrt(values**2 + 1e-6)
    return smooth.sum(), ((left * (values / smooth)[:, None]) @ right).ravel()


def pyramid(image: np.ndarray) -> Iterator[np.ndarray]:
    """The image and copies of it, each 5/6 of the one before, as long as a window fits."""
    while min(image.shape) >= WINDOW - 2 * CELL:
        yield image
        image = cv2.resize(image, None, fx=5 / 6, fy=5 / 6)


def windows_of(example: Example) -> Iterator[np.ndarray]:
    """Features of all windows that are not on the face, one array `(n, 3100)` per level of the pyramid."""
    for level in pyramid(example.image):
        features = np.pad(fhog(level[None])[0], ((0, 0), (2, 2), (2, 2)))
        grid = np.lib.stride_tricks.sliding_window_view(features, (CELLS, CELLS), (1, 2)).transpose(1, 2, 0, 3, 4)
        wanted = np.ones(grid.shape[:2], bool)
        if example.truth is not None:
            wanted = _overlap(grid.shape[:2], example.image.shape[0] / level.shape[0], example.truth) < 0.42
        if wanted.any():
            yield grid[wanted].reshape(-1, SIZE)


def _overlap(grid: tuple[int, int], scale: float, truth: tuple[int, int, int, int]) -> np.ndarray:
    """Intersection over union of each window of a level with the truth."""
    side, starts = WINDOW * scale, [(np.arange(count) - 1) * CELL * scale for count in grid]
    high, wide = (
        np.clip(np.minimum(start + side, truth[end + 2]) - np.maximum(start, truth[end]), 0, None)
        for start, end in zip(starts, (1, 0), strict=True)
    )
    shared = high[:, None] * wide
    return shared / (side**2 + (truth[2] - truth[0]) * (truth[3] - truth[1]) - shared)


def mine(filters: Filters, examples: list[Example], threshold: float = -0.8) -> np.ndarray:
    """Features of the worst false windows of each image, mirrored where a mirrored filter found them: `(n, 3100)`."""

    def search(example: Example) -> np.ndarray:
        found = [np.empty((0, SIZE), np.float32)]
        for windows in windows_of(example):
            scores = filters.scores(windows)
            false = scores.max(1) > threshold
            found.append(_turned(windows[false], scores[false]))
        windows = np.concatenate(found)
        worst = np.argsort(filters.scores(windows)[:, ::2].max(1))[-MINED_PER_IMAGE:]
        return windows[worst]

    return np.concatenate(map_threads(search, examples, "mine"))


def _turned(windows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    odd = scores.argmax(1) % 2 == 1
    return np.where(odd[:, None], windows[:, MIRROR], windows)


def draw_windows(examples: list[Example], rng: np.random.Generator) -> np.ndarray:
    """Features of four windows of each level of each image, drawn at random: `(n, 3100)`."""
    levels = (windows for example in examples for windows in windows_of(example))
    return np.concatenate([windows[rng.integers(0, len(windows), 4)] for windows in levels])


def draw_near(filters: np.ndarray, images: list[np.ndarray]) -> np.ndarray:
    """Features of two windows of each level of each image, those nearest to the threshold, and one more: `(n, 3100)`.

    Args:
        filters: `(filters, 3101)`, in which `src.cli.THRESHOLD` counts.
    """

    def draw(image: np.ndarray) -> np.ndarray:
        drawn = []
        for windows in windows_of(Example(image)):
            score = (windows @ filters[:, :-1].T - filters[:, -1]).max(1)
            drawn.append(windows[[*abs(score - cli.THRESHOLD).argsort()[:2], len(windows) // 2]])
        return np.concatenate(drawn)

    return np.concatenate(map_threads(draw, images, "windows"))


def train(chips: list[np.ndarray], examples: list[Example], rng: np.random.Generator) -> Filters:
    """Train the filters of all groups.

    Args:
        chips: Heads, `(224, 224)` uint8 gray.
        examples: Images that false boxes are mined in; a part of them each round.
    """
    features = positives(chips, rng)
    group, mirrored = group_by_pose(features[:, 0], rng)
    filters = Filters(rng.normal(0, 1e-3, (GROUPS, SIZE + 1)))
    negative = draw_windows(examples[:600], rng)
    for round_ in range(ROUNDS):
        own = []
        for k in range(GROUPS):
            heads = np.where(mirrored[group == k, None, None], features[group == k][:, :, MIRROR], features[group == k])
            own.append(fit_filter(heads.reshape(-1, SIZE), negative, filters.own[k]))
        filters = Filters(np.stack(own))
        best = np.stack([filters.scores(heads).max(0) for heads in features]).argmax(1)
        group, mirrored = best // 2, best % 2 == 1
        print(
            f"round {round_ + 1} of {ROUNDS}: {len(negative):,} negatives, groups of {np.bincount(group)}", flush=True
        )
        hard = negative[filters.scores(negative)[:, ::2].max(1) > -1.05]
        if round_ + 1 < ROUNDS:
            negative = np.concatenate([hard, mine(filters, examples[round_ % 4 :: 4])])
    return filters


def _roots(covariance: np.ndarray, unit: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of matrices `(planes, 10, 10)`, scaled to mean variance 1 if `unit`, and their inverses."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-3 * values[:, -1:])
    values = np.sqrt(values / values.mean(1, keepdims=True) if unit else values)[:, None]
    transposed = vectors.transpose(0, 2, 1)
    return vectors * values @ transposed, vectors / values @ transposed


def reduce_rank(filter_: np.ndarray, rank: int, windows: np.ndarray) -> np.ndarray:
    """Approximate a filter by the sum of `rank` separable ones whose score of windows is nearly the same.

    Args:
        filter_: `(3101,)`.
        windows: Features of faces and of background, `(n, 3100)`.
    """
    planes = windows.reshape(-1, PLANES, CELLS, CELLS)
    centred = planes - planes.mean(0)
    by_row, from_row = _roots(np.einsum("npij,npkj->pik", centred, centred, optimize=True), unit=True)
    by_column, from_column = _roots(np.einsum("npij,npik->pjk", centred, centred, optimize=True))
    left, values, right = np.linalg.svd(by_row @ filter_[:-1].reshape(PLANES, CELLS, CELLS) @ by_column)
    plane, part = np.nonzero(values >= np.sort(values, axis=None)[-rank])
    columns = np.einsum("rij,rj->ri", from_row[plane], left[plane, :, part])
    rows = np.einsum("rij,rj->ri", from_column[plane], right[plane, part])
    scores = windows @ filter_[:-1].astype(np.float32) - filter_[-1]
    separable = zip(plane, columns, rows, strict=True)
    responses = np.stack([planes[:, p] @ row @ column for p, column, row in separable], 1)
    near = np.exp(-abs(scores - cli.THRESHOLD) / 2)[:, None]  # what is far from the threshold may change
    design = np.append(responses, np.ones_like(near), 1) * near
    weights = np.linalg.lstsq(design, scores * near[:, 0], rcond=None)[0]
    reduced = np.zeros((PLANES, CELLS, CELLS))
    np.add.at(reduced, plane, weights[:-1, None, None] * columns[:, :, None] * rows[:, None, :])
    return np.append(reduced, -weights[-1])


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--faces", default="data/FairFace", help="folder of FairFace")
    parser.add_argument("--photos", default="data/All-Age-Faces", help="folder of All-Age-Faces")
    parser.add_argument("--output", type=Path, default=PROFILES, help="file to write")
    parser.add_argument("--shift", type=float, default=1.3, help="subtracted from every score")
    parser.add_argument("--limit", type=int, help="face crops to search, for a try (default: all)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    faces, photos = load_table("fairface", args.faces), load_table("aaf", args.photos)
    faces, photos = (table[table["split"] == "train"].sample(frac=1, random_state=0) for table in (faces, photos))
    missed, found = find_misses(faces[: args.limit])
    blurred = blur_faces(photos[: min(700, args.limit or 700)])
    examples = blurred + [Example(chip, TRUTH) for chip in (found[:233] + missed[:700])]
    rng.shuffle(examples)
    turned = train(missed, examples, rng).all
    turned[:, -1] += args.shift
    frontal, overlap = read_detector(FRONTAL)
    filters = np.concatenate([frontal, turned])
    windows = draw_near(filters, found[:700] + missed[:700])
    write_detector(args.output, [reduce_rank(filter_, RANK, windows) for filter_ in filters], overlap)
    print(f"{args.output}: dlib's {len(frontal)} detectors and {len(turned)} of turned heads")


if __name__ == "__main__":
    cli.run(main)
