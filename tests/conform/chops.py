"""Sends a case in many ways, and checks that all of them get what the case expects, and the same.

In one write; in two, cut at every byte; a byte at a time. A part is sent when the server has read the one before: on a
unix socket the kernel tells how much the peer has not read yet. So each cut is really a cut, and no test waits for time
to pass.
"""

import array
import collections
import fcntl
import itertools
import select
import termios
import zlib

from harness import Deadline, Disconnected, RawClient, wait_until

from table import show, upgraded, without_date

WHOLE_BYTES = 200  # a case up to this size is cut everywhere, a longer one in its heads and here and there
HEAD_BYTES = 14
CUTS_MAX = 96
PARTS_MAX = 256
TALLY = collections.Counter()  # cases, connections: pytest reports them


def cuts_of(case):
    """The ways to cut the bytes of a case: each is the offsets at which another write begins."""
    sizes = [len(part) for part in case.sends]
    total = sum(sizes)
    if not case.cut or total < 2:
        return [()]
    starts = [0, *itertools.accumulate(sizes)]
    if total <= WHOLE_BYTES:
        single = range(1, total)
        many = tuple(single)
    else:
        near = {start + i for start in starts for i in range(-2, HEAD_BYTES + 1)}
        near |= {total * i // 9 for i in range(1, 9)}
        single = thinned(sorted(at for at in near if 0 < at < total), CUTS_MAX)
        many = tuple(thinned(starts[1:-1], PARTS_MAX))
    return [(), *((at,) for at in single), many]


def thinned(values, count):
    """At most so many of them, spread evenly."""
    return values if len(values) <= count else [values[i * len(values) // count] for i in range(count)]


class Play:
    """One connection that is sent a case, cut in one of the ways."""

    def __init__(self, case, address, cuts):
        self.case = case
        self.cuts = cuts
        self.client = RawClient(address)
        self.poll = select.poll()
        self.poll.register(self.client.socket, select.POLLIN)
        stream = b"".join(case.sends)
        ends = [*cuts, len(stream)]
        self.parts = [stream[at:end] for at, end in zip([0, *cuts], ends)]
        self.got = self.how = None

    def open(self):
        headers = [("Sec-WebSocket-Extensions", self.case.offer)] if self.case.offer else []
        self.client.send_raw(self.client.request(headers=headers))

    def expect_open(self):
        """Reads the answer to the opening handshake, and not a byte more."""
        answer = self.client.read_head()
        assert upgraded(agreed=self.case.agreed).take(answer, 0) == len(answer)

    def send_part(self):
        """Sends the next part. A client that has been closed learns that by reading, not here."""
        try:
            self.client.send_raw(self.parts.pop(0))
        except (BrokenPipeError, ConnectionResetError):
            self.parts.clear()

    def wait_read(self):
        """The server has read what was sent to it; a server may wait until its answers are read, so they are."""
        wait_until(self.is_read, f"{self}: the server does not read {len(self.parts)} parts before the end", interval=0)

    def is_read(self):
        if self.how is None and self.poll.poll(0):
            try:
                self.client.fill(Deadline(), "what has come")
            except Disconnected as end:
                self.got, self.how = end.rest, end.how
        unread = array.array("i", [0])
        fcntl.ioctl(self.client.socket, termios.TIOCOUTQ, unread)
        return unread[0] == 0

    def finish(self):
        if self.how is None:
            self.got, self.how = self.client.read_to_end()

    def check(self):
        at = 0
        for number, expected in enumerate(self.case.expects):
            try:
                at = expected.take(self.got, at)
            except (AssertionError, ValueError, IndexError, zlib.error) as problem:
                raise AssertionError(f"{self}: answer {number}: {problem}") from None
        assert at == len(self.got), f"{self}: unexpected at the end: {show(self.got[at:])}"
        assert self.how == "eof", f"{self}: the connection ended with a reset"

    def __str__(self):
        place = "in one write" if not self.cuts else f"cut at {', '.join(map(str, self.cuts[:5]))}"
        return f"{self.case.id} ({self.case.section}), {place}{', ...' if len(self.cuts) > 5 else ''}"


def play(case, address, ways):
    """Plays the case in all ways at the same time, each on its own connection, and checks each."""
    plays = []
    TALLY["connections"] += len(ways)
    try:
        plays += (Play(case, address, cuts) for cuts in ways)
        if not case.opening:
            for one in plays:
                one.open()
            for one in plays:
                one.expect_open()
        waiting = plays
        while waiting:
            for one in waiting:
                one.send_part()
            waiting = [one for one in waiting if one.parts]
            for one in waiting:
                one.wait_read()
        for one in plays:
            one.finish()
    finally:
        for one in plays:
            one.client.drop()
    first = plays[0]
    first.check()
    for one in plays[1:]:
        if (one.got, one.how) != (first.got, "eof"):
            one.check()  # what it says of the answers is more than that they differ
            assert without_date(one.got) == without_date(first.got), f"{one}: {show(one.got)}, but {first}: {show(first.got)}"
