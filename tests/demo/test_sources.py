import threading
import time

import cv2
import numpy as np
import pytest
from fake_capture import FakeCamera, FakeCapture

from src.cli import JobError, UserError
from src.demo.sources import USUAL_RATE, VideoSource, describe_source


@pytest.fixture
def video(tmp_path):
    """20 frames at 12.5 a second, red growing from frame to frame."""
    path = tmp_path / "talk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    for number in range(20):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 10 * number
        writer.write(frame)
    writer.release()
    return path


def test_kinds_of_sources(video):
    assert describe_source("0") == ("camera 0", "camera0", True)
    assert describe_source("02") == ("camera 2", "camera2", True)
    assert describe_source("rtsp://me:secret@host:554/live/door.sdp") == ("rtsp://host/live/door.sdp", "door", True)
    assert describe_source("http://host") == ("http://host", "host", True)
    assert describe_source(str(video)) == ("talk.avi", "talk", False)
    for nonsense in ("-1", "nothing.mp4", str(video.parent)):
        with pytest.raises(UserError, match="--camera"):
            describe_source(nonsense)


def test_video_file_gives_all_frames_in_order_and_rgb(video):
    with VideoSource(str(video)) as source:
        assert (source.name, source.rate, source.count, source.live) == ("talk.avi", 12.5, 20, False)
        numbers, frames = zip(*source.frames(), strict=True)
        assert source.read() is None
    assert numbers == tuple(range(20))
    assert frames[0].shape == (48, 64, 3)
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), [10 * number, 0, 0], atol=12)


def test_file_that_is_no_video(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4"):
        VideoSource(str(path))


def test_missing_camera_names_the_ways_out():
    with pytest.raises(UserError, match=r"camera 7.*--image_dir"):
        VideoSource("7", FakeCamera())


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 90000.0])
def test_rate_that_cannot_be_is_replaced(rate):
    assert VideoSource("0", FakeCamera(FakeCapture([1], rate))).rate == USUAL_RATE


def test_camera_that_fails_in_mid_stream_is_opened_again():
    first, last = FakeCapture([10, 20]), FakeCapture([30])
    camera = FakeCamera(first, None, None, last)
    source = VideoSource("0", camera, patience=30)
    source._closed.wait = lambda seconds: False  # no waiting between the attempts
    assert [int(source.read().mean()) for _ in range(3)] == [10, 20, 30]
    assert first.released
    assert camera.opened == 4


def test_camera_that_stays_away_is_one_clear_error():
    source = VideoSource("0", FakeCamera(FakeCapture([10])), patience=0.3)
    source.read()
    start = time.monotonic()
    with pytest.raises(JobError, match="camera 0 stopped"):
        source.read()
    assert 0.25 < time.monotonic() - start < 5


def test_closing_ends_the_wait_for_a_camera():
    source = VideoSource("0", FakeCamera(FakeCapture([10])), patience=60)
    source.read()
    threading.Timer(0.2, source.close).start()
    assert source.read() is None


def test_end_of_a_file_is_no_fault(video):
    camera = FakeCamera(FakeCapture([10, 20], count=2))
    source = VideoSource(str(video), camera)
    assert [number for number, _ in source.frames()] == [0, 1]
    assert camera.opened == 1


def test_numbers_of_a_live_source_follow_the_clock(monkeypatch):
    times = iter([100.0, 100.01, 100.02, 100.11, 100.55])  # the start, then one for each frame
    source = VideoSource("0", FakeCamera(FakeCapture([1, 2, 3, 4], rate=10)))
    monkeypatch.setattr("src.demo.sources.time.monotonic", lambda: next(times))
    frames = source.frames()
    assert [(number, int(frame[0, 0, 0])) for number, frame in (next(frames) for _ in range(3))] == [
        (0, 1),
        (1, 3),
        (5, 4),
    ]


def test_leaving_releases_the_camera():
    capture = FakeCapture([1, 2])
    with VideoSource("0", FakeCamera(capture)):
        pass
    assert capture.released


def test_a_stream_that_gives_nothing_names_the_address_without_its_password():
    with pytest.raises(UserError, match=r"frames from rtsp://host/door, received none; check the address") as caught:
        VideoSource("rtsp://me:secret@host/door", FakeCamera())
    assert "secret" not in str(caught.value)
