"""Who is pinged when, who is given up, and under which name it is counted."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import (BINARY, CLOSE, PING, PONG, SANITIZED, TEXT, Deadline, Frame, RawClient, encode_frame, pause, wait_until)

SLACK = 4 if SANITIZED else 1
CAUSES = ("clients_silent_closed", "clients_stuck_closed", "clients_slow_closed")


def causes(server):
    counters = server.counters()
    return tuple(counters[name] for name in CAUSES)


def pings_of(clients, seconds):
    """When each client is pinged, by its index; nobody answers."""
    times = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(times) < len(clients):
        for number, client in enumerate(clients):
            if number not in times and client.has_input():
                assert client.recv_frame().opcode == PING
                times[number] = time.monotonic()
        pause(0.005)
    return times


# ---- silence ----

def test_clients_that_came_together_are_not_pinged_together(crier):
    server = crier("--no-welcome", "--ping", "2", workers=1)
    start = time.monotonic()
    clients = [server.connect() for _ in range(100)]
    came = time.monotonic() - start
    times = pings_of(clients, 4 * SLACK)
    assert len(times) == len(clients)
    assert min(times.values()) - start >= 1.4
    # Over a quarter of the interval: without that the spread is that of coming, and a bucket of the wheel.
    assert max(times.values()) - min(times.values()) > 0.3 + came


def test_any_byte_is_a_sign_of_life(crier):
    client = crier("--no-welcome", "--ping", "0.8", "--ping-timeout", "0.2", workers=1).connect()
    frame = encode_frame(TEXT, b"a slow message")
    for byte in frame:
        client.send_raw(bytes([byte]))
        pause(0.12)
    assert client.recv_text() == "a slow message"  # and no ping before it


def test_a_client_that_answers_no_ping_is_cut_off_and_counted_as_silent(crier):
    server = crier("--no-welcome", "--ping", "0.4", "--ping-timeout", "0.3", workers=1)
    silent, good = server.connect(), server.connect()
    start = time.monotonic()
    silent_end = None
    while silent_end is None:
        frame = good.recv_frame()
        assert frame.opcode == PING
        good.send_frame(PONG, frame.payload)
        if silent.has_input() and time.monotonic() - start > 0.7:
            silent_end = silent.read_to_end()
    data, how = silent_end
    assert data == b"\x89\x00" and how == "reset"
    server.wait_counter("clients_silent_closed", 1)
    assert causes(server) == (1, 0, 0)
    good.text("still here")
    frame = good.recv_frame()
    while frame.opcode == PING:
        frame = good.recv_frame()
    assert frame.payload == b"still here"


def test_ping_0_pings_nobody_and_gives_up_nobody(crier):
    server = crier("--no-welcome", "--ping", "0", "--ping-timeout", "0.1", workers=1)
    client = server.connect()
    pause(1)
    assert not client.has_input()
    client.expect_pong()
    assert causes(server) == (0, 0, 0)


def test_ping_timeout_0_pings_and_gives_up_nobody(crier):
    server = crier("--no-welcome", "--ping", "0.2", "--ping-timeout", "0", workers=1)
    client = server.connect()
    assert client.recv_frame().opcode == PING
    pause(1)
    client.expect_pong()
    assert causes(server) == (0, 0, 0)


def test_who_takes_what_is_sent_lives_and_is_given_up_when_nothing_is_sent_any_more(crier):
    """A reader that never answers a ping: the kernel's acknowledgements of broadcasts speak for it."""
    server = crier("--no-welcome", "--ping", "0.4", "--ping-timeout", "0.3", workers=1)
    client = server.connect()
    opcodes = []
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        server.line("news")
        pause(0.05)
        while client.has_input():
            opcodes.append(client.recv_frame().opcode)
    assert opcodes.count(PING) >= 2 and opcodes.count(TEXT) >= 20
    assert causes(server) == (0, 0, 0)
    client.read_to_end()
    server.wait_counter("clients_silent_closed", 1)


# ---- a full socket ----

def test_a_client_whose_socket_stays_full_is_cut_off_and_not_counted_as_slow(crier):
    server = crier("--no-welcome", "--ping", "0.6", "--ping-timeout", "0.4", "--slow-grace", "60", workers=1)
    stuck = server.connect(receive_buffer=4096)
    server.line("x" * 1000000)
    while server.counters()["sends_blocked"] == 0:
        server.line("x" * 1000000)
    full = time.monotonic()
    server.wait_counter("clients_stuck_closed", 1)
    assert time.monotonic() - full >= 0.8
    assert causes(server) == (0, 1, 0)
    stuck.drop()


def test_a_full_socket_that_is_read_little_by_little_is_not_cut_off(crier):
    server = crier("--no-welcome", "--ping", "0.5", "--ping-timeout", "0.3", "--slow-grace", "60", workers=1)
    client = server.connect(receive_buffer=65536)
    texts = [f"{number} " + "y" * 200000 for number in range(60)]
    server.feed("\n".join(texts).encode() + b"\n")
    start = time.monotonic()
    opcodes = []
    for text in texts:
        frame = client.recv_frame()
        while frame.opcode == PING:
            frame = client.recv_frame()
        assert frame.payload.decode() == text
        opcodes.append(frame.opcode)
        pause(0.04)
    assert time.monotonic() - start > 2
    assert causes(server)[1] == 0


# ---- the clock stands still ----

def freeze(pid):
    os.kill(pid, signal.SIGSTOP)


def thaw(pid):
    os.kill(pid, signal.SIGCONT)


