"""Many connections that each follow one script: drives tests/lib/attackers.c line by line."""

import collections
import os
import tempfile

from .load_program import LoadProgram
from .waiting import PATIENCE

# Milliseconds from the first byte of a body to the last reply: of time, and of CPU time of the process `cpu_of`.
Report = collections.namedtuple("Report", "connections rounds refused cut open p50 p99 longest cpu50 cpu99 cpu_most")


class Attackers(LoadProgram):
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
            super().__init__("attackers", address, clients, *flags, timeout=8 * PATIENCE)

    def go(self):
        assert self.command("go") == "ok"

    def hold(self):
        """No further body is sent until go()."""
        assert self.command("hold") == "ok"

    def clear(self):
        """What is reported begins at zero."""
        assert self.command("clear") == "ok"

    def reset(self):
        """All connections end with a reset."""
        assert self.command("reset") == "ok"

    def report(self):
        numbers = [int(word) for word in self.command("report").split()[1:]]
        return Report(*numbers[:5], *(number / 1000 for number in numbers[5:]))
