import errno
import io
import logging
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

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
        (cli.JobError("no image is left"), 1, "error: no image is left\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 1, "error: No space left on device: a.png\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (cli.JobError("resume with: python 'a  b.py'\n"), 1, "error: resume with: python 'a  b.py'\n"),
        (
            ModuleNotFoundError("No module named 'dlib'", name="dlib"),
            1,
            "error: the package dlib is missing; run pip install -r requirements.txt\n",
        ),
        (
            ModuleNotFoundError("No module named 'av.codec'", name="av.codec"),
            1,
            'error: the package av.codec is missing; run pip install "av>=18.0,<19"\n',
        ),
        (
            ModuleNotFoundError("No module named 'pandas'", name="pandas"),
            1,
            "error: the package pandas is missing; run pip install -r requirements-evaluate.txt\n",
        ),
        (
            ModuleNotFoundError("No module named 'ai_edge_litert'", name="ai_edge_litert"),
            1,
            'error: the package ai_edge_litert is missing; run pip install "ai-edge-litert>=2.0,<3"\n',
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
            1,
            "error: a system library of a package is missing (libGL.so.1: cannot open shared object file: "
            "No such file or directory); on Debian and Ubuntu run sudo apt-get install libgl1 libglib2.0-0\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("resume with x"), 130, "interrupted: resume with x\n"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, line, capsys):
    assert run(raiser(error)) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "x"], "--size: must be auto or a whole number, got 'x'"),
        (["--size", "7"], "--size: invalid choice: 7 (choose from auto, 1)"),
        (["--siz"], "--size: expected one argument"),
        (["--other"], "unrecognized arguments: --other"),
    ],
)
def test_mistakes_in_options_are_one_line(arguments, message, capsys):
    parser = cli.Parser("What it does.")
    parser.add_argument("--size", type=cli.auto_or_int, choices=("auto", 1), default="auto", help="pixels")
    assert run(lambda: parser.parse_args(arguments)) == 2
    out, err = capsys.readouterr()
    assert re.sub("'(auto)'", r"\1", err) == f"error: {message}\n"  # Python 3.11 quotes the choices
    assert out == ""
    assert parser.parse_args(["--size", "1"]).size == 1


def test_all_scripts_use_the_parser():
    scripts = [*cli.ROOT.glob("*.py"), *cli.ROOT.glob("recipes/*.py"), *cli.ROOT.glob("benchmarks/*.py")]
    assert [path.name for path in scripts if "ArgumentParser(" in path.read_text(encoding="utf-8")] == []


def test_success_and_own_codes():
    assert run(lambda: None) == 0
    assert run(lambda: 1) == 1


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


def test_root_is_the_folder_of_the_scripts():
    assert (cli.ROOT / "train.py").is_file()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_that_the_terminal_cannot_show_is_escaped(monkeypatch, stream):
    """A pipe on Windows has the encoding cp1252."""
    file = io.TextIOWrapper(io.BytesIO(), "cp1252", newline="")
    monkeypatch.setattr(sys, stream, file)
    assert run(lambda: print("写 café \udce9", file=getattr(sys, stream))) == 0
    file.flush()
    assert file.buffer.getvalue() == b"\\u5199 caf\xe9 \\udce9\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_without_a_stream_the_work_is_done_all_the_same(monkeypatch, stream):
    monkeypatch.setattr(sys, stream, None)
    assert run(lambda: print("dropped", file=getattr(sys, stream))) == 0
    assert run(raiser(cli.UserError("dropped or shown"))) == 2
    getattr(sys, stream).close()


def test_escaped_text_of_a_script(tmp_path):
    command = [sys.executable, str(cli.ROOT / "crop_faces.py"), "-i", "写真", "-o", str(tmp_path / "o")]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    assert result.returncode == 2
    assert b"\\u5199\\u771f" in result.stderr
    assert b"Traceback" not in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("body", ["print('done')", "print('done', flush=True)"])
