"""A WebSocket client that sends exactly the bytes it is told to and checks every byte it gets; blocking, with deadlines."""

import array
import base64
import collections
import contextlib
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios

from .waiting import Deadline, wait_until

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x12\xf7\x5a\xc3"

Frame = collections.namedtuple("Frame", "fin opcode payload")
Response = collections.namedtuple("Response", "status reason headers body")


class Disconnected(Exception):
    """The connection ended without a close frame; `how` is "eof" or "reset"."""

    def __init__(self, how, rest):
        super().__init__(f"{how}, with {len(rest)} bytes of an unfinished frame: {bytes(rest[:80])!r}")
        self.how = how
        self.rest = bytes(rest)


class Closed(Exception):
    """A close frame came instead of a message."""

    def __init__(self, code, reason):
        super().__init__(f"close frame {code} {reason!r}")
        self.code = code
        self.reason = reason


def apply_mask(payload, mask):
    if not payload:
        return b""
    repeated = (mask * (len(payload) // 4 + 1))[:len(payload)]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return number.to_bytes(len(payload), "little")


def encode_frame(opcode, payload=b"", fin=True, rsv=0, mask=MASK, length_bytes=None, declared=None):
    """One frame. mask=None: unmasked. length_bytes 0, 2, 8 forces an encoding; declared replaces the length."""
    length = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length_bytes == 0:
        head += bytes([masked | length])
    elif length_bytes == 2:
        head += bytes([masked | 126]) + struct.pack(">H", length)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", length)
    if mask is None:
        return head + payload
    return head + mask + apply_mask(payload, mask)


def server_frame(opcode, payload):
    """The frame that a server sends: whole, unmasked, shortest length."""
    return encode_frame(opcode, payload, mask=None)


class RawClient:
    """address: (host, port) or the path of a unix socket."""

    def __init__(self, address, timeout=None, receive_buffer=None, send_buffer=None):
        self.timeout = timeout
        self.address = address
        self.buffer = bytearray()
        self.start = 0
        family = (socket.AF_UNIX if isinstance(address, str)
                  else socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if send_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            if family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(Deadline(timeout).left("connect"))
            self.socket.connect(address)
            self.local = self.socket.getsockname()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()

    # ---- the connection ----

    @property
    def port(self):
        return self.local[1]

    @property
    def name(self):
        """How the server writes this client's address."""
        if isinstance(self.address, str):
            return f"unix:{os.getpid()}"
        host, port = self.local[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def drop(self):
        """Closes the connection without a word, also under a thread that reads from it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self):
        """Closes the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def fill(self, deadline, what):
        """Reads what there is, at least one byte."""
        self.socket.settimeout(deadline.left(what))
        try:
            data = self.socket.recv(262144)
        except socket.timeout:
            unread = self.unread()[:80]
            raise TimeoutError(f"{what}: nothing within {deadline.seconds:g} s; unread: {unread!r}") from None
        except (ConnectionResetError, BrokenPipeError):
            raise Disconnected("reset", self.unread()) from None
        if not data:
            raise Disconnected("eof", self.unread())
        if self.start > 1 << 20:
            del self.buffer[:self.start]
            self.start = 0
        self.buffer += data

    def has_input(self):
        """Is there something to read, or the end of the connection?"""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(len(self.buffer) > self.start or poll.poll(0))

    def is_readable(self):
        """Is there something in the socket, or the end of the connection?"""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def available(self):
        """How many bytes can be read without waiting."""
        count = array.array("i", [0])
        fcntl.ioctl(self.socket, termios.FIONREAD, count)
        return len(self.buffer) - self.start + count[0]

    def unsent(self):
        """How many bytes the other side's kernel has not acknowledged; of a unix socket, its process not read."""
        count = array.array("i", [0])
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, count)
        return count[0]

    def unread(self):
        return bytes(self.buffer[self.start:])

    def read(self, count, deadline=None, what="read", timeout=None):
        """Exactly `count` bytes."""
        deadline = deadline or Deadline(timeout or self.timeout)
        while len(self.buffer) - self.start < count:
            self.fill(deadline, what)
        data = bytes(self.buffer[self.start:self.start + count])
        self.start += count
        if self.start == len(self.buffer):
            self.buffer.clear()
            self.start = 0
        return data

    def read_to_end(self, timeout=None):
        """Everything until the connection ends, and how: (bytes, "eof" or "reset")."""
        deadline = Deadline(timeout or self.timeout)
        try:
            while True:
                self.fill(deadline, "end of the connection")
        except Disconnected as end:
            self.buffer.clear()
            self.start = 0
            return end.rest, end.how

    def send_raw(self, data, timeout=None):
        self.socket.settimeout(Deadline(timeout or self.timeout).left("send"))
        self.socket.sendall(data)

    def wait_read(self, timeout=None):
        """The server has read all that was sent. Unix sockets only: there the kernel knows (unix(7), SIOCOUTQ)."""
        assert self.socket.family == socket.AF_UNIX
        wait_until(lambda: self.unsent() == 0, lambda: f"{self.unsent()} bytes to be read", timeout)

    # ---- the opening handshake ----

    def request(self, path="/", headers=(), without=(), method="GET", version="HTTP/1.1", replace=()):
        """The bytes of an opening handshake. `headers` are added, `replace` are put in the place of the usual ones."""
        host = self.address if isinstance(self.address, tuple) else ("localhost",)
        host = f"[{host[0]}]" if ":" in host[0] else host[0]
        if isinstance(self.address, tuple):
            host += f":{self.address[1]}"
        lines = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Key": KEY.decode(), "Sec-WebSocket-Version": "13"}
        lines.update(dict(replace))
        text = f"{method} {path} {version}\r\n"
        text += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if name not in without)
        text += "".join(f"{name}: {value}\r\n" for name, value in headers)
        return text.encode("latin-1") + b"\r\n"

    def read_head(self, deadline=None):
        """The head of an HTTP answer, with the empty line that ends it."""
        deadline = deadline or Deadline(self.timeout)
        while b"\r\n\r\n" not in self.unread()[:65536]:
            self.fill(deadline, "HTTP answer")
        return self.read(self.unread().index(b"\r\n\r\n") + 4)

    def read_response(self, timeout=None):
        """The answer to a handshake; with its body unless it is a 101."""
        deadline = Deadline(timeout or self.timeout)
        head = self.read_head(deadline)
        first, *rest = head[:-4].decode("latin-1").split("\r\n")
        version, status, reason = (first + "  ").split(" ", 2)
        assert version == "HTTP/1.1", f"no HTTP/1.1 answer: {head!r}"
        headers = {}
        for line in rest:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip(), f"malformed header line {line!r} in {head!r}"
            headers[name.lower()] = value.strip()
        body = b""
        if status != "101":
            length = headers.get("content-length")
            body = self.read(int(length), deadline, "HTTP body") if length else self.read_to_end()[0]
        return Response(int(status), reason.strip(), headers, body)

    def handshake(self, extra=b"", **request):
        """Opens the WebSocket; `extra` bytes go out in the same packet as the request."""
        self.send_raw(self.request(**request) + extra)
        return self.expect_open()

    def expect_open(self, key=KEY):
        answer = self.read_response()
        assert answer.status == 101, f"expected 101, got {answer}"
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        assert answer.headers.get("sec-websocket-accept") == accept, f"wrong accept: {answer}"
        assert answer.headers.get("upgrade", "").lower() == "websocket", f"wrong Upgrade: {answer}"
        assert answer.headers.get("connection", "").lower() == "upgrade", f"wrong Connection: {answer}"
        assert "sec-websocket-extensions" not in answer.headers, f"an extension that was not asked for: {answer}"
        assert "sec-websocket-protocol" not in answer.headers, f"a subprotocol that was not asked for: {answer}"
        return self

    # ---- frames ----

    def send_frame(self, opcode, payload=b"", **how):
        self.send_raw(encode_frame(opcode, payload, **how))

    def text(self, payload):
        self.send_frame(TEXT, payload.encode() if isinstance(payload, str) else payload)

    def binary(self, payload):
        self.send_frame(BINARY, payload)

    def close(self, code=1000, reason=b""):
        self.send_frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)

    def recv_frame(self, deadline=None, what="frame"):
        deadline = deadline or Deadline(self.timeout)
        while len(self.buffer) - self.start < 2:
            self.fill(deadline, what)
        first, second = self.buffer[self.start], self.buffer[self.start + 1]
        assert first & 0x70 == 0, f"reserved bits in a frame from the server: {self.unread()[:16]!r}"
        assert second & 0x80 == 0, f"masked frame from the server: {self.unread()[:16]!r}"
        length, head = second & 0x7f, 2
        if length > 125:
            head = 4 if length == 126 else 10
            while len(self.buffer) - self.start < head:
                self.fill(deadline, what)
            length = int.from_bytes(self.buffer[self.start + 2:self.start + head], "big")
            assert length >= (126 if head == 4 else 65536), f"length {length} not in its shortest form"
        opcode, fin = first & 0x0f, bool(first & 0x80)
        assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"reserved opcode {opcode} from the server"
        assert opcode < 8 or (fin and length <= 125), f"malformed control frame: {self.unread()[:16]!r}"
        return Frame(fin, opcode, self.read(head + length, deadline, what)[head:])

    def recv_message(self, what="message", timeout=None):
        """The next message as one frame: (opcode, payload). Answers pings; raises Closed at a close frame."""
        deadline = Deadline(timeout or self.timeout)
        parts, opcode = [], None
        while True:
            frame = self.recv_frame(deadline, what)
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise Closed(*self.close_content(frame))
            elif frame.opcode != PONG:
                assert (frame.opcode == CONTINUATION) == bool(parts), f"wrong order of fragments: {frame}"
                parts.append(frame.payload)
                opcode = opcode or frame.opcode
                if frame.fin:
                    return opcode, b"".join(parts)

    def recv_text(self, what="text message", timeout=None):
        opcode, payload = self.recv_message(what, timeout)
        assert opcode == TEXT, f"expected a text message, got opcode {opcode}: {payload[:80]!r}"
        return payload.decode("utf-8")

    def expect_texts(self, expected):
        """The next messages are exactly these texts."""
        for number, text in enumerate(expected):
            got = self.recv_text(f"message {number}, {text[:60]!r}")
            assert got == text, f"message {number}: expected {text[:200]!r}, got {got[:200]!r}"

    def texts_until(self, last):
        """All texts before the text `last`."""
        texts = []
        while True:
            text = self.recv_text(f"{last!r} after {len(texts)} other messages, at last {texts[-1:]}")
            if text == last:
                return texts
            texts.append(text)

    def expect_pong(self, payload=b"are you there?"):
        """The server has dealt with everything this client sent before, and has sent nothing of its own meanwhile."""
        self.send_frame(PING, payload)
        frame = self.recv_frame(what="pong")
        assert frame == Frame(True, PONG, payload), f"expected a pong with {payload!r}, got {frame}"

    # ---- the closing handshake ----

    @staticmethod
    def close_content(frame):
        assert len(frame.payload) != 1, "close frame with one byte"
        if not frame.payload:
            return None, b""
        frame.payload[2:].decode("utf-8")
        return struct.unpack(">H", frame.payload[:2])[0], frame.payload[2:]

    def expect_close_frame(self, code, before=None):
        """The next frame is a close frame with this code; pings are answered. `before` collects messages instead."""
        deadline = Deadline(self.timeout)
        while True:
            frame = self.recv_frame(deadline, f"close frame {code}")
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                break
            elif frame.opcode != PONG:
                assert before is not None, f"expected close {code}, got a message: {frame.payload[:80]!r}"
                before.append(frame.payload)
        got, reason = self.close_content(frame)
        codes = code if isinstance(code, tuple) else (code,)
        assert got in codes, f"expected close {code}, got {got} {reason!r}"
        return got

    def expect_close(self, code, before=None, answer=True):
        """A close frame with this code, our answer, and the end of the connection, from both sides."""
        got = self.expect_close_frame(code, before)
        if answer:
            try:
                self.close(got)
            except (ConnectionResetError, BrokenPipeError):
                pass
        rest, _ = self.read_to_end()
        assert rest == b"", f"bytes behind the close frame: {rest[:80]!r}"
        self.drop()  # until then it is still there for the server
        return got
