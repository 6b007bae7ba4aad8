"""A worker whose loop stands still is replaced after --stuck-timeout; one that is merely busy lives on."""

import os
import signal
import time

import pytest

from harness import (BINARY, PING, PONG, SANITIZED, TEXT, DeflateClient, Disconnected, Job, Late, at_once, cpu_seconds,
                     encode_frame, in_time, process_state, wait_until)

KILLED = r"worker \d+ \(pid %d\) was stalled for --stuck-timeout \(%s s\) and was killed; %d clients? lost; starting another"
also = pytest.mark.skipif(not os.environ.get("CRIER_LONG"), reason="CRIER_LONG=1 runs each variant")
long = pytest.mark.skipif(not os.environ.get("CRIER_LONG"), reason="takes the ten seconds of the default")
SMALL_RING = ("--max-message", "1k", "--ring", "64k", "--slow-grace", "60")


def freeze(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")


def assert_echo(client):
    client.text("echo")
    client.expect_texts(["echo"])


def assert_lost(clients):
    for client in clients:
        with pytest.raises(Disconnected):
            client.recv_text()


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=also)])
def test_a_frozen_worker_holds_up_a_full_ring_until_it_is_killed_and_nothing_is_lost(crier, workers):
    lines = [f"{number:0100d}" for number in range(5000)]

    def attempt(scale):
        server = crier("--no-welcome", "--stuck-timeout", str(2 * scale), *SMALL_RING, workers=workers)
        places = server.connect_everywhere(workers)
        frozen, *others = places
        freeze(frozen)
        writer = server.feed("".join(f"{line}\n" for line in lines).encode())
        try:
            server.wait_held_up()
            # The publisher waits, and does not try again and again; clients of the other workers are served.
            server.assert_idle()
            for pid in others:
                server.assert_idle(pid)
            seen = {client: client.recv_text() for pid in others for client in places[pid]}
        except AssertionError as error:
            if any("--stuck-timeout" in line for line in server.log):
                raise Late from error
            raise
        assert set(seen.values()) == {lines[0]}
        server.wait_log(KILLED % (frozen, 2 * scale, len(places[frozen])))
        at_once([lambda client=client: client.expect_texts(lines[1:]) for client in seen])
        for client in seen:
            assert_echo(client)
        writer.join()
        assert_lost(places[frozen])
        wait_until(lambda: len(server.workers()) == workers, "the successor")
        assert sum("--stuck-timeout" in line for line in server.log) == 1, f"not one line: {server.log}"

    in_time(attempt)


def test_a_worker_that_waits_for_room_serves_its_other_clients_and_costs_nothing(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--stuck-timeout", "120", *SMALL_RING, workers=2)
    places = server.connect_everywhere(2, at_least=2, send_buffer=65536)
    frozen, running = places
    sender, other = places[running][:2]
    texts = [f"{number:01000d}" for number in range(10000)]  # more than the buffers of a connection hold
    said = []

    def say_all():
        for text in texts:
            sender.text(text)
            said.append(text)

    freeze(frozen)
    writer = Job(say_all)
    server.wait_held_up(running)
    server.settled(lambda: len(said))
    assert len(said) < len(texts), "the ring was not full"
    server.assert_idle(running)
    other.send_frame(PING, b"and now?")
    got = []
    while (frame := other.recv_frame(what="pong")).opcode == TEXT:
        got.append(frame.payload.decode())
    assert (frame.opcode, frame.payload) == (PONG, b"and now?")
    os.kill(frozen, signal.SIGCONT)
    at_once([lambda client=client: client.expect_texts(texts[len(got) if client is other else 0:])
             for clients in places.values() for client in clients])
    writer.join()
    assert said == texts and got == texts[:len(got)]


def test_echoes_go_on_while_a_frozen_worker_holds_up_the_ring(crier):
    server = crier("--no-welcome", "--stuck-timeout", "120", *SMALL_RING, workers=2)
    places = server.connect_everywhere(2)
    frozen, running = places
    lines = [f"{number:0100d}" for number in range(5000)]
    freeze(frozen)
    writer = server.feed("".join(f"{line}\n" for line in lines).encode())
    server.wait_held_up()
    client = places[running][0]
    got = []
    for number in range(20):
        client.text(f"echo {number}")
        got += client.texts_until(f"echo {number}")
    assert writer.is_alive() or server.unread_input() > 0, "the ring was not full"
    assert 0 < len(got) < len(lines)
    os.kill(frozen, signal.SIGCONT)
    late = [lambda client=client: client.expect_texts(lines) for client in places[frozen]]
    others = [lambda client=client: client.expect_texts(lines) for client in places[running][1:]]
    at_once([lambda: client.expect_texts(lines[len(got):]), *late, *others])
    writer.join()
    assert server.workers() == sorted(places), "a worker was replaced"


def test_a_frozen_worker_is_replaced_although_nothing_is_published(crier):
    server = crier("--no-welcome", "--stuck-timeout", "1", workers=2)
    places = server.connect_everywhere(2, at_least=2)
    frozen, running = places
    freeze(frozen)
    server.wait_log(KILLED % (frozen, 1, len(places[frozen])))
    assert_lost(places[frozen])
    for client in places[running]:
        assert_echo(client)
    successor = wait_until(lambda: [pid for pid in server.workers() if pid not in places], "the successor")[0]
    wait_until(lambda: server.worker_of(server.connect()) == successor, "a connection to the successor")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=also)])
