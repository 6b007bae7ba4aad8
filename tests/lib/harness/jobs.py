"""Calls in threads. Their exceptions are raised in the test, and every thread is joined."""

import threading

from .waiting import PATIENCE


class Job(threading.Thread):
    """call(*arguments) in a thread, started. join() returns what the call returned and raises what it raised.

    A test need not join its jobs: fixtures.py does so at its end, and the test fails with their exceptions.
    lasting: the job may outlive the test; the object that has started it joins it
    """

    unseen = []  # neither joined nor lasting

    def __init__(self, call, *arguments, name=None, lasting=False):
        super().__init__(name=name, daemon=True)
        self.call = call
        self.arguments = arguments
        self.value = None
        self.error = None
        if not lasting:
            Job.unseen.append(self)
        self.start()

    def run(self):
        try:
            self.value = self.call(*self.arguments)
        except BaseException as error:
            self.error = error

    def join(self, timeout=None):
        super().join(8 * PATIENCE if timeout is None else timeout)
        assert not self.is_alive(), f"a thread has not ended: {self.call}"
        if self in Job.unseen:
            Job.unseen.remove(self)
        error, self.error = self.error, None
        if error:
            raise error
        return self.value


def join_all():
    """Joins the jobs that the test has not joined; raises the first of their exceptions."""
    errors = []
    for job in list(Job.unseen):
        try:
            job.join(PATIENCE)
        except BaseException as error:
            errors.append(error)
    Job.unseen.clear()
    if errors:
        raise errors[0]


def at_once(calls):
    """Calls all in threads at the same time, so that no client is slow because others are read first."""
    jobs = [Job(call) for call in calls]
    for job in jobs:
        job.join()
