import numpy as np
import pandas as pd
import pytest
from imdb_wiki_files import serial_day, write_imdb_wiki
from matlab_v73 import write_v73
from scipy.io import loadmat

from src.cli import UserError
from src.datasets import imdb_wiki
from src.datasets.matlab import load_mat

# MATLAB's `datenum` of 10 May 1899 (the first entry of the real imdb.mat) and of 1 January 1950.
BORN_1899, BORN_1950 = 693726, 712224


def row(number=1, dob=BORN_1950, photo_taken=1990, **others):
    return {"dob": dob, "photo_taken": photo_taken, "full_path": f"01/nm{number:07}_rm{number}_1950-1-1.jpg", **others}


def test_serial_days_are_those_of_matlab():
    assert serial_day(1, 1, 1) == 367
    assert serial_day(1970, 1, 1) == 719529
    assert serial_day(1899, 5, 10) == BORN_1899
    assert serial_day(1950, 1, 1) == BORN_1950


def test_the_file_has_the_nesting_of_the_real_one(tmp_path):
    write_imdb_wiki(tmp_path / "imdb.mat", "imdb", [row(), row(2)])
    struct = loadmat(tmp_path / "imdb.mat")["imdb"]
    assert struct[0, 0]["dob"][0].tolist() == [BORN_1950, BORN_1950]
    assert struct[0, 0]["full_path"][0][1][0] == "01/nm0000002_rm2_1950-1-1.jpg"


@pytest.mark.parametrize(
    ("born", "taken", "expected"),
    [
        ((1899, 5, 10), 1968, 69),
        ((1950, 1, 1), 1990, 40),
        ((1950, 6, 30), 1990, 40),  # had the birthday before the middle of the year
        ((1950, 7, 1), 1990, 39),  # not yet
        ((1950, 12, 31), 1990, 39),
        ((2000, 2, 29), 2000, 0),
        ((2000, 7, 1), 2000, -1),
        ((1900, 6, 30), 2000, 100),
        ((1899, 6, 30), 2000, 101),
        ((1, 1, 1), 2010, 2009),
    ],
)
def test_age_in_the_middle_of_the_year(born, taken, expected):
    age = imdb_wiki.calculate_age(np.array([serial_day(*born)], np.int32), np.array([taken], np.uint16))
    assert age.tolist() == [expected]
    assert age.dtype == np.float64


@pytest.mark.parametrize("dob", [366, 1, 0, -5, np.nan, np.inf])
def test_no_date_counts_as_the_first_day_of_year_1(dob):
    assert imdb_wiki.calculate_age(np.array([dob]), np.array([2010], np.uint16)).tolist() == [2009]


def test_age_does_not_wrap_around_in_unsigned_years():
    assert imdb_wiki.calculate_age(np.array([serial_day(2010, 1, 1)]), np.array([1990], np.uint16)).tolist() == [-20]


RULE_ROWS = [
    row(1),  # used
    row(2, face_score=0.99),
    row(3, face_score=1.0),  # used: not below
    row(4, face_score=-np.inf),
    row(5, face_score=np.nan),  # used: NaN breaks no rule
    row(6, second_face_score=0.1),
    row(7, second_face_score=0.0),  # used: not above 0
    row(8, gender=np.nan),
    row(9, gender=0.0, dob=serial_day(1890, 6, 30)),  # used: exactly 100
    row(10, dob=serial_day(1889, 6, 30)),  # 101
    row(11, dob=serial_day(1990, 6, 30)),  # used: exactly 0
    row(12, dob=serial_day(1990, 7, 1)),  # -1
    row(13, dob=5),
    row(14, face_score=-np.inf, gender=np.nan, dob=5),  # three reasons at once
]


@pytest.fixture
def database(tmp_path):
    write_imdb_wiki(tmp_path / "data" / "imdb_crop" / "imdb.mat", "imdb", RULE_ROWS)
    return tmp_path


