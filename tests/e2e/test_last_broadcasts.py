"""What was published before a connection is closed comes before its Close, for whatever reason it is closed."""

import struct

import pytest

from harness import BINARY, CLOSE, CONTINUATION, PING, TEXT, DeflateClient, Job, deflate, encode_frame

ENDINGS = {
    "reserved opcode": (encode_frame(3, b""), 1002),
    "reserved bit": (encode_frame(TEXT, b"x", rsv=1), 1002),
    "not masked": (encode_frame(TEXT, b"x", mask=None), 1002),
    "ping of 126 bytes": (encode_frame(PING, b"x" * 126), 1002),
    "ping in pieces": (encode_frame(PING, b"x", fin=False), 1002),
    "continuation of nothing": (encode_frame(CONTINUATION, b"x"), 1002),
    "message inside a message": (encode_frame(TEXT, b"x", fin=False) + encode_frame(TEXT, b"x"), 1002),
    "length of 2 ** 63": (encode_frame(BINARY, length_bytes=8, declared=1 << 63), 1002),
    "bad close code": (encode_frame(CLOSE, struct.pack(">H", 999)), 1002),
    "close of one byte": (encode_frame(CLOSE, b"\x03"), 1002),
    "bad close reason": (encode_frame(CLOSE, struct.pack(">H", 1000) + b"\xff"), 1007),
    "not UTF-8": (encode_frame(TEXT, b"\xff"), 1007),
    "not UTF-8 in the last fragment": (encode_frame(TEXT, b"\xc3", fin=False) + encode_frame(CONTINUATION, b"x"), 1007),
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


DEFLATED_ENDINGS = {
    "not deflated": (encode_frame(TEXT, b"\xff\xff\xff\xff", rsv=4), 1007),
    "not UTF-8 when it is inflated": (encode_frame(TEXT, deflate(b"x" * 5000 + b"\xff"), rsv=4), 1007),
    "too long when it is inflated": (encode_frame(TEXT, deflate(b"x" * (2 << 20)), rsv=4), 1009),
    "reserved bit of a continuation": (encode_frame(TEXT, b"x", fin=False) + encode_frame(CONTINUATION, b"x", rsv=4), 1002),
    "reserved bit of a ping": (encode_frame(PING, b"x", rsv=4), 1002),
}


def expect_end(client, ending):
    got = client.expect_close_frame({**ENDINGS, **DEFLATED_ENDINGS}[ending][1])
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


@pytest.mark.parametrize("ending", [*ENDINGS, *DEFLATED_ENDINGS])
def test_with_compression_its_own_broadcasts_come_back_as_well(crier, ending):
    server = crier("--no-welcome", "--on-message", "broadcast", "--compress-min", "1", workers=2)
    listeners = [server.connect(), server.connect(kind=DeflateClient)]
    client = server.connect(kind=DeflateClient)
    lines = lines_of("mine", 500)
    deflated = b"".join(encode_frame(TEXT, deflate(line.encode()), rsv=4) for line in lines)
    client.send_raw(deflated + {**ENDINGS, **DEFLATED_ENDINGS}[ending][0])
    client.expect_texts(lines)
    expect_end(client, ending)
    for listener in listeners:
        listener.expect_texts(lines)


@each_ending
def test_broadcasts_that_wait_for_room_in_the_ring_come_before_the_close_as_well(crier, ending):
    """The sender reads nothing until the ring is full of what it has sent, and its input waits."""
    server = crier("--no-welcome", "--on-message", "broadcast", "--ring", "4M", "--slow-grace", "0", "--slow", "block", workers=2)
    listener, client = server.connect(), server.connect(receive_buffer=4096)
    lines = [f"{number} {'x' * 20000}" for number in range(600)]
    worker = server.worker_of(client)
    jobs = Job(client.send_raw, frames_of(lines) + ENDINGS[ending][0]), Job(listener.expect_texts, lines)
    server.wait_held_up(worker)
    client.expect_texts(lines)
    expect_end(client, ending)
    for job in jobs:
        job.join()
