"""Write a label table in which some rows come more often, to train on them more often.

    python recipes/repeat_rows.py data/boxes.csv -o data/weighted.csv --where "ethnicity == 'Black'" "age_min == 10"

Each condition adds the rows that meet it once more; it is an expression over the table's columns, as `DataFrame.eval`
takes it. Rows that have ages as ranges have no `ages`. Only rows whose column `split` says `train` are repeated, so
that all others count once in metrics.
"""

import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, UserError, one_line, run
from src.datasets.csv_table import read_cells, write_csv


def parse_args() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("table", type=Path, help="label table, .csv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table to write, .csv, in the same folder")
    parser.add_argument("--where", nargs="+", required=True, metavar="CONDITION", help="which rows to add once more")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    output = args.output
    if output.suffix != ".csv" or output.resolve().parent != args.table.resolve().parent:
        raise UserError(f"--output must be a .csv file in the folder of {args.table}, got {output}")
    if output.resolve() == args.table.resolve():
        raise UserError(f"--output must be another file than the table, got {output}")
    rows = repeat_rows(args.table, args.where)
    write_csv(rows, output)
    print(f"{output}: {len(rows):,} rows")


def repeat_rows(path: Path, conditions: list[str]) -> pd.DataFrame:
    """Return the rows of a table, followed by those that meet each condition; all cells are text.

    Raises:
        UserError: the file is no label table, a condition is invalid for it, or no training row meets one.
    """
    cells = read_cells(path, lambda header: ["img_paths", "split"])
    table = cells.apply(to_numbers)
    parts = [cells]
    for condition in conditions:
        try:
            met = table.eval(condition)
        except Exception as error:  # pandas lets through what Python and its own parser raise
            raise UserError(
                f"--where must be a condition on {', '.join(table)}, got {condition!r}: {one_line(error)}"
            ) from error
        if not isinstance(met, pd.Series) or met.dtype != bool:
            raise UserError(f"--where must be a condition such as 'age_min == 10', got {condition!r}")
        met &= cells["split"].str.lower() == "train"
        if not met.any():
            raise UserError(f"--where must hold for training rows of {path}, got {condition!r}, which holds for none")
        parts.append(cells[met])
    return pd.concat(parts)


def to_numbers(column: pd.Series) -> pd.Series:
    """Convert a column of text to numbers, NaN where it is empty, if all of it is numbers; else return it."""
    try:
        return pd.to_numeric(column)
    except ValueError:
        return column


if __name__ == "__main__":
    run(main)
