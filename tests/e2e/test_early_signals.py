"""A server that is told to stop before it serves ends with 0 and leaves nothing; what it prints meanwhile does not end it."""

import collections
import ctypes
import os
import random
import signal
import subprocess
import sys
import termios
import time

import pytest

import harness.background_job
from harness import (CRIER, PATIENCE, SANITIZED, RawClient, masks, plain_environment, run_crier, signals_that, wait_for_reader,
                     wait_until)

BACKGROUND = [sys.executable, harness.background_job.__file__]
STOPPING = signals_that(0, "STOP")
name_of = "{0.name}".format
unsanitized = pytest.mark.skipif(SANITIZED, reason="the sanitizers want to be loaded first")


def assert_echo(client):
    client.text("echo")
    client.expect_texts(["echo"])


@pytest.mark.parametrize("number", STOPPING, ids=name_of)
@pytest.mark.parametrize("thread", [False, True], ids=["", "in another thread"])
def test_a_signal_while_the_start_handler_runs_ends_it_with_0_and_leaves_nothing(probe, tmp_path, number, thread):
    fifo, path = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    server = probe("--master-start-behind", str(fifo), "--in-master", "thread" if thread else "nothing",
                   workers=2, listen=f"unix:{path}", url=False)
    with wait_for_reader(fifo):
        assert path.exists()
        if thread:
            other, = {int(name) for name in os.listdir(f"/proc/{server.pid}/task")} - {server.pid}
            assert ctypes.CDLL(None).tgkill(server.pid, other, number) == 0
        else:
            server.send_signal(number)
        assert server.wait_exit() == 0
    assert not path.exists()


SLOW_START = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **all)
{
    int (*real)() = dlsym(RTLD_NEXT, "getaddrinfo");
    char byte;
    int fd;

    if (!getenv("FIFO"))
        return real(host, port, hints, all);
    fd = open(getenv("FIFO"), O_RDONLY);
    while (read(fd, &byte, 1) > 0) /* until the test closes it */
        ;
    return EAI_FAIL;
}

static void *
receive(void *arg)
{
    sigset_t none;

    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    raise(SIGTERM);
    return arg;
}

int
bind(int fd, const struct sockaddr *addr, socklen_t bytes)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    int rc = real(fd, addr, bytes);
    pthread_t other;

    if (getenv("BIND") && addr->sa_family == AF_UNIX && *getenv("BIND") == 'm') {
        kill(getpid(), SIGTERM);
    } else if (getenv("BIND") && addr->sa_family == AF_UNIX) {
        pthread_create(&other, NULL, receive, NULL);
        pthread_join(other, NULL);
    }
    return rc;
}

static void
raise_all(void)
{
    raise(SIGTERM);
    raise(SIGINT);
    raise(SIGUSR1);
    raise(SIGUSR2);
}

pid_t
fork(void)
{
    pid_t (*real)(void) = dlsym(RTLD_NEXT, "fork");
    pid_t pid = real();

    if (getenv("CHILD") && pid == 0) {
        raise_all();
    } else if (getenv("PARENT")) {
        kill(getpid(), SIGTERM);
    }
    return pid;
}

static void
handle(int number)
{
    (void)number;
}

