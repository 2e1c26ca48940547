"""`demo.py` as a user runs it, and what `run_demo` checks and says."""

import contextlib
import csv
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from fake_estimator import FakeEstimator
from script_runs import error_line, run_help, run_script, write_weights
from virtual_screen import needs_screen, virtual_screen, wait_for

from src.cli import ROOT, JobError, UserError
from src.demo import run as demo
from src.demo.drawing import COLOURS
from src.demo.request import Request, check_request, run_demo
from src.demo.run import choose_margin, hash_options
from src.files import prepare_output
from src.images.io import read_image, write_image

SAMPLES = ROOT / "samples"


@pytest.fixture(scope="module")
def weights(tiny_networks, tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.hdf5", margin=0.4)


@pytest.fixture
def fake_model(monkeypatch):
    """`run_demo` gets an estimator that needs no weights."""
    estimator = FakeEstimator()
    estimator.margin = estimator.info.margin
    monkeypatch.setattr(demo, "load_estimator", lambda weight_file, background=False: estimator)
    return estimator


def write_talk(path, frames=40, rate=30):
    """A video in which Grace Hopper moves."""
    image = read_image(SAMPLES / "grace_hopper.jpg")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (480, 480))
    for number in range(frames):
        x = round(16 + 16 * np.sin(number / 10))
        writer.write(np.ascontiguousarray(image[60:540, x : x + 480, ::-1]))
    writer.release()
    return path


def test_help_answers_without_heavy_imports():
    result = run_help("demo.py")
    assert result.returncode == 0, result.stderr
    for option in [
        "--image_dir",
        "--camera",
        "--output_dir",
        "--weight_file",
        "--margin",
        "--json",
        "--skip_existing",
        "--upsample",
    ]:
        assert option in result.stdout
    assert "search once, at 2^N times the size" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_samples_into_files(weights, tmp_path):
    out = tmp_path / "new" / "out"
    options = ["--image_dir", SAMPLES, "--output_dir", out, "--weight_file", weights, "--json"]
    result = run_script("demo.py", *options)
    assert result.returncode == 0, result.stderr
    assert "tiny.hdf5: MobileNetV2, 32 pixels, margin 0.4, trained on noise; age off by 7.25 years" in result.stdout
    assert f"2 face(s) in 2 image(s); results in {out}" in result.stdout
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["astronaut.png", "grace_hopper.jpg"]
    columns = ["image", "left", "top", "right", "bottom", "age", "gender", "male_probability", "frame", "time"]
    assert list(rows[0]) == columns
    assert {row["frame"] + row["time"] for row in rows} == {""}
    left, top, right, bottom = (int(rows[1][edge]) for edge in ("left", "top", "right", "bottom"))
    assert left < 270 < right  # Grace Hopper's nose
    assert top < 250 < bottom

    from src.images.boxes import crop_box
    from src.inference.estimator import AgeGenderEstimator

    image = read_image(SAMPLES / "grace_hopper.jpg")
    ages, males = AgeGenderEstimator.load(weights).predict([crop_box(image, (left, top, right, bottom), 0.4)])
    assert float(rows[1]["age"]) == pytest.approx(ages[0], abs=0.01)
    assert float(rows[1]["male_probability"]) == pytest.approx(males[0], abs=0.001)
    assert rows[1]["gender"] == ("M" if males[0] >= 0.5 else "F")


