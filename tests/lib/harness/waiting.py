"""Waiting: for an event, with a deadline. The only place of the tests that looks again and again."""

import concurrent.futures
import os
import threading
import time

SANITIZED = any(word in os.environ.get("CRIER_BUILD", "") for word in ("asan", "tsan"))

# How long a test waits for something that should happen at once. Sanitized programs are several times slower.
PATIENCE = 60.0 if SANITIZED else 15.0


def pause(seconds):
    """Lets `seconds` pass: only for measuring what a process does meanwhile, never for waiting for it."""
    threading.Event().wait(seconds)


def wait_until(predicate, what, timeout=None, interval=0.005):
    """Waits until predicate() is true and returns its value; says what it waited for when it is not in time.

    `what` may be a function, so that the message can show what was seen last. `interval` 0 looks again at once, for
    what comes within microseconds.
    """
    deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        pause(interval)


def at_once(calls):
    """Calls all in threads: nobody may be slow because others are read first."""
    with concurrent.futures.ThreadPoolExecutor(len(calls) or 1) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


class Deadline:
    """A point in time; each step of a longer operation asks for what is left."""

    def __init__(self, seconds=None):
        self.seconds = PATIENCE if seconds is None else seconds
        self.end = time.monotonic() + self.seconds

    def left(self, what):
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{what}: nothing within {self.seconds:g} s")
        return left
