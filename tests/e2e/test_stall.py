"""A server that does not run for a while does not blame its clients: they read well, and all of them stay."""

import contextlib
import os
import signal
import threading
import time

import pytest

from harness import (PATIENCE, PING, PONG, TEXT, Deadline, Disconnected, Job, Late, Pace, at_once, cpu_seconds, encode_frame,
                     frozen, in_time, stopped, wait_until)

LONG = bool(os.environ.get("CRIER_LONG"))
STOPS = [("master", 0.5), ("group", 0.5), ("worker", 3), ("group", 3)]
if LONG:
    STOPS += [("worker", 0.5), ("master", 3), ("worker", 30), ("master", 30), ("group", 30)]
BLAMED = ("clients_slow_closed", "clients_silent_closed", "clients_stuck_closed", "clients_refused")
RING = 1 << 20
MESSAGE_BYTES = 32000
SMALL = 4096  # as receive buffer: more than the server's kernel keeps for it is not taken
CROWD = 300  # more than the worker asks epoll for at once
TAIL = 5  # messages, one by one, when all is over
LAST = 999_999


def message(number):
    return f"{number:06d} ".encode().ljust(MESSAGE_BYTES, b"x")


def blamed(server):
    counters = server.counters()
    return {name: counters[name] for name in BLAMED if counters[name]}


def check_before_the_stop(server):
    """Clients that are gone hold nothing back: the ring would never be full."""
    if blamed(server):
        raise Late("clients were closed before the stop")


def is_taken(server, clients):
    """The clients' kernels have all that the server's kernel took for them."""
    queues = {}
    port = f":{server.address[1]:04X}"
    with open("/proc/net/tcp") as table:
        for row in list(map(str.split, table))[1:]:
            if row[1].endswith(port):
                queues[int(row[2].rpartition(":")[2], 16)] = int(row[4].partition(":")[0], 16)
    return all(queues[client.port] == 0 for client in clients)


def drain(server, clients):
    """They read all that the server's kernel has for them, and no more when the server goes on."""
    def is_drained():
        for client in clients:
            while client.is_readable():
                client.fill(Deadline(), "what is there")
        return is_taken(server, clients) and not any(client.is_readable() for client in clients)

    wait_until(is_drained, "all to be read that is on its way")


class Reader:
    """Reads as fast as it can once it is told to."""

    def __init__(self, client):
        self.client = client
        self.numbers = []

    def read(self):
        while not self.numbers or self.numbers[-1] != LAST:
            text = self.client.recv_text(timeout=8 * PATIENCE)  # one may begin to read when a long stop begins
            if text != "work":  # the echo
                self.numbers.append(int(text[:6]))

    def start(self):
        self.job = Job(self.read)


class Town:
    """One client that broadcasts, and readers on both workers. `say` hands over the next message."""

    def __init__(self, server):
        self.server = server
        self.said = 0
        places = server.connect_everywhere(2, at_least=2, receive_buffer=SMALL)
        (self.victim, _), (_, (self.publisher, *_)) = places.items()
        self.clients = [client for clients in places.values() for client in clients if client is not self.publisher]
        self.readers = [Reader(client) for client in self.clients]
        self.sending = threading.Lock()
        Job(self.answer_pings, lasting=True)

    def answer_pings(self):
        with contextlib.suppress(Disconnected, OSError, TimeoutError):
            while self.publisher.recv_frame().opcode == PING:
                with self.sending:
                    self.publisher.send_frame(PONG)

    def say(self, number=None):
        with self.sending:
            self.publisher.send_frame(TEXT, message(self.said if number is None else number))
        self.said += 1

    def fill(self, counter, value, pace):
        """Until the counter has reached the value. No client reads yet. From half a ring on clients may be below the mark."""
        counters = self.server.counters()
        while counters[counter] < value:
            if self.said * MESSAGE_BYTES < RING // 2:
                pace.step()
            self.say()
            counters = wait_until(self.has_dealt_with_it(counter, value), "a message to be published")
            check_before_the_stop(self.server)

    def has_dealt_with_it(self, counter, value):
        def look():
            counters = self.server.counters()
            done = counters["broadcasts_published"] == self.said or counters[counter] >= value
            return counters if done else None
        return look

    def finish(self):
        """The publisher goes on, at the pace of the readers."""
        for number in [None] * TAIL + [LAST]:
            self.say(number)
            newest = self.said - 1 if number is None else number
            wait_until(lambda: all(newest in reader.numbers[-1:] or reader.job.error for reader in self.readers),
                       lambda: f"message {newest}: {blamed(self.server)}, {[len(r.numbers) for r in self.readers]}")
        for reader in self.readers:
            reader.job.join()
        return [*range(self.said - 1), LAST]


