"""Fixtures and hooks that every folder of pytest files takes into its conftest.py."""

import os
import shutil
import signal
import tempfile
import termios

import pytest

from .jobs import join_all
from .server import CRIER, PROBE, Server
from .waiting import SANITIZED


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): the whole test may take so long on an idle machine; default 60")
    # An exception that no test can see, of a thread or a finalizer, is a failure.
    for name in ("PytestUnhandledThreadExceptionWarning", "PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"error::pytest.{name}")


def pytest_sessionstart(session):
    if not os.access(CRIER, os.X_OK):
        pytest.exit(f"there is no {CRIER}: build it first, or name it in CRIER", returncode=1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup it is ignored, and each server would inherit that


@pytest.fixture(autouse=True)
def time_limit(request):
    """Ends a test that hangs, with a stack that shows where."""
    marker = request.node.get_closest_marker("limit")
    seconds = (marker.args[0] if marker else 60) * (6 if SANITIZED else 3)

    def out_of_time(*_):
        pytest.fail(f"the test took longer than {seconds:g} s")  # which no handler of errors takes for its own

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    try:
        join_all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def for_other_users():
    """for_other_users(program): the path of a copy that every user may execute, wherever the tree lies."""
    folder = tempfile.mkdtemp(prefix="crier-")
    os.chmod(folder, 0o755)

    def copy(program):
        path = os.path.join(folder, os.path.basename(program))
        return path if os.path.exists(path) else shutil.copy(program, folder)

    yield copy
    shutil.rmtree(folder)


@pytest.fixture
def terminal():
    """(our end, the other end) of a pseudo-terminal without echo. To be asked for before `crier`, so that it is there
    until the server has ended."""
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def crier(time_limit):
    """Starts servers: crier("--no-welcome", workers=2). Each is stopped and checked at the end of the test."""
    servers = []

    def start(*flags, **how):
        servers.append(Server(*flags, **how))
        return servers[-1]

    yield start
    problems = []
    for server in servers:
        try:
            server.finish()
        except Exception as problem:  # the other servers are stopped all the same
            problems.append(problem)
    if problems:
        raise problems[0]


@pytest.fixture
def probe(crier):
    """Starts tests/lib/probe_app.c as `crier` starts the standard application."""
    def start(*flags, **how):
        return crier(*flags, program=PROBE, **how)
    return start
