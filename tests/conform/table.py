"""The words in which the cases are written: what is sent, what must come back, and the case that holds both.

    case("5.2-rsv2", "RFC 6455 5.2", [text("a"), frame(TEXT, "b", rsv=2)], [echo("a"), closed(1002)])

A case whose last expectation is no closed() ends with a closing handshake of the runner's own, which shows that nothing
else came and that the connection was still good.
"""

import base64
import collections
import hashlib
import re
import struct
import zlib

from harness import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame, server_frame
from harness.raw_client import GUID

# `sends` are written as given: one after the other, in one write, or cut anywhere.
# flags:   of the server that the case needs, behind those of the whole table
# offer:   Sec-WebSocket-Extensions of the opening handshake, which is answered with `agreed`
# opening: the case is the opening handshake itself: its bytes are the first that are sent
# cut:     False for what must not be sent in pieces
Case = collections.namedtuple("Case", "id section sends expects flags offer agreed opening cut")


def case(id, section, sends, expects, flags=(), offer=None, agreed=None, opening=False, cut=True):
    sends, expects = list(sends), list(expects)
    if not isinstance(expects[-1], (Closed, Refused)):
        sends.append(bye(1000))
        expects.append(closed(1000, b""))
    return Case(id, section, sends, expects, tuple(flags), offer, agreed, opening, cut)


def as_bytes(payload):
    return payload.encode() if isinstance(payload, str) else bytes(payload)


# ---- what is sent ----

def frame(opcode, payload=b"", **how):
    """`how` as in harness.encode_frame: fin, rsv, mask, length_bytes, declared."""
    return encode_frame(opcode, as_bytes(payload), **how)


def text(payload="", **how):
    return frame(TEXT, payload, **how)


def binary(payload=b"", **how):
    return frame(BINARY, payload, **how)


def more(payload=b"", fin=False, **how):
    """A continuation; it is not the last unless fin says so."""
    return frame(CONTINUATION, payload, fin=fin, **how)


def ping(payload=b"", **how):
    return frame(PING, payload, **how)


def pong(payload=b"", **how):
    return frame(PONG, payload, **how)


def bye(code=None, reason=b"", **how):
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + as_bytes(reason), **how)


def fragments(opcode, parts, **how):
    """One message, a frame for each part; `how` is that of the first frame."""
    return [frame(CONTINUATION if i else opcode, part, fin=i == len(parts) - 1, **({} if i else how))
            for i, part in enumerate(parts)]


def in_parts(payload, size):
    return [payload[i:i + size] for i in range(0, len(payload), size)] or [b""]


# ---- what is compressed ----

Z_TAIL = b"\0\0\xff\xff"
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
                  r"\d\d:\d\d:\d\d GMT")


def deflate(payload, window=15, level=zlib.Z_DEFAULT_COMPRESSION, strategy=zlib.Z_DEFAULT_STRATEGY):
    """The payload of a compressed message, RFC 7692 section 7.2.1."""
    machine = zlib.compressobj(level, zlib.DEFLATED, -window, 8, strategy)
    data = machine.compress(as_bytes(payload)) + machine.flush(zlib.Z_SYNC_FLUSH)
    assert data.endswith(Z_TAIL)
    return data[:-len(Z_TAIL)]


def inflate(data, window=15):
    """The payload that was compressed, RFC 7692 section 7.2.2; fails where it refers to what is not in that window.

    zlib itself looks back over all that it made in one call, so with a small window it makes one byte in each.
    """
    machine = zlib.decompressobj(-window)
    at_most = 1 if window < 15 else 0
    parts = [machine.decompress(data + Z_TAIL, at_most)]
    while machine.unconsumed_tail or (at_most and parts[-1]):
        parts.append(machine.decompress(machine.unconsumed_tail, at_most))
    assert not machine.unused_data, f"{len(machine.unused_data)} bytes behind the compressed data"
    return b"".join(parts)


# ---- what must come back: each takes its part off the front of what came, and returns where the next begins ----

class Exactly:
    """These bytes."""

    def __init__(self, data):
        self.data = data

    def take(self, got, at):
        end = at + len(self.data)
        assert got[at:end] == self.data, f"expected {show(self.data)}, got {show(got[at:end])}"
        return end


class Closed:
    """A Close with this code. The reason is the server's own choice, when none is given."""

    def __init__(self, code, reason):
        self.code = code
        self.reason = reason

    def take(self, got, at):
        assert got[at:at + 1] == b"\x88", f"expected a Close with {self.code}, got {show(got[at:])}"
        length = got[at + 1]
        assert length <= 125 and length != 1, f"malformed Close {show(got[at:])}"
        payload = got[at + 2:at + 2 + length]
        assert len(payload) == length, f"cut off: {show(got[at:])}"
        code = struct.unpack(">H", payload[:2])[0] if payload else None
        assert code == self.code, f"expected a Close with {self.code}, got {code} {payload[2:]!r}"
        payload[2:].decode("utf-8")
        assert self.reason is None or payload[2:] == self.reason, f"unexpected reason {payload[2:]!r}"
        return at + 2 + length


