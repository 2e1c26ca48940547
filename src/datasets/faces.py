"""The faces of a table as a network gets them in evaluation: cut to its margin and resized."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from src import cli, images
from src.cli import Progress, UserError
from src.datasets.table import PathLike, face_boxes, load_table, require_crops, require_margin
from src.files import map_ahead
from src.images import BOX_COLUMNS


def load_training_part(db: Sequence[PathLike]) -> pd.DataFrame:
    """Load the train parts of tables of face crops from their usual places, each image once.

    Raises:
        UserError: as `load_table`, or there is no train part, or it has whole photos or images with several faces.
    """
    table = load_table(db, only="train")
    boxes = [column for column in BOX_COLUMNS if column in table]
    table = table[table["split"] == "train"].drop_duplicates(["path", *boxes], ignore_index=True)
    if table.empty:
        raise UserError(f"the tables must have a train part, got {', '.join(map(str, db))} without one")
    several = table["path"].duplicated()
    if several.any():
        raise UserError(
            f"the tables must have one face per image, got several in {several.sum():,}, such as "
            f"{table.loc[several, 'path'].iloc[0]}; cut them with crop_faces.py"
        )
    require_crops(table)
    return table


def read_faces(table: pd.DataFrame, margin: float, size: int, resize: str = "area") -> Iterator[tuple[str, np.ndarray]]:
    """Read and cut the faces of a table of face crops, in threads, with a progress bar.

    Args:
        table: Rows as in `src/datasets/table.py`.
        margin: To cut, in face widths per side.
        size: Side of the faces, pixels.
        resize: How, see `src.images.resize`.

    Yields:
        Path and face, `(size, size, 3)` uint8 RGB, in the table's order. Images that cannot be read, or whose face lies
        outside, are skipped; a warning names each.

    Raises:
        UserError: the margin is above that of a face crop.
    """
    require_margin(table, margin, "the margin of the weights")

    def read(row: tuple) -> np.ndarray | images.ImageError:
        path, image, own_margin, box = row
        try:
            image = image if isinstance(image, np.ndarray) else images.read_image(path)
            return images.resize(images.crop_to_margin(image, own_margin, margin, box), size, resize)
        except images.ImageError as error:
            return error

    arrays = table["image"] if "image" in table else [None] * len(table)
    rows = zip(table["path"], arrays, table["margin"], face_boxes(table), strict=True)
    faces = Progress(map_ahead(read, rows), len(table), "images", "read")
    for path, face in zip(table["path"], faces, strict=True):
        if isinstance(face, images.ImageError):
            cli.warn_skipped(path, str(face))
        else:
            yield path, face
