"""Frames in: a camera, a stream or a video file. Images of folders are read by `src.images`."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from src.cli import JobError, UserError
from src.demo.request import describe_source
from src.demo.video_reader import USUAL_RATE, VideoReader

PATIENCE = 5.0
"""Seconds during which a camera or stream that stopped is opened again and again."""


class Frame(NamedTuple):
    """One frame: its number from 0, its time in seconds since the start, `(height, width, 3)` uint8 RGB."""

    number: int
    time: float
    image: np.ndarray


class Source:
    """Frames of a camera, stream or video file.

    Attributes:
        name: For people: `camera 0`, the address without its password, or the file's name.
        path: The video file; None for cameras and addresses.
        live: Whether the source neither ends nor waits for its reader. It is opened again when it stops.
        input: What is read now, a `VideoReader` or a `CameraReader`.
    """

    def __init__(
        self,
        camera: str,
        with_sound: bool = False,
        open_input: Callable[[str, bool], Any] | None = None,
        patience: float = PATIENCE,
    ):
        """Open the source and read its first frame.

        Args:
            camera: Index ("0") or device ("/dev/video0") of a camera, address of a stream ("rtsp://..."), or path of a
                video file.
            with_sound: Collect the sound of a video; not of a live source, whose tracks end with each connection.
            open_input: Opens what is read; tests give their own.
            patience: Seconds to wait for a live source that stopped.

        Raises:
            UserError: There is no such camera, stream or file, or it gives no frame.
        """
        self.name, self.address, self.path = describe_source(camera)
        self._patience = patience
        self._open = open_input or open_input_at
        self._closed = threading.Event()
        self._first = self._try_open(with_sound)
        if self._first is None:
            raise UserError(_no_source(self.name, self.address))
        self.live = not self.input.finite

    @property
    def stem(self) -> str:
        """Name for files of results, without an ending."""
        if self.path:
            return self.path.stem
        if self.address.isdecimal():
            return f"camera{self.address}"
        parts = urlsplit(self.address)
        return Path(parts.path).stem or parts.hostname or "stream"

    @property
    def result_name(self) -> str:
        """What the predictions call this source."""
        return self.path.name if self.path else self.stem

    def frames(self) -> Iterator[Frame]:
        """Read all frames; times of a live source follow the clock also after it stopped and came back.

        Raises:
            JobError: A live source stopped and did not come back.
        """
        first, number, start = self._first, 0, time.monotonic()
        offset = -first[0] if self.live and first else 0.0
        while True:
            try:
                while first is not None and not self._closed.is_set():
                    seconds, image = first
                    yield Frame(number, seconds + offset, image)
                    number += 1
                    first = next(self._frames, None)
            except av.FFmpegError:  # of a live stream only
                pass
            if not self.live or self._closed.is_set() or (first := self._reopen()) is None:
                return
            offset = time.monotonic() - start - first[0]

    def describe_damage(self) -> str:
        """Say where a damaged video is damaged first, and how much of it could be read."""
        read, total = self.input.frames_read, self.input.count
        return f"{self.name} is {self.input.damage}: {read} of {max(total, read + 1)} frames could be read"

    def close(self) -> None:
        """End `frames` soon, also in another thread."""
        self._closed.set()

    def wait(self, seconds: float) -> bool:
        """Wait until the time is over or the source is closed; return whether it is closed."""
        return self._closed.wait(max(seconds, 0))

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.input.close()

    def _try_open(self, with_sound: bool = False) -> tuple[float, np.ndarray] | None:
        """Open what is read and return its first frame; None if it gives none."""
        try:
            self.input = self._open(self.address, with_sound)
            self._frames = self.input.frames()
            return next(self._frames, None)
        except (av.FFmpegError, OSError):
            return None

    def _reopen(self) -> tuple[float, np.ndarray] | None:
        """Return the first frame of a source that is back; None after `close`."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            self.input.close()
            if first := self._try_open():
                return first
            if self._closed.wait(min(0.5, self._patience / 5)):
                return None
        raise JobError(f"{self.name} stopped and did not come back within {self._patience:g} seconds")


class CameraReader:
    """Frames of a camera, read with OpenCV; times are those of their arrival, seconds since the first."""

    finite, count, damage, frames_read, pixel_aspect = False, 0, "", 0, None
    time_base = Fraction(1, 90_000)

    def __init__(self, capture: cv2.VideoCapture):
        self._capture = capture
        self.tracks: list = []
        self.sound: deque = deque()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate if 1 <= rate <= 240 else USUAL_RATE).limit_denominator(1001)

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the seconds and the RGB image of each frame until the camera stops."""
        start = None
        while True:
            ok, frame = self._capture.read()
            if not ok or frame is None or not frame.size:
                return
            start = time.monotonic() if start is None else start
            yield time.monotonic() - start, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self._capture.release()


def open_input_at(address: str, with_sound: bool = False) -> "VideoReader | CameraReader":
    """Open a camera's index with OpenCV, and an address with PyAV.

    Raises:
        av.FFmpegError: A video cannot be opened; a camera that cannot be opened gives no frame.
    """
    if not address.isdecimal():
        return VideoReader(address, with_sound)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # each backend complains about a miss
    try:
        return CameraReader(cv2.VideoCapture(int(address)))
    finally:
        cv2.utils.logging.setLogLevel(level)


def _no_source(name: str, address: str) -> str:
    if address.isdecimal():
        return (
            f"{name} gives no frame: it does not exist or is in use; "
            "use --camera INDEX, --camera VIDEO or --image_dir FOLDER"
        )
    if address.startswith("file:"):
        return f"{name} gives no frame: it holds no video that FFmpeg can read (perhaps sound alone), or is damaged"
    return f"{name} gives no frame; check the address, its password and the network"
