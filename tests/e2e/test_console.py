"""Every line of standard input goes to all clients."""

import fcntl
import os
import socket
import subprocess
import sys

import pytest

import harness.background_job
from harness import (BINARY, PATIENCE, SANITIZED, TEXT, Frame, Job, Late, at_once, descriptors, each_worker_count, in_time,
                     plain_environment, process_state, run_crier, server_frame, wait_until)
from harness.procs import status_flags

COUNT = 500000 if os.environ.get("CRIER_LONG") else 100000
BACKGROUND = [sys.executable, harness.background_job.__file__]


# ---- lines ----

@each_worker_count
def test_each_line_goes_to_every_client(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    lines = [f"line {number}" for number in range(100)]
    for line in lines:
        server.line(line)
    for client in server.clients:
        client.expect_texts(lines)
        client.expect_pong()


def test_a_line_is_one_whole_text_frame(crier):
    server = crier("--no-welcome")
    client = server.connect()
    server.line("hello everyone")
    assert client.recv_frame() == Frame(True, TEXT, b"hello everyone")


def test_newlines_of_both_kinds_are_removed_and_nothing_else(crier):
    server = crier("--no-welcome")
    client = server.connect()
    server.write(b"unix\ndos\r\nlone\rreturn\ntwo\r\r\n blanks \t\n")
    client.expect_texts(["unix", "dos", "lone\rreturn", "two\r", " blanks \t"])


def test_empty_lines_are_sent_as_empty_messages(crier):
    server = crier("--no-welcome")
    client = server.connect()
    server.write(b"\n\r\n\nend\n")
    client.expect_texts(["", "", "", "end"])


def test_a_line_may_come_in_pieces(crier):
    server = crier("--no-welcome")
    client = server.connect()
    for piece in (b"so", b"me ", "☂".encode()[:1], "☂".encode()[1:], b" words\r"):
        server.write(piece)
        client.expect_pong()
    server.write(b"\nnext\n")
    client.expect_texts(["some ☂ words", "next"])


@each_worker_count
def test_a_last_line_without_newline_is_sent_at_the_end_of_input(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    server.write(b"first\nlast")
    server.end_input()
    for client in server.clients:
        client.expect_texts(["first", "last"])


@each_worker_count
def test_the_server_goes_on_after_the_end_of_input(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.line("the only one")
    server.end_input()
    for client in [server.connect() for _ in range(4)]:
        client.text("still there?")
        assert client.texts_until("still there?") in ([], ["the only one"])
    server.assert_idle()


def test_a_line_that_is_not_utf8_is_reported_with_its_number_and_skipped(crier):
    server = crier("--no-welcome")
    client = server.connect()
    server.write(b"first\nbad \xff here\n" + "thïrd".encode() + b"\n\nfifth\ncut \xe2\x98\nseventh\n")
    client.expect_texts(["first", "thïrd", "", "fifth", "seventh"])
    server.wait_log(r"(?i)line\W{0,3}2\b")
    server.wait_log(r"(?i)line\W{0,3}6\b")


def test_a_line_longer_than_the_longest_message_is_reported_and_skipped_whole(crier):
    server = crier("--no-welcome", "--max-message", "1000")
    client = server.connect()
    longest = "x" * 1000
    server.write(f"one\n{longest}\n{longest}y\nfour\n{'z' * 300000}\nsix\n{longest}\r\n".encode())
    client.expect_texts(["one", longest, "four", "six", longest])
    server.wait_log(r"(?i)line\W{0,3}3\b")
    server.wait_log(r"(?i)line\W{0,3}5\b")


def test_a_line_of_the_default_longest_message_is_sent(crier):
    server = crier("--no-welcome")
    client = server.connect()
    writer = server.feed(b"m" * (1 << 20) + b"\n" + b"m" * ((1 << 20) + 1) + b"\nend\n")
    client.expect_texts(["m" * (1 << 20), "end"])
    writer.join()


def test_lines_without_any_client_go_nowhere(crier):
    server = crier("--no-welcome")
    for number in range(100):
        server.line(f"nobody hears {number}")
    wait_until(lambda: server.unread_input() == 0, "the console to be read")
    client = server.connect()
    server.line("somebody hears this")
    client.expect_texts(["somebody hears this"])


def test_input_can_be_turned_off(crier):
    server = crier("--no-welcome", "--stdin", "off")
    client = server.connect()
    server.line("not read")
    other = server.connect()  # the master has looked for input since
    client.text("echo")
    client.expect_texts(["echo"])
    for one in (client, other):
        one.expect_pong()
    assert server.unread_input() == len(b"not read\n")


def test_wait_clients_holds_the_console_until_so_many_are_connected(crier):
    server = crier("--no-welcome", "--wait-clients", "3", workers=2)
    server.write(b"first\nsecond\n")
    for _ in range(3):
        server.connect()
    for client in server.clients:
        client.expect_texts(["first", "second"])


def test_a_full_ring_stops_the_reading_and_loses_no_line(crier):
    server = crier("--no-welcome", "--ring", "4M", "--slow-grace", "60", workers=2)
    reader = server.connect(receive_buffer=4096)
    total, line = 32 << 20, b"0123456789abcdef" * 64
    lines = [b"%08d " % number + line for number in range(total // 1034)]
    written = []

    def write_all():
        for some in range(0, len(lines), 64):
            server.write(b"".join(text + b"\n" for text in lines[some:some + 64]), timeout=4 * PATIENCE)
            written.append(some)

    writer = Job(write_all)
    server.wait_held_up()
    assert len(written) * 64 < len(lines) * 3 / 4, "all was read although a client stands still and the ring is 4 MiB"
    server.assert_idle()
    expected = b"".join(server_frame(TEXT, text) for text in lines)
    got = reader.read(len(expected), what="all lines", timeout=4 * PATIENCE)
    writer.join()
    assert got == expected, "lines lost, doubled or out of order"


# ---- the end of input with -E ----

@each_worker_count
def test_exit_on_eof_delivers_everything_closes_with_1000_and_exits(crier, workers):
    server = crier("--no-welcome", "-E", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    lines = [f"line {number} {'.' * 200}" for number in range(2000)]
    writer = server.feed("\n".join(lines).encode())
    writer.join()
    server.end_input()
    transcripts = [[] for _ in server.clients]
    at_once([lambda client=client, seen=seen: client.expect_close(1000, seen)
             for client, seen in zip(server.clients, transcripts)])
    assert server.wait_exit() == 0
    for client, seen in zip(server.clients, transcripts):
        assert [text.decode() for text in seen] == lines, f"{client.name} got {len(seen)} of {len(lines)} lines"


def test_exit_on_eof_waits_for_the_clients_answers(crier):
    server = crier("--no-welcome", "-E")
    client = server.connect()
    server.end_input()
    client.expect_close_frame(1000)
    server.wait_ticks(3)
    assert server.process.poll() is None, "exited although a client has not answered its close"
    client.close(1000)
    assert server.wait_exit() == 0


def test_exit_on_eof_without_clients_exits_at_once(crier):
    server = crier("--no-welcome", "-E")
    server.line("nobody is here")
    server.end_input()
    assert server.wait_exit() == 0


def test_exit_on_eof_with_a_file_and_no_clients_exits_at_once(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"a\nb\nc\n")
    with open(path) as file:
        done = run_crier("--listen", "127.0.0.1:0", "-E", stdin=file)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_exit_on_eof_gives_a_client_that_does_not_read_no_longer_than_drain(crier):
    server = crier("--no-welcome", "-E", "--drain", "0.5", "--slow-grace", "60", expected=1)
    reads = server.connect()
    stands = server.connect(receive_buffer=4096)
    lines = [b"%06d" % number + b"-" * 1000 for number in range(12000)]
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    writer = server.feed(b"".join(line + b"\n" for line in lines))
    assert reads.read(len(expected)) == expected
    writer.join()
    server.end_input()
    reads.expect_close(1000)
    assert server.wait_exit(8) == 1  # the default is 10 s
    rest, how = stands.read_to_end()
    assert how == "reset", "the client that does not read was not reset"
    assert len(rest) < len(expected) and expected.startswith(rest), "its stream is not a part of what it was due"


def test_exit_on_eof_does_not_hurry_a_slow_client_whose_room_nobody_wants(crier):
    """More than three quarters of the ring are due to it, for longer than the grace; but nothing is to come."""
    lines = [b"%06d" % number + b"-" * 1000 for number in range(14000)]
    expected = b"".join(server_frame(TEXT, line) for line in lines)

    def attempt(scale):
        server = crier("--no-welcome", "-E", "--ring", "16M", "--drain", "60", "--slow-grace", str(scale))
        reads = server.connect()
        stands = server.connect(receive_buffer=4096)
        writer = server.feed(b"".join(line + b"\n" for line in lines))
        assert reads.read(len(expected)) == expected
        writer.join()
        if server.counters()["clients_slow_closed"]:
            raise Late("it took longer than the grace to publish it all")
        server.end_input()
        reads.expect_close(1000)
        server.wait_ticks(15 * scale)
        assert stands.read(len(expected)) == expected
        stands.expect_close(1000)
        assert server.wait_exit() == 0

    in_time(attempt)


def test_wait_clients_lets_exit_on_eof_wait_for_its_readers(crier, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"a\nb\n\nlast")
    with open(path) as file:
        server = crier("--no-welcome", "-E", "--wait-clients", "2", stdin=file, workers=2)
    first, second = server.connect(), server.connect()
    for client in (first, second):
        client.expect_texts(["a", "b", "", "last"])
    for client in (first, second):
        client.expect_close(1000)
    assert server.wait_exit() == 0


@pytest.mark.limit(120)
def test_a_big_file_reaches_every_reader_whole_and_in_order(crier, tmp_path):
    lines = [f"{number:08d} {'abcdefghijklmnopqrstuvwxyz'[number % 26] * (number % 190)}".encode()
             for number in range(COUNT)]
    path = tmp_path / "input"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    assert path.stat().st_size > 100 * COUNT
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    with open(path) as file:
        # The reader shares its processor with the tests: give it time.
        server = crier("--no-welcome", "-E", "--wait-clients", "4", "--slow-grace", "30", "--ping", "0",
                       stdin=file, workers=2)

    def read(client):
        assert client.read(len(expected), what="the whole file", timeout=120) == expected
        client.expect_close(1000)

    at_once([lambda client=client: read(client) for client in [server.connect() for _ in range(4)]])
    assert server.wait_exit() == 0


@pytest.mark.parametrize("flag", ["-E", "--exit-on-eof"])
def test_exit_on_eof_without_input_is_a_usage_error(flag):
    done = run_crier("--listen", "127.0.0.1:0", flag, "--stdin", "off")
    assert done.returncode == 2
    assert "--stdin" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


# ---- kinds of standard input ----

def test_a_regular_file_is_read_to_its_end_and_the_server_goes_on(crier, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(1000)))
    with open(path) as file:
        server = crier("--no-welcome", "--wait-clients", "1", stdin=file)
    client = server.connect()
    client.expect_texts(str(number) for number in range(1000))
    client.expect_pong()
    server.assert_idle()


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_dev_null_is_an_input_without_lines(crier, mode):
    server = crier("--no-welcome", "--stdin", mode, stdin=None)
    client = server.connect()
    client.text("echo")
    client.expect_texts(["echo"])
    server.assert_idle()


def test_a_closed_standard_input_is_an_input_without_lines(crier):
    server = crier("--no-welcome", stdin="closed")
    client = server.connect()
    client.text("echo")
    client.expect_texts(["echo"])
    assert descriptors(server.pid)[0] == "/dev/null"
    server.assert_idle()


def test_an_open_pipe_without_data_costs_nothing(crier):
    server = crier("--no-welcome")
    server.connect().expect_pong()
    server.assert_idle()


def test_an_unfinished_line_costs_nothing(crier):
    server = crier("--no-welcome")
    server.write(b"no newline yet")
    server.connect().expect_pong()
    server.assert_idle()


def test_lines_typed_at_a_terminal_go_to_everybody(terminal, crier):
    ours, theirs = terminal
    server = crier("--no-welcome", stdin=theirs)
    client = server.connect()
    os.write(ours, b"typed\n\nagain\n")
    client.expect_texts(["typed", "", "again"])
    server.assert_idle()


def test_end_of_input_at_a_terminal_leaves_the_server_serving(terminal, crier):
    ours, theirs = terminal
    server = crier("--no-welcome", stdin=theirs)
    client = server.connect()
    os.write(ours, b"typed\n\x04")
    client.expect_texts(["typed"])
    client.text("echo")
    client.expect_texts(["echo"])
    server.assert_idle()


def test_a_background_job_of_a_terminal_goes_on_serving(terminal, crier):
    ours, theirs = terminal
    server = crier("--no-welcome", stdin=theirs, prefix=BACKGROUND)
    client = server.connect()
    foreground = os.tcgetpgrp(ours)
    assert foreground == server.process.pid != os.getpgid(server.pid), "the test has not made a background job"
    os.write(ours, b"for the program in the foreground\n")
    server.assert_idle()
    client.text("echo")
    client.expect_texts(["echo"])
    assert process_state(server.pid) in ("S", "R"), f"the master is in state {process_state(server.pid)}"


def test_a_terminal_that_goes_away_is_the_end_of_input(crier):
    ours, theirs = os.openpty()
    server = crier("--no-welcome", stdin=theirs)
    os.close(theirs)
    client = server.connect()
    os.close(ours)
    client.text("echo")
    client.expect_texts(["echo"])
    server.assert_idle()


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_standard_input_is_never_made_non_blocking(terminal, crier, kind):
    server = crier("--no-welcome", stdin=terminal[1] if kind == "terminal" else "pipe")
    client = server.connect()
    if kind == "terminal":
        os.write(terminal[0], b"line\n")
    else:
        server.line("line")
    client.expect_texts(["line"])
    assert not status_flags(server.pid, 0) & os.O_NONBLOCK, "O_NONBLOCK on the shared description of stdin"
    assert not status_flags(server.pid, 2) & os.O_NONBLOCK, "O_NONBLOCK on the shared description of stderr"
    if kind == "terminal":
        assert not fcntl.fcntl(terminal[1], fcntl.F_GETFL) & os.O_NONBLOCK


@each_worker_count
def test_workers_have_dev_null_as_standard_input(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    found = {pid: descriptors(pid)[0] for pid in server.workers()}
    assert set(found.values()) == {"/dev/null"} and len(found) == workers, found


def test_with_all_standard_descriptors_closed_it_serves_all_the_same(crier):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        number = listener.fileno()
        address = listener.getsockname()
        server = crier("--no-welcome", listen=f"fd:{number}", url=False, stdin=None, pass_fds=[number],
                       preexec_fn=lambda: [os.close(descriptor) for descriptor in range(3)])
    client = server.connect(address=address)
    client.text("echo")
    client.expect_texts(["echo"])
    found = descriptors(server.pid)
    assert [found[descriptor] for descriptor in range(3)] == ["/dev/null"] * 3, found


def test_a_console_line_and_messages_from_clients_share_one_order(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=2)
    server.connect_everywhere(2, at_least=2)
    lines = [f"console {number}" for number in range(300)]
    writer = server.feed("".join(line + "\n" for line in lines).encode())
    for number in range(100):
        for client in server.clients[:3]:
            client.binary(b"%d of %d" % (number, client.port))
    orders = [[client.recv_message() for _ in range(600)] for client in server.clients]
    writer.join()
    assert all(order == orders[0] for order in orders)
    assert [payload.decode() for opcode, payload in orders[0] if opcode == TEXT] == lines
    assert sum(opcode == BINARY for opcode, _ in orders[0]) == 300


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' run-time libraries write to stdout and stderr as they like")
def test_the_output_of_another_program_can_be_piped_in():
    """`producer | crier -E` ends when the producer ends, with nothing on stdout."""
    producer = subprocess.Popen(["seq", "1", "1000"], stdout=subprocess.PIPE, env=plain_environment())
    done = run_crier("--listen", "127.0.0.1:0", "-E", "--no-welcome", stdin=producer.stdout)
    assert producer.wait() == 0
    assert done.returncode == 0 and done.stdout == "", done
