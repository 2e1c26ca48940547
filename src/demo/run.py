"""The demo from start to end: check the request, load the model, and run the fitting mode."""

import contextlib
import logging
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import THRESHOLD, JobError, UserError
from src.demo.folder import Summary, find_input, run_folder_in_window, run_folder_to_files
from src.demo.results import root_hash
from src.demo.window import Window, check_display
from src.files import file_sha256
from src.images import FaceDetector, check_margin
from src.inference import Predictor

if TYPE_CHECKING:
    from src.demo.live import LiveSummary
    from src.demo.video import VideoSummary
    from src.inference import AgeGenderEstimator

logger = logging.getLogger(__name__)

MIN_SIDE = 80


def run_demo(
    image_dir: Path | None = None,
    camera: str = "0",
    output_dir: Path | None = None,
    weight_file: str | None = None,
    margin: float | None = None,
    threshold: float = THRESHOLD,
    upsample: int | str = "auto",
    max_side: int | str = "auto",
    profiles: bool = True,
    skip_existing: bool = False,
    with_json: bool = False,
) -> None:
    """Run the demo; the arguments are the options of `demo.py`.

    Raises:
        UserError: The request is invalid.
        JobError: The job failed.
        OSError: Results cannot be written.
    """
    check_options(margin, output_dir, skip_existing or with_json, max_side)
    with contextlib.ExitStack() as stack:
        if image_dir is not None:
            found = find_input(image_dir, output_dir)
        else:
            # Here, because photos need no PyAV.
            from src.demo.live import run_live
            from src.demo.sources import Source
            from src.demo.video import run_video_to_files

            source = stack.enter_context(Source(camera, with_sound=output_dir is not None))
        if output_dir is None:
            check_display()
        else:
            prepare_output(output_dir)
        estimator = load_estimator(weight_file, background=image_dir is not None)  # after all that may fail at once
        detector = FaceDetector(upsample, threshold, max_side, profiles, few_too=image_dir is not None)
        margin = choose_margin(margin, estimator.margin)
        predictor = Predictor(detector, estimator, margin, estimator.info.resize)
        options = (weight_file, margin, threshold, upsample, max_side, profiles)
        made_with = hash_options(estimator, *options) if output_dir else ""
        window = stack.enter_context(Window())  # opened by the first image
        summary: Summary | VideoSummary | LiveSummary
        if image_dir is not None and output_dir is not None:
            summary = run_folder_to_files(found, output_dir, predictor, skip_existing, with_json, made_with)
        elif image_dir is not None:
            summary = run_folder_in_window(found, window, predictor)
        elif output_dir is not None:
            summary = run_video_to_files(source, output_dir, predictor, skip_existing, with_json, made_with)
        else:
            summary = run_live(source, window, predictor, estimator.info.model_name)
        estimator.wait()
    report(summary, output_dir)


def check_options(margin: float | None, output_dir: Path | None, writes: bool, max_side: int | str) -> None:
    """Raise `UserError` for options that are invalid, or that need an `output_dir` without one."""
    if margin is not None:
        check_margin(margin)
    if output_dir is None and writes:
        raise UserError("--skip_existing and --json require --output_dir FOLDER")
    if isinstance(max_side, int) and max_side < MIN_SIDE:
        raise UserError(f"--max_side must be >= {MIN_SIDE}, got {max_side}")


def report(summary: "Summary | VideoSummary | LiveSummary", output_dir: Path | None) -> None:
    """Print what was done; raise `JobError` if files failed."""
    line, *notes = summary.line().split("\n")
    print(line + (f"; results in {output_dir}" if output_dir else ""), *notes, sep="\n")
    if isinstance(summary, Summary) and summary.failure():
        raise JobError(summary.failure())


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
    """Return the margin to crop faces with: the weights' own unless another is asked for, which gets a warning."""
    if asked is None:
        return own
    if not math.isclose(asked, own, abs_tol=0.005):
        logger.warning("these weights were trained with margin %g; with %g ages can be off by years", own, asked)
    return asked


def hash_options(estimator: "AgeGenderEstimator", weight_file: str | None, *options: float | str | bool) -> str:
    """Hash what predictions depend on: the bytes of the weights, or the name of published ones, and options."""
    weights = file_sha256(estimator.source or "") or str(weight_file)
    return root_hash(repr((weights, options)))


def prepare_output(output_dir: Path) -> None:
    """Create the folder of results and check that it can be written, before anything slow begins.

    Raises:
        UserError: There is a file of this name.
        JobError: The folder cannot be created or written.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir must be a folder, got the file {output_dir}")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise JobError(f"cannot write into {output_dir}: {error.strerror}") from error
