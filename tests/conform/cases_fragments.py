"""RFC 6455 section 5.4: messages of several frames, and what may come between them."""

from harness import BINARY, TEXT
from table import binary, bye, case, closed, echo, fragments, more, ping, pong, ponged, text

SECTION = "RFC 6455 5.4"

GOOD = [
    case("5.4-two", SECTION, fragments(TEXT, ["one ", "two"]), [echo("one two")]),
    case("5.4-three", SECTION, fragments(BINARY, [b"one ", b"two ", b"three"]), [echo(b"one two three")]),
    case("5.4-bytes", SECTION, fragments(TEXT, list("byte by byte")), [echo("byte by byte")]),
    case("5.4-all-empty", SECTION, fragments(TEXT, ["", "", ""]), [echo("")]),
    case("5.4-all-empty-binary", SECTION, fragments(BINARY, [b"", b""]), [echo(b"")]),
    case("5.4-empty-first", SECTION, fragments(TEXT, ["", "", "x"]), [echo("x")]),
    case("5.4-empty-middle", SECTION, fragments(TEXT, ["x", "", "", "y"]), [echo("xy")]),
    case("5.4-empty-last", SECTION, fragments(BINARY, [b"x", b"y", b""]), [echo(b"xy")]),
    case("5.4-a-hundred", SECTION, fragments(BINARY, [b"%d," % i for i in range(100)]),
         [echo(b"".join(b"%d," % i for i in range(100)))]),
    case("5.4-of-each-size", SECTION, fragments(BINARY, [b"x" * i for i in range(130)]), [echo(b"x" * 8385)]),
    case("5.4-two-messages", SECTION, fragments(TEXT, ["a", "b"]) + fragments(BINARY, [b"c", b"d"]),
         [echo("ab"), echo(b"cd")]),
    case("5.4-then-whole", SECTION, fragments(TEXT, ["a", "b"]) + [text("c")], [echo("ab"), echo("c")]),
]

BETWEEN = [
    case("5.4-ping-between", SECTION, [text("a", fin=False), ping(b"p"), more("b", fin=True)],
         [ponged(b"p"), echo("ab")]),
    case("5.4-ping-between-all", SECTION,
         [binary(b"a", fin=False), ping(b"1"), more(b"b"), ping(b"2"), more(b"c"), ping(b"3"), more(b"", fin=True)],
         [ponged(b"1"), ponged(b"2"), ponged(b"3"), echo(b"abc")]),
    case("5.4-ping-of-125-between", SECTION, [text("a", fin=False), ping(b"p" * 125), more("b", fin=True)],
         [ponged(b"p" * 125), echo("ab")]),
    case("5.4-pings-between-empty-fragments", SECTION, [text(fin=False), ping(b"1"), more(), ping(b"2"), more(fin=True)],
         [ponged(b"1"), ponged(b"2"), echo("")]),
    case("5.4-pong-between", SECTION, [text("a", fin=False), pong(b"p"), more("b", fin=True)], [echo("ab")]),
    case("5.4-close-between", SECTION, [text("a", fin=False), bye(1000)], [closed(1000, b"")]),
    case("5.4-close-between-then-the-rest", SECTION, [text("a", fin=False), bye(1001), more("b", fin=True)],
         [closed(1001, b"")]),
]

BAD = [
    *(case(f"5.4-nothing-to-continue-{kind}", SECTION, [more("x", fin=fin), text("y")], [closed(1002)])
      for kind, fin in (("last", True), ("not-last", False))),
    *(case(f"5.4-nothing-to-continue-{byte:02x}", SECTION, [bytes([byte])], [closed(1002)]) for byte in (0x00, 0x80)),
    case("5.4-nothing-to-continue-behind-a-message", SECTION, [text("a"), more("b", fin=True)],
         [echo("a"), closed(1002)]),
    case("5.4-nothing-to-continue-behind-fragments", SECTION, fragments(TEXT, ["a", "b"]) + [more("c", fin=True)],
         [echo("ab"), closed(1002)]),
    case("5.4-continued-by-a-stranger", SECTION,
         [more("x"), text("a", fin=False), more("b", fin=True)], [closed(1002)]),
    *(case(f"5.4-message-within-a-message-{kind}-{'last' if fin else 'not-last'}", SECTION,
           [text("a", fin=False), start("b", fin=fin), ping()], [closed(1002)])
      for kind, start in (("text", text), ("binary", binary)) for fin in (True, False)),
    *(case(f"5.4-message-within-a-message-{byte:02x}", SECTION, [binary(b"a", fin=False), bytes([byte])],
           [closed(1002)]) for byte in (0x01, 0x02, 0x81, 0x82)),
    case("5.4-message-within-an-empty-one", SECTION, [text(fin=False), text("b")], [closed(1002)]),
    case("5.4-message-within-a-message-behind-a-ping", SECTION, [text("a", fin=False), ping(b"p"), text("b")],
         [ponged(b"p"), closed(1002)]),
]

CASES = [*GOOD, *BETWEEN, *BAD]
