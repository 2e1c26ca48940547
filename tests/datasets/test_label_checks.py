import numpy as np
import pandas as pd
import pytest
from imdb_wiki_files import serial_day, write_imdb_wiki

from src.cli import UserError
from src.datasets import label_checks
from src.images.io import write_image

BORN_1950 = serial_day(1950, 1, 1)


def row(person, photo_taken=1990, dob=BORN_1950, **others):
    return {"dob": dob, "photo_taken": photo_taken, "full_path": f"00/nm{person:07}_rm{photo_taken}.jpg", **others}


ROWS = [
    row(1, 1980, gender=0.0, face_score=0.5),  # too low for min_score 1
    row(1, 1990, gender=0.0, face_score=2.0),
    row(2, 1940, face_score=3.0),  # age -10
    row(2, 1970, face_score=1.5),
    row(3, 2000, dob=1, face_score=4.0),  # no date: age 1999
    row(4, 1990, gender=1.0, second_face_score=2.0),
    row(4, 1991, gender=0.0, face_score=-np.inf),  # the other gender
    row(5, 1990, gender=np.nan),
    row(5, 1991, dob=serial_day(1960, 1, 1), gender=np.nan),  # ten years younger than in the image before
]


@pytest.fixture
def databases(tmp_path):
    write_imdb_wiki(tmp_path / "imdb_crop" / "imdb.mat", "imdb", ROWS)
    return label_checks.read_databases(tmp_path, ["imdb", "wiki"], min_score=1.0)


def test_only_what_is_there_is_read(databases, tmp_path):
    assert list(databases) == ["imdb"]
    with pytest.raises(UserError, match=r"wiki.mat not found: run `./download.sh`"):
        label_checks.read_databases(tmp_path, ["wiki"], 1.0)


def test_counts_by_rule(databases):
    assert label_checks.count_rules(databases, 1.0)["imdb"].to_dict() == {
        "entries": 9,
        "face score below 1": 2,
        "a second face": 1,
        "age not within 0..100": 2,
        "gender unknown": 2,
        "used": 2,
    }


def test_ages_of_the_used_rows(databases):
    ages = label_checks.ages_by_gender(databases)["imdb"]
    assert ages["female"].tolist() == [40]
    assert ages["male"].tolist() == [20]


def test_min_scores_by_hand(databases):
    table = label_checks.compare_min_scores(databases["imdb"], [0, 1, 2, 9])
    assert table["used"].tolist() == [3, 2, 1, 0]
    assert table["share of entries"].tolist() == [0.333, 0.222, 0.111, 0]
    assert table["persons"].tolist() == [2, 2, 1, 0]
    assert table["share of women"].tolist()[:3] == [0.667, 0.5, 1]


def test_problems_by_hand(databases):
    found = label_checks.find_problems(databases["imdb"])
    assert {name: found.index[found[name]].tolist() for name in found} == {
        "age below 0": [2],
        "age above 100": [4],
        "one person, two genders": [5, 6],
        "one person, two birth dates": [7, 8],
    }


def test_worst_labels_come_first(tmp_path):
    rows = [row(1, 2051), row(2, 2090), row(3, 1990), row(4, 2060)]  # 101, 140, 40 and 110 years
    write_imdb_wiki(tmp_path / "imdb_crop" / "imdb.mat", "imdb", rows)
    labels = label_checks.read_databases(tmp_path, ["imdb"], 1.0)["imdb"]
    assert label_checks.worst_labels(labels, "age above 100", 2)["ages"].tolist() == [140, 110]
    assert label_checks.worst_labels(labels, "age below 0", 2).empty


def test_contradictions_stand_side_by_side(databases):
    labels = pd.concat([databases["imdb"], databases["imdb"].iloc[[5]]], ignore_index=True)  # the same claim twice
    assert label_checks.worst_labels(labels, "one person, two genders", 9)["genders"].tolist() == [0, 1]
    assert label_checks.worst_labels(labels, "one person, two birth dates", 9)["ages"].tolist() == [40, 31]


def test_samples_and_the_edge_of_a_score(databases):
    labels = databases["imdb"]
    assert len(label_checks.sample(labels, 3)) == 3
    assert len(label_checks.sample(labels, 99)) == len(labels)
    assert label_checks.just_above(labels, 1.5, 2)["face_score"].tolist() == [1.5, 2.0]


def test_faces_and_captions(databases, tmp_path):
    folder = tmp_path / "imdb_crop"
    (folder / "00").mkdir()
    image = np.full((4, 4, 3), 7, np.uint8)
    write_image(folder / "00" / "nm0000001_rm1980.jpg", image)
    images, captions = label_checks.read_faces(databases["imdb"].iloc[[0, 2, 7]], folder)
    assert images[0].shape == (4, 4, 3)
    assert images[1:] == [None, None]
    assert captions == ["F 30, score 0.5", "M -10, score 3.0", "? 40, score 4.0"]


def test_no_entry_at_all():
    columns = ["low_score", "second_face", "bad_age", "no_gender"]
    labels = pd.DataFrame({name: pd.Series(dtype=bool) for name in columns} | {"face_score": [], "genders": []})
    labels["person"] = []
    assert label_checks.compare_min_scores(labels, [1])["used"].tolist() == [0]