def pids_of(server, who, victim):
    return {"worker": [victim], "master": [server.pid], "group": server.processes()}[who]


POLICIES = ["close"], ["block"], ["skip"], ["latest"], ["close", "--max-lag"]


def stop_of_a_full_server(probe, flags, who, seconds, halt):
    """Clients that are held, below the pressure if the policy closes them for it, read all there is while the server
    is stopped. They are still behind when it goes on, and read the rest a little later."""
    policy = flags[0]

    def attempt(scale):
        grace = seconds * scale * 0.6
        lag = [f"{grace}s"] if flags[-1] == "--max-lag" else []
        server = probe("--on-message", "broadcast-others", "--ring", str(RING), "--max-message", "40k", "--slow", *flags, *lag,
                       "--slow-grace", str(grace), "--ping", str(scale), "--ping-timeout", str(scale),
                       "--stuck-timeout", "300", workers=2)
        town = Town(server)
        with Pace(grace / 3) as pace:
            if policy in ("close", "block"):
                town.fill("publish_again", 1, pace)
            else:
                town.fill("sends_blocked", len(town.readers), pace)
            pids = pids_of(server, who, town.victim)
            held = [reader for reader in town.readers if server.worker_of(reader.client) in pids]
            pace.step()
        with halt(pids, seconds * scale):
            check_before_the_stop(server)
            for reader in town.readers:
                if reader not in held:
                    reader.start()
            town.say()
            drain(server, [reader.client for reader in held])
        with Pace(grace / 2):
            server.wait_ticks(2)
            for reader in held:
                reader.start()
            expected = town.finish()
            assert not blamed(server)
        for reader in town.readers:
            assert reader.numbers == sorted(set(reader.numbers)), "not in order"
            assert policy in ("skip", "latest") or reader.numbers == expected
        server.drop_clients()
        server.stop()
        _, _, skipped, undeliverable = server.totals()
        assert undeliverable == 0
        assert policy in ("skip", "latest") or skipped == 0

    in_time(attempt)


@pytest.mark.limit(600 if LONG else 240)
@pytest.mark.parametrize("who, seconds", STOPS)
def test_clients_that_read_well_stay_and_have_everything_after_a_stop(probe, who, seconds):
    at_once([lambda flags=flags: stop_of_a_full_server(probe, flags, who, seconds, stopped) for flags in POLICIES])


@pytest.mark.limit(120)
@pytest.mark.parametrize("who", ["worker"] + ["group"] * LONG)
def test_clients_that_read_well_stay_when_a_cgroup_was_frozen(probe, who):
    stop_of_a_full_server(probe, POLICIES[0], who, 3, frozen)


def test_clients_that_read_well_stay_when_a_handler_takes_longer_than_the_grace(probe):
    def attempt(scale):
        grace = 1.5 * scale
        server = probe("--on-message", "obey", "--ring", str(RING), "--max-message", "40k", "--slow-grace", str(grace),
                       "--stuck-timeout", "120", workers=1)
        readers = [Reader(server.connect(receive_buffer=SMALL)) for _ in range(4)]
        said = 0
        worker, = server.workers()
        with Pace(grace / 3) as pace:
            while not server.counters()["publish_again"]:
                if said * MESSAGE_BYTES < RING // 2:
                    pace.step()
                server.line(message(said))
                said += 1
                wait_until(lambda: server.unread_input() == 0 or server.counters()["publish_again"], "a line to be read")
                check_before_the_stop(server)
            server.wait_ticks(2)  # the worker has seen that they are behind
            before = cpu_seconds(worker)
            readers[0].client.send_raw(encode_frame(TEXT, b"work") * 3 * scale)  # 0.7 s each
            wait_until(lambda: cpu_seconds(worker) - before > 0.05, "the worker to be busy")
            check_before_the_stop(server)
            pace.step()
        drain(server, [reader.client for reader in readers])
        wait_until(lambda: server.counters()["messages_received"] == 3 * scale, "the handlers to return")
        with Pace(grace / 2):
            server.wait_ticks(4)  # two are of the end of that turn
            for reader in readers:
                reader.start()
            server.line(message(LAST))
            for reader in readers:
                reader.job.join()
                assert reader.numbers == [*range(said), LAST]
            assert not blamed(server)

    in_time(attempt)


