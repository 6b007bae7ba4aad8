"""Hostile and helpless clients: the server stays up, serves the others, and neither memory nor descriptors grow."""

import contextlib
import os
import select
import socket
import threading
import time

import pytest

from harness import (BINARY, CLOSE, CONTINUATION, PING, SANITIZED, TEXT, Closed, Disconnected, Job, Late,
                     RawClient, Swarm, encode_frame, in_time, memory, open_descriptors, server_frame, wait_until)

LONG = bool(os.environ.get("CRIER_LONG"))
also = pytest.mark.skipif(not LONG, reason="CRIER_LONG=1 runs each variant")
MIB = 1 << 20


def assert_serves(client):
    client.text("are you there?")
    client.expect_texts(["are you there?"])


class Resources:
    """What the server uses, to be compared with what it uses later."""

    def __init__(self, server):
        self.server = server
        self.descriptors = open_descriptors(server.processes())
        self.memory = memory(server.processes())

    def assert_no_more(self, growth, but_descriptors=0):
        now = None

        def back():
            nonlocal now
            now = open_descriptors(self.server.processes())
            return now <= self.descriptors + but_descriptors

        wait_until(back, lambda: f"{self.descriptors} descriptors at the start, {now} now")
        self.assert_memory(growth)

    def assert_memory(self, growth):
        if SANITIZED:
            return  # the sanitizers keep freed memory
        now = memory(self.server.processes())
        grown = now["private"] - self.memory["private"]
        assert grown <= growth, f"private memory grew by {grown / MIB:.1f} MiB: {self.memory} before, {now} now"


# ---- handshakes ----

@pytest.mark.parametrize("workers", [2])
def test_500_slow_handshakes_end_in_time_and_leave_nothing(crier, workers):
    server = crier("--no-welcome", "--handshake-timeout", "2", workers=workers)
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    attackers = [server.socket() for _ in range(500)]
    for number, attacker in enumerate(attackers):
        attacker.send_raw(attacker.request()[:1 + number % 100])
    assert_serves(good)
    assert_serves(server.connect())
    server.clients.pop().drop()
    before.assert_memory(4 * MIB)
    for attacker in attackers:
        assert attacker.read_response().status == 408
        attacker.drop()
    before.assert_no_more(4 * MIB)
    assert_serves(good)


def test_full_headers_of_500_slow_handshakes_stay_within_the_pool(crier):
    server = crier("--no-welcome", "--handshake-timeout", "3", "--pool", "4M", workers=1)
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    filler = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8000
    attackers = [server.socket() for _ in range(500)]
    for attacker in attackers:
        with contextlib.suppress(ConnectionError):
            attacker.send_raw(filler)
    assert_serves(good)
    before.assert_memory(8 * MIB)
    for attacker in attackers:
        attacker.read_to_end()
        attacker.drop()
    before.assert_no_more(8 * MIB)


@pytest.mark.limit(120)
def test_500_connections_that_open_and_close_in_a_loop_leave_nothing(crier):
    server = crier(workers=2)  # with welcomes: each of them is broadcast
    good = server.connect()
    Job(read_forever, good)
    rounds = 2 if SANITIZED else 4

    def attack(kind):
        clients = [RawClient(server.address) for _ in range(500)]
        for client in clients:
            if kind != "silent":
                client.send_raw(client.request())
        for number, client in enumerate(clients):
            if kind == "handshake":
                client.expect_open()
            if number % 2:
                client.drop()
            else:
                client.reset()

    kinds = ("silent", "request", "handshake")
    for kind in kinds:
        attack(kind)
    probe = server.connect()
    made = 2 + 500 * len(kinds)
    wait_until(lambda: ended(server) == made - 2, lambda: f"the connections of the first round to end: {server.counters()}")
    before = Resources(server)
    for _ in range(rounds):
        for kind in kinds:
            attack(kind)
    before.assert_no_more(3 * MIB)
    probe.drop()
    late = server.connect()
    assert late.recv_text() == f"Welcome, {late.name}!"
    assert_serves(late)


def ended(server):
    """How many connections have ended, clients or not."""
    counters = server.counters()
    return counters["clients_left"] + counters["clients_refused"]


def read_forever(client):
    """Reads until the connection ends."""
    with contextlib.suppress(Closed, Disconnected, OSError):
        while True:
            client.recv_message(timeout=300)


# ---- frames ----

