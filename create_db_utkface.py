"""Build a table from UTKFace's images, whose names tell age and gender.

    python create_db_utkface.py -i data/UTKFace -o meta/utkface.csv

Decodes every image once; files that cannot be used are named and counted by rule. The table also says which images are
for training, validation and test, by their content.
"""

from pathlib import Path

from src import cli


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("-i", "--input", required=True, type=Path, help="folder of the images")
    parser.add_argument("-o", "--output", required=True, type=Path, help="table to write: NAME.csv or NAME.mat")
    parser.add_argument("--img_size", type=int, help="side of the images in a .mat, pixels (default: 64)")
    args = parser.parse_args()
    from src.datasets import create_utkface

    print("\n".join(create_utkface(args.input, args.output, args.img_size)))


if __name__ == "__main__":
    cli.run(main)
