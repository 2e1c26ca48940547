import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from virtual_screen import needs_screen, virtual_screen

from src.cli import ROOT, JobError, UserError
from src.demo.drawing import COLOURS, draw_predictions, draw_status, label_text
from src.demo.video import VideoFile
from src.demo.window import check_display
from src.images.boxes import shared_area
from src.inference.predictor import Prediction

WOMAN, MAN = 0.1, 0.9


def ground(drawn, gender):
    """Bounding box of a label's ground: the rows and columns where much of its colour stands together."""
    mask = (drawn == COLOURS[gender]).all(axis=2).astype(np.uint8)
    solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_label_texts():
    assert label_text(Prediction((0, 0, 9, 9), 33.6, WOMAN)) == "34 F"
    assert label_text(Prediction((0, 0, 9, 9), 0.4, MAN)) == "0 M"
    assert label_text(Prediction((0, 0, 9, 9), 50.0, 0.5)) == "50 M"


def test_draws_on_a_copy():
    image = np.full((120, 160, 3), 77, np.uint8)
    drawn = draw_status(draw_predictions(image, [Prediction((40, 40, 80, 80), 30, MAN)]), "25 fps")
    assert (image == 77).all()
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    np.testing.assert_array_equal(draw_predictions(image, []), image)


def test_label_stands_above_its_box_and_only_there_is_drawn():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_predictions(image, [Prediction((200, 200, 300, 300), 30, WOMAN)])
    left, top, right, bottom = ground(drawn, "F")
    assert (left, bottom) == (200, 202)  # the box's line of two pixels stands next to it
    assert 170 <= top < bottom
    assert 230 <= right <= 300
    drawn[top:303, 197:303] = 0
    assert not drawn.any()


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_text_differs_from_its_ground_on_any_background(shade):
    image = np.full((480, 640, 3), shade, np.uint8)
    drawn = draw_predictions(image, [Prediction((200, 200, 300, 300), 30, MAN)])
    left, top, right, bottom = ground(drawn, "M")
    label = drawn[top:bottom, left:right]
    assert (label == COLOURS["M"]).all(axis=2).mean() > 0.4
    assert (label == 255).all(axis=2).mean() > 0.05