def test_a_frame_of_2_to_the_62_bytes_takes_no_memory(crier):
    server = crier("--no-welcome")
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    for number in range(200):
        with RawClient(server.address) as client:
            client.handshake(extra=encode_frame(BINARY, b"some bytes", declared=1 << 62))
            client.expect_close(1009)
    before.assert_no_more(MIB)
    assert_serves(good)


def test_announced_messages_take_memory_only_as_they_come(crier):
    server = crier("--no-welcome", workers=1)
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    clients = [server.connect(extra=encode_frame(BINARY, b"", declared=1 << 20)) for _ in range(200)]
    for client in clients[::20]:
        client.send_raw(b"x")
    assert_serves(good)
    before.assert_memory(8 * MIB)


def test_unfinished_messages_are_bounded_by_the_pool_and_its_largest_holders_closed(crier):
    server = crier("--no-welcome", "--pool", "4M", workers=1)
    good = server.connect()
    assert_serves(good)
    small = server.connect()
    small.send_frame(TEXT, b"a small part, ", fin=False)
    before = Resources(server)
    attackers = [server.connect() for _ in range(200)]
    part = encode_frame(BINARY, b"x" * 200000, fin=False)
    for attacker in attackers:
        with contextlib.suppress(ConnectionError):
            attacker.send_raw(part)
    assert_serves(good)
    before.assert_memory(8 * MIB)
    codes = []
    for attacker in attackers:
        with contextlib.suppress(ConnectionError):
            attacker.send_raw(encode_frame(CONTINUATION, b"the end"))
        try:
            opcode, payload = attacker.recv_message()
            assert (opcode, payload) == (BINARY, b"x" * 200000 + b"the end")
            codes.append("echo")
        except Closed as end:
            codes.append(end.code)
        except Disconnected as end:
            codes.append(end.how)
    assert codes.count(1013) >= 150, f"200 x 200 kB do not fit into 4 MiB: {set(codes)}"
    assert set(codes) <= {"echo", 1013}, f"{set(codes)}"
    small.send_frame(CONTINUATION, b"and the rest")
    small.expect_texts(["a small part, and the rest"])
    assert_serves(good)
    server.drop_clients()
    before.assert_memory(8 * MIB)


def test_a_large_holder_of_the_pool_that_was_sent_something_is_told_1013_and_not_reset(crier):
    server = crier("--no-welcome", "--pool", "4M", workers=1)
    good = server.connect()
    holders = [server.connect() for _ in range(12)]
    for holder in holders:
        assert_serves(holder)
    for number, holder in enumerate(holders):
        holder.send_frame(BINARY, b"x" * (600000 + number), fin=False)
        assert_serves(good)
    ends = []
    for holder in holders:
        try:
            holder.send_frame(CONTINUATION, b"the end")
        except ConnectionError:
            ends.append("reset")
            continue
        try:
            holder.recv_message()
            ends.append("echo")
        except Closed as end:
            ends.append(end.code)
        except Disconnected as end:
            ends.append(end.how)
    assert set(ends) == {"echo", 1013}, f"{ends}"
    assert ends.count(1013) >= 6, f"12 x 600 kB do not fit into 4 MiB: {ends}"


def test_a_holder_of_the_last_bytes_of_the_pool_whose_socket_is_full_is_cut_off(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "64k", "--pool", "256k",
                   "--slow-grace", "0", workers=1)
    holder = server.connect(receive_buffer=4096)
    good = server.connect()
    while server.counters()["sends_blocked"] == 0:
        good.binary(b"x" * 60000)
        assert good.recv_message() == (BINARY, b"x" * 60000)
    for _ in range(13):  # each has a buffer of 16 KiB, so that 48 KiB are left
        server.connect().send_frame(BINARY, b"x" * 16000, fin=False)
    with contextlib.suppress(ConnectionError):
        holder.send_frame(BINARY, b"x" * 32700, fin=False)
        holder.send_frame(CONTINUATION, b"x" * 16284, fin=False)
        for _ in range(200):  # one of them takes what is left: not even a Close would find room behind it
            holder.send_raw(encode_frame(CONTINUATION, b"x", fin=False))
            good.expect_pong()
    server.wait_counter("clients_overload_closed", 1)
    server.wait_counter("clients_left", 1)
    good.expect_pong()
    assert server.counters()["clients_lost"] == 0


def test_many_unfinished_messages_do_not_stop_broadcasts(crier):
    server = crier("--no-welcome", "--pool", "4M", workers=2)
    reader = server.connect()
    for _ in range(100):
        server.connect(extra=encode_frame(TEXT, b"x" * 60000, fin=False))
    for number in range(100):
        server.line(f"line {number}")
    reader.expect_texts(f"line {number}" for number in range(100))


