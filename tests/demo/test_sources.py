import shutil
import sys
import threading
import time

import numpy as np
import pytest
from fake_capture import FakeCamera, FakeCapture

from src.cli import JobError, UserError
from src.demo.request import describe_source
from src.demo.sources import USUAL_RATE, Source
from tests.demo.videos import write_video


@pytest.fixture
def video(tmp_path):
    """20 frames at 25 per second."""
    return write_video(tmp_path / "talk.mkv", frames=20, rate=25)


def test_kinds_of_sources(video):
    assert describe_source("0") == ("camera 0", "0", None)
    assert describe_source("02") == ("camera 2", "2", None)
    address = "rtsp://me:secret@host:554/live/door.sdp"
    assert describe_source(address) == ("rtsp://host/live/door.sdp", address, None)
    assert describe_source(str(video)) == ("talk.mkv", f"file:{video}", video)
    assert describe_source(video.as_uri()) == ("talk.mkv", f"file:{video}", video)
    loop = video.with_name("loop.mp4")
    loop.symlink_to(loop.name)
    for nonsense in ("-1", "nothing.mp4", str(loop), "file:///nothing.mp4"):
        with pytest.raises(UserError, match="--camera .* does not exist"):
            describe_source(nonsense)
    with pytest.raises(UserError, match="which is no file"):
        describe_source(str(video.parent))


@pytest.mark.parametrize("address", ["rtsp://u:p[ss@127.0.0.1:9/x", "rtsp://u:\u2100ss@127.0.0.1/x", "file://[x/a.mp4"])
def test_address_that_cannot_be_parsed(address):
    with pytest.raises(UserError, match="--camera must be a valid address.*percent-encode") as caught:
        describe_source(address)
    assert "ss@" not in str(caught.value)


def test_names_of_results(video):
    for camera, stem, name in [
        ("2", "camera2", "camera2"),
        ("rtsp://me:secret@host:554/live/door.sdp", "door", "door"),
        ("http://host", "host", "host"),
    ]:
        source = Source(camera, open_input=FakeCamera(FakeCapture([1])))
        assert (source.stem, source.result_name, source.live) == (stem, name, True)
    with Source(str(video)) as source:
        assert (source.stem, source.result_name, source.live) == ("talk", "talk.mkv", False)


@pytest.mark.skipif(sys.platform != "linux", reason="names of devices on Linux")
def test_device_of_a_camera_is_its_index(tmp_path):
    assert describe_source("/dev/video0") == describe_source("0")
    (tmp_path / "door").symlink_to("/dev/video3")  # as /dev/v4l/by-id holds them
    assert describe_source(str(tmp_path / "door")) == describe_source("3")
    with pytest.raises(UserError, match="camera 7 gives no frame"):
        Source("/dev/video7", open_input=FakeCamera())


