"""What all scripts share: the project's folder, one-line errors, exit codes, Ctrl-C, commands and progress."""

import argparse
import atexit
import logging
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

from src import lossy_text

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the scripts; `data/`, `meta/`, `checkpoints/` ... are found from here."""


THRESHOLD = -0.5
"""Minimum score of a face, unless a script is told another one; see `src.images.FaceDetector`."""
MARGIN = 0.4
"""Margin of face crops where nothing says another one: that of IMDB-WIKI, APPA-REAL and the original's models."""
MAX_MARGIN = 2.0
MAX_TABLE_MARGIN = 10.0
"""Maximum margin in tables and weight files; more is a mistake (per cent, say)."""
MAX_CROP_SIDE = 512
"""Maximum side of the crops of `crop_faces.py`, unless it is told another one, pixels."""


PACKAGES = {"hydra": "hydra-core", "ai_edge_litert": "ai-edge-litert"}
"""Names of packages that are imported under another name."""
SINGLY = ("requirements-export.txt", "requirements-ray.txt")
"""Files whose packages are of use one by one; so is PyAV, of requirements.txt: for videos and cameras."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show a script's docstring as it is written, and the defaults of its options."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default is not None and not isinstance(action.default, bool)
        return super()._get_help_string(action) if shown else action.help


class Parser(argparse.ArgumentParser):
    """Parse the options of a script with this docstring; a mistake prints one line, `error: ...`, and exits with 2."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=HelpFormatter)

    def error(self, message: str) -> NoReturn:
        sys.exit(fail(message.removeprefix("argument "), 2))


def auto_or_int(text: str) -> int | str:
    """Parse an option that is `auto` or a whole number."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be auto or a whole number, got {text!r}") from None


class UserError(Exception):
    """The request is invalid: one line with what is required, what was received and, where not obvious, a remedy."""


class JobError(Exception):
    """The request was valid but the job failed."""


def check_margin(margin: float) -> None:
    """Raise `UserError` for a `--margin` that no model can have been trained with."""
    if not 0 <= margin <= MAX_MARGIN:  # NaN fails too
        raise UserError(f"--margin must be in 0..{MAX_MARGIN:g}, got {margin:g}")


def check_threshold(threshold: float) -> None:
    """Raise `UserError` for a `--threshold` that is infinite or no number."""
    if not math.isfinite(threshold):
        raise UserError(f"--threshold must be a finite number, got {threshold:g}")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and end the process with its exit code, see `call`.

    SIGTERM and SIGHUP do what Ctrl-C does.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    interrupt_on_termination()
    sys.exit(call(main))


def call(main: Callable[[], int | None]) -> int:
    """Run a script's `main`, print its error as one line, and return the exit code.

    0 done; 1 the job failed; 2 for an invalid request; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    `UserError`, `JobError`, errors of the operating system (disk full, no permission) and missing libraries print one
    line, `error: ...`; other exceptions are defects and keep their traceback.
    """
    escape_unprintable()
    show_warnings()
    try:
        code = main() or 0
        _flush_output()
    except UserError as error:
        code = fail(error, 2)
    except JobError as error:
        code = fail(error, 1)
    except ImportError as error:
        code = fail(_missing(error), 1)
    except BrokenPipeError:  # the reader of our output (`| head`) is gone
        _drop_output()
        code = 1
    except OSError as error:
        code = fail(describe_os_error(error), 1)
    except KeyboardInterrupt as interrupt:
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        code = _interrupt_code()
    return code


def end(code: int) -> NoReturn:
    """End the process at once, without unloading libraries whose threads still run.

    If an interrupt is pending, exit with its code instead of 0.
    """
    for number in (signal.SIGINT, *TERMINATIONS):
        signal.signal(number, signal.SIG_IGN)
    if code == 0:
        code = call(raise_if_interrupted)
    if code == 0:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        error.filename = "standard output"
        raise


def _drop_output() -> None:
    """Let Python have something to flush what is left into, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def escape_unprintable() -> None:
    """Let stdout and stderr print `\\uXXXX` for characters that their encoding lacks, in place of an exception.

    Where there is none (`>&-`, a service, `pythonw`), what is printed is dropped, as is what a log of stderr cannot
    hold or comes after its terminal was closed: the exit code is that of the job.
    """
    stderr = sys.__stderr__
    if stderr is not None and stderr is sys.stderr and not (os.name == "nt" and stderr.isatty()):
        sys.stderr = lossy_text(stderr.fileno(), stderr.encoding, closefd=False)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def show_warnings() -> None:
    """Print what the modules of `src` log from level WARNING on to stderr, as lines `warning: ...`."""
    logging.getLogger("src").handlers = [LineHandler()]


class LineHandler(logging.Handler):
    """Write each record to stderr as one line, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            Progress.write(printable(f"warning: {record.getMessage()}"), file=sys.stderr)
        except Exception:  # a full disk, say; the work goes on
            self.handleError(record)


def printable(text: str) -> str:
    """Escape line ends and control characters, which names of files may hold."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def warn_skipped(name: str, reason: object) -> None:
    """Print one line about a file, above a progress bar where there is one."""
    Progress.write(printable(f"skipped {name}: {reason}"), file=sys.stderr)


