"""RFC 7692: permessage-deflate, offered, agreed to, and used."""

import hashlib
import zlib

from cases_handshake import request
from harness import BINARY, TEXT
from table import (binary, bye, case, closed, deflate, deflated, echo, fragments, frame, in_parts, more, ping, pong,
                   ponged, refused, text, upgraded)

NAME, RSV1 = "permessage-deflate", 4
BOTH = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
NO_TAKEOVER = "client_no_context_takeover; client_max_window_bits"


def offered(id, agreed, *offers, section="RFC 7692 7.1"):
    """The offers, one in a line, are answered with exactly `agreed`; None: the extension is declined."""
    lines = [f"Sec-WebSocket-Extensions: {offer}" for offer in offers]
    return case(f"7.1-offer-{id}", section, [request(*lines), text("hello")], [upgraded(agreed=agreed), echo("hello")],
                opening=True)


def agreed(id, section, sends, expects, more_offered="", more_agreed="", **how):
    return case(id, section, sends, expects, offer=NAME + more_offered, agreed=BOTH + more_agreed, **how)


def zipped(payload, **how):
    """A compressed message in one frame."""
    return frame(TEXT if isinstance(payload, str) else BINARY, deflate(payload, **how), rsv=RSV1)


def noise(size, seed=b"noise"):
    """Bytes that nothing makes shorter, the same in every run."""
    return hashlib.shake_128(seed).digest(size)


WORDS = "Habe nun, ach! Philosophie, Juristerei und Medizin, und leider auch Theologie durchaus studiert, mit heißem " \
        "Bemühn. Da steh’ ich nun, ich armer Tor, und bin so klug als wie zuvor! "
SHORT, LONG = WORDS[:40], WORDS * 5
# Repeats that are too far for one size of window after the other.
FAR = b"." * 2000 + b"".join(noise(300, b"%d" % far) + noise(far - 300, b"between %d" % far) + noise(300, b"%d" % far)
                             for far in (700, 1500, 3000, 6000, 12000, 24000))

def malformed(id, line):
    """RFC 6455 section 9.1: a header that is not of its grammar fails the handshake."""
    return case(f"9.1-offer-{id}", "RFC 6455 9.1", [request(f"Sec-WebSocket-Extensions: {line}"), text("x")],
                [refused(400)], opening=True)


