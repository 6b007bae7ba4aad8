"""The server ends in order: what is published goes out, clients are told, no process is left."""

import os
import signal
import subprocess
import time

import pytest

from harness import (CLOSE, PATIENCE, RawClient, TEXT, all_pids, at_once, cpu_seconds, each_worker_count, encode_frame, is_alive,
                     memory_files, process_state, server_frame, wait_until)

BEFORE_THE_DEFAULT = 8  # --drain is 10 s
each_polite_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def fill(server, reader, count=4000):
    """Broadcasts so many lines of 1 KiB; returns the stream of frames once `reader` has it all."""
    lines = [b"%06d" % number + b"-" * 1018 for number in range(count)]
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    writer = server.feed(b"".join(line + b"\n" for line in lines))
    assert reader.read(len(expected), what="all lines") == expected
    writer.join()
    return expected


@each_polite_signal
@each_worker_count
def test_a_polite_signal_closes_every_client_with_1001_and_exits_0(crier, workers, number):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    server.send_signal(number)
    for client in server.clients:
        client.expect_close_frame(1001)
    for client in server.clients:
        client.close(1001)
        assert client.read_to_end()[0] == b""
    assert server.wait_exit() == 0
    wait_until(lambda: not server.left_behind(), "all processes to end")


@each_worker_count
def test_what_is_published_goes_out_before_the_close(crier, workers):
    server = crier("--no-welcome", "--slow-grace", "60", "--drain", "60", workers=workers)
    server.connect_everywhere(workers)
    for _ in range(2):
        server.connect(receive_buffer=4096)
    reader, *late = server.clients
    expected = fill(server, reader)
    server.send_signal(signal.SIGTERM)
    reader.expect_close(1001)
    for client in late:
        got = client.read(len(expected), what="what was published before the signal")
        assert got == expected
        client.expect_close(1001)
    assert server.wait_exit() == 0


def test_echoes_that_are_due_go_out_before_the_close(crier):
    server = crier("--no-welcome")
    client = server.connect()
    for number in range(100):
        client.text(f"message {number}")
    client.send_frame(9, b"mark")
    # The pong shows that the server has taken all messages.
    client.expect_texts(f"message {number}" for number in range(100))
    assert client.recv_frame().payload == b"mark"
    server.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    assert server.wait_exit() == 0


def test_the_answers_of_clients_are_awaited(crier):
    server = crier("--no-welcome", workers=2)
    places = server.connect_everywhere(2)
    server.send_signal(signal.SIGTERM)
    for client in server.clients:
        client.expect_close_frame(1001)
    server.wait_ticks(3)
    assert server.process.poll() is None, "exited although no client has answered its close"
    first, *rest = server.clients
    for client in rest:
        client.close(1001)
    server.wait_ticks(3)
    assert server.process.poll() is None, "exited although one client has not answered its close"
    first.close(1001)
    assert server.wait_exit() == 0
    assert len(places) == 2


def test_new_connections_are_not_served_once_it_stops(crier):
    server = crier("--no-welcome")
    client = server.connect()
    server.send_signal(signal.SIGTERM)
    client.expect_close_frame(1001)
    try:
        with RawClient(server.address) as late:
            late.send_raw(late.request())
            data, _ = late.read_to_end()
            assert not data.startswith(b"HTTP/1.1 101"), "a new client was let in while the server stops"
    except ConnectionError:
        pass
    client.close(1001)
    assert server.wait_exit() == 0


def test_a_client_that_does_not_answer_is_waited_for_no_longer_than_drain(crier):
    server = crier("--no-welcome", "--drain", "0.5")
    client = server.connect()
    server.send_signal(signal.SIGTERM)
    client.expect_close_frame(1001)
    assert server.wait_exit(BEFORE_THE_DEFAULT) == 0


