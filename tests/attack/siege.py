"""A worker under attack, and innocent clients on it that echo small messages all the time."""

from attacks import PLAIN
from harness import PATIENCE, TEXT, Attackers, Durations, encode_frame, wait_until

INNOCENTS = 4
PAUSE_MS = 5  # between two echoes of one of them
WAIT_MOST_MS = 50  # of the worker's CPU time, at the 99th percentile


class Siege:
    """A server with one worker. The innocents have echoed a few messages undisturbed, and are quiet until begin()."""

    def __init__(self, start, *flags):
        self.server = start(*flags, workers=1, stdin=None)
        self.worker = self.server.workers()[0]
        self.waits = Durations(self.server.pid, "input_wait")
        self.innocents = Attackers(self.server.address, INNOCENTS, PLAIN, encode_frame(TEXT, b"I am innocent."), pause=PAUSE_MS,
                                   cpu_of=self.worker)
        self.begin()
        self.wait_rounds(5)
        self.innocents.hold()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.innocents.kill()
        self.waits.kill()

    def attackers(self, attack, count):
        return Attackers(self.server.address, count, attack.hello, attack.body(), **attack.how)

    def begin(self):
        """The innocents echo; what they have waited for before does not count."""
        self.innocents.clear()
        self.waits.clear()
        self.innocents.go()

    def wait_rounds(self, count):
        """Until the innocents have had so many echoes each since begin(), on average."""
        wait_until(lambda: self.innocents.report().rounds >= count * INNOCENTS,
                   lambda: f"{count} echoes of each innocent: {self.innocents.report()}", 4 * PATIENCE, 0.05)

    def assert_innocents_were_served(self):
        """The worker is the one that they were on before, and none was reset or lost."""
        report = self.innocents.report()
        assert self.server.workers() == [self.worker], self.server.log
        assert (report.open, report.cut, report.refused) == (INNOCENTS, 0, 0), report

    def assert_innocents_did_not_wait(self):
        """The worker has spent little CPU time between a message of theirs and its echo, and, as far as it knows itself, between
        any message of a client within its budget and the end of the turn with it: up to twice the time is counted when many
        are reported at a time (worker/budget.h)."""
        report = self.innocents.report()
        assert report.cpu99 <= WAIT_MOST_MS, report
        count, waited = self.waits.at(99)
        assert count > 0, "the worker has counted no message"
        assert waited <= 2 * WAIT_MOST_MS, f"p99 of {count} durations in input_wait is {waited:g} ms"
