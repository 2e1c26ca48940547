"""Processes that have imported Keras and the training already: forks of one that did, which saves seconds for each.

Only for what needs a process of its own but not its imports: kills, signals, several processes, other devices.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class WarmProcess:
    """A script in a fork, with the parts of `subprocess.Popen` that tests use; its output goes to files."""

    def __init__(self, address: Path, argv: list[str], environment: dict[str, str]):
        folder = Path(tempfile.mkdtemp(dir=address.parent))
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        self.stdout.touch()
        self.stderr.touch()
        self.returncode: int | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(address))
        self._lines = self._socket.makefile("rw")
        request = {"argv": argv, "environment": environment, "stdout": str(self.stdout), "stderr": str(self.stderr)}
        print(json.dumps(request), file=self._lines, flush=True)
        self.pid = int(self._lines.readline())

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Wait for its end; what it printed to stdout and stderr."""
        if self.returncode is None:
            self._socket.settimeout(timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._socket.close()
        return self.stdout.read_text(), self.stderr.read_text()


@contextlib.contextmanager
def warm_python(**environment: str) -> Iterator[Callable[..., WarmProcess]]:
    """`start(*argv, **environment)` starts a script in a fork of a process with these variables."""
    own = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | environment
    processes = []

    def start(*argv: object, **more: str) -> WarmProcess:
        processes.append(WarmProcess(address, [str(part) for part in argv], own | more))
        return processes[-1]

    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "socket"  # short: 108 characters at most
        command = [sys.executable, "-W", "ignore", __file__, str(address)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=own) as server:
            try:
                assert server.stdout.readline() == b"ready\n"
                yield start
            finally:
                for process in processes:
                    process.kill()
                server.kill()


def serve(address: str) -> None:
    """Fork for each connection a process that forks the script's, and sends its number and its exit code."""
    import distributed_process  # noqa: F401  with it Keras and the training
    import tensorflow  # noqa: F401  keras.utils.set_random_seed imports it on every backend

    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"ready\n")
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            break
        connection.close()
    lines = connection.makefile("rw")
    request = json.loads(lines.readline())
    pid = os.fork()
    if pid == 0:
        lines.close()
        connection.close()
        run(**request)
    print(pid, file=lines, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=lines, flush=True)
    os._exit(0)


def run(argv: list[str], environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Become the script: its environment, arguments and output."""
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    sys.path.insert(1, str(ROOT))
    serve(sys.argv[1])