@each_polite_signal
@each_worker_count
def test_connections_that_are_no_clients_yet_do_not_delay_the_end(crier, workers, number):
    server = crier("--no-welcome", "--drain", "40", "--handshake-timeout", "60", workers=workers)
    for _ in range(workers):
        server.socket()  # not a byte
        half = server.socket()
        half.send_raw(half.request()[:40])
        refused = server.socket()  # answered, and not closed from here
        refused.send_raw(refused.request(replace=[("Sec-WebSocket-Version", "7")]))
        assert refused.read_response().status == 426
    for client in sum(server.connect_everywhere(workers).values(), []):
        client.expect_pong()  # those before it have been taken
    begin = time.monotonic()
    server.send_signal(number)
    for client in server.clients[3 * workers:]:
        client.expect_close(1001)
    assert server.wait_exit() == 0
    seconds = time.monotonic() - begin
    assert seconds < 20, f"it ended after {seconds:.1f} s"
    assert server.wait_log("stopped;") and not [line for line in server.log if "--drain" in line]


@each_polite_signal
@pytest.mark.parametrize("last", [encode_frame(CLOSE, b"\x03\xe8"), encode_frame(3)], ids=["close", "reserved opcode"])
def test_clients_that_were_closed_and_do_not_hang_up_do_not_delay_the_end(crier, number, last):
    server = crier("--no-welcome", "--drain", "40", workers=1)
    client = server.connect()
    client.send_raw(last)
    rest, how = client.read_to_end()
    assert rest[:1] == b"\x88" and how == "eof"
    begin = time.monotonic()
    server.send_signal(number)
    assert server.wait_exit() == 0
    seconds = time.monotonic() - begin
    assert seconds < 20, f"it ended after {seconds:.1f} s"


def test_what_goes_out_last_does_not_wait_for_more_when_close_follows_and_no_fin(crier, tmp_path):
    # Unread input makes the end a reset; what the kernel had been told to hold back would be lost with it.
    server = crier("--no-welcome", "--slow", "block", workers=1)
    client = server.connect(receive_buffer=4096)
    line = b"-" * 900000
    server.line(line)
    wait_until(lambda: server.counters()["sends_blocked"] > 0, "a full socket")
    client.close(1000)
    server.connect().expect_pong()
    server.clients[1].expect_pong()  # the Close has been read
    worker, calls = server.worker_of(client), tmp_path / "calls"
    trace = subprocess.Popen(["strace", "-e", "trace=sendto,shutdown,close", "-o", str(calls), "-p", str(worker)],
                             stderr=subprocess.DEVNULL)
    wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{worker}/status").read(), "strace at the worker")
    server.send_signal(signal.SIGTERM)
    server.clients[1].expect_close(1001)
    assert client.read_to_end()[0] == server_frame(TEXT, line) + server_frame(CLOSE, b"\x03\xe8")
    assert server.wait_exit() == 0
    trace.wait(PATIENCE)
    sends = [call for call in calls.read_text().splitlines() if call.startswith("sendto") and "---" in call]
    assert sends and not [call for call in sends if "MSG_MORE" in call]


@each_polite_signal
def test_a_client_that_never_reads_is_reset_within_drain(crier, number):
    server = crier("--no-welcome", "--drain", "0.5", "--slow-grace", "60", workers=2)
    reader = server.connect()
    stands = server.connect(receive_buffer=4096)
    expected = fill(server, reader, 12000)
    server.send_signal(number)
    reader.expect_close(1001)
    assert server.wait_exit(BEFORE_THE_DEFAULT) == 0
    rest, how = stands.read_to_end()
    assert how == "reset"
    assert len(rest) < len(expected) and expected.startswith(rest), "not a part of the stream it was due"


def test_sigquit_ends_at_once_whatever_clients_do(crier):
    server = crier("--no-welcome", "--drain", "60", "--slow-grace", "60", workers=2)
    reader = server.connect()
    server.connect(receive_buffer=4096)
    fill(server, reader, 12000)
    server.send_signal(signal.SIGQUIT)
    assert server.wait_exit() == 0
    wait_until(lambda: not server.left_behind(), "all processes to end")


