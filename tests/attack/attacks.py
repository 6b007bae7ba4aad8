"""What the attackers do: one row for each attack, as tests/lib/attackers.c plays it."""

import dataclasses
import random
import struct
import typing

from harness import BINARY, CLOSE, CONTINUATION, deflate, encode_frame

LONGEST_DEFLATED = 256 << 10  # RECORD_DEFLATE_MAX_BYTES

REQUEST = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
PLAIN = REQUEST + b"\r\n"
SMALL_WINDOW = REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n\r\n"


# ---- messages ----

def compressed(packed):
    return encode_frame(BINARY, packed, rsv=4)


def slow_to_deflate():
    """The longest message whose echo is deflated, of two letters: many matches, none of them long."""
    pick = random.Random(1)
    return compressed(deflate(bytes(pick.choice(b"ab") for _ in range(LONGEST_DEFLATED))))


def empty_fragments(count):
    """One empty message in so many pieces."""
    return (encode_frame(BINARY, fin=False) + encode_frame(CONTINUATION, fin=False) * (count - 2) +
            encode_frame(CONTINUATION))


# ---- attacks ----

@dataclasses.dataclass
class Attack:
    """few, many: how many attackers, in `make test` and with CRIER_LONG=1. how: attackers.c's options."""

    name: str
    few: int
    many: int
    hello: bytes = b""
    body: typing.Callable[[], bytes] = bytes
    how: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        return self.name


ATTACKS = [
    Attack("echoes_that_are_slow_to_deflate", 100, 1000, SMALL_WINDOW, slow_to_deflate, dict(again=True)),
    Attack("connections", 200, 1000, how=dict(again=True)),
    Attack("handshakes", 200, 1000, PLAIN, how=dict(again=True)),
    Attack("handshakes_byte_by_byte", 500, 2000, PLAIN, how=dict(again=True, drip=1, at_once=2000)),
    Attack("closes", 500, 4000, PLAIN, lambda: encode_frame(CLOSE, struct.pack(">H", 1000)), dict(again=True)),
    Attack("empty_fragments", 50, 500, PLAIN, lambda: empty_fragments(10000)),
]
