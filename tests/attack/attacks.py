"""What the attackers do: one row for each attack, as tests/lib/attackers.c plays it."""

import dataclasses
import random
import struct
import typing

from harness import BINARY, CLOSE, CONTINUATION, PING, deflate, encode_frame

MIB = 1 << 20
LONGEST_DEFLATED = 256 << 10  # RECORD_DEFLATE_MAX_BYTES

REQUEST = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
PLAIN = REQUEST + b"\r\n"
DEFLATING = REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
SMALL_WINDOW = REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n\r\n"


# ---- messages ----

def compressed(packed):
    return encode_frame(BINARY, packed, rsv=4)


def bomb(size=MIB):
    """About a thousandth of `size`, which is the longest message, a mebibyte, unless it is given."""
    return compressed(deflate(b"\0" * size))


def slow_to_deflate():
    """The longest message whose echo is deflated, of two letters: many matches, none of them long."""
    pick = random.Random(1)
    return compressed(deflate(bytes(pick.choice(b"ab") for _ in range(LONGEST_DEFLATED))))


def empty_blocks(size):
    """`size` bytes of blocks that each declare a Huffman code and hold nothing but their end, RFC 1951 section 3.2.7. They
    inflate to an empty message."""
    bits = []

    def put(value, count):
        bits.extend(value >> bit & 1 for bit in range(count))

    for _ in range(8):  # a whole number of bytes
        put(0, 1), put(2, 2)  # not the last; dynamic codes
        put(0, 5), put(0, 5), put(14, 4)  # 257 literals, 1 distance, 18 code lengths
        for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
            put(1 if symbol in (1, 18) else 0, 3)
        # Code 0 is a length of 1, code 1 is 18: a run of zeroes, 138 and 118 of them; then the end's code, and a distance's.
        put(1, 1), put(127, 7), put(1, 1), put(107, 7), put(0, 1), put(0, 1)
        put(0, 1)  # the end of the block
    eight = bytes(sum(bit << place for place, bit in enumerate(bits[at:at + 8])) for at in range(0, len(bits), 8))
    return compressed(eight * (size // len(eight)) + b"\0")


def empty_fragments(count):
    """One empty message in so many pieces."""
    return (encode_frame(BINARY, fin=False) + encode_frame(CONTINUATION, fin=False) * (count - 2) +
            encode_frame(CONTINUATION))


# ---- attacks ----

@dataclasses.dataclass
class Attack:
    """flags: of the server. few, many: how many attackers, in `make test` and with CRIER_LONG=1. how: attackers.c's options. long:
    only with CRIER_LONG=1."""

    name: str
    few: int
    many: int
    hello: bytes = b""
    body: typing.Callable[[], bytes] = bytes
    how: dict = dataclasses.field(default_factory=dict)
    flags: tuple = ()
    program: str = "crier"
    long: bool = False

    def __str__(self):
        return self.name

    def server_flags(self):
        return (*self.flags, "--no-welcome") if self.program == "crier" else self.flags


def large_messages(size):
    return ("--max-message", f"{size}M", "--ring", f"{4 * size}M", "--pool", f"{4 * size}M")


ATTACKS = [
    Attack("bombs", 100, 1000, DEFLATING, bomb, dict(again=True)),
    Attack("bombs_and_a_small_window", 100, 1000, SMALL_WINDOW, bomb, dict(again=True)),
    Attack("bombs_with_the_longest_echo_that_is_deflated", 100, 1000, SMALL_WINDOW, lambda: bomb(LONGEST_DEFLATED), dict(again=True)),
    Attack("echoes_that_are_slow_to_deflate", 100, 1000, SMALL_WINDOW, slow_to_deflate, dict(again=True)),
    Attack("bombs_of_newcomers", 100, 1000, SMALL_WINDOW, bomb, dict(rounds=1, again=True)),
    Attack("16_mib_of_empty_blocks", 2, 4, DEFLATING, lambda: empty_blocks(16 * MIB - 100), flags=large_messages(16)),
    Attack("64_mib_of_empty_blocks", 1, 2, DEFLATING, lambda: empty_blocks(64 * MIB - 100), flags=large_messages(64), long=True),
    Attack("200_mib_of_empty_blocks", 1, 1, DEFLATING, lambda: empty_blocks(200 * MIB - 100), flags=large_messages(200), long=True),
    Attack("connections", 200, 1000, how=dict(again=True)),
    Attack("handshakes", 200, 1000, PLAIN, how=dict(again=True)),
    Attack("handshakes_byte_by_byte", 500, 2000, PLAIN, how=dict(again=True, drip=1, at_once=2000)),
    Attack("closes", 500, 4000, PLAIN, lambda: encode_frame(CLOSE, struct.pack(">H", 1000)), dict(again=True)),
    Attack("disconnect_handlers", 500, 4000, PLAIN, lambda: encode_frame(BINARY, b"x"), dict(rounds=1, again=True),
           flags=("--on-disconnect", "compute"), program="probe"),
    Attack("pings", 50, 1000, PLAIN, lambda: encode_frame(PING) * 10000, dict(replies=0)),
    Attack("empty_fragments", 50, 1000, PLAIN, lambda: empty_fragments(10000)),
    Attack("tiny_messages", 50, 1000, PLAIN, lambda: encode_frame(BINARY, b"x") * 10000, dict(replies=10000)),
]
