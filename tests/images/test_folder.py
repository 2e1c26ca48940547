import os
import sys

import cv2
import numpy as np
import pytest

from src import images
from src.images.folder import begins_like_image, find_images


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(found):
    return [path.relative_to(found.folder).as_posix() for path in found.paths]


def test_list_images_is_sorted_and_leaves_hidden_files_out(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.png", ".cache/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in images.list_images(tmp_path)] == [
        "a.png",
        "b.JPG",
        "sub/c.webp",
    ]
    assert [p.name for p in images.list_images(tmp_path, recursive=False)] == ["a.png", "b.JPG"]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".gif", ".avif"])
def test_images_are_known_by_their_first_bytes(tmp_path, ending):
    image = np.zeros((16, 16, 3), np.uint8)
    try:
        written, data = cv2.imencode(ending, image[..., 0] if ending == ".pgm" else image)
    except cv2.error:
        written = False
    if not written:
        pytest.skip(f"this OpenCV writes no {ending}")
    (tmp_path / "download").write_bytes(data.tobytes())
    assert begins_like_image(tmp_path / "download")
    assert names(find_images(tmp_path)) == ["download"]


@pytest.mark.parametrize(
    "data", [b"", b"P", b"Photo", b"RIFF....AVI LIST", b"....ftypisom", b"%PDF-1.7", b"\xff\xfb\x90", b"<html>"]
)
def test_other_files_do_not_begin_like_images(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert not begins_like_image(tmp_path / "a")


def test_other_files_are_counted_by_ending(tmp_path):
    touch(tmp_path, "a.jpg", "a.txt", "b/b.TXT", "b/c.xmp", "README", ".hidden", ".cache/x.jpg")
    found = find_images(tmp_path)
    assert names(found) == ["a.jpg"]
    assert found.others == {".txt": 2, ".xmp": 1, "without ending": 1, "hidden": 2}
    (line,) = found.notes()
    assert line.startswith("6 other files: 2 ")
    assert "1 .xmp" in line


def test_a_photo_of_a_phone_that_opencv_cannot_decode_is_named_later(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert names(find_images(tmp_path)) == ["IMG_1.HEIC"]


def test_one_file(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    found = find_images(tmp_path / "a.jpg")
    assert (found.folder, found.paths) == (tmp_path, [tmp_path / "a.jpg"])


def test_linked_folders_are_followed_and_real_ones_keep_their_names(tmp_path):
    touch(tmp_path, "in/z/a.jpg", "disk2/b.jpg", "disk2/deep/c.jpg")
    (tmp_path / "in" / "a_link").symlink_to("z")
    (tmp_path / "in" / "more").symlink_to("../disk2")
    found = find_images(tmp_path / "in")
    assert names(found) == ["more/b.jpg", "more/deep/c.jpg", "z/a.jpg"]
    assert found.loops == ["a_link"]


def test_loops_are_noticed(tmp_path):
    touch(tmp_path, "in/a/b/x.jpg", "out/y.jpg")
    (tmp_path / "in" / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "in" / "self").symlink_to(".")
    (tmp_path / "in" / "out").symlink_to("../out")
    (tmp_path / "out" / "in").symlink_to("../in")
    found = find_images(tmp_path / "in")
    assert names(found) == ["a/b/x.jpg", "out/y.jpg"]
    assert sorted(found.loops) == ["a/b/up", "out/in", "self"]
    (line,) = found.notes()
    assert line.endswith(" and 2 more: it leads to a folder that is searched already")


def test_results_inside_the_folder_are_excluded(tmp_path):
    touch(tmp_path, "a.jpg", "results/a.jpg", "results/sub/b.jpg")
    (tmp_path / "link").symlink_to("results")
    found = find_images(tmp_path, exclude=tmp_path / "results")
    assert names(found) == ["a.jpg"]
    assert found.notes() == []


def test_results_of_earlier_runs_are_skipped_unless_they_are_asked_for(tmp_path):
    touch(tmp_path, "a.jpg", "old/.demo/sources.jsonl", "old/a.jpg", "b/old/.demo/sources.jsonl", "b/old/sub/a.jpg")
    (tmp_path / "link").symlink_to("old")
    found = find_images(tmp_path)
    assert names(found) == ["a.jpg"]
    assert (found.results, found.loops) == (["old", "b/old", "link"], [])
    assert found.notes() == ["skipped old and 2 more: results of demo.py"]
    assert names(find_images(tmp_path / "old")) == ["a.jpg"]
    assert names(find_images(tmp_path / "b" / "old" / "sub")) == ["a.jpg"]


def test_broken_links_and_pipes(tmp_path):
    (tmp_path / "a.jpg").symlink_to("nowhere")
    (tmp_path / "b.txt").symlink_to("nowhere")
    (tmp_path / "c.jpg").symlink_to("c.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    found = find_images(tmp_path)
    assert names(found) == ["a.jpg", "c.jpg"]  # reading them names the reason
    assert found.others[".txt"] == 1


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_folders_and_files_without_permission_are_named(tmp_path):
    touch(tmp_path, "a.jpg", "secret/b.jpg", "file")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "file").chmod(0)
    found = find_images(tmp_path)
    (tmp_path / "secret").chmod(0o700)
    assert found.unreadable == {"secret": "Permission denied", "file": "Permission denied"}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "secret/b.jpg")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images(tmp_path)
    assert names(found) == ["a.jpg"]
    assert found.unreadable == {"secret": "Permission denied"}
