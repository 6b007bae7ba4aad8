"""Nothing from outside reaches an operator's terminal as a control sequence: the log, crier-ring, crier-bench."""

import base64
import contextlib
import hashlib
import os
import re
import signal
import socket
import sys
import unicodedata

import pytest

from harness import BINARY, BUILD, CRIER, CRIER_RING, Job, plain_environment, run_crier

CRIER_BENCH = os.path.join(BUILD, "crier-bench")
PROGRAMS = [CRIER, CRIER_RING, CRIER_BENCH]

SEQUENCES = ["\x1b[2J", "\x1b]0;title\x07", "\x1bP1$r\x1b\\", "\x9b31m", "\x9d0;title\x9c", "\x90q", "a\rb", "a\bb", "\x7f",
             "\x00", "\u202eabc\u202c", "\u2066abc\u2069", "\u200f", "\ufeff", "\u2028", "\U000e0041"]
HIDDEN = ("Cc", "Cf", "Zl", "Zp")  # categories that a terminal acts on, or that change how a line looks


def assert_harmless(text):
    bad = [character for character in text if unicodedata.category(character) in HIDDEN and character != "\n"]
    assert not bad, f"{bad!r} in {text!r}"


def test_arguments_and_file_names_are_escaped_in_complaints():
    text = "/nowhere/\x1b[2J\u202e"
    for program, status in ((CRIER, 2), (CRIER_RING, 1)):
        done = run_crier(text, program=program, env=plain_environment(LC_ALL="C.UTF-8"))
        assert done.returncode == status, done
        assert_harmless(done.stderr)
        assert "/nowhere/\\x1b[2J\\xe2\\x80\\xae" in done.stderr, done


@pytest.mark.parametrize("program", PROGRAMS, ids=os.path.basename)
@pytest.mark.parametrize("argument, shown", [
    ("--\x1b[2J\u202e", "--\\x1b[2J\\xe2\\x80\\xae is not an option; --help lists them"), ("-\x1b", "-\\x1b is not an option; --help lists them"),
    (b"-\xff", "-\\xff is not an option; --help lists them"), ("--help=\x9b31m", "--help takes no argument"),
    ("--version=", "--version takes no argument")])
