"""Look at an X11 screen, to find out whether a window shows anything.

Qt 5.15 inside OpenCV 5 sometimes loses the first events of a new window (seen: the notices of its properties, of its
mapping and its exposure), and then never paints it. OpenCV offers no way to ask for that.
"""

import ctypes
import ctypes.util
import os
import sys
from typing import Any

ALL_PLANES = ctypes.c_ulong(-1).value
Z_PIXMAP = 2


class _Image(ctypes.Structure):
    """The first fields of Xlib's `XImage`."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("byte_order", ctypes.c_int),
        ("bitmap_unit", ctypes.c_int),
        ("bitmap_bit_order", ctypes.c_int),
        ("bitmap_pad", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("bytes_per_line", ctypes.c_int),
    )


def is_black(title: str) -> bool:
    """Whether a window of this title is all black on an X11 screen without a window manager.

    Elsewhere the answer is False: nothing is known to go wrong there.
    """
    display = _open_display()
    if display is None:
        return False
    x11, server = display
    try:
        root = x11.XDefaultRootWindow(server)
        window = next((window for window in _children(x11, server, root) if _title(x11, server, window) == title), None)
        return window is not None and not _pixels(x11, server, root, window).strip(b"\0")
    finally:
        x11.XCloseDisplay(server)


def _open_display() -> tuple[ctypes.CDLL, int] | None:
    if sys.platform != "linux" or not os.environ.get("DISPLAY"):
        return None
    try:
        x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
    except OSError:
        return None
    pointer, window, number = ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int
    image = ctypes.POINTER(_Image)
    signatures: dict[str, tuple[Any, list]] = {
        "XOpenDisplay": (pointer, [ctypes.c_char_p]),
        "XCloseDisplay": (number, [pointer]),
        "XDefaultRootWindow": (window, [pointer]),
        "XFree": (number, [pointer]),
        "XFetchName": (number, [pointer, window, pointer]),
        "XQueryTree": (number, [pointer, window, *[pointer] * 4]),
        "XGetGeometry": (number, [pointer, window, *[pointer] * 7]),
        "XGetImage": (image, [pointer, window, *[number] * 4, window, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(x11, name)
        function.restype, function.argtypes = result, arguments
    server = x11.XOpenDisplay(None)
    return (x11, server) if server else None


def _children(x11: ctypes.CDLL, server: int, root: int) -> list[int]:
    unused, children, count = ctypes.c_ulong(), ctypes.POINTER(ctypes.c_ulong)(), ctypes.c_uint()
    x11.XQueryTree(server, root, *map(ctypes.byref, (unused, unused, children, count)))
    windows = children[: count.value]
    if windows:
        x11.XFree(children)
    return windows


def _title(x11: ctypes.CDLL, server: int, window: int) -> str:
    name = ctypes.c_char_p()
    if not x11.XFetchName(server, window, ctypes.byref(name)):
        return ""
    title = (name.value or b"").decode(errors="replace")
    x11.XFree(name)
    return title


def _pixels(x11: ctypes.CDLL, server: int, root: int, window: int) -> bytes:
    """Read the part of a window that is on the screen, as the bytes of its pixels."""
    left, top, right, bottom = _box(x11, server, window)
    _, _, screen_right, screen_bottom = _box(x11, server, root)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, screen_right), min(bottom, screen_bottom)
    if right <= left or bottom <= top:
        return b"\1"  # nothing of it can be seen
    image = x11.XGetImage(server, root, left, top, right - left, bottom - top, ALL_PLANES, Z_PIXMAP)
    if not image:
        return b"\1"
    pixels = ctypes.string_at(image.contents.data, image.contents.bytes_per_line * image.contents.height)
    x11.XFree(image.contents.data)
    x11.XFree(image)
    return pixels


def _box(x11: ctypes.CDLL, server: int, window: int) -> tuple[int, int, int, int]:
    parent, left, top = ctypes.c_ulong(), ctypes.c_int(), ctypes.c_int()
    width, height, border, depth = (ctypes.c_uint() for _ in range(4))
    x11.XGetGeometry(server, window, *map(ctypes.byref, (parent, left, top, width, height, border, depth)))
    return left.value, top.value, left.value + width.value, top.value + height.value
