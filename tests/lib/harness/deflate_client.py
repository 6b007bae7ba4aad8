"""A RawClient that negotiates permessage-deflate, inflates what is compressed, and remembers what was (RFC 7692)."""

import re
import zlib

from .raw_client import RawClient, encode_frame
from .waiting import Deadline

TAIL = b"\x00\x00\xff\xff"


def deflate(payload, window_bits=15):
    """The payload of a compressed message: no context before it, the flush marker taken off."""
    compressor = zlib.compressobj(wbits=-window_bits)
    packed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert packed.endswith(TAIL)
    return packed[:-len(TAIL)]


def inflate(packed, window_bits=15):
    """The message, if it can be inflated without anything from before it in such a window."""
    return zlib.decompressobj(wbits=-window_bits).decompress(packed + TAIL)


class DeflateClient(RawClient):
    """compressed: payload length on the wire of each compressed message so far."""

    def __init__(self, address, offer="permessage-deflate", **how):
        super().__init__(address, **how)
        self.offer = offer
        self.agreed = None
        self.window_bits = 15
        self.compressed = []

    def handshake(self, extra=b"", **request):
        headers = [*request.pop("headers", ()), ("Sec-WebSocket-Extensions", self.offer)]
        self.send_raw(self.request(headers=headers, **request) + extra)
        answer = self.read_response()
        assert answer.status == 101, f"expected 101, got {answer}"
        self.agreed = answer.headers.get("sec-websocket-extensions")
        bits = re.search(r"server_max_window_bits=(\d+)", self.agreed or "")
        self.window_bits = int(bits[1]) if bits else 15
        return self

    def recv_frame(self, deadline=None, what="frame"):
        deadline = deadline or Deadline(self.timeout)
        while len(self.buffer) == self.start:
            self.fill(deadline, what)
        is_compressed = bool(self.buffer[self.start] & 0x40)
        if not is_compressed:
            return super().recv_frame(deadline, what)
        assert self.agreed, f"RSV1 without an extension: {self.unread()[:16]!r}"
        self.buffer[self.start] &= 0xbf
        frame = super().recv_frame(deadline, what)
        assert frame.fin and frame.opcode in (1, 2), f"RSV1 where it may not be: {frame}"
        self.compressed.append(len(frame.payload))
        return frame._replace(payload=inflate(frame.payload, self.window_bits))

    def send_compressed(self, opcode, payload, **how):
        self.send_raw(encode_frame(opcode, deflate(payload), rsv=4, **how))
