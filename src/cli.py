"""What all scripts share: the project's folder, one-line errors and exit codes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the scripts; `data/`, `meta/`, `checkpoints/` ... are found from here."""


class UserError(Exception):
    """The user asked for something impossible: one line with what was expected, what was received, what to do."""


class JobError(Exception):
    """The job itself failed, through no mistake in how it was asked for."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a script's `main` and ends the process with the project's exit codes.

    0 done; 1 the job failed; 2 the user asked for something impossible; 130 after Ctrl-C. `UserError`, `JobError`,
    errors of the operating system (disk full, no permission) and missing libraries print one line, `error: ...`; other
    exceptions are defects and keep their traceback.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        code = fail(error, 2)
    except JobError as error:
        code = fail(error, 1)
    except ImportError as error:
        code = fail(_missing(error), 1)
    except BrokenPipeError:  # the reader of our output (`| head`) is gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except KeyboardInterrupt as interrupt:
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        code = 130
    sys.exit(code)


def _missing(error: ImportError) -> str:
    """What to install when a package, or a system library that a package needs, is not there."""
    if isinstance(error, ModuleNotFoundError):
        return f"expected the package {error.name}, received none; run pip install -r requirements.txt"
    return (
        f"expected the system libraries of {error.name or 'a package'}, received {error}; "
        "on Debian and Ubuntu run sudo apt-get install libgl1 libglib2.0-0"
    )


def fail(message: object, code: int) -> int:
    """Prints `error: message` as one line to stderr and gives the exit code back."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    return code
