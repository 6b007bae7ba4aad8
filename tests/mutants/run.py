#!/usr/bin/python3
"""Breaks the product one line at a time and checks that the nearest tests fail.

    tests/mutants/run.py                    all rows of table.py: `make check-long` does
    tests/mutants/run.py arena pool         the rows with one of these words in their name or file
    tests/mutants/run.py -v arena_fits      one row, with what its tests print

Each row is applied to a copy of the tree in build/mutants/, one copy per CPU, where only what depends on that file is built
again. The result of a row is one of

    killed          a test failed, crashed, or took ten times as long as without the mutant
    lives           all passed, and the row says why that is right
    LIVES           all passed, and the row does not say why
    DOES NOT APPLY  the original text is not in the file, or is there more than once
    DOES NOT BUILD  the compiler refuses the replacement

The exit status is 0 when no result is in capitals and at least 80 of 100 rows are killed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is written into the tree but build/
sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

from harness import Job  # noqa: E402
from table import ROWS  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COPIES = os.path.join(ROOT, "build", "mutants")
BUILD = "build/release"
PROGRAMS = ["crier", "crier-ring", "crier-bench", "tests/lib/probe_app", "tests/lib/swarm"]  # of end-to-end tests
LEAST_KILLED = 80
LONGEST_SECONDS = 3600
FOREIGN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VARIANT", "CI", "CRIER_LONG")  # they would change what is built and run
GOOD = ("killed", "lives")


class Test:
    """The name of a unit test, torture/X, fuzz/X, or "e2e/test_X.py words that one of its tests has"."""

    def __init__(self, text):
        if text.startswith("e2e/"):
            file, _, words = text.partition(" ")
            self.targets = [f"{BUILD}/{program}" for program in PROGRAMS]
            self.command = ["/usr/bin/python3", "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{file}"]
            self.command += ["-k", " and ".join(words.split())] if words else []
        else:
            kind, _, name = text.rpartition("/")
            path = {"": f"unit/test_{name}", "torture": f"torture/{name}", "fuzz": f"fuzz/fuzz_{name}"}[kind]
            self.targets = [f"{BUILD}/tests/{path}"]
            self.command = [f"{BUILD}/tests/{path}"]
        self.seconds = 0


class Copy:
    """A tree of its own; `write` changes a file in it, `make` and `run` work there."""

    def __init__(self, number, like=None):
        self.path = os.path.join(COPIES, str(number))
        if like and not os.path.exists(self.path):
            shutil.copytree(like.path, self.path, symlinks=True)  # with its times, for make
        self.update()

    def update(self):
        """Only what differs is written, so that the next build is short."""
        names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                               stdout=subprocess.PIPE).stdout.decode().split("\0")
        for name in filter(None, names):
            source, target = os.path.join(ROOT, name), os.path.join(self.path, name)
            if not os.path.isfile(source):
                continue
            with open(source, "rb") as file:
                content = file.read()
            try:
                with open(target, "rb") as file:
                    if file.read() == content:
                        continue
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(source, target)
            shutil.copymode(source, target)

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="utf-8") as file:
            return file.read()

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as file:
            file.write(text)

    def call(self, command, seconds, verbose=False):
        """True: exit status 0 in time. What the command leaves behind is ended as well."""
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        environment.update(CRIER=os.path.join(self.path, BUILD, "crier"), CRIER_BUILD=os.path.join(self.path, BUILD))
        out = None if verbose else subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=self.path, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True)
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            self.end_servers()

    def end_servers(self):
        """Those of an end-to-end test that was ended itself: they run in sessions of their own."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe").startswith(self.path + os.sep):
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:  # it has gone, or is another user's
                pass

    def make(self, tests, jobs, verbose=False):
        targets = dict.fromkeys(target for test in tests for target in test.targets)
        return self.call(["make", f"-j{jobs}", *targets], 600, verbose)

    def judge(self, row, tests, verbose):
        name, file, old, new, _, why = row
        text = self.read(file)
        if text.count(old) != 1 or old == new:
            return "DOES NOT APPLY"
        try:
            self.write(file, text.replace(old, new))
            if not self.make(tests, 1, verbose):
                return "DOES NOT BUILD"
            if all(self.call(test.command, 10 + 10 * test.seconds, verbose) for test in tests):
                return "lives" if why else "LIVES"
            return "killed"
        finally:
            self.write(file, text)


def baseline(copy, tests):
    """Without a mutant all pass; how long that takes bounds how long it may take with one."""
    if not copy.make(tests, os.cpu_count(), verbose=True):
        sys.exit("mutants: the tree does not build")
    for test in tests:
        begin = time.monotonic()
        if not copy.call(test.command, 300):
            sys.exit(f"mutants: without a mutant this fails: {' '.join(test.command)}")
        test.seconds = time.monotonic() - begin


def main():
    words = sys.argv[1:]
    verbose = "-v" in words
    words = [word for word in words if word != "-v"]
    rows = [row for row in ROWS if not words or any(word in row[0] or word in row[1] for word in words)]
    if not rows or len({row[0] for row in ROWS}) != len(ROWS):
        sys.exit("mutants: no such row, or two rows of one name")
    tests = {text: Test(text) for row in rows for text in row[4]}
    copies = [Copy(0)]
    baseline(copies[0], list(tests.values()))
    copies += [Copy(number, like=copies[0]) for number in range(1, min(os.cpu_count(), len(rows)))]
    waiting = iter(rows)
    results = {}

    def work(copy):
        for row in waiting:  # whichever is next
            name, file, *_, why = row
            result = results[name] = copy.judge(row, [tests[text] for text in row[4]], verbose)
            print(f"{result:<14}  {name}  ({file}){': ' + why if result == 'lives' else ''}", flush=True)
            if result == "killed" and why:
                print(f"{'':<14}  it says why it lives; that is not needed any more")

    for job in [Job(work, copy) for copy in copies]:
        job.join(LONGEST_SECONDS)
    killed = sum(result == "killed" for result in results.values())
    print(f"{killed} of {len(rows)} mutants killed, {100 * killed // len(rows)} %")
    bad = any(result not in GOOD for result in results.values())
    sys.exit(bad or (not words and 100 * killed < LEAST_KILLED * len(rows)))


if __name__ == "__main__":
    main()
