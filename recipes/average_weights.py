"""Write the mean of the weights of two or more files of one network.

    python recipes/average_weights.py first/A.hdf5 second/B.hdf5 --shares 0.4 0.6 -o mean.hdf5

The mean of weights that one training reached after the other is often better than each (Izmailov et al., arXiv
1803.05407). The description is that of the last file, without its validation metrics.
"""

import dataclasses
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run

ALIKE = ("model_name", "img_size", "margin", "colour", "gender_order", "age_decoding", "heads", "scaled", "resize")
"""What the descriptions of the files must agree in."""


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="weight files, .hdf5, of one network and size")
    parser.add_argument("--shares", nargs="+", type=float, required=True, help="weight of each file; they sum to 1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weight file to write, .hdf5")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if len(args.shares) != len(args.files) or not math.isclose(sum(args.shares), 1):
        raise UserError(f"--shares must be {len(args.files)} numbers that sum to 1, got {args.shares}")
    if args.output.suffix != ".hdf5":
        raise UserError(f"--output must be an .hdf5 file, got {args.output}")
    average_weights(args.files, args.shares, args.output)
    print(f"{args.output}: the mean of {len(args.files)} files")


def average_weights(files: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted mean of weight files.

    Args:
        shares: Weight of each file.

    Raises:
        UserError: A file is no weight file, or the files are not alike.
        OSError: `output` cannot be written.
    """
    from src.models import load_model, save_weights

    total: list = []
    first = None
    for file, share in zip(files, shares, strict=True):
        model, info = load_model(file)
        first = first or info
        for name in ALIKE:
            if getattr(info, name) != getattr(first, name):
                expected, received = getattr(first, name), getattr(info, name)
                raise UserError(f"all files must have the {name} of {files[0]}, {expected}, got {received} in {file}")
        weights = [share * array for array in model.get_weights()]
        total = [sum(arrays) for arrays in zip(total, weights, strict=True)] if total else weights
    model.set_weights(total)
    save_weights(model, output, dataclasses.replace(info, metrics={}))


if __name__ == "__main__":
    run(main)
