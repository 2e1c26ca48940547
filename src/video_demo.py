"""The demo over a video into files: one annotated video and the predictions of every frame."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from src.cli import UserError
from src.display import VideoFile, draw_predictions
from src.pipeline import Predictor
from src.predictions import PredictionFiles
from src.sources import VideoSource
from src.tracking import Tracker


@dataclass
class VideoSummary:
    """What became of a video."""

    frames: int = 0
    frames_with_faces: int = 0
    done_before: bool = False

    def line(self) -> str:
        if self.done_before:
            return "the video was done before"
        if not self.frames_with_faces:
            return f"no face in any of {self.frames} frames"
        return f"faces in {self.frames_with_faces} of {self.frames} frames"


def run_video_to_files(
    source: VideoSource,
    output_dir: Path,
    predictor: Predictor,
    skip_existing: bool = False,
    with_json: bool = False,
) -> VideoSummary:
    """Writes the annotated video with the source's frame rate, and the predictions of every frame beside it.

    Faces are followed and their values smoothed as in the window. A camera is recorded until Ctrl-C, which leaves
    complete files and is passed on; a video file that is not done to its end leaves `NAME.partial.mp4`.

    Args:
        skip_existing: Do nothing if the annotated video is there.

    Raises:
        UserError: the video itself lies where the annotated one would go.
        JobError: a camera stopped for good, or the video cannot be written.
        OSError: the predictions cannot be written.
    """
    path = output_dir / f"{source.stem}.mp4"
    if source.path is not None and path.exists() and path.samefile(source.path):
        raise UserError(f"expected an --output_dir other than the video's own folder, received {output_dir}")
    if skip_existing and path.exists():
        return VideoSummary(done_before=True)
    summary, tracker = VideoSummary(), Tracker()
    stopped_path = path if source.live else path.with_suffix(".partial.mp4")
    frames = ((str(number), image) for number, image in source.frames())
    with PredictionFiles(output_dir, with_json) as files, VideoFile(path, source.rate, stopped_path) as video:
        pictures = predictor.predict_pictures(frames, lambda image: image)
        for picture in tqdm(pictures, total=source.count, unit="frame", disable=None):
            predictions = tracker.update(picture.predictions)
            files.write(picture.name, predictions)
            video.write(draw_predictions(picture.image, predictions), int(picture.name))
            summary.frames += 1
            summary.frames_with_faces += bool(predictions)
    return summary
