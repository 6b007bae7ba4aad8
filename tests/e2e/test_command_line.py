"""Flags, what is printed where, and exit statuses."""

import fcntl
import os
import re
import resource
import select
import socket
import subprocess

import pytest

from harness import BUILD, CRIER, CRIER_RING, PROBE, RawClient, plain_environment, run_crier, wait_until

FLAGS = ["--listen", "--workers", "--welcome", "--no-welcome", "--goodbye", "--on-message", "--stdin", "--exit-on-eof",
         "--ring", "--pool", "--slow", "--max-lag", "--slow-grace", "--client-buffer", "--wait-clients", "--max-message",
         "--handshake-timeout", "--ping", "--ping-timeout", "--stuck-timeout", "--origin", "--subprotocol", "--drain",
         "--help", "--version"]


def test_help_lists_every_flag_on_stdout():
    done = run_crier("--help")
    assert done.returncode == 0 and done.stderr == ""
    words = done.stdout.replace(",", " ").replace("[", " ").replace("=", " ").split()
    assert [flag for flag in FLAGS if flag not in words] == []
    assert [flag for flag in ("-l", "-w", "-E", "-v", "-q") if flag not in words] == []


def test_help_names_defaults_and_choices():
    text = run_crier("--help").stdout
    for word in ("127.0.0.1:8080", "Welcome, %a!", "echo|broadcast|both|drop", "auto|on|off", "same|any|LIST",
                 "(default: 10)"):
        assert word in text, f"--help does not say {word}"


def test_version_is_one_line_on_stdout():
    done = run_crier("--version")
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert any(word[0].isdigit() for word in done.stdout.split()), done.stdout


def test_the_ring_grows_with_the_longest_message_by_default(crier):
    server = crier("--no-welcome", "--max-message", "8M", "--on-message", "broadcast")
    client = server.connect()
    client.binary(bytes(8 << 20))
    assert client.recv_message() == (2, bytes(8 << 20))


def test_the_ring_may_be_exactly_four_times_the_longest_message(crier):
    server = crier("--no-welcome", "--max-message", "64k", "--ring", "256k", "--pool", "256k",
                   "--on-message", "broadcast")
    client = server.connect()
    for _ in range(20):
        client.binary(bytes(65536))
        assert client.recv_message() == (2, bytes(65536))


SMALL_FILES = 1 << 20


