"""The state of a running server as crier-ring prints it: each process's cursor in the ring and the ticks of its timer."""

import collections
import os
import re
import subprocess

BUILD = os.path.abspath(os.environ.get("CRIER_BUILD", os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "../../../build/release")))
CRIER_RING = os.path.join(BUILD, "crier-ring")

HEAD = re.compile(r"^next message #(\d+), needed from #(\d+) on", re.M)
MEMBER = re.compile(r"^ +\d+  (\w+) +([1-9]\d*)  (\w+) +(\d+) +(\d+) +(\d+) +(-|\d+) +(-|-?\d+) +[\d.]+%  #\d+(.*)$", re.M)
PLACE = re.compile(r"^ +\d+  \w+ +(\d+)  (\w+) +\d+ +(\d+) ", re.M)

Member = collections.namedtuple("Member", "role state life beats clients cursor lag waits")
Place = collections.namedtuple("Place", "pid state beats")
Ring = collections.namedtuple("Ring", "next_seq needed_seq members")


def ring_tool(*arguments):
    done = subprocess.run([CRIER_RING, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    assert done.returncode == 0, done
    return done.stdout.decode()


def read_phase(pid):
    return re.search(r"^\w+ server \d+, phase (\w+),", ring_tool("-n", "0", pid), re.M)[1]


def read_ring(pid):
    """members: {pid: Member}. waits: it is a publisher that waits for room."""
    text = ring_tool("-n", "0", pid)
    head = HEAD.search(text)
    assert head, text
    members = {int(number): Member(role, state, int(life), int(beats), int(clients), cursor, lag, "waits until" in more)
               for role, number, state, life, beats, clients, cursor, lag, more in MEMBER.findall(text)}
    return Ring(int(head[1]), int(head[2]), members)


def read_places(pid):
    """The master and worker 1, 2 and so on, those without a process included."""
    return [Place(int(number), state, int(beats)) for number, state, beats in PLACE.findall(ring_tool("-n", "0", pid))]


def read_counters(pid):
    """Every counter, summed over all processes: {name: value}."""
    return {line.split()[0]: int(line.split()[1]) for line in ring_tool("--counters", pid).splitlines()}
