import csv
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_estimator import FakeEstimator

from src.cli import JobError, UserError
from src.demo import folder as folder_demo
from src.demo.folder import find_pictures, output_path, run_folder_in_window, run_folder_to_files
from src.images.io import read_image, write_image
from src.inference.predictor import Predictor
from tests.inference.test_predictor import FakeDetector, picture

NAMES = ["a.png", "b.bmp", "sub/c.png", "sub/deep/ж 日本.png", "z.png"]


@pytest.fixture
def folder(tmp_path):
    """Five pictures with the ages 10, 20, ... and one file that is none."""
    folder = tmp_path / "in"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, picture(None, 10 * (number + 1), None))
    (folder / "broken.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    return output


def predictor():
    return Predictor(FakeDetector(), FakeEstimator(), margin=0.0)


def run(folder, output, **options):
    return run_folder_to_files(folder, find_pictures(folder, output), output, predictor(), **options)


def rows(output):
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["image"], float(row["age"])) for row in csv.DictReader(file)]


EXPECTED = [(name, 10.0 * (number + 1)) for number, name in enumerate(NAMES)]


def test_writes_annotated_pictures_under_their_own_names_and_rows_in_order(folder, output, capsys):
    summary = run(folder, output)
    assert rows(output) == EXPECTED
    written = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    assert written == sorted([*NAMES, "predictions.csv"])
    original, drawn = read_image(folder / "a.png"), read_image(output / "a.png")
    assert drawn.shape == original.shape
    assert (drawn != original).any()
    assert summary.line() == "5 face(s) in 5 picture(s), 1 unreadable"
    assert summary.unreadable == ["broken.jpg: not an image that OpenCV can read, or damaged"]
    assert "skipped broken.jpg" in capsys.readouterr().err


def test_goes_on_where_a_run_stopped(folder, output):
    run(folder, output, with_json=True)
    for name in NAMES[1:3]:
        (output / name).unlink()
    again = predictor()
    paths = find_pictures(folder, output)
    summary = run_folder_to_files(folder, paths, output, again, skip_existing=True, with_json=True)
    assert sum(again.estimator.calls) == 2
    assert sorted(rows(output)) == sorted(EXPECTED)
    lines = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["image"] for line in lines) == sorted(NAMES)
    assert summary.line() == "2 face(s) in 2 picture(s), 3 done before, 1 unreadable"


def test_stopped_in_the_middle_and_continued_gives_what_one_run_gives(folder, output, monkeypatch):
    writes = []

    def write(path, image):
        if len(writes) == 2:
            raise KeyboardInterrupt
        writes.append(path)
        write_image(path, image)

    monkeypatch.setattr(folder_demo, "write_image", write)
    with pytest.raises(KeyboardInterrupt):
        run(folder, output)
    monkeypatch.setattr(folder_demo, "write_image", write_image)
    run(folder, output, skip_existing=True)
    assert sorted(rows(output)) == sorted(EXPECTED)
    assert {path.relative_to(output).as_posix() for path in output.rglob("*.*")} == {*NAMES, "predictions.csv"}


def test_full_disk_is_one_line_that_names_the_file(folder, output, monkeypatch):
    def write(path, image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_demo, "write_image", write)
    with pytest.raises(JobError, match=r"cannot write .*: No space left on device"):
        run(folder, output)


def test_every_kind_of_picture_and_a_giant(tmp_path, output):
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = picture(60)
    cv2.imwrite(str(folder / "grey.pgm"), rgb[..., 0])
    cv2.imwrite(str(folder / "alpha.png"), np.dstack([rgb[..., ::-1], rgb[..., :1]]))
    cv2.imwrite(str(folder / "deep.tiff"), rgb[..., ::-1].astype(np.uint16) * 256)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    (folder / "giant.png").write_bytes(header + (0).to_bytes(4, "big"))
    summary = run(folder, output)
    assert [name for name, _ in rows(output)] == ["alpha.png", "deep.tiff"]  # in grey the fake detector sees nothing
    assert [line.split(":")[0] for line in summary.unreadable] == ["giant.png"]
    assert read_image(output / "grey.pgm.png").shape == rgb.shape


def test_names_of_results():
    assert output_path(Path("out"), "a/b.JPG").as_posix() == "out/a/b.JPG"
    assert output_path(Path("out"), "a/b.PGM").as_posix() == "out/a/b.PGM.png"


def test_no_face_says_so(tmp_path, output):
    write_image(tmp_path / "in.png", picture(None))
    summary = run_folder_to_files(tmp_path, [tmp_path / "in.png"], output, predictor())
    assert summary.line() == "no face in any picture"
    assert rows(output) == []


def test_nothing_readable_is_a_failed_job(tmp_path, output):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(JobError, match="none of 1"):
        run_folder_to_files(tmp_path, [tmp_path / "a.jpg"], output, predictor())


def test_impossible_folders(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    for image_dir, output_dir, message in [
        (tmp_path / "missing", None, "expected a folder"),
        (folder / "a.png", None, "expected a folder"),
        (empty, None, "found none"),
        (folder, folder, "other than --image_dir"),
        (folder, folder / "sub" / "..", "other than --image_dir"),
    ]:
        with pytest.raises(UserError, match=message):
            find_pictures(image_dir, output_dir)


def test_results_inside_the_folder_are_no_input(folder):
    output = folder / "results"
    output.mkdir()
    run(folder, output)
    assert len(find_pictures(folder, output)) == len(NAMES) + 1


class FakeWindow:
    def __init__(self, keys):
        self.keys, self.pictures = keys, []

    def show(self, image):
        self.pictures.append(image)

    def key(self, milliseconds):
        return self.keys.pop(0)


def test_any_key_goes_on_and_quit_quits(folder):
    window = FakeWindow([None, "n", None, " ", "s", "quit"])
    summary = run_folder_in_window(folder, find_pictures(folder), window, predictor())
    assert len(window.pictures) == 4
    assert summary.faces == 4
    assert (window.pictures[0] != read_image(folder / "a.png")).any()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_folder_without_permission(folder, output):
    (output / "sub").mkdir(mode=0o500)
    with pytest.raises(JobError, match="Permission denied"):
        run(folder, output)
