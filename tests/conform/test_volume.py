"""Large messages, many messages, many fragments, small chops: the server as a conformance suite loads it.

A part of them by default, all sizes and counts with CRIER_LONG=1.
"""

import os

import pytest
from cases_deflate import BOTH, NAME, NO_TAKEOVER, WORDS, noise
from table import deflate, fragments, head_of, in_parts, inflate, same_extension

from harness import BINARY, CLOSE, PATIENCE, TEXT, Frame, Job, encode_frame, server_frame

LONG = bool(os.environ.get("CRIER_LONG"))
KIB, MIB = 1 << 10, 1 << 20
SIZES = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB] if LONG else [64 * KIB, MIB, 16 * MIB]
FRAGMENTS = [1 << power for power in range(6, 21, 2)] if LONG else [64, 4 * KIB, MIB]
CHOPS = [64, 128, 256, 512, 1024, 2048] if LONG else [64, 2048]
ROUND_TRIPS = [0, 16, 64, 256, 1024, 4096]
MESSAGES = 1000 if LONG else 50
each_kind = pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
pytestmark = pytest.mark.limit(600 if LONG else 60)


@pytest.fixture
def server(server_with):
    return server_with(())


def payload_of(opcode, size):
    """Text with characters of each length; bytes that nothing compresses."""
    if opcode == BINARY:
        return noise(size)
    text = ("grüße ☂ 𝄞 " * (size // 18 + 1)).encode()[:size]
    return text.decode("utf-8", "ignore").encode().ljust(size, b".")


def send_meanwhile(client, parts):
    """Sends from a thread, because the server may wait until its echoes are read; join() it."""
    def run():
        client.socket.settimeout(4 * PATIENCE)
        for part in parts:
            client.socket.sendall(part)
    return Job(run)


def end(client):
    """Nothing else came, and the connection is still good."""
    client.close(1000)
    assert client.recv_frame() == Frame(True, CLOSE, b"\x03\xe8")
    assert client.read_to_end() == (b"", "eof")


def check_echo(client, opcode, payload, parts):
    sender = send_meanwhile(client, parts)
    expected = server_frame(opcode, payload)
    got = client.read(len(expected), what="echo", timeout=4 * PATIENCE)
    sender.join()
    assert got == expected, f"first difference at byte {next(i for i in range(len(got)) if got[i] != expected[i])}"
    end(client)


@each_kind
@pytest.mark.parametrize("size", SIZES)
def test_a_large_message_in_one_frame_comes_back(server, opcode, size):
    payload = payload_of(opcode, size)
    check_echo(server.connect(), opcode, payload, [encode_frame(opcode, payload)])


@each_kind
@pytest.mark.parametrize("size", FRAGMENTS)
def test_a_message_of_4_mib_in_fragments_comes_back(server, opcode, size):
    payload = payload_of(opcode, 4 * MIB)
    check_echo(server.connect(), opcode, payload, [b"".join(fragments(opcode, in_parts(payload, size)))])


@each_kind
@pytest.mark.parametrize("chop", CHOPS)
def test_a_message_of_1_mib_in_small_writes_comes_back(server, opcode, chop):
    payload = payload_of(opcode, MIB)
    check_echo(server.connect(), opcode, payload, in_parts(encode_frame(opcode, payload), chop))


@each_kind
def test_a_message_of_65537_frames_comes_back(server, opcode):
    payload = payload_of(opcode, 65537)
    check_echo(server.connect(), opcode, payload, [b"".join(fragments(opcode, in_parts(payload, 1)))])


def test_a_text_of_every_character_there_is_comes_back(server):
    text = "".join(chr(code) for code in range(0x110000) if not 0xd800 <= code < 0xe000).encode()
    check_echo(server.connect(), TEXT, text, [encode_frame(TEXT, text)])
    check_echo(server.connect(), TEXT, text, [b"".join(fragments(TEXT, in_parts(text, 1009)))])


def test_a_message_of_65536_bytes_in_fragments_of_1300_comes_back(server):
    payload = b"*" * 65536
    check_echo(server.connect(), TEXT, payload, [b"".join(fragments(TEXT, in_parts(payload, 1300)))])


@each_kind
@pytest.mark.parametrize("size", ROUND_TRIPS)
def test_messages_come_back_one_by_one(server, opcode, size):
    client = server.connect()
    payload = payload_of(opcode, size)
    for _ in range(1000):
        client.send_frame(opcode, payload)
        assert client.recv_frame() == Frame(True, opcode, payload)
    end(client)


def test_thousands_of_tiny_messages_in_one_stream_come_back(server):
    client = server.connect()
    sent = [b"%d" % number for number in range(20000)]
    sender = send_meanwhile(client, [b"".join(encode_frame(TEXT, text) for text in sent)])
    for text in sent:
        assert client.recv_frame() == Frame(True, TEXT, text)
    sender.join()
    end(client)


# ---- compressed ----

OFFERS = {  # what is asked for: the offer, and the window of what comes back
    "default": ("", 15), "no-context": ("; server_no_context_takeover", 15), "bits-9": ("; server_max_window_bits=9", 9),
    "bits-15": ("; server_max_window_bits=15", 15),
    "bits-9-no-context": ("; server_no_context_takeover; server_max_window_bits=9", 9),
    "bits-15-no-context": ("; server_no_context_takeover; server_max_window_bits=15", 15)}
# size of the message, of its fragments (0: one frame)
LOADS = [(16, 0), (64, 0), (256, 0), (1024, 0), (4096, 0), (8192, 0), (16384, 0), (32768, 0), (65536, 0), (131072, 0),
         (8192, 256), (16384, 256), (32768, 256), (65536, 256), (131072, 256), (131072, 1024), (131072, 4096),
         (131072, 32768)]


def recv_message(client, window):
    """(opcode, payload, whether it came compressed): one frame, as the server sends all messages."""
    first, second = client.read(2, timeout=4 * PATIENCE)
    length = second
    if second >= 126:
        length = int.from_bytes(client.read(2 if second == 126 else 8), "big")
    data = client.read(length, timeout=4 * PATIENCE)
    assert first & 0xb0 == 0x80, f"not a whole message in one frame: {first:#x}"
    return first & 0x0f, inflate(data, window) if first & 0x40 else data, bool(first & 0x40)


def connect_deflated(server, asked):
    client = server.socket()
    offer = f"{NAME}; {NO_TAKEOVER}{asked}"
    client.send_raw(client.request(headers=[("Sec-WebSocket-Extensions", offer)]))
    status, headers, _ = head_of(client.read_head(), 0)
    bits = asked.partition("server_max_window_bits")
    assert status == 101 and same_extension(headers["sec-websocket-extensions"], f"{BOTH}{bits[1] and '; '}{bits[1]}{bits[2]}")
    return client


def messages_of(opcode, size, count):
    """Other ones each time, taken from a text or from something that is half text and half noise."""
    stock = WORDS.encode() * (2 * size // len(WORDS) + 2)
    if opcode == BINARY:
        stock = b"".join(noise(100, b"%d" % i) + stock[i * 100:i * 100 + 100] for i in range(len(stock) // 100))
    for number in range(count):
        at = number * 7 % (len(stock) - size)
        part = stock[at:at + size]
        yield part if opcode == BINARY else part.decode("utf-8", "ignore").encode().ljust(size, b".")


@each_kind
@pytest.mark.parametrize("asked", OFFERS)
@pytest.mark.parametrize("load", LOADS, ids=lambda load: "{}-in-{}".format(*load))
def test_compressed_messages_come_back_one_by_one(server, opcode, load, asked):
    size, fragment = load
    offer, window = OFFERS[asked]
    client = connect_deflated(server, offer)
    for payload in messages_of(opcode, size, MESSAGES if size < 32768 or LONG else 10):
        data = deflate(payload)
        client.send_raw(b"".join(fragments(opcode, in_parts(data, fragment or len(data)), rsv=4)))
        got, text, compressed = recv_message(client, window if size <= 4096 else 15)
        assert (got, text) == (opcode, payload)
        assert opcode == BINARY or compressed == (size >= 256), "as --compress-min has it"
    end(client)
