"""Waits for an event, with a deadline. The only module of the tests that polls."""

import os
import time

SANITIZED = any(word in os.environ.get("CRIER_BUILD", "") for word in ("asan", "tsan"))

# How long a test waits for something that should happen at once. Sanitized programs are several times slower.
PATIENCE = 60.0 if SANITIZED else 30.0


def wait_until(predicate, what, timeout=None, interval=0.005):
    """Waits until predicate() is true and returns its value. After `timeout` it fails, and names what it waited for.

    `what` may be a function, so that the message can show the last state. With `interval` 0 it calls predicate()
    again at once, for events within microseconds.
    """
    deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        time.sleep(interval)


def wait_for_reader(fifo):
    """Waits until a process blocks in opening a named pipe for reading; returns the write end."""
    def opened():
        try:
            return os.fdopen(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb")
        except OSError:
            return None
    return wait_until(opened, f"a reader of {fifo}")


class Deadline:
    """A point in time; each step of a longer operation asks for the time left until then."""

    def __init__(self, seconds=None):
        self.seconds = PATIENCE if seconds is None else seconds
        self.end = time.monotonic() + self.seconds

    def left(self, what):
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{what}: nothing within {self.seconds:g} s")
        return left


# ---- tests that must be quicker than a timeout of the server ----

class Late(Exception):
    """The test may have been slower than a timeout of the server, as on a busy machine: the attempt proves nothing."""


class Pace:
    """`with Pace(seconds) as pace:` no two steps may be further apart. A failure after a longer step is Late."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        self.last = time.monotonic()
        return self

    def __exit__(self, kind, error, _):
        if kind and issubclass(kind, Exception) and kind is not Late and self.is_late():
            raise Late(f"more than {self.seconds:g} s for a step") from error

    def is_late(self):
        return time.monotonic() - self.last > self.seconds

    def step(self):
        if self.is_late():
            raise Late(f"more than {self.seconds:g} s for a step")
        self.last = time.monotonic()


def in_time(attempt):
    """attempt(1), attempt(2), attempt(4) ... until one of them is not Late. The argument multiplies its timeouts."""
    for power in range(5):
        try:
            return attempt(1 << power)
        except Late as error:
            late = error
    raise AssertionError("not even with timeouts many times as long") from late