def test_output_on_a_full_disk(body):
    command = [sys.executable, "-c", f"from src import cli; cli.run(lambda: {body})"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        streams = {"stdout": full, "stderr": subprocess.PIPE}
        done = subprocess.run(command, cwd=cli.ROOT, env=buffered, text=True, check=False, **streams)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device: standard output\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize(
    ("body", "code", "out"),
    [
        ("cli.warn_skipped('a.jpg', 'damaged'); print('done')", 0, "done\n"),
        ("logging.getLogger('src').warning('a.jpg is missing'); print('done')", 0, "done\n"),
        ("raise cli.UserError('impossible')", 2, ""),
        ("cli.defer_interrupts(); signal.raise_signal(signal.SIGINT); cli.raise_if_interrupted()", 130, ""),
    ],
)
def test_a_log_of_stderr_on_a_full_disk_changes_no_exit_code(body, code, out):
    script = f"import logging, signal\nfrom src import cli\ndef main():\n    {body}\ncli.run(main)"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=cli.ROOT, stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (code, out)


NO_NOHUP = "import signal\nsignal.signal(getattr(signal, 'SIGHUP', signal.SIGTERM), signal.SIG_DFL)\n"
"""Begin of a script that tests SIGHUP, which the tests themselves may have been told to ignore."""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
@pytest.mark.parametrize(
    ("before", "body", "code", "out", "error"),
    [
        ("", "try: stop()\n    finally: stop(); print('complete')", 128, "complete\n", "interrupted\n"),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", "stop()", 128, "", "interrupted\n"),  # a script's `&`
        ("signal.signal(number, signal.SIG_IGN)", "stop(); print('done')", 0, "done\n", ""),  # nohup
        (
            "cli.defer_interrupts()",
            "stop(); stop(); print('step is done', flush=True); cli.raise_if_interrupted()",
            128,
            "step is done\n",
            "stopping as soon as the current step is done; press Ctrl-C again to end at once\ninterrupted: \n",
        ),
    ],
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_process_do_what_ctrl_c_does(name, before, body, code, out, error):
    """Twice, as `timeout` and a shell whose terminal is closed send them."""
    number = getattr(signal, name)
    begin = f"{NO_NOHUP}from src import cli\nnumber = {number:d}\n{before}"
    script = f"{begin}\ndef main():\n    stop = lambda: signal.raise_signal(number)\n    {body}\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cli.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code and code + number, out, error)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
def test_a_terminal_that_is_closed_after_ctrl_c_does_not_stop_what_cleans_up():
    body = "try: signal.raise_signal(signal.SIGINT)\n    finally: signal.raise_signal(signal.SIGHUP); print('complete')"
    script = f"{NO_NOHUP}from src import cli\ndef main():\n    {body}\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cli.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "complete\n", "interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_a_closed_terminal_changes_no_exit_code():
    ours, theirs = os.openpty()
    main = "def main():\n    print('ready', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", f"{NO_NOHUP}import time\nfrom src import cli\n{main}\ncli.run(main)"]
    with subprocess.Popen(command, cwd=cli.ROOT, stdout=subprocess.PIPE, stderr=theirs) as process:
        assert process.stdout.readline() == b"ready\n"
        os.close(theirs)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 128 + signal.SIGHUP


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31m.jpg", "a\udce9.jpg"])
def test_a_name_with_control_characters_is_printed_on_one_line(name, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("src"), "propagate", False)  # pytest-xdist cannot send the last one's log

    def main():
        cli.warn_skipped(name, "damaged")
        logging.getLogger("src.datasets.table").warning(f"{name} is missing")

    with pytest.raises(SystemExit):
        cli.run(main)
    shown = repr(name)[1:-1]
    assert capsys.readouterr().err == f"skipped {shown}: damaged\nwarning: {shown} is missing\n"


def test_a_line_above_progress_in_a_log_is_that_line(capsys):
    for name in cli.Progress(["a.jpg"], 1, "images"):
        cli.warn_skipped(name, "damaged")
    assert capsys.readouterr().err == "skipped a.jpg: damaged\n"


def test_progress_without_a_terminal_is_a_line_per_minute(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(cli.Progress, "LINE_EVERY", 60.0)
    monkeypatch.setattr(cli, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = cli.Progress(total=2000, unit="images", label="estimate")
    for _ in range(6):
        progress.n += 100
        progress.display()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" images,")[0] for line in lines] == ["estimate: 200 of 2,000", "estimate: 500 of 2,000"]
    assert all(re.search(r", \S+ per second, \d+:\d+ left$", line) for line in lines)
    progress.close()


def test_short_work_without_a_terminal_is_silent(capsys):
    assert list(cli.Progress(range(5), 5, "images")) == list(range(5))
    assert capsys.readouterr().err == ""


def test_long_work_without_a_terminal_names_what_is_left(monkeypatch, capsys):
    monkeypatch.setattr(cli.Progress, "LINE_EVERY", 0.0)
    with cli.Progress(total=40, unit="steps") as progress:
        for step in range(40):
            progress.set_postfix_str(f"loss {step}", refresh=False)
            progress.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("40 of 40 steps, ")
    assert lines[-1].endswith("00:00 left, loss 39")


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(cli.Progress(range(5), 5, "images", "read")) == list(range(5))
    assert "read: 100%" in terminal.getvalue()
    assert "5/5" in terminal.getvalue()


def test_warnings_are_lines_on_stderr_printed_once(capsys):
    def main():
        logging.getLogger("src.datasets.table").warning("%s is missing", "a.jpg")

    for _ in range(2):  # a second run in the same process has no second handler
        with pytest.raises(SystemExit):
            cli.run(main)
        assert capsys.readouterr().err == "warning: a.jpg is missing\n"
