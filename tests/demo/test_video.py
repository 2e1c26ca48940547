import csv

import cv2
import numpy as np
import pytest
from fake_capture import FakeCamera, FakeCapture
from fake_estimator import FakeEstimator

from src.cli import JobError, UserError
from src.demo import video as video_demo
from src.demo.sources import VideoSource
from src.demo.video import run_video_to_files
from src.inference.predictor import Predictor
from tests.inference.test_predictor import FakeDetector, picture


def write_video(path, frames=30, rate=20.0):
    """A face of age 100 from frame 10 on; FFV1 keeps every pixel as it is."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), rate, (64, 48))
    for number in range(frames):
        frame = np.full((48, 64, 3), 128, np.uint8)
        frame[:16, :16] = picture(100) if number >= 10 else 0
        writer.write(frame[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    return output


def run(camera, output, open_capture=None, **options):
    with VideoSource(str(camera), open_capture, patience=0.2) as source:
        return run_video_to_files(source, output, Predictor(FakeDetector(), FakeEstimator(), 0.0), **options)


def rows(output):
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_video_with_the_sources_rate_and_a_row_for_every_face_of_every_frame(tmp_path, output):
    summary = run(write_video(tmp_path / "talk.mkv"), output, with_json=True)
    assert summary.line() == "faces in 20 of 30 frames"
    assert [int(row["image"]) for row in rows(output)] == list(range(10, 30))
    assert {row["age"] for row in rows(output)} == {"100.00"}
    assert len((output / "predictions.jsonl").read_text().splitlines()) == 30
    capture = cv2.VideoCapture(str(output / "talk.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (20, 30)


def test_no_face_says_so(tmp_path, output):
    assert run(write_video(tmp_path / "talk.mkv", frames=8), output).line() == "no face in any of 8 frames"


def test_the_video_itself_is_never_replaced(tmp_path):
    path = tmp_path / "talk.mp4"
    write_video(tmp_path / "talk.mkv").rename(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="own folder"):
        run(path, tmp_path)
    assert path.read_bytes() == before


def test_a_finished_video_is_not_done_again(tmp_path, output):
    path = write_video(tmp_path / "talk.mkv")
    run(path, output)
    before = (output / "predictions.csv").stat().st_mtime_ns
    assert run(path, output, skip_existing=True).line() == "the video was done before"
    assert (output / "predictions.csv").stat().st_mtime_ns == before


def test_a_stopped_video_is_kept_but_is_not_taken_for_finished(tmp_path, output, monkeypatch):
    calls = iter(range(1000))

    def draw(image, predictions):
        if next(calls) == 15:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(video_demo, "draw_predictions", draw)
    path = write_video(tmp_path / "talk.mkv")
    with pytest.raises(KeyboardInterrupt):
        run(path, output)
    assert sorted(file.name for file in output.iterdir()) == ["predictions.csv", "talk.partial.mp4"]
    assert cv2.VideoCapture(str(output / "talk.partial.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 15


def test_recording_of_a_camera_that_goes_away_is_complete_up_to_there(output):
    with pytest.raises(JobError, match="camera 3 stopped"):
        run("3", output, FakeCamera(FakeCapture([100] * 5, rate=10)))
    assert cv2.VideoCapture(str(output / "camera3.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) >= 1
