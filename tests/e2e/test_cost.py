"""What a delivery costs where noise cannot touch it: instructions of the worker (callgrind) and its system calls (strace)."""

import re
import signal
import subprocess

import pytest

from harness import CRIER, PATIENCE, SANITIZED, TEXT, Swarm, encode_frame, wait_until

CLIENTS = 200
LINE = b"x" * 64 + b"\n"

pytestmark = pytest.mark.skipif(SANITIZED, reason="counts the instructions of the real program")


def broadcast(server, swarm, rounds, at_once, before=0):
    for number in range(rounds):
        server.write(LINE * at_once)
        swarm.expect(before + (number + 1) * at_once)


# ---- instructions ----

UNDER_CALLGRIND = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The master starts its workers so: they run under callgrind, and it does not, which knows no pidfd. */
int
execveat(int program, const char *path, char *const argv[], char *const envp[], int flags)
{
    char *arguments[64] = {"valgrind", "--quiet", "--tool=callgrind", OUT_FILE, PROGRAM};

    (void)program, (void)path, (void)flags;
    for (int i = 1; argv[i] && i < 56; i++)
        arguments[4 + i] = argv[i];
    return execve("/usr/bin/valgrind", arguments, envp);
}
"""


class Callgrind:
    """Counts the instructions of a worker that runs under callgrind."""

    def __init__(self, directory):
        source, library = directory / "under_callgrind.c", directory / "under_callgrind.so"
        source.write_text(UNDER_CALLGRIND)
        subprocess.run(["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f'-DOUT_FILE="--callgrind-out-file={directory}/count.%p"',
                        f'-DPROGRAM="{CRIER}"', "-o", library, source], check=True)
        self.directory, self.environment = directory, {"LD_PRELOAD": str(library)}

    def start(self, pid):
        subprocess.run(["callgrind_control", "--zero", str(pid)], check=True, stdout=subprocess.DEVNULL)

    def stop(self, pid):
        """How many instructions the worker has run since start."""
        subprocess.run(["callgrind_control", "--dump", str(pid)], check=True, stdout=subprocess.DEVNULL)
        return int(re.search(r"^(?:summary|totals): (\d+)", (self.directory / f"count.{pid}.1").read_text(), re.M)[1])


@pytest.fixture
def counted(crier, tmp_path):
    """A server with one worker whose instructions are counted, that worker's pid, and the counter."""
    callgrind = Callgrind(tmp_path)
    server = crier("--no-welcome", "--ping", "0", "--stuck-timeout", "0", "--start-timeout", "0", workers=1,
                   env=callgrind.environment, patience=4 * PATIENCE)
    return server, server.workers()[0], callgrind


@pytest.mark.limit(120)
@pytest.mark.parametrize("at_once, most", [(1, 130), (32, 8)])
def test_a_delivery_takes_few_instructions(counted, at_once, most):
    server, worker, callgrind = counted
    rounds = 20
    with Swarm(server.address, CLIENTS) as swarm:
        broadcast(server, swarm, 5, at_once)
        callgrind.start(worker)  # what a connection takes varies by more than what is counted here
        broadcast(server, swarm, rounds, at_once, before=5 * at_once)
        instructions = callgrind.stop(worker)
    each = instructions / (rounds * at_once * CLIENTS)
    print(f"{each:.1f} instructions a delivery")
    assert 1 < each <= most


@pytest.mark.limit(120)
@pytest.mark.parametrize("clients, at_once, most", [(1, 1, 2600), (1, 100, 950), (50, 1, 2600)])
def test_an_echo_takes_few_instructions(counted, clients, at_once, most):
    server, worker, callgrind = counted
    callers = [server.connect(timeout=4 * PATIENCE) for _ in range(clients)]
    message = encode_frame(TEXT, LINE)

    def echoes(rounds):
        for _ in range(rounds):
            for caller in callers:
                caller.send_raw(message * at_once)
            for caller in callers:
                caller.expect_texts([LINE.decode()] * at_once)

    echoes(5)
    rounds = 1000 // (clients * at_once)
    callgrind.start(worker)
    echoes(rounds)
    each = callgrind.stop(worker) / (rounds * clients * at_once)
    print(f"{each:.1f} instructions an echo")
    assert 1 < each <= most


# ---- system calls ----

class Trace:
    """strace on a process of the server, between start and stop: {system call: how often}."""

    def __init__(self, server, pid, path):
        self.server, self.pid, self.path = server, pid, path
        self.process = subprocess.Popen(["strace", "-c", "-o", str(path), "-p", str(pid)], stderr=subprocess.PIPE)
        wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{pid}/status").read(), "strace at the worker")

    def stop(self):
        # A client may have its bytes before strace has seen the end of the call that sent them.
        self.server.wait_ticks(1, self.pid)
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        calls = {}
        for line in self.path.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and re.fullmatch(r"[\d.]+", fields[0]) and fields[-1] != "total":
                calls[fields[-1]] = int(fields[3])
        return calls


@pytest.mark.parametrize("at_once", [1, 32])
def test_a_delivery_takes_one_send_for_each_client_and_flush_and_no_other_system_call(crier, tmp_path, at_once):
    server = crier("--no-welcome", "--ping", "0", workers=1)
    rounds = 20
    with Swarm(server.address, CLIENTS) as swarm:
        broadcast(server, swarm, 1, at_once)
        worker = server.workers()[0]
        ticks = server.ring().members[worker].beats
        trace = Trace(server, worker, tmp_path / "calls")
        broadcast(server, swarm, rounds, at_once, before=at_once)
        calls = trace.stop()
        ticks = server.ring().members[worker].beats - ticks
    assert calls["sendto"] % CLIENTS == 0  # a flush goes to every client
    flushes = calls["sendto"] // CLIENTS
    assert rounds <= flushes <= (rounds if at_once == 1 else 3 * rounds)
    # Per flush, not per client: to sleep, to wake up, to look once more; and as much for each tick meanwhile.
    others = sum(calls.values()) - calls["sendto"]
    assert others <= 12 * (flushes + ticks), (calls, ticks)


def test_a_connection_takes_few_system_calls_and_a_rush_few_messages_to_a_worker(crier, tmp_path):
    server = crier("--no-welcome", "--ping", "0", workers=1)
    traces = [Trace(server, pid, tmp_path / f"calls.{pid}") for pid in (server.pid, server.workers()[0])]
    rush = [server.socket() for _ in range(CLIENTS)]
    for client in rush:
        client.send_raw(client.request())
    for client in rush:
        client.expect_open().close()
    for client in rush:
        client.expect_close(1000, answer=False)
        client.drop()
    server.wait_counter("clients_left", CLIENTS)
    master, worker = (trace.stop() for trace in traces)
    assert master["sendmsg"] <= CLIENTS / 4, master
    # The 101 and the Close, which the FIN goes with; a client that has sent nothing yet is asked once more. Some wait for
    # their turns (budget.h), in which time they are not watched (two calls): strace makes a turn last long.
    assert worker["sendto"] == 2 * CLIENTS and worker["shutdown"] == worker["close"] == CLIENTS, worker
    assert worker["recvfrom"] <= 5 * CLIENTS and worker["epoll_ctl"] <= 6 * CLIENTS, worker
    others = sum(worker.values()) - sum(worker[c] for c in ("sendto", "shutdown", "close", "recvfrom", "epoll_ctl"))
    assert others <= 3 * CLIENTS, worker