def _missing(error: ImportError) -> str:
    """Name what to install when a package, or a system library that a package needs, is missing."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; run {_install_command(error.name or '')}"
    return (
        f"a system library of {error.name or 'a package'} is missing ({error}); "
        "on Debian and Ubuntu run sudo apt-get install libgl1 libglib2.0-0"
    )


def _install_command(module: str) -> str:
    """Return the smallest installation that adds a package; only what requires TensorFlow installs it."""
    name = PACKAGES.get(module.split(".")[0], module.split(".")[0])
    for file in ("requirements-evaluate.txt", *SINGLY, "requirements.txt"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        spec = next((line for line in lines if re.match(rf"{re.escape(name)}[\[<>=]", line)), None)
        if spec:
            return f'pip install "{spec}"' if file in SINGLY or name == "av" else f"pip install -r {file}"
    return "pip install -r requirements.txt"


def describe_os_error(error: OSError) -> str:
    """Describe what went wrong, with the file where it is known; drop text that stdout could not take."""
    name = error.filename or ("standard output" if _drop_failing_output() else "")
    return f"{error.strerror or error}{f': {name}' if name else ''}"


def _drop_failing_output() -> bool:
    """Tell whether stdout holds text that it could not write, and drop it; Python's own error does not name stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
        return True
    return False


def one_line(error: object, length: int = 200) -> str:
    """Return the beginning of an exception's message on one line, or the name of its class where it has none."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def fail(message: object, code: int) -> int:
    """Print `error: message` as one line to stderr and return the exit code."""
    line = re.sub(r"\s*[\r\n]\s*", " ", str(message).strip())  # blanks stay: a command may be in it
    print(f"error: {printable(line)}", file=sys.stderr, flush=True)
    return code


class Progress(tqdm):
    """Show progress as a bar on a terminal, elsewhere as a line per minute, for logs of batch systems.

    Args:
        items: What to iterate over; None to call `update` by hand.
        total: Number of items; None where it is not known.
        unit: Plural noun, such as `images`.
        label: Text in front.
        leave: Keep the full bar on the terminal.
    """

    disable: bool
    LINE_EVERY = 60.0
    """Seconds between two lines."""

    def __init__(
        self,
        items: Iterable | None = None,
        total: int | None = None,
        unit: str = "items",
        label: str = "",
        leave: bool = True,
    ):
        self._on_terminal = sys.stderr.isatty()
        self._noun, self._label, self._last_line = unit, label, time.monotonic()
        pace = {} if self._on_terminal else {"mininterval": min(self.LINE_EVERY, 1.0), "miniters": 0}
        super().__init__(items, label or None, total, leave and self._on_terminal, unit=f" {unit}", **pace)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Redraw the bar, or write a line when the last one is a minute old."""
        if self._on_terminal:
            return super().display(msg, pos)
        now = time.monotonic()
        if msg != "" and now - self._last_line >= self.LINE_EVERY:
            self._last_line = now
            print(self.line(), file=sys.stderr, flush=True)
        return True

    def clear(self, *args: bool, **options: bool) -> None:
        """Clear the bar for a line that comes above it."""
        if self._on_terminal:
            super().clear(*args, **options)

    def close(self) -> None:
        """Clear or keep the bar; a log is left as it is."""
        if self._on_terminal:
            super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)

    def line(self) -> str:
        """Describe what is done, how fast, and what is left."""
        state = self.format_dict
        rate = state["rate"] or (self.n - self.initial) / max(state["elapsed"], 1e-9)
        parts = [f"{self.n:,}{f' of {self.total:,}' if self.total else ''} {self._noun}", f"{rate:.3g} per second"]
        if self.total and rate:
            parts.append(f"{self.format_interval(max(self.total - self.n, 0) / rate)} left")
        if self.postfix:
            parts.append(str(self.postfix))
        return f"{self._label}: {', '.join(parts)}" if self._label else ", ".join(parts)


TERMINATIONS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals of `kill`, `timeout` and batch systems, and of a terminal that is closed."""
_terminated_by = 0
_stopping = False
_interrupted = False
_interrupt_text: Callable[[], str] = str


def interrupt_on_termination() -> None:
    """Let the first SIGTERM or SIGHUP do what Ctrl-C does; a signal that is ignored, as under `nohup`, stays so."""
    for number in TERMINATIONS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Interrupt, once: `timeout` and shells send their signal twice, and the second must not stop what cleans up.

    Nor must a terminal that is closed after Ctrl-C.
    """
    global _terminated_by
    if not (_terminated_by or _stopping or _interrupted):
        _terminated_by = number
        on_ctrl_c = signal.getsignal(signal.SIGINT)  # ignored in the background of a script
        (on_ctrl_c if callable(on_ctrl_c) else signal.default_int_handler)(number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _stopping
    _stopping = True
    signal.default_int_handler(number, frame)


def _interrupt_code() -> int:
    return 128 + (_terminated_by or signal.SIGINT)


def defer_interrupts() -> None:
    """From now on the first Ctrl-C is noted for `raise_if_interrupted`, and the second ends the process at once.

    SIGTERM and SIGHUP are noted too. An exception that a signal raises in the middle of a library's C++ call may leave
    its memory damaged.
    """
    signal.signal(signal.SIGINT, _note_interrupt)
    interrupt_on_termination()


def set_interrupt_text(text: Callable[[], str]) -> None:
    """Set what to say after an interruption: what is kept, and how to resume."""
    global _interrupt_text
    _interrupt_text = text


def raise_if_interrupted() -> None:
    """Raise `KeyboardInterrupt` if Ctrl-C was pressed since `defer_interrupts`; its text says how to resume."""
    if _interrupted:
        raise KeyboardInterrupt(_interrupt_text())


def _note_interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    if _interrupted:
        _write_stderr(f"interrupted: {_interrupt_text()}\n".encode(errors="replace"))
        os._exit(_interrupt_code())
    _interrupted = True
    _write_stderr(b"stopping as soon as the current step is done; press Ctrl-C again to end at once\n")


def _write_stderr(line: bytes) -> None:
    """Write without `print`, which may be what a signal interrupted."""
    with suppress(OSError):
        os.write(2, line)


def shell_command(*arguments: object) -> str:
    """Write a command that does the same when it is pasted into a shell."""
    texts = list(map(str, arguments))
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)
