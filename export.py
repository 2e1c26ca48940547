"""Convert a weight file for another runtime and check its predictions there.

python export.py --weight_file WEIGHTS --format onnx -o age_gender.onnx
python export.py --weight_file WEIGHTS --format onnx -o age_gender.onnx --int8 utkface   # half the time on CPUs
python export.py --weight_file WEIGHTS --format litert -o age_gender.tflite
python export.py --weight_file WEIGHTS --format openvino -o age_gender.xml
python export.py --weight_file WEIGHTS --format saved_model -o age_gender

The runtimes are optional: pip install -r requirements-export.txt
"""

from argparse import Namespace
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
        help="for onnx: 8-bit integers, calibrated on faces of these tables' train parts: names or .csv files",
    )
    args = parser.parse_args()
    if args.int8 and args.format != "onnx":
        raise cli.UserError(f"--int8 requires --format onnx, got {args.format}")
    return args


def main() -> None:
    args = parse_args()
    from src import models

    weight_file = args.weight_file or models.bundled(".hdf5")
    faces = training_faces(args.int8, models.identify(weight_file)) if args.int8 else None
    print(models.export_model(weight_file, args.format, args.output, faces))


def training_faces(db: list[str], info: "WeightsInfo") -> "np.ndarray":
    """Cut random faces of tables: `(n, size, size, 3)` float32, RGB 0..255."""
    import numpy as np

    from src.datasets import face_boxes, load_table, require_crops, require_margin
    from src.images import ImageError, crop_to_margin, read_image, resize

    table = load_table(db, only="train")
    table = table[table["split"] == "train"]
    if table.empty:
        raise cli.UserError(f"--int8 requires tables with a train part, got {', '.join(db)}; name others")
    table = table.sample(min(FACES, len(table)), random_state=0)
    require_crops(table)
    require_margin(table, info.margin, "the margin of the weights")
    faces = []
    for path, margin, box in zip(table["path"], table["margin"], face_boxes(table), strict=True):
        try:
            crop = crop_to_margin(read_image(path), margin, info.margin, box)
        except ImageError as error:
            cli.warn_skipped(path, str(error))
            continue
        faces.append(resize(crop, info.img_size, info.resize))
    if len(faces) < 2:  # one half calibrates, the other measures
        raise cli.JobError(f"--int8 requires 2 readable images or more, got {len(faces)}; name other tables")
    return np.stack(faces).astype(np.float32)


if __name__ == "__main__":
    cli.run(main)
