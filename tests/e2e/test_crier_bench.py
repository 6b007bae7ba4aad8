"""crier-bench: what it counts is what the server counts, what it should notice it notices, what it prints can be read."""

import asyncio
import base64
import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import xml.dom.minidom

import pytest
import websockets

from harness import (BUILD, CRIER, PATIENCE, SANITIZED, Disconnected, Job, Late, RawClient, in_time, plain_environment,
                     run_crier, server_frame, wait_until)

CRIER_BENCH = os.path.join(BUILD, "crier-bench")
MANUAL = os.path.join(os.path.dirname(__file__), "../../docs/crier-bench.1")
BRIEF = ("--duration", "0.5")
LONG = bool(os.environ.get("CRIER_LONG"))
# How many workers the server has and how many threads the clients are on: with CRIER_LONG=1 each with each.
PAIRS = [(1, 1), (2, 3), (1, 3), (2, 1)][:4 if LONG else 2]
CLEAN = {"missing": 0, "duplicates": 0, "late": 0, "corrupt": 0, "other_order": 0, "disconnected": 0, "refused": 0}


def url_of(server):
    return "ws://%s:%d/" % server.address


def bench(*arguments, status=0, **how):
    """Its report."""
    done = run_crier("--json", *map(str, arguments), program=CRIER_BENCH, **how)
    assert done.returncode == status, done
    return json.loads(done.stdout)


def sentence(*arguments, status):
    done = run_crier(*map(str, arguments), program=CRIER_BENCH)
    assert done.returncode == status and done.stdout == "" and len(done.stderr.splitlines()) == 1, done
    return done.stderr


def test_a_report_on_a_closed_standard_output_is_an_error_and_goes_into_no_socket(crier):
    """Descriptor 1 would otherwise be the first that the run opens."""
    server = crier(workers=1)
    done = run_crier("--echo", "--clients", "2", "--duration", "0.1", url_of(server), program=CRIER_BENCH,
                     preexec_fn=lambda: os.close(1))
    assert done.returncode == 1
    assert done.stderr.startswith("crier-bench: cannot write the report: Bad file descriptor\n"), done.stderr


def counted(server):
    """What the server says of itself when it has ended: clients, broadcasts, due, delivered."""
    server.stop()
    line = server.wait_log("clients served")
    return (*map(int, re.search(r"served: (\d+), broadcasts published: (\d+), ", line).groups()), *server.totals()[:2])


def wait_for_messages(running):
    """A run with --progress has received some."""
    wait_until(lambda: re.search(rb" [1-9]\d* received", running.stderr.readline()), "messages")


def loopback_address():
    """An address that no other test on this machine listens on."""
    pid = os.getpid()
    with socket.socket() as taken:
        host = f"127.{100 + pid // 65536 % 100}.{pid // 256 % 256}.{pid % 254 + 1}"
        taken.bind((host, 0))
        return "%s:%d" % taken.getsockname()


# ---- it counts what the server counts ----

@pytest.mark.parametrize("workers, threads", PAIRS)
def test_broadcasts_at_a_rate_reach_everybody_in_one_order(crier, workers, threads):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    found = bench(url_of(server), *BRIEF, "--clients", 50, "--publishers", 3, "--rate", 400, "--threads", threads)
    assert found["sent"] == 200 and found["received"] == 200 * 50 and found["faults"] == CLEAN, found
    assert found["unsent"] == found["foreign"] == 0
    assert found["latency_ns"]["count"] == 200 * 50 and found["sent_late_ns"]["count"] == 200
    assert found["last_client_ns"]["count"] == 200 and found["last_client_ns"]["max"] == found["latency_ns"]["max"]
    assert found["opening_ns"]["count"] == 50
    assert counted(server)[1:] == (200, 200 * 50, 200 * 50)


