import csv
import json
import re
import socket
import threading
from collections import Counter

import pytest
from fake_capture import FakeCamera, FakeCapture
from fake_estimator import FakeEstimator
from filelock import FileLock

from src.cli import JobError, UserError
from src.demo import video as video_demo
from src.demo.folder import run_folder_to_files
from src.demo.request import find_input
from src.demo.results import root_hash
from src.demo.sources import Source
from src.demo.video import run_video_to_files
from src.images.io import read_image, write_image
from src.inference.predictor import Predictor
from tests.demo.videos import read_video, write_video
from tests.inference.test_predictor import FakeDetector, draw


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    return output


def run(camera, output, open_input=None, **options):
    with Source(str(camera), with_sound=True, open_input=open_input, patience=0.2) as source:
        return run_video_to_files(source, output, Predictor(FakeDetector(), FakeEstimator(), 0.0), **options)


def rows(output):
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(output):
    return sorted(path.name for path in output.iterdir() if not path.name.startswith("."))


def test_video_with_its_own_times_and_a_row_for_every_face_of_every_frame(tmp_path, output):
    summary = run(write_video(tmp_path / "talk.mkv", sound="aac"), output, with_json=True)
    assert summary.line() == "faces in 20 of 30 frames"
    assert [(row["image"], int(row["frame"])) for row in rows(output)] == [("talk.mkv", n) for n in range(10, 30)]
    assert [float(row["time"]) for row in rows(output)] == pytest.approx([n / 20 for n in range(10, 30)], abs=0.03)
    assert {row["age"] for row in rows(output)} == {"100.00"}
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [(line["image"], line["frame"], len(line["faces"])) for line in lines[9:11]] == [
        ("talk.mkv", 9, 0),
        ("talk.mkv", 10, 1),
    ]
    assert len(lines) == 30
    times, images, reader = read_video(output / "talk.mp4")
    assert times == pytest.approx(read_video(tmp_path / "talk.mkv")[0], abs=0.001)
    assert (images[20] != images[5]).any()
    assert len(reader.sound) == len(read_video(tmp_path / "talk.mkv")[2].sound) > 50


@pytest.mark.parametrize("times", [[0, 0.04, 0.08, 0.58, 1.08, 1.58], [0, 2, 4, 6, 8, 10]])
def test_variable_rates_and_time_lapses_keep_their_times(tmp_path, output, times):
    run(write_video(tmp_path / "talk.mkv", times, face_from=0), output)
    assert [float(row["time"]) for row in rows(output)] == times
    assert read_video(output / "talk.mp4")[0] == pytest.approx(times)


def test_a_face_of_another_scene_at_the_same_place_has_its_own_age(tmp_path, output):
    run(write_video(tmp_path / "talk.mkv", face_from=0, cut_at=15), output)
    assert [float(row["age"]) for row in rows(output)] == [100] * 15 + [20] * 15


def test_no_face_says_so(tmp_path, output):
    assert run(write_video(tmp_path / "talk.mkv", frames=8), output).line() == "no face in any of 8 frames"


def test_the_video_itself_is_never_replaced(tmp_path):
    path = write_video(tmp_path / "talk.mkv").rename(tmp_path / "talk.mp4")
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
    again = run(path, output, skip_existing=True, options="other")
    assert again.line() == "faces in 20 of 30 frames, done again since an earlier run had other weights or options"
    assert run(path, output, skip_existing=True, options="other").done_before


def test_a_video_whose_file_or_rows_are_gone_is_done_again(tmp_path, output):
    path = write_video(tmp_path / "talk.mkv")
    run(path, output)
    expected = rows(output)
    (output / "talk.mp4").unlink()
    assert run(path, output, skip_existing=True).frames == 30
    text = (output / "predictions.csv").read_text()
    (output / "predictions.csv").write_text("".join(text.splitlines(True)[:-1]))
    assert run(path, output, skip_existing=True).frames == 30
    assert rows(output) == expected
    assert run(path, output, skip_existing=True).done_before
    assert run(path, output, skip_existing=True, with_json=True).frames == 30


def test_videos_in_one_folder_keep_each_others_results(tmp_path, output):
    """The same name with other endings, and in another folder."""
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "a.mkv", tmp_path / "a.avi", tmp_path / "b" / "a.mkv"]
    for number, path in enumerate(paths):
        write_video(path, frames=12 + number)
    notes = [run(path, output).line() for path in paths]
    counts = {"a.mkv": 2, "a.avi": 3, "a~2.mkv": 4}
    assert {name: sum(row["image"] == name for row in rows(output)) for name in counts} == counts
    assert files(output) == ["a.avi.mp4", "a.mp4", "a~2.mp4", "predictions.csv"]
    assert [len(read_video(output / name)[0]) for name in ("a.mp4", "a.avi.mp4", "a~2.mp4")] == [12, 13, 14]
    assert notes[:2] == ["faces in 2 of 12 frames", "faces in 3 of 13 frames"]
    assert "a~2.mkv" in notes[2]
    for path in reversed(paths):  # each finds its own again
        run(path, output)
    assert len(rows(output)) == sum(counts.values())
    assert files(output) == ["a.avi.mp4", "a.mp4", "a~2.mp4", "predictions.csv"]