def test_a_second_sigint_ends_at_once_and_exits_0(crier):
    server = crier("--no-welcome", "--drain", "60", workers=2)
    client = server.connect()
    server.send_signal(signal.SIGINT)
    client.expect_close_frame(1001)
    assert server.process.poll() is None
    server.send_signal(signal.SIGINT)
    assert server.wait_exit() == 0
    wait_until(lambda: not server.left_behind(), "all processes to end")


@each_polite_signal
def test_a_signal_in_the_last_moment_does_not_change_the_exit_status(crier, number):
    for _ in range(5):
        server = crier("--no-welcome", workers=1)
        while server.process.poll() is None:
            server.send_signal(number)
        assert server.process.returncode == 0


@each_worker_count
def test_the_death_of_the_master_ends_the_workers_in_order(crier, workers):
    server = crier("--no-welcome", workers=workers, expected=-signal.SIGKILL)
    server.connect_everywhere(workers)
    pids = server.workers()
    server.send_signal(signal.SIGKILL)
    for client in server.clients:
        client.expect_close(1001)
    wait_until(lambda: not any(map(is_alive, pids)), lambda: f"workers left: {[p for p in pids if is_alive(p)]}")


@each_worker_count
def test_the_death_of_the_master_leaves_no_process_and_no_memory(crier, workers):
    server = crier("--no-welcome", "--drain", "300", workers=workers, expected=-signal.SIGKILL)
    server.connect_everywhere(workers)
    segment = memory_files(server.pid)
    assert len(segment) == 1
    server.send_signal(signal.SIGKILL)
    for client in server.clients:
        client.expect_close_frame(1001)
    # Clients that do not answer are left behind.
    wait_until(lambda: not server.left_behind(), lambda: f"processes left: {server.left_behind()}")
    assert not segment & set().union(*map(memory_files, all_pids()))


def test_a_frozen_worker_goes_with_the_others_when_the_master_dies(crier):
    server = crier("--no-welcome", workers=3, expected=-signal.SIGKILL)
    server.connect_everywhere(3)
    frozen = server.workers()[0]
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: process_state(frozen) == "T", "the worker to stop")
    server.send_signal(signal.SIGKILL)
    for client in server.clients:
        client.expect_close(1001)
    wait_until(lambda: not server.left_behind(), lambda: f"processes left: {server.left_behind()}")


def test_a_worker_whose_handler_never_returns_does_not_outlive_the_master(probe):
    server = probe("--on-message", "obey", workers=2, expected=-signal.SIGKILL)
    places = server.connect_everywhere(2)
    spinning, running = places
    places[spinning][0].text("spin")
    wait_until(lambda: cpu_seconds(spinning) > 0.2, "the worker to be busy")
    server.send_signal(signal.SIGKILL)
    for client in places[running]:
        client.expect_close(1001)
    wait_until(lambda: not server.left_behind(), lambda: f"processes left: {server.left_behind()}")


def test_what_was_published_before_the_masters_death_is_delivered(crier):
    server = crier("--no-welcome", "--slow-grace", "60", workers=2, expected=-signal.SIGKILL)
    places = server.connect_everywhere(2)
    reader, *others = server.clients
    expected = fill(server, reader, 400)

    def read_on(client):
        assert client.read(len(expected)) == expected
        client.expect_close(1001)

    server.send_signal(signal.SIGKILL)
    at_once([lambda client=client: read_on(client) for client in others])
    reader.expect_close(1001)
    assert len(places) == 2


@each_worker_count
def test_workers_ignore_the_signals_of_a_terminal(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    pids = server.workers()
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            os.kill(pid, number)
    for client in server.clients:
        client.text("still here")
        client.expect_texts(["still here"])
    assert server.workers() == pids, "a worker was replaced"


def test_ctrl_c_at_a_terminal_reaches_the_whole_group_and_ends_in_order(crier):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    os.killpg(server.pid, signal.SIGINT)
    for client in server.clients:
        client.expect_close(1001)
    assert server.wait_exit() == 0


def test_a_server_without_clients_ends_at_once(crier):
    server = crier(workers=4)
    assert server.stop() == 0
