"""A screen in memory (Xvfb) for tests of the window: keys by xdotool, screenshots by ImageMagick's import."""

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

MISSING = [tool for tool in ("Xvfb", "xdotool", "import") if not shutil.which(tool)]
needs_screen = pytest.mark.skipif(
    bool(MISSING) or sys.platform != "linux",
    reason=f"needs a virtual screen; missing here: {', '.join(MISSING) or 'Linux'}",
)


class Screen:
    """A running Xvfb of 1000 x 800 pixels."""

    def __init__(self, display: str, folder: Path):
        self.display = display
        self.environment = os.environ | {"DISPLAY": display}
        self._shot = folder / "screen.png"

    def window(self) -> str:
        """Waits for the demo's window and gives its number."""
        return wait_for(lambda: self._xdotool("search", "--name", "Age and gender").split()[:1])[0]

    def press(self, key: str) -> None:
        self._xdotool("key", "--window", self.window(), key)

    def screenshot(self) -> np.ndarray:
        """The whole screen, RGB."""
        subprocess.run(["import", "-window", "root", self._shot], env=self.environment, timeout=60, check=True)
        return cv2.imread(str(self._shot))[..., ::-1]

    def wait_for_screenshot(self, seen: Callable[[np.ndarray], bool]) -> np.ndarray:
        """The first screenshot for which `seen` is true."""
        return wait_for(lambda: [shot for shot in [self.screenshot()] if seen(shot)])[0]

    def close_window(self) -> None:
        """Asks the window to close, as a click on its cross does: the message WM_DELETE_WINDOW."""
        x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
        display, window = x11.XOpenDisplay(self.display.encode()), int(self.window())
        event = ClientMessage(33, 0, 1, display, window, x11.XInternAtom(display, b"WM_PROTOCOLS", 0), 32)
        event.data[0] = x11.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
        x11.XSendEvent(display, window, 0, 0, ctypes.byref(event))
        x11.XCloseDisplay(display)

    def _xdotool(self, *arguments: str) -> str:
        command = ["xdotool", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        ).stdout


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib, padded to the size of XEvent."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 16),
    )


def wait_for(attempt: Callable[[], list], seconds: float = 500) -> list:
    """Calls until something comes back."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := attempt():
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} seconds")


@contextmanager
def virtual_screen(folder: Path) -> Iterator[Screen]:
    read_end, write_end = os.pipe()
    # Without -noreset the server starts anew whenever its last client leaves, and refuses those that come meanwhile.
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1000x800x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    try:
        with open(read_end) as numbers:  # Xvfb picks a free display and says which
            yield Screen(f":{numbers.readline().strip()}", folder)
    finally:
        server.terminate()
        server.wait(timeout=30)
