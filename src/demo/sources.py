"""Frames in: a camera, a stream or a video file. Pictures of folders are read by `src.images`."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from src.cli import JobError, UserError

# FFmpeg reports every broken packet on stderr; what matters reaches the user as one line of ours.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

USUAL_RATE = 25.0
"""Frames a second where a source does not tell its rate."""
PATIENCE = 5.0
"""Seconds for which a camera or stream that stopped is opened again and again."""
STREAM_TIMEOUT = 10_000
"""Milliseconds after which a stream that sends nothing counts as stopped."""


class VideoSource:
    """A camera, stream or video file that gives RGB frames.

    Attributes:
        name: For people: `camera 0`, the address, or the file's name.
        stem: The name of a result file for this source, without an ending.
        path: The video file; None for cameras and streams.
        live: True for cameras and streams, which do not wait for their reader and may come back after a fault.
        rate: Frames a second.
        count: Frames of a video file as its header says, else None.
    """

    def __init__(
        self,
        camera: str,
        open_capture: Callable[[str], cv2.VideoCapture] | None = None,
        patience: float = PATIENCE,
    ):
        """Opens the source.

        Args:
            camera: Index of a camera ("0"), address of a stream ("rtsp://..."), or path of a video file.
            open_capture: Opens what OpenCV reads from; tests give their own.
            patience: Seconds to wait for a live source that stopped.

        Raises:
            UserError: there is no such camera, stream or file, or it gives no frame.
        """
        self.name, self.stem, self.live = describe_source(camera)
        self.path = None if self.live else Path(camera)
        self._camera = camera
        self._open = open_capture or _open_capture
        self._patience = patience
        self._closed = threading.Event()
        self._capture = self._open(camera)
        self._first = self._grab()
        if self._first is None:
            self._capture.release()
            raise UserError(_no_source(self.name, camera))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 240 else USUAL_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = None if self.live or not count >= 1 else int(count)

    def read(self) -> np.ndarray | None:
        """The next frame, `(height, width, 3)` uint8 RGB; None after the last one of a file and after `close`.

        Raises:
            JobError: a live source stopped and did not come back.
        """
        frame, self._first = self._first, None
        if frame is None and not self._closed.is_set():
            frame = self._grab()
        if frame is None and self.live and not self._closed.is_set():
            frame = self._reopen()
        return frame

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Frames with their numbers, from 0; a live source's numbers follow the clock, at `rate` a second."""
        start, index = time.monotonic(), -1
        while (frame := self.read()) is not None:
            number = int((time.monotonic() - start) * self.rate) if self.live else index + 1
            if number > index:
                yield number, frame
                index = number

    def close(self) -> None:
        """Makes `read` return None soon, also in another thread."""
        self._closed.set()

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._capture.release()

    def _grab(self) -> np.ndarray | None:
        ok, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok and frame is not None and frame.size else None

    def _reopen(self) -> np.ndarray | None:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            self._capture.release()
            self._capture = self._open(self._camera)
            frame = self._grab()
            if frame is not None or self._closed.wait(min(0.5, self._patience / 5)):
                return frame
        raise JobError(
            f"{self.name} stopped and did not come back within {self._patience:g} seconds; check its plug or network"
        )


def describe_source(camera: str) -> tuple[str, str, bool]:
    """Name, name of results and whether it is live, of a `--camera` value.

    Raises:
        UserError: it is neither an index nor an address nor an existing file.
    """
    if camera.isdecimal():
        return f"camera {int(camera)}", f"camera{int(camera)}", True
    if "://" in camera:
        parts = urlsplit(camera)
        address = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # without a password
        return address, Path(parts.path).stem or parts.hostname or "stream", True
    if not Path(camera).is_file():
        raise UserError(f"expected a camera's index, an address or a video file for --camera, received {camera}")
    return Path(camera).name, Path(camera).stem, False


def _open_capture(camera: str) -> cv2.VideoCapture:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # each backend complains about a miss
    try:
        if camera.isdecimal():
            return cv2.VideoCapture(int(camera))
        if "://" not in camera:
            return cv2.VideoCapture(camera)
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT]
        return cv2.VideoCapture(camera, cv2.CAP_FFMPEG, timeouts)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _no_source(name: str, camera: str) -> str:
    if camera.isdecimal():
        return (
            f"expected frames from {name}, received none: no such camera, or in use elsewhere; "
            "give --camera INDEX or VIDEO, or --image_dir FOLDER"
        )
    if "://" in camera:
        return f"expected frames from {name}, received none; check the address, its password, and the network"
    return f"expected a video that OpenCV can read, received {name}, which gives no frame; check or convert it"
