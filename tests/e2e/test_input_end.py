"""What follows the end of standard input, for the server, for what still writes to it, and for the person at a terminal."""

import array
import contextlib
import fcntl
import os
import subprocess
import termios

import pytest

from harness import SANITIZED, Job, descriptors, wait_until
from harness.inherited import RefusedPipe

ENDED = r"standard input has ended; still serving"


def open_fifo(path, mode):
    return os.open(path, mode | os.O_NONBLOCK)


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def serve_fifo(crier, path):
    """The server, which has the only read end, and the only write end."""
    reader = open_fifo(path, os.O_RDONLY)
    writer = open_fifo(path, os.O_WRONLY)
    os.set_blocking(reader, True)
    server = crier("--no-welcome", stdin=reader)
    os.close(reader)
    return server, writer


def has_reader(path):
    try:
        os.close(open_fifo(path, os.O_WRONLY))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("flags", [(), ("-v",), ("-q", "--listen", "unix:quiet.sock")])
def test_the_end_of_input_is_logged_whatever_else_is(crier, tmp_path, flags):
    server = crier("--no-welcome", *flags, url=False, cwd=tmp_path)
    server.end_input()
    assert server.wait_log(ENDED).endswith("still serving")


def test_with_exit_on_eof_the_end_of_input_does_not_go_on_serving(crier):
    server = crier("--no-welcome", "-E")
    server.end_input()
    assert server.wait_exit() == 0
    assert not [line for line in server.log if "still serving" in line]


def test_at_the_end_of_a_pipe_descriptor_0_is_dev_null(crier):
    server = crier("--no-welcome")
    pipe = f"pipe:[{os.fstat(server.stdin).st_ino}]"
    assert descriptors(server.pid)[0] == pipe
    server.write(b"first\nlast")
    client = server.connect()
    server.end_input()
    server.wait_log(ENDED)
    assert descriptors(server.pid)[0] == "/dev/null"
    assert pipe not in descriptors(server.pid).values()
    client.text("echo")
    assert client.texts_until("echo") in ([], ["last"], ["first", "last"])
    server.assert_idle()


def test_at_the_end_of_another_users_pipe_descriptor_0_is_dev_null(crier):
    pipe = RefusedPipe()
    server = crier("--no-welcome", stdin=pipe.reads, **pipe.how)
    pipe.end()
    server.wait_log(ENDED)
    assert descriptors(server.pid)[0] == "/dev/null"
    server.stop()
    pipe.close()


def test_after_the_end_of_a_fifo_a_writer_waits_in_open_for_the_next_reader(crier, fifo):
    server, writer = serve_fifo(crier, fifo)
    client = server.connect()
    os.write(writer, b"sent\n")
    os.close(writer)
    client.expect_texts(["sent"])
    server.wait_log(ENDED)
    assert not has_reader(fifo), "what is written to the FIFO is lost"
    writing = Job(lambda: fifo.write_text("kept\n"))
    reading = Job(fifo.read_text)
    writing.join()
    assert reading.join() == "kept\n"
    client.text("echo")
    client.expect_texts(["echo"])


def test_a_fifo_that_a_script_keeps_open_has_many_writers_one_after_the_other(crier, fifo):
    """As README shows it."""
    server, writer = serve_fifo(crier, fifo)
    client = server.connect()
    for line in ("first", "second", "third"):
        fifo.write_text(line + "\n")
        client.expect_texts([line])
    assert has_reader(fifo)
    os.close(writer)
    server.wait_log(ENDED)


@pytest.mark.skipif(SANITIZED, reason="what looks for leaks at the end does not run under ptrace")
def test_a_writer_that_is_open_when_the_input_ends_gets_epipe(crier, fifo):
    """The kernel does not report the end while a writer is there; strace does."""
    server, writer = serve_fifo(crier, fifo)
    tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-P", str(fifo), "-e", "trace=read",
                               "-e", "inject=read:retval=0", "-p", str(server.pid)])
    try:
        wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{server.pid}/status").read(), "strace at the server")
        os.write(writer, b"line\n")
        server.wait_log(ENDED)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"line\n")
    finally:
        tracer.terminate()
        tracer.wait()
        os.close(writer)


# ---- terminals ----

@contextlib.contextmanager
def far_end(server):
    descriptor = os.open(server.terminal_name, os.O_RDWR | os.O_NOCTTY)
    yield descriptor
    os.close(descriptor)


def type_and_wait(server, text):
    """Until the echo shows that the line is in the terminal, and the terminal has nothing left for a reader."""
    def unread():
        count = array.array("i", [0])
        fcntl.ioctl(terminal, termios.FIONREAD, count)
        return count[0]

    server.type(text)
    server.wait_log(text.strip(b"\x04\n").decode())
    with far_end(server) as terminal:
        wait_until(lambda: unread() == 0, "the terminal to be read")


def turn_echo_on(server):
    with far_end(server) as terminal:
        settings = termios.tcgetattr(terminal)
        settings[3] |= termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, settings)


def test_a_line_typed_after_the_end_of_input_is_answered_once_and_all_are_discarded(crier):
    server = crier("--no-welcome", stdin="terminal")
    client = server.connect()
    server.type(b"typed\n\x04")
    assert server.wait_log(ENDED).endswith("still serving, Ctrl-C stops")
    client.expect_texts(["typed"])
    turn_echo_on(server)
    for text in (b"2nd line\n", b"3rd line\n", b"\x04\x04\x044th line\n"):
        type_and_wait(server, text)
    server.wait_log("standard input has ended: this line is not sent, nor is any other")
    client.text("echo")
    client.expect_texts(["echo"])
    server.assert_idle()
    assert len([line for line in server.log if "this line is not sent" in line]) == 1
    client.drop()
    server.send_signal(2)
    assert server.wait_exit() == 0


def test_a_terminal_that_goes_away_after_the_end_of_input_costs_nothing(crier):
    ours, theirs = os.openpty()
    server = crier("--no-welcome", stdin=theirs)
    os.close(theirs)
    os.write(ours, b"\x04")
    server.wait_log(ENDED)
    os.close(ours)
    server.connect().expect_pong()
    server.assert_idle()


def test_exit_on_eof_ends_with_the_input_of_a_terminal(crier):
    server = crier("--no-welcome", "-E", stdin="terminal")
    client = server.connect()
    server.type(b"typed\n\x04")
    client.expect_texts(["typed"])
    client.expect_close(1000)
    assert server.wait_exit() == 0
