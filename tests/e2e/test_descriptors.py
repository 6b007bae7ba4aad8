"""Standard input is whatever the server was started with, and other processes have it too: the master never waits for it."""

import array
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import termios

import pytest

from harness import (PATIENCE, SANITIZED, TEXT, Job, descriptors, plain_environment, run_crier, server_frame, wait_until)
from harness.fuse import FLUSH, READ, OneFile
from harness.inherited import RefusedPipe, is_nonblocking, threads, waits_in
from harness.procs import children, status_flags
from harness.server import CRIER

LINES = 6000
BLOCKED_READ = ("pipe_read", "anon_pipe_read", "fifo_pipe_read", "pipe_wait")


@pytest.fixture
def refused():
    """To be asked for before `crier`."""
    pipe = RefusedPipe()
    yield pipe
    pipe.close()


@pytest.fixture
def one_file(crier, tmp_path):
    """Starts a file system. It is unmounted before the servers are ended: a request that hangs would keep them."""
    mounted = []

    def mount(content=b"", **how):
        folder = tmp_path / "mount"
        folder.mkdir()
        try:
            mounted.append(OneFile(folder, content, **how))
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        return mounted[0]

    yield mount
    for file_system in mounted:
        file_system.close()


def unread(descriptor):
    """How many bytes are in the pipe or socket."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


# ---- shared with other readers ----

def where_it_sleeps(pid):
    """The function of the kernel, or "" while the process runs."""
    with open(f"/proc/{pid}/wchan") as f:
        return f.read().strip("0")


def share_with_rivals(server, theirs, write, waits):
    """Each line is taken by the server or by one of others that wait for it as well; all are told of it. The master
    must not be found asleep in a read of its own in between: until the next line, if one comes, it would do nothing."""
    rivals = [subprocess.Popen(["cat"], stdin=theirs, stdout=subprocess.DEVNULL) for _ in range(4)]
    processes = [server.pid, *(rival.pid for rival in rivals)]

    def sleep_again():
        return unread(theirs) == 0 and all(map(where_it_sleeps, processes))

    for number in range(LINES):
        write(b"%d\n" % number)
        wait_until(sleep_again, "one of them to read", interval=0.0005)  # all are woken at once, on all CPUs
        if where_it_sleeps(server.pid) in waits:
            server.connect().expect_pong()
            server.drop_clients()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [victim]), "a successor of the worker")
    assert server.stop() == 0
    return rivals


def test_another_reader_of_the_same_pipe_never_makes_the_master_wait(crier):
    ours, theirs = os.pipe()
    server = crier("--no-welcome", stdin=ours, workers=1)
    rivals = share_with_rivals(server, ours, lambda line: os.write(theirs, line), BLOCKED_READ)
    os.close(theirs)
    os.close(ours)
    for rival in rivals:
        rival.wait(PATIENCE)


def test_another_reader_of_the_same_socket_never_makes_the_master_wait(crier):
    ours, theirs = socket.socketpair()
    server = crier("--no-welcome", stdin=theirs, workers=1)
    rivals = share_with_rivals(server, theirs, ours.send, ("unix_stream_data_wait", "unix_stream_read_generic"))
    ours.close()
    theirs.close()
    for rival in rivals:
        rival.wait(PATIENCE)


@pytest.mark.parametrize("kind", ["pipe", "fifo", "terminal", "socket", "file"])
def test_no_kind_of_input_is_made_non_blocking_for_the_others(crier, tmp_path, kind):
    close = []
    if kind == "socket":
        ours, theirs = socket.socketpair()
        close += [ours, theirs]
        stdin = theirs.fileno()
    elif kind == "terminal":
        master, stdin = os.openpty()
        close += [os.fdopen(master), os.fdopen(stdin, closefd=True)]
    else:
        path = tmp_path / "input"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "file":
            path.write_bytes(b"line\n")
        if kind == "pipe":
            stdin, writes = os.pipe()
            close += [os.fdopen(stdin), os.fdopen(writes, "w")]
        else:
            stdin = os.open(path, os.O_RDWR)
            close += [os.fdopen(stdin, "r+b", buffering=0)]
    server = crier("--no-welcome", stdin=stdin)
    server.connect().expect_pong()
    assert not is_nonblocking(stdin)
    assert not status_flags(server.pid, 0) & os.O_NONBLOCK
    server.drop_clients()
    assert server.stop() == 0
    assert not is_nonblocking(stdin)
    for file in close:
        file.close()


# ---- FIFOs ----

def test_a_fifo_opened_for_reading_and_writing_never_ends(crier, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    server = crier("-v", "--no-welcome", "-E", stdin=both)
    os.close(both)
    client = server.connect()
    for line in ("first", "second", "third"):
        with open(path, "w") as writer:
            writer.write(line + "\n")
        client.expect_texts([line])
    assert not [line for line in server.log if "has ended" in line]
    server.drop_clients()
    server.stop()


def test_a_fifo_whose_writer_has_gone_before_the_start_is_read_to_its_end(crier, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reads = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(path, "w") as writer:
        writer.write("left behind\n")
    os.set_blocking(reads, True)
    server = crier("--no-welcome", "-E", "--wait-clients", "1", stdin=reads)
    os.close(reads)
    client = server.connect()
    client.expect_texts(["left behind"])
    client.expect_close(1000)
    assert server.wait_exit() == 0


def test_an_empty_fifo_whose_writer_has_gone_has_ended(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reads = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.close(os.open(path, os.O_WRONLY))
    os.set_blocking(reads, True)
    done = run_crier("--listen", "127.0.0.1:0", "-E", stdin=reads)
    os.close(reads)
    assert done.returncode == 0, done


# ---- terminals and sockets ----

def test_the_controlling_end_of_a_terminal_is_read_and_no_new_pair_is_made(crier):
    ours, theirs = os.openpty()
    server = crier("--no-welcome", stdin=ours)
    client = server.connect()
    os.write(theirs, b"from the program inside\n")
    client.expect_texts(["from the program inside"])
    assert [name for name in descriptors(server.pid).values() if "ptmx" in name] == [os.readlink(f"/proc/self/fd/{ours}")]
    server.drop_clients()
    server.stop()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def test_a_socket_is_read_to_its_end(crier, kind):
    ours, theirs = socket.socketpair(type=kind)
    server = crier("--no-welcome", "-E", stdin=theirs)
    theirs.close()
    client = server.connect()
    ours.sendall(b"one\ntwo\n")
    client.expect_texts(["one", "two"])
    ours.sendall(b"three\nlast")
    ours.close()
    client.expect_texts(["three", "last"])
    client.expect_close(1000)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["dgram", "seqpacket"])
def test_a_datagram_that_is_too_long_is_reported_and_skipped_whole(crier, kind):
    ours, theirs = socket.socketpair(type=kind)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        server = crier("--no-welcome", stdin=theirs)
        client = server.connect()
        ours.sendall(b"x" * 65535 + b"\n")
        ours.sendall(b"y" * 65536 + b"\n")
        ours.sendall(b"after\n")
        client.expect_texts(["x" * 65535, "after"])
        server.wait_log("standard input: a datagram longer than 65536 bytes; skipped")


# ---- a thread reads ----

def test_a_file_is_read_from_where_its_description_stands_and_stands_behind_what_was_read(crier, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"not this\nbut this\nand this")
    with open(path, "rb", buffering=0) as file:
        file.seek(len(b"not this\n"))
        server = crier("--no-welcome", "-E", "--wait-clients", "1", stdin=file)
        client = server.connect()
        client.expect_texts(["but this", "and this"])
        client.expect_close(1000)
        assert server.wait_exit() == 0
        assert file.tell() == path.stat().st_size


def test_nothing_is_read_before_the_clients_are_there(crier, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"line\n")
    with open(path, "rb", buffering=0) as file:
        server = crier("--no-welcome", "--wait-clients", "2", stdin=file)
        server.connect().expect_pong()
        assert (threads(server.pid), file.tell()) == ([], 0)
        second = server.connect()
        second.expect_texts(["line"])


def file_of_lines(path, total, width=200):
    lines = [b"%08d " % number + b"x" * (number % width) for number in range(total)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


SMALL_RING = ("--no-welcome", "--ring", "64k", "--max-message", "1k", "--slow", "block", "--ping", "0", "--compress", "off")


def test_a_file_much_larger_than_the_ring_waits_for_a_slow_client_and_loses_nothing(crier, tmp_path):
    path = tmp_path / "input"
    lines = file_of_lines(path, 60000)
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    with open(path, "rb", buffering=0) as file:
        server = crier(*SMALL_RING, "-E", "--wait-clients", "2", stdin=file, workers=2)
        slow = server.connect(receive_buffer=4096)
        other = server.connect()
        reading = Job(lambda: other.read(len(expected), timeout=4 * PATIENCE))
        wait_until(lambda: waits_in(server.pid, ["futex"]), "the reading thread to wait for room")
        assert file.tell() < path.stat().st_size / 2, "a full ring has not stopped the reading"
        server.connect().drop()  # the master does not wait with it
        assert slow.read(len(expected)) == expected
        assert reading.join() == expected
        for client in (slow, other):
            client.expect_close(1000)
    assert server.wait_exit() == 0


def test_a_stop_while_the_ring_is_full_publishes_every_line_that_was_read(crier, tmp_path):
    path = tmp_path / "input"
    file_of_lines(path, 60000)
    with open(path, "rb", buffering=0) as file:
        server = crier(*SMALL_RING, "-v", "--drain", "60", "--wait-clients", "1", stdin=file, workers=1)
        slow = server.connect(receive_buffer=4096)
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)  # no room is made from here on
        full = server.counters()["publish_again"]
        wait_until(lambda: server.counters()["publish_again"] > full, "the ring to be full")
        wait_until(lambda: waits_in(server.pid, ["futex"]), "the reading thread to wait for room")
        read = file.tell()
        server.send_signal(signal.SIGTERM)
        server.wait_log("SIGTERM: stopping when")
        os.kill(worker, signal.SIGCONT)
        lines = path.read_bytes()[:read].split(b"\n")[:-1]
        expected = b"".join(server_frame(TEXT, line) for line in lines)
        assert slow.read(len(expected)) == expected
        slow.expect_close(1001)
        assert server.wait_exit() == 0
        assert file.tell() == read, "more was read after the stop"


def test_a_stop_waits_for_the_console_when_all_workers_are_quiet(crier, tmp_path):
    """A client holds up the ring, so that lines that were read wait for room while the workers have nothing to do any more."""
    path = tmp_path / "input"
    file_of_lines(path, 100000)
    with open(path, "rb", buffering=0) as file:
        server = crier(*SMALL_RING, "-v", "--drain", "60", "--slow-grace", "60", "--wait-clients", "1", stdin=file, workers=1)
        slow = server.connect(receive_buffer=4096)
        worker = server.workers()[0]

        def stands():
            before = file.tell()
            server.wait_ticks(2, worker)
            return file.tell() == before > 0

        wait_until(stands, "the ring to be full")
        read = file.tell()
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ring().members[worker].state == "quiet", "the worker to be quiet")
        server.wait_ticks(2, server.pid)
        lines = path.read_bytes()[:read].split(b"\n")[:-1]
        expected = b"".join(server_frame(TEXT, line) for line in lines)
        assert slow.read(len(expected)) == expected
        slow.expect_close(1001)
        assert server.wait_exit() == 0


def test_a_stop_while_the_thread_waits_for_input_publishes_what_it_has_read_before(crier, refused):
    """The ring is full, so that the console takes nothing, and the thread has room for all that was written."""
    server = crier(*SMALL_RING, "-v", "--drain", "0", stdin=refused.reads, workers=1, **refused.how)
    client = server.connect(receive_buffer=4096)
    client.expect_pong()
    worker = server.workers()[0]
    os.kill(worker, signal.SIGSTOP)  # no room is made from here on
    lines = []

    def write_until_full():
        if server.counters()["publish_again"] > full:
            return True
        if unread(refused.writes) == 0:
            lines.append(b"%04d" % len(lines) * 100)
            refused.write(lines[-1] + b"\n")
        return False

    full = server.counters()["publish_again"]
    wait_until(write_until_full, "the ring to be full")
    for _ in range(3):  # the second and third stay in the inbox
        lines.append(b"%04d" % len(lines) * 100)
        refused.write(lines[-1] + b"\n")
        wait_until(lambda: unread(refused.writes) == 0, "the thread to read")
    wait_until(lambda: waits_in(server.pid, BLOCKED_READ), "the thread to wait for input")
    server.send_signal(signal.SIGTERM)
    server.wait_log("SIGTERM: stopping when")
    os.kill(worker, signal.SIGCONT)
    expected = b"".join(server_frame(TEXT, line) for line in lines)
    assert client.read(len(expected)) == expected
    client.expect_close(1001)
    assert server.wait_exit() == 0


def test_another_users_pipe_is_read_by_a_thread(crier, refused):
    server = crier("--no-welcome", "-E", stdin=refused.reads, workers=1, **refused.how)
    client = server.connect()
    wait_until(lambda: waits_in(server.pid, BLOCKED_READ), "the thread to wait for input")
    for line in ("first", "second"):
        refused.write(line.encode() + b"\n")
        client.expect_texts([line])
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [victim]), "a successor of the worker")
    refused.write(b"last")
    refused.end()
    assert server.wait_exit() == 0


def test_the_server_stops_while_its_thread_is_blocked_in_read(crier, refused):
    server = crier("--no-welcome", stdin=refused.reads, **refused.how)
    client = server.connect()
    wait_until(lambda: waits_in(server.pid, BLOCKED_READ), "the thread to wait for input")
    server.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    assert server.wait_exit() == 0
    assert [line for line in server.log if "stopped; clients served: 1" in line]


def test_a_signal_is_taken_by_the_master_and_not_by_the_thread(crier, refused):
    server = crier("--no-welcome", stdin=refused.reads, **refused.how)
    wait_until(lambda: waits_in(server.pid, BLOCKED_READ), "the thread to wait for input")
    with open(f"/proc/{server.pid}/task/{threads(server.pid)[0]}/status") as status:
        blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk:"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTTIN):
        assert blocked >> (number - 1) & 1, f"the thread does not block {number.name}"


def test_a_description_that_another_process_makes_non_blocking_is_waited_for(crier, refused):
    os.set_blocking(refused.reads, False)
    server = crier("--no-welcome", stdin=refused.reads, **refused.how)
    client = server.connect()
    wait_until(lambda: waits_in(server.pid, ["poll"]), "the thread to wait for input")
    refused.write(b"line\n")
    client.expect_texts(["line"])


def test_a_descriptor_that_is_not_open_for_reading_closes_the_console(crier, tmp_path):
    with open(tmp_path / "output", "w") as file:
        server = crier("--no-welcome", stdin=file)
    server.wait_log("cannot read standard input: Bad file descriptor; still serving")
    server.connect().expect_pong()


def test_a_folder_as_input_closes_the_console(crier, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    server = crier("--no-welcome", stdin=folder)
    os.close(folder)
    server.wait_log("cannot read standard input: Is a directory; still serving")
    server.connect().expect_pong()


def run_without(folder, redirection=""):
    """What becomes of a server on a machine without /proc, or /dev."""
    if os.geteuid() != 0:
        pytest.skip(f"only root can take {folder} away")
    script = f'mount -t tmpfs none {folder} && exec "$0" --listen 127.0.0.1:0 {redirection}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, CRIER], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=PATIENCE, env=plain_environment())
    if b"unshare" in done.stderr or b"mount" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.decode()}")
    return done


@pytest.mark.skipif(SANITIZED, reason="the sanitizers need /proc themselves")
def test_without_proc_it_says_so_in_one_sentence():
    done = run_without("/proc")
    assert done.returncode == 1
    assert b"/proc/self/exe" in done.stderr and done.stderr.count(b"\n") == 1, done.stderr


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_descriptor_that_cannot_be_filled_is_no_start(number):
    """Otherwise the server's own files would take the numbers of standard input, output and error."""
    done = run_without("/dev", f"{number}>&-")
    assert done.returncode == 1
    sentence = f"cannot open /dev/null in the place of descriptor {number}, which is closed: No such file or directory"
    assert done.stderr.decode().endswith(f" master: {sentence}\n") if number < 2 else done.stderr == b"", done.stderr


