"""Messages at --max-message, and one byte over: RFC 6455 section 10.4, answered with 1009."""

from harness import BINARY, TEXT
from table import binary, case, closed, echo, fragments, in_parts, more, ping, ponged, text

SECTION, LIMIT = "RFC 6455 10.4", ("--max-message", "1000")


def limited(id, sends, expects):
    return case(f"10.4-{id}", SECTION, sends, expects, flags=LIMIT)


GOOD = [
    limited("at-text", [text("*" * 1000)], [echo("*" * 1000)]),
    limited("at-binary", [binary(b"*" * 1000)], [echo(b"*" * 1000)]),
    limited("at-two-fragments", fragments(TEXT, ["a" * 999, "b"]), [echo("a" * 999 + "b")]),
    limited("at-bytes", fragments(BINARY, in_parts(b"*" * 1000, 10)), [echo(b"*" * 1000)]),
    limited("at-then-empty-fragments", [text("*" * 1000, fin=False), more(), more(), more(fin=True)], [echo("*" * 1000)]),
    limited("at-with-pings", [text("*" * 999, fin=False), ping(b"p" * 125), more("*", fin=True)],
            [ponged(b"p" * 125), echo("*" * 1000)]),
    limited("at-twice", [text("*" * 1000), text("*" * 1000)], [echo("*" * 1000), echo("*" * 1000)]),
]

BAD = [
    limited("over-text", [text("*" * 1001), ping()], [closed(1009)]),
    limited("over-binary", [binary(b"*" * 1001)], [closed(1009)]),
    limited("over-head-alone", [b"\x82\xfe\x03\xe9" + b"mask"], [closed(1009)]),
    limited("over-64-bit-head", [b"\x82\xff" + (65536).to_bytes(8, "big") + b"mask"], [closed(1009)]),
    limited("over-by-a-fragment", fragments(TEXT, ["a" * 1000, "b"]), [closed(1009)]),
    limited("over-by-a-head", [binary(b"a" * 600, fin=False), more(b"", declared=401, length_bytes=2)], [closed(1009)]),
    limited("over-by-many", fragments(BINARY, in_parts(b"*" * 1001, 7)), [closed(1009)]),
    limited("over-behind-a-message", [text("good"), text("*" * 1001)], [echo("good"), closed(1009)]),
    limited("over-in-the-first-fragment", [text("*" * 1001, fin=False)], [closed(1009)]),
    limited("over-by-an-overflow", [binary(b"a" * 600, fin=False), more(b"", declared=(1 << 63) - 1)], [closed(1009)]),
    *(case(f"10.4-head-of-2-to-the-{power}", SECTION, [binary(b"", declared=1 << power)], [closed(1009)])
      for power in (26, 31, 32, 33, 48, 62)),
    case("10.4-head-of-all-63-bits", SECTION, [text(b"", declared=(1 << 63) - 1)], [closed(1009)]),
    case("10.4-head-of-one-over", SECTION, [text(b"", declared=(32 << 20) + 1)], [closed(1009)]),
]

CASES = [*GOOD, *BAD]