@pytest.mark.parametrize("workers, threads", PAIRS)
@pytest.mark.parametrize("window", [1, 16])
def test_broadcasts_in_a_window_keep_coming_and_never_more_than_it_holds(crier, workers, threads, window):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    found = bench(url_of(server), *BRIEF, "--clients", 20, "--window", window, "--size", 1000, "--threads", threads)
    assert found["sent"] > 2 * window and found["received"] == found["sent"] * 20 and found["faults"] == CLEAN, found
    assert found["received_bytes"] >= found["received"] * 1004
    assert counted(server)[1:] == (found["sent"], found["received"], found["received"])


@pytest.mark.parametrize("how", [("--window", "1"), ("--window", "8", "--size", "100k", "--binary"), ("--rate", "2000"),
                                 ("--rate", "1000", "--size", "16", "--threads", "2")])
def test_echoes_come_back_to_who_sent_them(crier, how):
    server = crier("--no-welcome", workers=2)
    found = bench(url_of(server), *BRIEF, "--echo", "--clients", 10, *how)
    assert found["received"] == found["sent"] > 10 and found["faults"] == CLEAN, found
    if "--rate" in how:
        assert found["sent"] == 0.5 * int(how[1])


def test_idle_clients_stay_and_what_they_cost_is_seen(crier):
    server = crier("--no-welcome", workers=2)
    found = bench(url_of(server), *BRIEF, "--idle", "--clients", 500, "--threads", 2, "--pid", server.pid)
    assert found["opening_ns"]["count"] == 500 and found["faults"] == CLEAN and found["sent"] == 0, found
    assert found["server"]["processes"] == 3
    assert found["server"]["pss_bytes"] > 0 and found["server"]["pss_bytes_before"] > 0
    assert counted(server)[0] == 500


def test_memory_of_a_client_is_that_without_what_the_server_needs_for_itself():
    address = loopback_address()
    found = bench(f"ws://{address}/", "--duration", 0.1, "--idle", "--clients", 5000, "--", CRIER, "--no-welcome",
                  "--listen", address, "--workers", 2)["server"]
    assert found["processes"] == 3 and found["pss_bytes_before"] > found["pss_bytes"] / 3, found
    assert 50 < found["pss_bytes_per_client"] < 2000 * (20 if SANITIZED else 1), found


@pytest.mark.parametrize("how", [("--threads", "2"), ("--connect-rate", "200")])
def test_a_storm_connects_and_leaves_again_and_again(crier, how):
    server = crier("--no-welcome", workers=2)
    found = bench(url_of(server), *BRIEF, "--storm", "--clients", 8, *how)
    assert found["cycles"] >= 8 and found["faults"] == CLEAN, found
    if "--connect-rate" in how:
        assert found["cycles"] <= 100 and 0 < found["sent_late_ns"]["count"] <= 100, found  # fewer where the server is slower
    assert found["opening_ns"]["count"] == found["latency_ns"]["count"] == found["cycles"]
    assert counted(server)[0] == found["cycles"]


def test_connect_rate_is_kept(crier):
    server = crier("--no-welcome")
    found = bench(url_of(server), "--idle", "--duration", 0.1, "--clients", 51, "--connect-rate", 100, "--threads", 2)
    assert 0.5 <= found["connect_s"] < PATIENCE, found


@pytest.mark.parametrize("how", [("--rate", "300"), ("--window", "4")])
def test_lines_on_the_standard_input_of_a_command_are_published(how):
    address = loopback_address()
    found = bench(f"ws://{address}/", *BRIEF, "--clients", 10, "--publish", "stdin", *how, "--",
                  CRIER, "--no-welcome", "--listen", address, "--workers", "2")
    assert found["received"] == found["sent"] * 10 >= 10 and found["faults"] == CLEAN, found
    assert found["server"]["processes"] == 3 and found["server"]["cpu_s"] > 0
    assert found["server"]["cpu_s"] < 1.3 * (found["server"]["user_s"] + found["server"]["system_s"]) + 0.05
    assert found["server"]["cpu_us_each"] > 0 and found["server"]["pss_bytes"] > 100000
    host, _, port = address.rpartition(":")
    with socket.socket() as gone, pytest.raises(OSError):
        gone.connect((host, int(port)))