OFFERS = [
    offered("alone", BOTH, NAME),
    offered("of-browsers", BOTH, f"{NAME}; client_max_window_bits"),
    offered("server-no-context", BOTH, f"{NAME}; server_no_context_takeover"),
    offered("client-no-context", BOTH, f"{NAME}; client_no_context_takeover"),
    *(offered(f"server-bits-{bits}", f"{BOTH}; server_max_window_bits={bits}", f"{NAME}; server_max_window_bits={bits}")
      for bits in range(9, 16)),
    *(offered(f"client-bits-{bits}", f"{BOTH}; client_max_window_bits={bits}", f"{NAME}; client_max_window_bits={bits}")
      for bits in range(8, 16)),
    # what the public suites offer
    offered("suite-1", BOTH, f"{NAME}; {NO_TAKEOVER}"),
    offered("suite-2", BOTH, f"{NAME}; {NO_TAKEOVER}; server_no_context_takeover"),
    offered("suite-3", f"{BOTH}; server_max_window_bits=9", f"{NAME}; {NO_TAKEOVER}; server_max_window_bits=9"),
    offered("suite-4", f"{BOTH}; server_max_window_bits=15", f"{NAME}; {NO_TAKEOVER}; server_max_window_bits=15"),
    offered("suite-5", f"{BOTH}; server_max_window_bits=9",
            f"{NAME}; {NO_TAKEOVER}; server_no_context_takeover; server_max_window_bits=9"),
    offered("suite-6", f"{BOTH}; server_max_window_bits=15",
            f"{NAME}; {NO_TAKEOVER}; server_no_context_takeover; server_max_window_bits=15"),
    offered("suite-7", BOTH, f"{NAME}; {NO_TAKEOVER}; server_no_context_takeover; server_max_window_bits=8, "
                             f"{NAME}; {NO_TAKEOVER}; server_no_context_takeover, {NAME}; {NO_TAKEOVER}"),
    # several, tried in order
    offered("first-good-one", f"{BOTH}; server_max_window_bits=10", f"{NAME}; server_max_window_bits=10, {NAME}"),
    offered("second-after-an-unknown-parameter", BOTH, f"{NAME}; x, {NAME}"),
    offered("second-after-another-extension", BOTH, f"foo; bar=1, {NAME}"),
    offered("in-two-lines", BOTH, "foo", NAME),
    offered("in-two-lines-second-good", BOTH, f"{NAME}; server_max_window_bits=8", NAME),
    offered("quoted-value", f"{BOTH}; server_max_window_bits=10", f'{NAME}; server_max_window_bits="10"'),
    offered("no-blanks", f"{BOTH}; server_max_window_bits=10", f"{NAME};server_max_window_bits=10;client_max_window_bits"),
    offered("hidden-in-quotes", None, f'foo; bar="{NAME}"', section="RFC 6455 9.1"),
    *(offered(f"declined-{number}", None, f"{NAME}{bad}") for number, bad in enumerate((
        "; server_max_window_bits=8", "; server_max_window_bits", "; server_max_window_bits=7",
        "; server_max_window_bits=16", "; server_max_window_bits=010", "; server_max_window_bits=+10",
        "; server_max_window_bits=1x", "; client_max_window_bits=7",
        "; client_max_window_bits=16", "; client_max_window_bits=08", "; client_max_window_bits=x",
        "; server_no_context_takeover=1", "; client_no_context_takeover=true", "; unknown", "; unknown=1",
        "; server_no_context_takeover; server_no_context_takeover", "; client_max_window_bits; client_max_window_bits",
        "; server_max_window_bits=10; server_max_window_bits=10"))),
    *(malformed(name, f"{NAME}{rest}") for name, rest in (
        ("empty-value", "; server_max_window_bits="), ("empty-parameter", ";"), ("two-words", " x"),
        ("open-quote", '; x="y'), ("separator", "; x=(y)"), ("no-name", "; =10"))),
]

