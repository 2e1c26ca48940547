import csv
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from fake_estimator import FakeEstimator

from src.cli import JobError, UserError
from src.demo import folder as folder_demo
from src.demo.folder import output_name, run_folder_in_window, run_folder_to_files
from src.demo.request import find_input
from src.images.io import read_image, write_image
from src.inference.predictor import Predictor
from tests.inference.test_predictor import FakeDetector, draw

NAMES = ["a.png", "b.bmp", "sub/c.png", "sub/deep/ж 日本.png", "z.png"]


@pytest.fixture
def folder(tmp_path):
    """Five images with the ages 10, 20, ... and one file that is none."""
    folder = tmp_path / "in"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, draw(None, 10 * (number + 1), None))
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    return output


def predictor():
    return Predictor(FakeDetector(), FakeEstimator(), margin=0.0)


def run(folder, output, **options):
    return run_folder_to_files(find_input(folder, output), output, predictor(), **options)


def rows(output):
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["image"], float(row["age"])) for row in csv.DictReader(file)]


def written(output):
    files = (path.relative_to(output) for path in output.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.parts[0] != ".demo")


EXPECTED = [(name, 10.0 * (number + 1)) for number, name in enumerate(NAMES)]


def test_writes_annotated_images_under_their_own_names_and_rows_in_order(folder, output, capsys):
    summary = run(folder, output)
    assert rows(output) == EXPECTED
    assert written(output) == sorted([*NAMES, "predictions.csv"])
    original, drawn = read_image(folder / "a.png"), read_image(output / "a.png")
    assert drawn.shape == original.shape
    assert (drawn != original).any()
    assert summary.line().split("\n") == ["5 face(s) in 5 image(s), 1 unreadable", "1 other file: 1 .txt"]
    assert list(summary.unreadable) == ["broken.jpg"]
    assert "that OpenCV can read, or damaged" in summary.unreadable["broken.jpg"]
    assert summary.failure() == ""
    assert "skipped broken.jpg" in capsys.readouterr().err


def test_goes_on_where_a_run_stopped(folder, output):
    run(folder, output, with_json=True)
    for name in NAMES[1:3]:
        (output / name).unlink()
    again = predictor()
    found = find_input(folder, output)
    summary = run_folder_to_files(found, output, again, skip_existing=True, with_json=True)
    assert sum(again.estimator.calls) == 2
    assert sorted(rows(output)) == sorted(EXPECTED)
    lines = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["image"] for line in lines) == sorted(NAMES)
    assert summary.line().startswith("2 face(s) in 2 image(s), 3 done before, 1 unreadable\n")


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
    assert written(output) == sorted([*NAMES, "predictions.csv"])


def test_images_of_a_folder_one_by_one_at_the_same_time(folder, output):
    def run_one(name):
        run(folder / name, output, with_json=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run_one, NAMES[:2] + NAMES[-1:]))
    expected = [EXPECTED[0], EXPECTED[1], EXPECTED[-1]]
    assert sorted(rows(output)) == expected
    lines = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["image"] for line in lines) == [name for name, _ in expected]
    assert run(folder, output, skip_existing=True).skipped == len(expected)


def test_full_disk_is_one_line_that_names_the_file(folder, output, monkeypatch):
    def write(path, image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_demo, "write_image", write)
    with pytest.raises(JobError, match=r"cannot write .*: No space left on device"):
        run(folder, output)


def test_every_kind_of_image_and_a_giant(tmp_path, output):
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = draw(60)
    cv2.imwrite(str(folder / "grey.pgm"), rgb[..., 0])
    cv2.imwrite(str(folder / "alpha.png"), np.dstack([rgb[..., ::-1], rgb[..., :1]]))
    cv2.imwrite(str(folder / "deep.tiff"), rgb[..., ::-1].astype(np.uint16) * 256)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    (folder / "giant.png").write_bytes(header + (0).to_bytes(4, "big"))
    summary = run(folder, output)
    assert [name for name, _ in rows(output)] == ["alpha.png", "deep.tiff"]  # in grey the fake detector sees nothing
    assert list(summary.unreadable) == ["giant.png"]
    assert read_image(output / "grey.pgm.png").shape == rgb.shape


def test_names_of_results():
    assert output_name("a/b.JPG") == "a/b.JPG"
    assert output_name("a/b.PGM") == "a/b.PGM.png"
    assert output_name("a/b.jfif") == "a/b.jfif.png"
    assert output_name("predictions.csv") == "predictions.csv.png"  # of an image with a strange ending


