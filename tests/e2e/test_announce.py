"""What the server says at its start, while it stops, and at its end."""

import re
import signal
import socket

import pytest

from harness import TEXT, at_once, needs_ipv6, server_frame, wait_until

LARGE = [b"%06d" % number + b"-" * 1018 for number in range(4000)]  # more than sockets hold, less than the ring


def is_listening(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def hints(server):
    return [line for line in server.log if "Ctrl-C" in line]


# ---- the start ----

@pytest.mark.parametrize("listen, said", [
    pytest.param(":0", r"ws://localhost:\d+/ \(all interfaces, IPv4 and IPv6\)$", marks=needs_ipv6),
    ("0.0.0.0:0", r"ws://localhost:\d+/ \(all interfaces, IPv4\)$"),
    pytest.param("[::]:0", r"ws://\[::1\]:\d+/ \(all interfaces, IPv6\)$", marks=needs_ipv6),
    pytest.param("[::1]:0", r"ws://\[::1\]:\d+/$", marks=needs_ipv6),
    ("127.0.0.1:0", r"ws://127\.0\.0\.1:\d+/$")])
def test_the_start_line_says_whether_all_interfaces_are_listened_on(crier, listen, said):
    server = crier("--no-welcome", listen=listen)
    assert re.search(f"listening on {said}", server.wait_log("listening on"))
    server.connect().expect_pong()


def test_on_a_terminal_a_hint_names_the_page_and_what_can_be_typed(crier):
    server = crier(stdin="terminal")
    url = "http://{}:{}/".format(*server.address)
    line = server.wait_log("Ctrl-C")
    assert line.endswith(f" open {url} in a browser, type a line to send it to all clients, Ctrl-C stops the server")


@pytest.mark.parametrize("how, hint", [({}, "open http://127.0.0.1:{}/ in a browser, Ctrl-C stops the server"),
                                       ({"listen": "unix:hint.sock"}, "Ctrl-C stops the server")])
def test_the_hint_names_only_what_is_there(crier, tmp_path, how, hint):
    server = crier(terminal=True, cwd=tmp_path, **how)
    port = server.address[1] if server.address else 0
    assert server.wait_log("Ctrl-C").partition("master: ")[2] == hint.format(port)


@pytest.mark.parametrize("clients, wanted", [("1", "1 client is connected"), ("2", "2 clients are connected")])
def test_an_input_that_waits_for_clients_says_so(crier, clients, wanted):
    server = crier("--wait-clients", clients)
    server.wait_log(f"standard input is not read until {wanted}$")


def test_nothing_is_said_of_an_input_that_waits_for_no_client_or_is_not_read(crier):
    for arguments in ([], ["--wait-clients", "0"], ["--wait-clients", "2", "--stdin", "off"]):
        server = crier(*arguments)
        assert server.stop() == 0
        server.wait_log(r"\(end of stderr\)")
        assert not any("standard input" in line for line in server.log), server.log


def test_there_is_no_hint_where_no_person_reads(crier):
    server = crier("-v")
    server.connect()
    server.wait_log("connected")
    assert not hints(server)


# ---- stopping ----

def stall(server):
    """A client that has read everything, and one that has read nothing; the stream that each is due."""
    reader, late = server.connect(), server.connect(receive_buffer=4096)
    expected = b""
    for start in range(0, len(LARGE), 50):  # so that the reader is never far behind
        lines = LARGE[start:start + 50]
        frames = b"".join(server_frame(TEXT, line) for line in lines)
        server.write(b"".join(line + b"\n" for line in lines))
        assert reader.read(len(frames), what="all lines") == frames
        expected += frames
    return reader, late, expected


PATIENT = ("--no-welcome", "--drain", "0", "--slow-grace", "0", "--slow", "block")


@pytest.mark.parametrize("terminal, number, remedy", [
    (True, signal.SIGINT, "Ctrl-C again stops at once"),
    (True, signal.SIGTERM, "Ctrl-C stops at once"),
    (False, signal.SIGINT, "a second TERM or INT stops at once"),
    (False, signal.SIGTERM, "a second TERM or INT stops at once"),
    (False, signal.SIGHUP, "TERM or INT stops at once")])
def test_a_stop_says_for_how_many_clients_it_waits_and_how_to_stop_at_once(crier, terminal, number, remedy):
    server = crier(*PATIENT, terminal=terminal)
    server.connect()
    server.drop_clients()
    server.wait_counter("clients_left", 1)  # its record is not waited for
    reader, _, _ = stall(server)
    server.send_signal(number)
    reader.expect_close(1001)
    server.wait_log(f"{number.name}: stopping when what is published is delivered$")
    assert server.wait_log("waiting for").endswith(f"master: waiting for 1 client to read; {remedy}")
    server.send_signal(signal.SIGINT)
    assert server.wait_exit() == 0
    server.wait_log("SIGINT: stopping at once$")
    due, delivered, skipped, unsent = server.totals()
    assert due == 2 * len(LARGE) and skipped == 0 and 0 < unsent == due - delivered


def test_a_client_that_reads_late_gets_everything_and_the_last_line_says_so(crier):
    server = crier(*PATIENT)
    reader, late, expected = stall(server)
    server.send_signal(signal.SIGTERM)
    server.wait_log("waiting for 1 client to read; ")
    at_once([lambda: reader.expect_close(1001), lambda: late.read(len(expected)) == expected and late.expect_close(1001)])
    assert server.wait_exit() == 0
    assert server.totals() == (2 * len(LARGE), 2 * len(LARGE), 0, 0)


def test_a_stop_says_when_clients_do_not_answer_the_close(crier):
    server = crier("--no-welcome", "-E", workers=2)
    for _ in range(3):
        server.connect()
    server.end_input()
    server.wait_log("end of input: stopping when what is published is delivered$")
    server.wait_log("waiting for 3 clients to answer the Close; TERM or INT stops at once$")
    for client in server.clients:
        client.expect_close(1000)
    assert server.wait_exit() == 0


def test_sigquit_is_named(crier):
    server = crier("--no-welcome")
    server.send_signal(signal.SIGQUIT)
    assert server.wait_exit() == 0
    server.wait_log("SIGQUIT: stopping at once$")


# ---- the end ----

def test_what_clients_skipped_is_in_the_last_line(crier):
    server = crier("--no-welcome", "--slow", "latest", "--max-lag", "100", "--drain", "0")
    reader, late, _ = stall(server)
    wait_until(lambda: server.counters()["slow_skips"], "the client to skip broadcasts")
    got = []
    server.send_signal(signal.SIGTERM)
    at_once([lambda: reader.expect_close(1001), lambda: late.expect_close(1001, got)])
    assert server.wait_exit() == 0
    assert server.totals() == (2 * len(LARGE), len(LARGE) + len(got), len(LARGE) - len(got), 0)


def test_a_clients_own_broadcast_for_all_others_is_not_missed(crier):
    server = crier("--no-welcome", "--on-message", "both")
    first, second = server.connect(), server.connect()
    first.text("to the other")
    second.expect_texts(["to the other"])
    first.expect_texts(["to the other"])  # its echo
    server.drop_clients()
    server.wait_counter("clients_left", 2)
    server.stop()
    assert server.totals() == (1, 1, 0, 0)


def test_with_quiet_nothing_is_said(crier, tmp_path):
    server = crier("-q", "--no-welcome", listen="unix:quiet.sock", url=False, cwd=tmp_path, terminal=True)
    path = str(tmp_path / "quiet.sock")
    wait_until(lambda: is_listening(path), "the socket")
    server.connect(address=path).expect_pong()
    server.drop_clients()
    assert server.stop() == 0
    server.wait_log(r"\(end of stderr\)")
    assert server.log == ["(end of stderr)"]
