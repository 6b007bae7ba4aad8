"""States that a server is in for a moment only, and sizes that fit exactly."""

import re
import signal

from harness import TEXT, server_frame, wait_until

LONGEST = 1024
SMALL_MESSAGES = ("--no-welcome", "--max-message", str(LONGEST), "--ring", "64k", "--pool", "64k")


def write_and_wait(server, data):
    """The server has read all of it: what follows comes with another read."""
    server.write(data)
    wait_until(lambda: server.unread_input() == 0, "the console to be read")


def test_a_line_of_exactly_the_longest_length_may_end_with_cr_lf_wherever_it_is_cut(crier):
    server = crier(*SMALL_MESSAGES)
    client = server.connect()
    lines = []
    for letter, cuts in ("a", [1024]), ("b", [1025]), ("c", [1, 1023]), ("d", [512, 1025]), ("e", [1023, 1024, 1025]):
        data = letter.encode() * LONGEST + b"\r\n"
        for begin, end in zip([0, *cuts], [*cuts, len(data)]):
            write_and_wait(server, data[begin:end])
        lines.append(letter * LONGEST)
    client.expect_texts(lines)
    server.line(b"x" * LONGEST)
    client.expect_texts(["x" * LONGEST])


def test_a_line_that_is_longer_by_a_byte_is_skipped_wherever_it_is_cut(crier):
    server = crier(*SMALL_MESSAGES)
    client = server.connect()
    for cuts in [1024], [1025], [1026], [1, 1025], [1025, 1026]:
        data = b"y" * (LONGEST + 1) + b"\r\n"
        for begin, end in zip([0, *cuts], [*cuts, len(data)]):
            write_and_wait(server, data[begin:end])
    server.line("next")
    client.expect_texts(["next"])
    server.wait_log("line 1: longer than --max-message; skipped$")
    wait_until(lambda: sum(1 + int(more or 0) for more in re.findall(
        r"longer than --max-message; skipped(?: \(and (\d+) more\))?\n", "\n".join([*server.log, ""]))) == 5, "five lines in the log")


def drain(server, reader, count=4000):
    """Broadcasts what sockets do not hold, and tells the server to stop; the stream that each client is due."""
    lines = [b"%06d" % number + b"-" * 1018 for number in range(count)]
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    writer = server.feed(b"".join(line + b"\n" for line in lines))
    assert reader.read(len(expected), what="all lines") == expected
    writer.join()
    server.send_signal(signal.SIGTERM)
    server.wait_phase("deliver")
    return expected


def test_sighup_while_the_server_drains_changes_nothing(crier):
    server = crier("--no-welcome", "--verbose", "--drain", "0", "--slow-grace", "0", "--slow", "block", workers=2)
    reader = server.connect()
    late = server.connect(receive_buffer=4096)
    expected = drain(server, reader)
    for _ in range(2):
        server.send_signal(signal.SIGHUP)
        server.wait_ticks(3)
    reader.expect_close(1001)
    assert late.read(len(expected), what="what was published before the signal") == expected
    late.expect_close(1001)
    assert server.wait_exit() == 0
    assert len([line for line in server.log if ": stopping " in line]) == 1, server.log