def limit_files():
    """The server is refused for what it needs behind its command line, which it has accepted, with status 1."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))


@pytest.mark.parametrize("flag, largest, larger", [
    ("--workers", "255", "256"),
    ("--max-message", "255M", str((255 << 20) + 1)),
    ("--ring", "1G", str((1 << 30) + 1)),
    ("--stuck-timeout", "1", "0.999"),
    ("--start-timeout", "1", "0.999"),
    ("--subprotocol", "x" * 255 + ",!#$%&'*+-.^_`|~", "x" * 256),
    ("--origin", "https://example.org:65535", "https://example.org:655350"),
    ("--origin", "http://[::1]:1,http://a", "http://[::1]:,http://a"),
])
def test_a_value_is_accepted_up_to_the_last_that_is_good(flag, largest, larger):
    done = run_crier("--listen", "127.0.0.1:0", "--workers", "1", flag, largest, preexec_fn=limit_files)
    assert done.returncode == 1 and "ulimit" in done.stderr, done
    done = run_crier("--listen", "127.0.0.1:0", "--workers", "1", flag, larger, preexec_fn=limit_files)
    assert done.returncode == 2 and flag in done.stderr, done


def test_a_ring_that_a_variable_asks_for_does_not_grow():
    done = run_crier("--listen", "127.0.0.1:0", env=plain_environment(CRIER_RING="1M"))
    assert done.returncode == 2 and "CRIER_RING wants at least 4 x --max-message" in done.stderr, done


@pytest.mark.parametrize("flags, sockets", [([], "3 listening sockets"), (["--listen", "127.0.0.1:0"], "1 listening socket"),
                                            (["--listen", "127.0.0.1:0"] * 2, "2 listening sockets")])
def test_a_list_on_the_command_line_replaces_that_of_the_variable(flags, sockets):
    def limit_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    done = run_crier("--workers", "1", *flags, preexec_fn=limit_descriptors,
                     env=plain_environment(CRIER_LISTEN="127.0.0.1:0, 127.0.0.1:0\t127.0.0.1:0"))
    assert done.returncode == 1 and f"1 worker and {sockets} need " in done.stderr, done


def test_a_welcome_may_be_as_long_as_a_quarter_of_the_ring(crier):
    server = crier("--ring", "4k", "--max-message", "512", "--welcome", "%a" + "x" * 925)  # and 36 of heads
    client = server.connect()
    client.expect_texts([client.name + "x" * 925])


def test_the_start_names_version_pid_workers_and_url_on_stderr(crier):
    server = crier(workers=3)
    version = run_crier("--version").stdout.split()[-1]
    for word in (version, str(server.pid), "3", "16", f"ws://127.0.0.1:{server.address[1]}/"):
        server.wait_log(rf"(?<!\w){re.escape(word)}")  # 16: MiB of ring
    server.connect().expect_texts([f"Welcome, {server.clients[0].name}!"])


def test_it_is_quiet_about_clients_when_stderr_is_no_terminal(crier):
    server = crier()
    client = server.connect()
    name = client.name
    client.text("echo")
    server.line("a line")
    client.expect_texts([f"Welcome, {name}!"])
    assert sorted([client.recv_text(), client.recv_text()]) == ["a line", "echo"]
    client.close(1000)
    client.expect_close(1000, answer=False)
    server.stop()
    assert not [line for line in server.log if name in line or "a line" in line], server.log


def test_verbose_tells_of_connects_broadcasts_and_disconnects(crier):
    server = crier("-v", "--no-welcome")
    start = len(server.log)
    client = server.connect()
    name = client.name
    server.wait_log(rf"{name}\b", start=start)
    middle = len(server.log)
    server.line("the console speaks")
    client.expect_texts(["the console speaks"])
    server.wait_log(r"broadcast #1 to 1 client: 18 bytes", start=middle)
    end = len(server.log)
    client.close(1000)
    client.expect_close(1000, answer=False)
    assert "1000" in server.wait_log(rf"{name}\b", start=end)


def test_quiet_says_nothing_while_all_is_well(crier):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = crier("-q", listen=f"fd:{listener.fileno()}", url=False, pass_fds=[listener.fileno()])
        client = server.connect(address=listener.getsockname())
    client.expect_texts([f"Welcome, {client.name}!"])
    client.close(1000)
    client.expect_close(1000, answer=False)
    assert server.stop() == 0
    assert [line for line in server.log if line != "(end of stderr)"] == []


def test_nobody_reads_stderr_and_it_serves_all_the_same():
    """A closed pipe on stderr (`crier 2>&1 | head -1`) does not end the server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        process = subprocess.Popen([CRIER, "-v", "--no-welcome", "--listen", f"fd:{listener.fileno()}"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   pass_fds=[listener.fileno()], env=plain_environment())
        process.stderr.close()
        try:
            for _ in range(3):
                with RawClient(listener.getsockname()) as client:
                    client.handshake()
                    client.text("hello")
                    client.expect_texts(["hello"])
        finally:
            process.terminate()
            status = process.wait(20)
    assert status == 0


def test_a_full_pipe_on_stderr_stops_nobody_and_the_lines_that_were_dropped_are_counted():
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 16384)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        process = subprocess.Popen([CRIER, "-v", "--no-welcome", "--workers", "2", "--listen",
                                    f"fd:{listener.fileno()}"], stdin=subprocess.DEVNULL, stderr=theirs,
                                   pass_fds=[listener.fileno()], env=plain_environment())
        address = listener.getsockname()
    os.close(theirs)
    try:
        with RawClient(address) as stays:
            stays.handshake()
            # A line for each connect, and one for each disconnect: several times what fits.
            for _ in range(400):
                connect_echo_and_close(address)
            stays.text("still here")
            stays.expect_texts(["still here"])
            text = []

            def told_and_dropped():
                text.append(read_some(ours))
                told = re.findall(r" worker \d: .* (?:connected|disconnected with)", "".join(text))
                dropped = re.findall(r"^(?:\S+ )?crier: (\d+) lines of log were dropped$", "".join(text), re.M)
                return len(told), sum(map(int, dropped))

            # Now that there is room again, what waits comes out, and each process says how many lines it has dropped.
            wait_until(lambda: sum(told_and_dropped()) >= 2 * 400 + 1, told_and_dropped)
            assert sum(told_and_dropped()) == 2 * 400 + 1 and told_and_dropped()[1] > 0, text
            for _ in range(20):
                connect_echo_and_close(address)
            wait_until(lambda: sum(told_and_dropped()) == 2 * 420 + 1, told_and_dropped)
        process.terminate()
        status = process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert status == 0


def connect_echo_and_close(address):
    with RawClient(address) as client:
        client.handshake()
        client.text("hello")
        client.expect_texts(["hello"])
        client.close(1000)
        client.expect_close(1000, answer=False)


def read_some(descriptor):
    """What is in the pipe now, without waiting for more."""
    text = b""
    while select.select([descriptor], [], [], 0)[0]:
        some = os.read(descriptor, 65536)
        if not some:
            break
        text += some
    return text.decode()


# ---- the name by which a program was called ----

PROGRAMS = [CRIER, CRIER_RING, os.path.join(BUILD, "crier-bench"), PROBE]


@pytest.mark.parametrize("program", PROGRAMS, ids=os.path.basename)
@pytest.mark.parametrize("called, named", [("shout", "shout"), ("a b\x1b[1m", "a_b__1m"), ("n" * 40, "n" * 31)])
def test_a_program_answers_by_the_name_that_it_was_called_by(tmp_path, program, called, named):
    path = str(tmp_path / called)
    os.symlink(os.path.abspath(program), path)
    listed = run_crier("--help", program=path)
    assert listed.returncode == 0 and listed.stdout.startswith(f"Usage: {named} "), listed
    version = run_crier("--version", program=path)
    assert version.returncode == 0 and version.stdout.startswith(f"{named} "), version
    refused = run_crier("stray", "stray", program=path)
    assert refused.returncode == 2 and refused.stderr.startswith(f"{named}: "), refused
    full = run_crier("--help", program=path, preexec_fn=lambda: os.close(1))
    assert full.returncode == 1 and full.stderr.startswith(f"{named}: "), full


def test_a_program_without_a_name_has_that_of_its_application():
    done = run_crier("--nonsense", program="", executable=PROBE)
    assert done.returncode == 2 and done.stderr.startswith("probe: "), done