def relative_luminance(colour):
    """WCAG 2.1, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("gender", COLOURS)
def test_contrast_is_that_of_readable_text(gender):
    assert (1.0 + 0.05) / (relative_luminance(COLOURS[gender]) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 100, 100),
        (540, 0, 640, 100),
        (0, 380, 100, 480),
        (540, 380, 640, 480),
        (0, 0, 640, 480),
        (630, 200, 640, 210),
    ],
)
def test_whole_label_is_inside_the_picture_at_its_edges(box):
    middle = draw_predictions(np.zeros((480, 640, 3), np.uint8), [Prediction((270, 190, 370, 290), 100, MAN)])
    drawn = draw_predictions(np.zeros((480, 640, 3), np.uint8), [Prediction(box, 100, MAN)])
    left, top, right, bottom = ground(drawn, "M")
    full = ground(middle, "M")
    face_height, full_height = box[3] - box[1], 100
    if face_height == full_height:
        assert (right - left, bottom - top) == (full[2] - full[0], full[3] - full[1])
    assert (drawn[top:bottom, left:right] == 255).all(axis=2).mean() > 0.05


@pytest.mark.parametrize("size", [(16, 16), (30, 200), (200, 30), (100, 100), (3000, 4000)])
def test_label_fits_and_grows_with_the_picture(size):
    height, width = size
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    drawn = draw_predictions(np.zeros((*size, 3), np.uint8), [Prediction(box, 100, WOMAN)])
    left, top, right, bottom = ground(drawn, "F")
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert bottom - top >= min(12, height * 0.3, width * 0.2)
    if height == 3000:
        assert bottom - top > 100


def test_labels_keep_off_each_other_and_other_faces():
    image = np.zeros((480, 640, 3), np.uint8)
    upper, lower = Prediction((200, 100, 300, 200), 30, WOMAN), Prediction((200, 205, 300, 305), 40, MAN)
    drawn = draw_predictions(image, [upper, lower])
    first, second = ground(drawn, "F"), ground(drawn, "M")
    assert first[3] <= 102  # above its face
    assert second[1] >= 303  # below its face, since another face is above
    assert shared_area(first, second) == 0


def test_status_is_small_and_in_the_lower_left_corner():
    drawn = draw_status(np.full((480, 640, 3), 255, np.uint8), "25 fps  EfficientNetB3")
    rows, columns = np.nonzero((drawn != 255).any(axis=2))
    assert rows.max() == 479
    assert columns.min() == 0
    assert rows.min() > 440
    assert columns.max() < 320


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (answer := capture.read())[0]:
        frames.append(answer[1][..., ::-1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def write_grey(video, shades, size=(48, 64)):
    for number, shade in shades:
        video.write(np.full((*size, 3), shade, np.uint8), number)


def test_video_reads_back_with_its_rate_and_colours(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoFile(path, 12.5) as video:
        for number in range(10):
            frame = np.zeros((49, 65, 3), np.uint8)  # the codec wants even sides: one row and column go
            frame[..., 0] = 200
            video.write(frame, number)
        assert not path.exists()
    frames, rate = read_video(path)
    assert (len(frames), rate) == (10, 12.5)
    assert frames[0].shape == (48, 64, 3)
    assert np.abs(frames[5].mean(axis=(0, 1)) - [200, 0, 0]).max() < 25
    assert list(tmp_path.iterdir()) == [path]


def test_video_fills_gaps_of_a_live_source_and_keeps_its_size(tmp_path):
    with VideoFile(tmp_path / "out.mp4", 25) as video:
        write_grey(video, [(0, 0), (1, 0), (5, 200)])
        write_grey(video, [(6, 100)], size=(96, 128))
    frames, _ = read_video(tmp_path / "out.mp4")
    assert [round(frame.mean(), -2) for frame in frames] == [0, 0, 200, 200, 200, 200, 100]
    assert {frame.shape for frame in frames} == {(48, 64, 3)}


def test_full_disk_stops_the_video_and_leaves_what_was_written(tmp_path, monkeypatch):
    path, stopped = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    free = iter([10**9] * 6 + [1000])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(JobError, match=r"full after 6 frames"), VideoFile(path, 25, stopped) as video:
        write_grey(video, [(number, 50) for number in range(20)])
    assert not path.exists()
    assert len(read_video(stopped)[0]) == 6


FILE_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np
from src.cli import JobError
from src.demo.video import VideoFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
rng = np.random.default_rng(0)
try:
    with VideoFile(Path(sys.argv[1]), 25) as video:
        for number in range(60):
            video.write(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), number)
except JobError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_video_that_cannot_grow_is_noticed_although_opencv_says_nothing(tmp_path):
    path = tmp_path / "out.mp4"
    command = [sys.executable, "-c", FILE_LIMIT, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
    assert "of 60 frames could be written" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_video_nobody_wrote_to_leaves_nothing(tmp_path):
    with VideoFile(tmp_path / "out.mp4", 25):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland can be missing")
@pytest.mark.parametrize("screen", [None, ":4242"])
def test_missing_screen_is_an_error_that_names_output_dir(monkeypatch, screen):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", screen)
    with pytest.raises(UserError, match="--output_dir"):
        check_display()


WINDOW = """
import sys
import numpy as np
from src.demo.window import Window, check_display
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
            print(key, flush=True)
"""


@needs_screen
@pytest.mark.parametrize("last", ["Escape", "q", "close"])
def test_window_shows_the_picture_and_hears_keys(tmp_path, last):
    with virtual_screen(tmp_path) as screen:
        command = [sys.executable, "-c", WINDOW]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=screen.environment, cwd=ROOT)
        shot = screen.wait_for_picture(lambda shot: (shot == (250, 0, 0)).all(axis=2).any())
        # 2600 pixels do not fit; the screen's 1000 cut the window at the right, so the red half and some blue are seen.
        red, blue = (shot == (250, 0, 0)).all(axis=2), (shot == (0, 0, 250)).all(axis=2)
        assert abs(red[10].sum() - 640) < 10
        assert blue[10].sum() > 300
        for key in ("n", "space", "s"):
            screen.press(key)
        screen.close_window() if last == "close" else screen.press(last)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines() == ["n", " ", "s", "quit"]