def test_each_connection_has_a_random_key_of_its_own(crier):
    server = crier("--no-welcome", workers=1)
    with FaultyProxy(server, lambda number, payload: [payload]) as proxy:
        bench(proxy.url, "--duration", 0.1, "--idle", "--clients", 30)
        keys = [re.search(rb"\r\nSec-WebSocket-Key: (\S+)\r\n", request).group(1) for request in proxy.requests]
    assert len(set(keys)) == len(keys) == 30, keys
    assert all(len(base64.b64decode(key, validate=True)) == 16 for key in keys), keys


def test_welcomes_are_foreign_and_do_no_harm(crier):
    server = crier(workers=2)
    found = bench(url_of(server), *BRIEF, "--echo", "--clients", 5)
    assert found["foreign"] == 1 + 2 + 3 + 4 + 5 and found["faults"] == CLEAN, found


def test_an_open_loop_measures_the_wait_behind_a_server_that_stands_still(crier):
    """A second of standstill is seen by all that was due meanwhile, also by what could not be sent."""
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)
    running = subprocess.Popen([CRIER_BENCH, url_of(server), "--duration", "4", "--clients", "2", "--rate", "100",
                                "--size", "500k", "--json",
                                "--progress"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment())
    wait_for_messages(running)
    pids = server.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    running.stderr.readline()  # it says how it is every second
    running.stderr.readline()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    found = json.loads(running.communicate(timeout=PATIENCE)[0])
    assert running.returncode == 0 and found["sent"] == 400 and found["faults"] == CLEAN, found
    assert found["latency_ns"]["max"] > 400e6 and found["latency_ns"]["p90"] > 100e6, found["latency_ns"]


@pytest.mark.skipif(not shutil.which("ip"), reason="the ip command is not installed")
def test_more_clients_than_one_address_has_ports_for_come_from_several():
    """In a network of its own with 50 local ports."""
    script = ("ip link set lo up && echo '20000 20049' >/proc/sys/net/ipv4/ip_local_port_range || exit 77; "
              'exec "$@" ws://127.0.0.1:8080/ -- "$0" --no-welcome --on-message broadcast --workers 1')
    done = run_crier("--user", "--map-root-user", "--net", "sh", "-c", script, CRIER, CRIER_BENCH, "--json",
                     "--clients", "180", "--duration", "0.1", "--rate", "100", "--threads", "2", program="unshare")
    if done.returncode in (1, 77) and "crier-bench" not in done.stderr:
        pytest.skip(f"no network of its own to be had here: {done.stderr}")
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["received"] == found["sent"] * 180 and found["faults"] == CLEAN, found


def test_a_server_that_goes_away_ends_the_run(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--drain", "1")
    running = subprocess.Popen([CRIER_BENCH, url_of(server), "--duration", "600", "--rate", "100", "--clients", "3", "--json",
                                "--progress"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment())
    wait_for_messages(running)
    server.stop()
    found = json.loads(running.communicate(timeout=PATIENCE)[0])
    assert running.returncode == 3 and 1 <= found["faults"]["disconnected"] <= 3 and found["elapsed_s"] < 60, found


# ---- over MQTT ----

class Broker:
    """As much of an MQTT broker as crier-bench asks for. Its frames have nothing to do with packets: it waits until it has
    `join` of them for a client, and then sends all in pieces of `cut` bytes."""

    def __init__(self, join=1, cut=100000, code=0, grant=0):
        self.join, self.cut, self.code, self.grant = join, cut, code, grant
        self.waiting, self.subscribers, self.protocols = {}, [], []
        self.loop = asyncio.new_event_loop()
        self.listening = concurrent.futures.Future()
        self.failures = []

    def __enter__(self):
        self.job = Job(self.loop.run_until_complete, self.run())
        self.url = "ws://127.0.0.1:%d/" % self.listening.result(PATIENCE)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.told.set_result, None)
        self.job.join(PATIENCE)
        self.loop.close()
        assert not self.failures, self.failures

    async def run(self):
        self.told = self.loop.create_future()
        async with websockets.serve(self.serve, "127.0.0.1", 0, subprotocols=["mqtt"], compression=None) as server:
            self.listening.set_result(server.sockets[0].getsockname()[1])
            await self.told

    async def serve(self, client):
        self.protocols.append(client.subprotocol)
        self.waiting[client] = []
        stream = bytearray()
        with contextlib.suppress(websockets.ConnectionClosed):
            async for data in client:
                stream += data
                try:
                    while packet := self.take_packet(stream):
                        await self.answer(packet, client)
                except websockets.ConnectionClosed:
                    raise
                except Exception as failure:
                    self.failures.append(failure)
                    raise
        if client in self.subscribers:
            self.subscribers.remove(client)

    async def answer(self, packet, client):
        if packet[0] == 0x10:
            await self.send(client, bytes([0x20, 2, 0, self.code]))
        elif packet[0] == 0x82:
            self.subscribers.append(client)
            await self.send(client, b"\x90\x03" + packet[2:4] + bytes([self.grant]))
        elif packet[0] == 0x30:
            for each in self.subscribers:
                await self.send(each, packet)

    async def send(self, client, packet):
        self.waiting[client].append(packet)
        if len(self.waiting[client]) == self.join:
            data = b"".join(self.waiting[client])
            self.waiting[client].clear()
            for at in range(0, len(data), self.cut):
                await client.send(data[at:at + self.cut])

    @staticmethod
    def take_packet(stream):
        """The first one, if it is whole."""
        length = shift = 0
        for head, byte in enumerate(stream[1:5], 2):
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                packet = bytes(stream[:head + length])
                if len(packet) < head + length:
                    return None
                del stream[:head + length]
                return packet
        return None


@pytest.mark.parametrize("join", [1, 2])
@pytest.mark.parametrize("size, cut", [(16, 1), (64, 7), (200, 1000), (20000, 999)])
def test_messages_over_mqtt_are_read_out_of_any_frames(size, cut, join):
    with Broker(join, cut) as broker:
        found = bench(broker.url, "--mqtt", *BRIEF, "--clients", 4, "--rate", 40, "--size", size, "--threads", 2)
        assert broker.protocols == ["mqtt"] * 4
    assert found["sent"] == 20 and found["received"] == 80 and found["faults"] == CLEAN and found["foreign"] == 0, found


def test_connections_over_mqtt_come_and_go():
    with Broker() as broker:
        found = bench(broker.url, "--mqtt", *BRIEF, "--storm", "--clients", 3)
    assert found["cycles"] > 5 and found["faults"] == CLEAN, found


def test_a_broker_that_refuses_is_one_sentence():
    with Broker(code=5) as broker:
        assert "refused the MQTT connection" in sentence(broker.url, "--mqtt", status=1)
    with Broker(grant=0x80) as broker:
        assert "refused the subscription" in sentence(broker.url, "--mqtt", status=1)


# ---- what it must notice ----

class FaultyProxy:
    """Passes everything on between one client and the server, except that `fault` says what becomes of each message:
    fault(number, payload) is the list of payloads that the client gets instead."""

    def __init__(self, server, fault):
        self.server = server
        self.fault = fault
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "ws://127.0.0.1:%d/" % self.listener.getsockname()[1]
        self.jobs = [Job(self.accept)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
        for job in self.jobs:  # to which that one may add
            job.join(PATIENCE)
        self.listener.close()

    def accept(self):
        for number in itertools.count():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.jobs.append(Job(self.connection, client, name=f"connection {number}"))

    def connection(self, client):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            more = client.recv(65536)
            if not more:
                return
            request += more
        self.requests.append(request)
        behind = RawClient(self.server.address, timeout=PATIENCE)
        behind.send_raw(request)
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + behind.read_response().headers["sec-websocket-accept"].encode() +
                       b"\r\n\r\n")
        self.jobs.append(Job(self.forward, client, behind.socket))
        try:
            for number in itertools.count():
                for payload in self.fault(number, behind.recv_frame().payload):
                    client.sendall(server_frame(1, payload))
        except (Disconnected, OSError, EOFError):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)  # another thread is reading it

    @staticmethod
    def forward(client, behind):
        try:
            while data := client.recv(65536):
                behind.sendall(data)
            behind.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def swap_10_and_11():
    kept = []

    def fault(number, payload):
        if number == 10:
            kept.append(payload)
            return []
        return [payload, kept[0]] if number == 11 else [payload]
    return fault


FAULTS = {
    "lost": (lambda: lambda n, p: [] if n == 10 else [p], {"missing": 1}),
    "the last ones lost": (lambda: lambda n, p: [] if n >= 90 else [p], {"missing": 10}),
    "twice": (lambda: lambda n, p: [p, p] if n == 10 else [p], {"duplicates": 1}),
    "swapped": (swap_10_and_11, {"late": 1}),
    "a byte of the filler": (lambda: lambda n, p: [p[:40] + b"!" + p[41:]] if n == 10 else [p],
                             {"corrupt": 1, "missing": 1}),
    "a byte of the stamp": (lambda: lambda n, p: [p[:4] + b"!" + p[5:]] if n == 10 else [p],
                            {"corrupt": 1, "missing": 1}),
    "cut": (lambda: lambda n, p: [p[:-1]] if n == 10 else [p], {"corrupt": 1, "missing": 1}),
    "longer": (lambda: lambda n, p: [p + b"x"] if n == 10 else [p], {"corrupt": 1, "missing": 1}),
}


@pytest.mark.parametrize("mode", ["--echo", "--broadcast"])
@pytest.mark.parametrize("name", FAULTS)
def test_what_a_server_does_wrong_is_noticed(crier, mode, name):
    make, expected = FAULTS[name]
    server = crier("--no-welcome", "--on-message", "echo" if mode == "--echo" else "broadcast", workers=1)

    def attempt(scale):
        with FaultyProxy(server, make()) as proxy:
            found = bench(proxy.url, mode, "--clients", 1, "--rate", 1000, "--duration", 0.1, "--drain", 0.3 * scale, status=3)
        assert_missing(found, expected.get("missing", 0))
        assert found["sent"] == 100 and found["faults"] == {**CLEAN, **expected}, found
        assert found["received"] == 100 - expected.get("missing", 0), found

    in_time(attempt)


def assert_missing(found, count):
    """Messages that have not arrived within --drain may be late instead of missing."""
    if found["faults"]["missing"] > count:
        raise Late(found)
    assert found["faults"]["missing"] == count, found


@pytest.mark.parametrize("threads", [1, 3])
def test_the_last_client_is_the_one_that_the_others_do_not_wait_for(crier, threads):
    """One of three clients gets every message behind the 20 that follow it."""
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)

    def attempt(scale):
        held = []

        def fault(number, payload):
            if threading.current_thread().name != "connection 2":
                return [payload]
            held.append(payload)
            return [held.pop(0)] if len(held) > 20 else []

        with FaultyProxy(server, fault) as proxy:
            found = bench(proxy.url, "--clients", 3, "--rate", 200, "--threads", threads, *BRIEF, "--drain", 0.3 * scale,
                          status=3)
        assert_missing(found, 20)
        assert found["faults"] == {**CLEAN, "missing": 20}, found
        assert found["latency_ns"]["count"] == 280 and found["last_client_ns"]["count"] == 80, found
        assert found["latency_ns"]["p50"] < found["last_client_ns"]["p50"] >= 100e6, found

    in_time(attempt)


