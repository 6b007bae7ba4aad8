"""Every worker has its share of the clients: by the thousand, after a worker was replaced, and when none takes any."""

import contextlib
import os
import signal
import time

import pytest

from harness import PATIENCE, SANITIZED, Late, Swarm, in_time, process_state, wait_until

WORKERS = 4
CLIENTS = 2_000 if SANITIZED else 10_000 if os.environ.get("CRIER_LONG") else 5_000


def start(crier, *flags):
    return crier("--no-welcome", "--ping", "0", "--stuck-timeout", "0", *flags, workers=WORKERS)


def expect_balance(server, clients):
    """They are all there, and no two workers differ by more than 5 % of what each should have."""
    counts = {}

    def all_there():
        counts.clear()
        counts.update(server.client_counts())
        return len(counts) == WORKERS and sum(counts.values()) == clients

    wait_until(all_there, lambda: f"{clients} clients on {WORKERS} workers: {counts}", 4 * PATIENCE)
    assert max(counts.values()) - min(counts.values()) <= 0.05 * clients / WORKERS, counts
    return counts


def test_thousands_of_clients_are_shared_evenly(crier):
    server = start(crier)
    with Swarm(server.address, CLIENTS, "--rate", "100000"):
        expect_balance(server, CLIENTS)


def replaced(server, victim):
    """The counts, once another has the place of `victim`."""
    counts = server.client_counts()
    return counts if len(counts) == WORKERS and victim not in counts else None


def test_new_clients_make_up_for_those_that_were_lost_with_a_worker(crier):
    server = start(crier)
    share = CLIENTS // WORKERS
    with Swarm(server.address, CLIENTS, "--rate", "100000") as survivors:
        before = expect_balance(server, CLIENTS)
        victim = next(iter(before))
        os.kill(victim, signal.SIGKILL)
        after = wait_until(lambda: replaced(server, victim), "a successor")
        assert sorted(after.values()) == sorted([0, *(count for pid, count in before.items() if pid != victim)])
        # No more are needed than it had, and those that were left stay where they are.
        with Swarm(server.address, before[victim], "--rate", "100000"):
            counts = expect_balance(server, CLIENTS)
            assert all(abs(count - share) <= 1 for count in counts.values()), counts
            assert not survivors.report()["short"]


def one_is_empty(server):
    counts = server.client_counts()
    return counts if 0 in counts.values() else None


def one_more(server):
    """Connects; has each worker as many as the others, and more than before?"""
    server.connect()
    counts = server.client_counts()
    return len(counts) == WORKERS and min(counts.values()) == max(counts.values()) >= 20


def stop(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        wait_until(lambda pid=pid: process_state(pid) == "T", f"worker {pid} to stop")


@pytest.mark.parametrize("dies", [False, True], ids=["all-go-on", "one-is-killed"])
def test_a_storm_while_no_worker_takes_what_it_is_passed_is_shared_evenly(crier, dies):
    """What is on its way counts as much as what has arrived, whichever worker finds it in the channel."""
    def attempt(scale):
        """A worker that is stopped for a second gets no more connections: the storm must be over by then."""
        server = start(crier, "--handshake-timeout", "120")
        clients = [server.connect() for _ in range(10 * WORKERS)]
        for client in clients[::WORKERS]:  # one after the other, they go to the workers by turns
            client.drop()
            server.clients.remove(client)
        counts = wait_until(lambda: one_is_empty(server), lambda: f"a worker without clients: {server.client_counts()}")
        begin = time.monotonic()
        stop(counts)
        for _ in range(300 // scale):
            client = server.socket()
            client.send_raw(client.request())
        wait_until(lambda: server.waiting_connections() == 0, "the master to have passed them on")
        seconds = time.monotonic() - begin
        for pid, before in counts.items():
            os.kill(pid, signal.SIGKILL if dies and before == 0 else signal.SIGCONT)
        if seconds > 0.7:
            raise Late(f"a storm of {seconds:g} s")
        for client in server.clients[-(300 // scale):]:
            client.expect_open()
        if not dies:
            counts = expect_balance(server, len(server.clients))
            assert max(counts.values()) - min(counts.values()) <= 1, counts
        # From there the master goes on. What the dead worker had not taken went to ready workers. A worker that was stopped a
        # moment ago may still be passed over.
        wait_until(lambda: one_more(server), lambda: f"as many on each worker: {server.client_counts()}", 4 * PATIENCE)

    in_time(attempt)


@pytest.mark.skipif(SANITIZED, reason="how many come and go at once depends on the pace")
def test_clients_that_come_and_go_all_the_time_leave_the_others_evenly_shared(crier):
    server = start(crier)
    with contextlib.ExitStack() as swarms:
        for _ in range(8):
            for number in range(40):
                client = server.socket()
                if number % 3:
                    client.drop()
                    server.clients.remove(client)
            swarms.enter_context(Swarm(server.address, CLIENTS // 10, "--rate", "100000"))
            for client in server.clients:
                client.drop()
            server.clients.clear()
        expect_balance(server, 8 * (CLIENTS // 10))


def test_a_hundred_and_fifty_workers_serve_one_broadcast_to_all(crier):
    many = 150
    server = crier("--no-welcome", "--on-message", "broadcast", "--max-message", "1k", "--ring", "16k", workers=many)
    wait_until(lambda: len(server.client_counts()) == many, lambda: f"{many} workers: {server.client_counts()}", 4 * PATIENCE)

    def each_has_one():
        """On a busy machine the master may take some of them for stalled and pass them over for a while."""
        server.connect()
        return len(server.clients) >= many and min(server.client_counts().values()) > 0

    wait_until(each_has_one, lambda: f"a client each: {server.client_counts()}", 4 * PATIENCE)
    server.line("from the console")
    for client in server.clients:
        client.expect_texts(["from the console"])
    server.clients[0].text("from a worker")
    for client in server.clients:
        client.expect_texts(["from a worker"])
