"""Pictures with boxes and labels drawn on, and the window and the video file that show them."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from src.cli import JobError, UserError
from src.detector import shared_area
from src.images import Box
from src.predictions import Prediction

FONT = cv2.FONT_HERSHEY_DUPLEX
WHITE = (255, 255, 255)
DARK = (40, 40, 40)
COLOURS = {"F": (190, 20, 110), "M": (15, 90, 200)}
"""Box and label ground by gender, RGB; dark enough for white text."""
SMALLEST_TEXT = 12
"""Least height of a label's text, pixels, where the picture has room for it."""
LARGEST_WINDOW = (1280, 720)
"""Width and height in pixels of screen that the window takes at most by itself."""
OPENING = 50
"""Milliseconds for a window to appear."""
REPAINTS = (0.3, 1.5)
"""Seconds after which a picture is painted again, since Qt now and then loses the first painting."""
QUIT_KEYS = (27, ord("q"), ord("Q"))
LEAST_ROOM = 2**24
"""Bytes that must be free on a disk for a video to go on: enough to complete the file."""


def draw_predictions(image: np.ndarray, predictions: Sequence[Prediction]) -> np.ndarray:
    """Draws a box and a label such as `34 F` for every face.

    Text and lines grow with the picture and with the face; labels stay inside the picture and, where there is room,
    off each other and off other faces.

    Args:
        image: `(height, width, 3)` uint8 RGB; it is not changed.

    Returns:
        A drawn copy of the same shape.
    """
    drawn = image.copy()
    line = max(round(max(image.shape[:2]) / 400), 1)
    for prediction in predictions:
        left, top, right, bottom = prediction.box
        for colour, width in ((WHITE, line + 2 * max(line // 3, 1)), (COLOURS[prediction.gender], line)):
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, width)
    taken = [prediction.box for prediction in predictions]
    for prediction in predictions:
        text = label_text(prediction)
        scale, size = _fit_text(text, _text_height(image, prediction.box), image)
        place = _label_place(prediction.box, size, image, taken)
        _draw_text(drawn, text, scale, place, COLOURS[prediction.gender])
        taken.append(place)
    return drawn


def draw_status(image: np.ndarray, text: str) -> np.ndarray:
    """Writes a small line of text into the lower left corner of a copy of `image`."""
    drawn = image.copy()
    height = image.shape[0]
    scale, (text_width, text_height) = _fit_text(text, max(0.02 * max(image.shape[:2]), SMALLEST_TEXT), image)
    _draw_text(drawn, text, scale, (0, height - text_height, text_width, height), DARK)
    return drawn


def label_text(prediction: Prediction) -> str:
    """The text at a face: age in whole years and gender, ASCII only since OpenCV 4 draws nothing else."""
    return f"{round(prediction.age)} {prediction.gender}"


def _text_height(image: np.ndarray, box: Box) -> float:
    longest = max(image.shape[:2])
    return max(min(0.15 * (box[3] - box[1]), 0.06 * longest), 0.025 * longest, SMALLEST_TEXT)


def _fit_text(text: str, height: float, image: np.ndarray) -> tuple[float, tuple[int, int]]:
    """Font scale for a text of this height, less where the picture is too small; width and height of its ground."""
    (full_width, full_height), _ = cv2.getTextSize(text, FONT, 1, 1)
    scale = min(height / full_height, image.shape[0] / (1.6 * full_height), image.shape[1] / (full_width + full_height))
    return scale, (int((full_width + full_height) * scale), int(1.6 * full_height * scale))


def _label_place(box: Box, size: tuple[int, int], image: np.ndarray, taken: Sequence[Box]) -> Box:
    """Of the places above, below and inside a face, the one that covers the least of what is drawn already."""
    width, height = size
    left = min(max(box[0], 0), image.shape[1] - width)
    places = []
    for top in (box[1] - height, box[3], box[1], box[3] - height):
        top = min(max(top, 0), image.shape[0] - height)
        places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(shared_area(place, other) for other in taken))


def _draw_text(drawn: np.ndarray, text: str, scale: float, place: Box, ground: tuple[int, int, int]) -> None:
    left, top, right, bottom = place
    cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), ground, cv2.FILLED)
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    corner = left + (right - left - width) // 2, top + (bottom - top + height) // 2
    cv2.putText(drawn, text, corner, FONT, scale, WHITE, max(round(1.5 * scale), 1), cv2.LINE_AA)


class Window:
    """The demo's window, opened by the first picture; only the main thread may use it. See `check_display`."""

    def __init__(self, title: str = "Age and gender"):
        self.title = title
        self._shape: tuple[int, ...] = ()
        self._frame: np.ndarray | None = None
        self._repaints: list[float] = []

    def show(self, image: np.ndarray) -> None:
        """Shows an RGB picture; the window takes the shape of the picture, at most `LARGEST_WINDOW`."""
        if not self._shape:
            self._open()
        if image.shape != self._shape:
            self._shape = image.shape
            height, width = image.shape[:2]
            scale = min(LARGEST_WINDOW[0] / width, LARGEST_WINDOW[1] / height, 1)
            cv2.resizeWindow(self.title, max(round(width * scale), 1), max(round(height * scale), 1))
        self._frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imshow(self.title, self._frame)
        self._repaints = [time.monotonic() + delay for delay in REPAINTS]

    def _open(self) -> None:
        """Opens the window, and before it one to throw away.

        On a screen without a window manager Qt leaves a process's first window black for good in one start of six, a
        later one in about one of forty.
        """
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(self.title, flags)
        cv2.waitKey(OPENING)
        cv2.destroyWindow(self.title)
        cv2.waitKey(1)
        cv2.namedWindow(self.title, flags)
        cv2.waitKey(OPENING)

    def key(self, milliseconds: int) -> str | None:
        """Waits for a key and handles the window's events; None when no key was pressed in this time.

        Returns:
            The key's character, "quit" for Esc, q and a closed window.
        """
        if not self._shape:  # nothing was shown yet
            return None
        if self._repaints and time.monotonic() > self._repaints[0]:
            self._repaints.pop(0)
            cv2.imshow(self.title, self._frame)
        code = cv2.waitKey(max(milliseconds, 1))
        if code & 0xFF in QUIT_KEYS or self._is_closed():
            return "quit"
        return chr(code & 0xFF) if code >= 0 else None

    def _is_closed(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # OpenCV 5 with Qt, once the last window is gone
            return True

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        cv2.destroyAllWindows()


def check_display() -> None:
    """Tries in another process whether a window can be opened: where it cannot, Qt ends the process that tries.

    Raises:
        UserError: it cannot, because of a missing screen or an OpenCV without windows.
    """
    try_window = "import cv2; cv2.namedWindow('try'); cv2.waitKey(1)"
    if subprocess.run([sys.executable, "-c", try_window], capture_output=True, timeout=60, check=False).returncode:
        raise UserError(
            "expected a screen for the window, found none; give --output_dir FOLDER to write files instead "
            "(or install opencv-python in place of its headless variant)"
        )


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
