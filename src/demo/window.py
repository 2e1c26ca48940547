"""The window of the demo."""

import os
import sys
import time
from collections import deque

import cv2
import numpy as np

MAX_WINDOW = (1280, 720)
"""Maximum width and height of a new window, pixels of the screen."""
OPENING = 50
"""Milliseconds for a window to appear."""
MAX_OPENINGS = 12
"""Number of times that a window which stays black is opened: about 20 seconds in all."""
PATIENCE = 0.25
"""Seconds that a window may stay black before it is opened again; longer each time, for a busy machine."""
QUIT_KEYS = (27, ord("q"), ord("Q"))
NEXT_KEYS = frozenset(
    {
        *range(0xFF51, 0xFF57),  # X11 keysyms (Qt, GTK): arrows, Page Up, Page Down
        *range(0xFF96, 0xFF9C),  # the same on the keypad
        *(key << 16 for key in (*range(0x25, 0x29), 0x21, 0x22)),  # Windows: virtual-key codes
        *(*range(0xF700, 0xF704), 0xF72C, 0xF72D),  # macOS: function-key characters
    }
)
"""Codes of `cv2.waitKeyEx` for the arrow keys, Page Up and Page Down."""


class Window:
    """The demo's window, opened by the first image; only the main thread may use it. See `request.check_display`."""

    def __init__(self, title: str = "Age and gender"):
        self.title = title
        self._shape: tuple[int, ...] = ()
        self._codes: deque[int] = deque()

    def show(self, image: np.ndarray) -> None:
        """Show an RGB image; the window takes the shape of the image, at most `MAX_WINDOW`."""
        frame, is_new = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), not self._shape
        if is_new:
            self._open()
        if image.shape != self._shape:
            self._resize(image.shape)
        cv2.imshow(self.title, frame)
        if is_new and frame.any():
            self._ensure_painted(frame)

    def _open(self) -> None:
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        self._handle_events(OPENING)

    def _handle_events(self, milliseconds: int) -> None:
        code = cv2.waitKeyEx(max(milliseconds, 1))
        if code >= 0:
            self._codes.append(code)

    def _resize(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        scale = min(MAX_WINDOW[0] / shape[1], MAX_WINDOW[1] / shape[0], 1)
        cv2.resizeWindow(self.title, max(round(shape[1] * scale), 1), max(round(shape[0] * scale), 1))

    def _ensure_painted(self, frame: np.ndarray) -> None:
        """Open the window again until it shows the frame; see `is_black`."""
        for number in range(1, MAX_OPENINGS + 1):
            deadline = time.monotonic() + number * PATIENCE
            self._handle_events(OPENING)
            while (black := is_black(self.title)) and time.monotonic() < deadline:
                self._handle_events(OPENING)
            if not black:
                return
            cv2.destroyWindow(self.title)
            self._handle_events(OPENING)
            self._open()
            self._resize(self._shape)
            cv2.imshow(self.title, frame)

    def key(self, milliseconds: int) -> str | None:
        """Wait for a key and handle the window's events; None if no key is pressed in this time.

        Returns:
            See `key_name`; "quit" also for a closed window.
        """
        if not self._shape:  # nothing was shown yet
            return None
        self._handle_events(milliseconds)
        name = key_name(self._codes.popleft()) if self._codes else None
        return "quit" if self._is_closed() else name

    def _is_closed(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # OpenCV 5 with Qt, once the last window is gone
            return True

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shape:
            cv2.destroyAllWindows()


def key_name(code: int) -> str | None:
    """Return the meaning of a code of `cv2.waitKeyEx`.

    Returns:
        The key's character; "quit" for Esc and q; "next" for `NEXT_KEYS`; None for other keys, such as Shift.
    """
    if sys.platform != "win32":
        code &= 0xFFFF  # GTK adds Shift, Num Lock ... in the bits above
    if code in QUIT_KEYS:
        return "quit"
    if code in NEXT_KEYS:
        return "next"
    return chr(code) if code < 256 else None


def is_black(title: str) -> bool:
    """Tell whether a window of this title is all black on an X11 screen without a window manager.

    There Qt 5.15 inside OpenCV 5 sometimes loses the first events of a new window (seen: the notices of its properties,
    of its mapping and its exposure), and then never paints it. OpenCV offers no way to ask for that. Elsewhere nothing
    is known to go wrong, and the result is False; so it is without the package python-xlib, which only a screen without
    a window manager needs.
    """
    if sys.platform != "linux" or not os.environ.get("DISPLAY"):
        return False
    try:
        from Xlib import X, display, error
    except ImportError:
        return False
    try:
        server = display.Display()
    except (error.DisplayError, OSError):
        return False
    try:
        screen = server.screen()
        window = next(window for window in screen.root.query_tree().children if window.get_wm_name() == title)
        place = window.get_geometry()
        left, top = max(place.x, 0), max(place.y, 0)
        width = min(place.x + place.width, screen.width_in_pixels) - left
        height = min(place.y + place.height, screen.height_in_pixels) - top
        pixels = screen.root.get_image(left, top, width, height, X.ZPixmap, 0xFFFFFFFF)
        return not pixels.data.strip(b"\0")
    except (StopIteration, error.XError):  # no such window, or nothing of it is on the screen
        return False
    finally:
        server.close()
