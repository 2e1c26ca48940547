import hashlib

import numpy as np
import pandas as pd
import pytest

from src.datasets.image_files import find_copies
from src.datasets.splits import content_split, content_split_without_test, person_split
from src.files import file_sha256, map_threads


@pytest.mark.parametrize(
    ("digits", "expected"),
    [("00000000", "test"), ("00000001", "val"), ("00000002", "train"), ("00000009", "train"), ("0000000a", "test"),
     ("ffffffff", "train"), ("0000000b", "val")],
)  # fmt: skip
def test_content_split_takes_the_first_eight_digits_modulo_ten(digits, expected):
    assert content_split(digits + "f" * 56) == expected  # 0xffffffff = 4294967295, ends in 5


def test_split_without_test_part_keeps_the_validation_images():
    assert [content_split_without_test(f"{number:08x}") for number in range(10)] == ["train", "val"] + ["train"] * 8


def test_person_split_follows_the_hash_of_the_identifier_and_keeps_persons_together():
    persons = [f"nm{number:07}" for number in range(2000)] * 2
    splits = person_split(persons)
    assert (splits[:2000] == splits[2000:]).all()
    assert 0.08 < (splits == "val").mean() < 0.12
    by_hand = int(hashlib.sha256(b"nm0000005").hexdigest()[:8], 16) % 10
    assert splits[5] == ("val" if by_hand == 1 else "train")


def test_person_split_of_no_rows():
    assert len(person_split([])) == 0


def test_file_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "missing") is None


def test_map_threads_keeps_the_order():
    assert map_threads(lambda number: number * 2, list(range(50)), "double") == list(range(0, 100, 2))


def test_find_copies_tells_copies_from_contradictions():
    table = pd.DataFrame(
        [
            ("a", 0, 20),  # used
            ("b", 0, 20),  # contradicted by gender
            ("a", 0, 20),  # copy
            ("b", 1, 20),
            ("c", 0, 30),  # contradicted by age, the middle row only
            ("c", 0, 31),
            ("c", 0, 30),
            ("d", np.nan, 40),  # unknown genders agree
            ("d", np.nan, 40),
        ],
        columns=["sha256", "gender", "age"],
    )
    copies, contradicting = find_copies(table["sha256"], table["gender"], table["age"])
    np.testing.assert_array_equal(np.flatnonzero(copies), [2, 8])
    np.testing.assert_array_equal(np.flatnonzero(contradicting), [1, 3, 4, 5, 6])
