"""The demo over a folder of pictures: annotated pictures and predictions into files, or into a window."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from src.cli import JobError, UserError
from src.demo.drawing import draw_predictions
from src.demo.prediction_files import PredictionFiles
from src.demo.window import Window
from src.images import list_images, read_image, write_image
from src.inference import Picture, Predictor


@dataclass
class Summary:
    """What became of the pictures of a folder; `unreadable` holds one line for each, name and reason."""

    pictures: int = 0
    faces: int = 0
    skipped: int = 0
    unreadable: list[str] = field(default_factory=list)

    def line(self) -> str:
        done = f"{self.faces} face(s) in {self.pictures} picture(s)" if self.faces else "no face in any picture"
        parts = [done]
        if self.skipped:
            parts.append(f"{self.skipped} done before")
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} unreadable")
        return ", ".join(parts)


def find_pictures(image_dir: Path, output_dir: Path | None = None) -> list[Path]:
    """Pictures below `image_dir`, without those below an `output_dir` that lies inside it.

    Raises:
        UserError: there is no such folder, it holds no picture, or results would replace the pictures.
    """
    if not image_dir.is_dir():
        raise UserError(f"expected a folder of pictures, received {image_dir}, which is none; give --image_dir FOLDER")
    if output_dir and output_dir.resolve() == image_dir.resolve():
        raise UserError(
            f"expected an --output_dir other than --image_dir, received {output_dir}; pictures would be replaced"
        )
    paths = list_images(image_dir)
    if output_dir:
        paths = [path for path in paths if output_dir.resolve() not in path.resolve().parents]
    if not paths:
        raise UserError(f"expected pictures below {image_dir}, found none; give a folder with .jpg, .png, ... files")
    return paths


def run_folder_to_files(
    image_dir: Path,
    paths: list[Path],
    output_dir: Path,
    predictor: Predictor,
    skip_existing: bool = False,
    with_json: bool = False,
) -> Summary:
    """Writes annotated pictures at full resolution and their predictions.

    A picture keeps its path below `image_dir`. Its predictions are on disk before the annotated picture appears, so
    that `skip_existing` can go on after any stop: pictures whose annotated file exists are not done again.

    Raises:
        JobError: no picture could be read, or an annotated one cannot be written.
        OSError: the predictions cannot be written.
    """
    targets = {path.relative_to(image_dir).as_posix(): path for path in paths}
    done = frozenset(name for name in targets if skip_existing and output_path(output_dir, name).exists())
    todo = [(name, path) for name, path in targets.items() if name not in done]
    summary = Summary(skipped=len(done))
    pictures = predictor.predict_pictures(todo, read_image)
    with PredictionFiles(output_dir, with_json, done) as files, PictureWriter(output_dir) as writer:
        for picture in tqdm(_readable(pictures, summary), total=len(todo), unit="picture", disable=None):
            files.write(picture.name, picture.predictions)
            writer.write(picture)
    check_any_readable(summary)
    return summary


def run_folder_in_window(image_dir: Path, paths: list[Path], window: Window, predictor: Predictor) -> Summary:
    """Steps through a folder in a window: any key goes on, Esc, q or closing the window ends it.

    Raises:
        JobError: no picture could be read.
    """
    summary = Summary()
    items = [(path.relative_to(image_dir).as_posix(), path) for path in paths]
    pictures = predictor.predict_pictures(items, read_image, batch_size=1)
    for picture in _readable(pictures, summary):
        window.show(draw_predictions(picture.image, picture.predictions))
        while not (key := window.key(50)):
            pass
        if key == "quit":
            break
    check_any_readable(summary)
    return summary


def _readable(pictures: Iterable[Picture], summary: Summary) -> Iterator[Picture]:
    for picture in pictures:
        if picture.image is None:
            summary.unreadable.append(f"{picture.name}: {picture.error}")
            tqdm.write(f"skipped {picture.name}: {picture.error}", file=sys.stderr)
            continue
        summary.pictures += 1
        summary.faces += len(picture.predictions)
        yield picture


def check_any_readable(summary: Summary) -> None:
    if summary.unreadable and not summary.pictures and not summary.skipped:
        raise JobError(f"none of {len(summary.unreadable)} pictures could be read")


def output_path(output_dir: Path, name: str) -> Path:
    """Where the annotated picture goes: the own name, `.png` added where OpenCV cannot write colour in its format."""
    path = output_dir / name
    return path.with_name(path.name + ".png") if path.suffix.lower() in (".pbm", ".pgm", ".jp2") else path


class PictureWriter:
    """Draws and writes annotated pictures in threads; at most two a thread are waiting."""

    def __init__(self, output_dir: Path, workers: int = 2):
        self.output_dir = output_dir
        self._pool = ThreadPoolExecutor(workers)
        self._waiting: deque[Future] = deque()
        self._limit = 2 * workers

    def write(self, picture: Picture) -> None:
        """Takes over a picture; raises the JobError of an earlier one that could not be written."""
        self._waiting.append(self._pool.submit(self._write, picture))
        while len(self._waiting) > self._limit:
            self._waiting.popleft().result()

    def _write(self, picture: Picture) -> None:
        path = output_path(self.output_dir, picture.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, draw_predictions(picture.image, picture.predictions))
        except OSError as error:
            raise JobError(f"cannot write {path}: {error.strerror}; then go on with --skip_existing") from error

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()
