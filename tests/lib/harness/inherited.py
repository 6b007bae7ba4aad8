"""Descriptors as a parent may leave them to the server."""

import fcntl
import os
import shutil
import tempfile

from .server import CRIER

OTHER_USER = 65534


class RefusedPipe:
    """A pipe that the server cannot open again, because it is another user's; `how` is for the server's start. Without
    root it is the user's own, with no permissions."""

    def __init__(self):
        self.reads, self.writes = os.pipe()
        self.folder = None
        self.how = {}
        if os.geteuid() != 0:
            os.fchmod(self.reads, 0)
            return
        self.folder = tempfile.mkdtemp()
        os.chmod(self.folder, 0o755)
        program = shutil.copy(CRIER, self.folder)  # the tree may be closed to the other user
        self.how = {"program": program, "user": OTHER_USER, "group": OTHER_USER, "extra_groups": []}

    def write(self, data):
        while data:
            data = data[os.write(self.writes, data):]

    def close(self):
        for descriptor in (self.reads, self.writes):
            if descriptor >= 0:
                os.close(descriptor)
        if self.folder:
            shutil.rmtree(self.folder)

    def end(self):
        os.close(self.writes)
        self.writes = -1


def threads(pid):
    """The threads of the process, without the main thread."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]


def waits_in(pid, words):
    """True if a thread other than the main one sleeps in a kernel function whose name has one of these words."""
    for thread in threads(pid):
        try:
            with open(f"/proc/{pid}/task/{thread}/wchan") as f:
                where = f.read()
        except OSError:
            continue
        if any(word in where for word in words):
            return True
    return False


def is_nonblocking(descriptor):
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK)
