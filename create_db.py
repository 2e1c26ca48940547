"""Build `meta/{db}.csv` from IMDB-WIKI, dropping unusable rows.

    python create_db.py --db imdb
    python create_db.py --db wiki --min_score 1.0

Reads `data/{db}_crop/{db}.mat` (fetch it with `./download.sh`). `train.py` and `evaluate.py` do so by themselves where
the table is missing; this script is for another `--min_score`, and prints how many rows each rule drops.
"""

from src import cli


def main() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--db", default="imdb", choices=("imdb", "wiki"), help="dataset")
    parser.add_argument("--min_score", type=float, default=1.0, help="minimum score of the face")
    args = parser.parse_args()
    from src.datasets import create_imdb_wiki

    print("\n".join(create_imdb_wiki(args.db, args.min_score)))


if __name__ == "__main__":
    cli.run(main)
