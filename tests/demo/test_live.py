import threading
import time
from itertools import cycle

import numpy as np
import pytest
from fake_capture import FakeCamera, FakeCapture, FakeVideo

from src.cli import JobError
from src.demo import live
from src.demo.live import LiveSummary, Slot, run_live, save_image
from src.demo.sources import Source
from src.images.detector import Face
from src.images.io import read_image
from src.inference.predictor import Prediction


class FakePredictor:
    """One face a frame whose age is the frame's shade; an estimate takes `seconds`."""

    def __init__(self, seconds=0.0):
        self.seconds, self.seen = seconds, []
        self.detector = self

    def detect(self, image):
        return [Face((10, 10, 30, 30), 1.0)]

    def detect_in(self, image, regions):
        return [Face((10, 10, 30, 30), 1.0)] if regions else []

    def estimate(self, image, boxes):
        time.sleep(self.seconds)
        self.seen.append(int(image[0, 0, 0]))
        return [Prediction(box, float(image[0, 0, 0]), 0.0) for box in boxes]


class FakeWindow:
    """Presses the keys of `keys`, one after every `every` looks; notes the images."""

    def __init__(self, keys=(), every=10):
        self.keys, self.every, self.looks, self.images = list(keys), every, 0, []

    def show(self, image):
        self.images.append(image)

    def key(self, milliseconds):
        self.looks += 1
        return self.keys.pop(0) if self.keys and self.looks % self.every == 0 else None


class SlowCapture(FakeCapture):
    """A camera of 100 frames a second."""

    def read(self):
        time.sleep(0.01)
        return super().read()


class EndlessCapture(SlowCapture):
    def __init__(self):
        super().__init__([])
        self.shades = cycle(range(1, 101))

    def read(self):
        time.sleep(0.01)
        return True, np.full((48, 64, 3), next(self.shades), np.uint8)


def camera(capture, **options):
    return Source("0", open_input=FakeCamera(capture), **options)


def live_threads():
    return [thread for thread in threading.enumerate() if "_guard" in thread.name]


def test_slot_gives_the_newest_item_once():
    slot = Slot()
    assert slot.newer(0, 0.01) == (0, None)
    slot.put("a")
    slot.put("b")
    assert slot.newer(0, 1) == (2, "b")
    assert slot.newer(2, 0.01) == (2, None)
    threading.Timer(0.1, slot.put, ["c"]).start()
    assert slot.newer(2, 5) == (3, "c")


def test_ended_slot_lets_nobody_wait():
    slot = Slot()
    slot.put("a")
    threading.Timer(0.1, slot.end).start()
    start = time.monotonic()
    assert slot.newer(1, 30) == (1, None)
    assert slot.newer(0, 30) == (1, "a")
    assert time.monotonic() - start < 10


def test_runs_until_it_is_told_to_quit():
    window, predictor = FakeWindow(["x", "quit"]), FakePredictor()
    summary = run_live(camera(EndlessCapture()), window, predictor, "Net")
    assert summary.shown == len(window.images) > 5
    assert predictor.seen
    assert not live_threads()


def test_slow_estimation_slows_nothing_down_and_the_newest_frame_wins():
    window, predictor = FakeWindow(["quit"], every=60), FakePredictor(seconds=0.5)
    summary = run_live(camera(EndlessCapture()), window, predictor, "Net")
    assert summary.shown > 3 * len(predictor.seen)
    assert np.diff(predictor.seen).max() > 3  # frames in between were skipped


def test_slow_full_searches_delay_no_estimate():
    class SecondSearchHangs(FakePredictor):
        def detect(self, image):
            give_up = time.monotonic() + 60
            while 0 < len(self.seen) < 20 and time.monotonic() < give_up:
                time.sleep(0.01)
            return super().detect(image)

    predictor = SecondSearchHangs()
    start = time.monotonic()
    run_live(camera(EndlessCapture()), FakeWindow(["quit"], every=150), predictor, "Net")
    assert len(predictor.seen) >= 20
    assert time.monotonic() - start < 60


def test_a_frame_is_shown_with_its_own_boxes(monkeypatch):
    monkeypatch.setattr(live, "PATIENCE", 1000)
    summary = run_live(camera(EndlessCapture()), FakeWindow(["quit"], every=60), FakePredictor(), "Net")
    assert len(summary.box_ages) > 20
    assert max(summary.box_ages) <= 0
    assert len(summary.delays) == summary.shown


