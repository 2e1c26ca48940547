import shutil
import subprocess
import sys

import pytest
from imdb_wiki_files import serial_day, write_imdb_wiki
from script_runs import run_help

from src.cli import ROOT


@pytest.fixture
def project(tmp_path):
    """A copy of the code, so that the script's own `data/` and `meta/` are not those of this checkout."""
    shutil.copytree(ROOT / "src", tmp_path / "project" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "create_db.py", tmp_path / "project")
    return tmp_path / "project"


def run(project, *arguments):
    command = [sys.executable, project / "create_db.py", *arguments]
    return subprocess.run(command, cwd=project.parent, capture_output=True, text=True, timeout=120, check=False)


def test_writes_the_table_from_any_working_folder(project):
    rows = [
        {"dob": serial_day(1981, 5, 5), "photo_taken": 2009, "full_path": "17/10000217_1981-05-05_2009.jpg"},
        {"dob": serial_day(1948, 11, 3), "photo_taken": 2012, "full_path": "48/10000548_1925-04-04_1964.jpg"},
        {"dob": 366, "photo_taken": 2008, "full_path": "12/100012_1948-07-03_2008.jpg"},
        {"dob": serial_day(1990, 1, 1), "photo_taken": 2010, "full_path": "65/1_2_3.jpg", "face_score": 0.5},
    ]
    write_imdb_wiki(project / "data" / "wiki_crop" / "wiki.mat", "wiki", rows)
    done = run(project, "--db", "wiki")
    assert done.returncode == 0, done.stderr
    expected = "genders,ages,img_paths\n1,28,17/10000217_1981-05-05_2009.jpg\n1,63,48/10000548_1925-04-04_1964.jpg\n"
    assert (project / "meta" / "wiki.csv").read_bytes().decode() == expected
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["4", "1", "0", "1", "0", "2"]
    assert done.stderr == ""
    done = run(project, "--db", "wiki", "--min_score", "0.5")
    assert "3 used" in done.stdout


def test_missing_mat_is_one_line(project):
    done = run(project, "--db", "imdb")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "./download.sh imdb" in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_databases_are_refused(project):
    assert run(project, "--db", "utkface").returncode == 2
    assert run(project).returncode == 2


def test_help_is_quick():
    done = run_help("create_db.py")
    assert done.returncode == 0, done.stderr
    assert "--min_score" in done.stdout
