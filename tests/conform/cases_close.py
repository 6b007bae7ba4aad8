"""RFC 6455 sections 5.5.1 and 7: how a connection ends, with which code, and what comes after."""

from harness import CLOSE, TEXT
from table import bye, case, closed, echo, frame, fragments, ping, pong, ponged, text, binary

SECTION, CODES = "RFC 6455 5.5.1", "RFC 6455 7.4"
VALID = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535)
BAD_REASONS = (b"\xff", b"cut \xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "κόσμε".encode() + b"\xce")

ANSWERED = [
    case("5.5.1-empty", SECTION, [bye()], [closed(None)]),
    *(case(f"7.4-valid-{code}", CODES, [bye(code)], [closed(code, b"")]) for code in VALID),
    *(case(f"7.4-valid-{code}-reason", CODES, [bye(code, "because grüße")], [closed(code)]) for code in VALID[::5]),
    case("5.5.1-reason-of-123", SECTION, [bye(1000, "*" * 123)], [closed(1000)]),
    case("5.5.1-reason-of-123-utf8", SECTION, [bye(1000, "€" * 41)], [closed(1000)]),
    case("5.5.1-reason-nul", SECTION, [bye(1000, "\0")], [closed(1000)]),
    case("5.5.1-reason-noncharacter", SECTION, [bye(1000, "\uffff")], [closed(1000)]),
    case("5.5.1-behind-a-message", SECTION, [text("last words"), bye(1000)], [echo("last words"), closed(1000, b"")]),
    case("5.5.1-behind-a-ping", SECTION, [ping(b"p"), bye(4321)], [ponged(b"p"), closed(4321, b"")]),
    case("5.5.1-behind-many", SECTION, [text(f"{i}") for i in range(50)] + [bye(1000)],
         [echo(f"{i}") for i in range(50)] + [closed(1000, b"")]),
    case("5.5.1-behind-256k", SECTION, [text("*" * 262144), text("and"), bye(1000)],
         [echo("*" * 262144), echo("and"), closed(1000, b"")]),
]

REFUSED = [
    case("5.5.1-one-byte", SECTION, [frame(CLOSE, b"\x03"), ping()], [closed(1002)]),
    *(case(f"7.4-invalid-{code}", CODES, [bye(code), ping()], [closed(1002)]) for code in INVALID),
    *(case(f"7.4-invalid-{code}-reason", CODES, [bye(code, "reason")], [closed(1002)]) for code in INVALID[::4]),
    *(case(f"5.5.1-reason-{reason.hex()}", SECTION, [bye(1000, reason)], [closed(1007)]) for reason in BAD_REASONS),
    case("5.5.1-reason-of-124", SECTION, [bye(1000, "*" * 124)], [closed(1002)]),
    case("5.5.1-invalid-code-and-reason", SECTION, [bye(999, b"\xff")], [closed(1002)]),
]

# RFC 6455 section 5.5.1: nothing behind a Close is looked at, whichever side sent it first.
BEHIND = [
    *(case(f"5.5.1-{name}-behind-it", SECTION, [bye(1000), *late], [closed(1000, b"")])
      for name, late in (("text", [text("late")]), ("ping", [ping(b"late")]), ("pong", [pong()]),
                         ("close", [bye(1001)]), ("empty-close", [bye()]), ("fragments", fragments(TEXT, ["a", "b"])),
                         ("junk", [b"\xff\xff\xff\xff"]), ("half-a-frame", [text("half")[:3]]))),
    case("7.1.7-answer", "RFC 6455 7.1.7", [text("x", rsv=2), bye(1002)], [closed(1002)]),
    case("7.1.7-late-message", "RFC 6455 7.1.7", [text("x", rsv=2), text("late"), ping(b"late")], [closed(1002)]),
    case("7.1.7-late-flood", "RFC 6455 7.1.7", [text(b"\xff"), binary(b"late" * 262144)], [closed(1007)]),
    case("7.1.1-late-flood", "RFC 6455 7.1.1", [bye(1000), binary(b"late" * 262144)], [closed(1000, b"")]),
    case("7.1.1-late-flood-behind-echoes", "RFC 6455 7.1.1",
         [text("*" * 200000), bye(1000), binary(b"late" * 262144)], [echo("*" * 200000), closed(1000, b"")]),
    case("7.1.7-late-close", "RFC 6455 7.1.7", [text(b"\xff"), bye(1000, "never mind")], [closed(1007)]),
]

CASES = [*ANSWERED, *REFUSED, *BEHIND]