# ---- a file system that hangs ----

def test_a_file_system_that_hangs_while_input_is_read_stops_nothing_but_the_input(crier, one_file):
    file_system = one_file(b"before it hangs\n" * 1000)
    with open(file_system.path, "rb", buffering=0) as file:
        server = crier("--no-welcome", "--wait-clients", "1", stdin=file, workers=1)
        file_system.hang()
        client = server.connect()
        file_system.wait_request(READ)
        client.expect_pong()
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [victim]), "a successor of the worker")
        server.connect().expect_pong()
        server.drop_clients()
        server.send_signal(signal.SIGTERM)
        server.wait_log("stopped; clients served: 2")
        # The kernel keeps the process until the request is answered or the file system is gone.
        file_system.close()
    assert server.wait_exit() == 0


def test_a_worker_is_replaced_though_its_file_system_does_not_even_let_the_input_be_closed(crier, one_file):
    file_system = one_file(b"", flush=True)
    file = open(file_system.path, "rb", buffering=0)
    server = crier("--no-welcome", "--stdin", "off", stdin=file, workers=1)
    file_system.hang()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    file_system.wait_request(FLUSH)
    client = server.connect()
    client.expect_pong()
    assert victim not in server.workers()
    server.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    server.wait_log("stopped; clients served: 1")
    file_system.close()
    with contextlib.suppress(OSError):
        file.close()
    assert server.wait_exit() == 0


