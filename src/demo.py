"""The demo from start to end: checks what was asked, loads the model, and runs the fitting mode."""

import math
import sys
import tempfile
from pathlib import Path

from src.cli import JobError, UserError
from src.detector import FaceDetector
from src.folder_demo import find_pictures, run_folder_to_files

LARGEST_MARGIN = 2.0


def run_demo(
    image_dir: Path,
    output_dir: Path | None = None,
    weight_file: str | None = None,
    margin: float | None = None,
    skip_existing: bool = False,
    json: bool = False,
) -> None:
    """Runs the demo; the arguments are the options of `demo.py`.

    Raises:
        UserError: what was asked for is impossible.
        JobError: it failed on the way.
        OSError: results cannot be written.
    """
    check_margin(margin)
    paths = find_pictures(image_dir, output_dir)
    prepare_output(output_dir)

    from src.estimator import AgeGenderEstimator  # imports Keras, which takes seconds: after the cheap checks

    estimator = AgeGenderEstimator.load(weight_file)
    print(estimator.describe(), flush=True)
    margin = choose_margin(margin, estimator.margin)
    summary = run_folder_to_files(image_dir, paths, output_dir, FaceDetector(), estimator, margin, skip_existing, json)
    print(f"{summary.line()}; results in {output_dir}")


def check_margin(margin: float | None) -> None:
    """Raises a UserError for a margin that no model can have been trained with."""
    if margin is not None and not (math.isfinite(margin) and 0 <= margin <= LARGEST_MARGIN):
        limits = f"between 0 and {LARGEST_MARGIN:g}"
        raise UserError(f"expected --margin {limits}, received {margin:g}; leave it out to use the weights' own")


def choose_margin(asked: float | None, own: float) -> float:
    """The margin to cut faces with: the weights' own unless another is asked for, which gets a warning."""
    if asked is None:
        return own
    if not math.isclose(asked, own, abs_tol=0.005):
        print(
            f"warning: these weights were trained with margin {own:g}; with {asked:g} ages can be off by years",
            file=sys.stderr,
        )
    return asked


def prepare_output(output_dir: Path) -> None:
    """Makes the folder of results and writes a file into it for a try, before anything slow begins.

    Raises:
        UserError: there is a file of this name.
        JobError: the folder cannot be made or written into.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"expected a folder for --output_dir, received the file {output_dir}; name another")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise JobError(f"cannot write into {output_dir}: {error.strerror}; name another --output_dir") from error
