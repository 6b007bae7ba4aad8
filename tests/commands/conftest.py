"""The commands that README.md, CONTRIBUTING.md and the Makefile offer, run in copies of the tree."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
pytest.register_assert_rewrite("harness")

from clone import Clone, Machine  # noqa: E402
from harness.fixtures import pytest_configure, pytest_sessionstart, time_limit  # noqa: E402

__all__ = ["pytest_configure", "pytest_sessionstart", "time_limit"]


@pytest.fixture(scope="module")
def machine():
    """Port 8080 is free on it, and no other server runs."""
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def clone(tmp_path_factory, machine):
    """A copy of the tree with what is built for a release, and a prefix to install into."""
    clone = Clone(tmp_path_factory.mktemp("a fresh clone"), tmp_path_factory.mktemp("prefix"), machine)
    yield clone
    clone.close()
