"""However often something happens, the log has one line per second for it, which says how often."""

import re
import signal
import time

import pytest

from harness import at_once, wait_until
from harness.procs import children

LINES = 20000
BROADCASTS = re.compile(r"broadcast #(\d+) to 1 client: (\d+) bytes?$|"
                        r"(\d+) broadcasts, #(\d+) to #(\d+), to 1 client: (\d+) bytes$")
BAD_TEXT = re.compile(r"standard input, line (\d+): not valid UTF-8; skipped(?: \(and (\d+) more\))?$")
CLIENTS = re.compile(r"worker \d+: (?:(?P<one>\S+ connected)|\S+ disconnected with \d+|"
                     r"(?:(?P<some>\d+) clients? connected)?(?:, \d+ disconnected|\d+ clients? disconnected)?) \(\d+ clients?\)$")


def lines_of(server, pattern):
    return [found for line in list(server.log) if (found := pattern.search(line))]


def assert_few(lines, begin):
    """A line at once, one for each second, and one at the end."""
    limit = 2 + time.monotonic() - begin
    assert 1 <= len(lines) <= limit, f"{len(lines)} lines in {limit - 2:.1f} s: {lines[:10]}"


def test_a_stream_of_broadcasts_has_a_line_per_second_that_counts_them_all(crier):
    server = crier("-v", "--no-welcome")
    client = server.connect()
    begin = time.monotonic()
    writer = server.feed(b"".join(b"%d\n" % number for number in range(LINES)))
    client.expect_texts(str(number) for number in range(LINES))
    writer.join()

    def sums():
        count, size, at = 0, 0, 1
        for found in lines_of(server, BROADCASTS):
            one, one_bytes, many, first, last, many_bytes = (int(text or 0) for text in found.groups())
            assert (one or first) == at, f"after #{at - 1} comes {found[0]!r}"
            at = (one or last) + 1
            assert many == (at - first if many else 0)
            count += many or 1
            size += one_bytes + many_bytes
        return count, size

    wait_until(lambda: sums() == (LINES, sum(len(str(number)) for number in range(LINES))),
               lambda: f"all broadcasts in the log: {sums()}")
    assert_few(lines_of(server, BROADCASTS), begin)


def test_many_lines_that_are_not_utf8_have_a_warning_per_second_that_counts_them_all(crier):
    server = crier("--no-welcome")
    client = server.connect()
    begin = time.monotonic()
    writer = server.feed(b"bad \xff\n" * LINES + b"good\n")
    client.expect_texts(["good"])
    writer.join()
    wait_until(lambda: sum(1 + int(found[2] or 0) for found in lines_of(server, BAD_TEXT)) == LINES,
               lambda: f"all of them in the log: {server.log}")
    assert_few(lines_of(server, BAD_TEXT), begin)
    assert lines_of(server, BAD_TEXT)[0][1] == "1"


def test_the_end_of_input_is_logged_behind_all_its_lines(crier):
    server = crier("-v", "--no-welcome")
    server.connect()
    server.feed(b"line\n" * 100 + b"bad \xff\n" * 10 + b"the last, without a newline").join()
    server.end_input()
    end = server.log.index(server.wait_log("standard input has ended"))
    assert sum(int(found[3] or 1) for line in server.log[:end] if (found := BROADCASTS.search(line))) == 101, server.log
    assert sum(1 + int(found[2] or 0) for line in server.log[:end] if (found := BAD_TEXT.search(line))) == 10, server.log


@pytest.mark.parametrize("stop, code, reason", [
    (lambda server: server.end_input(), 1000, "end of input"),
    (lambda server: server.send_signal(signal.SIGTERM), 1001, "SIGTERM")])
def test_what_is_left_of_a_second_is_logged_when_the_server_ends(crier, stop, code, reason):
    server = crier("-v", "-E", "--no-welcome")
    server.connect()
    writer = server.feed(b"line\n" * 100)
    writer.join()
    server.clients[0].expect_texts(["line"] * 100)
    stop(server)
    server.clients[0].expect_close(code)
    assert server.wait_exit() == 0
    server.wait_log(r"\(end of stderr\)")
    assert sum(int(found[3] or 1) for found in lines_of(server, BROADCASTS)) == 100
    assert "stopped; " in server.log[-2], "the last line of the log is another"
    assert server.log.index(lines_of(server, BROADCASTS)[-1].string) < server.log.index(server.wait_log(f"{reason}: stopping"))


def test_without_log_broadcasts_connects_are_logged_and_broadcasts_are_not(crier):
    server = crier("-v", "--no-welcome", "--log-broadcasts", "off")
    client = server.connect()
    server.line("not in the log")
    client.expect_texts(["not in the log"])
    server.wait_log(rf"{client.name} connected")
    server.drop_clients()
    assert server.stop() == 0
    server.wait_log(r"\(end of stderr\)")
    assert not [line for line in server.log if re.search(r"broadcasts?,? #", line)]


def test_a_verbose_log_that_is_no_terminal_names_every_client(crier):
    server = crier("-v", "--no-welcome", workers=2)
    names = {server.connect().name for _ in range(50)}
    for name in names:
        server.wait_log(rf"{re.escape(name)} connected \(\d+ clients?\)")


@pytest.mark.parametrize("workers", [1, 2])
def test_on_a_terminal_clients_have_a_line_per_second_and_worker(crier, workers):
    server = crier("--no-welcome", workers=workers, terminal=True)
    begin = time.monotonic()
    server.connect_everywhere(workers)
    at_once([lambda: [server.connect() for _ in range(10)] for _ in range(10)])
    clients = len(server.clients)

    def connected():
        return sum(int(found["some"] or 0) + bool(found["one"]) for found in lines_of(server, CLIENTS))

    wait_until(lambda: connected() == clients, lambda: f"{clients} clients in the log: {server.log}")
    for worker in range(1, 1 + len(children(server.pid))):
        assert_few([line for line in server.log if f"worker {worker}: " in line], begin)
    assert not [line for line in server.log if re.match(r"\d{4}-", line)], "a time on a terminal"
