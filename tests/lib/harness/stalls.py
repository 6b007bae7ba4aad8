"""Processes that do not run for a while: stopped by a signal, or in a frozen cgroup."""

import contextlib
import os
import re
import signal
import time

import pytest

from .procs import process_state
from .waiting import wait_until

UNIFIED = re.compile(r"^\S+ (\S+) cgroup2 ", re.M)


@contextlib.contextmanager
def stopped(pids, seconds):
    """The processes are stopped, in this order, for so long at least, and for as long as the body takes."""
    with stalled(lambda: [os.kill(pid, signal.SIGSTOP) for pid in pids],
                 lambda: all(process_state(pid) == "T" for pid in pids),
                 lambda: [os.kill(pid, signal.SIGCONT) for pid in pids], seconds):
        yield


@contextlib.contextmanager
def frozen(pids, seconds):
    """The same in a cgroup of their own; skips the test if there is none that can be frozen."""
    home = new_cgroup()

    def write(name, text):
        with open(os.path.join(home, name), "w") as file:
            file.write(text)

    def is_frozen():
        with open(os.path.join(home, "cgroup.events")) as file:
            return "frozen 1" in file.read()

    try:
        homes = {pid: old_cgroup(pid) for pid in pids}
        for pid in pids:
            write("cgroup.procs", str(pid))
        with stalled(lambda: write("cgroup.freeze", "1"), is_frozen, lambda: write("cgroup.freeze", "0"), seconds):
            yield
        for pid, old in homes.items():
            with open(os.path.join(old, "cgroup.procs"), "w") as file:
                file.write(str(pid))
    finally:
        os.rmdir(home)


@contextlib.contextmanager
def stalled(begin, has_begun, end, seconds):
    begin()
    try:
        wait_until(has_begun, "the processes to stop")
        over = time.monotonic() + seconds
        yield
        wait_until(lambda: time.monotonic() >= over, "the end of the stop", 2 * seconds + 1)
    finally:
        end()


def mount():
    with open("/proc/mounts") as file:
        found = UNIFIED.search(file.read())
    return found and found[1]


def old_cgroup(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        return mount() + re.search(r"^0::(.*)$", file.read(), re.M)[1]


def new_cgroup():
    if not mount():
        pytest.skip("no cgroup v2 is mounted")
    home = os.path.join(mount(), f"crier-test-{os.getpid()}")
    try:
        os.mkdir(home)
    except OSError as error:
        pytest.skip(f"no cgroup can be made below {mount()}: {error}")
    if not os.path.exists(os.path.join(home, "cgroup.freeze")):
        os.rmdir(home)
        pytest.skip("this kernel's cgroups cannot be frozen (Linux 5.2)")
    return home
