"""Finds faces and estimates age and gender: from the camera, a video or a folder of pictures.

python demo.py                                                # camera 0 in a window
python demo.py --camera talk.mp4 --output_dir results         # an annotated video and predictions.csv
python demo.py --image_dir samples                            # steps through pictures in a window
python demo.py --image_dir samples --output_dir results       # annotated pictures and predictions.csv
"""

import argparse
from pathlib import Path

from src import cli


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_argument_group("where faces come from").add_mutually_exclusive_group()
    source.add_argument(
        "--image_dir", type=Path, metavar="DIR", help="folder of pictures, searched with its subfolders"
    )
    model = parser.add_argument_group("model and detector")
    model.add_argument("--weight_file", metavar="FILE", help="weights (default: the bundled model)")
    model.add_argument(
        "--margin",
        type=float,
        help="by which share of its size a face box grows on each side (default: the weights' own)",
    )
    output = parser.add_argument_group("where results go")
    output.add_argument("--output_dir", type=Path, metavar="DIR", help="write files instead of opening a window")
    output.add_argument("--json", action="store_true", help="also write predictions.jsonl, one line a picture")
    output.add_argument("--skip_existing", action="store_true", help="go on where an earlier run stopped")
    return parser.parse_args(arguments)


def main() -> None:
    arguments = parse_args()
    from src.demo import run_demo  # after parsing, so that --help answers at once

    run_demo(**vars(arguments))


if __name__ == "__main__":
    cli.run(main)
