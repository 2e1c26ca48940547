"""The demo over a video into files: one annotated video and the predictions of every frame."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.cli import JobError, Progress, UserError
from src.demo.drawing import draw_predictions
from src.demo.folder import find_done, has_other_options
from src.demo.prediction_files import PredictionFiles
from src.demo.results import RECORDING, Result, Results, numbered, root_hash
from src.demo.sources import Frame, Source
from src.demo.tracking import Tracker
from src.demo.video_writer import VideoFile
from src.files import file_stamp
from src.inference import Predictor


@dataclass
class VideoSummary:
    """What became of a video."""

    frames: int = 0
    frames_with_faces: int = 0
    rows: int = 0
    done_before: bool = False
    note: str = ""

    def line(self) -> str:
        if self.done_before:
            return "the video was done before"
        if not self.frames_with_faces:
            return f"no face in any of {self.frames} frames{self.note}"
        return f"faces in {self.frames_with_faces} of {self.frames} frames{self.note}"


def run_video_to_files(
    source: Source,
    output_dir: Path,
    predictor: Predictor,
    skip_existing: bool = False,
    with_json: bool = False,
    options: str = "",
) -> VideoSummary:
    """Write the annotated video with the frames' own times and the sound, and the predictions of every frame.

    Faces are followed and their values smoothed as in the window. A camera is recorded until Ctrl-C, which leaves
    complete files and is passed on; a video file that is damaged or not done to its end leaves `NAME.partial.mp4`.

    Args:
        skip_existing: Do nothing if the annotated video and all of its rows exist.
        options: Identifies weights and options; a video that was done with others is not skipped.

    Raises:
        UserError: The annotated video would replace the video itself, or another run is writing it.
        JobError: The video is damaged, a camera stopped for good, or the annotated video cannot be written.
        OSError: The predictions cannot be written.
    """
    own = output_dir / f"{source.stem}.mp4"
    if source.path is not None and own.exists() and own.samefile(source.path):
        raise UserError(f"--output_dir must differ from the video's own folder, got {output_dir}")
    results = Results(output_dir)
    root = root_hash(source.path.parent if source.path else source.address)
    with results.claimed(root_hash(source.path or source.address)):
        result = choose_result(results, source, root)
        if skip_existing and find_done(results, [result], with_json, options):
            return VideoSummary(done_before=True)
        summary = _write(source, results, result._replace(options=options), predictor, with_json)
    if skip_existing and has_other_options(result, options):
        summary.note = ", done again since an earlier run had other weights or options"
    if result.name != source.result_name:
        summary.note += f" of {result.name}, since {output_dir} holds results of another {source.result_name}"
    return summary


def choose_result(results: Results, source: Source, root: str) -> Result:
    """Choose the name and file of a video's results."""

    def files(name: str) -> list[str]:
        return [f"{Path(name).stem if source.path else name}.mp4", f"{name}.mp4"]

    stamp = file_stamp(source.path) if source.path else RECORDING
    return results.choose([(source.result_name, stamp)], root, files)[0]


def choose_partial(folder: Path, file: str, note: Path) -> Path:
    """Choose the file of a video that is not done to its end: that of an earlier stopped run, or a free name.

    Args:
        folder: The output folder.
        file: Name of the annotated video.
        note: Holds the name until the video is done; without it no such file is this project's.
    """
    if note.exists() and (path := folder / os.fsdecode(note.read_bytes())).exists():
        return path
    names = numbered(f"{Path(file).stem}.partial.mp4")
    path = next(path for path in (folder / name for name in names) if not os.path.lexists(path))
    note.write_bytes(os.fsencode(path.name))
    return path


def _write(source: Source, results: Results, result: Result, predictor: Predictor, with_json: bool) -> VideoSummary:
    summary, tracker, video = VideoSummary(), Tracker(), source.input
    path = results.folder / result.file
    part = results.state / f"{root_hash(result.file)}.mp4"
    note = part.with_suffix(".partial")
    stopped = path if source.live else choose_partial(results.folder, result.file, note)
    frames: dict[str, Frame] = {}

    def items() -> Iterator[tuple[str, object]]:
        for frame in source.frames():
            frames[str(frame.number)] = frame
            yield str(frame.number), frame.image

    files = PredictionFiles(results, [result.name], with_json)
    with VideoFile(path, part, video.time_base, video.rate, video.tracks, video.pixel_aspect, stopped) as file:
        images = predictor.predict_images(items(), lambda image: image)
        for labelled in Progress(images, None if source.live else video.count, "frames"):
            frame = frames.pop(labelled.name)
            tracker.see(frame.image)
            predictions = tracker.update(labelled.predictions)
            files.write(result, predictions, frame.number, frame.time, complete=False)
            file.write(draw_predictions(frame.image, predictions), frame.time)
            _write_sound(source, file, frame.time)
            summary.frames += 1
            summary.frames_with_faces += bool(predictions)
            summary.rows += len(predictions)
        _write_sound(source, file)
        if video.damage:
            raise JobError(f"{source.describe_damage()}; the annotated ones are in {stopped}")
    if stopped != path:
        stopped.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    with results.lock:
        results.finish(result, summary.rows)
    return summary


def _write_sound(source: Source, file: VideoFile, until: float = float("inf")) -> None:
    sound = source.input.sound
    while sound and sound[0][0] <= until:
        file.write_sound(*sound.popleft())
