"""The master shares connections out, outlives its workers, and is not needed for messages to flow."""

import contextlib
import os
import resource
import signal
import subprocess
import threading

import pytest

from harness import (PATIENCE, SANITIZED, TEXT, Closed, Disconnected, Job, Swarm, at_once, descriptors, each_worker_count,
                     is_alive, process_state, run_crier, wait_until)
from harness.procs import socket_inode


def limit_descriptors(soft):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))


# ---- processes ----

@each_worker_count
def test_there_are_as_many_workers_as_asked_for(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    assert len(server.workers()) == workers


def test_auto_is_one_worker_per_processor(crier):
    server = crier("--no-welcome", "--workers", "auto")
    count = len(os.sched_getaffinity(0))
    wait_until(lambda: len(server.workers()) == count, lambda: f"{count} workers, there are {server.workers()}")
    server.connect().expect_pong()


def test_each_connection_goes_to_the_worker_with_the_fewest_clients(crier):
    server = crier("--no-welcome", workers=4)
    places = server.connect_everywhere(4)
    most = max(map(len, places.values()))
    while len(server.clients) < 4 * most:
        client = server.connect()
        places[server.worker_of(client)].append(client)
    assert {len(clients) for clients in places.values()} == {most}, "not evenly shared"
    # When one worker's clients leave, the next ones go there.
    pid, clients = next(iter(places.items()))
    for client in clients:
        client.close(1000)
        client.expect_close(1000, answer=False)
    wait_until(lambda: server.worker_of(server.connect()) == pid, "a connection to the worker without clients")


def test_the_soft_limit_of_descriptors_is_raised(crier):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = crier("--no-welcome", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    server.connect().expect_pong()
    for pid in server.processes():
        soft = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        assert soft == hard, f"process {pid} has a soft limit of {soft}, the hard one is {hard}"


def test_workers_inherit_no_listening_socket_and_no_console(crier):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    console = descriptors(server.pid)[0]
    with open("/proc/net/tcp") as table:
        rows = [row.split() for row in table.read().splitlines()[1:]]
    listening = "0A"
    inodes = [row[9] for row in rows if row[1].endswith(f":{server.address[1]:04X}") and row[3] == listening]
    assert len(inodes) == 1, rows
    for pid in server.workers():
        held = descriptors(pid).values()
        assert console not in held, f"worker {pid} holds the console's pipe"
        assert f"socket:[{inodes[0]}]" not in held, f"worker {pid} holds the listening socket"


def test_a_worker_inherits_an_eventfd_of_each_process(crier):
    server = crier("--no-welcome", workers=3)
    server.connect_everywhere(3)
    for pid in server.workers():
        held = descriptors(pid)
        eventfds = [fd for fd, what in held.items() if what == "anon_inode:[eventfd]"]
        assert sorted(eventfds)[:4] == list(range(5, 9)), held  # CHAN_FD_WAKE: the master's, then the workers'


# ---- out of descriptors ----

@pytest.mark.skipif(SANITIZED, reason="the sanitizers need descriptors of their own")
@pytest.mark.parametrize("workers", [1, 2])
def test_connections_that_do_not_fit_are_served_when_others_leave(crier, workers):
    server = crier("--no-welcome", "--handshake-timeout", "60", workers=workers, preexec_fn=limit_descriptors(64))
    waiting = [server.socket() for _ in range(200)]
    for client in waiting:
        client.send_raw(client.request())

    def answered():
        return [client for client in waiting if client.has_input()]

    wait_until(lambda: len(answered()) >= 10, "the first connections to be served")
    # It settles: no more are served, the master is still and says so once.
    served = server.settled(answered)
    assert len(served) < len(waiting), "64 descriptors held 200 connections"
    logged = len(server.log)
    server.assert_idle()
    for pid in server.workers():
        server.assert_idle(pid)
    assert len(server.log) == logged, f"it goes on logging: {server.log[logged:]}"
    assert logged < 12, f"not logged once: {server.log}"
    for client in served:
        client.expect_open()
        client.text("inside")
        client.expect_texts(["inside"])
    while waiting:
        for client in served:
            client.drop()
            waiting.remove(client)
            server.clients.remove(client)
        served = waiting and wait_until(answered, lambda: f"one of {len(waiting)} that wait to be served")
        for client in served:
            client.expect_open()
    assert server.process.poll() is None


def test_a_master_without_a_free_descriptor_accepts_again_when_there_is_one(crier):
    server = crier("--no-welcome", workers=2)
    client = server.connect()
    before = len(server.log)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    connection = f"socket:[{socket_inode(server.address, client.local)}]"
    wait_until(lambda: connection not in descriptors(server.pid).values(), "the master to close what it has passed on")
    # The limit bounds the numbers of new descriptors: none is left from the lowest free one on.
    used = descriptors(server.pid)
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free, hard))
    late = [server.socket() for _ in range(20)]
    for one in late:
        one.send_raw(one.request())
    server.wait_log(r"(?i)descriptor|open files|ulimit|NOFILE", start=before)
    server.assert_idle()
    server.wait_ticks(2, server.pid)
    assert len(server.log) - before <= 2, f"not logged once: {server.log[before:]}"
    assert not any(one.has_input() for one in late)
    client.text("still served")
    client.expect_texts(["still served"])
    server.line("the console as well")
    client.expect_texts(["the console as well"])
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for one in late:
        one.expect_open()
        one.expect_pong()


