"""The attacks run against the program named by CRIER (default: build/release/crier)."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
pytest.register_assert_rewrite("harness", "siege")

from harness.fixtures import crier, probe, pytest_configure, pytest_sessionstart, time_limit  # noqa: E402

__all__ = ["crier", "probe", "pytest_configure", "pytest_sessionstart", "time_limit"]
