"""Signals: what shm/disposition.def says of them, and what the kernel says of a process."""

import itertools
import os
import re
import signal

from .server import REPOSITORY

TABLE = os.path.join(REPOSITORY, "shm/disposition.def")
REALTIME = (signal.SIGRTMIN, signal.SIGRTMAX)


def table_items():
    """[([(name, what it does in the master, in a worker)], text)]"""
    with open(TABLE) as f:
        text = f.read().partition("*/")[2]
    items = []
    for row in re.finditer(r'DISPOSITION_TEXT\(((?:\s*"[^"]*")+)\)|DISPOSITION(_REALTIME)?\(([\w, ]+)\)', text):
        if row[1]:
            items.append(([], "".join(re.findall(r'"([^"]*)"', row[1]))))
        else:
            fields = row[3].split(", ")
            items[-1][0].append(("realtime signals", *fields) if row[2] else tuple(fields))
    return items


def signals_that(process, *dispositions):
    """The signals that have one of the dispositions in the master (0) or in a worker (1); of realtime ones two."""
    found = []
    for name, *of in itertools.chain(*(rows for rows, _ in table_items())):
        if of[process] in dispositions:
            found += REALTIME if name == "realtime signals" else [signal.Signals[f"SIG{name}"]]
    return found


def all_signals():
    return sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})


def masks(pid):
    """{"blocked": {signals}, "ignored": ..., "caught": ...}"""
    with open(f"/proc/{pid}/status") as f:
        text = f.read()
    found = {}
    for word, field in (("blocked", "SigBlk"), ("ignored", "SigIgn"), ("caught", "SigCgt")):
        bits = int(re.search(rf"^{field}:\s*([0-9a-f]+)", text, re.M)[1], 16)
        found[word] = {number for number in all_signals() if bits >> number - 1 & 1}
    return found
