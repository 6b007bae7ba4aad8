"""The harness itself: what goes wrong where the test does not look fails the test all the same."""

import os
import subprocess
import sys

import pytest

from harness import PATIENCE, REPOSITORY, Late, in_time

CONFTEST = f"""
import sys
sys.path.insert(0, {os.path.join(REPOSITORY, "tests/lib")!r})
from harness.fixtures import crier, probe, pytest_configure, pytest_sessionstart, time_limit
"""

BEGINNING = """
import contextlib, gc, os, signal, threading
from harness import Job, Swarm, at_once

def fail():
    assert 1 == 2, "in a thread"

class Unraisable:
    def __del__(self):
        fail()

"""

BAD = {
    "a thread": "thread = threading.Thread(target=fail); thread.start(); thread.join()",
    "a job that is joined": "Job(fail).join()",
    "a job that is left": "Job(fail)",
    "the last of several calls at once": "at_once([int, int, fail])",
    "a finalizer": "Unraisable(); gc.collect()",
    "a wait without an end": """signal.setitimer(signal.ITIMER_REAL, 0.1)
    with contextlib.suppress(Exception):
        threading.Event().wait()""",
    "a line that the server does not read": """server = crier("--no-welcome", workers=1)
    os.kill(server.pid, signal.SIGSTOP)
    job = server.feed(b"x" * 1000000, 1e-9)
    with contextlib.suppress(AssertionError):
        threading.Thread.join(job)
    os.kill(server.pid, signal.SIGCONT)""",
    "a swarm that has died": """with Swarm(crier("--no-welcome", workers=1).address, 2) as swarm:
        swarm.process.terminate()
        swarm.process.wait()""",
    "a server with another exit status": """server = crier("--no-welcome", workers=1)
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()""",
}


def outcome(tmp_path, body):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text(f"{BEGINNING}def test_one(crier):\n    {body}\n")
    done = subprocess.run([sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"], cwd=tmp_path,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=4 * PATIENCE)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("name", BAD)
def test_a_failure_where_the_test_does_not_look_is_a_failure_of_the_test(tmp_path, name):
    status, said = outcome(tmp_path, BAD[name])
    assert status == 1, said


def test_a_test_without_a_failure_passes(tmp_path):
    status, said = outcome(tmp_path, "Job(int).join(); Job(int); at_once([int, int]); crier('--no-welcome', workers=1)")
    assert status == 0, said


def test_an_attempt_is_repeated_with_longer_timeouts_while_it_is_late():
    scales = []

    def attempt(scale):
        scales.append(scale)
        if scale < 4:
            raise Late
        return "in time"

    assert in_time(attempt) == "in time" and scales == [1, 2, 4]


def test_an_attempt_that_is_always_late_or_fails_is_a_failure():
    def late(scale):
        raise Late

    def wrong(scale):
        assert scale == 0, "a failure, however long the timeouts"

    with pytest.raises(AssertionError, match="not even"):
        in_time(late)
    with pytest.raises(AssertionError, match="a failure"):
        in_time(wrong)