@pytest.mark.parametrize("mode", ["--echo", "--broadcast"])
def test_a_window_is_not_exceeded_when_nothing_comes_back(crier, mode):
    server = crier("--no-welcome", "--on-message", "both", workers=1)
    with FaultyProxy(server, lambda number, payload: []) as proxy:
        found = bench(proxy.url, mode, "--clients", 1, "--window", 7, *BRIEF, "--drain", 0.1, status=3)
    assert found["sent"] == 7 and found["faults"] == {**CLEAN, "missing": 7}, found


def test_clients_that_do_not_see_the_same_order_are_noticed(crier):
    """Each publisher's own messages stay in order; only between publishers one client sees another order."""
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)
    held = []
    released = []

    def hold_back(payload):
        """Publisher 1's messages behind the next of publisher 0's."""
        if released or payload[1:3] not in (b"00", b"01"):
            return [payload]
        if payload[1:3] == b"01":
            held.append(payload)
            return []
        if held:
            released.append(True)
        return [payload, *held]

    chosen = []

    def fault(number, payload):
        me = threading.get_ident()
        if not chosen:
            chosen.append(me)
        return hold_back(payload) if chosen[0] == me else [payload]

    with FaultyProxy(server, fault) as proxy:
        found = bench(proxy.url, "--clients", 4, "--publishers", 2, "--rate", 100, *BRIEF, status=3)
    assert found["faults"]["other_order"] in (1, 3), found
    assert {**found["faults"], "other_order": 0} == CLEAN, found