# ---- workers that die ----

@pytest.mark.parametrize("workers", [2, 4])
def test_the_death_of_a_worker_loses_nothing_for_the_clients_of_others(crier, workers):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    places = server.connect_everywhere(workers, at_least=4)
    victim, doomed = next(iter(places.items()))
    others = [client for client in server.clients if client not in doomed]
    lines = [f"line {number}" for number in range(20000)]
    half = threading.Event()

    def write():
        for some in range(0, len(lines), 100):
            server.write("".join(f"{line}\n" for line in lines[some:some + 100]).encode())
            if some == len(lines) // 2:
                half.set()

    writer = Job(write)
    assert half.wait(4 * PATIENCE)
    for number, client in enumerate(others):
        client.text(f"client {number}")
    os.kill(victim, signal.SIGKILL)
    writer.join()
    server.wait_counter("messages_received", len(others))
    server.line("that is all")
    orders = [client.texts_until("that is all") for client in others]
    assert all(order == orders[0] for order in orders), "not one order"
    assert [text for text in orders[0] if text.startswith("line")] == lines, "lines lost, doubled or out of order"
    assert sorted(text for text in orders[0] if text.startswith("client")) == \
        sorted(f"client {number}" for number in range(len(others)))
    # The dead worker's own clients have a part of the stream, without a gap, and are disconnected.
    for client in doomed:
        seen = []
        with pytest.raises(Disconnected):
            while True:
                seen.append(client.recv_text())
        assert seen == orders[0][:len(seen)], f"{client.name} saw something else than the others"


@each_worker_count
def test_the_successor_of_a_worker_that_has_lived_for_a_second_starts_at_once(crier, workers):
    server = crier("--no-welcome", workers=workers)
    places = server.connect_everywhere(workers, at_least=2)
    victim, doomed = next(iter(places.items()))
    server.wait_ticks(11)
    os.kill(victim, signal.SIGKILL)
    for client in doomed:
        client.read_to_end()

    def reaches_a_new_worker():
        client = server.connect()
        client.text("hello")
        client.expect_texts(["hello"])
        return server.worker_of(client) not in places

    server.wait_log(rf"\b{victim}\b.*; starting another$")
    wait_until(reaches_a_new_worker, "a new worker to serve")
    wait_until(lambda: len(server.workers()) == workers, f"{workers} workers")
    server.line("to all that are left")
    for client in server.clients:
        if client not in doomed:
            client.expect_texts(["to all that are left"])


def test_the_death_of_a_worker_is_logged(crier):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    victim = server.workers()[0]
    start = len(server.log)
    os.kill(victim, signal.SIGKILL)
    server.wait_log(rf"\b{victim}\b", start=start)


def test_all_workers_may_die_at_once(crier):
    server = crier("--no-welcome", workers=4)
    server.connect_everywhere(4)
    before = server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for client in server.clients:
        client.read_to_end()
    server.drop_clients()
    client = server.connect()
    client.text("hello")
    client.expect_texts(["hello"])
    server.line("from the console")
    client.expect_texts(["from the console"])
    wait_until(lambda: len(server.workers()) == 4, "four new workers")
    assert not set(before) & set(server.workers())


def test_workers_may_die_again_and_again(crier):
    server = crier("--no-welcome", workers=2)
    for _ in range(6):
        client = server.connect()
        client.expect_pong()
        os.kill(server.worker_of(client), signal.SIGKILL)
        client.read_to_end()
    wait_until(lambda: len(server.workers()) == 2, "two workers")
    client = server.connect()
    server.line("after six deaths")
    client.expect_texts(["after six deaths"])