def test_workers_have_no_child_when_input_is_a_file(crier, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"line\n")
    with open(path, "rb") as file:
        server = crier("--no-welcome", stdin=file, workers=2)
    server.connect().expect_pong()
    assert [children(pid) for pid in server.workers()] == [[], []]


def test_a_worker_collects_the_helper_that_has_closed_its_input(crier, tmp_path):
    """It asks a limited number of times, which may be too few on a busy machine; so one worker of several is enough."""
    path = tmp_path / "input"
    path.write_bytes(b"line\n")
    with open(path, "rb") as file:
        server = crier("--no-welcome", "--stdin", "off", stdin=file, workers=1)
    left = []
    while len(left) < 10:
        server.connect().expect_pong()
        worker, = server.workers()
        left.append(children(worker, with_dead=True))
        if not left[-1]:
            return
        server.drop_clients()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [worker]), "a successor of the worker")
    pytest.fail(f"processes that no worker has collected: {left}")


def test_a_file_system_that_hangs_is_not_asked_about_standard_input(crier, one_file):
    """With --stdin off the server neither reads it nor waits for it in any other way."""
    file_system = one_file(b"")
    with open(file_system.path, "rb", buffering=0) as file:
        file_system.hang()
        server = crier("--no-welcome", "--stdin", "off", stdin=file, workers=1)
        server.connect().expect_pong()
        assert file_system.hung() == []
        server.drop_clients()
        server.send_signal(signal.SIGTERM)
        server.wait_log("stopped; clients served: 1")
        file_system.close()
    assert server.wait_exit() == 0


# ---- a listening socket ----

@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_a_listening_socket_that_another_process_makes_blocking_does_not_stop_the_master(crier, tmp_path, family):
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        listener.listen(16)
        server = crier("--no-welcome", listen=f"fd:{listener.fileno()}", url=False, workers=1, pass_fds=[listener.fileno()])
        server.wait_log("listening on")
        listener.setblocking(True)
        for _ in range(3):
            client = server.connect(address=listener.getsockname())
            client.expect_pong()
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [victim]), "a successor of the worker")
        assert server.stop() == 0
