"""Standard error is whatever the server was started with: no process waits for its reader, and what is dropped is counted."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import termios

import pytest

from harness import (BUILD, CRIER, PATIENCE, RawClient, at_once, is_alive, plain_environment, run_crier, wait_until)
from harness.fuse import WRITE, OneFile
from harness.inherited import RefusedPipe, is_nonblocking, threads
from harness.procs import children

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
DROPPED = re.compile(rf"^(?:{STAMP})?crier: (\d+) lines of log were dropped$", re.M)
CONNECTED = re.compile(rf"^(?:{STAMP})?crier\[\d+\] worker \d: .* connected", re.M)
LINE = re.compile(r"crier(\[\d+\] (master|worker \d+))?: .*")


class Quiet:
    """A server whose stderr is the test's own business."""

    def __init__(self, stderr, *flags, workers=2, **popen):
        self.program = popen.pop("program", CRIER)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(256)
            self.address = listener.getsockname()
            number = listener.fileno()
            self.process = subprocess.Popen(
                [self.program, "-v", "--no-welcome", "--workers", str(workers), "--listen", f"fd:{number}", *flags],
                stdin=popen.pop("stdin", subprocess.DEVNULL), stdout=subprocess.DEVNULL, stderr=stderr, pass_fds=[number],
                env=plain_environment(**popen.pop("variables", {})), start_new_session=True, **popen)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def connect(self):
        return RawClient(self.address).handshake()

    def make_lines(self, clients):
        """Two lines for each client, and a client that is there all the time is never left alone."""
        for _ in range(clients):
            with self.connect() as client:
                client.expect_pong()
                client.close(1000)
                client.expect_close(1000, answer=False)

    def workers(self):
        return children(self.pid)

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)


def drain(descriptor, until):
    """What comes out of the descriptor until the text so far satisfies `until`."""
    text = ""

    def more():
        nonlocal text
        while select.select([descriptor], [], [], 0)[0]:
            try:
                some = os.read(descriptor, 65536)
            except OSError:  # the other end of a terminal has gone
                some = b""
            if not some:
                return True
            text += some.decode().replace("\r\n", "\n")
        return until(text)

    wait_until(more, lambda: f"more of the log than {text[-2000:]}")
    return text


def accounted(text, stamp=STAMP):
    """How many lines of clients that connected are there; how many lines were dropped."""
    for line in text.splitlines():
        assert re.fullmatch(stamp + LINE.pattern, line), f"not a whole line of the log: {line!r}"
    return len(CONNECTED.findall(text)), sum(int(number) for number in DROPPED.findall(text))


def clients_counted(text):
    """How many clients connected, by the lines of a terminal: one per second and worker."""
    return len(CONNECTED.findall(text)) + sum(int(number) - 1 for number in re.findall(r" (\d+) clients connected", text))


def small_pipe():
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    return ours, theirs


def check_a_stopped_reader(server, ours, clients=200):
    """All serve while standard error is not read; afterwards lines flow again, and those that are missing are counted."""
    with server.connect() as stays:
        workers = server.workers()
        server.make_lines(clients)
        stays.expect_pong()
        assert server.workers() == workers, "a worker was killed for waiting"
    text = drain(ours, lambda text: sum(accounted(text)) > clients and DROPPED.search(text))
    server.make_lines(3)
    text += drain(ours, lambda text: len(CONNECTED.findall(text)) >= 3)
    told, dropped = accounted(text)
    assert told + dropped >= clients + 4 and dropped <= 2 * clients, f"{told} clients and {dropped} dropped lines"

    server.make_lines(clients)
    os.kill(workers[0], signal.SIGKILL)  # its death is a line of the master's
    wait_until(lambda: len(server.workers()) == 2 and workers[0] not in server.workers(), "a successor")
    with server.connect() as client:
        client.expect_pong()
    server.process.terminate()
    drain(ours, lambda text: "stopped; clients served" in text)
    assert server.process.wait(PATIENCE) == 0


def test_a_pipe_whose_reader_is_stopped_makes_nobody_wait_and_lines_flow_again_later():
    ours, theirs = small_pipe()
    with Quiet(theirs, "--stuck-timeout", "1") as server:
        check_a_stopped_reader(server, ours)
        assert not is_nonblocking(theirs)
    os.close(ours)
    os.close(theirs)


def test_another_users_pipe_whose_reader_is_stopped_makes_nobody_wait():
    pipe = RefusedPipe()
    fcntl.fcntl(pipe.writes, fcntl.F_SETPIPE_SZ, 4096)
    with Quiet(pipe.writes, "--stuck-timeout", "1", **pipe.how) as server:
        check_a_stopped_reader(server, pipe.reads)
    pipe.close()


