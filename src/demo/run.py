"""A checked request of the demo, from start to end: load the model, and run the fitting mode."""

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import JobError
from src.demo.folder import Summary, run_folder_in_window, run_folder_to_files
from src.demo.request import Request
from src.demo.results import root_hash
from src.demo.window import Window
from src.files import file_sha256, prepare_output
from src.images import FaceDetector, FoundImages
from src.inference import Predictor

if TYPE_CHECKING:
    from src.demo.live import LiveSummary
    from src.demo.video import VideoSummary
    from src.inference import AgeGenderEstimator

logger = logging.getLogger(__name__)


def run_request(request: Request, found: FoundImages | None) -> None:
    """Run the demo on what was found, or, if that is None, on the camera or video.

    Raises:
        UserError: The source gives no frame, or the weights cannot be used.
        JobError: The job failed.
        OSError: Results cannot be written.
    """
    output_dir = request.output_dir
    with contextlib.ExitStack() as stack:
        if found is None:
            # Here, because photos need no PyAV.
            from src.demo.live import run_live
            from src.demo.sources import Source
            from src.demo.video import run_video_to_files

            source = stack.enter_context(Source(request.camera, with_sound=output_dir is not None))
        if output_dir is not None:
            prepare_output(output_dir)
        estimator = load_estimator(request.weight_file, background=found is not None)  # after all that may fail at once
        predictor = build_predictor(request, estimator)
        options = (predictor.margin, request.threshold, request.upsample, request.max_side, request.profiles)
        made_with = hash_options(estimator, request.weight_file, *options) if output_dir else ""
        window = stack.enter_context(Window())  # opened by the first image
        summary: Summary | VideoSummary | LiveSummary
        how = (predictor, request.skip_existing, request.with_json, made_with)
        if found is not None and output_dir is not None:
            summary = run_folder_to_files(found, output_dir, *how)
        elif found is not None:
            summary = run_folder_in_window(found, window, predictor)
        elif output_dir is not None:
            summary = run_video_to_files(source, output_dir, *how)
        else:
            summary = run_live(source, window, predictor, estimator.info.model_name)
        estimator.wait()
    report(summary, output_dir)


def build_predictor(request: Request, estimator: "AgeGenderEstimator") -> Predictor:
    """Build what finds and labels faces as the options say."""
    is_folder = request.image_dir is not None
    detector = FaceDetector(request.upsample, request.threshold, request.max_side, request.profiles, few_too=is_folder)
    return Predictor(detector, estimator, choose_margin(request.margin, estimator.margin), estimator.info.resize)


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
