"""Estimate age and gender of the faces in a camera, a video, a photo or a folder of images.

python demo.py                                            camera 0 in a window
python demo.py --camera talk.mp4 --output_dir results     an annotated video and predictions.csv
python demo.py --image_dir samples                        step through images in a window
python demo.py --image_dir samples --output_dir results   annotated images and predictions.csv

Keys: Esc or q quits, s saves the frame, space pauses; in a folder any other key shows the next image.
"""

from argparse import Namespace
from pathlib import Path

from src import cli


def parse_args(arguments: list[str] | None = None) -> Namespace:
    parser = cli.Parser(__doc__)
    source = parser.add_argument_group("where faces come from").add_mutually_exclusive_group()
    source.add_argument("--camera", default="0", help="index or device of a camera, address of a stream, or video file")
    source.add_argument(
        "--image_dir", type=Path, metavar="DIR", help="folder of images, with its subfolders, or one image"
    )
    output = parser.add_argument_group("where results go (default: a window)")
    output.add_argument("--output_dir", type=Path, metavar="DIR", help="write files instead of opening a window")
    output.add_argument(
        "--json",
        dest="with_json",
        action="store_true",
        help="also write predictions.jsonl, one line per image or frame",
    )
    output.add_argument("--skip_existing", action="store_true", help="skip what an earlier run completed")
    model = parser.add_argument_group("model")
    model.add_argument("--weight_file", metavar="FILE", help="weights (default: the bundled model)")
    model.add_argument(
        "--margin",
        type=float,
        help="share of its size by which a face box grows on each side (default: the weights' own)",
    )
    detector = parser.add_argument_group("face detector")
    detector.add_argument(
        "--threshold", type=float, default=cli.THRESHOLD, help="minimum score of a face; lower finds more"
    )
    detector.add_argument(
        "--upsample",
        type=cli.auto_or_int,
        choices=("auto", 0, 1, 2, 3),
        default="auto",
        help="search once, at 2^N times the size; auto: 0, and 1 where nothing is found, and again as --max_side says",
    )
    detector.add_argument(
        "--no_profiles", dest="profiles", action="store_false", help="find only faces that look towards the camera"
    )
    detector.add_argument(
        "--max_side",
        type=cli.auto_or_int,
        default="auto",
        help="longest side of the searched copy, pixels; auto: 640, and with --upsample auto larger ones in "
        "large photos, for smaller faces",
    )
    return parser.parse_args(arguments)


def main() -> None:
    arguments = parse_args()
    from src.demo import Request, run_demo  # after parsing, so that --help answers at once

    run_demo(Request(**vars(arguments)))


if __name__ == "__main__":
    cli.run(main)