def test_a_stream_socket_that_is_not_read_makes_nobody_wait_and_gets_whole_lines():
    """As a service manager passes it."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with Quiet(theirs, "--stuck-timeout", "1") as server:
        check_a_stopped_reader(server, ours.fileno())
        assert not is_nonblocking(theirs.fileno())
    ours.close()
    theirs.close()


@pytest.mark.parametrize("stream, stamp", [("its own", ""), ("of another", STAMP)])
def test_the_journal_of_systemd_notes_the_time_itself(stream, stamp):
    """JOURNAL_STREAM is inherited by programs whose stderr was redirected since: then lines have a time."""
    ours, theirs = socket.socketpair()
    found = os.fstat((theirs if stream == "its own" else ours).fileno())
    with Quiet(theirs, variables={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}) as server:
        server.make_lines(3)
        assert server.stop() == 0
    text = drain(ours.fileno(), lambda text: "stopped; clients served: 3" in text)
    assert accounted(text, stamp) == (3, 0)
    ours.close()
    theirs.close()


def test_a_terminal_that_is_stopped_makes_nobody_wait_and_shows_whole_lines_later():
    ours, theirs = os.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    with Quiet(theirs, "--stuck-timeout", "1") as server:
        with server.connect() as stays:
            server.make_lines(100)
            stays.expect_pong()
        termios.tcflow(theirs, termios.TCOON)
        text = drain(ours, lambda text: clients_counted(text) >= 50)
        server.process.terminate()
        text += drain(ours, lambda text: "stopped; clients served: 101" in text)
        assert server.process.wait(PATIENCE) == 0
        accounted(text, stamp="")
        assert clients_counted(text) == 101
        assert not is_nonblocking(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_file_is_written_by_a_thread_behind_what_it_has():
    """Not opened again: that would start at its beginning."""
    with open_log() as (file, path):
        with Quiet(file) as server:
            with server.connect() as client:
                client.expect_pong()
                assert len(threads(server.pid)) == 1
                assert sorted(len(threads(pid)) for pid in server.workers()) == [0, 1]
            server.make_lines(20)
            assert server.stop() == 0
        with open(path) as log:
            first, *lines = log.read().splitlines()
        assert first == "before"
        assert len([line for line in lines if " connected" in line]) == 21
        assert "stopped; clients served: 21" in lines[-1]


@contextlib.contextmanager
def open_log():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "log")
        with open(path, "wb", buffering=0) as file:
            file.write(b"before\n")
            yield file, path


def test_several_servers_append_to_one_file_and_lose_nothing(tmp_path):
    path = tmp_path / "log"
    with open(path, "ab") as first, open(path, "ab") as second, Quiet(first) as one, Quiet(second) as other:
        at_once([lambda: one.make_lines(30), lambda: other.make_lines(30)])
        assert (one.stop(), other.stop()) == (0, 0)
    told, dropped = accounted(path.read_text())
    assert (told, dropped) == (60, 0)


@pytest.mark.parametrize("kind", ["pipe", "null"])
def test_no_thread_is_started_for_what_needs_none(kind):
    ours, theirs = os.pipe()
    with Quiet(theirs if kind == "pipe" else subprocess.DEVNULL) as server:
        with server.connect() as client:
            client.expect_pong()
            assert [threads(pid) for pid in [server.pid, *server.workers()]] == [[], [], []]
        assert server.stop() == 0
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("kind", ["file", "refused"])
def test_an_error_at_the_start_is_written_before_the_process_ends(tmp_path, kind):
    with open(tmp_path / "log", "w+b") as file:
        pipe = RefusedPipe() if kind == "refused" else None
        done = subprocess.run([pipe.how.get("program", CRIER) if pipe else CRIER, "--listen", "192.0.2.1:80"],
                              stdin=subprocess.DEVNULL, stderr=pipe.writes if pipe else file, timeout=PATIENCE,
                              env=plain_environment(),
                              **{name: value for name, value in (pipe.how if pipe else {}).items() if name != "program"})
        assert done.returncode == 3
        text = os.read(pipe.reads, 65536).decode() if pipe else (tmp_path / "log").read_text()
        assert re.match(STAMP + r"crier\[", text) and "cannot listen on 192.0.2.1:80" in text and text.count("\n") == 1
        if pipe:
            pipe.close()


def test_a_file_system_that_hangs_under_the_log_stops_nothing(tmp_path):
    folder = tmp_path / "mount"
    folder.mkdir()
    try:
        file_system = OneFile(folder)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    with open(file_system.path, "ab", buffering=0) as file:
        with Quiet(file, "--stuck-timeout", "1", workers=1) as server:
            server.connect().expect_pong()
            file_system.hang()
            with server.connect() as stays:
                file_system.wait_request(WRITE)
                workers = server.workers()
                server.make_lines(50)
                stays.expect_pong()
                assert server.workers() == workers
                server.process.terminate()
                stays.expect_close(1001)
            # The kernel keeps the processes until the request is answered or the file system is gone.
            file_system.close()
            assert server.process.wait(PATIENCE) == 0
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize("flag", ["--help", "--version"])
@pytest.mark.parametrize("program", ["crier", "crier-ring", "crier-bench"])
def test_an_answer_that_cannot_be_written_is_an_error(program, flag):
    path = CRIER if program == "crier" else os.path.join(BUILD, program)
    with open("/dev/full", "w") as full:
        done = subprocess.run([path, flag], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE,
                              env=plain_environment())
    assert done.returncode == 1
    assert done.stderr.decode() == f"{program}: cannot write to standard output: No space left on device\n"
    assert run_crier(flag, program=path).returncode == 0


@pytest.mark.parametrize("program", ["crier", "crier-ring", "crier-bench"])
def test_an_answer_on_a_closed_standard_output_is_an_error(program):
    path = CRIER if program == "crier" else os.path.join(BUILD, program)
    done = run_crier("--version", program=path, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (1, f"{program}: cannot write to standard output: Bad file descriptor\n")
