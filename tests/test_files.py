"""Files written whole or not at all; hashes."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from src.files import append_lines, file_hash, file_sha256, map_ahead, remove_parts, write_whole


def test_a_file_appears_whole_under_its_name_alone(tmp_path):
    path = tmp_path / "a.csv"
    with write_whole(path, durable=True) as part:
        part.write_text("new")
        assert part.suffix == ".csv"
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_an_error_keeps_the_older_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def write_half():
        with write_whole(path) as part:
            part.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_what_a_killed_process_left_is_deleted(tmp_path):
    path = tmp_path / "a.b.csv"
    with write_whole(path) as part:
        part.touch()
        (tmp_path / ".a.b.csv").touch()  # a user's
        path.touch()
        assert len(os.listdir(tmp_path)) == 3
        remove_parts(path)
        assert sorted(os.listdir(tmp_path)) == [".a.b.csv", "a.b.csv"]
        part.touch()


def test_a_name_that_is_taken_by_a_folder_is_named(tmp_path):
    (tmp_path / "a.csv" / "b").mkdir(parents=True)
    with pytest.raises(OSError, match=r": '[^']*/a\.csv'"), write_whole(tmp_path / "a.csv") as part:
        part.touch()
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(OSError, match=r"No space left on device: .*a\.csv'$"), write_whole(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_line_on_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_lines(Path("/dev/full"), "a\n")


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert file_sha256(tmp_path / "missing") is None


def test_map_ahead_keeps_the_order_and_is_not_far_ahead():
    taken = []
    results = map_ahead(lambda item: 2 * item, (taken.append(i) or i for i in range(10_000)))
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(taken) <= 16 * os.cpu_count() + 3
    assert list(results) == list(range(6, 20_000, 2))