__attribute__((constructor)) static void
before_main(void)
{
    if (getenv("EXECUTED") && getenv("_CRIER_MEMBER"))
        raise_all();
    else if (getenv("EXECUTED"))
        signal(SIGUSR2, handle);
}
"""


@pytest.fixture
def slow_start(tmp_path):
    """A library for LD_PRELOAD that sends signals, or waits, at points of the start."""
    source, library = tmp_path / "slow_start.c", tmp_path / "slow_start.so"
    source.write_text(SLOW_START)
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    return str(library)


@unsanitized
def test_a_signal_while_a_name_is_looked_up_ends_it_with_0_and_leaves_nothing(crier, slow_start, tmp_path):
    fifo, path = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    server = crier(listen=[f"unix:{path}", "localhost:0"], url=False, env={"LD_PRELOAD": slow_start, "FIFO": str(fifo)})
    with wait_for_reader(fifo):
        assert path.exists()
        server.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert not path.exists()


@unsanitized
@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_signal_at_the_moment_of_bind_ends_it_with_0_and_leaves_nothing(crier, slow_start, tmp_path, thread):
    path = tmp_path / "socket"
    server = crier(listen=f"unix:{path}", url=False, env={"LD_PRELOAD": slow_start, "BIND": thread})
    assert server.wait_exit() == 0
    assert not path.exists()


@unsanitized
def test_a_signal_while_workers_are_forked_ends_it_with_0_and_leaves_nothing(crier, slow_start, tmp_path):
    path = tmp_path / "socket"
    server = crier(listen=f"unix:{path}", url=False, workers=4, env={"LD_PRELOAD": slow_start, "PARENT": "1"})
    assert server.wait_exit() == 0
    assert not path.exists()


@unsanitized
@pytest.mark.parametrize("moment", ["CHILD", "EXECUTED"], ids=["between fork and exec", "between exec and main"])
def test_signals_to_a_worker_that_starts_have_no_effect(crier, slow_start, moment):
    server = crier("--no-welcome", workers=2, env={"LD_PRELOAD": slow_start, moment: "1"})
    server.connect_everywhere(2)
    for client in server.clients:
        assert_echo(client)
    assert not [line for line in server.log if "starting another" in line]


def start_and_signal(path, number, seconds, when_caught):
    """Starts a server and sends it a signal after a while, which begins at once or when it has a handler for the signal;
    (exit status, what it caught before), with nothing left."""
    tag = f"E2E_TAG={random.getrandbits(64):x}"
    process = subprocess.Popen([CRIER, "--listen", f"unix:{path}", "--workers", "2", "--quiet", "--drain", "0"], stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, start_new_session=True,
                               env=plain_environment(E2E_TAG=tag.partition("=")[2]))
    wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == CRIER, "exec", interval=0)
    if when_caught:
        wait_until(lambda: number in masks(process.pid)["caught"], "a handler", interval=0)
    moment = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= moment, "the moment", interval=0)
    caught = masks(process.pid)["caught"]
    process.send_signal(number)
    _, log = process.communicate(timeout=PATIENCE)
    wait_until(lambda: not harness.procs.of_session(process.pid, tag), "all processes to end")
    assert not os.path.exists(path), f"the socket is left after status {process.returncode}"
    assert SANITIZED or not log, log
    return process.returncode, caught


@pytest.mark.limit(120)
def test_a_signal_in_the_first_moments_ends_it_with_0_and_leaves_nothing(tmp_path):
    seed = int(os.environ.get("SEED", time.time_ns() & 0xffffffff))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    seen = collections.Counter()
    for count in range(180 if os.environ.get("CRIER_LONG") else 60):
        number = chance.choice(STOPPING)
        status, caught = start_and_signal(tmp_path / f"socket {count}", number, chance.random() * 0.02, count % 2 == 1)
        assert status == 0 or status == -number and number not in caught, f"number {count}: {status}, it caught {caught}"
        seen[status] += 1
    print(seen)


@unsanitized
def test_a_signal_that_waits_since_before_the_exec_ends_it_with_0(tmp_path):
    path = tmp_path / "socket"

    def prepare():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)

    done = run_crier("--listen", f"unix:{path}", preexec_fn=prepare)
    assert (done.returncode, done.stderr) == (0, "")
    assert not path.exists()


@pytest.mark.parametrize("address, status", [("192.0.2.1:1", 3), ("127.0.0.1:0", 0)])
def test_stop_signals_after_crier_run_has_returned_do_not_change_the_exit_status(probe, tmp_path, address, status):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = probe(listen=address, url=status == 0, workers=1, expected=status, env={"PROBE_AFTER_RUN": str(fifo)})
    if status == 0:
        server.send_signal(signal.SIGTERM)
    with wait_for_reader(fifo):
        assert masks(server.pid)["ignored"] >= set(STOPPING)
        for number in STOPPING:
            server.send_signal(number)
    assert server.wait_exit() == status


# ---- what it prints ----

def closed_pipe():
    """The writing end of a pipe without a reader."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("flags, variables, status", [
    (["--nonsense"], {}, 2),
    (["--listen", "192.0.2.1:1"], {}, 3),
    ([], {"_CRIER_MEMBER": "none"}, 2),
])
def test_an_error_message_that_nobody_reads_does_not_change_the_exit_status(flags, variables, status):
    pipe = closed_pipe()
    try:
        done = subprocess.run([CRIER, *flags], stdin=subprocess.DEVNULL, stderr=pipe, env=plain_environment(**variables),
                              timeout=PATIENCE, check=False)
        assert done.returncode == status
    finally:
        os.close(pipe)


def test_a_server_whose_log_nobody_reads_serves(crier, tmp_path):
    path = str(tmp_path / "socket")
    pipe = closed_pipe()
    process = subprocess.Popen([CRIER, "--listen", f"unix:{path}", "--no-welcome", "--verbose"], stdin=subprocess.DEVNULL,
                               stderr=pipe, env=plain_environment())
    os.close(pipe)
    try:
        def connect():
            try:
                return RawClient(path).handshake()
            except OSError:
                return None
        assert_echo(wait_until(connect, "it to listen"))
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("flags, status, answer", [(["--help"], 0, b"Usage: "), (["--nonsense"], 2, b"crier: ")])
def test_a_background_job_may_print_to_its_terminal(terminal, flags, status, answer):
    ours, theirs = terminal
    settings = termios.tcgetattr(theirs)
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    done = subprocess.run([*BACKGROUND, CRIER, *flags], stdin=theirs, stdout=theirs, stderr=theirs,
                          start_new_session=True, env=plain_environment(), timeout=PATIENCE, check=False)
    assert done.returncode == status
    assert os.read(ours, 65536).startswith(answer)
