"""The demo over a video into files: one annotated video and the predictions of every frame."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from src.cli import JobError, UserError
from src.demo.drawing import draw_predictions
from src.demo.prediction_files import PredictionFiles
from src.demo.sources import VideoSource
from src.demo.tracking import Tracker
from src.inference import Predictor

LEAST_ROOM = 2**24
"""Bytes that must be free on a disk for a video to go on: enough to complete the file."""


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


class VideoFile:
    """Writes RGB frames into an MP4 file, which appears under its name when it is complete.

    OpenCV reports no fault when it cannot write, so the room on the disk is watched and the result is checked. The
    codec cuts odd sides by one pixel.

    Args:
        path: Ends in `.mp4`; its folder exists.
        rate: Frames a second.
        stopped_path: The file's name when an exception ends the `with` block; by default the same.
    """

    def __init__(self, path: Path, rate: float, stopped_path: Path | None = None):
        self.path = path
        self._stopped_path = stopped_path or path
        self.frames = 0
        self._part = path.with_name(f".{path.stem}.part.mp4")
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, image: np.ndarray, number: int) -> None:
        """Writes frame `number`, which is shown from the end of the last written frame on.

        Raises:
            JobError: the disk is full.
        """
        if self._writer is None:
            self._size = image.shape[1], image.shape[0]
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*"mp4v"), self._rate, self._size)
            if not self._writer.isOpened():
                raise JobError(f"cannot write a video of {self._size[0]} x {self._size[1]} pixels to {self.path}")
        if shutil.disk_usage(self.path.parent).free < LEAST_ROOM:
            raise JobError(f"the disk of {self.path.parent} is full after {self.frames} frames; make room")
        if (image.shape[1], image.shape[0]) != self._size:  # a stream may change its size; the file cannot
            image = cv2.resize(image, self._size)
        frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for _ in range(max(number + 1 - self.frames, 1)):
            self._writer.write(frame)
            self.frames += 1

    def close(self, path: Path | None = None) -> None:
        """Completes the file and gives it its name, or another.

        Raises:
            JobError: what was written does not read back whole.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        readable = cv2.VideoCapture(str(self._part))
        count = int(readable.get(cv2.CAP_PROP_FRAME_COUNT))
        readable.release()
        if count != self.frames:
            self._part.unlink(missing_ok=True)
            raise JobError(f"only {count} of {self.frames} frames could be written to {self.path}; is the disk full?")
        self._part.replace(path or self.path)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(JobError):  # the first fault is the one to tell
            self.close(self._stopped_path)
