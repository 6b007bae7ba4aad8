"""Which clients are pinged and when, which are given up, and under which name that is counted."""

import ctypes
import os
import shutil
import signal
import subprocess
import time

import pytest

from harness import (CLOSE, PING, PONG, TEXT, Disconnected, Frame, Late, Pace, RawClient, cpu_seconds, encode_frame,
                     in_time, process_state, wait_until)

CAUSES = ("clients_silent_closed", "clients_stuck_closed", "clients_slow_closed")


def causes(server):
    counters = server.counters()
    return tuple(counters[name] for name in CAUSES)


# ---- silence ----

def test_any_byte_is_a_sign_of_life(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier("--no-welcome", "--ping", "0.8", "--ping-timeout", "0.2", listen=f"unix:{path}", workers=1)
    frame = encode_frame(TEXT, b"a slow message")

    def attempt(_):
        client = server.connect(address=path)
        with Pace(0.6) as pace:  # the earliest moment for a ping
            for byte in frame:
                client.send_raw(bytes([byte]))
                client.wait_read()
                pace.step()
                server.wait_ticks(1)
            assert client.recv_text() == "a slow message"  # and no ping before it

    in_time(attempt)


def test_a_client_that_answers_no_ping_is_cut_off_and_counted_as_silent(crier):
    def attempt(scale):
        server = crier("--no-welcome", "--ping", str(0.4 * scale), "--ping-timeout", str(0.3 * scale), workers=1)
        silent, good = server.connect(), server.connect()
        try:
            while server.counters()["clients_silent_closed"] == 0:
                answer_pings(good)
            good.text("still here")
            assert good.recv_message() == (TEXT, b"still here")
        except (Disconnected, ConnectionError) as end:
            raise Late from end
        assert silent.read_to_end() == (b"\x89\x00", "reset")
        assert causes(server) == (1, 0, 0)

    in_time(attempt)


def answer_pings(client):
    while client.has_input():
        frame = client.recv_frame()
        assert frame.opcode == PING
        client.send_frame(PONG, frame.payload)


def test_ping_0_pings_nobody_and_gives_up_nobody(crier):
    server = crier("--no-welcome", "--ping", "0", "--ping-timeout", "0.1", workers=1)
    client = server.connect()
    server.wait_ticks(6)
    assert not client.has_input()
    client.expect_pong()
    assert causes(server) == (0, 0, 0)


def test_ping_timeout_0_pings_and_gives_up_nobody(crier):
    server = crier("--no-welcome", "--ping", "0.2", "--ping-timeout", "0", workers=1)
    client = server.connect()
    expect_ping(client)
    server.wait_ticks(6)
    client.expect_pong()
    assert causes(server) == (0, 0, 0)


def test_who_takes_what_is_sent_lives_and_is_given_up_when_nothing_is_sent_any_more(crier):
    """A reader that never answers a ping: the kernel's acknowledgements of broadcasts speak for it."""
    def attempt(scale):
        server = crier("--no-welcome", "--ping", str(0.4 * scale), "--ping-timeout", str(0.3 * scale), workers=1)
        client = server.connect()
        opcodes = []
        try:
            while opcodes.count(PING) < 2 or opcodes.count(TEXT) < 20:
                server.line("news")
                opcodes.append(client.recv_frame().opcode)
        except (Disconnected, ConnectionError) as end:
            raise Late from end
        client.read_to_end()
        server.wait_counter("clients_silent_closed", 1)
        assert causes(server) == (1, 0, 0)

    in_time(attempt)


# ---- a full socket ----

def test_a_client_whose_socket_stays_full_is_cut_off_and_not_counted_as_slow(crier):
    server = crier("--no-welcome", "--ping", "0.6", "--ping-timeout", "0.4", "--slow-grace", "60", workers=1)
    stuck = server.connect(receive_buffer=4096)
    before = time.monotonic()
    while server.counters()["sends_blocked"] == 0:
        server.line("x" * 1000000)
    server.wait_counter("clients_stuck_closed", 1)
    assert time.monotonic() - before >= 0.9
    assert causes(server) == (0, 1, 0)
    stuck.drop()


def test_a_full_socket_that_is_read_little_by_little_is_not_cut_off(crier):
    texts = [f"{number} " + "y" * 200000 for number in range(30)]

    def attempt(scale):
        server = crier("--no-welcome", "--ping", str(0.5 * scale), "--ping-timeout", str(0.3 * scale), "--slow-grace", "120",
                       workers=1)
        client = server.connect(receive_buffer=65536)
        server.feed("\n".join(texts).encode() + b"\n")
        wait_until(lambda: server.counters()["sends_blocked"], "a full socket")
        start = time.monotonic()
        try:
            for text in texts:
                while (frame := client.recv_frame()).opcode == PING:
                    pass
                assert frame.payload.decode() == text
                if time.monotonic() - start < 2 * scale:
                    server.wait_ticks(scale)
        except Disconnected as end:
            raise Late from end
        assert time.monotonic() - start > 2 * scale, "it was not full for longer than both times"
        assert causes(server)[1] == 0

    in_time(attempt)


# ---- the clock stands still ----

def freeze(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")


def thaw(pid):
    os.kill(pid, signal.SIGCONT)


def test_the_clock_stands_still_while_a_client_is_not_read(probe):
    """Its broadcasts wait for room, because another worker is frozen: it cannot be heard meanwhile. Nothing is sent to it, which
    would be a sign of life of its own."""
    flood = [f"{number} " + "z" * 8000 for number in range(15)]  # what one turn receives, but more than the ring

    def attempt(scale):
        server = probe("--on-message", "broadcast-others", "--ring", "64k", "--max-message", "10k", "--ping", str(scale),
                       "--ping-timeout", str(0.3 * scale), "--stuck-timeout", "120", workers=2)
        places = server.connect_everywhere(2)
        (frozen, readers), (running, [publisher, *others]) = sorted(places.items(), key=lambda place: len(place[1]))
        for client in others:
            client.drop()
        freeze(frozen)
        try:
            with Pace(0.7 * scale):
                publisher.send_raw(b"".join(encode_frame(TEXT, message.encode()) for message in flood))
                wait_until(lambda: server.counters()["publish_again"], "a full ring")
            server.wait_ticks(30 * scale, running)  # longer than both; it tries to publish on each, which beats too
            assert causes(server) == (0, 0, 0)
        finally:
            thawed = time.monotonic()
            thaw(frozen)
        for client in readers:
            client.expect_texts(flood)
        expect_ping(publisher)
        if time.monotonic() - thawed < 0.5 * scale:  # it had been silent for a moment, when it stopped being read
            raise Late

    in_time(attempt)


def test_a_worker_that_stood_still_does_not_blame_its_clients(crier):
    def attempt(scale):
        server = crier("--no-welcome", "--ping", str(0.4 * scale), "--ping-timeout", str(0.3 * scale), "--stuck-timeout", "120",
                       workers=1)
        worker = server.workers()[0]
        client = server.connect()
        try:
            expect_ping(client)
            freeze(worker)
            client.send_frame(PONG)
            server.wait_ticks(2 * scale, server.pid)  # longer than both
            thaw(worker)
            client.send_frame(PING, b"and you?")
            assert client.recv_frame().opcode in (PING, PONG)
        except (Disconnected, ConnectionError) as end:
            raise Late from end
        assert causes(server) == (0, 0, 0)

    in_time(attempt)


class Busy:
    """A worker that a handler keeps busy for longer than both times when told to."""

    def __init__(self, probe, scale):
        self.scale = scale
        self.server = probe("--on-message", "obey", "--ping", str(0.6 * scale), "--ping-timeout", str(0.6 * scale),
                            "--stuck-timeout", "120", workers=1)
        self.worker, = self.server.workers()
        self.boss = self.server.connect()
        self.client = self.server.connect()

    def work(self):
        """2.1 s of it, or more, have begun."""
        before = cpu_seconds(self.worker)
        self.boss.send_raw(encode_frame(TEXT, b"work") * 3 * self.scale)
        wait_until(lambda: cpu_seconds(self.worker) - before > 0.05, "the worker to be busy")


def expect_ping(client):
    assert client.recv_frame() == Frame(True, PING, b"")


def test_a_pong_that_came_while_the_worker_was_busy_counts(probe):
    def attempt(scale):
        busy = Busy(probe, scale)
        try:
            expect_ping(busy.client)
            busy.work()
            busy.client.send_frame(PONG)
            for _ in range(2):
                expect_ping(busy.client)
                busy.client.send_frame(PONG)
        except (Disconnected, ConnectionError) as end:
            raise Late from end

    in_time(attempt)


def test_a_ping_that_comes_late_leaves_the_whole_time_to_answer(probe):
    def attempt(scale):
        busy = Busy(probe, scale)
        busy.work()
        try:
            expect_ping(busy.client)
            busy.server.wait_ticks(4 * scale)
            busy.client.send_frame(PONG)
            expect_ping(busy.client)
        except (Disconnected, ConnectionError) as end:
            raise Late from end

    in_time(attempt)


# ---- half open ----

def ip(name, *command):
    """In the namespace: `ip netns exec` and `ip -n` need a root directory that is a mount point as well."""
    return subprocess.run(["nsenter", f"--net=/run/netns/{name}", "ip", *command], check=True, capture_output=True, timeout=20)


@pytest.fixture
def island():
    """A network namespace with a cable to this one, and the address of either end."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and ip")
    pid = os.getpid()
    name, here, there = f"crier{pid}", f"cra{pid % 100000}", f"crb{pid % 100000}"
    network = f"10.{213 + pid // 16384 % 32}.{pid // 64 % 256}"  # of this run alone
    near, far = f"{network}.{pid % 64 * 4 + 1}", f"{network}.{pid % 64 * 4 + 2}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
    try:
        for command in (f"link add {here} type veth peer name {there} netns {name}", f"addr add {near}/30 dev {here}",
                        f"link set {here} up"):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        ip(name, "addr", "add", f"{far}/30", "dev", there)
        ip(name, "link", "set", there, "up")
        yield name, there, near
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
    name, cable, address = island

    def attempt(scale):
        ip(name, "link", "set", cable, "up")
        server = crier("--no-welcome", "--ping", str(0.5 * scale), "--ping-timeout", str(0.5 * scale), listen=f"{address}:0",
                       workers=1)
        lost = connect_in_namespace(name, server.address).handshake()
        near = server.connect()
        server.line("before")
        assert lost.recv_text() == near.recv_text() == "before"
        ip(name, "link", "set", cable, "down")  # no FIN, no RST: silence

        def found():
            server.line("into the void")
            while near.has_input():
                frame = near.recv_frame()
                if frame.opcode == PING:
                    near.send_frame(PONG, frame.payload)
            return causes(server)[0]

        try:
            wait_until(found, "the end of the half-open connection", interval=0.05)
            near.text("still here")
            while near.recv_text() == "into the void":
                pass
        except (Disconnected, ConnectionError) as end:
            raise Late from end
        assert causes(server) == (1, 0, 0)
        lost.drop()

    in_time(attempt)


# ---- pongs that wait ----

def test_of_several_pings_that_wait_the_latest_is_answered(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier("--no-welcome", "--client-buffer", "64M", "--max-message", "8M", "--ping", "0", listen=f"unix:{path}",
                   workers=1)
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
    client.drop()
    server.wait_counter("clients_left", 1)
