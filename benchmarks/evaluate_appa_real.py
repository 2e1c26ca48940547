"""Compare the speed of `evaluate_appa_real.py` with reading images one by one and `model.predict` in batches of 8.

    python benchmarks/evaluate_appa_real.py                 # 1,500 images, as many as APPA-REAL's valid split
    python benchmarks/evaluate_appa_real.py --count 200     # a quick look

The images are generated: JPEG files of 300 to 700 pixels in APPA-REAL's layout. The weights are random, which
does not change the time. Both ways get one call to warm up, and their predictions are compared.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import JobError, Parser, run

MARGIN = 0.3
ROUNDS = 4
"""Both ways take turns, so that other load on the machine slows both."""
MAX_DIFFERENCE = 0.1
"""Years, of the mean prediction: batch sizes change the rounding."""


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write a `valid` split of smooth colored noise."""
    from src.images.io import resize, write_image

    (folder / "valid").mkdir(parents=True)
    lines = ["file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age"]
    for index in range(count):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        write_image(folder / "valid" / f"{index:06d}.jpg_face.jpg", resize(coarse, int(rng.integers(300, 700))))
        lines.append(f"{index:06d}.jpg,38,{rng.uniform(1, 90):.2f},{rng.uniform(1, 9):.2f},{rng.integers(1, 91)}")
    (folder / "gt_avg_valid.csv").write_text("\n".join(lines) + "\n")


def faces_in(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / "valid").iterdir())]


def predict_plainly(model, paths: list[str], img_size: int) -> np.ndarray:
    """Read images one by one and predict ages 8 at a time."""
    from src.images.boxes import crop_to_margin
    from src.images.io import read_image, resize
    from src.labels import expected_age

    ages = []
    for start in range(0, len(paths), 8):
        faces = [crop_to_margin(read_image(path), 0.4, MARGIN) for path in paths[start : start + 8]]
        batch = np.stack([resize(face, img_size) for face in faces]).astype(np.float32)
        ages.append(expected_age(model.predict(batch, verbose=0)[1]))
    return np.concatenate(ages)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--count", type=int, default=1500, help="number of images")
    parser.add_argument("--model_name", default="EfficientNetB3", help="network")
    parser.add_argument("--img_size", type=int, default=224, help="input side, pixels")
    args = parser.parse_args()

    from src.evaluation.evaluate import evaluate_appa_real
    from src.inference.estimator import AgeGenderEstimator
    from src.models.backend import compile_predict
    from src.models.factory import get_model
    from src.models.weights.info import WeightsInfo

    model = get_model(args.model_name, args.img_size)
    estimator = AgeGenderEstimator(compile_predict(model), WeightsInfo(args.model_name, args.img_size, MARGIN))
    rng = np.random.default_rng(0)
    plain = ours = difference = 0.0
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(ROUNDS)]
        for folder in folders:
            write_images(folder, args.count // ROUNDS, rng)
        predict_plainly(model, faces_in(folders[0])[:8], args.img_size)
        estimator.predict([np.zeros((args.img_size, args.img_size, 3), np.uint8)] * estimator.batch_size)
        for folder in folders:
            start = time.perf_counter()
            ages = predict_plainly(model, faces_in(folder), args.img_size)
            between = time.perf_counter()
            report, _ = evaluate_appa_real(estimator, folder)
            plain, ours = plain + between - start, ours + time.perf_counter() - between
            real_ages = np.loadtxt(folder / "gt_avg_valid.csv", delimiter=",", skiprows=1, usecols=4)
            difference = max(difference, abs(report["bias_real"] - (ages - real_ages).mean()))
    if difference > MAX_DIFFERENCE:
        raise JobError(f"the two ways disagree by {difference:.2f} years on average")
    print(f"{args.count:,} images, {args.model_name} at {args.img_size} pixels")
    for label, seconds in [("one by one, model.predict in batches of 8", plain), ("evaluate_appa_real.py", ours)]:
        print(f"  {label:42} {seconds:7.1f} s {args.count / seconds:7.1f} images/s")
    print(f"  {plain / ours:.2f} times as fast; mean predictions differ by {difference:.3f} years")


if __name__ == "__main__":
    run(main)