def answer_pings(clients):
    for client in clients:
        while client.has_input():
            assert client.recv_frame().opcode == PING
            client.send_frame(PONG)


@pytest.mark.limit(240)
@pytest.mark.parametrize("who, seconds", STOPS)
def test_pings_that_are_answered_during_a_stop_count(probe, who, seconds):
    def attempt(scale):
        server = probe("--ping", str(scale), "--ping-timeout", str(scale), "--stuck-timeout", "300", workers=1)
        clients = [server.connect() for _ in range(CROWD)]
        for client in clients:
            assert client.recv_frame().opcode == PING
        try:
            with stopped(pids_of(server, who, server.workers()[0]), seconds * scale):
                check_before_the_stop(server)
                for client in clients:
                    client.send_frame(PONG)
                over = time.monotonic() + seconds * scale
                with Pace(0.5 * scale) as pace:
                    while time.monotonic() < over:
                        answer_pings(clients)
                        pace.step()
            with Pace(0.5 * scale):
                server.wait_ticks(2)
                assert not blamed(server)
                for client in clients:
                    client.send_frame(PING, b"and you?")
                    while client.recv_frame().opcode != PONG:
                        pass
        except (Disconnected, ConnectionError) as end:
            raise Late from end

    in_time(attempt)


@pytest.mark.limit(240)
@pytest.mark.parametrize("who, seconds", STOPS)
def test_opening_handshakes_that_are_finished_during_a_stop_are_answered_with_101(crier, who, seconds):
    def attempt(scale):
        server = crier("--no-welcome", "--handshake-timeout", str(scale), "--ping", "0", "--stuck-timeout", "300", workers=1)
        clients = [server.socket() for _ in range(CROWD)]
        half = {client: len(client.request()) // 2 for client in clients}
        for client in clients:
            client.send_raw(client.request()[:half[client]])
        wait_until(lambda: server.counters()["clients_accepted"] == CROWD, "all to be accepted")
        with stopped(pids_of(server, who, server.workers()[0]), seconds * scale):
            check_before_the_stop(server)
            with Pace(0.5 * scale):
                for client in clients:
                    client.send_raw(client.request()[half[client]:])
        for client in clients:
            client.expect_open()
        assert not blamed(server)

    in_time(attempt)


@pytest.mark.limit(90)
@pytest.mark.parametrize("who, seconds", [("worker", 6)] + [("group", 6), ("worker", 30)] * LONG)
def test_a_close_that_is_answered_during_a_stop_ends_without_a_reset(probe, who, seconds):
    server = probe("--on-message", "close", "--stuck-timeout", "300", workers=1)
    clients = [server.connect() for _ in range(CROWD)]
    for client in clients:
        client.text("close")
        client.expect_close_frame(4321)
    with stopped(pids_of(server, who, server.workers()[0]), seconds):
        assert server.counters()["clients_left"] == 0
        for client in clients:
            client.close(4321)
    for client in clients:
        assert client.read_to_end() == (b"", "eof")


@pytest.mark.parametrize("who", ["master", "group"])
def test_drain_does_not_run_while_the_server_is_stopped(crier, who):
    def attempt(scale):
        server = crier("--no-welcome", "--drain", str(scale), "--slow", "block", "--ping", "0", workers=2)
        slow = Reader(server.connect(receive_buffer=SMALL))
        idle = server.connect()
        said = 0
        while not server.counters()["sends_blocked"]:
            server.line(message(said))
            assert int(idle.recv_text()[:6]) == said
            said += 1
        server.line(message(LAST))
        assert int(idle.recv_text()[:6]) == LAST
        server.send_signal(signal.SIGTERM)
        idle.expect_close(1001)
        with stopped(pids_of(server, who, None), 3 * scale):
            if any("--drain" in line for line in server.log):
                raise Late
        slow.read()
        assert slow.numbers == [*range(said), LAST]
        slow.client.expect_close(1001)
        assert server.wait_exit() == 0
        assert not any("--drain" in line for line in server.log)
        assert server.totals()[3] == 0

    in_time(attempt)
