"""The file system of fuse.py: one file, served through /dev/fuse in a process of its own.

    fuse_service.py DEVICE BYTES OPEN_FLAGS    so many bytes of content on standard input, then "hang"; the opcodes of the requests that
                              hang on standard output, a 0 when they begin to
"""

import contextlib
import os
import select
import struct
import sys

ENOSYS = 38
LOOKUP, FORGET, GETATTR, OPEN, READ, WRITE, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 16, 18, 25, 26
INTERRUPT, BATCH_FORGET = 36, 42
UNANSWERED = (FORGET, BATCH_FORGET, INTERRUPT)
FILE_NODE = 2
IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")


# ---- in the file system's process ----

class Service:
    def __init__(self, device, content, open_flags):
        self.device = device
        self.content = bytearray(content)
        self.open_flags = open_flags
        self.hanging = False

    def report(self, opcode):
        os.write(1, b"%d\n" % opcode)

    def serve(self):
        poll = select.poll()
        for descriptor in (0, self.device):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.device:
                    self.take(os.read(self.device, 1 << 18))
                elif os.read(0, 4096):
                    self.hanging = True
                    self.report(0)
                else:
                    poll.unregister(0)

    def take(self, request):
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode in UNANSWERED:
            return
        if self.hanging:
            self.report(opcode)
            return
        answer = self.answer(opcode, node, request[IN_HEADER.size:])
        error, data = (answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size + len(data), error, unique) + data)

    def attributes(self, node):
        is_file = node == FILE_NODE
        return struct.pack("<6Q10I", node, len(self.content) if is_file else 0, 0, 0, 0, 0, 0, 0, 0,
                           0o100666 if is_file else 0o40755, 1, 0, 0, 0, 4096, 0)

    def answer(self, opcode, node, body):
        """Data, or a negative errno. Attributes are valid for no time, so that each look at them is a request."""
        if opcode == INIT:
            return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 16, 12, 1 << 17, 1, 0, 0, *[0] * 8)
        if opcode == LOOKUP:
            return struct.pack("<4Q2I", FILE_NODE, 0, 0, 0, 0, 0) + self.attributes(FILE_NODE)
        if opcode == GETATTR:
            return struct.pack("<Q2I", 0, 0, 0) + self.attributes(node)
        if opcode == OPEN:
            return struct.pack("<Q2I", 0, self.open_flags, 0)
        if opcode == READ:
            offset, size = struct.unpack_from("<8xQI", body)
            return bytes(self.content[offset:offset + size])
        if opcode == WRITE:
            offset, size = struct.unpack_from("<8xQI", body)
            self.content[offset:offset + size] = body[40:40 + size]
            return struct.pack("<2I", size, 0)
        return b"" if opcode in (RELEASE, FLUSH) else -ENOSYS


def read_all(length):
    content = b""
    while len(content) < length:
        content += os.read(0, length - len(content))
    return content


def main():
    service = Service(int(sys.argv[1]), read_all(int(sys.argv[2])), int(sys.argv[3]))
    with contextlib.suppress(OSError):  # unmounted
        service.serve()


if __name__ == "__main__":
    main()