# ---- clients that do not read ----

@pytest.mark.limit(120)
@pytest.mark.parametrize("workers", [pytest.param(1, marks=also), 2])
def test_a_client_that_never_reads_is_closed_and_all_others_get_everything(crier, workers):
    server = crier("--no-welcome", "--ring", "4M", "--slow-grace", "2", "--ping", "0", workers=workers)
    lines = [b"%08d " % number + b"0123456789abcdef" * 640 for number in range(10000 if LONG else 3000)]  # 10 kB each
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    stands = server.connect(receive_buffer=4096)
    reader = server.connect(timeout=100)
    with Swarm(server.address, 6) as swarm:
        before = Resources(server)
        reading = Job(lambda: reader.read(len(expected), timeout=100))
        begin = time.monotonic()
        writer = server.feed(b"".join(line + b"\n" for line in lines))
        swarm.expect(len(lines), 90)
        assert reading.join() == expected, "the reader missed something"
        writer.join()
        seconds = time.monotonic() - begin
        transcripts = swarm.report()["transcripts"]
        assert list(transcripts.values()) == [6], f"not one transcript: {transcripts}"
        before.assert_memory(4 * MIB)
    assert_slow_end(stands, expected)
    assert seconds < 60, f"one client that stands still held all others up for {seconds:.1f} s"
    assert_serves(reader)
    assert_serves(server.connect())


def assert_slow_end(client, expected):
    """What it got is the beginning of what it was due, and then 4008 or a reset, not silence."""
    rest, how = client.read_to_end()
    close = rest.rfind(server_frame(CLOSE, b"\x0f\xa8")[:1], max(0, len(rest) - 127))
    if how == "reset" and expected.startswith(rest):
        return
    assert close >= 0 and rest[close + 2:close + 4] == b"\x0f\xa8", \
        f"neither a reset nor close 4008 at the end of {len(rest)} bytes ({how}): {rest[-130:]!r}"
    assert expected.startswith(rest[:close]), "its stream is not the beginning of what it was due"


def test_a_client_that_is_slow_for_less_than_the_grace_misses_nothing(crier):
    server = crier("--no-welcome", "--ring", "4M", "--slow-grace", "20", workers=1)
    slow = server.connect(receive_buffer=4096)
    lines = [b"%08d " % number + b"x" * 4000 for number in range(3000)]
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    writer = server.feed(b"".join(line + b"\n" for line in lines))
    # It begins to read only when the ring is full and the console is held up.
    server.wait_held_up()
    assert slow.read(len(expected), what="all lines") == expected
    writer.join()
    assert_serves(slow)


def test_a_client_that_never_reads_its_echoes_is_not_read_from(crier):
    server = crier("--no-welcome", "--client-buffer", "64k", "--ping", "0", workers=1)
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    greedy = server.connect(receive_buffer=4096, send_buffer=65536)
    message = [b"%06d" % number + b"e" * 9994 for number in range(20000)]  # 200 MB if all were taken
    stream = iter(encode_frame(BINARY, one) for one in message)
    sent, left = flood_until_blocked(server, greedy, stream)
    assert sent < 8000, f"{sent} messages of 10 kB were taken from a client that reads nothing"
    before.assert_memory(4 * MIB)
    assert_serves(good)
    # When it reads again, it gets every echo, in order.
    sender = Job(greedy.socket.sendall, left)
    for number in range(sent):
        assert greedy.recv_message() == (BINARY, message[number]), f"echo {number}"
    sender.join()


def flood_until_blocked(server, client, frames):
    """Sends these until the server takes no more of them, and does not go on to when its timers have come three times.
    How many were begun, and what of the last one is unsent."""
    begun, left = 0, memoryview(b"")

    def has_room():
        return select.select([], [client.socket], [], 0)[1]

    def send():
        nonlocal begun, left
        while True:
            if not left:
                left = memoryview(next(frames))
                begun += 1
            left = left[client.socket.send(left):]

    client.socket.setblocking(False)
    while has_room():
        try:
            send()
        except BlockingIOError:
            server.wait_ticks(3, unless=has_room)
        except StopIteration:
            break
        if not has_room():
            server.settled(lambda: (client.unsent(), server.counters()["messages_received"]))
    client.socket.setblocking(True)
    return begun, left