RECEIVED = "RFC 7692 7.2.2"
GOOD = [
    # the examples of RFC 7692 section 7.2.3
    agreed("7.2.3.1-hello", "RFC 7692 7.2.3.1", [text(b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=RSV1)], [echo("Hello")]),
    agreed("7.2.3.1-hello-in-two", "RFC 7692 7.2.3.1",
           [text(b"\xf2\x48\xcd", rsv=RSV1, fin=False), more(b"\xc9\xc9\x07\x00", fin=True)], [echo("Hello")]),
    agreed("7.2.3.3-stored", "RFC 7692 7.2.3.3", [text(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", rsv=RSV1)],
           [echo("Hello")]),
    agreed("7.2.3.4-final-block", "RFC 7692 7.2.3.4", [text(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", rsv=RSV1)],
           [echo("Hello")]),
    agreed("7.2.3.5-two-blocks", "RFC 7692 7.2.3.5",
           [text(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", rsv=RSV1)], [echo("Hello")]),
    agreed("7.2.3.6-empty", "RFC 7692 7.2.3.6", [text(b"\x00", rsv=RSV1)], [echo("")]),
    agreed("7.2.3.6-empty-binary", "RFC 7692 7.2.3.6", [binary(b"\x00", rsv=RSV1)], [echo(b"")]),
    # what comes back compressed, and what does not
    *(agreed(f"7.2.1-size-{size}", "RFC 7692 7.2.1", [zipped("x" * size), text("x" * size), zipped(b"x" * size)],
             [how("x" * size), how("x" * size), how(b"x" * size)])
      for size, how in ((0, echo), (1, echo), (255, echo), (256, deflated), (257, deflated), (1000, deflated),
                        (70000, deflated))),
    agreed("7.2.1-words", "RFC 7692 7.2.1", [zipped(LONG), zipped(SHORT), text(LONG)],
           [deflated(LONG), echo(SHORT), deflated(LONG)]),
    agreed("7.2.1-not-smaller", "RFC 7692 6", [binary(noise(2000)), zipped(noise(2000))],
           [echo(noise(2000)), echo(noise(2000))]),
    agreed("7.2.1-each-by-itself", "RFC 7692 7.1.1", [zipped(LONG)] * 5, [deflated(LONG)] * 5),
    *(agreed(f"7.2.2-level-{level}", RECEIVED, [zipped(LONG, level=level)], [deflated(LONG)]) for level in (0, 1, 6, 9)),
    *(agreed(f"7.2.2-strategy-{name}", RECEIVED, [zipped(LONG, strategy=strategy)], [deflated(LONG)])
      for name, strategy in (("filtered", zlib.Z_FILTERED), ("huffman", zlib.Z_HUFFMAN_ONLY), ("runs", zlib.Z_RLE),
                             ("fixed", zlib.Z_FIXED))),
    *(agreed(f"7.1.2-client-bits-{bits}", "RFC 7692 7.1.2.2", [zipped(FAR, window=bits)], [deflated(FAR)],
             f"; client_max_window_bits={bits}", f"; client_max_window_bits={bits}") for bits in range(9, 16)),
    *(agreed(f"7.1.2-server-bits-{bits}", "RFC 7692 7.1.2.1", [zipped(FAR), zipped(LONG)],
             [deflated(FAR, bits), deflated(LONG, bits)],
             f"; server_max_window_bits={bits}", f"; server_max_window_bits={bits}") for bits in range(9, 16)),
    # fragments, and what comes between them
    agreed("6.1-bytes", "RFC 7692 6.1", fragments(TEXT, in_parts(deflate(WORDS), 1), rsv=RSV1), [echo(WORDS)]),
    agreed("6.1-fragments", "RFC 7692 6.1", fragments(TEXT, in_parts(deflate(LONG), 50), rsv=RSV1), [deflated(LONG)]),
    agreed("6.1-empty-fragments", "RFC 7692 6.1", fragments(TEXT, [b"", deflate(WORDS)[:9], b"", deflate(WORDS)[9:], b""],
                                                          rsv=RSV1), [echo(WORDS)]),
    agreed("6.1-pings-between", "RFC 7692 6.1",
           [part for one in fragments(BINARY, in_parts(deflate(LONG), 100), rsv=RSV1) for part in (one, ping(b"p"))][:-1],
           [ponged(b"p")] * (len(in_parts(deflate(LONG), 100)) - 1) + [deflated(LONG.encode())]),
    agreed("6.1-pong-between", "RFC 7692 6.1",
           [text(deflate(WORDS)[:5], rsv=RSV1, fin=False), pong(b"p"), more(deflate(WORDS)[5:], fin=True)], [echo(WORDS)]),
    agreed("6-plain-among-compressed", "RFC 7692 6",
           [text("a"), zipped("b"), binary(b"c"), zipped(b"d"), *fragments(TEXT, ["e", "f"]), ping(b"g"), zipped("h")],
           [echo("a"), echo("b"), echo(b"c"), echo(b"d"), echo("ef"), ponged(b"g"), echo("h")]),
    agreed("6-close-is-plain", "RFC 7692 6", [zipped("a"), bye(3000)], [echo("a"), closed(3000, b"")]),
    agreed("8.1-characters-across-fragments", "RFC 6455 8.1",
           fragments(TEXT, in_parts(deflate("☂𝄞é" * 20, level=0), 3), rsv=RSV1), [echo("☂𝄞é" * 20)]),
    agreed("5.6-binary-not-utf8", "RFC 6455 5.6", [zipped(b"\xff\xfe\xc0")], [echo(b"\xff\xfe\xc0")]),
]

BAD_RSV = [
    agreed("6.1-rsv1-on-a-continuation", "RFC 7692 6.1",
           [text(deflate(WORDS)[:5], rsv=RSV1, fin=False), more(deflate(WORDS)[5:], fin=True, rsv=RSV1)], [closed(1002)]),
    agreed("6.1-rsv1-on-a-continuation-of-plain", "RFC 7692 6.1",
           [text("plain", fin=False), more(deflate("x"), fin=True, rsv=RSV1)], [closed(1002)]),
    *(agreed(f"6-rsv1-on-a-{name}", "RFC 7692 6", [start(rsv=RSV1), ping()], [closed(1002)])
      for name, start in (("ping", ping), ("pong", pong), ("close", bye))),
    *(agreed(f"5.2-rsv{rsv}-with-the-extension", "RFC 6455 5.2", [text("x", rsv=rsv), ping()], [closed(1002)])
      for rsv in (1, 2, 3, 5, 6, 7)),
    agreed("5.2-rsv-first-byte-with-the-extension", "RFC 6455 5.2", [b"\xe1"], [closed(1002)]),
    case("6-rsv1-that-was-declined", "RFC 7692 6", [zipped("x"), ping()], [closed(1002)],
         offer=f"{NAME}; server_max_window_bits=8"),
    case("6-rsv1-that-is-off", "RFC 7692 6", [zipped("x"), ping()], [closed(1002)], offer=NAME,
         flags=("--compress", "off")),
    case("6-plain-when-off", "RFC 7692 6", [text(LONG)], [echo(LONG)], offer=NAME, flags=("--compress", "off")),
]

BROKEN = [
    *(agreed(f"7.2.2-broken-{data.hex()[:16]}", RECEIVED, [text("good"), text(data, rsv=RSV1), ping()],
             [echo("good"), closed(1007)])
      for data in (b"\xff\xff", b"\x06", b"\x07\x00", b"\xf2\x48\xcd", b"\x00\x05\x00\xfa\xfa\x48\x65\x6c\x6c\x6f\x00",
                   b"\x00\x05\x00\xfa\xff\x48", b"plain text", deflate(LONG)[:-40])),
    # The example of RFC 7692 section 7.2.3.2 refers to the message before, which was forgotten.
    agreed("7.1.1-refers-to-the-message-before", "RFC 7692 7.1.1.2",
           [text(b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=RSV1), text(b"\xf2\x00\x11\x00\x00", rsv=RSV1)],
           [echo("Hello"), closed(1007)]),
    agreed("7.1.1-refers-to-nothing", "RFC 7692 7.1.1.2", [text(b"\xf2\x00\x11\x00\x00", rsv=RSV1)], [closed(1007)]),
    *(agreed(f"8.1-compressed-{name}", "RFC 6455 8.1", [zipped("good"), frame(TEXT, deflate(data), rsv=RSV1), ping()],
             [echo("good"), closed(1007)])
      for name, data in (("ff", b"\xff"), ("cut", b"cut \xe2\x82"), ("surrogate", b"\xed\xa0\x80"),
                         ("late", LONG.encode() + b"\xc0"))),
]

LIMIT = ("--max-message", "1000")
LIMITS = [
    agreed("10.4-inflated-at", "RFC 6455 10.4", [zipped("x" * 1000)], [deflated("x" * 1000)], flags=LIMIT),
    agreed("10.4-inflated-at-stored", "RFC 6455 10.4", [zipped(noise(1000), level=0)], [echo(noise(1000))], flags=LIMIT),
    agreed("10.4-inflated-at-in-fragments", "RFC 6455 10.4",
           fragments(BINARY, in_parts(deflate(noise(1000), level=0), 100), rsv=RSV1), [echo(noise(1000))], flags=LIMIT),
    agreed("10.4-inflated-over", "RFC 6455 10.4", [zipped("x" * 1001), ping()], [closed(1009)], flags=LIMIT),
    agreed("10.4-inflated-over-in-fragments", "RFC 6455 10.4",
           fragments(TEXT, in_parts(deflate("x" * 1001), 3), rsv=RSV1), [closed(1009)], flags=LIMIT),
    agreed("10.4-inflated-over-stored", "RFC 6455 10.4", [zipped(noise(1001), level=0)], [closed(1009)], flags=LIMIT),
    agreed("10.4-plain-over", "RFC 6455 10.4", [text("x" * 1001)], [closed(1009)], flags=LIMIT),
    agreed("10.4-bomb", "RFC 6455 10.4", [zipped(b"\0" * (1 << 20))], [closed(1009)], flags=LIMIT),
    agreed("10.4-bomb-of-256-mib", "RFC 6455 10.4", [zipped(b"\0" * (1 << 28))], [closed(1009)]),
]

CASES = [*OFFERS, *GOOD, *BAD_RSV, *BROKEN, *LIMITS]