@pytest.mark.slow
def test_video_into_files(weights, tmp_path):
    talk = write_talk(tmp_path / "talk.avi")
    result = run_script("demo.py", "--camera", talk, "--output_dir", tmp_path / "out", "--weight_file", weights)
    assert result.returncode == 0, result.stderr
    assert "faces in 40 of 40 frames" in result.stdout
    capture = cv2.VideoCapture(str(tmp_path / "out" / "talk.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (30, 40)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert (row["image"], row["frame"], row["time"]) == ("talk.avi", "39", "1.300")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image_dir", "missing"], "--image_dir must be a folder of images or an image, got missing"),
        (["--camera", "missing.mp4"], "got missing.mp4, which does not exist"),
        (["--image_dir", SAMPLES, "--output_dir", SAMPLES], "must differ from --image_dir"),
        (["--image_dir", SAMPLES, "--margin", "-0.1"], "--margin must be in 0..2, got -0.1"),
        (["--image_dir", SAMPLES, "--margin", "40"], "--margin must be in 0..2, got 40"),
        (["--image_dir", SAMPLES, "--json"], "require --output_dir"),
        (["--image_dir", SAMPLES, "--output_dir", "{out}", "--weight_file", "missing.hdf5"], "missing.hdf5"),
    ],
)
def test_invalid_requests_are_one_line(tmp_path, options, message):
    result = run_script("demo.py", *(str(option).format(out=tmp_path / "out") for option in options))
    assert result.returncode == 2
    assert message in error_line(result)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_no_screen_names_output_dir(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = run_script("demo.py", "--image_dir", SAMPLES)
    assert result.returncode == 2
    assert "--output_dir" in error_line(result)


def test_margin_of_the_weights_unless_another_is_asked_for(caplog):
    assert choose_margin(None, 0.4) == 0.4
    assert choose_margin(0.4, 0.4) == 0.4
    assert not caplog.messages
    assert choose_margin(0.0, 0.4) == 0.0
    (line,) = caplog.messages
    assert line.startswith("these weights were trained with margin 0.4; with 0 ")


@pytest.mark.parametrize("margin", [-0.01, 2.01, float("nan"), float("inf")])
def test_absurd_margins(margin):
    with pytest.raises(UserError, match="--margin"):
        run_demo(Request(image_dir=SAMPLES, margin=margin))


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_absurd_thresholds(threshold):
    with pytest.raises(UserError, match=f"--threshold must be a finite number, got {threshold:g}"):
        run_demo(Request(image_dir=SAMPLES, threshold=threshold))


def test_margin_reaches_the_crop(fake_model, tmp_path):
    sizes = []
    predict = fake_model.predict

    def note_sizes(faces):
        sizes.extend(face.shape[:2] for face in faces)
        return predict(faces)

    fake_model.predict = note_sizes
    for margin in (None, 0.0):
        run_demo(Request(image_dir=SAMPLES, output_dir=tmp_path, margin=margin))
    (wide, _), (plain, _) = sizes[0], sizes[2]
    assert wide == pytest.approx(1.8 * plain, rel=0.1)


def test_detector_options_reach_the_detector(fake_model, tmp_path, capsys):
    run_demo(Request(image_dir=SAMPLES, output_dir=tmp_path, threshold=5.0, upsample=0, max_side=320))
    assert "no face in any image" in capsys.readouterr().out
    with pytest.raises(UserError, match="--max_side"):
        run_demo(Request(image_dir=SAMPLES, output_dir=tmp_path, max_side=10))


def test_images_done_with_another_option_are_done_again(fake_model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", np.zeros((90, 90, 3), np.uint8))
    arguments = {"image_dir": tmp_path / "in", "output_dir": tmp_path / "out", "skip_existing": True}
    for options in ({}, {}, {"threshold": 0.7}, {"threshold": 0.7, "profiles": False}, {"margin": 0.4, "upsample": 1}):
        run_demo(Request(**arguments, **options))
    lines = capsys.readouterr().out.splitlines()
    assert "1 done before" in lines[1]
    again = "1 image(s) of an earlier run with other weights or options were done again"
    assert [line == again for line in lines] == [False, False, False, True, False, True, False, True]


def test_hash_of_options_follows_the_bytes_of_the_weights(fake_model, tmp_path):
    fake_model.source = tmp_path / "w.onnx"
    fake_model.source.write_bytes(b"1")
    first = hash_options(fake_model, "w.onnx", 0.4, "auto")
    assert hash_options(fake_model, str(fake_model.source), 0.4, "auto") == first
    fake_model.source.write_bytes(b"2")
    assert hash_options(fake_model, "w.onnx", 0.4, "auto") != first
    fake_model.source = None  # a published name
    assert hash_options(fake_model, "a.hdf5", 0.4) != hash_options(fake_model, "b.hdf5", 0.4)


def test_output_folder(tmp_path):
    prepare_output(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output_dir must be a folder"):
        check_request(Request(image_dir=SAMPLES, output_dir=tmp_path / "file"))
    with pytest.raises(JobError, match="cannot write into"):
        prepare_output(tmp_path / "file" / "b")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_output_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(JobError, match="Permission denied"):
        prepare_output(tmp_path / "out")


def has_label(shot):
    return any((shot == COLOURS[gender]).all(axis=2).sum() > 50 for gender in "FM")  # the third is the status line's


@needs_screen
@pytest.mark.slow
def test_folder_in_the_window(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(["a.png", "b.png", "c.png"]):
        write_image(folder / name, np.roll(read_image(SAMPLES / "grace_hopper.jpg"), number, axis=2))
    with (
        virtual_screen(tmp_path) as screen,
        start(screen, tmp_path, ["--image_dir", folder]) as run,
    ):
        shots = [screen.wait_for_screenshot(has_label)]
        for key in ("n", "space"):
            screen.press(key)
            shots.append(screen.wait_for_screenshot(lambda shot: has_label(shot) and (shot != shots[-1]).any()))
        screen.press("Escape")
        output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "3 face(s) in 3 image(s)" in output


@needs_screen
@pytest.mark.slow
def test_video_as_camera_in_the_window(tmp_path):
    talk = write_talk(tmp_path / "talk.avi", frames=800, rate=2)  # so slow that it outlasts the test on a busy machine
    with virtual_screen(tmp_path) as screen, start(screen, tmp_path, ["--camera", talk]) as run:
        screen.wait_for_screenshot(has_label)
        screen.press("s")
        (saved,) = wait_for(lambda: list(tmp_path.glob("demo_*.png")))
        screen.press("space")
        wait_for(lambda: [True] if (screen.screenshot() == screen.screenshot()).all() else [])
        screen.press("space")
        wait_for(lambda: [True] if (screen.screenshot() != screen.screenshot()).any() else [])
        screen.close_window()
        output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "frames shown" in output
    assert has_label(read_image(saved))


@contextlib.contextmanager
def start(screen, folder, options):
    command = [sys.executable, str(ROOT / "demo.py"), *map(str, options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=screen.environment, cwd=folder, **pipes) as run:
        try:
            yield run
        finally:
            run.kill()  # after a failed assertion it would show its window for ever
