"""Convert a weight file for another runtime and check its predictions there.

python export.py --weight_file WEIGHTS --format onnx -o age_gender.onnx
python export.py --weight_file WEIGHTS --format litert -o age_gender.tflite
python export.py --weight_file WEIGHTS --format openvino -o age_gender.xml
python export.py --weight_file WEIGHTS --format saved_model -o age_gender

The runtimes are optional: pip install -r requirements-export.txt
"""

from argparse import Namespace
from pathlib import Path

from src import cli


def parse_args() -> Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("--weight_file", help="weight file or published name (default: the bundled model)")
    parser.add_argument(
        "--format", required=True, choices=("onnx", "litert", "openvino", "saved_model"), help="runtime"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write; a folder for saved_model")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from src import models

    print(models.export_model(args.weight_file or models.bundled(".hdf5"), args.format, args.output))


if __name__ == "__main__":
    cli.run(main)
