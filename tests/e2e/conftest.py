"""The end-to-end tests run the program named by CRIER (default: build/release/crier)."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
pytest.register_assert_rewrite("harness")

from harness.fixtures import (crier, for_other_users, probe, pytest_configure, pytest_sessionstart, terminal,  # noqa: E402
                              time_limit)

__all__ = ["crier", "for_other_users", "probe", "pytest_configure", "pytest_sessionstart", "terminal", "time_limit"]
