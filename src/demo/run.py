"""The demo from start to end: checks what was asked, loads the model, and runs the fitting mode."""

import contextlib
import logging
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import JobError, UserError
from src.demo.folder import find_pictures, run_folder_in_window, run_folder_to_files
from src.demo.live import run_live
from src.demo.sources import VideoSource
from src.demo.video import run_video_to_files
from src.demo.window import Window, check_display
from src.images import MAX_SIDE, THRESHOLD, FaceDetector, check_margin
from src.inference import Predictor

if TYPE_CHECKING:
    from src.inference import AgeGenderEstimator

logger = logging.getLogger(__name__)

SMALLEST_SIDE = 80


def run_demo(
    image_dir: Path | None = None,
    camera: str = "0",
    output_dir: Path | None = None,
    weight_file: str | None = None,
    margin: float | None = None,
    threshold: float = THRESHOLD,
    upsample: int | str = "auto",
    max_side: int = MAX_SIDE,
    skip_existing: bool = False,
    json: bool = False,
) -> None:
    """Runs the demo; the arguments are the options of `demo.py`.

    Raises:
        UserError: what was asked for is impossible.
        JobError: it failed on the way.
        OSError: results cannot be written.
    """
    if margin is not None:
        check_margin(margin)
    if output_dir is None and (skip_existing or json):
        raise UserError("expected --output_dir with --skip_existing or --json, received none; give --output_dir FOLDER")
    if max_side < SMALLEST_SIDE:
        raise UserError(f"expected --max_side of {SMALLEST_SIDE} pixels or more, received {max_side}")
    with contextlib.ExitStack() as stack:
        if image_dir is not None:
            paths = find_pictures(image_dir, output_dir)
        else:
            source = stack.enter_context(VideoSource(camera))
        if output_dir is None:
            check_display()
        else:
            prepare_output(output_dir)
        estimator = load_estimator(weight_file, background=image_dir is not None)  # after all that may fail at once
        detector = FaceDetector(upsample, threshold, max_side)
        predictor = Predictor(detector, estimator, choose_margin(margin, estimator.margin), estimator.info.resize)
        window = stack.enter_context(Window()) if output_dir is None else None
        if image_dir is not None and output_dir is not None:
            summary = run_folder_to_files(image_dir, paths, output_dir, predictor, skip_existing, json)
        elif image_dir is not None:
            summary = run_folder_in_window(image_dir, paths, window, predictor)
        elif output_dir is not None:
            summary = run_video_to_files(source, output_dir, predictor, skip_existing, json)
        else:
            summary = run_live(source, window, predictor, estimator.info.model_name)
        estimator.wait()
    print(summary.line() + (f"; results in {output_dir}" if output_dir else ""))


def load_estimator(weight_file: str | None, background: bool = False) -> "AgeGenderEstimator":
    """Load the model and print one line: the model in use and its expected error.

    Args:
        weight_file: See `AgeGenderEstimator.load`.
        background: Faces are detected while Keras is imported.
    """
    from src.inference import AgeGenderEstimator

    estimator = AgeGenderEstimator.load(weight_file, background=background)
    print(estimator.describe(), flush=True)
    return estimator


def choose_margin(asked: float | None, own: float) -> float:
    """The margin to cut faces with: the weights' own unless another is asked for, which gets a warning."""
    if asked is None:
        return own
    if not math.isclose(asked, own, abs_tol=0.005):
        logger.warning("these weights were trained with margin %g; with %g ages can be off by years", own, asked)
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
