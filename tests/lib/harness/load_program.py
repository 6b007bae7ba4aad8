"""Programs below tests/lib that take orders line by line."""

import os
import queue
import signal
import subprocess

from .jobs import Job
from .segment import BUILD
from .waiting import PATIENCE


class OrderedProgram:
    """Each order has an answer of one line."""

    def __init__(self, name, *arguments):
        argv = [os.path.join(BUILD, "tests/lib", name), *map(str, arguments)]
        self.name = name
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.answers = queue.Queue()
        self.reader = Job(self.read_answers, lasting=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        self.reader.join(PATIENCE)
        assert status == -signal.SIGKILL, f"{self.name} ended with {status}: {self.process.stderr.read().decode()}"

    def read_answers(self):
        for line in self.process.stdout:
            self.answers.put(line.decode().rstrip("\n"))
        self.answers.put(None)

    def answer(self, timeout=None):
        try:
            line = self.answers.get(timeout=timeout or 2 * PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no answer from {self.name}") from None
        if line is None:
            raise AssertionError(f"{self.name} ended: {self.process.stderr.read().decode()}")
        return line

    def order(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def command(self, line, timeout=None):
        self.order(line)
        return self.answer(timeout)


class LoadProgram(OrderedProgram):
    """Many clients in one process: `clients` of them, all ready, of the server at address."""

    def __init__(self, name, address, clients, *flags, timeout=None):
        host, port = address
        host = f"[{host}]" if ":" in host else host
        super().__init__(name, "--connect", f"{host}:{port}", "--clients", clients, *flags)
        self.clients = clients
        try:
            assert self.answer(timeout) == f"ready {clients}", f"{name} not ready"
        except BaseException:
            self.kill()
            raise