def again_and_again(frame):
    stretch = frame * (262144 // len(frame) + 1)
    while True:
        yield stretch


@pytest.mark.parametrize("size", [1, pytest.param(1000, marks=also), 60000])
def test_a_client_that_does_not_read_its_echoes_costs_no_cpu(crier, size):
    server = crier("--no-welcome", "--client-buffer", "64k", workers=1)
    good = server.connect()
    stalled = server.connect(receive_buffer=4096, send_buffer=65536)
    worker = server.worker_of(good)
    flood_until_blocked(server, stalled, again_and_again(encode_frame(BINARY, b"e" * size)))
    server.assert_idle(worker, 10)
    assert_serves(good)


def test_publishing_goes_on_when_one_client_is_too_slow_and_another_is_held_a_whole_ring_ahead_of_it(crier):
    """One client lacks nothing but its echoes and is held at the head of the ring, the slow one at its other end."""
    lines = [f"{number:08d}" for number in range(60000)]
    expected = b"".join(server_frame(TEXT, line.encode()) for line in lines)
    echo = server_frame(TEXT, b"z" * 60)

    def attempt(scale):
        server = crier("--no-welcome", "--max-message", "64", "--ring", "4k", "--slow-grace", str(2 * scale), "--ping", "0",
                       "--client-buffer", "64k", workers=1)
        server.connect(receive_buffer=4096)  # the slow one
        ahead = server.connect(send_buffer=65536)
        writer = server.feed("".join(f"{line}\n" for line in lines).encode())
        seen = b""
        while not server.held_up():
            seen += ahead.read(ahead.available())
        seen += ahead.read(ahead.available())
        with contextlib.suppress(ConnectionError):
            flood_until_blocked(server, ahead, again_and_again(encode_frame(TEXT, b"z" * 60)))
        newcomer = server.connect()
        if server.counters()["clients_slow_closed"] or not server.unread_input():
            raise Late("the slow client was closed before the other was held")
        # Once the slow client is closed, and then the one ahead, the newcomer gets all that is left.
        got = newcomer.texts_until(lines[-1])
        writer.join()
        assert got == lines[-1 - len(got):-1] and len(got) > len(lines) // 2, f"not the {len(got)} last lines"
        rest, _ = ahead.read_to_end()
        broadcasts = seen + rest[:rest.index(echo)] if echo in rest else seen
        assert expected.startswith(broadcasts), "the one that was held missed lines before its echoes"

    in_time(attempt)


def test_pings_without_end_from_a_client_that_reads_nothing_take_no_memory(crier):
    server = crier("--no-welcome", "--client-buffer", "64k", "--ping", "0", workers=1)
    good = server.connect()
    assert_serves(good)
    before = Resources(server)
    flood = server.connect(receive_buffer=4096, send_buffer=65536)
    stretch = encode_frame(PING, b"p" * 125) * 500
    with contextlib.suppress(ConnectionError):
        flood_until_blocked(server, flood, (stretch for _ in range(20 * MIB // len(stretch))))
    before.assert_memory(4 * MIB)
    assert_serves(good)


def test_a_publisher_that_floods_does_not_starve_the_others(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--ring", "4M", "--slow-grace", "60", workers=2)
    reader = server.connect()
    other = server.connect()
    Job(read_forever, other)
    stop = threading.Event()
    flood = Job(flood_until, server.address, stop)
    try:
        for number in range(20):
            other.text(f"important {number}")
        important = []
        while len(important) < 20:
            text = reader.recv_text()
            if text.startswith("important"):
                important.append(text)
    finally:
        stop.set()
        other.drop()
        reader.drop()
        flood.join()
    assert important == [f"important {number}" for number in range(20)]


def flood_until(address, stop):
    with contextlib.suppress(ConnectionError, TimeoutError), RawClient(address) as client:
        client.handshake()
        frames = encode_frame(TEXT, b"noise " * 100) * 50
        drain = Job(read_forever, client)
        while not stop.is_set():
            client.send_raw(frames)
        client.socket.shutdown(socket.SHUT_RDWR)
        drain.join()


# ---- the sum ----

def test_many_clients_that_come_and_go_leave_no_descriptor_and_no_memory(crier):
    server = crier("--no-welcome", workers=2)

    def visit():
        with Swarm(server.address, 500) as swarm:
            server.line("hello all")
            swarm.expect(1)

    visit()
    assert_serves(server.connect())
    wait_until(lambda: ended(server) == 500, "the first visitors to leave")
    before = Resources(server)
    for _ in range(3):
        visit()
    before.assert_no_more(2 * MIB)
    assert os.path.exists(f"/proc/{server.pid}")
