"""Convert a weight file for another runtime and check its predictions there.

python export.py --weight_file WEIGHTS --format onnx -o age_gender.onnx
python export.py --weight_file WEIGHTS --format onnx -o age_gender.onnx --int8 utkface
python export.py --weight_file WEIGHTS --format litert -o age_gender.tflite
python export.py --weight_file WEIGHTS --format openvino -o age_gender.xml
python export.py --weight_file WEIGHTS --format saved_model -o age_gender

The runtimes are optional: pip install -r requirements-export.txt
"""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli

if TYPE_CHECKING:
    import numpy as np

    from src.models import WeightsInfo

FACES = 300
"""Random faces for `--int8`: half calibrate, half measure."""


def parse_args() -> Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("--weight_file", help="weight file or published name (default: the bundled model)")
    parser.add_argument(
        "--format", required=True, choices=("onnx", "litert", "openvino", "saved_model"), help="runtime"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write; a folder for saved_model")
    parser.add_argument(
        "--int8",
        nargs="+",
        metavar="DB",
        help="ONNX in 8-bit integers, calibrated on random faces of these tables: names, or .csv or .mat files",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from src import models

    read_faces = partial(calibration_faces, args.int8) if args.int8 else None
    print(models.export_model(args.weight_file or models.bundled(".hdf5"), args.format, args.output, read_faces))


def calibration_faces(db: list[str], info: "WeightsInfo") -> "np.ndarray":
    """Read random faces of the train parts of tables: `(n, size, size, 3)` float32, RGB 0..255."""
    import numpy as np

    from src.datasets import load_training_part, read_faces

    table = load_training_part(db)
    table = table.sample(min(FACES, len(table)), random_state=0)
    faces = [face for _, face in read_faces(table, info.margin, info.img_size, info.resize)]
    if len(faces) < 2:  # one half calibrates, the other measures
        raise cli.JobError(f"--int8 requires 2 images that can be read, got {len(faces)}; name other tables")
    return np.stack(faces).astype(np.float32)


if __name__ == "__main__":
    cli.run(main)
