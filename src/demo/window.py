"""The window of the demo."""

import subprocess
import sys
import time

import cv2
import numpy as np

from src.cli import UserError

LARGEST_WINDOW = (1280, 720)
"""Width and height in pixels of screen that the window takes at most by itself."""

OPENING = 50
"""Milliseconds for a window to appear."""

REPAINTS = (0.3, 1.5)
"""Seconds after which a picture is painted again, since Qt now and then loses the first painting."""

QUIT_KEYS = (27, ord("q"), ord("Q"))


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