def test_clients_that_the_server_closes_are_counted_and_the_others_go_on(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)

    def fault(number, payload):
        if number == 10 and threading.current_thread().name == "connection 2":  # 0 checks that a server listens, 1 publishes
            raise EOFError
        return [payload]

    with FaultyProxy(server, fault) as proxy:
        found = bench(proxy.url, *BRIEF, "--clients", 3, "--rate", 100, status=3)
    assert found["faults"] == {**CLEAN, "disconnected": 1}, found
    assert found["sent"] == 50 and found["received"] == 2 * 50 + 10 and found["last_client_ns"]["count"] == 10, found


@pytest.mark.parametrize("threads", [1, 2])
def test_a_publisher_that_is_disconnected_ends_the_run_at_once(crier, threads):
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "1k", workers=1)
    done = run_crier(url_of(server), "--duration", "600", "--drain", "600", "--clients", "5", "--size", "2k", "--json",
                     "--threads", str(threads), program=CRIER_BENCH)
    found = json.loads(done.stdout)
    assert done.returncode == 3 and found["faults"] == {**CLEAN, "disconnected": 1}, done
    assert found["elapsed_s"] < 60
    assert re.fullmatch(r"crier-bench: it ended after \d+\.\d\d s, because a publisher was disconnected; "
                        r"client 0: the server closed it with 1009 .*\n", done.stderr), done


