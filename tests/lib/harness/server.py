"""The real server as a process: started on a free port, watched, stopped, and checked when it is over."""

import array
import fcntl
import os
import re
import select
import signal
import subprocess
import termios
import threading
import uuid

from . import procs
from .jobs import Job
from .raw_client import RawClient
from .segment import BUILD, read_counters, read_phase, read_places, read_ring
from .waiting import PATIENCE, Deadline, wait_until

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CRIER = os.path.abspath(os.environ.get("CRIER", os.path.join(REPOSITORY, "build/release/crier")))
PROBE = os.path.join(BUILD, "tests/lib/probe_app")

URL = re.compile(r"ws://(\[[0-9a-fA-F:.]+\]|[^/:\s]+):(\d+)/")
LISTENING = re.compile(r"listening on ")
BROKEN = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion|stack smashing|"
                    r"buffer overflow detected|(?:^|Z )\S+\[\d+\] : ")


def plain_environment(**more):
    """The environment without the server's own variables: tests give flags."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRIER")}
    environment.update(more)
    return environment


def run_crier(*flags, program=CRIER, stdin=subprocess.DEVNULL, timeout=None, **how):
    """Runs the program to its end; for everything that does not serve."""
    how.setdefault("env", plain_environment())
    done = subprocess.run([program, *flags], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout or PATIENCE, **how)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert not BROKEN.search(done.stderr), done.stderr
    return done


class Server:
    """crier with the given flags, on a free port of 127.0.0.1 unless `listen` says otherwise.

    stdin:    "pipe" (kept open; line() writes to it), None (/dev/null), "closed", "terminal" (see there), or a file or
              descriptor
    terminal: stderr is a terminal, without echo; `type` writes to it what stdin="terminal" reads
    prefix:   a command that runs crier as its child, see background_job.py
    url:      wait until it says that it listens, and for its URL if it has one; without, the test knows when it does
    ready:    wait until every worker is ready, too: the server listens as soon as one is
    expected: the exit status that is right at the end
    program:  another application than the standard one
    patience: how long its start may take
    dies:     a worker is made to fail an assertion: that is on stderr, and right
    """

    def __init__(self, *flags, workers=None, listen="127.0.0.1:0", stdin="pipe", prefix=(), url=True, ready=True,
                 expected=0, program=CRIER, patience=None, dies=False, terminal=False, **popen):
        self.expected = expected
        self.dies = dies
        self.clients = []
        self.log = []
        self.log_changed = threading.Condition()
        self.stdout = b""
        self.address = None
        self.tag = f"E2E_TAG={uuid.uuid4().hex}"
        self.feeders = []
        self.is_ending = False
        self.terminal = None
        argv = [*prefix, program]
        listen = [listen] if isinstance(listen, str) else listen
        for address in listen:
            argv += ["--listen", address]
        if workers is not None:
            argv += ["--workers", str(workers)]
        self.argv = [*argv, *flags]
        self.start(stdin, terminal or stdin == "terminal", prefix, popen)
        try:
            if url and listen and all(address.startswith("unix:") for address in listen):
                self.wait_log(LISTENING, patience)
            elif url:
                host, port = URL.search(self.wait_log(URL, patience)).groups()
                self.address = (host.strip("[]"), int(port))
            if url and ready:
                self.wait_ready()
        except BaseException:
            self.kill_all()
            raise

    def start(self, stdin, terminal, prefix, popen):
        self.stdin = None
        close_after = None
        stderr = subprocess.PIPE
        if terminal:
            self.terminal, stderr = os.openpty()
            self.terminal_name = os.ttyname(stderr)
            settings = termios.tcgetattr(stderr)
            settings[3] &= ~termios.ECHO
            termios.tcsetattr(stderr, termios.TCSANOW, settings)
        if stdin == "terminal":
            stdin = stderr
        elif stdin == "pipe":
            close_after, self.stdin = os.pipe()
            os.set_blocking(self.stdin, False)
            stdin = close_after
        elif stdin is None:
            stdin = subprocess.DEVNULL
        elif stdin == "closed":
            stdin = None
            popen["preexec_fn"] = lambda: os.close(0)
        name, _, value = self.tag.partition("=")
        environment = plain_environment(**{name: value}, **popen.pop("env", {}))
        self.process = subprocess.Popen(self.argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr,
                                        start_new_session=True, env=environment, **popen)
        if close_after is not None:
            os.close(close_after)
        if terminal:
            os.close(stderr)
        self.readers = [Job(call, lasting=True) for call in (self.read_log, self.read_stdout)]
        self.pid = self.process.pid
        if prefix:
            # strace has short-lived children of its own as well.
            program = self.argv[len(prefix)]
            self.pid = wait_until(lambda: [pid for pid in procs.children(self.process.pid) if procs.runs(pid, program)],
                                  "the server as a child")[0]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill_all()
        else:
            self.finish()

    # ---- what it says ----

    def read_log(self):
        with self.process.stderr or open(self.terminal, "rb", closefd=False) as stderr:
            while line := self.read_line(stderr):
                with self.log_changed:
                    self.log.append(line.decode("utf-8", "replace").rstrip("\r\n"))
                    self.log_changed.notify_all()
        with self.log_changed:
            self.log.append("(end of stderr)")
            self.log_changed.notify_all()

    @staticmethod
    def read_line(stderr):
        try:
            return stderr.readline()
        except OSError:  # the server, the last that had the terminal open, has ended
            return b""

    def read_stdout(self):
        self.stdout = self.process.stdout.read()

    def wait_log(self, pattern, timeout=None, start=0):
        """The first line on stderr, from number `start` on, in which the pattern is found."""
        deadline = Deadline(timeout)
        with self.log_changed:
            while True:
                for line in self.log[start:]:
                    if re.search(pattern, line):
                        return line
                assert "(end of stderr)" not in self.log, \
                    f"{self.argv} ended (status {self.process.poll()}) before it said {pattern!r}: {self.log}"
                try:
                    self.log_changed.wait(deadline.left("log"))
                except TimeoutError:
                    raise AssertionError(f"{pattern!r} not among {self.log[start:]}") from None

    # ---- the console ----

    def write(self, data, timeout=None):
        """Writes to the console, waiting while the server does not read."""
        if self.stdin is None:
            raise BrokenPipeError("the console's input has ended")
        deadline = Deadline(timeout)
        view = memoryview(data)
        descriptor = os.dup(self.stdin)  # it stays valid if end_input() is called meanwhile
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        try:
            while view:
                if poll.poll(deadline.left(f"write, {len(view)} bytes left") * 1000):
                    view = view[os.write(descriptor, view[:65536]):]
        finally:
            os.close(descriptor)

    def type(self, data):
        """As at the terminal that stdin="terminal" is: a line ends with \\n, the input with \\x04 (Ctrl-D)."""
        os.write(self.terminal, data)

    def line(self, text=b""):
        self.write((text.encode() if isinstance(text, str) else text) + b"\n")

    def feed(self, data, timeout=None):
        """Writes to the console in a thread. It may be joined once the server has read it all; what the server has not
        read when the test ends it is not missed."""
        def run():
            try:
                self.write(data, timeout or 4 * PATIENCE)
            except BrokenPipeError:
                if not self.is_ending:
                    raise

        self.feeders.append(Job(run))
        return self.feeders[-1]

    def unread_input(self):
        """How many bytes the server has not read from the console's pipe."""
        count = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, count)
        return count[0]

    def end_input(self):
        os.close(self.stdin)
        self.stdin = None

    # ---- clients ----

    def socket(self, address=None, kind=RawClient, **how):
        """A connection, nothing sent."""
        client = kind(address or self.address, **how)
        self.clients.append(client)
        return client

    def connect(self, address=None, extra=b"", request=None, **how):
        """A client whose opening handshake is done."""
        return self.socket(address, **how).handshake(extra=extra, **(request or {}))

    def drop_clients(self):
        for client in self.clients:
            client.drop()
        self.clients.clear()

    def connect_everywhere(self, workers, at_least=1, **how):
        """At least so many clients on every one of `workers` workers: {pid: [clients]}, in the order of connecting."""
        places = {}
        for _ in range(workers * at_least * 10):
            client = self.connect(**how)
            places.setdefault(self.worker_of(client), []).append(client)
            if len(places) == workers and min(map(len, places.values())) >= at_least:
                return places
        counts = {pid: len(clients) for pid, clients in places.items()}
        raise AssertionError(f"connections did not reach all {workers} workers: {counts}")

    # ---- processes ----

    def workers(self):
        return procs.children(self.pid)

    def processes(self):
        return [self.pid, *self.workers()]

    def worker_of(self, client):
        """The worker that holds the other end of a TCP client."""
        def find():
            inode = procs.socket_inode(client.socket.getpeername(), client.local)
            for pid in self.workers() if inode else ():
                try:
                    if f"socket:[{inode}]" in procs.descriptors(pid).values():
                        return pid
                except FileNotFoundError:
                    pass
            return None
        return wait_until(find, f"a worker that holds the connection of {client.name}")

    def counters(self):
        """Every counter, summed over all processes: {name: value}."""
        return read_counters(self.pid)

    def wait_phase(self, phase):
        wait_until(lambda: read_phase(self.pid) == phase, lambda: f"phase {phase}: it is {read_phase(self.pid)}")

    def ring(self):
        return read_ring(self.pid)

    def members(self):
        return read_places(self.pid)

    def worker_states(self):
        return [worker.state for worker in self.members()[1:]]

    def wait_ready(self):
        wait_until(lambda: set(self.worker_states()) == {"ready"}, lambda: f"all workers to be ready: {self.worker_states()}")

    def client_counts(self):
        """How many clients each worker that is ready has, by the segment: {pid: clients}."""
        return {pid: member.clients for pid, member in self.ring().members.items()
                if (member.role, member.state) == ("worker", "ready")}

    def wait_counter(self, name, value):
        counters = {}

        def reached():
            counters.update(self.counters())
            return counters[name] >= value

        wait_until(reached, lambda: f"{name} to reach {value}: {counters}")
        assert counters[name] == value, counters

    # ---- the server's own time ----

    def wait_ticks(self, count, *pids, unless=lambda: False):
        """Waits until the timer of each of these processes, by default of all workers that serve, has ticked `count`
        times more, or until `unless` is true.

        Between two ticks a process handles all events that were pending. A worker's timer ticks every 100 ms, the
        master's every second, or every 100 ms while the master expects an event. The heartbeat of a worker also
        advances with each client that it reads from: ticks are a measure of time only while no client sends.
        """
        def is_meant(pid, member):
            serves = member.role == "worker" and member.state != "starting" and procs.process_state(pid) in ("R", "S", "D")
            return pid in pids if pids else serves

        def beats():
            return {pid: member.beats for pid, member in self.ring().members.items() if is_meant(pid, member)}

        first = beats()
        assert first, f"none of {pids or 'the workers'} runs"
        wait_until(lambda: unless() or all(now - first.get(pid, 0) >= count for pid, now in beats().items()),
                   lambda: f"{count} ticks of the timers: {first} before, {beats()} now", PATIENCE + count, 0.02)

    def settled(self, state, ticks=3):
        """state(), once it has stayed the same for so many ticks of all workers that run."""
        deadline = Deadline(4 * PATIENCE)
        while True:
            before = state()
            self.wait_ticks(ticks)
            if state() == before:
                return before
            deadline.left(f"it to settle, it is {before} now")

    def held_up(self, pid=None):
        """True if this process, by default the master with the console's lines, waits for room in the ring: on two
        ticks of its timer it has retried, and nothing was published meanwhile."""
        pid = pid or self.pid
        first = now = self.ring()
        while now.members[pid].beats - first.members[pid].beats < 3:
            if not now.members[pid].waits or now.next_seq != first.next_seq:
                return False
            now = self.ring()
        return now.next_seq == first.next_seq and (pid != self.pid or self.unread_input() > 0)

    def wait_held_up(self, pid=None):
        wait_until(lambda: self.held_up(pid), lambda: f"the ring to be full: {self.ring()}", 4 * PATIENCE)

    def assert_idle(self, pid=None, ticks=4):
        """The process, by default the master, uses no CPU worth mentioning while a worker's timer comes so often."""
        pid = pid or self.pid
        before = procs.cpu_seconds(pid)
        self.wait_ticks(ticks, *([] if pid == self.pid else [pid]))
        used = procs.cpu_seconds(pid) - before
        assert used <= 0.01 * ticks, f"process {pid} used {used:g} s of CPU in {ticks} ticks of a timer, with nothing to do"

    def waiting_connections(self):
        """How many connections the master has not accepted: its listening socket has them."""
        port, listening = f":{self.address[1]:04X}", "0A"
        with open("/proc/net/tcp") as table:
            for row in map(str.split, table):  # sockets that listen come first
                if row[1].endswith(port) and row[3] == listening:
                    return int(row[4].partition(":")[2], 16)
        raise AssertionError(f"no process listens on {self.address}")

    # ---- the end ----

    def send_signal(self, number):
        self.is_ending = self.is_ending or number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it has just ended; its exit status will be looked at

    def wait_exit(self, timeout=None):
        try:
            return self.process.wait(PATIENCE if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server has not exited: {self.log}") from None

    def stop(self, number=signal.SIGTERM, timeout=None):
        """Sends a signal and waits for the exit status."""
        self.is_ending = True
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait_exit(timeout)

    def totals(self):
        """What the last line adds up: deliveries that were due, made, skipped, and not made before the client was gone."""
        line = self.wait_log("stopped;")
        delivered, due = map(int, re.search(r"deliveries: (\d+) of (\d+); ", line).groups())
        missed = re.search(r"; (\d+) missed: (\d+) skipped by slow clients, (\d+) not delivered before the client was gone$", line)
        total, skipped, unsent = map(int, missed.groups() if missed else (0, 0, 0))
        assert total == skipped + unsent and due == delivered + total, line
        assert bool(missed) == bool(total) and (missed or line.endswith("; no client missed a broadcast")), line
        return due, delivered, skipped, unsent

    def left_behind(self):
        return procs.of_session(self.process.pid, self.tag)

    def finish(self):
        """Stops the server if it still runs, and checks what must hold at the end of every test."""
        self.is_ending = True
        try:
            ends_itself = self.stdin is not None and {"-E", "--exit-on-eof"} & set(self.argv)
            if self.stdin is not None:
                self.end_input()
            self.drop_clients()
            status = self.wait_exit() if ends_itself else self.stop()
            wait_until(lambda: not self.left_behind(), lambda: f"processes left behind: {self.left_behind()}")
            for job in [*self.readers, *self.feeders]:
                job.join(PATIENCE)
            assert status == self.expected, f"exit status {status}, expected {self.expected}; stderr: {self.log}"
            broken = [] if self.dies else [line for line in self.log if BROKEN.search(line)]
            assert not broken, f"on stderr: {broken}"
            assert self.stdout == b"", f"on stdout: {self.stdout[:200]!r}"
        finally:
            self.kill_all()

    def kill_all(self):
        self.is_ending = True
        for pid in self.left_behind():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.stdin is not None:
            self.end_input()
        self.process.wait(PATIENCE)
        if self.terminal is not None and not self.readers[0].is_alive():
            os.close(self.terminal)
            self.terminal = None
        print(f"--- {' '.join(self.argv)}\n" + "\n".join(self.log[:200]))
