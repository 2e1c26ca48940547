"""Processes that watch each other, as threads of one process on both ends of real connections."""

import atexit
import contextlib
import re
import socket
import threading
import time

import pytest

from src.cli import JobError, UserError
from src.training import peers
from src.training.peers import Peers, accept_all, connect, listen


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 3)
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(atexit, "register", lambda *args: None)  # it would end the tests with an exit code


class Ends(list):
    """Exit codes that a process ended with; to end closes its connections, as the system does."""

    def __init__(self):
        super().__init__()
        self.connections = {}

    def __call__(self, code: int) -> None:
        self.append(code)
        close(self.connections)

    def wait(self, seconds: float = 10) -> list[int]:
        end = time.monotonic() + seconds
        while not self and time.monotonic() < end:
            time.sleep(0.02)
        return list(self)


def close(connections) -> None:
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


@pytest.fixture
def connect_all():
    """`connect_all(n)`: the connections of each of n processes."""
    everything = []

    def make(count: int):
        server, token = listen()
        port = server.getsockname()[1]
        others = [connect("127.0.0.1", port, token, number) for number in range(1, count)]
        everything.extend([accept_all(server, token, count), *others])
        return everything

    yield make
    for connections in everything:
        for connection in connections.values():
            connection.close()


def start(all_connections):
    """Peers and exit codes of each process."""
    ends = [Ends() for _ in all_connections]
    for end, connections in zip(ends, all_connections, strict=True):
        end.connections = connections
    count = len(all_connections)
    group = [Peers(i, count, all_connections[i], ends[i]) for i in range(count)]
    return group, ends


def leave_all(group) -> None:
    threads = [threading.Thread(target=one.leave) for one in group]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_all_connect_and_leave_together(connect_all, capsys):
    group, ends = start(connect_all(3))
    time.sleep(0.5)  # some beats
    leave_all(group)
    assert ends == [[], [], []]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_the_others(connect_all, capsys, victim):
    all_connections = connect_all(3)
    group, ends = start(all_connections)
    group[victim]._leaving = True  # its threads stand still, as those of a killed process
    close(all_connections[victim])
    others = [number for number in range(3) if number != victim]
    assert [ends[number].wait() for number in others] == [[1], [1]]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [lines[0]] * 2
    assert lines[0].startswith(f"error: process {victim} of 3 (they count from 0) ended without a word: killed, or its")
    assert lines[0].endswith("start all processes again, with train.resume=true to go on after the last whole epoch")


def test_a_silent_process_counts_as_ended(connect_all, capsys, monkeypatch):
    monkeypatch.setattr(peers, "SILENCE_SECONDS", 0.5)
    all_connections = connect_all(2)
    ends = Ends()
    ends.connections = all_connections[0]
    Peers(0, 2, all_connections[0], ends)  # process 1 is connected and says nothing
    assert ends.wait() == [1]
    assert "process 1 of 2 (they count from 0) has not answered for 0.5 seconds" in capsys.readouterr().err


def test_an_error_of_one_is_told_to_all(connect_all, capsys):
    group, ends = start(connect_all(3))
    group[1].leave(UserError("expected this,\nreceived that"))
    assert [ends[0].wait(), ends[2].wait()] == [[1], [1]]
    assert ends[1] == []  # its own error ends it
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("error: process 1 of 3 (they count from 0) ended: expected this, received that; start")


def test_an_error_that_all_have_is_told_once_by_each(connect_all, capsys):
    """Each leaves with its own within the grace time, and says nothing of the others'."""
    group, ends = start(connect_all(3))
    threads = [threading.Thread(target=one.leave, args=(UserError("a mistake"),)) for one in group]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    time.sleep(0.5)
    assert ends == [[], [], []]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("x"), 2), (JobError("x"), 1), (OSError("x"), 1), (KeyboardInterrupt(), 130)]
)
def test_exit_code_of_an_own_error(connect_all, monkeypatch, error, code):
    """The last thing of a process that fails is to end at once: JAX would wait for the others."""
    registered = []
    monkeypatch.setattr(atexit, "register", lambda function, *args: registered.append((function, args)))
    group, ends = start(connect_all(2))
    group[0].leave(error)
    function, args = registered[0]
    function(*args)
    assert ends[0] == [code]


def test_strangers_do_not_count(monkeypatch):
    """One with a wrong token, one that says nothing, one that is gone; the processes after them are heard."""
    monkeypatch.setattr(peers, "HELLO_SECONDS", 0.2)
    server, token = listen()
    port = server.getsockname()[1]
    strangers = [connect("127.0.0.1", port, bytes(len(token)), 1), {0: socket.create_connection(("127.0.0.1", port))}]
    socket.create_connection(("127.0.0.1", port)).close()
    others = [connect("127.0.0.1", port, token, number) for number in (2, 1)]
    accepted = accept_all(server, token, 3, timeout=5)
    assert sorted(accepted) == [1, 2]
    for connections in [accepted, *strangers, *others]:
        close(connections)


def test_a_process_that_does_not_come_is_named():
    server, token = listen()
    known = connect("127.0.0.1", server.getsockname()[1], token, 1)
    with pytest.raises(JobError, match="expected connections of 2 processes to process 0, received none of 2;"):
        accept_all(server, token, 3, timeout=0.5)
    close(known)


def test_nobody_listens():
    server, token = listen()
    port = server.getsockname()[1]
    server.close()
    with pytest.raises(JobError, match=re.escape(f"expected process 0 at 127.0.0.1:{port}, received")):
        connect("127.0.0.1", port, token, 1)
