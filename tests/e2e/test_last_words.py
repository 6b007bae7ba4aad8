"""A worker that dies says what happened and where; the master logs it with its number, pid and lost clients."""

import mmap
import os
import re
import signal
import struct
import subprocess

import pytest

from harness import PROBE, SANITIZED, TEXT, Disconnected, descriptors, process_state, wait_until

PLACE = r"[\w.+-]+\+0x[0-9a-f]+"
by_signal = pytest.mark.skipif(SANITIZED, reason="the sanitizer has the last word about these signals")


def order_death(server, word):
    """Lets a worker with two clients die; what the master says of it."""
    places = server.connect_everywhere(2, at_least=2)
    victim, clients = next(iter(places.items()))
    clients[0].text(word)
    for client in clients:
        with pytest.raises(Disconnected):
            client.recv_text()
    line = server.wait_log(rf"worker \d+ \(pid {victim}\)")
    assert f"; {len(clients)} clients lost; starting another" in line, line
    return line


def function_at(place):
    name, _, offset = place.partition("+")
    assert name == os.path.basename(PROBE)
    found = subprocess.run(["addr2line", "-fe", PROBE, offset], stdout=subprocess.PIPE, check=True)
    return found.stdout.decode().splitlines()[0]


@by_signal
@pytest.mark.parametrize("word, number, function", [("segv", 11, "order_segv"), ("recurse", 11, "order_overflow")])
def test_a_fault_names_its_address_the_place_and_the_way_there(probe, word, number, function):
    line = order_death(probe("--on-message", "obey", workers=2), word)
    found = re.search(rf"was killed by signal {number} \([^)]*\): in the application's message handler: "
                      rf"address 0x[0-9a-f]+ at ({PLACE})((?: < {PLACE})+); ", line)
    assert found, line
    assert function_at(found[1]).startswith((function, "obey")), line
    if word == "segv":
        assert "address 0x10 at" in line
        way = [function_at(place) for place in found[2].split(" < ")[1:] if place.startswith("probe_app")]
        assert way and set(way) & {"received", "app_message", "conn_in_message"}, f"{way} of {line}"


@by_signal
def test_a_breakpoint_is_a_death_and_not_passed_over(probe):
    line = order_death(probe("--on-message", "obey", workers=2), "trap")
    found = re.search(rf"was killed by signal 5 \([^)]*\): in the application's message handler: at ({PLACE}) < {PLACE}", line)
    assert found, line
    assert function_at(found[1]) in ("order_trap", "obey", "received"), line


@by_signal
def test_abort_names_who_called_it(probe):
    line = order_death(probe("--on-message", "obey", workers=2), "abort")
    found = re.search(rf"was killed by signal 6 \(Aborted\): in the application's message handler: "
                      rf"at {PLACE} < ({PLACE})", line)
    assert found, line
    assert function_at(found[1]) in ("order_abort", "obey", "received"), line


def test_an_assertion_is_told_whole(probe):
    line = order_death(probe("--on-message", "obey", workers=2, dies=True), "assert")
    assert re.search(r"was killed by signal 6 \(Aborted\): in the application's message handler: "
                     r"tests/lib/probe_app\.c:\d+: order_assert: Assertion `sheep == 1 && \"counting\"' failed; ",
                     line), line


def test_exit_leaves_no_words(probe):
    line = order_death(probe("--on-message", "obey", workers=2), "exit")
    assert re.search(r"exited with status 9; ", line), line


@by_signal
def test_a_signal_names_its_sender_and_the_words_of_one_life_are_not_those_of_the_next(crier):
    server = crier("--no-welcome", workers=1)
    victim = server.workers()[0]
    os.kill(victim, signal.SIGFPE)
    line = server.wait_log(rf"worker 1 \(pid {victim}\)")
    assert re.search(rf"was killed by signal 8 \([^)]*\): sent by process {os.getpid()}, at {PLACE}", line), line
    client = server.connect()
    victim = server.worker_of(client)
    os.kill(victim, signal.SIGKILL)
    line = server.wait_log(rf"worker 1 \(pid {victim}\)")
    assert "was killed by signal 9 (Killed); 1 client lost" in line, line


def test_a_child_of_the_application_has_no_say(probe):
    """A process that the worker has forked dies of a signal: the worker's record stays empty."""
    server = probe("--on-message", "obey", workers=1)
    client = server.connect()
    pid = server.worker_of(client)
    client.text("fork-abort")
    client.expect_texts(["fork-abort"])
    os.kill(pid, signal.SIGKILL)
    line = server.wait_log(rf"worker 1 \(pid {pid}\)")
    assert "was killed by signal 9 (Killed); 1 client lost" in line, line


def test_a_worker_that_finds_rubbish_in_the_ring_says_which_broadcast_and_its_successor_works(crier):
    server = crier("--no-welcome", workers=2, dies=True)
    places = server.connect_everywhere(2)
    victim, survivor = places
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: process_state(victim) == "T", "the worker to stop")
    server.line("to be overwritten")
    for client in places[survivor]:
        client.expect_texts(["to be overwritten"])
    number = next(n for n, target in descriptors(server.pid).items() if target.startswith("/memfd:crier"))
    with open(f"/proc/{server.pid}/fd/{number}", "r+b") as segment, mmap.mmap(segment.fileno(), 0) as memory:
        record = memory.find(b"to be overwritten") - 2 - 32
        assert struct.unpack_from("<I", memory, record + 4)[0] == 2 + len("to be overwritten")
        struct.pack_into("<I", memory, record, 0xfffffff0)
    os.kill(victim, signal.SIGCONT)
    line = server.wait_log(rf"worker \d+ \(pid {victim}\)")
    assert re.search(r"was killed by signal 6 \(Aborted\): broadcast #1 is not readable: "
                     r"shared memory was overwritten; ", line), line
    successor = wait_until(lambda: [pid for pid in server.workers() if pid not in places], "the successor")[0]
    newcomer = server.connect()
    while server.worker_of(newcomer) != successor:
        newcomer = server.connect()
    server.line("whole again")
    for client in [newcomer, *places[survivor]]:
        assert client.recv_message() == (TEXT, b"whole again")
