"""Makes a table out of UTKFace's pictures, whose names tell age and gender.

    python create_db_utkface.py -i data/UTKFace -o meta/utkface.csv

Every picture is decoded once; files that cannot be used are named and counted by rule. The table also says which
pictures learn, validate and test, by their content.
"""

import argparse
from pathlib import Path

from src import cli


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a table out of UTKFace's pictures.")
    parser.add_argument("-i", "--input", required=True, type=Path, help="folder of the pictures")
    parser.add_argument("-o", "--output", required=True, type=Path, help="table to write: NAME.csv or NAME.mat")
    parser.add_argument("--img_size", type=int, default=64, help="side of the pictures in a .mat (default: 64 pixels)")
    args = parser.parse_args()
    from src.datasets import create_utkface

    print("\n".join(create_utkface(args.input, args.output, args.img_size)))


if __name__ == "__main__":
    cli.run(main)