def test_a_video_and_the_images_beside_it_keep_each_others_results(tmp_path, output):
    folder = tmp_path / "in"
    folder.mkdir()
    write_image(folder / "a.png", draw(30))
    write_image(folder / "x.gif", draw(None))
    run(write_video(folder / "talk.mkv"), output, with_json=True)
    done_before = []
    for _ in range(2):
        run_folder_to_files(find_input(folder), output, Predictor(FakeDetector(), FakeEstimator(), 0.0))
        done_before.append(run(folder / "x.gif", output, skip_existing=True).done_before)
    assert done_before == [False, True]
    assert Counter(row["image"] for row in rows(output)) == {"talk.mkv": 20, "a.png": 1}
    assert len(read_image(output / "x.gif.png")) == 16
    assert len(read_video(output / "x~2.mp4")[0]) == 1


def test_files_of_the_user_are_not_replaced(tmp_path, output):
    (output / "talk.mp4").write_text("mine")
    run(write_video(tmp_path / "talk.mkv", frames=12), output)
    assert (output / "talk.mp4").read_text() == "mine"
    assert len(read_video(output / "talk.mkv.mp4")[0]) == 12


def test_two_runs_with_one_video_at_the_same_time(tmp_path, output):
    path = write_video(tmp_path / "talk.mkv")
    run(path, output)
    with (
        FileLock(output / ".demo" / f"{root_hash(path)}.lock"),
        pytest.raises(UserError, match="another run is writing"),
    ):
        run(path, output)
    assert len(rows(output)) == 20


def run_and_stop(path, output, monkeypatch):
    """Stop after 15 frames."""
    calls = iter(range(1000))

    def draw(image, predictions):
        if next(calls) == 15:
            raise KeyboardInterrupt
        return image

    with monkeypatch.context() as patch:
        patch.setattr(video_demo, "draw_predictions", draw)
        with pytest.raises(KeyboardInterrupt):
            run(path, output)


def test_a_stopped_video_is_kept_but_is_not_taken_for_finished(tmp_path, output, monkeypatch):
    path = write_video(tmp_path / "talk.mkv")
    run_and_stop(path, output, monkeypatch)
    assert files(output) == ["predictions.csv", "talk.partial.mp4"]
    assert len(read_video(output / "talk.partial.mp4")[0]) == 15
    assert run(path, output, skip_existing=True).frames == 30
    assert len(rows(output)) == 20
    assert files(output) == ["predictions.csv", "talk.mp4"]


def test_a_stopped_video_replaces_no_other_file(tmp_path, output, monkeypatch):
    (output / "talk.partial.mp4").write_text("mine")
    path = write_video(tmp_path / "talk.mkv")
    run_and_stop(path, output, monkeypatch)
    assert len(read_video(output / "talk.partial~2.mp4")[0]) == 15
    run(path, output)
    assert (output / "talk.partial.mp4").read_text() == "mine"
    assert files(output) == ["predictions.csv", "talk.mp4", "talk.partial.mp4"]
    run(path, output)
    assert (output / "talk.partial.mp4").read_text() == "mine"


def test_a_file_that_came_after_a_complete_run_is_not_ours(tmp_path, output, monkeypatch):
    path = write_video(tmp_path / "talk.mkv")
    run(path, output)
    (output / "talk.partial.mp4").write_text("mine")
    run_and_stop(path, output, monkeypatch)
    assert (output / "talk.partial.mp4").read_text() == "mine"
    assert (output / "talk.partial~2.mp4").exists()


@pytest.mark.parametrize("name", ["talk.mp4", "talk.mkv"])
def test_a_damaged_video_is_told_apart_from_its_end(tmp_path, output, name):
    path = write_video(tmp_path / name, codec="libx264", frames=60, face_from=0, movflags="+faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    message = rf"{name} is damaged at \d\.\d\d s: (\d+) of 60 frames could be read.*talk\.partial\.mp4"
    with pytest.raises(JobError, match=message) as caught:
        run(path, output)
    assert files(output) == ["predictions.csv", "talk.partial.mp4"]
    read = int(re.search(message, str(caught.value))[1])
    assert len(read_video(output / "talk.partial.mp4")[0]) == read > 5


def test_recording_of_a_camera_that_goes_away_is_complete_up_to_there(output):
    with pytest.raises(JobError, match="camera 3 stopped"):
        run("3", output, FakeCamera(FakeCapture([100] * 5, rate=10)))
    assert len(read_video(output / "camera3.mp4")[0]) >= 1


@pytest.fixture
def broadcast(tmp_path):
    """The address of a live stream with sound that drops after each of two connections, then stays away."""
    data = write_video(tmp_path / "live.ts", codec="libx264", sound="aac").read_bytes()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(60)

    def serve():
        with server:
            for _ in range(2):
                with server.accept()[0] as connection:
                    connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}/live"
    thread.join()


def test_recording_of_a_stream_with_sound_goes_on_when_the_stream_is_back(broadcast, output):
    with pytest.raises(JobError, match="stopped and did not come back"):
        run(broadcast, output)
    times, _, reader = read_video(output / "live.mp4")
    assert len(times) == 60
    assert times == sorted(times)
    assert reader.tracks == []


def test_a_recording_does_not_replace_an_earlier_one(output):
    for count in (3, 5):
        with pytest.raises(JobError, match="camera 3 stopped"):
            run("3", output, FakeCamera(FakeCapture([100] * count, rate=10)))
    assert files(output) == ["camera3.mp4", "camera3~2.mp4", "predictions.csv"]
    assert [len(read_video(output / name)[0]) for name in ("camera3.mp4", "camera3~2.mp4")] == [3, 5]
