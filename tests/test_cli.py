import errno

import pytest

from src import cli


def run(function):
    with pytest.raises(SystemExit) as end:
        cli.run(function)
    return end.value.code


def raiser(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (cli.UserError("expected a,\n received b"), 2, "error: expected a, received b\n"),
        (cli.JobError("no picture is left"), 1, "error: no picture is left\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 1, "error: No space left on device: a.png\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (
            ModuleNotFoundError("No module named 'dlib'", name="dlib"),
            1,
            "error: expected the package dlib, received none; run pip install -r requirements.txt\n",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
            1,
            "error: expected the system libraries of a package, received libGL.so.1: cannot open shared object file: "
            "No such file or directory; on Debian and Ubuntu run sudo apt-get install libgl1 libglib2.0-0\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("go on with x"), 130, "interrupted: go on with x\n"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, line, capsys):
    assert run(raiser(error)) == code
    assert capsys.readouterr().err == line


def test_success_and_own_codes():
    assert run(lambda: None) == 0
    assert run(lambda: 1) == 1


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


def test_root_is_the_folder_of_the_scripts():
    assert (cli.ROOT / "train.py").is_file()
