"""What was published before a connection is closed comes before its Close, whoever closes it and why."""

import struct

import pytest

from harness import BINARY, CLOSE, PING, TEXT, encode_frame

ENDINGS = {
    "reserved opcode": (encode_frame(3, b""), 1002),
    "reserved bit": (encode_frame(TEXT, b"x", rsv=1), 1002),
    "not masked": (encode_frame(TEXT, b"x", mask=None), 1002),
    "bad close code": (encode_frame(CLOSE, struct.pack(">H", 999)), 1002),
    "not UTF-8": (encode_frame(TEXT, b"\xff"), 1007),
    "too long": (encode_frame(BINARY, b"x" * 20, declared=2 << 20), 1009),
    "its own close": (encode_frame(CLOSE, struct.pack(">H", 4001)), 4001),
    "its own close without a code": (encode_frame(CLOSE, b""), None),
}
each_ending = pytest.mark.parametrize("ending", ENDINGS)
MANY = 3000


def lines_of(who, count):
    return [f"{who} {number} {'x' * (number % 50)}" for number in range(count)]


def frames_of(lines):
    return b"".join(encode_frame(TEXT, line.encode()) for line in lines)


def expect_end(client, ending):
    got = client.expect_close_frame(ENDINGS[ending][1])
    client.read_to_end()
    client.drop()
    return got


@each_ending
@pytest.mark.parametrize("workers", [1, 3])
def test_a_sender_gets_its_own_broadcasts_before_it_is_closed(crier, workers, ending):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    listener, client = server.connect(), server.connect()
    lines = lines_of("mine", MANY)
    client.send_raw(frames_of(lines) + ENDINGS[ending][0])
    client.expect_texts(lines)
    expect_end(client, ending)
    listener.expect_texts(lines)


@each_ending
def test_echoes_and_what_others_published_come_before_the_close_as_well(crier, ending):
    server = crier("--no-welcome", "--on-message", "both", workers=2)
    client, other = server.connect(), server.connect()
    theirs, mine = lines_of("theirs", 500), lines_of("mine", 500)
    other.send_raw(frames_of(theirs))
    other.expect_texts(theirs)  # they are published
    client.send_raw(frames_of(mine) + encode_frame(PING, b"") + ENDINGS[ending][0])
    got = [client.recv_text() for _ in range(1000)]
    assert [line for line in got if line.startswith("mine")] == mine
    assert [line for line in got if line.startswith("theirs")] == theirs
    expect_end(client, ending)
    other.expect_texts(mine)


@each_ending
def test_a_client_whose_socket_is_full_gets_all_of_it_before_its_close(crier, ending):
    server = crier("--no-welcome", "--on-message", "broadcast", "--slow-grace", "0", workers=1)
    client = server.connect(receive_buffer=4096)
    lines = [f"{number} {'x' * 20000}" for number in range(300)]  # below three quarters of the ring
    for line in lines:
        server.line(line)
    server.wait_counter("broadcasts_published", len(lines))
    client.send_raw(encode_frame(TEXT, b"my last") + ENDINGS[ending][0])
    server.wait_counter("broadcasts_published", len(lines) + 1)
    client.expect_texts([*lines, "my last"])
    expect_end(client, ending)
    server.wait_counter("clients_left", 1)
    counters = server.counters()
    assert counters["broadcasts_undeliverable"] == 0 and counters["broadcasts_delivered"] == len(lines) + 1, counters
