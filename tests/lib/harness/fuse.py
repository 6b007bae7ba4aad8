"""A file system with one file, which answers requests or hangs, as the test asks."""

import ctypes
import os
import subprocess
import sys
import threading

from .jobs import Job
from .waiting import PATIENCE

SERVICE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuse_service.py")
MNT_FORCE, MNT_DETACH = 1, 2
READ, WRITE, FLUSH = 15, 16, 25  # opcodes
DIRECT_IO, NO_FLUSH = 1, 32  # no page cache; close(2) sends no request


# ---- in the test ----

def umount(folder, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(folder.encode(), flags)


class OneFile:
    """`path` holds `content`. After hang() every request waits until close(), and its opcode is in `requests`.
    `flush`: close(2) of the file sends a request as well."""

    def __init__(self, folder, content=b"", flush=False):
        self.folder = str(folder)
        self.path = os.path.join(self.folder, "file")
        self.requests = []
        self.changed = threading.Condition()
        self.server = None
        device = os.open("/dev/fuse", os.O_RDWR)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
            if libc.mount(b"crier-test", self.folder.encode(), b"fuse", 0, options.encode()) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self.server = subprocess.Popen([sys.executable, SERVICE, str(device), str(len(content)),
                                            str(DIRECT_IO if flush else DIRECT_IO | NO_FLUSH)], pass_fds=[device],
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        finally:
            os.close(device)
        self.server.stdin.write(content)
        self.server.stdin.flush()
        self.reader = Job(self.read_requests, lasting=True)

    def read_requests(self):
        for line in self.server.stdout:
            with self.changed:
                self.requests.append(int(line))
                self.changed.notify_all()

    def hang(self):
        """Returns once it does."""
        self.server.stdin.write(b"hang\n")
        self.server.stdin.flush()
        self.wait_request(0)

    def wait_request(self, opcode, timeout=PATIENCE):
        with self.changed:
            assert self.changed.wait_for(lambda: opcode in self.requests, timeout), f"only {self.requests} came"

    def hung(self):
        """The opcodes of the requests that hang."""
        with self.changed:
            return [opcode for opcode in self.requests if opcode]

    def close(self):
        """All pending requests fail, and so does every later one."""
        umount(self.folder, MNT_FORCE)  # EBUSY while the file is open; the connection is over all the same
        umount(self.folder, MNT_DETACH)
        self.server.kill()
        self.server.wait()
        self.reader.join()
        self.server.stdin.close()
        self.server.stdout.close()
