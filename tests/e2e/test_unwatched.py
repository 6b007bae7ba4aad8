"""Descriptors that the kernel refuses to watch: strace makes epoll_ctl fail in a worker, or in the master."""

import contextlib
import subprocess

import pytest

from harness import SANITIZED, Disconnected, wait_until

pytestmark = pytest.mark.skipif(SANITIZED, reason="what looks for leaks at the end does not run under ptrace")

REFUSED = "cannot watch the socket of"


@contextlib.contextmanager
def epoll_ctl_fails(pid, error, which="1+"):
    """In this process, from the `which`th call on that it makes meanwhile."""
    tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-e", "trace=epoll_ctl",
                               "-e", f"inject=epoll_ctl:error={error}:when={which}", "-p", str(pid)])
    try:
        wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{pid}/status").read(), "strace at the process")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def warnings(server):
    return [line for line in server.log if REFUSED in line]


@pytest.mark.parametrize("error, remedy", [("ENOSPC", "; raise fs.epoll.max_user_watches (sysctl)"), ("ENOMEM", "")])
def test_newcomers_that_cannot_be_watched_are_refused_at_once_and_named_in_one_line(crier, error, remedy):
    server = crier("--no-welcome", "--handshake-timeout", "0", workers=1)
    worker = server.workers()[0]
    client = server.connect()
    with epoll_ctl_fails(worker, error):
        others = [server.socket() for _ in range(20)]
        for other in others:
            assert other.read_response().status == 503
            assert other.read_to_end() == (b"", "eof")
        server.wait_counter("clients_unwatched", 20)
        client.expect_pong()
        client.text("hello")
        assert client.recv_text() == "hello"
        for other in others:
            other.drop()
        line = server.wait_log(REFUSED)
        # The others that came in the same second are in the next line.
        wait_until(lambda: sum(1 + int((text.split("(and ") + ["0"])[1].split()[0]) for text in warnings(server)) == 20,
                   lambda: f"all 20 in the log: {warnings(server)}")
    assert f"disconnecting it{remedy}: " in line and len(warnings(server)) <= 3, server.log
    assert server.counters()["clients_refused"] == 20
    assert server.workers() == [worker]
    server.connect().expect_pong()


def test_a_client_that_comes_with_its_request_is_told_1013(crier):
    server = crier("--no-welcome", workers=1)
    with epoll_ctl_fails(server.workers()[0], "ENOSPC"):
        # The master passes it on when it has sent its request already, or before: both are refused.
        client = server.socket()
        client.send_raw(client.request())
        answer = client.read_response()
        assert answer.status in (101, 503), answer
        if answer.status == 101:
            client.expect_close(1013)
    server.wait_log(REFUSED)
    assert server.counters()["clients_unwatched"] == 1


def test_a_client_that_does_not_read_and_cannot_be_watched_is_cut_off_with_all_that_it_had_asked_for(crier):
    server = crier("--no-welcome", "--ping", "0", workers=1)
    client = server.connect(receive_buffer=4096)
    other = server.connect()
    with epoll_ctl_fails(server.workers()[0], "ENOSPC"):
        # MOD: its echoes fill the socket, and the worker wants to know when there is room.
        with contextlib.suppress(OSError):
            while not server.counters()["clients_left"]:
                client.binary(b"x" * 60000)
        with pytest.raises(Disconnected) as end:
            while True:
                client.recv_message()
        assert end.value.how == "reset"
        other.expect_pong()
    server.wait_log(REFUSED)
    assert server.counters()["clients_unwatched"] == 1


def test_a_client_that_stays_in_the_set_after_its_close_hears_everything_and_leaves_no_load(crier):
    server = crier("--no-welcome", "--ping", "0", workers=1)
    worker = server.workers()[0]
    client = server.connect()
    with epoll_ctl_fails(worker, "ENOSPC"):
        # DEL: all is said, and the worker does not want to be told of anything for a moment.
        client.close()
        client.expect_close(1000, answer=False)
        server.wait_counter("clients_left", 1)
    server.assert_idle(worker)
    assert server.counters()["clients_unwatched"] == 0 and not warnings(server), server.log
    server.connect().expect_pong()


def test_the_console_is_read_although_it_could_not_be_watched_at_first(crier):
    server = crier("--no-welcome", "--wait-clients", "1", workers=1)
    with epoll_ctl_fails(server.pid, "ENOSPC", "1..2"):
        server.line("hello")
        client = server.connect()
        assert client.recv_text() == "hello"
    server.line("again")
    assert client.recv_text() == "again"
    server.assert_idle()
