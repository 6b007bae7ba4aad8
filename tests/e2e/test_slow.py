"""Clients that stand still, by the hundred: whole processes of them are stopped while broadcasts go past them."""

import os
import re
import signal
import time

import pytest

from harness import PATIENCE, SANITIZED, TEXT, Closed, Disconnected, Late, Swarm, in_time, resident, tcp_memory, wait_until

MIB = 1 << 20
LONG = bool(os.environ.get("CRIER_LONG"))
STOPPED = 5000 if LONG else 500
STOPPED_PROCESSES = 4
PAST_THEM = (10_000 if LONG else 200) * MIB
RING = 4 * MIB
SLOTS = RING // 32
LINE_BYTES = 10_000
READERS = 2


class Crowd:
    """Clients in processes that are stopped, a few beside them that do not read, and a few that set the pace."""

    def __init__(self, server, stopped=STOPPED):
        self.server = server
        self.published = 0
        self.stopped = [Swarm(server.address, stopped // STOPPED_PROCESSES) for _ in range(STOPPED_PROCESSES)]
        self.quiet = [server.connect() for _ in range(3)]
        self.readers = Swarm(server.address, READERS)
        self.clients = stopped + len(self.quiet) + READERS

    def __enter__(self):
        self.signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_):
        for swarm in [*self.stopped, self.readers]:
            swarm.kill()

    def signal(self, number):
        for swarm in self.stopped:
            os.kill(swarm.process.pid, number)

    def lines(self, count, size):
        first, self.published = self.published, self.published + count
        return b"".join(b"%012d" % number + b"x" * (size - 12) + b"\n" for number in range(first, self.published))

    def publish(self, count, size):
        """At the pace of the clients that read: a quarter of the ring at a time."""
        step = min(RING // 4 // size, SLOTS // 4)
        while count > 0:
            self.server.write(self.lines(min(step, count), size), 4 * PATIENCE)
            count -= step
            self.readers.expect(self.published)

    def counts(self, swarms):
        """How many messages the clients of these got together."""
        return sum(count * clients for swarm in swarms
                   for (_, count), clients in swarm.report()["transcripts"].items())

    def quiet_counts(self):
        """The same of the clients that did not read; whatever they got is whole, and in order."""
        total = 0
        for client in self.quiet:
            numbers = []
            try:
                while True:
                    message = client.recv_message(timeout=4 * PATIENCE)
                    number = int(message[1][:12])
                    assert message == (TEXT, b"%012d" % number + b"x" * (len(message[1]) - 12))
                    numbers.append(number)
            except (Closed, Disconnected):
                pass
            client.drop()
            assert numbers == sorted(set(numbers))
            total += len(numbers)
        return total


@pytest.mark.limit(900 if LONG else 120)
@pytest.mark.parametrize("policy", ["close", "skip", "latest"])
def test_clients_that_stand_still_cost_no_memory_and_everything_adds_up(crier, policy):
    server = crier("--no-welcome", "--slow", policy, "--ping", "0", "--ring", str(RING), "--drain", "120", workers=2)
    with Crowd(server) as crowd:
        crowd.publish(2 * RING // LINE_BYTES, LINE_BYTES)
        crowd.publish(2 * SLOTS, 14)  # each page of the ring, and of what is as long, has been used
        before = resident(server.processes())
        begin = time.monotonic()
        crowd.publish(PAST_THEM // LINE_BYTES, LINE_BYTES)
        seconds = time.monotonic() - begin
        after = resident(server.processes())
        tcp_each = tcp_memory(server.address[1]) / crowd.clients
        counters = server.counters()
        print(f"{policy}: {PAST_THEM / seconds / MIB:.0f} MiB/s, resident {before} to {after}, "
              f"{tcp_each / 1024:.0f} KiB of TCP each, {counters}")
        grown = {pid: after[pid] - before[pid] for pid in before}
        assert SANITIZED or max(grown.values()) <= MIB, f"{before} before, {after} after {PAST_THEM} bytes"
        assert tcp_each < 256 * 1024, f"{tcp_each} bytes of TCP memory for each"
        assert policy == "close" or 1 <= counters["slow_copies"] <= 64, "not one copy for all that were cut in a broadcast"
        slow = crowd.clients - READERS
        assert counters["clients_slow_closed"] == (slow if policy == "close" else 0)
        crowd.signal(signal.SIGCONT)
        server.send_signal(signal.SIGTERM)  # which delivers all that is still due
        got_by_quiet = crowd.quiet_counts()
        server.wait_exit(120)
        assert list(crowd.readers.report()["transcripts"].values()) == [READERS]
        due, delivered, skipped, undeliverable = server.totals()
        if policy == "close":
            assert skipped == 0 and undeliverable > 0
        else:
            assert due == crowd.clients * crowd.published
            assert undeliverable == 0 and skipped > 0
            got = crowd.counts(crowd.stopped) + got_by_quiet + READERS * crowd.published
            assert delivered == got, "what the kernel took is not what clients got"
            assert skipped == due - got


@pytest.mark.limit(300)
def test_clients_that_block_stop_the_publisher_which_uses_no_cpu_and_loses_nothing(crier):
    server = crier("--no-welcome", "--slow", "block", "--ping", "0", "--ring", str(RING), workers=2)
    with Crowd(server, stopped=200 if LONG else 40) as crowd:
        writer = server.feed(crowd.lines(5 * RING // LINE_BYTES, LINE_BYTES), 8 * PATIENCE)
        server.wait_held_up()
        before = server.counters()["broadcasts_published"]
        for pid in server.processes():
            server.assert_idle(pid)
        assert server.held_up() and server.counters()["broadcasts_published"] == before
        crowd.signal(signal.SIGCONT)
        for client in crowd.quiet:
            client.drop()
        writer.join()
        for swarm in [*crowd.stopped, crowd.readers]:
            swarm.expect(crowd.published)
        transcripts = {transcript for swarm in [*crowd.stopped, crowd.readers] for transcript in
                       swarm.report()["transcripts"]}
        assert len(transcripts) == 1, f"not one transcript: {transcripts}"
        server.stop()
        skipped = server.totals()[2]
        assert skipped == 0


def test_the_sums_add_up_after_the_death_of_a_worker_whose_clients_have_skipped(crier):
    server = crier("--no-welcome", "--slow", "skip", "--ping", "0", "--ring", str(RING), "--drain", "0.5",
                   workers=2)
    with Crowd(server, stopped=40) as crowd:
        crowd.publish(4 * RING // LINE_BYTES, LINE_BYTES)
        counters = server.counters()
        assert counters["slow_skips"] > 0 and counters["slow_copies"] > 0
        victim = server.worker_of(crowd.quiet[0])
        os.kill(victim, signal.SIGKILL)
        server.wait_log(rf"\b{victim}\b.* clients? lost")
        crowd.signal(signal.SIGKILL)
        server.stop()
        due, _, skipped, undeliverable = server.totals()
        assert due == crowd.clients * crowd.published
        assert skipped > 0 and undeliverable > 0


def test_the_log_names_a_slow_client_and_how_far_behind_it_is_but_not_every_one(crier):
    server = crier("--no-welcome", "--slow", "latest", "--max-lag", "400", "--ping", "0", "--drain", "0.5",
                   workers=1)
    begin = time.monotonic()
    with Crowd(server, stopped=40) as crowd:
        crowd.publish(2000, LINE_BYTES)
        names = {client.name for client in crowd.quiet}
        line = server.wait_log(r"reads too slowly.* more\)")
        name, behind = re.search(r"(\S+) reads too slowly, it was (\d+) broadcasts behind: it skips broadcasts", line).groups()
        assert name in names or name.startswith("127.0.0.1:")
        assert int(behind) > 400
    lines = [line for line in server.log if "reads too slowly" in line]
    assert 1 <= len(lines) <= 2 + time.monotonic() - begin, f"{len(lines)} lines: {lines}"


def test_max_lag_in_seconds_closes_a_client_although_nobody_wants_room(crier):
    def attempt(scale):
        server = crier("--no-welcome", "--max-lag", f"{0.5 * scale}s", "--ping", "0", "--drain", "0.5", workers=1)
        with Crowd(server, stopped=4) as crowd:
            slow = crowd.clients - READERS
            try:
                crowd.publish(2 * MIB // LINE_BYTES, LINE_BYTES)  # more than a socket takes, less than the ring holds
                wait_until(lambda: server.counters()["clients_slow_closed"] >= slow, "the slow ones to be closed")
                crowd.readers.send(0, "are you there?")
                crowd.readers.expect(crowd.published)
            except AssertionError as error:
                if server.counters()["clients_slow_closed"] > slow:
                    raise Late from error
                raise
            if server.counters()["clients_slow_closed"] > slow:
                raise Late
            server.stop()
            due, _, skipped, undeliverable = server.totals()
            assert skipped == 0 and undeliverable > 0

    in_time(attempt)
