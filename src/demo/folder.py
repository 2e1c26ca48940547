"""The demo over a folder of images: annotated images and predictions into files, or into a window."""

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.cli import JobError, Progress, warn_skipped
from src.demo.drawing import draw_predictions
from src.demo.prediction_files import PredictionFiles, count_rows, names_in_json
from src.demo.results import Result, Results, root_hash
from src.demo.window import Window
from src.files import file_stamp, map_ahead
from src.images import EXTENSIONS, FoundImages, ImageError, read_image, write_image
from src.inference import LabelledImage, Predictor

UNWRITABLE = frozenset([".pbm", ".pgm", ".jp2"])
"""Endings of formats in which OpenCV writes no colour."""
OWN_ERRORS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
        *(errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
"""Errors that concern one name; after others, such as a full disk, no image could be written."""


@dataclass
class Summary:
    """What became of the images of a folder.

    Attributes:
        unreadable: Images that are damaged, by name, with the reason.
        failed: Files that cannot be read or written, by name, with the reason.
        notes: Lines about what is no image.
    """

    images: int = 0
    faces: int = 0
    skipped: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        found = self.faces or self.skipped
        counts = f"{self.faces} face(s) in {self.images} image(s)" if found else "no face in any image"
        parts = [counts] if self.images or not self.skipped else []
        if self.skipped:
            parts.append(f"{self.skipped} done before")
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} unreadable")
        return "\n".join([", ".join(parts), *self.notes])

    def check(self) -> None:
        """Raise a JobError if no image could be read."""
        if self.unreadable and not self.images and not self.skipped and not self.failed:
            raise JobError(f"none of {len(self.unreadable)} images could be read")

    def failure(self) -> str:
        """Describe the files that failed, although the run went on; empty if none did."""
        if not self.failed:
            return ""
        name, reason = next(iter(self.failed.items()))
        return f"{len(self.failed)} file(s) failed, such as {name}: {reason}"


def run_folder_to_files(
    found: FoundImages,
    output_dir: Path,
    predictor: Predictor,
    skip_existing: bool = False,
    with_json: bool = False,
    options: str = "",
) -> Summary:
    """Write annotated images at full resolution and their predictions.

    An image keeps its path below the folder, unless an image from elsewhere has that name among the results. Results
    of other sources stay. A file that cannot be read or written costs only itself and is named in the summary.

    Args:
        skip_existing: Skip images whose annotated file and rows exist and that did not change since.
        options: Identifies weights and options; images that were done with others are not skipped.

    Raises:
        UserError: Another run is writing the same results.
        JobError: No image could be read, or the disk is full.
        OSError: The predictions cannot be written.
    """
    summary = Summary(notes=found.notes(), failed=dict(found.unreadable))
    for name, reason in found.unreadable.items():
        warn_skipped(name, reason)
    results = Results(output_dir)
    sources = [(path.relative_to(found.folder).as_posix(), file_stamp(path)) for path in found.paths]
    with results.claimed(root := root_hash(found.folder), sources[0][0] if len(sources) == 1 else ""):
        chosen = results.choose(sources, root, lambda name: [output_name(name)])
        done = find_done(results, chosen, with_json, options) if skip_existing else set()
        summary.skipped = len(done)
        todo = {result.name: result._replace(options=options) for result in chosen if result.name not in done}
        if skip_existing and (others := sum(has_other_options(result, options) for result in chosen)):
            summary.notes.append(f"{others} image(s) of an earlier run with other weights or options were done again")
        summary.notes += _note_renamed(todo.values(), output_dir)
        stale = results.outdated(root, chosen, found.unreadable) if len(found.paths) > 1 else set()
        files = PredictionFiles(results, todo.keys() | stale, with_json)

        def write(labelled: LabelledImage) -> LabelledImage:
            write_drawn(output_dir / todo[labelled.name].file, labelled, summary)
            return labelled

        items = [(name, (name, found.folder / result.source)) for name, result in todo.items()]
        images = _readable(predictor.predict_images(items, _reader(summary)), summary)
        for labelled in Progress(map_ahead(write, images, workers=2, ahead=2), len(todo), "images"):
            complete = labelled.name not in summary.failed
            files.write(todo[labelled.name], labelled.predictions, complete=complete)
    summary.check()
    return summary


def _note_renamed(todo: Iterable[Result], output_dir: Path) -> list[str]:
    renamed = [result.name for result in todo if result.name != result.source]
    if not renamed:
        return []
    others = f"{output_dir} holds results of other images of these names"
    return [f"{len(renamed)} image(s) got a new name, such as {renamed[0]}: {others}"]


def find_done(results: Results, chosen: Iterable[Result], with_json: bool, options: str) -> set[str]:
    """Return the names of results whose file and rows are all there, made with these options."""
    rows = count_rows(results.folder)
    in_json = names_in_json(results.folder) if with_json else set()

    def is_done(result: Result) -> bool:
        if has_other_options(result, options):
            return False
        rows_there = rows[result.name] == result.rows if result.rows is not None else False
        return rows_there and (not with_json or result.name in in_json) and (results.folder / result.file).is_file()

    return {result.name for result in chosen if is_done(result)}


def has_other_options(result: Result, options: str) -> bool:
    """Whether a result is complete, but made with other weights or options."""
    return result.rows is not None and result.options != options


def run_folder_in_window(found: FoundImages, window: Window, predictor: Predictor) -> Summary:
    """Step through a folder in a window: any key shows the next image, Esc, q or closing the window ends it.

    Raises:
        JobError: No image could be read.
    """
    summary = Summary(notes=found.notes(), failed=dict(found.unreadable))
    names = [path.relative_to(found.folder).as_posix() for path in found.paths]
    items = [(name, (name, path)) for name, path in zip(names, found.paths, strict=True)]
    images = predictor.predict_images(items, _reader(summary), batch_size=1)
    for labelled in _readable(images, summary):
        window.show(draw_predictions(labelled.image, labelled.predictions))
        while not (key := window.key(50)):
            pass
        if key == "quit":
            break
    summary.check()
    return summary


def output_name(name: str) -> str:
    """Return the name of the annotated image: the image's own, with `.png` where OpenCV cannot write its format."""
    ending = Path(name).suffix.lower()
    return name if ending in EXTENSIONS - UNWRITABLE else f"{name}.png"


def write_drawn(path: Path, labelled: LabelledImage, summary: Summary) -> None:
    """Draw and write an annotated image; raise `JobError` where none could be written, else note what failed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, draw_predictions(labelled.image, labelled.predictions))
    except OSError as error:
        reason = f"cannot write {path}: {error.strerror}"
        if error.errno not in OWN_ERRORS:
            raise JobError(f"{reason}; then resume with --skip_existing") from error
        summary.failed[labelled.name] = reason
        warn_skipped(labelled.name, reason)


def _reader(summary: Summary) -> Callable[[tuple[str, Path]], np.ndarray]:
    """Return a reader of `(name, path)` that notes which files could not be opened."""

    def read(item: tuple[str, Path]) -> np.ndarray:
        name, path = item
        try:
            return read_image(path)
        except ImageError as error:
            if isinstance(error.__cause__, OSError):
                summary.failed[name] = str(error)
            raise

    return read


def _readable(images: Iterable[LabelledImage], summary: Summary) -> Iterator[LabelledImage]:
    for labelled in images:
        if labelled.image is None:
            warn_skipped(labelled.name, labelled.error)
            if labelled.name not in summary.failed:
                summary.unreadable[labelled.name] = labelled.error
            continue
        summary.images += 1
        summary.faces += len(labelled.predictions)
        yield labelled
