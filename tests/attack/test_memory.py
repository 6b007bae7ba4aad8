"""Private memory of a worker under patterns that fragment an allocator: a bound by formula, at every moment."""

import contextlib
import os
import re
import resource

import pytest

from harness.procs import memory
from harness.raw_client import BINARY, CONTINUATION, RawClient, encode_frame
from harness.waiting import SANITIZED, wait_until

LONG = bool(os.environ.get("CRIER_LONG"))
KIB, MIB = 1 << 10, 1 << 20
POOL = (64 if LONG else 16) * MIB
HEADS = 64  # so much less than a power of two has each message

bounded = pytest.mark.skipif(SANITIZED, reason="the sanitizers keep freed memory")


class Holder(RawClient):
    """A client that sends the beginning of messages and reads nothing; the server may end it at any time."""

    def __init__(self, address):
        super().__init__(address)
        self.handshake()

    def hold(self, data):
        with contextlib.suppress(ConnectionError):
            self.send_raw(data)


def wait_left(server, clients):
    wait_until(lambda: sum(server.client_counts().values()) == clients, lambda: f"{clients} clients to be left: {server.client_counts()}")


class Gauge:
    """Private memory of the only worker, compared with what it is before the attack."""

    def __init__(self, server, pool):
        self.server = server
        self.pid, = server.workers()
        self.pool = pool
        self.base = self.now()
        self.seen = []

    def now(self):
        return memory([self.pid])["private"]

    def __str__(self):
        return f"base {self.base / MIB:.1f} MiB, pool {self.pool / MIB:.0f} MiB: {', '.join(self.seen)}"

    def check(self, what, most, least=0):
        """So many bytes above the base, once that does not change any more."""
        grown = self.server.settled(self.now, 1) - self.base
        self.seen.append(f"{what} +{grown / MIB:.1f}")
        assert least <= grown <= most, f"{self}; +{least / MIB:.1f} to +{most / MIB:.1f} is right"

    def assert_bounded(self, what):
        """The pool is in use, and no more is held than it may."""
        self.check(what, 1.1 * self.pool, 0.75 * self.pool)

    def assert_all_given_back(self):
        self.check("all have left", 4 * MIB)


def warm(server):
    """A client that stays, and has made the worker touch its buffers for input and output."""
    client = server.connect()
    client.send_frame(BINARY, b"x" * 100000, fin=False)
    client.send_frame(CONTINUATION, b"x" * 100000)
    assert client.recv_message() == (BINARY, b"x" * 200000)
    return client


def room_for(clients):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500
    if most < clients:
        pytest.skip(f"RLIMIT_NOFILE allows {most} of {clients} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most + 500, most + 500))


def start(crier, pool, clients, *flags):
    """A server for so many clients, the one that is there first, and what the worker has grown since."""
    room_for(clients)
    server = crier("--no-welcome", "--ping", "0", "--pool", str(pool), *flags, workers=1)
    return server, warm(server), Gauge(server, pool)


@bounded
@pytest.mark.limit(300)
def test_holes_of_clients_that_left_are_not_lost_for_larger_messages_of_others(crier):
    server, good, gauge = start(crier, POOL, POOL // (4 * KIB), "--max-message", "2M")
    holders = []
    for size in [4 * KIB << i for i in range(9)]:
        drop_all(server, holders[::2], len(holders) // 2)
        holders = holders[1::2]
        part = encode_frame(BINARY, b"x" * (size - HEADS), fin=False)
        for _ in range(POOL // size // (1 if size == 4 * KIB else 2)):
            holders.append(Holder(server.address))
            holders[-1].hold(part)
        gauge.assert_bounded(f"{size // KIB} KiB")
        good.expect_pong()
    drop_all(server, holders)
    gauge.assert_all_given_back()


@bounded
@pytest.mark.limit(300)
def test_messages_that_grow_beside_holes_are_not_held_more_than_once(crier):
    server, good, gauge = start(crier, POOL, POOL // (4 * KIB), "--max-message", "2M")
    holders = [Holder(server.address) for _ in range(POOL // (4 * KIB))]
    size = 0
    for more in [4 * KIB << i for i in range(9)]:
        part = encode_frame(CONTINUATION if size else BINARY, b"x" * (more - HEADS - size), fin=False)
        size = more - HEADS
        for holder in holders:
            holder.hold(part)
        gauge.assert_bounded(f"{more // KIB} KiB")
        good.expect_pong()
        drop_all(server, holders[::2], len(holders) // 2)
        holders = holders[1::2]
    drop_all(server, holders)
    gauge.assert_all_given_back()


@bounded
def test_connections_that_left_take_their_memory_with_them_though_some_stay(crier):
    count = 4000
    server, _, gauge = start(crier, 16 * MIB, count)
    clients = [Holder(server.address) for _ in range(count)]
    gauge.check("all are here", count * 250, count * 120)
    drop_all(server, [client for number, client in enumerate(clients) if number % 100], count // 100)
    gauge.check("one of a hundred is here", 400 * KIB)
    drop_all(server, clients[::100])


@pytest.mark.skipif(SANITIZED, reason="the allocators of the sanitizers do not live within these limits")
@pytest.mark.parametrize("limit, field", [(resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")])
def test_a_worker_that_gets_no_memory_ends_the_largest_and_serves_the_others(crier, limit, field):
    server = crier("--no-welcome", "--ping", "0", workers=1)
    good = warm(server)
    pid, = server.workers()
    holders = [Holder(server.address) for _ in range(400)]
    most = status_bytes(pid, field) + 8 * MIB
    resource.prlimit(pid, limit, (most, most))
    for number, holder in enumerate(holders):  # together 25 MiB
        holder.hold(encode_frame(BINARY, b"x" * (100, 5000, 50000, 200000)[number % 4], fin=False))
        if number % 20 == 0:
            good.expect_pong()
    wait_until(lambda: server.counters()["clients_overload_closed"] > 50, lambda: f"clients to be ended: {server.counters()}")
    good.expect_pong()
    drop_all(server, holders)
    for client in (good, server.connect()):
        client.binary(b"x" * 500000)
        assert client.recv_message() == (BINARY, b"x" * 500000)
    assert server.workers() == [pid]


def status_bytes(pid, field):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{field}:\s*(\d+)", f.read(), re.M).group(1)) * KIB


def drop_all(server, clients, left=0):
    """All of these leave; `left` of the others stay, and the one that was here first."""
    for client in clients:
        client.drop()
    wait_left(server, left + 1)
