"""RFC 6455 section 5.2, 5.3 and 5.5: what one frame may and may not be."""

from harness import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from table import binary, case, closed, bye, echo, frame, more, ping, pong, ponged, text

HEAD, MASKS, CONTROL = "RFC 6455 5.2", "RFC 6455 5.3", "RFC 6455 5.5"
NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 124, 125, 126, 127, 128, 255, 256, 65535, 65536,
         65537)
EVERY_BYTE = bytes(range(256))


def some_text(size):
    return ("*" * size) if size < 3 else "grüße, " * (size // 9) + "x" * (size - size // 9 * 9)


def some_bytes(size):
    return (EVERY_BYTE * (size // 256 + 1))[:size]


WHOLE = [
    *(case(f"5.2-text-{size}", HEAD, [text(some_text(size))], [echo(some_text(size))]) for size in SIZES),
    *(case(f"5.2-binary-{size}", HEAD, [binary(some_bytes(size))], [echo(some_bytes(size))]) for size in SIZES),
    case("5.2-pipelined", HEAD, [text(f"{i}") for i in range(40)], [echo(f"{i}") for i in range(40)]),
    case("5.2-pipelined-sizes", HEAD, [binary(some_bytes(i)) for i in range(0, 400, 3)],
         [echo(some_bytes(i)) for i in range(0, 400, 3)]),
    case("5.2-pipelined-kinds", HEAD, [text("a"), binary(b"b"), ping(b"c"), pong(b"d"), text(""), binary(b"")],
         [echo("a"), echo(b"b"), ponged(b"c"), echo(""), echo(b"")]),
]

OPCODES = [
    *(case(f"5.2-opcode-{opcode}", HEAD, [frame(opcode), ping()], [closed(1002)]) for opcode in RESERVED),
    *(case(f"5.2-opcode-{opcode}-payload", HEAD, [frame(opcode, "reserved"), ping()], [closed(1002)])
      for opcode in RESERVED),
    *(case(f"5.2-opcode-{opcode}-behind-a-message", HEAD, [text("good"), frame(opcode, "bad"), ping()],
           [echo("good"), closed(1002)]) for opcode in RESERVED),
    *(case(f"5.2-opcode-{opcode}-in-a-message", HEAD, [text("unfinished", fin=False), frame(opcode)], [closed(1002)])
      for opcode in RESERVED),
    *(case(f"5.2-opcode-{opcode}-first-byte", HEAD, [bytes([0x80 | opcode])], [closed(1002)]) for opcode in RESERVED),
]

RSV = [
    *(case(f"5.2-rsv{rsv}-{NAMES[opcode]}", HEAD, [frame(opcode, "x", rsv=rsv), ping()], [closed(1002)])
      for rsv in range(1, 8) for opcode in (TEXT, BINARY, PING, PONG)),
    *(case(f"5.2-rsv{rsv}-close", HEAD, [bye(1000, rsv=rsv)], [closed(1002)]) for rsv in range(1, 8)),
    *(case(f"5.2-rsv{rsv}-continuation", HEAD, [text("a", fin=False), more("b", fin=True, rsv=rsv)], [closed(1002)])
      for rsv in range(1, 8)),
    *(case(f"5.2-rsv{rsv}-behind-a-message", HEAD, [text("a"), text("b", rsv=rsv), ping()], [echo("a"), closed(1002)])
      for rsv in range(1, 8)),
    *(case(f"5.2-rsv{rsv}-first-byte", HEAD, [bytes([0x80 | rsv << 4 | TEXT])], [closed(1002)]) for rsv in range(1, 8)),
]

LENGTHS = [
    *(case(f"5.2-length-{size}-in-16-bits", HEAD, [binary(some_bytes(size), length_bytes=2), ping()], [closed(1002)])
      for size in (0, 1, 124, 125)),
    *(case(f"5.2-length-{size}-in-64-bits", HEAD, [binary(some_bytes(size), length_bytes=8), ping()], [closed(1002)])
      for size in (0, 1, 125, 126, 65535)),
    case("5.2-length-head-in-16-bits", HEAD, [b"\x82\xfe\x00\x7d"], [closed(1002)]),
    case("5.2-length-head-in-64-bits", HEAD, [b"\x82\xff" + (65535).to_bytes(8, "big")], [closed(1002)]),
    *(case(f"5.2-length-top-bit-{low:x}", HEAD, [b"\x82\xff" + (1 << 63 | low).to_bytes(8, "big")], [closed(1002)])
      for low in (0, 5, 65536, (1 << 63) - 1)),
]

MASKED = [
    *(case(f"5.1-unmasked-{NAMES[opcode]}", "RFC 6455 5.1", [frame(opcode, payload, mask=None), ping()], [closed(1002)])
      for opcode, payload in ((TEXT, "x"), (BINARY, "x"), (PING, ""), (PONG, ""), (CLOSE, "\x03\xe8"))),
    case("5.1-unmasked-empty", "RFC 6455 5.1", [text(mask=None)], [closed(1002)]),
    case("5.1-unmasked-head", "RFC 6455 5.1", [b"\x81\x05"], [closed(1002)]),
    case("5.1-unmasked-behind-a-message", "RFC 6455 5.1", [text("a"), text("b", mask=None)], [echo("a"), closed(1002)]),
    case("5.1-unmasked-continuation", "RFC 6455 5.1", [text("a", fin=False), more("b", mask=None)], [closed(1002)]),
    *(case(f"5.3-mask-{mask.hex()}-{size}", MASKS, [binary(some_bytes(size), mask=mask), text("*" * size, mask=mask)],
           [echo(some_bytes(size)), echo("*" * size)])
      for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4", b"\0\0\0\x80") for size in (1, 2, 3, 4, 5, 38)),
    case("5.3-mask-of-each-frame", MASKS,
         [text("one ", fin=False, mask=b"\1\2\3\4"), more("two ", mask=b"\xff\0\xff\0"), ping(b"p", mask=b"\5\6\7\x08"),
          more("three", fin=True, mask=b"\0\0\0\0")],
         [ponged(b"p"), echo("one two three")]),
]

PINGS = [
    *(case(f"5.5.2-ping-{size}", "RFC 6455 5.5.2", [ping(some_bytes(size))], [ponged(some_bytes(size))])
      for size in (0, 1, 5, 124, 125)),
    case("5.5.2-ping-not-utf8", "RFC 6455 5.5.2", [ping(b"\0\xff\xfe\xfd\xfc\xfb\0\xff")],
         [ponged(b"\0\xff\xfe\xfd\xfc\xfb\0\xff")]),
    case("5.5.2-ten-pings", "RFC 6455 5.5.2", [ping(b"payload-%d" % i) for i in range(10)],
         [ponged(b"payload-%d" % i) for i in range(10)]),
    case("5.5.2-ping-flood", "RFC 6455 5.5.2", [ping(b"%d" % i) for i in range(2000)],
         [ponged(b"%d" % i) for i in range(2000)]),
    case("5.5.2-pings-among-messages", "RFC 6455 5.5.2",
         [part for i in range(10) for part in (text(f"{i}"), ping(b"%d" % i))],
         [part for i in range(10) for part in (echo(f"{i}"), ponged(b"%d" % i))]),
    case("5.5.3-pong-unasked", "RFC 6455 5.5.3", [pong(), pong(b"by the way"), ping(b"x")], [ponged(b"x")]),
    case("5.5.3-pong-flood", "RFC 6455 5.5.3", [pong(b"%d" % i) for i in range(2000)] + [text("a")], [echo("a")]),
]

CONTROLS = [
    *(case(f"5.5-{NAMES[opcode]}-fragmented", CONTROL, [frame(opcode, fin=False), ping()], [closed(1002)])
      for opcode in (CLOSE, PING, PONG)),
    *(case(f"5.5-{NAMES[opcode]}-fragmented-first-byte", CONTROL, [bytes([opcode])], [closed(1002)])
      for opcode in (CLOSE, PING, PONG)),
    case("5.5-ping-in-two-fragments", CONTROL, [ping(b"a", fin=False), more(b"b", fin=True)], [closed(1002)]),
    *(case(f"5.5-{NAMES[opcode]}-{size}", CONTROL, [frame(opcode, b"\x03\xe8" + b"x" * (size - 2)), ping()],
           [closed(1002)]) for opcode in (CLOSE, PING, PONG) for size in (126, 127, 300, 65536)),
    *(case(f"5.5-{NAMES[opcode]}-head-of-{length}", CONTROL, [bytes([0x80 | opcode, 0x80 | length])], [closed(1002)])
      for opcode in (CLOSE, PING, PONG) for length in (126, 127)),
    *(case(f"5.5-ping-of-5-in-{bits}-bits", CONTROL, [ping(b"12345", length_bytes=bits // 8)], [closed(1002)])
      for bits in (16, 64)),
]

CASES = [*WHOLE, *OPCODES, *RSV, *LENGTHS, *MASKED, *PINGS, *CONTROLS]