@pytest.mark.parametrize(
    "name",
    [
        "13:05.mp4",
        "2024-11-14T22:57:44.mp4",
        "-x.mp4",
        "concat:a|b.mp4",
        "a%03d.mp4",
        "写真 ?#&.mp4",
        "a\nb.mp4",
        "x" * 251 + ".mp4",
        "http:x.mkv",
    ],
)
def test_any_name_of_a_file_works(tmp_path, monkeypatch, name):
    write_video(tmp_path / "v.mkv", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with Source(name) as source:
        assert source.name == name
        assert len(list(source.frames())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_name_that_is_no_utf8_works(tmp_path):
    name = b"caf\xe9.mkv".decode("utf-8", "surrogateescape")
    shutil.copy(write_video(tmp_path / "v.mkv", frames=2), tmp_path / name)
    with Source(str(tmp_path / name)) as source:
        assert len(list(source.frames())) == 2


def test_video_file_gives_all_frames_in_order_and_rgb(video):
    with Source(str(video)) as source:
        numbers, times, images = zip(*source.frames(), strict=True)
    assert (source.input.count, source.input.damage) == (20, "")
    assert numbers == tuple(range(20))
    assert times == pytest.approx(np.arange(20) / 25)
    assert images[0].shape == (48, 64, 3)
    assert images[15][0, 0].tolist() == [100, 100, 9]  # the face of `write_video`, red and blue in their places


def test_file_that_is_no_video(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4 gives no frame"):
        Source(str(path))


def test_missing_camera_names_the_ways_out():
    with pytest.raises(UserError, match=r"camera 7.*--image_dir"):
        Source("7", open_input=FakeCamera())


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 90000.0])
def test_rate_that_cannot_be_is_replaced(rate):
    assert Source("0", open_input=FakeCamera(FakeCapture([1], rate))).input.rate == USUAL_RATE


def test_camera_that_fails_in_mid_stream_is_opened_again():
    first, last = FakeCapture([10, 20]), FakeCapture([30])
    camera = FakeCamera(first, None, None, last)
    source = Source("0", open_input=camera, patience=30)
    source._closed.wait = lambda seconds: False  # no waiting between the attempts
    frames = source.frames()
    assert [int(next(frames).image.mean()) for _ in range(3)] == [10, 20, 30]
    assert first.released
    assert camera.opened == 4


def test_source_that_is_back_has_no_sound():
    """Also where it has an end by then, as an HLS stream whose broadcast is over."""
    camera, opened = FakeCamera(FakeCapture([10]), FakeCapture([20])), []

    def open_input(address, with_sound):
        opened.append(with_sound)
        return camera(address)

    frames = Source("0", with_sound=True, open_input=open_input).frames()
    assert [int(next(frames).image.mean()) for _ in range(2)] == [10, 20]
    assert opened == [True, False]


def test_camera_that_stays_away_is_one_clear_error():
    frames = Source("0", open_input=FakeCamera(FakeCapture([10])), patience=0.3).frames()
    next(frames)
    start = time.monotonic()
    with pytest.raises(JobError, match="camera 0 stopped"):
        next(frames)
    assert time.monotonic() - start > 0.25


def test_closing_ends_the_wait_for_a_camera():
    source = Source("0", open_input=FakeCamera(FakeCapture([10])), patience=600)
    frames = source.frames()
    next(frames)
    threading.Timer(0.2, source.close).start()
    assert next(frames, None) is None


def test_end_of_a_file_is_no_fault(video):
    with Source(str(video), patience=0.0) as source:
        assert len(list(source.frames())) == 20


def test_times_of_a_camera_follow_the_clock_also_after_it_came_back(monkeypatch):
    """Frames at 100, 100.1; the camera is away until 102."""
    clock = iter([100.0, 100.0, 100.1, 100.1, 100.1, 102.0, 102.0, 102.0, 102.5])
    source_clock = []

    def monotonic():
        source_clock.append(next(clock, 103.0))
        return source_clock[-1]

    monkeypatch.setattr("src.demo.sources.time.monotonic", monotonic)
    source = Source("0", open_input=FakeCamera(FakeCapture([1, 2]), FakeCapture([3, 4])), patience=30)
    frames = source.frames()
    read = [next(frames) for _ in range(4)]
    assert [frame.number for frame in read] == [0, 1, 2, 3]
    assert [int(frame.image[0, 0, 0]) for frame in read] == [1, 2, 3, 4]
    times = [frame.time for frame in read]
    assert times[0] == 0
    assert times == sorted(times)
    assert times[2] > 1.5


def test_leaving_releases_the_camera():
    capture = FakeCapture([1, 2])
    with Source("0", open_input=FakeCamera(capture)):
        pass
    assert capture.released


def test_a_stream_that_gives_nothing_names_the_address_without_its_password():
    with pytest.raises(UserError, match=r"rtsp://host/door gives no frame; check the address") as caught:
        Source("rtsp://me:secret@host/door", open_input=FakeCamera())
    assert "secret" not in str(caught.value)


@pytest.fixture
def server(tmp_path):
    """A web server for the files of the test."""
    import functools
    import http.server

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.ts", "libx264"), ("v.mkv", "ffv1")])
def test_end_of_a_file_behind_an_address_is_the_end(tmp_path, server, name, codec):
    write_video(tmp_path / name, codec=codec)
    with Source(f"{server}/{name}", patience=0.0) as source:
        assert not source.live
        assert len(list(source.frames())) == 30
        assert source.input.damage == ""
