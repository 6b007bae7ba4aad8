"""For `pytest -p file_times`: the time that each file took, the longest first."""

import collections

SECONDS = collections.Counter()
TESTS = collections.Counter()


def pytest_runtest_logreport(report):
    name = report.nodeid.partition("::")[0]
    SECONDS[name] += report.duration
    TESTS[name] += report.when == "call" or report.skipped


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("files")
    for name, seconds in SECONDS.most_common():
        terminalreporter.write_line(f"{seconds:7.1f} s  {TESTS[name]:5} tests  {name}")