def test_an_option_that_is_not_there_is_refused_in_one_escaped_line(program, argument, shown):
    done = run_crier(argument, program=program, env=plain_environment(LC_ALL="C.UTF-8"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{os.path.basename(program)}: {shown}\n"), done


@pytest.mark.parametrize("program, option, name", [(CRIER_RING, "--last", "last"), (CRIER_RING, "-n", "last"), (CRIER_RING, "--sa", "save"),
                                                   (CRIER_BENCH, "--rate", "rate"), (CRIER_BENCH, "-c", "clients")])
def test_an_option_without_its_argument_is_refused_in_one_line(program, option, name):
    done = run_crier(option, program=program)
    assert (done.returncode, done.stderr) == (2, f"{os.path.basename(program)}: --{name} wants an argument\n"), done


def hostile_server(listener, answer, frames):
    """Answers each handshake; without an answer it agrees, and answers the client's first message with the frames."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(ConnectionResetError):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                more = client.recv(65536)
                if not more:
                    break
                request += more
            else:
                key = re.search(rb"\r\nSec-WebSocket-Key: *(\S+)", request)[1]
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                client.sendall(answer or b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
                while client.recv(65536):
                    client.sendall(frames)
                    frames = b""


HOSTILE = "\x1b[2J\x1b]0;t\x07\x9b31m\u202e"
SHOWN = "\\x1b[2J\\x1b]0;t\\x07\\xc2\\x9b31m\\xe2\\x80\\xae"
REASON = b"\x03\xf3" + HOSTILE.encode()


@pytest.mark.parametrize("answer, frames, line", [
    (None, bytes([0x88, len(REASON)]) + REASON, f"the server closed it with 1011 {SHOWN}"),
    (f"HTTP/1.1 500 {HOSTILE}\r\nContent-Length: 0\r\n\r\n".encode(), b"", f"the server answered 'HTTP/1.1 500 {SHOWN}'"),
    (b"HTTP/1.1 500 " + b"x" * 147 + b"\r\nContent-Length: 0\r\n\r\n", b"", f"the server answered 'HTTP/1.1 500 {'x' * 67}'")],
    ids=["close", "status", "long"])
def test_what_a_server_says_is_escaped_by_crier_bench(answer, frames, line):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job = Job(hostile_server, listener, answer, frames)
        done = run_crier("--clients", "1", "--duration", "0.1", "ws://127.0.0.1:%d/" % listener.getsockname()[1], program=CRIER_BENCH,
                         env=plain_environment(LC_ALL="C.UTF-8"))
        listener.shutdown(socket.SHUT_RDWR)
        job.join()
    shown = done.stdout + done.stderr
    assert done.returncode != 0 and line in (done.stderr if answer else done.stdout), done
    assert_harmless(shown)


def test_the_name_of_an_image_is_escaped(crier, tmp_path):
    server = crier("--no-welcome", workers=1)
    name = str(tmp_path / "a\x1b[2Jb\u202e")
    for arguments, said in ((["--save", name, str(server.pid)], "saved to "), ([name], "image ")):
        done = run_crier(*arguments, program=CRIER_RING, env=plain_environment(LC_ALL="C.UTF-8"))
        assert done.returncode == 0 and done.stdout.startswith(said), done
        assert_harmless(done.stdout)
        assert "a\\x1b[2Jb\\xe2\\x80\\xae" in done.stdout


def ring(server, last, locale):
    done = run_crier("-n", str(last), str(server.pid), program=CRIER_RING, env=plain_environment(LC_ALL=locale))
    assert done.returncode == 0, done
    return done.stdout


def test_the_last_words_of_a_worker_are_escaped_by_crier_ring(crier, tmp_path):
    """They are in memory that the worker writes: here an image of it is changed."""
    server = crier("--no-welcome", workers=1, dies=True)
    os.kill(server.workers()[0], signal.SIGSEGV)
    server.wait_log("sent by process")
    image = tmp_path / "image"
    assert run_crier("--save", str(image), str(server.pid), program=CRIER_RING).returncode == 0
    said, hostile = b"sent by process", "\x1b[2J\x9b1m\u202eab\n!".encode()
    assert len(said) == len(hostile)
    image.write_bytes(image.read_bytes().replace(said, hostile))
    done = run_crier(str(image), program=CRIER_RING, env=plain_environment(LC_ALL="C.UTF-8"))
    assert "last words of life 1: \\x1b[2J\\xc2\\x9b1m\\xe2\\x80\\xaeab\\x0a! " in done.stdout, done
    assert_harmless(done.stdout)


def test_payloads_are_escaped_by_crier_ring(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    client = server.connect()
    payloads = [text.encode() for text in (*SEQUENCES, "za\u017c\u00f3\u0142\u0107 \u4f60\u597d")]
    for payload in payloads:
        client.text(payload)
        client.recv_message()
    client.send_frame(BINARY, b"\x9b31m\xff")
    client.recv_message()
    shown = ring(server, len(payloads) + 1, "C.UTF-8")
    assert_harmless(shown)
    for text in ('"\\x1b[2J"', '"\\xc2\\x9b31m"', '"\\xe2\\x80\\xaeabc\\xe2\\x80\\xac"', '"za\u017c\u00f3\u0142\u0107 \u4f60\u597d"',
                 '"\\x9b31m\\xff"'):
        assert text in shown
    assert ring(server, len(payloads) + 1, "C").isascii()


def test_every_character_that_unicode_calls_control_or_format_is_escaped(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    client = server.connect()
    hidden = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in HIDDEN]
    lines = ["".join(hidden[at:at + 16]) for at in range(0, len(hidden), 16)]
    for text in lines:
        client.text(text)
        client.recv_message()
    shown = ring(server, len(lines), "C.UTF-8")
    assert_harmless(shown)
    for text in lines:
        assert "".join(f"\\x{byte:02x}" for byte in text.encode()) in shown