def test_no_face_says_so(tmp_path, output):
    write_image(tmp_path / "in.png", draw(None))
    summary = run_folder_to_files(find_input(tmp_path / "in.png"), output, predictor())
    assert summary.line() == "no face in any image"
    assert rows(output) == []


def test_images_that_were_skipped_are_not_said_to_have_no_face(folder, output):
    (folder / "broken.jpg").unlink()
    run(folder, output)
    assert run(folder, output, skip_existing=True).line() == "5 done before\n1 other file: 1 .txt"
    write_image(folder / "new.png", draw(None))
    assert run(folder, output, skip_existing=True).line().startswith("0 face(s) in 1 image(s), 5 done before\n")


def test_nothing_readable_is_a_failed_job(tmp_path, output):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(JobError, match="none of 1"):
        run_folder_to_files(find_input(tmp_path / "a.jpg"), output, predictor())


def test_impossible_folders(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    for image_dir, output_dir, message in [
        (tmp_path / "missing", None, "--image_dir must be a folder"),
        (empty, None, "holds no image"),
        (folder, folder, "must differ from --image_dir"),
        (folder, folder / "sub" / "..", "must differ from --image_dir"),
        (folder / "a.png", folder, "must differ from --image_dir"),
    ]:
        with pytest.raises(UserError, match=message):
            find_input(image_dir, output_dir)


def test_results_inside_the_folder_are_no_input(folder):
    output = folder / "results"
    output.mkdir()
    run(folder, output)
    assert len(find_input(folder, output).paths) == len(NAMES) + 1


class FakeWindow:
    def __init__(self, keys):
        self.keys, self.images = keys, []

    def show(self, image):
        self.images.append(image)

    def key(self, milliseconds):
        return self.keys.pop(0)


def test_any_key_goes_on_and_quit_quits(folder):
    window = FakeWindow([None, "n", None, " ", "s", "quit"])
    summary = run_folder_in_window(find_input(folder), window, predictor())
    assert len(window.images) == 4
    assert summary.faces == 4
    assert (window.images[0] != read_image(folder / "a.png")).any()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_folder_without_permission(folder, output):
    (output / "sub").mkdir(mode=0o500)
    summary = run(folder, output)
    assert "Permission denied" in summary.failure()
    assert len(rows(output)) == len(NAMES)


def test_images_are_told_by_content_and_others_are_counted(tmp_path, output):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(["a.png", "from_browser.jfif", "download.jpg_large", "none", "predictions.csv"]):
        write_image(folder / f"{number}.png", draw(10 * number + 10))
        (folder / f"{number}.png").rename(folder / name)
    for name in ("notes.txt", "b.TXT", "a.xmp", "README", ".hidden"):
        (folder / name).write_text("no image")
    summary = run(folder, output)
    assert summary.line().split("\n") == [
        "5 face(s) in 5 image(s)",
        "5 other files: 2 .txt, 1 hidden, 1 without ending, 1 .xmp",
    ]
    assert {name for name, _ in rows(output)} == {
        "a.png",
        "from_browser.jfif",
        "download.jpg_large",
        "none",
        "predictions.csv",
    }
    assert "from_browser.jfif.png" in written(output)
    assert "predictions.csv.png" in written(output)


def test_linked_folders_are_followed(tmp_path, output):
    for number, name in enumerate(["p/a.png", "disk2/b.png", "disk2/c.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, draw(10 * number + 10))
    (tmp_path / "p" / "more").symlink_to("../disk2")
    (tmp_path / "disk2" / "back").symlink_to("../p")
    summary = run(tmp_path / "p", output)
    assert [name for name, _ in rows(output)] == ["a.png", "more/b.png", "more/c.png"]
    assert "skipped the link more/back" in summary.line()


def test_a_name_that_cannot_be_read_or_written_costs_only_itself(tmp_path, output, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write_image(folder / "a.png", draw(10))
    write_image(folder / "z.png", draw(20))
    write_image(folder / "x.png", draw(30))
    (folder / "x.png").rename(folder / ("x" * 252 + ".pn"))  # with .png behind it too long for a file's name
    write_image(folder / ("y" * 251 + ".png"), draw(40))
    (folder / "gone.png").symlink_to("nowhere.png")
    summary = run(folder, output)
    assert len(rows(output)) == 4
    assert written(output) == ["a.png", "predictions.csv", "y" * 251 + ".png", "z.png"]
    assert sorted(summary.failed) == ["gone.png", "x" * 252 + ".pn"]
    assert "2 file(s) failed" in summary.failure()
    errors = capsys.readouterr().err
    assert "skipped gone.png: No such file" in errors
    assert "File name too long" in errors


def test_an_image_that_could_not_be_written_is_done_again(folder, output, monkeypatch):
    """Also with the options of the older annotated image that is still there."""

    def write(path, image):
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        write_image(path, image)

    run(folder, output, options="old")
    with monkeypatch.context() as patch:
        patch.setattr(folder_demo, "write_image", write)
        assert list(run(folder, output, options="new").failed) == ["a.png"]
    assert len(rows(output)) == 5
    copy = shutil.copytree(output, output.with_name("copy"))
    assert run(folder, output, skip_existing=True, options="new").images == 1
    assert run(folder, copy, skip_existing=True, options="old").images == 5
    assert sorted(rows(output)) == EXPECTED


def test_an_image_too_large_for_its_format_costs_only_itself(folder, output):
    """A PNG that is named `.webp`, wider than WebP allows."""
    write_image(folder / "wide.png", np.hstack([draw(40), np.zeros((16, 16_384, 3), np.uint8)]))
    (folder / "wide.png").rename(folder / "wide.webp")
    summary = run(folder, output)
    assert list(summary.failed) == ["wide.webp"]
    assert "16400 x 16 pixels cannot be stored as .webp" in summary.failure()
    assert written(output) == sorted([*NAMES, "predictions.csv"])


def test_one_photo(folder, output):
    summary = run(folder / "sub" / "c.png", output)
    assert rows(output) == [("c.png", 30.0)]
    assert written(output) == ["c.png", "predictions.csv"]
    assert summary.line() == "1 face(s) in 1 image(s)"


def test_results_of_other_sources_stay(folder, output, tmp_path):
    """Another folder with an image of the same name, and a photo of the first folder again."""
    other = tmp_path / "other"
    other.mkdir()
    write_image(other / "a.png", draw(77, 78))
    run(folder, output)
    summary = run(other, output)
    assert rows(output) == [*EXPECTED, ("a~2.png", 77.0), ("a~2.png", 78.0)]
    assert written(output) == sorted([*NAMES, "a~2.png", "predictions.csv"])
    assert "a~2.png" in summary.line()
    run(folder / "a.png", output)
    assert sorted(rows(output)) == sorted([*EXPECTED, ("a~2.png", 77.0), ("a~2.png", 78.0)])
    (folder / "z.png").unlink()
    run(folder, output)
    assert sorted(rows(output)) == sorted([*EXPECTED[:-1], ("a~2.png", 77.0), ("a~2.png", 78.0)])


def test_rows_of_images_that_cannot_be_reached_stay(folder, output):
    run(folder, output)
    (folder / "sub").rename(folder.with_name("elsewhere"))
    (folder / "sub").symlink_to("sub")  # a link to itself cannot be opened, even by root
    assert list(run(folder, output, skip_existing=True).failed) == ["sub"]
    assert sorted(rows(output)) == EXPECTED


def test_images_done_with_other_options_are_done_again(folder, output):
    run(folder, output, options="old")
    assert run(folder, output, skip_existing=True, options="old").skipped == 5
    summary = run(folder, output, skip_existing=True, options="new")
    assert (summary.skipped, summary.images) == (0, 5)
    assert "5 image(s) of an earlier run with other weights or options were done again" in summary.notes
    write_image(folder / "new.png", draw(60))
    summary = run(folder, output, skip_existing=True, options="new")
    assert (summary.skipped, summary.images) == (5, 1)
    assert not [note for note in summary.notes if "options" in note]
    assert sorted(rows(output)) == sorted([*EXPECTED, ("new.png", 60.0)])


def test_an_image_whose_rows_are_gone_or_that_changed_is_done_again(folder, output):
    write_image(folder / "empty.png", draw(None))
    run(folder, output)
    assert run(folder, output, skip_existing=True).skipped == 6
    (output / "predictions.csv").write_text(
        "".join(line for line in (output / "predictions.csv").read_text().splitlines(True) if "b.bmp" not in line)
    )
    write_image(folder / "z.png", draw(99))
    summary = run(folder, output, skip_existing=True)
    assert (summary.skipped, summary.images) == (4, 2)
    assert sorted(rows(output)) == sorted([*EXPECTED[:-1], ("z.png", 99.0)])
    (output / "predictions.csv").unlink()
    summary = run(folder, output, skip_existing=True)
    assert (summary.skipped, summary.images) == (1, 5)  # the image without a face has no rows to lose
    assert len(rows(output)) == 5