def test_a_worker_whose_handler_never_returns_is_replaced(probe, workers):
    server = probe("--on-message", "obey", "--stuck-timeout", "1", workers=workers)
    client = server.connect()
    pid = server.worker_of(client)
    client.text("spin")
    server.wait_log(KILLED % (pid, 1, 1))
    assert_lost([client])
    assert_echo(server.connect())


def test_a_busy_worker_is_not_killed(probe):
    """Each handler computes for 0.7 s, three of them in one turn of the loop, then three turns of one."""
    server = probe("--on-message", "obey", "--stuck-timeout", "1.5", workers=1)
    client = server.connect()
    pid = server.worker_of(client)
    begin = time.monotonic()
    client.send_raw(encode_frame(TEXT, b"work") * 3)
    client.expect_texts(["work"] * 3)
    assert time.monotonic() - begin > 2, "it was not busy for longer than the limit"
    for _ in range(3):
        client.text("work")
        client.expect_texts(["work"])
    assert server.workers() == [pid]
    assert not any("--stuck-timeout" in line for line in server.log), server.log


def tables_for_nothing(size):
    """Compressed data of about `size` bytes whose blocks have Huffman codes of their own (RFC 1951 section 3.2.7) and
    no content: nothing else takes so long to inflate."""
    code_lengths = [1 if symbol in (18, 1) else 0 for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2,
                                                                 14, 1)]
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (len(code_lengths) - 4, 4), *[(length, 3) for length in code_lengths],
              (1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7),  # 256 literals that do not occur
              (0, 1), (0, 1),                                # the end of the block and a distance, of one bit each
              (0, 1)]                                        # the end of the block
    block = "".join(format(value, f"0{bits}b")[::-1] for value, bits in fields)
    data = int((block * 8)[::-1], 2).to_bytes(len(block), "little")
    return data * (size // len(data))


def test_a_worker_that_inflates_one_bad_message_after_the_other_is_not_killed(crier):
    """None of them reaches a handler, and all are looked at in one turn of the loop."""
    frame = encode_frame(BINARY, tables_for_nothing(1170000) + b"\xff", rsv=4)

    def attempt(scale):
        server = crier("--no-welcome", "--stuck-timeout", str(scale), "--pool", f"{64 * scale}M", workers=1)
        pid, = server.workers()
        clients = [server.connect(kind=DeflateClient) for _ in range(30 * scale)]
        for client in clients:
            client.send_raw(frame[:-1])
        before = cpu_seconds(pid)
        for client in clients:
            client.send_raw(frame[-1:])
        try:
            for client in clients:
                client.expect_close(1007)
        except Disconnected as end:  # one of them took longer, because the worker was not alone
            raise Late from end
        assert cpu_seconds(pid) - before > 1.1 * scale, "it was not busy for longer than the limit"
        assert server.workers() == [pid]

    in_time(attempt)


@pytest.mark.parametrize("first", ["master", pytest.param("workers", marks=also)])
def test_nobody_is_killed_when_the_whole_server_was_stopped(crier, first):
    clock = crier("--no-welcome", workers=1)  # another server, whose timers go on while this one is stopped
    server = crier("--no-welcome", "--stuck-timeout", "1", workers=2)
    places = server.connect_everywhere(2)
    os.killpg(server.pid, signal.SIGSTOP)
    for pid in server.processes():
        wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")
    clock.wait_ticks(15)  # of 100 ms: longer than --stuck-timeout
    order = server.processes()
    for pid in order if first == "master" else reversed(order):
        os.kill(pid, signal.SIGCONT)
    for client in server.clients:
        assert_echo(client)
    server.wait_ticks(15)
    server.wait_ticks(2, server.pid)  # a worker that is thought to be stuck would be killed by now
    assert server.workers() == sorted(places), "a worker was replaced"
    assert not any("--stuck-timeout" in line for line in server.log), server.log


def test_new_connections_go_to_workers_that_take_them(crier):
    server = crier("--no-welcome", "--stuck-timeout", "120", workers=2)
    places = server.connect_everywhere(2)
    frozen, running = places
    waiting = []

    def is_served():
        client = server.socket()
        client.send_raw(client.request())
        for _ in range(5):
            if not client.has_input():
                server.wait_ticks(1)
        if not client.has_input():
            waiting.append(client)
            return False
        client.expect_open()
        return server.worker_of(client) == running

    freeze(frozen)
    server.wait_ticks(3, server.pid)  # in about a second the master takes the worker for stalled
    # The frozen one has fewer clients with each that is served: it would be the next.
    while not all(is_served() for _ in range(6)):
        assert len(waiting) < 4, "connections do not avoid the frozen worker"
    os.kill(frozen, signal.SIGCONT)
    for client in waiting:
        client.expect_open()
        assert_echo(client)
    wait_until(lambda: server.worker_of(server.connect()) == frozen, "a connection to the worker that goes on")


def test_a_frozen_worker_does_not_keep_the_server_from_stopping(crier):
    server = crier("--no-welcome", "--stuck-timeout", "1", "--drain", "0", workers=2)
    places = server.connect_everywhere(2)
    frozen, running = places
    freeze(frozen)
    server.send_signal(signal.SIGTERM)
    server.wait_log(r"was stalled for --stuck-timeout \(1 s\) and was killed; \d+ clients? lost; stopping all the same")
    for client in places[running]:
        client.expect_close(1001)
    assert server.wait_exit() == 0


def test_a_frozen_worker_that_no_timeout_ends_is_killed_when_the_server_is_to_stop_at_once(crier):
    server = crier("--no-welcome", "--stuck-timeout", "0", workers=2)
    freeze(next(iter(server.connect_everywhere(2))))
    server.send_signal(signal.SIGQUIT)
    assert server.wait_exit() == 0


@long
def test_zero_turns_it_off(crier):
    server = crier("--no-welcome", "--stuck-timeout", "0", workers=2)
    places = server.connect_everywhere(2)
    frozen = next(iter(places))
    freeze(frozen)
    server.wait_ticks(130)
    os.kill(frozen, signal.SIGCONT)
    for client in server.clients:
        assert_echo(client)
    assert server.workers() == sorted(places)


@long
@pytest.mark.skipif(SANITIZED, reason="only how long it takes differs, by much")
def test_ten_seconds_are_the_default(crier):
    server = crier("--no-welcome", workers=2)
    places = server.connect_everywhere(2)
    begin = time.monotonic()
    freeze(next(iter(places)))
    server.wait_log(r"was stalled for --stuck-timeout \(10 s\) and was killed")
    assert time.monotonic() - begin > 9, "killed too soon"
