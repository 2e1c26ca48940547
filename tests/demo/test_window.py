import subprocess
import sys

import numpy as np
import pytest
from virtual_screen import needs_screen, virtual_screen

from src.cli import ROOT, UserError
from src.demo import window as window_module
from src.demo.request import SCREENS, check_display
from src.demo.window import Window


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland can be missing")
@pytest.mark.parametrize("screen", [None, ":4242"])
def test_missing_screen_is_an_error_that_names_output_dir(monkeypatch, screen):
    for name in SCREENS:
        monkeypatch.delenv(name, raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", screen)
    with pytest.raises(UserError, match="--output_dir"):
        check_display()


WINDOW = """
import sys
import numpy as np
from src.demo.request import check_display
from src.demo.window import Window
check_display()
image = np.zeros((300, 2600, 3), np.uint8)
image[:, :1300, 0] = 250
image[:, 1300:, 2] = 250
with Window() as window:
    assert window.key(1) is None
    window.show(image)
    key = None
    while key != "quit":
        key = window.key(20)
        if key:
            print({" ": "space", "\\r": "return"}.get(key, key), flush=True)
"""


@needs_screen
@pytest.mark.parametrize("last", ["Escape", "q", "close"])
def test_window_shows_the_image_and_hears_keys(tmp_path, last):
    with virtual_screen(tmp_path) as screen:
        command = [sys.executable, "-c", WINDOW]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=screen.environment, cwd=ROOT)
        shot = screen.wait_for_screenshot(lambda shot: (shot == (250, 0, 0)).all(axis=2).any())
        # 2600 pixels do not fit; the screen's 1000 cut the window at the right, so the red half and some blue are seen.
        red, blue = (shot == (250, 0, 0)).all(axis=2), (shot == (0, 0, 250)).all(axis=2)
        assert abs(red[10].sum() - 640) < 10
        assert blue[10].sum() > 300
        for key in ("Shift_L", "n", "space", "Left", "Right", "Page_Down", "F1", "Return", "s"):
            screen.press(key)
        screen.close_window() if last == "close" else screen.press(last)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines() == ["n", "space", "next", "next", "next", "return", "s", "quit"]


class FakeOpenCV:
    """Stands in for the functions of OpenCV that `Window` calls."""

    WINDOW_NORMAL = WINDOW_KEEPRATIO = WINDOW_GUI_NORMAL = WND_PROP_VISIBLE = COLOR_RGB2BGR = 0

    def __init__(self, keys=()):
        self.opened, self.shown, self.keys = 0, [], list(keys)

    def namedWindow(self, title, flags):
        self.opened += 1
        self.shown.append(None)

    def imshow(self, title, frame):
        self.shown[-1] = frame

    def waitKeyEx(self, milliseconds):
        return self.keys.pop(0) if self.keys else -1

    def cvtColor(self, image, code):
        return image[..., ::-1]

    def resizeWindow(self, title, width, height):
        self.size = width, height

    def destroyWindow(self, title):
        self.shown[-1] = "gone"

    def getWindowProperty(self, title, name):
        return 1


def test_a_window_that_stays_black_is_opened_again_and_no_key_is_lost(monkeypatch):
    """Two of three windows are never painted, as happens on a screen without a window manager."""
    fake = FakeOpenCV([-1, ord("n"), -1, ord("s")])
    monkeypatch.setattr(window_module, "cv2", fake)
    monkeypatch.setattr(window_module, "is_black", lambda title: fake.opened < 3)
    monkeypatch.setattr(window_module, "PATIENCE", 0.0)
    window = Window()
    image = np.full((300, 2560, 3), 7, np.uint8)
    window.show(image)
    assert fake.opened == 3
    assert (fake.shown[-1] == image).all()
    assert fake.size == (1280, 150)
    assert [window.key(1) for _ in range(3)] == ["n", "s", None]
    window.show(image)
    assert fake.opened == 3


def test_a_black_image_is_shown_once(monkeypatch):
    fake = FakeOpenCV()
    monkeypatch.setattr(window_module, "cv2", fake)
    monkeypatch.setattr(window_module, "is_black", lambda title: True)
    Window().show(np.zeros((30, 40, 3), np.uint8))
    assert fake.opened == 1


def test_a_screen_that_does_not_respond_is_none(monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="--output_dir"):
        check_display()


@pytest.mark.parametrize(
    ("platform", "codes", "names"),
    [
        ("linux", [27, ord("q"), ord("Q"), ord(" "), 13], ["quit", "quit", "quit", " ", "\r"]),
        ("linux", [0xFF51, 0xFF53, 0xFF56, 0xFF98], ["next"] * 4),  # Left ends in the byte of Q, Right in that of S
        ("linux", [0xFFE1, 0xFFE3, 0xFFBE, 0x6CA], [None] * 4),  # Shift, Ctrl, F1, Cyrillic
        ("linux", [0x100000 | ord("s"), 0x110000 | 0xFF53], ["s", "next"]),  # GTK with Num Lock, and Shift
        ("darwin", [0xF702, 0xF72D, 0xF704], ["next", "next", None]),
        ("win32", [0x250000, 0x220000, 0x700000, 27, ord("s")], ["next", "next", None, "quit", "s"]),
    ],
)
def test_names_of_keys(monkeypatch, platform, codes, names):
    monkeypatch.setattr(sys, "platform", platform)
    assert [window_module.key_name(code) for code in codes] == names


def test_without_python_xlib_no_window_is_taken_for_black(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.setitem(sys.modules, "Xlib", None)
    assert window_module.is_black("Age and gender") is False


def test_a_window_that_stays_black_ends_the_openings_in_20_seconds():
    openings = range(1, window_module.MAX_OPENINGS + 1)
    assert sum(number * window_module.PATIENCE + 0.1 for number in openings) < 21


PAINTED = """
import sys
from src.demo.window import is_black
print(is_black("Age and gender"), is_black("No such window"))
"""


@needs_screen
@pytest.mark.parametrize("paint", [False, True])
def test_black_windows_are_recognised(tmp_path, paint):
    code = X11_WINDOW if paint else X11_WINDOW.replace("XFillRectangle(", "XNoOp(server) or (")
    with virtual_screen(tmp_path) as screen:
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=screen.environment, cwd=ROOT) as process:
            assert process.stdout.readline() == "ready\n"
            command = [sys.executable, "-c", PAINTED]
            result = subprocess.run(
                command, capture_output=True, text=True, env=screen.environment, cwd=ROOT, check=True, timeout=60
            )
            process.kill()
    assert result.stdout.split() == [str(not paint), "False"]


X11_WINDOW = """
import ctypes, ctypes.util, time
x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
x11.XOpenDisplay.restype = ctypes.c_void_p
server = ctypes.c_void_p(x11.XOpenDisplay(None))
x11.XCreateSimpleWindow.restype = x11.XDefaultRootWindow.restype = ctypes.c_ulong
x11.XDefaultGC.restype = ctypes.c_void_p
root = x11.XDefaultRootWindow(server)
window = ctypes.c_ulong(x11.XCreateSimpleWindow(server, ctypes.c_ulong(root), 900, 700, 400, 300, 0, 0, 0))
x11.XStoreName(server, window, b"Age and gender")
x11.XMapWindow(server, window)
x11.XSync(server, 0)
gc = ctypes.c_void_p(x11.XDefaultGC(server, 0))
x11.XSetForeground(server, gc, ctypes.c_ulong(0xFA0000))
x11.XFillRectangle(server, window, gc, 10, 10, 50, 50)
x11.XSync(server, 0)
print("ready", flush=True)
time.sleep(60)
"""
