"""Listens, passes on to the server what comes, and back, and counts what passes: what is compressed is fewer bytes."""

import contextlib
import socket

from harness import PATIENCE, Job


class Wire:
    """One connection to the server; `address` is what its client connects to."""

    def __init__(self, server):
        self.up = self.down = 0  # bytes to the server, and from it
        self.far = socket.create_connection(server.address, timeout=PATIENCE)
        self.far.settimeout(None)
        self.listener = socket.create_server((server.address[0], 0))
        self.address = self.listener.getsockname()
        self.near = None
        self.jobs = [Job(self.run)]

    @property
    def name(self):
        """How the server writes the address of the client."""
        return "{}:{}".format(*self.far.getsockname())

    @property
    def url(self):
        return "ws://{}:{}/some/path?query=1".format(*self.address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in (self.listener, self.near, self.far):
            with contextlib.suppress(OSError, AttributeError):
                one.shutdown(socket.SHUT_RDWR)
        for job in self.jobs:
            job.join(PATIENCE)
        for one in (self.listener, self.near, self.far):
            if one:
                one.close()

    def run(self):
        with contextlib.suppress(OSError):  # the listener is shut down when no client has come
            self.near, _ = self.listener.accept()
            self.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.jobs.append(Job(self.pass_on, self.near, self.far, "up"))
            self.pass_on(self.far, self.near, "down")

    def pass_on(self, source, target, direction):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                setattr(self, direction, getattr(self, direction) + len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
