"""A copy of the tree in which commands are run as a reader types them."""

import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import termios
import threading

import pytest

from harness import BUILD, PATIENCE, REPOSITORY, Deadline, Job, plain_environment, procs

BUILT = ("crier", "crier-ring", "crier-bench", "libcrier.a", "flags", "server", "shm", "tools", "worker")
CONTROLS = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|[78])|\r")


class Machine:
    """Namespaces of network and processes: fixed ports are free, and no other server is found."""

    def __init__(self):
        kinds = ["--net", "--pid", "--mount"]
        how, into = [], []
        if os.geteuid() != 0:
            how, into = ["--user", "--map-root-user"], ["--user", "--preserve-credentials"]
        self.holder = subprocess.Popen(["unshare", *how, *kinds, "--fork", "--kill-child", "--mount-proc",
                                        "sh", "-c", "ip link set lo up && echo up && exec cat"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.holder.stdout.readline() != b"up\n":
            pytest.skip(f"no namespaces here: {self.holder.communicate()[1].decode().strip()}")
        inside = procs.children(self.holder.pid)[0]
        self.enter = ["nsenter", f"--target={inside}", *into, *kinds, "--root", "--wd=."]

    def close(self):
        self.holder.communicate()


class Running:
    """A command in a shell of its own, on a terminal if `terminal`; its lines are read as it prints them."""

    def __init__(self, argv, cwd, env, terminal=False):
        self.lines = []
        self.dropped = False
        self.changed = threading.Condition()
        self.seen = 0
        if terminal:
            self.stdin, there = pty.openpty()
            quiet = termios.tcgetattr(there)
            quiet[3] &= ~termios.ECHO
            termios.tcsetattr(there, termios.TCSANOW, quiet)
            self.output = os.dup(self.stdin)
            self.process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=there, stdout=there, stderr=there,
                                            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
            os.close(there)
        else:
            here, self.stdin = os.pipe()
            self.output, there = os.pipe()
            self.process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=here, stdout=there, stderr=there,
                                            start_new_session=True)
            os.close(here)
            os.close(there)
        self.reader = Job(self.read, lasting=True)

    def read(self):
        rest = b""
        while True:
            try:
                data = os.read(self.output, 65536)
            except OSError:  # the other end of the terminal is closed
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            if not data and rest:
                lines.append(rest)
            with self.changed:
                self.lines += [CONTROLS.sub(b"", line).decode("utf-8", "replace") for line in lines]
                self.changed.notify_all()
            if not data:
                return

    def expect(self, accept, what):
        """Waits for a line, behind the one that was accepted last, that accept(line) takes; returns it."""
        deadline = Deadline(PATIENCE * 4)
        with self.changed:
            while True:
                for number in range(self.seen, len(self.lines)):
                    if accept(self.lines[number]):
                        self.seen = number + 1
                        return self.lines[number]
                if not self.reader.is_alive():
                    raise AssertionError(f"it ended with {self.process.wait()} and did not print {what!r}: {self.lines}")
                try:
                    self.changed.wait(min(0.1, deadline.left(what)))
                except TimeoutError:
                    raise AssertionError(f"it did not print {what!r}: {self.lines[self.seen:]}") from None

    def type(self, line):
        os.write(self.stdin, line.encode() + b"\n")

    def end_input(self):
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def finish(self, timeout=None):
        """Waits for the end; returns the exit status."""
        try:
            status = self.process.wait(timeout or PATIENCE * 4)
            self.reader.join(PATIENCE)
            return status
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.lines}") from None
        finally:
            self.drop()

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.finish()

    def drop(self):
        """Kills what is left of it; once, because its number may be another's later."""
        if self.dropped:
            return
        self.dropped = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.end_input()
        self.reader.join(PATIENCE)
        os.close(self.output)

    def __str__(self):
        return "\n".join(self.lines)


class Clone:
    """A copy of the tree, below `folder`, with what is built already; commands run in its root, `prefix` is to install into."""

    def __init__(self, folder, prefix, machine=None):
        if os.path.basename(BUILD) != "release":
            pytest.skip("the commands are about build/release")
        self.machine = machine
        self.root = str(folder / "crier")
        self.prefix = str(prefix)
        shutil.copytree(REPOSITORY, self.root, symlinks=True, ignore=not_of_the_tree)
        for name in BUILT:
            there = os.path.join(self.root, "build/release", name)
            os.makedirs(os.path.dirname(there), exist_ok=True)
            (shutil.copytree if os.path.isdir(os.path.join(BUILD, name)) else shutil.copy2)(os.path.join(BUILD, name), there)
        commands = os.path.join(REPOSITORY, "build/compile_commands.json")
        shutil.copy2(commands, os.path.join(self.root, "build"))
        self.running = []

    def environment(self, **more):
        """As after logging in: no variable of the make that runs the tests, and the prefix is where programs are found."""
        plain = plain_environment()
        kept = {name: plain[name] for name in ("HOME", "LANG", "LC_ALL", "TMPDIR", "CI") if name in plain}
        return {**kept, "PATH": f"{self.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb",
                "NODE_PATH": "/usr/share/nodejs",  # for a node that is not the distribution's
                "PREFIX": self.prefix, "PKG_CONFIG_PATH": f"{self.prefix}/lib/pkgconfig", **more}

    def start(self, command, terminal=False, **env):
        """Starts what is typed, as a shell does."""
        enter = [*self.machine.enter, "--"] if self.machine else []
        self.running.append(Running([*enter, "bash", "-c", command], self.root, self.environment(**env), terminal))
        return self.running[-1]

    def run(self, command, status=0, **env):
        """Runs it to its end, with nothing on its input; returns what it printed."""
        started = self.start(command, **env)
        started.end_input()
        ended = started.finish()
        assert ended == status, f"{command}: exit status {ended}:\n{started}"
        return started.lines

    def close(self):
        for one in self.running:
            one.drop()


def not_of_the_tree(folder, names):
    return {name for name in names if name in (".git", "__pycache__", "build")}
