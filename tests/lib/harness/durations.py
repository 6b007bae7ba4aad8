"""A histogram of a running server from a moment on: drives tests/lib/durations.c."""

from .load_program import OrderedProgram


class Durations(OrderedProgram):
    """Of the server whose master is `pid`."""

    def __init__(self, pid, histogram):
        super().__init__("durations", pid, histogram)

    def clear(self):
        """What is counted begins at zero."""
        assert self.command("clear") == "ok"

    def at(self, percent):
        """How many there were, and the milliseconds below which so many percent of them lie."""
        count, microseconds = self.command(f"at {percent}").split()[1:]
        return int(count), int(microseconds) / 1000
