"""RFC 6455 sections 5.6 and 8.1: text is UTF-8 as RFC 3629 has it, and fails with the first byte that cannot be."""

import codecs

from harness import TEXT
from table import binary, case, closed, echo, fragments, in_parts, more, ping, ponged, text

SECTION = "RFC 6455 8.1"
WORD = "κόσμε".encode()

VALID = {
    "ascii": b"hello", "2-bytes": "hello ¢ world".encode(), "3-bytes": "hello € world".encode(),
    "4-bytes": "hello 𤭢 world".encode(), "word": WORD, "edited": WORD + b"edited",
    "first-1": b"\0", "first-2": b"\xc2\x80", "first-3": b"\xe0\xa0\x80", "first-4": b"\xf0\x90\x80\x80",
    "last-1": b"\x7f", "last-2": b"\xdf\xbf", "last-3": b"\xef\xbf\xbf", "last-4": b"\xf4\x8f\xbf\xbf",
    "below-surrogates": b"\xed\x9f\xbf", "above-surrogates": b"\xee\x80\x80", "replacement": b"\xef\xbf\xbd",
    "byte-order-mark": b"\xef\xbb\xbfx", "specials": "\ufff9\ufffa\ufffb\ufffc\ufffd".encode(),
    "noncharacters-in-block": "".join(map(chr, range(0xfdd0, 0xfdf0))).encode(),
    "noncharacters-of-planes": "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xfffe, 0xffff)).encode(),
    "combining": "e\u0301\u200d\u202e".encode(),
}

SURROGATES = [b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80",
              b"\xed\xbf\xbf"]
MISSING = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80", b"\xdf", b"\xef\xbf",
           b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]

INVALID = [
    # beyond four bytes, beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", WORD + b"\xf4\x90\x80\x80edited",
    # continuations that continue nothing
    b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf", b"\x80\xbf\x80\xbf\x80",
    b"\x80\xbf\x80\xbf\x80\xbf", bytes(range(0x80, 0xc0)), b"a\x80b", b"\xc2\x80\x80", b"\xe2\x82\xac\x80",
    # starts that nothing continues
    *(b"".join(bytes([byte, 0x20]) for byte in range(first, last + 1))
      for first, last in ((0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd))),
    b"\xc3(", b"\xe2(\xa1", b"\xe2\x82(", b"\xf0(\x8c\xbc", b"\xf0\x90(\xbc", b"\xf0\x90\x8c(", b"\xc2\xc2\x80",
    # the end is missing
    *MISSING, b"".join(MISSING), b"\xc2", b"\xe2\x82", b"\xf0\x90\x8c", WORD + b"\xce",
    # bytes that are in no character
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc1", b"\xf5",
    # longer than needed
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80",
    # halves of UTF-16, alone and paired
    *SURROGATES, *(high + low for high in SURROGATES[:4] for low in (SURROGATES[4], SURROGATES[6])),
]


def up_to_the_first_impossible_byte(data):
    """By Python's own decoder; None when all that is wrong is that the end is missing."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(len(data)):
        try:
            decoder.decode(data[at:at + 1])
        except UnicodeDecodeError:
            return data[:at + 1]
    return None


def name_of(data):
    return data[:12].hex() + (f"-{len(data)}" if len(data) > 12 else "")


GOOD = [
    *(case(f"8.1-{name}", SECTION, [text(data)], [echo(data.decode())]) for name, data in VALID.items()),
    *(case(f"8.1-{name}-bytes", SECTION, fragments(TEXT, in_parts(data, 1)), [echo(data.decode())])
      for name, data in VALID.items()),
    *(case(f"8.1-{name}-behind-{shift}", SECTION, [text(b"." * shift + VALID[name])],
           [echo("." * shift + VALID[name].decode())])
      for name in ("last-2", "first-3", "first-4") for shift in (7, 14, 15, 29, 30, 31, 61, 62, 63)),
    case("8.1-within-characters", SECTION, [text(WORD[:1], fin=False), ping(WORD[:1]), more(WORD[1:6]), ping(b""),
                                           more(WORD[6:], fin=True)],
         [ponged(WORD[:1]), ponged(), echo(WORD.decode())]),
    case("8.1-empty-between-halves", SECTION, fragments(TEXT, [b"\xe2", b"", b"\x82", b"", b"\xac"]), [echo("€")]),
    case("8.1-state-ends-with-the-message", SECTION, [text("€"), binary(b"\x82\xac"), text("€")],
         [echo("€"), echo(b"\x82\xac"), echo("€")]),
    *(case(f"8.1-binary-{name_of(data)}", "RFC 6455 5.6", [binary(data)], [echo(data)]) for data in INVALID[::6]),
    case("8.1-binary-fragments", "RFC 6455 5.6", [binary(b"\xff", fin=False), more(b"\xfe", fin=True)],
         [echo(b"\xff\xfe")]),
]

BAD = [
    *(case(f"8.1-bad-{name_of(data)}", SECTION, [text(data), ping()], [closed(1007)]) for data in INVALID),
    *(case(f"8.1-bad-{name_of(data)}-bytes", SECTION, fragments(TEXT, in_parts(data, 1)) + [ping()], [closed(1007)])
      for data in INVALID if len(data) < 16),
    case("8.1-bad-behind-a-message", SECTION, [text("good"), text(b"\xff"), text("late")],
         [echo("good"), closed(1007)]),
    case("8.1-bad-end-in-an-empty-fragment", SECTION, [text(b"\xe2\x82", fin=False), more(fin=True)], [closed(1007)]),
    case("8.1-bad-in-the-third-fragment", SECTION,
         [text(WORD, fin=False), ping(b"p"), more(b"\xf4\x90\x80\x80"), more("edited", fin=True)],
         [ponged(b"p"), closed(1007)]),
    case("8.1-bad-half-of-the-next-message", SECTION, [text(b"\xe2\x82"), text(b"\xac")], [closed(1007)]),
]

# Neither the frame nor the message is over when the impossible byte comes, and nothing more is sent.
EARLY = [
    *(case(f"8.1-early-{name_of(data)}", SECTION, [text(first, declared=300)],
           [closed(1007)])
      for data, first in ((data, up_to_the_first_impossible_byte(data)) for data in INVALID) if first),
    *(case(f"8.1-early-in-a-fragment-{name_of(data)}", SECTION, [text(WORD, fin=False), more(first)], [closed(1007)])
      for data, first in ((data, up_to_the_first_impossible_byte(data)) for data in INVALID[::3]) if first),
    *(case(f"8.1-early-behind-{shift}", SECTION, [text(b"." * shift + b"\xed\xa0", declared=65536)], [closed(1007)])
      for shift in (1, 7, 8, 14, 15, 16, 30, 31, 32, 33, 62, 63, 64, 65, 127, 1000, 4095)),
]

CASES = [*GOOD, *BAD, *EARLY]
