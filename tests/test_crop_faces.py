"""The script `crop_faces.py`: exit codes, help and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import script_runs

from src.images.io import read_image, write_image

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
PHOTOS = min(12 + 6 * (os.cpu_count() or 1), 60)
"""So many that no machine is done before the signal comes."""


def command(*arguments):
    return [sys.executable, str(ROOT / "crop_faces.py"), *map(str, arguments)]


def run_script(*arguments, cwd=None):
    return script_runs.run_script("crop_faces.py", *arguments, cwd=cwd)


def test_help_answers_without_heavy_imports():
    code = (
        "import sys, runpy; sys.argv = ['crop_faces.py', '--help']\n"
        "try: runpy.run_path('crop_faces.py', run_name='__main__')\n"
        "finally: print([name for name in ('cv2', 'dlib', 'keras', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0
    assert "--margin" in result.stdout
    assert result.stdout.endswith("[]\n")


def test_labels_of_a_photograph_go_into_the_table(tmp_path):
    (tmp_path / "labels.csv").write_text("genders,ages,img_paths\n0,,grace_hopper.jpg\n0,35,astronaut.png\n")
    result = run_script("-i", SAMPLES, "-o", "faces", "--labels", "labels.csv", "--main_face", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    faces = pd.read_csv(tmp_path / "faces" / "faces.csv", dtype=str, keep_default_na=False)
    assert list(faces["img_paths"]) == ["grace_hopper_0.jpg", "astronaut_0.jpg"]
    assert list(faces["ages"]) == ["", "35"]
    assert "2 faces out of 2 photos" in result.stdout


def test_options_reach_the_crops(tmp_path):
    options = ["--margin", "0.2", "--max_side", "70", "--threshold", "0.5", "--min_size", "80"]
    result = run_script("-i", SAMPLES, "-o", tmp_path / "faces", *options)
    assert result.returncode == 0, result.stderr
    faces = pd.read_csv(tmp_path / "faces" / "faces.csv")
    assert list(faces["img_paths"]) == ["astronaut_0.jpg", "grace_hopper_0.jpg"]
    assert list(faces["margin"]) == [0.2, 0.2]
    assert max(read_image(tmp_path / "faces" / "astronaut_0.jpg").shape) == 70
    assert list(faces["left"]) == [10, 10]  # 0.2 / 1.4 of 70


def test_exit_codes_are_one_line_without_a_traceback(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no image")
    for folder, code in (("empty", 2), ("nowhere", 2), ("bad", 1)):
        result = run_script("-i", tmp_path / folder, "-o", tmp_path / "out")
        assert result.returncode == code
        assert result.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGKILL"])
def test_a_stopped_run_resumes(tmp_path, signal_name):
    photograph = read_image(SAMPLES / "grace_hopper.jpg")
    (tmp_path / "in").mkdir()
    for number in range(PHOTOS):
        write_image(tmp_path / "in" / f"{number:02d}.jpg", photograph)
    journal = tmp_path / "out" / "crop_faces.jsonl"
    with subprocess.Popen(
        command("-i", tmp_path / "in", "-o", tmp_path / "out"), stderr=subprocess.PIPE, text=True
    ) as process:
        give_up = time.monotonic() + 60
        while not (journal.exists() and journal.read_text().count("\n") > 5):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        process.send_signal(getattr(signal, signal_name))
        _, errors = process.communicate(timeout=60)
    done = journal.read_text().count('"stem"')
    assert 5 <= done < PHOTOS
    if signal_name == "SIGINT":
        assert process.returncode == 130
        assert errors.splitlines() == [f"interrupted: {done} of {PHOTOS} photos are done; the same command resumes"]
        assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) == done
    result = run_script("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert f"{PHOTOS} faces out of {PHOTOS} photos" in result.stdout
    assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) == PHOTOS
    assert len(list((tmp_path / "out").glob("*.jpg"))) == PHOTOS
    assert not list((tmp_path / "out").glob(".*.part*")) or signal_name == "SIGKILL"
