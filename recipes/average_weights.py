"""Average two weight files of one network, for instance before and after fine-tuning.

    python recipes/average_weights.py BEFORE.hdf5 AFTER.hdf5 --share 0.5 -o AVERAGE.hdf5 \
        --metrics val_pred_age_mae=4.74 val_pred_gender_accuracy=0.916

The average of a network and of what it was fine-tuned to is often better on the old data than the latter and nearly as
good on the new (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903). Choose the share on
validation data. The result describes itself as AFTER does, but for its metrics: evaluate it and give what came out.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import cli
from src.cli import UserError


def average_weights(before: Path, after: Path, share: float, output: Path, metrics: dict[str, float]) -> None:
    """Write `(1 - share) * before + share * after`.

    Args:
        share: 0..1, of `after`.
        metrics: Of the average on validation data, which the file carries.

    Raises:
        UserError: the files are for different networks or crops, or `share` is out of range.
    """
    from src.models import load_model, save_weights

    if not 0 <= share <= 1:
        raise UserError(f"--share must be within 0..1, got {share:g}")
    (model, info), (other, other_info) = load_model(before), load_model(after)
    for name in ("model_name", "img_size", "margin", "colour", "gender_order", "resize"):
        if getattr(info, name) != getattr(other_info, name):
            raise UserError(
                f"both files must have the same {name}, got {getattr(info, name)} and {getattr(other_info, name)}"
            )
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    other.set_weights([(1 - share) * own + share * theirs for own, theirs in pairs])
    save_weights(other, output, dataclasses.replace(other_info, metrics=metrics))


def parse_metric(text: str) -> tuple[str, float]:
    """Parse `NAME=VALUE`."""
    name, value = text.split("=")
    return name, float(value)


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("before", type=Path, help="weight file")
    parser.add_argument("after", type=Path, help="weight file of the same network")
    parser.add_argument("--share", type=float, default=0.5, help="of the second file, 0..1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weight file to write")
    parser.add_argument(
        "--metrics", nargs="*", default=[], type=parse_metric, metavar="NAME=VALUE", help="validation metrics to store"
    )
    args = parser.parse_args()
    average_weights(args.before, args.after, args.share, args.output, dict(args.metrics))
    print(args.output)


if __name__ == "__main__":
    cli.run(main)