def test_slot_waits_for_the_item_that_is_wanted():
    slot = Slot()
    assert slot.wait_for(lambda item: item > 1, 0.01) is None
    slot.put(1)
    assert slot.wait_for(lambda item: item > 1, 0.01) == 1
    threading.Timer(0.1, slot.put, [2]).start()
    assert slot.wait_for(lambda item: item > 1, 30) == 2
    threading.Timer(0.1, slot.end).start()
    assert slot.wait_for(lambda item: item > 5, 30) == 2


def test_pause_holds_the_image_and_space_resumes():
    window = FakeWindow([" ", " ", "quit"], every=30)
    run_live(camera(EndlessCapture()), window, FakePredictor(), "Net")
    before_pause = 30
    assert len(window.images) < window.looks - before_pause * 0.5
    assert len(window.images) > before_pause


def test_a_video_waits_while_it_is_paused(tmp_path):
    path = tmp_path / "video.mp4"
    path.touch()
    source = Source(str(path), open_input=FakeVideo(range(1, 41), rate=100))
    window = FakeWindow([" ", " "], every=12)
    predictor = FakePredictor()
    run_live(source, window, predictor, "Net")
    shades = [int(image[0, 0, 0]) for image in window.images]
    assert shades[-1] == 40  # to its end, although it was paused on the way
    assert sorted(shades) == shades


def test_quitting_does_not_wait_for_the_next_frame(tmp_path):
    """A time lapse of a frame every 60 seconds."""
    path = tmp_path / "video.mp4"
    path.touch()
    window = FakeWindow(["quit"])
    start = time.monotonic()
    run_live(Source(str(path), open_input=FakeVideo([1, 2], rate=1 / 60)), window, FakePredictor(), "Net")
    assert time.monotonic() - start < 30
    assert not live_threads()


def test_a_damaged_video_is_shown_to_its_end_and_then_named(tmp_path):
    path = tmp_path / "video.mp4"
    path.touch()
    source = Source(str(path), open_input=FakeVideo([1, 2, 3], rate=100, damage="damaged at 0.02 s"))
    window = FakeWindow()
    with pytest.raises(JobError, match=r"video\.mp4 is damaged at 0\.02 s"):
        run_live(source, window, FakePredictor(), "Net")
    assert int(window.images[-1][0, 0, 0]) == 3


def test_saves_the_shown_image_without_the_line_of_status(tmp_path, capsys):
    run_live(camera(EndlessCapture()), FakeWindow(["s", "quit"], every=20), FakePredictor(), "Net", tmp_path)
    (path,) = tmp_path.iterdir()
    assert f"saved {path}" in capsys.readouterr().out
    image = read_image(path)
    assert image.shape == (48, 64, 3)
    assert len(np.unique(image[40:, :5])) == 1  # where the line of status would be


def test_saving_into_a_missing_folder_stops_nothing(tmp_path, capsys):
    save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "missing")
    assert "could not save" in capsys.readouterr().out


def test_camera_that_fails_in_mid_stream_and_comes_back():
    source = Source("0", open_input=FakeCamera(SlowCapture([10] * 20), None, SlowCapture([200] * 30)), patience=0.6)
    window = FakeWindow()
    with pytest.raises(JobError, match="camera 0 stopped"):
        run_live(source, window, FakePredictor(), "Net")
    assert {10, 200} <= {int(image[0, 63, 0]) for image in window.images}
    assert not live_threads()


@pytest.mark.parametrize("step", ["detect", "detect_in", "estimate"])
def test_a_defect_in_a_thread_ends_the_demo(step):
    def broken(*_):
        raise ZeroDivisionError

    predictor = FakePredictor()
    setattr(predictor, step, broken)
    with pytest.raises(ZeroDivisionError):
        run_live(camera(EndlessCapture()), FakeWindow(), predictor, "Net")
    assert not live_threads()


def test_summary():
    summary = LiveSummary(shown=3)
    assert summary.rate == 0
    assert summary.line() == "3 frames shown, 0 per second"
    summary.times.extend([10.0, 10.1, 10.2])
    summary.label_ages.extend([0.02, 0.05, 0.2])
    assert summary.line() == "3 frames shown, 10 per second, labels 50 ms older than their frame"


def test_memory_of_an_hour_is_that_of_a_minute():
    summary = LiveSummary()
    for number in range(30 * 3600):
        summary.times.append(number / 30)
        summary.label_ages.append(0.1)
    assert len(summary.times) == len(summary.label_ages) == 500
    assert summary.rate == pytest.approx(30)
