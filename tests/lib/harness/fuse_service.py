"""The file system of fuse.py: one file, served through /dev/fuse in a process of its own.

    fuse_service.py FOLDER BYTES OPEN_FLAGS    mounted on that folder; so many bytes of content on standard input, then "hang".
                              On standard output the number of the error, 0 without one; then a 0 when requests begin to hang, and
                              the opcode of each. At the end of standard input it unmounts, also if a test was killed.
"""

import ctypes
import contextlib
import os
import select
import signal
import struct
import sys

MNT_FORCE, MNT_DETACH = 1, 2
ENOSYS = 38
LOOKUP, FORGET, GETATTR, OPEN, READ, WRITE, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 16, 18, 25, 26
INTERRUPT, BATCH_FORGET = 36, 42
UNANSWERED = (FORGET, BATCH_FORGET, INTERRUPT)
FILE_NODE = 2
IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")


def unmount(folder):
    """All pending requests fail, and so does every later one."""
    libc = ctypes.CDLL(None)
    libc.umount2(folder.encode(), MNT_FORCE)  # EBUSY while the file is open; the connection is over all the same
    libc.umount2(folder.encode(), MNT_DETACH)


# ---- in the file system's process ----

class Service:
    def __init__(self, device, content, open_flags):
        self.device = device
        self.content = bytearray(content)
        self.open_flags = open_flags
        self.hanging = False
        self.test = os.getppid()

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
                    return

    def is_of_test(self, thread):
        """Its own requests never hang: a test that is killed closes this file first, and only then standard input ends."""
        return os.path.exists(f"/proc/{self.test}/task/{thread}")

    def take(self, request):
        _, opcode, unique, node, _, _, thread, _ = IN_HEADER.unpack_from(request)
        if opcode in UNANSWERED:
            return
        if self.hanging and not self.is_of_test(thread):
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
        some = os.read(0, length - len(content))
        if not some:
            raise EOFError
        content += some
    return content


def mount(folder):
    """Returns the descriptor that the requests come from."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"crier-test", folder.encode(), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return device


def main(folder, length, open_flags):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        device = mount(folder)
    except OSError as error:
        print(error.errno, flush=True)
        return
    try:
        with contextlib.suppress(OSError, EOFError):  # the file system is unmounted; the test has gone
            print(0, flush=True)
            Service(device, read_all(length), open_flags).serve()
    finally:
        unmount(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
