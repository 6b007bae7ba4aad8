"""The conformance table runs the program named by CRIER (default: build/release/crier)."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
pytest.register_assert_rewrite("harness")

from chops import TALLY  # noqa: E402
from harness import Server  # noqa: E402
from harness.fixtures import pytest_configure, pytest_sessionstart, time_limit  # noqa: E402

__all__ = ["pytest_configure", "pytest_sessionstart", "time_limit"]

FLAGS = ("--no-welcome", "--max-message", "32M")  # what a conformance suite would give it


@pytest.fixture(scope="session")
def server_with(tmp_path_factory):
    """server_with(flags): the server for them, on a unix socket, `path`, and on TCP."""
    servers = {}

    def start(flags):
        if flags not in servers:
            path = str(tmp_path_factory.mktemp("conform") / "socket")
            server = Server(*FLAGS, *flags, workers=1, listen=[f"unix:{path}", "127.0.0.1:0"])
            server.path = path
            servers[flags] = server
        return servers[flags]

    yield start
    for server in servers.values():
        server.finish()


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"conform: {TALLY['cases']} cases on {TALLY['connections']} connections")