def test_a_server_that_does_not_broadcast_is_told_apart_from_one_that_loses(crier):
    server = crier("--no-welcome")

    def attempt(scale):
        done = run_crier(url_of(server), *BRIEF, "--rate", "20", "--clients", "3", "--drain", str(0.1 * scale),
                         program=CRIER_BENCH)
        missing = int(re.search(r"(\d+) messages did not arrive", done.stdout)[1])
        if missing > 20:
            raise Late(done)
        assert done.returncode == 3 and missing == 20, done
        assert "only publishers received anything" in done.stdout, done

    in_time(attempt)


# ---- what it says ----

def keys_of(value, path=""):
    for key, inner in value.items():
        yield path + key
        if isinstance(inner, dict):
            yield from keys_of(inner, path + key + ".")


def test_the_manual_has_every_key_of_the_json_and_no_other(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    found = bench(url_of(server), "--duration", 0.1, "--pid", server.pid)
    with open(MANUAL) as f:
        documented = set(re.findall(r"^\.It Ic (\S+)", f.read(), re.M))
    histograms = {k for k in keys_of(found) if k.startswith(("last_client_ns.", "opening_ns.", "sent_late_ns."))}
    assert set(keys_of(found)) - histograms == documented


def test_people_get_the_same_as_programs(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    done = run_crier(url_of(server), "--duration", "1.5", "--rate", "100", "--clients", "10", "--pid", str(server.pid), "--progress",
                     program=CRIER_BENCH)
    assert done.returncode == 0, done
    assert re.search(r"^sent +150 messages", done.stdout, re.M) and re.search(r"^received +1500 messages", done.stdout, re.M)
    assert "every message arrived once, whole and in order" in done.stdout
    assert re.search(r"^latency +p50 .* p99.99 .* max ", done.stdout, re.M), done.stdout
    assert "crier-bench: " in done.stderr and "10 connected" in done.stderr


def test_an_interrupt_ends_it_with_the_report_so_far(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    running = subprocess.Popen([CRIER_BENCH, url_of(server), "--duration", "600", "--rate", "100", "--clients", "3", "--json",
                                "--progress"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment())
    wait_for_messages(running)
    running.send_signal(signal.SIGINT)
    found = json.loads(running.communicate(timeout=PATIENCE)[0])
    assert running.returncode == 0 and found["interrupted"] is True and found["faults"] == CLEAN, found
    assert found["received"] == 3 * found["sent"] > 0 and found["unsent"] == 0, found


@pytest.mark.skipif(not shutil.which("gnuplot"), reason="gnuplot is not installed")
@pytest.mark.parametrize("name", ["it's.svg", "plot.png"])
def test_a_plot_is_drawn(crier, tmp_path, name):
    server = crier("--no-welcome", "--on-message", "broadcast")
    bench(url_of(server), *BRIEF, "--plot", tmp_path / name)
    drawn = (tmp_path / name).read_bytes()
    if name.endswith(".png"):
        assert drawn.startswith(b"\x89PNG")
    else:
        assert xml.dom.minidom.parseString(drawn).documentElement.tagName == "svg" and b"99.9 %" in drawn


def test_a_missing_gnuplot_is_said_before_the_run():
    done = run_crier("--plot", "x.svg", program=CRIER_BENCH, env=plain_environment(PATH="/nonexistent"))
    assert done.returncode == 1 and "needs gnuplot" in done.stderr and len(done.stderr.splitlines()) == 1, done


@pytest.mark.parametrize("flags", [["--bogus"], ["--clients", "0"], ["--clients", "many"], ["--size", "15"], ["--size", "1x"],
                                   ["--rate", "10", "--window", "2"], ["--publishers", "200"], ["--publish", "stdin"],
                                   ["--publish", "mail"], ["--duration", "-1"], ["--duration", "nan"], ["--rate", "inf"],
                                   ["--plot", "x.gif"], ["http://127.0.0.1/"], ["wss://127.0.0.1/"], ["ws:///"],
                                   ["ws://[::1/"], ["ws://a/", "ws://b/"], ["--echo", "--publish", "stdin", "--", "cat"],
                                   ["--mqtt", "--publish", "stdin", "--", "cat"], ["--mqtt", "--echo"],
                                   ["--subprotocol", "a b"], ["--subprotocol", ""]])
def test_a_bad_command_line_is_one_sentence_and_status_2(flags):
    sentence(*flags, status=2)


def test_what_cannot_be_done_is_one_sentence_and_status_1(crier):
    address = loopback_address()
    assert "Connection refused" in sentence(f"ws://{address}/", status=1)
    assert "cannot start" in sentence(f"ws://{address}/", "--", "/nonexistent/server", status=1)
    assert "ended before" in sentence(f"ws://{address}/", "--", "true", status=1)
    server = crier("--no-welcome")
    assert "there is no process" in sentence(url_of(server), "--pid", 2 ** 22 + 1, status=1)
    assert "descriptors" in sentence(url_of(server), "--clients", 2000000, status=1)


def test_a_server_that_is_no_websocket_server_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def refuse_all():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    if peer.recv(65536):
                        peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        job = Job(refuse_all)
        for mode in ("--echo", "--storm"):
            said = sentence("ws://127.0.0.1:%d/" % listener.getsockname()[1], mode, "--clients", 1, status=1)
            assert "the server answered 'HTTP/1.1 404 Not Found'" in said, said
        listener.shutdown(socket.SHUT_RDWR)
        job.join()


def test_help_and_version():
    assert "--storm" in run_crier("--help", program=CRIER_BENCH).stdout
    assert run_crier("--version", program=CRIER_BENCH).stdout.startswith("crier-bench ")
