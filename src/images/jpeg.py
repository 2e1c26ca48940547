"""What a JPEG file says without being decoded: its size, and signs of damage (ITU T.81, annex B)."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
ZEROED_BLOCK = bytes(512)
"""What a file system leaves of a block that was never written; hardly any healthy photo holds so many zeros."""
IN_SCANS = np.zeros(256, bool)
"""Which bytes may follow 0xFF in the scans of an image: data, restarts, tables and other scans."""
IN_SCANS[[0x00, 0xC4, *range(0xD0, 0xD8), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE, 0xFF]] = True
DECODE = "import sys, cv2, numpy; cv2.imdecode(numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8), 1)"
PATIENCE = 60.0
"""Seconds for decoding an image once more."""

logger = logging.getLogger(__name__)
_checked: set[str] = set()


def smallest_side(data: bytes) -> int:
    """Read the shorter side in pixels from the header of a JPEG file; 0 for other files."""
    for marker, place in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame, not a table
            height, width = (int.from_bytes(data[place + k : place + k + 2]) for k in (5, 7))
            return min(height, width)
    return 0


def is_cut_off(data: bytes) -> bool:
    """Tell whether a file is a JPEG that ends before its image does."""
    start = _first_scan(data)  # thumbnails before it have ends of their own
    return data.startswith(START_OF_IMAGE) and data.rfind(END_OF_IMAGE, start if start < len(data) else 0) < 0


def warn_if_damaged(path: str | os.PathLike, data: bytes) -> None:
    """Warn once of a file that was decoded although a part of it is damaged, as far as there is a cheap sign of it.

    libjpeg reports damage on stderr alone, without the name. No end is such a sign, and so are a run of zeros and
    impossible markers, which random bytes hold; but healthy images may have these two as well: such files are decoded
    once more, in a process whose stderr is read.
    """
    misplaced = has_misplaced_marker(data)
    if data.endswith(END_OF_IMAGE) and ZEROED_BLOCK not in data and not misplaced:  # nearly all files
        return
    name = os.fspath(path)
    if name not in _checked and (misplaced or is_cut_off(data) or has_zeroed_block(data)):
        _checked.add(name)
        if is_cut_off(data) or _libjpeg_complains(data):
            logger.warning(f"{name} is damaged; what could be read of it is used")


def has_zeroed_block(data: bytes) -> bool:
    """Tell whether the coded pixels of a JPEG file hold a run of zeros."""
    start = _first_scan(data)
    return start < len(data) and data.find(ZEROED_BLOCK, start, data.rfind(END_OF_IMAGE)) >= 0


def has_misplaced_marker(data: bytes) -> bool:
    """Tell whether the coded pixels of a JPEG file hold a marker that cannot stand there.

    Of 2,000 random bytes one in 256 is 0xFF, and nine of ten bytes that may follow it make such a marker.
    """
    coded = np.frombuffer(data, np.uint8)[_first_scan(data) :]
    following = coded[1:][np.flatnonzero(coded[:-1] == 0xFF)]
    ends = np.flatnonzero(following == END_OF_IMAGE[1])  # behind it may stand anything
    return not IN_SCANS[following[: ends[0] if len(ends) else None]].all()


def _libjpeg_complains(data: bytes) -> bool:
    if not sys.executable:  # an embedded Python
        return False
    command = [sys.executable, "-P", "-c", DECODE]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"Corrupt JPEG data" in done.stderr


def _first_scan(data: bytes) -> int:
    """Find where the coded pixels begin; the length of the data where there are none."""
    return next((place for marker, place in _segments(data) if marker == START_OF_SCAN), len(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of the segments of a JPEG file up to its first scan."""
    if not data.startswith(START_OF_IMAGE):
        return
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xFF:  # markers may have fill bytes in front
            place += 1
            continue
        yield data[place + 1], place
        if data[place + 1] == START_OF_SCAN:
            return
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