class Deflated:
    """One compressed frame that inflates, by itself and in this window, to this message."""

    def __init__(self, opcode, payload, window):
        self.opcode = opcode
        self.payload = payload
        self.window = window

    def take(self, got, at):
        assert got[at] == 0xc0 | self.opcode, f"expected a compressed frame, got {show(got[at:])}"
        length, head = got[at + 1], 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(got[at + 2:at + head], "big")
            assert length >= (126 if head == 4 else 65536), f"length {length} not in its shortest form"
        data = got[at + head:at + head + length]
        assert len(data) == length, f"cut off: {show(got[at:])}"
        assert length < len(self.payload), f"{length} bytes for {len(self.payload)}: compressed, but not smaller"
        assert not data.endswith(Z_TAIL), "the end that RFC 7692 section 7.2.1 takes off is still there"
        assert inflate(data, self.window) == self.payload, f"it inflates to something else: {show(data)}"
        return at + head + length


class Upgraded:
    """101, with exactly these headers, and an accept made from the key."""

    def __init__(self, key, agreed, subprotocol):
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.headers = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-accept": accept}
        if agreed is not None:
            self.headers["sec-websocket-extensions"] = agreed
        if subprotocol is not None:
            self.headers["sec-websocket-protocol"] = subprotocol

    def take(self, got, at):
        status, headers, end = head_of(got, at)
        assert status == 101, f"expected 101, got {show(got[at:])}"
        for name in ("upgrade", "connection"):
            headers[name] = headers.get(name, "").lower()
        agreed = self.headers.get("sec-websocket-extensions")
        if agreed is not None and same_extension(headers.get("sec-websocket-extensions", ""), agreed):
            headers["sec-websocket-extensions"] = agreed
        assert headers == self.headers, f"expected {self.headers}, got {headers}"
        return end


class Refused:
    """An HTTP error with a body for people, the end of the connection announced, and these headers."""

    def __init__(self, status, headers):
        self.status = status
        self.headers = headers

    def take(self, got, at):
        status, headers, end = head_of(got, at)
        assert status == self.status, f"expected {self.status}, got {show(got[at:])}"
        assert "close" in headers.get("connection", "").lower().split(", "), f"the end is not announced: {headers}"
        assert DATE.fullmatch(headers.get("date", "")), f"no Date, RFC 9110 section 6.6.1: {headers}"
        for name, value in self.headers.items():
            assert headers.get(name, "").lower() == value, f"expected {name}: {value}, got {headers}"
        end += int(headers["content-length"])
        assert len(got) >= end and len(got[at:end].split(b"\r\n\r\n", 1)[1].split()) >= 3, f"no sentence: {show(got)}"
        return end


def without_date(got):
    """The same answer with the same Date, whenever it came."""
    head, end, rest = got.partition(b"\r\n\r\n")
    return re.sub(rb"^Date: [^\r\n]*", b"Date:", head, flags=re.M) + end + rest


def head_of(got, at):
    """(status, {name in lower case: value}, where the head ends)"""
    end = got.find(b"\r\n\r\n", at) + 4
    assert end > 3, f"expected an HTTP answer, got {show(got[at:])}"
    first, *lines = got[at:end - 4].decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 "), f"not HTTP/1.1: {first!r}"
    headers = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon and name.lower() not in headers, f"malformed or repeated header {line!r}"
        headers[name.lower()] = value.strip()
    return int(first.split(" ")[1]), headers, end


def same_extension(one, other):
    """The same name, and the same parameters in any order."""
    (name, *parts), (other_name, *other_parts) = ([word.strip() for word in line.split(";")] for line in (one, other))
    return name == other_name and sorted(parts) == sorted(other_parts)


def show(data):
    return f"{len(data)} bytes, {bytes(data[:60])!r}" if data else "nothing"


def echo(payload):
    """The message came back, plain: a str is text, bytes are binary."""
    return Exactly(server_frame(TEXT if isinstance(payload, str) else BINARY, as_bytes(payload)))


def deflated(payload, window=15):
    """The message came back compressed."""
    return Deflated(TEXT if isinstance(payload, str) else BINARY, as_bytes(payload), window)


def ponged(payload=b""):
    return Exactly(server_frame(PONG, as_bytes(payload)))


def closed(code, reason=None):
    return Closed(code, reason)


def upgraded(key=b"dGhlIHNhbXBsZSBub25jZQ==", agreed=None, subprotocol=None):
    return Upgraded(key, agreed, subprotocol)


def refused(status, **headers):
    return Refused(status, {name.replace("_", "-"): value for name, value in headers.items()})