def test_create_db_writes_the_rows_that_break_no_rule(database):
    lines = imdb_wiki.create_db("imdb", 1.0, database)
    assert (database / "meta" / "imdb.csv").read_bytes().decode() == (
        "genders,ages,img_paths\n"
        "1,40,01/nm0000001_rm1_1950-1-1.jpg\n"
        "1,40,01/nm0000003_rm3_1950-1-1.jpg\n"
        "1,40,01/nm0000005_rm5_1950-1-1.jpg\n"
        "1,40,01/nm0000007_rm7_1950-1-1.jpg\n"
        "0,100,01/nm0000009_rm9_1950-1-1.jpg\n"
        "1,0,01/nm0000011_rm11_1950-1-1.jpg\n"
    )
    assert [line.split()[0] for line in lines] == ["14", "3", "1", "4", "2", "6"]
    assert "face score below 1" in lines[1]
    assert [path.name for path in (database / "meta").iterdir()] == ["imdb.csv"]


def test_matlab_73_files_are_read_alike(database):
    imdb_wiki.create_db("imdb", 1.0, database)
    table = (database / "meta" / "imdb.csv").read_bytes()
    path = database / "data" / "imdb_crop" / "imdb.mat"
    content = {field: load_mat(path, f"imdb/{field}")[f"imdb/{field}"] for field in imdb_wiki.FIELDS}
    path.unlink()
    write_v73(path, {"imdb": content})
    imdb_wiki.create_db("imdb", 1.0, database)
    assert (database / "meta" / "imdb.csv").read_bytes() == table


def test_min_score_decides(database):
    imdb_wiki.create_db("imdb", -np.inf, database)
    assert len(pd.read_csv(database / "meta" / "imdb.csv")) == 8  # numbers 2 and 4 too
    write_imdb_wiki(database / "data" / "imdb_crop" / "imdb.mat", "imdb", [row(face_score=2.0)])
    with pytest.raises(UserError, match="lower --min_score"):
        imdb_wiki.create_db("imdb", 3.0, database)
    assert len(pd.read_csv(database / "meta" / "imdb.csv")) == 8


def test_raw_labels_keep_every_row_and_say_what_is_wrong(database):
    labels = imdb_wiki.read_imdb_wiki(database / "data" / "imdb_crop" / "imdb.mat", "imdb")
    assert len(labels) == len(RULE_ROWS)
    broken = {rule: (np.flatnonzero(labels[rule]) + 1).tolist() for rule in imdb_wiki.RULES}
    assert broken == {"low_score": [2, 4, 14], "second_face": [6], "bad_age": [10, 12, 13, 14], "no_gender": [8, 14]}
    assert labels["ages"].tolist()[8:12] == [100, 101, 0, -1]
    assert labels["person"].tolist()[:2] == ["nm0000001", "nm0000002"]
    assert np.isnan(labels["genders"][7])


def test_persons_out_of_paths():
    imdb = pd.Series(["01/nm0000001_rm124825600_1899-5-10_1968.jpg", "98/nm12345678_rm1_1950-1-1_2000.jpg", "odd.jpg"])
    assert imdb_wiki.persons(imdb, "imdb").tolist() == ["nm0000001", "nm12345678", "odd.jpg"]
    wiki = pd.Series(["17/10000217_1981-05-05_2009.jpg", "00/23300_1962-06-19_2011.jpg", "00/odd.jpg"])
    assert imdb_wiki.persons(wiki, "wiki").tolist() == ["10000217", "23300", "00/odd.jpg"]


def test_missing_and_damaged_files_name_the_download(tmp_path):
    path = tmp_path / "data" / "wiki_crop" / "wiki.mat"
    with pytest.raises(UserError, match=r"not found: fetch it with `\./download\.sh wiki`"):
        imdb_wiki.create_db("wiki", 1.0, tmp_path)
    write_imdb_wiki(path, "wiki", [row(number) for number in range(50)])
    whole = path.read_bytes()
    for damaged in (b"", b"no mat file at all", whole[:200], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged or another file.*`\./download\.sh wiki`"):
            imdb_wiki.create_db("wiki", 1.0, tmp_path)
    write_imdb_wiki(path, "imdb", [row()])
    with pytest.raises(UserError, match=r"must hold the struct `wiki`"):
        imdb_wiki.create_db("wiki", 1.0, tmp_path)
    assert not (tmp_path / "meta").exists()
