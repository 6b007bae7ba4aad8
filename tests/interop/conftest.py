"""The tests with clients of other projects run the program named by CRIER (default: build/release/crier)."""

import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
pytest.register_assert_rewrite("harness", "scenarios")

from harness.fixtures import crier, pytest_configure, pytest_sessionstart, time_limit  # noqa: E402

__all__ = ["crier", "pytest_configure", "pytest_sessionstart", "time_limit"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from browser import Browser

    assert shutil.which("chromium"), "there is no chromium: tools/setup.sh interop installs it"
    with Browser(str(tmp_path_factory.mktemp("chromium"))) as browser:
        yield browser
