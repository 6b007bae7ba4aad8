"""Many connections that each follow one script: drives tests/lib/attackers.c line by line."""

import collections
import os
import queue
import signal
import subprocess
import tempfile

from .jobs import Job
from .segment import BUILD
from .waiting import PATIENCE

ATTACKERS = os.path.join(BUILD, "tests/lib/attackers")

# Milliseconds from the first byte of a body to the last reply: of time, and of CPU time of the process `cpu_of`.
Report = collections.namedtuple("Report", "connections rounds refused cut open p50 p99 longest cpu50 cpu99 cpu_most")


class Attackers:
    """`clients` connections that send `hello` (b"": nothing, and leave) and, from go() on, `body` again and again."""

    def __init__(self, address, clients, hello=b"", body=b"", **how):
        flags = [word for name, value in how.items() if value is not False
                 for word in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))]
        with tempfile.TemporaryDirectory() as folder:
            for name, content in (("hello", hello), ("body", body)):
                if content:
                    path = os.path.join(folder, name)
                    with open(path, "wb") as file:
                        file.write(content)
                    flags += [f"--{name}", path]
            self.process = subprocess.Popen([ATTACKERS, "--connect", "%s:%d" % address, "--clients", str(clients), *flags],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.answers = queue.Queue()
            self.reader = Job(self.read_answers, lasting=True)
            try:
                assert self.answer(8 * PATIENCE) == f"ready {clients}", "attackers not ready"
            except BaseException:
                self.kill()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        self.reader.join(PATIENCE)
        assert status == -signal.SIGKILL, f"attackers ended with {status}: {self.process.stderr.read().decode()}"

    def read_answers(self):
        for line in self.process.stdout:
            self.answers.put(line.decode().rstrip("\n"))
        self.answers.put(None)

    def answer(self, timeout=None):
        try:
            line = self.answers.get(timeout=timeout or 2 * PATIENCE)
        except queue.Empty:
            raise AssertionError("no answer from attackers") from None
        if line is None:
            raise AssertionError(f"attackers ended: {self.process.stderr.read().decode()}")
        return line

    def order(self, word):
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def go(self):
        assert self.order("go") == "ok"

    def hold(self):
        """No further body is sent until go()."""
        assert self.order("hold") == "ok"

    def clear(self):
        """What is reported begins at zero."""
        assert self.order("clear") == "ok"

    def reset(self):
        """All connections end with a reset."""
        assert self.order("reset") == "ok"

    def report(self):
        numbers = [int(word) for word in self.order("report").split()[1:]]
        return Report(*numbers[:5], *(number / 1000 for number in numbers[5:]))
