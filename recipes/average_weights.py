"""Write the mean of the weights of two or more files of one network.

    python recipes/average_weights.py first/A.hdf5 second/B.hdf5 --shares 0.4 0.6 -o mean.hdf5

The mean of weights that one training reached after the other is often better than each (Izmailov et al., arXiv
1803.05407). The description is that of the last file, without its validation metrics.
"""

import dataclasses
import math
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, run


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
    from src.models import load_model, save_weights

    total: list = []
    known = None
    for file, share in zip(args.files, args.shares, strict=True):
        model, info = load_model(file)
        network = info.model_name, info.img_size, info.margin, info.colour, info.gender_order
        if known not in (None, network):
            raise UserError(f"all files must be of one network, got {network} in {file} beside {known}")
        known = network
        weights = [share * array for array in model.get_weights()]
        total = [sum(arrays) for arrays in zip(total, weights, strict=True)] if total else weights
    model.set_weights(total)
    save_weights(model, args.output, dataclasses.replace(info, metrics={}))
    print(f"{args.output}: the mean of {len(args.files)} files")


if __name__ == "__main__":
    run(main)
