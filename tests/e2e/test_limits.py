"""A limit that is too low is named at start with the value that is needed, and that value is enough."""

import os
import re
import resource
import signal

import pytest

from harness import REPOSITORY, SANITIZED, descriptors, run_crier, wait_until

SMALL = ("--no-welcome", "--max-message", "1k", "--ring", "64k", "--pool", "1M")
SPARE = 12  # of the master's and of a worker's descriptors, says LIMITS in docs/crier.1
CLIENTS_MIN = 16

no_sanitizer = pytest.mark.skipif(SANITIZED, reason="the sanitizers need descriptors and memory of their own")


def manual():
    with open(os.path.join(REPOSITORY, "docs/crier.1")) as page:
        return page.read()


def only_sentence(done):
    """The one line that a server has printed before it ended with status 1."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1, done
    return lines[0]


def refused(*flags, **how):
    """The sentence of a server that does not start."""
    return only_sentence(run_crier("--listen", "127.0.0.1:0", *SMALL, *flags, **how))


# ---- descriptors ----

def limit_descriptors(limit, hard=None, inherited=()):
    """Sets the limit in the child, after opening the descriptors in `inherited`."""
    def prepare():
        for number in inherited:
            os.dup2(0, number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard or limit))
    return prepare


def manual_descriptors(workers, sockets=1):
    """The limit of descriptors that the manual says is needed."""
    master = re.search(r"^master: 4W \+ L \+ (\d+)$", manual(), re.M)
    worker = re.search(r"^worker: W \+ (\d+)$", manual(), re.M)
    return max(4 * workers + sockets + int(master[1]), workers + int(worker[1]))


def needed_descriptors(sentence):
    return int(re.search(r"need (\d+)", sentence)[1])


def serve_everywhere(server, workers):
    """Has a client on every one of `workers` workers."""
    def reached():
        counts = server.client_counts()
        return len(counts) == workers and all(counts.values())

    wait_until(lambda: len(server.client_counts()) == workers, lambda: f"{workers} workers: {server.client_counts()}")
    for _ in range(workers):
        server.connect().expect_pong()
    wait_until(reached, lambda: f"a client on {workers} workers: {server.client_counts()}")


@no_sanitizer
@pytest.mark.limit(180)
@pytest.mark.parametrize("workers", [1, 2, 10, 100])
def test_the_limit_of_descriptors_in_the_sentence_is_the_lowest_that_works(crier, workers):
    flags = ["--workers", str(workers)]
    need = needed_descriptors(refused(*flags, preexec_fn=limit_descriptors(20)))
    assert need == manual_descriptors(workers)
    sentence = refused(*flags, preexec_fn=limit_descriptors(need - 1))
    assert f"(`ulimit -n`) is {need - 1}; {workers} worker" in sentence and needed_descriptors(sentence) == need
    server = crier(*SMALL, workers=workers, preexec_fn=limit_descriptors(need))
    serve_everywhere(server, workers)
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.drop_clients()
    wait_until(lambda: victim not in server.client_counts(), "the dead worker to be noticed")
    serve_everywhere(server, workers)
    assert not [line for line in server.log if "cannot" in line], server.log


@no_sanitizer
def test_the_arithmetic_counts_what_the_processes_have_open(crier):
    workers, sockets = 10, 2
    server = crier(*SMALL, workers=workers, listen=["127.0.0.1:0", "127.0.0.1:0"])
    wait_until(lambda: len(server.client_counts()) == workers, "all workers")
    master = 4 * workers + sockets + int(re.search(r"^master: 4W \+ L \+ (\d+)$", manual(), re.M)[1])
    worker = workers + int(re.search(r"^worker: W \+ (\d+)$", manual(), re.M)[1])
    streams = 4  # a descriptor that stands for standard input, standard error, and what wakes the loop: not always there
    unused = master - SPARE - len(descriptors(server.pid))
    assert 0 <= unused <= streams + 1, f"{unused} descriptors of the master are counted and not open"
    for pid in server.workers():
        unused = worker - CLIENTS_MIN - SPARE - len(descriptors(pid))
        assert 0 <= unused <= streams, f"{unused} descriptors of a worker are counted and not open"


@no_sanitizer
def test_inherited_descriptors_count_where_they_are_in_the_way(crier):
    inherited = [*range(3, 23), 500]
    need = manual_descriptors(10) + 20
    sentence = refused("--workers", "10", preexec_fn=limit_descriptors(need - 1, inherited=inherited), close_fds=False)
    assert f"need {need}, 20 of them for inherited descriptors" in sentence
    server = crier(*SMALL, workers=10, preexec_fn=limit_descriptors(need, inherited=inherited), close_fds=False)
    serve_everywhere(server, 10)
    assert not [line for line in server.log if "cannot" in line], server.log


@no_sanitizer
def test_each_address_of_a_name_counts(crier):
    addresses = [flag for port in range(6) for flag in ("--listen", "127.0.0.1:0")]
    sentence = refused("--workers", "10", *addresses, preexec_fn=limit_descriptors(20))
    assert "7 listening sockets" in sentence and needed_descriptors(sentence) == manual_descriptors(10, 7)


@no_sanitizer
def test_a_soft_limit_that_is_too_low_is_raised(crier):
    need = manual_descriptors(10)
    server = crier(*SMALL, workers=10, preexec_fn=limit_descriptors(20, hard=need))
    serve_everywhere(server, 10)


@no_sanitizer
@pytest.mark.parametrize("workers", [2, 10])
def test_a_worker_is_replaced_while_the_master_has_no_free_descriptor(crier, workers):
    server = crier(*SMALL, workers=workers)
    serve_everywhere(server, workers)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = descriptors(server.pid)
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free, hard))
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.client_counts() and len(server.client_counts()) == workers,
               lambda: f"a successor: {server.log}")
    for pid in server.processes():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    serve_everywhere(server, workers)
    assert not [line for line in server.log if "cannot start" in line], server.log
