"""Makes a table out of IMDB's or WIKI's labels, without the useless ones.

    python create_db.py --db imdb
    python create_db.py --db wiki --min_score 1.0

Reads `data/{db}_crop/{db}.mat` (fetch it with `./download.sh`), writes `meta/{db}.csv`.
"""

import argparse

from src import cli


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a table out of IMDB's or WIKI's labels.")
    parser.add_argument("--db", default="imdb", choices=("imdb", "wiki"), help="data set (default: %(default)s)")
    parser.add_argument("--min_score", type=float, default=1.0, help="least score of the face (default: %(default)s)")
    args = parser.parse_args()
    from src.datasets import create_imdb_wiki

    print("\n".join(create_imdb_wiki(args.db, args.min_score)))


if __name__ == "__main__":
    cli.run(main)
