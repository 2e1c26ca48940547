"""Tells the processes of one training when another has ended, so that none waits for it for ever.

JAX notices a killed process after 100 seconds, and then aborts the others with a page of C++. Here every process holds
one plain TCP connection with process 0, over which each says every few seconds that it lives. The system closes the
connections of a process that ends, however it ends.
"""

import atexit
import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable

from src.cli import JobError, UserError, fail

BEAT_SECONDS = 5
SILENCE_SECONDS = 60
"""A process that says nothing for so long (its machine is gone, or it hangs) counts as ended."""
GRACE_SECONDS = 5
"""Time for a process to end with an error of its own, when another's is known: often it is the same."""
HELLO_SECONDS = 5
"""Time to say who one is; a stranger who says nothing does not keep the others waiting for longer."""
TOKEN_BYTES = 16

Connections = dict[int, socket.socket]
"""By number of the process at the other end."""


def listen() -> tuple[socket.socket, bytes]:
    """For process 0: a socket on a free port, and a secret that the others must know."""
    dual = socket.has_dualstack_ipv6()
    family, address = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "")
    server = socket.create_server((address, 0), family=family, dualstack_ipv6=dual)
    return server, secrets.token_bytes(TOKEN_BYTES)


def accept_all(server: socket.socket, token: bytes, processes: int, timeout: float = SILENCE_SECONDS) -> Connections:
    """For process 0: waits for the connections of all others.

    Raises:
        JobError: some did not come in time.
    """
    connections: Connections = {}
    end = time.monotonic() + timeout
    with server:
        while missing := sorted(set(range(1, processes)) - set(connections)):
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError as error:
                for connection in connections.values():
                    connection.close()
                raise JobError(
                    f"expected connections of {processes - 1} processes to process 0, received none of "
                    f"{', '.join(map(str, missing))}; open the ports between the machines"
                ) from error
            number = _read_hello(connection, token)
            if number is None:
                connection.close()  # a stranger
            else:
                connections[number] = connection
    return connections


def _read_hello(connection: socket.socket, token: bytes) -> int | None:
    """The number of the process at the other end, or None if it does not know the token."""
    connection.settimeout(HELLO_SECONDS)
    try:
        hello = _read(connection, TOKEN_BYTES + 4)
    except OSError:  # silent, or gone
        return None
    return int.from_bytes(hello[TOKEN_BYTES:], "big") if secrets.compare_digest(hello[:TOKEN_BYTES], token) else None


def connect(host: str, port: int, token: bytes, process_id: int) -> Connections:
    """For all but process 0: the connection with process 0.

    Raises:
        JobError: process 0 cannot be reached there.
    """
    try:
        connection = socket.create_connection((host, port), SILENCE_SECONDS)
        connection.sendall(token + process_id.to_bytes(4, "big"))
    except OSError as error:
        raise JobError(
            f"expected process 0 at {host}:{port}, received {error}; open the ports between the machines"
        ) from error
    return {0: connection}


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := connection.recv(count - len(data))):
        data += part
    return data


class Peers:
    """Watches the other processes from its making to `leave`, and ends this one when another ends early.

    Args:
        process_id: Number of this process.
        processes: Number of processes.
        connections: Of process 0 with all others, of the others with process 0.
        end: Ends this process with the given code; replaced in tests.
    """

    def __init__(
        self, process_id: int, processes: int, connections: Connections, end: Callable[[int], object] = os._exit
    ):
        self._process_id, self._processes, self._connections, self._end = process_id, processes, connections, end
        self._leaving = False
        self._ending = threading.Lock()  # taken once, by the thread that ends the process
        self._listeners = [threading.Thread(target=self._listen, args=(number,), daemon=True) for number in connections]
        for thread in [*self._listeners, threading.Thread(target=self._beat, daemon=True)]:
            thread.start()

    def leave(self, error: BaseException | None = None) -> None:
        """Says how this process ends: well (and waits until all have), or with an error that ends the others too.

        After an error that is this process's own, its exit does not wait for JAX, which would wait for the others.
        """
        if error is None:
            self._tell("done")
            self._leaving = True
            for thread in self._listeners:
                thread.join(SILENCE_SECONDS)
            return
        if not isinstance(error, (UserError, JobError, OSError, KeyboardInterrupt)):
            time.sleep(GRACE_SECONDS)  # a step fails when another process has ended: then a listener ends this one
            while self._ending.locked():
                time.sleep(0.1)
        self._leaving = True
        self._tell(f"{self._name(self._process_id)} ended: {_in_one_line(error)}")
        if self._process_id == 0:  # the others lose JAX's service with this process, so they go first
            for thread in self._listeners:
                thread.join(2 * GRACE_SECONDS)
        code = {UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1)
        atexit.register(self._end_now, code)

    def _end_now(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self._end(code)

    def _name(self, number: int) -> str:
        return f"process {number} of {self._processes} (they count from 0)"

    def _tell(self, line: str) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(f"{line}\n".encode())

    def _beat(self) -> None:
        while not self._leaving:
            self._tell("")
            time.sleep(BEAT_SECONDS)

    def _listen(self, number: int) -> None:
        connection = self._connections[number]
        connection.settimeout(SILENCE_SECONDS)
        try:
            with connection.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines:
                for line in lines:
                    text = line.strip()
                    if text == "done":
                        return
                    if text and not self._leaving and not self._ending.locked():
                        self._end_after(text, GRACE_SECONDS)
                        return
                    # else this process is ending already, and waits here until the other has ended
        except TimeoutError:
            self._end_after(f"{self._name(number)} has not answered for {SILENCE_SECONDS} seconds", 0)
            return
        except OSError:
            pass  # a reset connection; as good as a closed one
        self._end_after(f"{self._name(number)} ended without a word: killed, or its machine went down", 0)

    def _end_after(self, message: str, grace: float) -> None:
        """Ends this process because of another, unless it is leaving by itself."""
        if self._leaving or not self._ending.acquire(blocking=False):
            return
        if self._process_id == 0:
            self._tell(message)
        waited = time.monotonic() + grace
        while time.monotonic() < waited:
            if self._leaving:
                return
            time.sleep(0.05)
        fail(f"{message}; start all processes again, with train.resume=true to go on after the last whole epoch", 1)
        if self._process_id == 0:  # the others lose JAX's service with this process, so they go first
            for thread in self._listeners:
                if thread is not threading.current_thread():
                    thread.join(2 * GRACE_SECONDS)  # they wait for GRACE_SECONDS themselves
        self._end_now(1)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, (UserError, JobError)):
        text = f"{type(error).__name__} {text}".strip()
    return text[:1000]