def test_a_worker_that_dies_while_it_opens_a_client_leaves_books_that_add_up(crier):
    server = crier("--no-welcome", workers=1)
    client = server.connect()
    client.expect_pong()
    worker = server.worker_of(client)
    os.kill(worker, signal.SIGSTOP)
    request = server.socket()
    request.send_raw(request.request())
    wait_until(lambda: server.waiting_connections() == 0, "the master to pass the connection on")
    # It begins to watch the socket of the newcomer, whose request is there, when that is a client.
    killer = subprocess.Popen(["strace", "-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:signal=KILL", "-o", os.devnull,
                               "-p", str(worker)], stderr=subprocess.DEVNULL)
    wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{worker}/status").read(), "strace at the worker")
    os.kill(worker, signal.SIGCONT)
    killer.wait(PATIENCE)
    request.read_to_end()
    server.wait_counter("clients_lost", 2)
    assert (server.counters()["clients_opened"], server.counters()["clients_left"]) == (2, 2)


@pytest.mark.parametrize("without", [["Upgrade"], ["Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]])
def test_who_got_an_answer_but_101_is_not_counted_again_when_the_worker_dies(crier, without):
    server = crier("--no-welcome", workers=1)
    client = server.connect()
    other = server.socket()
    other.send_raw(other.request(without=without))
    other.read_to_end()
    before = server.counters()["clients_refused"]
    os.kill(server.worker_of(client), signal.SIGKILL)
    server.wait_counter("clients_lost", 1)
    assert server.counters()["clients_refused"] == before == (1 if without == ["Upgrade"] else 0)


def test_connections_made_while_no_worker_runs_are_served_by_the_next(crier):
    server = crier("--no-welcome", workers=1)
    server.connect().expect_pong()
    os.kill(server.workers()[0], signal.SIGKILL)
    clients = [server.socket() for _ in range(20)]
    for client in clients:
        client.send_raw(client.request())
    for client in clients:
        client.expect_open()
        client.expect_pong()


def last_sums(server):
    """Stops the server when all clients are gone: due, delivered, undeliverable and not addressed, by the counters; the
    last line must agree with them."""
    server.wait_counter("clients_left", server.counters()["clients_opened"])
    counters = server.counters()
    server.stop()
    due, delivered, skipped, undeliverable, not_addressed = (
        counters[f"broadcasts_{name}"] for name in ("due", "delivered", "skipped", "undeliverable", "not_addressed"))
    assert server.totals() == (due - not_addressed, delivered, 0, undeliverable) and skipped == 0, counters
    return due, delivered, undeliverable, not_addressed


@pytest.mark.parametrize("mode", ["echo", "both"])
def test_the_last_sums_add_up_after_the_death_of_a_worker_whose_clients_had_not_read_everything(crier, mode):
    server = crier("--no-welcome", "--on-message", mode, "--slow-grace", "60", workers=2)
    places = server.connect_everywhere(2, at_least=2)
    victim, survivor = list(places)
    stalled = [server.connect(receive_buffer=4096) for _ in range(8)]
    stalled = [client for client in stalled if server.worker_of(client) == victim]
    assert stalled
    clients = len(server.clients)
    own = 0
    if mode == "both":  # what a client published itself is not addressed to it
        for client in stalled:
            client.text("to all others")
            client.expect_texts(["to all others"])
            own += 1
        for client in places[survivor]:
            for _ in stalled:
                client.expect_texts(["to all others"])
    lines = [b"%06d" % number + b"-" * 1018 for number in range(8000)]
    writer = server.feed(b"".join(line + b"\n" for line in lines))
    at_once([lambda client=client: client.texts_until(lines[-1].decode()) for client in places[survivor]])
    writer.join()
    os.kill(victim, signal.SIGKILL)
    server.wait_log(rf"\b{victim}\b.* clients? lost")
    server.drop_clients()
    due, delivered, undeliverable, not_addressed = last_sums(server)
    assert due == clients * (len(lines) + own), "each was due everything since it came"
    assert not_addressed <= own
    assert delivered >= len(places[survivor]) * len(lines)
    assert 0 < undeliverable < clients * len(lines)


def test_clients_that_left_before_their_worker_died_are_counted_once(crier):
    """Their goodbyes wait for room in a full ring when their worker dies."""
    server = crier("--no-welcome", "--goodbye", "%a has left.", "--max-message", "64", "--ring", "4k",
                   "--slow-grace", "60", "--ping", "0", workers=1)
    victim = server.worker_of(server.connect(receive_buffer=4096))  # it never reads
    readers = [server.connect() for _ in range(5)]
    texts = {client: [] for client in readers}
    for client in readers:
        Job(collect, client, texts[client])
    lines = [f"{number:08d}" for number in range(60000)]
    server.feed("".join(f"{line}\n" for line in lines).encode())
    server.wait_held_up()
    published = server.ring().next_seq - 1
    wait_until(lambda: {len(texts[client]) for client in readers} == {published}, "the readers to have it all")
    leave, lost = readers[:3], len(server.clients) - 3
    open_before = len(descriptors(victim))
    for client in leave:
        client.drop()
    wait_until(lambda: len(descriptors(victim)) == open_before - len(leave), "the worker to notice which clients left")
    assert server.held_up(), "the ring is not full any more"
    os.kill(victim, signal.SIGKILL)
    assert f"{lost} clients lost" in server.wait_log(rf"\b{victim}\b.* clients? lost")
    wait_until(lambda: server.unread_input() == 0, "the rest of the lines to be read")
    due, delivered, undeliverable, not_addressed = last_sums(server)
    assert due == (len(leave) + lost) * published, f"{len(leave)} + {lost} clients were due {published} broadcasts each"
    assert delivered >= len(readers) * published
    assert 0 < undeliverable <= published and not_addressed == 0
    assert f"clients served: {len(leave) + lost}," in server.wait_log("stopped;")


def collect(client, texts):
    with contextlib.suppress(Closed, Disconnected, OSError):
        while True:
            texts.append(client.recv_text())


CRASH = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends each process whose parent is crier, before its main: a worker that crashes at once. */
__attribute__((constructor)) static void crash(void)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)getppid());
    FILE *f = fopen(path, "r");
    if (f && fgets(name, sizeof name, f) && strncmp(name, "crier", 5) == 0)
        abort();
}
"""


@pytest.fixture
def crash_library(tmp_path):
    source, library = tmp_path / "crash.c", tmp_path / "crash.so"
    source.write_text(CRASH)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


@pytest.mark.skipif(SANITIZED, reason="the sanitizers want to be loaded first")
def test_workers_that_crash_before_they_are_ready_end_the_server_with_4(crier, crash_library):
    server = crier("--no-welcome", workers=2, url=False, expected=4, env={"LD_PRELOAD": crash_library},
                   listen="127.0.0.1:0")
    assert server.wait_exit() == 4
    server.wait_log("(?i)worker")
    wait_until(lambda: not server.left_behind(), "all processes to end")


# ---- the master is not on the data path ----

@each_worker_count
def test_clients_talk_while_the_master_is_frozen(crier, workers):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    places = server.connect_everywhere(workers, at_least=2)
    assert len(places) == workers
    server.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: process_state(server.pid) == "T", "the master to stop")
        for number in range(100):
            for client in server.clients:
                client.text(f"{number} from {client.port}")
        orders = [[client.recv_text() for _ in range(100 * len(server.clients))] for client in server.clients]
        assert process_state(server.pid) == "T"
    finally:
        server.send_signal(signal.SIGCONT)
    assert all(order == orders[0] for order in orders)
    assert len(set(orders[0])) == 100 * len(server.clients)
    server.line("the master is back")
    for client in server.clients:
        client.expect_texts(["the master is back"])


def test_more_than_a_ring_flows_while_the_master_is_frozen(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", "--ring", "4M", "--slow-grace", "60", workers=2)
    with Swarm(server.address, 8) as swarm:
        swarm.burst(0, 10, "before")
        swarm.expect(10)
        server.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: process_state(server.pid) == "T", "the master to stop")
            swarm.burst(1, 50000, "x" * 200)
            swarm.burst(2, 50000, "y" * 200)
            swarm.expect(100010)
        finally:
            server.send_signal(signal.SIGCONT)
        assert len(swarm.report()["transcripts"]) == 1


def test_a_frozen_worker_does_not_stop_the_clients_of_others_before_the_ring_is_full(crier):
    server = crier("--no-welcome", workers=2)
    places = server.connect_everywhere(2)
    frozen, running = list(places)
    os.kill(frozen, signal.SIGSTOP)
    try:
        lines = [f"line {number}" for number in range(1000)]
        server.write("".join(f"{line}\n" for line in lines).encode())
        for client in places[running]:
            client.expect_texts(lines)
        assert is_alive(frozen)
    finally:
        os.kill(frozen, signal.SIGCONT)
    for client in places[frozen]:
        client.expect_texts(lines)
        client.text("echo")
        assert client.recv_message() == (TEXT, b"echo")


def test_starting_twice_on_one_port_leaves_the_first_alone(crier):
    server = crier("--no-welcome")
    client = server.connect()
    done = run_crier("--listen", f"127.0.0.1:{server.address[1]}")
    assert done.returncode == 3
    client.text("still here")
    client.expect_texts(["still here"])