def test_the_clock_stands_still_while_a_client_is_not_read(crier):
    """Its broadcasts wait for room, because another worker is frozen: it cannot be heard meanwhile."""
    server = crier("--no-welcome", "--on-message", "broadcast", "--ring", "64k", "--max-message", "10k", "--ping", "2",
                   "--ping-timeout", "0.5", "--stuck-timeout", "60", workers=2)
    places = server.connect_everywhere(2)
    (frozen, _), (_, [publisher, *_]) = sorted(places.items(), key=lambda place: len(place[1]))
    flood = [b"%d " % number + b"z" * 8000 for number in range(15)]  # what one turn receives, but more than the ring
    freeze(frozen)
    try:
        publisher.send_raw(b"".join(encode_frame(BINARY, message) for message in flood))
        wait_until(lambda: server.counters()["publish_again"], "a full ring")
        pause(3)  # longer than both
        assert causes(server) == (0, 0, 0)
    finally:
        thaw(frozen)
    for message in flood:
        assert publisher.recv_frame() == Frame(True, BINARY, message)
    drained = time.monotonic()
    assert publisher.recv_frame() == Frame(True, PING, b"")
    assert time.monotonic() - drained > 1  # it had been silent for a moment, when it stopped being read


def test_a_worker_that_stood_still_does_not_blame_its_clients(crier):
    server = crier("--no-welcome", "--ping", "0.4", "--ping-timeout", "0.3", "--stuck-timeout", "60", workers=1)
    worker = server.workers()[0]
    client = server.connect()
    assert client.recv_frame().opcode == PING
    freeze(worker)
    client.send_frame(PONG)
    pause(1.5)
    thaw(worker)
    client.send_frame(PING, b"and you?")
    assert wait_until(client.has_input, "an answer") and client.recv_frame().opcode in (PING, PONG)
    assert causes(server) == (0, 0, 0)


@pytest.fixture
def busy(probe):
    """A worker that a handler keeps busy for 2 s when told to: longer than both times."""
    server = probe("--on-message", "obey", "--ping", "0.6", "--ping-timeout", "0.6", "--stuck-timeout", "60", workers=1)
    boss = server.connect()
    server.keep_busy = lambda: boss.send_raw(encode_frame(TEXT, b"work") * 3)
    return server


def expect_ping(client):
    assert client.recv_frame() == Frame(True, PING, b"")


def test_a_pong_that_came_while_the_worker_was_busy_counts(busy):
    client = busy.connect()
    expect_ping(client)
    busy.keep_busy()
    pause(0.3)
    client.send_frame(PONG)
    for _ in range(2):
        expect_ping(client)
        client.send_frame(PONG)


def test_a_ping_that_comes_late_leaves_the_whole_time_to_answer(busy):
    client = busy.connect()
    busy.keep_busy()
    expect_ping(client)
    pause(0.42)
    client.send_frame(PONG)
    expect_ping(client)


# ---- half open ----

def in_namespace(name, *command):
    return subprocess.run(["ip", "netns", "exec", name, *command], check=True, capture_output=True, timeout=20)


@pytest.fixture
def island():
    """A network namespace with a cable to this one, and the address of either end."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and ip")
    name, here, there = f"crier{os.getpid()}", f"cra{os.getpid() % 100000}", f"crb{os.getpid() % 100000}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
    try:
        for command in (f"link add {here} type veth peer name {there} netns {name}", f"addr add 10.213.7.1/30 dev {here}",
                        f"link set {here} up"):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        in_namespace(name, "ip", "addr", "add", "10.213.7.2/30", "dev", there)
        in_namespace(name, "ip", "link", "set", there, "up")
        yield name, there
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", here], capture_output=True)


def connect_in_namespace(name, address):
    """A client whose socket lives in the namespace."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{name}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        assert libc.setns(other, 0) == 0
        try:
            return RawClient(address)
        finally:
            assert libc.setns(own, 0) == 0
    finally:
        os.close(own)
        os.close(other)


def test_a_half_open_connection_is_found_also_while_broadcasts_are_sent_to_it(island, crier):
    name, cable = island
    server = crier("--no-welcome", "--ping", "0.5", "--ping-timeout", "0.5", listen="10.213.7.1:0", workers=1)
    lost = connect_in_namespace(name, server.address).handshake()
    near = server.connect()
    server.line("before")
    assert lost.recv_text() == near.recv_text() == "before"
    in_namespace(name, "ip", "link", "set", cable, "down")  # no FIN, no RST: silence
    deadline = Deadline(10 * SLACK)
    while causes(server)[0] == 0:
        deadline.left("the end of the half-open connection")
        server.line("into the void")
        while near.has_input():
            frame = near.recv_frame()
            if frame.opcode == PING:
                near.send_frame(PONG, frame.payload)
        pause(0.02)
    assert causes(server) == (1, 0, 0)
    lost.drop()


# ---- pongs that wait ----

def test_of_several_pings_that_wait_the_latest_is_answered(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier("--no-welcome", "--client-buffer", "64M", "--max-message", "8M", "--ping", "0", listen=f"unix:{path}", url=False,
                   workers=1)
    server.wait_log("listening on")
    client = RawClient(path)
    client.handshake()
    large = b"e" * 4000000
    client.binary(large)  # its echo fills the socket
    for number in range(50):
        client.send_frame(PING, b"%d" % number)
        client.wait_read()
    client.text("behind them")
    client.wait_read()
    for number in range(50, 60):
        client.send_frame(PING, b"%d" % number)
    client.wait_read()
    client.close()
    got = []
    while not got or got[-1].opcode != CLOSE:
        got.append(client.recv_frame())
    assert [frame.payload for frame in got] == [large, b"49", b"behind them", b"59", b"\x03\xe8"]
    assert wait_until(lambda: server.counters()["clients_left"], "its end") == 1
    client.socket.shutdown(socket.SHUT_RDWR)
