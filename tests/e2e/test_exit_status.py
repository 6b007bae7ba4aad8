"""With -E the exit status says whether all of the input was read, broadcast and delivered."""

import os
import socket
import subprocess

import pytest

from harness import CRIER, PATIENCE, PROBE, plain_environment, run_crier

ON_ANY_PORT = ("--listen", "127.0.0.1:0", "--workers", "1")


def opened(path, flags=os.O_RDONLY):
    return os.open(path, flags)


def datagram_socket(*datagrams):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for datagram in datagrams:
        ours.send(datagram)
    ours.close()
    return theirs.detach()


# What standard input is, the reason that the log gives, and the code that clients are closed with.
UNREADABLE = {
    "a directory": (lambda path: opened("/"), "Is a directory"),
    "write-only": (lambda path: opened(path, os.O_WRONLY | os.O_CREAT), "Bad file descriptor"),
    "a file with an error in it": (lambda path: opened("/proc/self/mem"), "Input/output error"),
}
INCOMPLETE = {
    "a line that is not UTF-8": (b"one\ncaf\xe9\ntwo\n", r"line 2: not valid UTF-8; skipped"),
    "a last line that is not UTF-8": (b"one\ntwo\n\xff", r"line 3: not valid UTF-8; skipped"),
    "a line that is too long": (b"one\n" + b"x" * 101 + b"\ntwo\n", r"line 2: longer than --max-message; skipped"),
}


@pytest.fixture
def read_end(tmp_path):
    """Of a file that another test has not opened."""
    return str(tmp_path / "input")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_input_that_cannot_be_read_is_status_1_and_is_no_end_for_clients(crier, read_end, kind):
    opens, reason = UNREADABLE[kind]
    descriptor = opens(read_end)
    try:
        server = crier("--no-welcome", "-E", "--wait-clients", "1", stdin=descriptor, expected=1)
        client = server.connect()
    finally:
        os.close(descriptor)
    client.expect_close(1001)
    assert server.wait_log("cannot read standard input").endswith(f"{reason}; stopping")
    server.wait_log("input error: stopping when what is published is delivered$")
    assert server.wait_exit() == 1
    assert not any("end of input" in line for line in server.log), "an input that cannot be read has no end"


@pytest.mark.parametrize("kind", UNREADABLE)
def test_without_exit_on_eof_the_server_logs_it_and_serves_on(crier, read_end, kind):
    opens, reason = UNREADABLE[kind]
    descriptor = opens(read_end)
    try:
        server = crier("--no-welcome", "--stdin", "on", stdin=descriptor)
    finally:
        os.close(descriptor)
    server.wait_log(f"cannot read standard input.*{reason}")
    client = server.connect()
    client.text("still here")
    client.expect_texts(["still here"])
    assert server.stop() == 0


def test_a_closed_standard_input_is_refused_with_exit_on_eof():
    done = run_crier(*ON_ANY_PORT, "-E", preexec_fn=lambda: os.close(0))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
    assert "standard input is closed" in done.stderr and "--exit-on-eof" in done.stderr, done


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_an_input_of_which_a_line_was_skipped_is_status_1(crier, read_end, kind):
    text, reason = INCOMPLETE[kind]
    with open(read_end, "wb") as file:
        file.write(text)
    with open(read_end, "rb") as file:
        server = crier("--no-welcome", "-E", "--wait-clients", "1", "--max-message", "100", stdin=file, expected=1)
        client = server.connect()
    client.expect_texts(["one", "two"])
    client.expect_close(1000)
    server.wait_log(reason)
    assert server.wait_exit() == 1
    server.wait_log("broadcasts published: 2, lines of input skipped: 1, deliveries: 2 of 2; no client missed a broadcast$")


def test_an_input_of_which_a_datagram_was_skipped_is_status_1(crier):
    descriptor = datagram_socket(b"one\n", b"x" * 65537, b"two\n")
    try:
        server = crier("--no-welcome", "-E", "--wait-clients", "1", stdin=descriptor, expected=1)
        client = server.connect()
    finally:
        os.close(descriptor)
    client.expect_texts(["one", "two"])
    client.expect_close(1000)
    assert server.wait_exit() == 1


def test_a_skipped_line_does_not_change_the_status_of_a_server_that_a_signal_stops(crier):
    server = crier("--no-welcome", "-E")
    client = server.connect()
    server.write(b"caf\xe9\nfine\n")
    client.expect_texts(["fine"])
    assert server.stop() == 0


def test_an_input_that_is_complete_is_status_0(crier, read_end):
    with open(read_end, "wb") as file:
        file.write(b"one\r\n\ntwo")
    with open(read_end, "rb") as file:
        server = crier("--no-welcome", "-E", "--wait-clients", "1", stdin=file)
        client = server.connect()
    client.expect_texts(["one", "", "two"])
    client.expect_close(1000)
    assert server.wait_exit() == 0
    assert "skipped" not in server.wait_log("stopped;")


# ---- every other status that is not 0 ----

@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_an_output_that_cannot_be_written_is_status_1(flag):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CRIER, flag], stdout=full, stderr=subprocess.PIPE, text=True, env=plain_environment(), timeout=PATIENCE)
    assert done.returncode == 1 and "No space left on device" in done.stderr, done


def test_an_address_that_another_server_has_is_status_3():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = run_crier("--listen", f"127.0.0.1:{listener.getsockname()[1]}")
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1, done


@pytest.mark.parametrize("role, status", [("master", 1), ("worker", 4)])
def test_a_start_handler_that_fails_is_no_success(role, status):
    done = run_crier(*ON_ANY_PORT, "--fail-start", role, program=PROBE)
    assert done.returncode == status, done
