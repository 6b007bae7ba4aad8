"""A file system with one file, which answers requests or hangs, as the test asks."""

import os
import subprocess
import sys
import threading

from .fuse_service import unmount
from .jobs import Job
from .waiting import PATIENCE

SERVICE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuse_service.py")
READ, WRITE, FLUSH = 15, 16, 25  # opcodes
DIRECT_IO, NO_FLUSH = 1, 32  # no page cache; close(2) sends no request


class OneFile:
    """`path` holds `content`. After hang() every request waits until close(), and its opcode is in `requests`.
    `flush`: close(2) of the file sends a request as well. However the test ends, the file system is unmounted: its
    process has mounted it, is in a session of its own, and does so when the test has gone."""

    def __init__(self, folder, content=b"", flush=False):
        self.folder = str(folder)
        self.path = os.path.join(self.folder, "file")
        self.requests = []
        self.changed = threading.Condition()
        open_flags = DIRECT_IO if flush else DIRECT_IO | NO_FLUSH
        self.server = subprocess.Popen([sys.executable, SERVICE, self.folder, str(len(content)), str(open_flags)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        error = int(self.server.stdout.readline())
        if error:
            self.end_server()
            raise OSError(error, os.strerror(error))
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
        unmount(self.folder)
        self.server.kill()
        self.server.wait()
        self.reader.join()
        self.end_server()

    def end_server(self):
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()
