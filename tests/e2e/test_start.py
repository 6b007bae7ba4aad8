"""From the first instruction to the first client: which worker serves it and when, and what happens to a start that fails."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from harness import CRIER, PROBE, at_once, descriptors, is_alive, plain_environment, process_state, run_crier, wait_until

SLOW = r"worker %d \(pid (\d+)\) was not ready within --start-timeout \(%s s\) and was killed; 0 clients lost; "
FAILED = r"worker %d \(pid \d+\) exited with status 1; 0 clients lost; starting another in %d ms"


class Gate:
    """A named pipe before which start handlers of the probe wait: of all workers, or of the one with this number."""

    def __init__(self, path, worker=None):
        self.path = f"{path}.{worker}" if worker else str(path)
        os.mkfifo(self.path)
        self.descriptor = None

    def wait_reached(self):
        """Until a worker waits; it goes on waiting until open()."""
        held, self.descriptor = self.descriptor, wait_until(self.try_to_hold, f"a start handler at {self.path}")
        if held is not None:
            os.close(held)

    def try_to_hold(self):
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
            return None

    def remove(self):
        """Later workers do not wait."""
        os.unlink(self.path)

    def open(self):
        os.close(self.descriptor)
        self.descriptor = None


@pytest.fixture
def gated(probe, tmp_path):
    """Starts the probe with its start handlers behind gates: gated("--no-welcome", workers=2, shut=[2]).

    shut: numbers of workers that wait from the beginning; None: all
    """
    path = tmp_path / "gate"

    def start(*flags, shut=(), **how):
        gates = [Gate(path, number) for number in shut] if shut is not None else [Gate(path)]
        how.setdefault("ready", shut == ())
        server = probe("--start-behind", str(path), *flags, **how)
        for gate in gates:
            gate.wait_reached()
        server.gate, server.gate_path = gates[0] if gates else None, path
        return server
    return start


@pytest.fixture
def listener():
    """A listening socket for `--listen fd:N`: its port is known before the server says it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as made:
        yield made


@pytest.fixture
def shut_server(gated, listener):
    """Starts a server none of whose workers is ready."""
    def start(*flags, **how):
        number = listener.fileno()
        server = gated(*flags, shut=None, listen=f"fd:{number}", url=False, pass_fds=[number], **how)
        server.address = listener.getsockname()
        return server
    return start


def request_from(server, count):
    clients = [server.socket() for _ in range(count)]
    for client in clients:
        client.send_raw(client.request())
    return clients


def assert_served(clients):
    for client in clients:
        client.expect_open()
        client.text("hello")
        client.expect_texts(["hello"])


def stop_before_ready(server, number):
    """Opens the gate; worker `number` is stopped when it looks for connections in its channel: it has a cursor by then."""
    pid = server.members()[number].pid
    trace = f"{server.gate_path}.trace"
    stopper = subprocess.Popen(["strace", "-e", "trace=recvmsg", "-e", "inject=recvmsg:signal=STOP:when=1", "-o", trace,
                                "-p", str(pid)], stderr=subprocess.DEVNULL)
    wait_until(lambda: "TracerPid:\t0" not in open(f"/proc/{pid}/status").read(), "strace at the worker")
    server.gate.open()
    wait_until(lambda: "stopped by SIGSTOP" in open(trace).read(), "the worker to stop")
    stopper.terminate()  # the leak sanitizer does not work beside a tracer
    stopper.wait()
    wait_until(lambda: process_state(pid) == "T", "the worker to stay stopped")
    assert server.members()[number].state == "starting"
    assert server.ring().members[pid].cursor != "-"
    return pid


def kill_workers(server):
    """None of them is at a gate any more."""
    pids = [worker.pid for worker in server.members()[1:]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), "the workers to end")


def logged(server, pattern):
    return [line for line in server.log if re.search(pattern, line)]


def wait_logged(server, pattern, count):
    wait_until(lambda: len(logged(server, pattern)) >= count, lambda: f"{count} times {pattern!r}: {server.log}")


# ---- which worker serves which client ----

@pytest.mark.parametrize("late", [1, 2, 4])
def test_newcomers_go_to_workers_that_are_ready_while_one_is_in_its_start_handler(gated, late):
    server = gated(workers=4, shut=[late])
    wait_until(lambda: server.worker_states().count("ready") == 3, "three workers to be ready")
    assert server.worker_states()[late - 1] == "starting"
    assert_served(request_from(server, 12))
    assert server.worker_states()[late - 1] == "starting"
    server.gate.open()
    server.wait_ready()
    assert_served(request_from(server, 4))


def test_newcomers_go_to_workers_that_are_ready_while_a_successor_is_in_its_start_handler(gated):
    server = gated(workers=2)
    gate = Gate(server.gate_path)
    victim, survivor = server.workers()
    os.kill(victim, signal.SIGKILL)
    gate.wait_reached()
    clients = request_from(server, 12)
    assert_served(clients)
    assert {server.worker_of(client) for client in clients} == {survivor}
    gate.open()
    server.wait_ready()


def test_without_a_ready_worker_connections_and_input_wait_and_nothing_is_announced(shut_server):
    server = shut_server("--verbose", workers=2)
    clients = request_from(server, 5)
    server.write(b"first\nsecond\n")
    server.wait_ticks(3, server.pid)
    assert server.waiting_connections() == 5, "not in the listen queue"
    assert server.unread_input() == len(b"first\nsecond\n"), "the input is read"
    assert server.worker_states() == ["starting"] * 2
    assert not server.log, server.log
    server.gate.open()
    for client in clients:
        client.expect_open()
    server.wait_log("broadcast #2")
    said = [line.partition("master: ")[2].split()[0] for line in server.log if "master: " in line]
    assert said[:2] == ["crier", "listening"], server.log
    assert server.unread_input() == 0


def test_a_server_without_a_ready_worker_does_not_turn_its_loop_for_connections_that_wait(shut_server):
    """The timer of a master that waits for workers comes every 100 ms: no more turns than that."""
    server = shut_server(workers=1)
    request_from(server, 5)
    server.wait_ticks(1, server.pid)
    before = switches(server.pid)
    server.wait_ticks(5, server.pid)
    assert switches(server.pid) - before < 60, "the master wakes up all the time"
    server.gate.open()
    assert_served(server.clients)


def switches(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read(), re.M).group(1))


def test_the_server_listens_and_reads_its_input_as_soon_as_one_worker_is_ready(gated):
    server = gated("--verbose", workers=2, shut=[2])
    server.wait_log("listening on")
    assert server.worker_states() == ["ready", "starting"]
    client, = request_from(server, 1)
    assert_served([client])
    server.line("to the only one")
    client.expect_texts(["to the only one"])
    server.gate.open()


def test_the_input_is_read_while_the_only_worker_is_replaced(gated):
    """What is published then is not for clients that connect later, and no client is connected."""
    server = gated(workers=1)
    gate = Gate(server.gate_path)
    os.kill(server.workers()[0], signal.SIGKILL)
    gate.wait_reached()
    server.line("to nobody")
    wait_until(lambda: server.unread_input() == 0, "the input to be read")
    clients = request_from(server, 2)
    gate.open()
    for client in clients:
        client.expect_open()
    server.line("to all")
    for client in clients:
        client.expect_texts(["to all"])


def test_connections_that_a_dead_worker_has_not_taken_are_served_by_one_that_is_ready(gated):
    server = gated("--handshake-timeout", "60", "--stuck-timeout", "60", workers=2)
    frozen, running = server.workers()
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: process_state(frozen) == "T", "the worker to stop")
    clients = []

    def is_one_in_its_channel():
        clients.extend(request_from(server, 2))
        wait_until(lambda: server.waiting_connections() == 0, "the master to accept")
        server.wait_ticks(2, running)
        return server.counters()["clients_accepted"] < len(clients)

    assert any(is_one_in_its_channel() for _ in range(3)), "no connection was passed to the frozen worker"
    gate = Gate(server.gate_path)
    os.kill(frozen, signal.SIGKILL)
    gate.wait_reached()
    assert_served(clients)
    assert {server.worker_of(client) for client in clients} == {running}
    gate.open()
    server.wait_ready()
    assert server.counters()["clients_refused"] == 0


# ---- starts that take too long, or fail ----

def test_a_worker_that_is_not_ready_in_time_is_killed_and_started_again_after_a_growing_pause(gated):
    server = gated("--start-timeout", "1", workers=2, shut=[2])
    client, = request_from(server, 1)
    assert_served([client])
    server.wait_log(SLOW % (2, 1) + "starting another in 50 ms")
    server.gate.wait_reached()
    server.wait_log(SLOW % (2, 1) + "starting another in 100 ms")
    server.gate.remove()
    server.gate.open()
    server.wait_ready()
    client.text("still here")
    client.expect_texts(["still here"])


def test_a_successor_that_is_frozen_in_its_start_is_killed_and_its_place_is_filled(gated):
    server = gated("--start-timeout", "1", workers=1)
    gate = Gate(server.gate_path)
    os.kill(server.workers()[0], signal.SIGKILL)
    gate.wait_reached()
    frozen, = server.workers()
    os.kill(frozen, signal.SIGSTOP)
    gate.remove()
    gate.open()
    clients = request_from(server, 2)
    assert re.search(SLOW % (1, 1), server.wait_log(SLOW % (1, 1))).group(1) == str(frozen)
    assert_served(clients)


def test_a_worker_that_is_stopped_when_it_is_almost_ready_is_killed_as_stuck(gated):
    """It holds the ring: --stuck-timeout counts, whatever --start-timeout says."""
    server = gated("--start-timeout", "0", "--stuck-timeout", "1", "--max-message", "1k", "--ring", "64k", "--slow-grace",
                   "60", workers=2, shut=[2])
    clients = request_from(server, 3)
    assert_served(clients)
    stopped = stop_before_ready(server, 2)
    server.gate.remove()
    lines = [f"{number:0100d}" for number in range(3000)]  # more than the ring holds
    server.feed("".join(f"{line}\n" for line in lines).encode())
    server.wait_log(rf"worker 2 \(pid {stopped}\) was stalled for --stuck-timeout \(1 s\) and was killed; 0 clients lost")
    at_once([lambda client=client: client.expect_texts(lines) for client in clients])
    server.wait_ready()


def test_a_start_timeout_of_zero_is_none(gated):
    server = gated("--start-timeout", "0", workers=2, shut=[2])
    starting = server.members()[2].pid
    server.wait_ticks(12, server.pid)  # of 100 ms, while a worker is awaited: more than the least that is accepted
    assert server.members()[2][:2] == (starting, "starting")
    server.gate.open()
    server.wait_ready()
    assert server.members()[2].pid == starting


def test_a_master_that_was_stopped_kills_no_worker_that_starts(gated):
    server = gated("--start-timeout", "2", workers=2)
    victim = server.members()[1].pid
    gate = Gate(server.gate_path)
    os.kill(victim, signal.SIGKILL)
    gate.wait_reached()
    server.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: process_state(server.pid) == "T", "the master to stop")
        starting = server.members()[1].pid
        assert is_alive(starting)
        server.wait_ticks(25, server.members()[2].pid)  # of 100 ms, by the timer of the other worker
    finally:
        server.send_signal(signal.SIGCONT)
    server.wait_ticks(3, server.pid)
    gate.open()
    server.wait_ready()
    assert server.members()[1].pid == starting
    assert not logged(server, "start-timeout")


def test_a_worker_that_can_never_start_does_not_end_a_server_with_another_that_serves(gated):
    server = gated("--fail-worker", "2", workers=2, ready=False)
    client, = request_from(server, 1)
    assert_served([client])
    for pause in (50, 100, 200, 400, 800):
        server.wait_log(FAILED % (2, pause))
    wait_logged(server, FAILED % (2, 1000), 2)
    client.text("still served")
    client.expect_texts(["still served"])
    # Those failures do not count when the other one is gone, and its successor fails for the first time.
    gate = Gate(server.gate_path, 1)
    os.kill(server.members()[1].pid, signal.SIGKILL)
    gate.wait_reached()
    gate.remove()
    os.kill(server.members()[1].pid, signal.SIGKILL)
    assert_served(request_from(server, 2))


def test_failures_before_and_after_a_worker_was_ready_are_not_in_a_row(gated):
    server = gated(workers=2)
    for _ in range(2):  # four failures, of both workers, with ready ones between
        gates = [Gate(server.gate_path, number) for number in (1, 2)]
        for _ in range(2):
            kill_workers(server)
            for gate in gates:
                gate.wait_reached()
        for gate in gates:
            gate.remove()
        kill_workers(server)
        server.wait_ready()
        for gate in gates:
            gate.open()
    assert_served(request_from(server, 2))


def test_a_worker_that_takes_its_time_is_waited_for_while_another_fails(shut_server):
    server = shut_server("--fail-worker", "2", workers=2)
    wait_logged(server, FAILED % (2, 1000), 2)  # its seventh failure
    server.gate.open()
    assert_served(request_from(server, 2))


def test_the_server_gives_up_when_no_worker_is_ready_in_time(shut_server):
    server = shut_server("--start-timeout", "1", workers=2, expected=4)
    assert server.wait_exit() == 4
    deaths = [line for line in server.log if re.search(SLOW % (1, 1), line) or re.search(SLOW % (2, 1), line)]
    assert "giving up" in deaths[4] and not any("giving up" in line for line in deaths[:4]), server.log
    assert not logged(server, "listening")


def test_the_server_gives_up_when_its_last_worker_is_gone_and_none_can_start(gated):
    server = gated("--fail-worker", "2", workers=2, ready=False, expected=4)
    gate = Gate(server.gate_path, 1)
    os.kill(server.members()[1].pid, signal.SIGKILL)
    gate.wait_reached()
    failures = len(logged(server, "start handler"))
    wait_logged(server, "start handler", failures + 6)  # the other worker starts: it is waited for
    os.kill(server.members()[1].pid, signal.SIGKILL)
    assert server.wait_exit() == 4


@pytest.mark.parametrize("flag", ["--start-timeout", "--stuck-timeout"])
@pytest.mark.parametrize("value", ["0.9", "0.001"])
def test_a_timeout_that_is_too_short_for_a_busy_worker_is_refused(flag, value):
    done = run_crier("--listen", "127.0.0.1:0", flag, value)
    assert done.returncode == 2, done
    assert done.stderr == f"crier: {flag} wants at least 1 second, or 0 to turn it off\n"


# ---- the end of a server that starts ----

ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_ends_a_server_none_of_whose_workers_is_ready(shut_server, number):
    server = shut_server("--drain", "0", workers=3)
    request_from(server, 2)
    server.send_signal(number)
    assert server.wait_exit() == 0
    wait_until(lambda: not server.left_behind(), "all processes to end")
    assert not logged(server, "listening")


@pytest.mark.parametrize("number", ENDS)
def test_a_worker_that_starts_does_not_keep_a_server_with_clients_from_stopping(gated, number):
    server = gated("--drain", "0", workers=2, shut=[2])
    clients = request_from(server, 3)
    assert_served(clients)
    server.line("the last line")
    for client in clients:
        client.expect_texts(["the last line"])
    server.send_signal(number)
    for client in clients:
        client.expect_close(1001)
    assert server.wait_exit() == 0
    assert not logged(server, "within --drain|lost"), server.log


def test_a_worker_that_is_almost_ready_when_the_server_stops_ends_in_order(gated):
    server = gated("--verbose", "--drain", "0", "--stuck-timeout", "0", workers=2, shut=[2])
    clients = request_from(server, 3)
    assert_served(clients)
    stopped = stop_before_ready(server, 2)
    server.send_signal(signal.SIGTERM)
    server.wait_log("SIGTERM: stopping when")
    server.wait_ticks(2, server.pid)
    assert is_alive(stopped)
    os.kill(stopped, signal.SIGCONT)
    for client in clients:
        client.expect_close(1001)
    assert server.wait_exit() == 0
    assert not logged(server, r"still starting|worker 2 \(pid"), server.log


def test_a_frozen_worker_that_starts_does_not_keep_the_server_from_stopping(gated):
    server = gated("--drain", "0", workers=2, shut=[2])
    os.kill(server.members()[2].pid, signal.SIGSTOP)
    server.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_input_that_ends_before_a_worker_is_ready_is_published_and_ends_the_server(shut_server):
    server = shut_server("--exit-on-eof", "--drain", "0", workers=2)
    server.write(b"one\ntwo\nthree")
    server.end_input()
    server.wait_ticks(3, server.pid)
    assert server.process.poll() is None and not server.log
    server.gate.open()
    assert server.wait_exit() == 0
    server.wait_log("broadcasts published: 3,")


def test_input_that_ends_while_its_readers_wait_for_a_worker_reaches_them(shut_server):
    server = shut_server("--exit-on-eof", "--wait-clients", "2", workers=2)
    clients = request_from(server, 2)
    server.write(b"one\ntwo\n")
    server.end_input()
    server.gate.open()
    for client in clients:
        client.expect_open()
        client.expect_texts(["one", "two"])
        client.expect_close(1000)
    assert server.wait_exit() == 0


def test_a_worker_that_is_killed_in_its_start_is_replaced(gated):
    server = gated(workers=2, shut=[2])
    victim = server.members()[2].pid
    os.kill(victim, signal.SIGKILL)
    server.wait_log(rf"worker 2 \(pid {victim}\) was killed by signal 9 \(Killed\); 0 clients lost; starting another in 50 ms")
    server.gate.remove()
    server.gate.open()
    server.wait_ready()


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_workers_in_their_start_handlers_do_not_outlive_the_master(shut_server, frozen):
    server = shut_server(workers=2, expected=-signal.SIGKILL)
    for pid in server.workers():
        wait_until(lambda pid=pid: server.gate.path in descriptors(pid).values(), f"process {pid} to be in its start handler")
    for pid in server.workers() if frozen else ():
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: process_state(pid) == "T", f"process {pid} to stop")
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: not server.left_behind(), lambda: f"processes left behind: {server.left_behind()}")


def test_a_worker_whose_start_handler_returns_after_the_masters_death_leaves(shut_server):
    server = shut_server(workers=2, expected=-signal.SIGKILL)
    server.send_signal(signal.SIGKILL)
    server.process.wait()
    server.gate.open()
    wait_until(lambda: not server.left_behind(), lambda: f"processes left behind: {server.left_behind()}")


# ---- what is logged ----

def assert_roles(lines, role):
    assert lines and all(re.match(rf"\S+Z \w+\[\d+\] {role}: ", line) for line in lines), lines


def test_a_worker_names_its_role_in_the_first_thing_that_can_fail():
    """Descriptor 3 is no segment: nothing of the server is known."""
    done = run_crier(env=plain_environment(_CRIER_MEMBER="3"), program=PROBE)
    assert done.returncode == 1, done
    assert_roles(done.stderr.splitlines(), "worker 3")


@pytest.mark.parametrize("place", ["", "0", "256", "1x", "x", "99999999999999999999"])
def test_a_variable_that_names_no_member_is_a_usage_error(place):
    done = run_crier(env=plain_environment(_CRIER_MEMBER=place), program=PROBE)
    assert done.returncode == 2, done
    assert done.stderr == "probe_app: _CRIER_MEMBER is set for workers by the server itself: unset it\n"


def test_the_last_member_that_there_may_be_is_one():
    done = run_crier(env=plain_environment(_CRIER_MEMBER="255"), program=PROBE)
    assert done.returncode == 1, done
    assert_roles(done.stderr.splitlines(), "worker 255")


def test_every_line_of_a_server_whose_workers_cannot_start_names_its_role():
    # What looks for leaks complains, in lines of its own, when its process is killed meanwhile.
    done = run_crier("--listen", "127.0.0.1:0", "--fail-start", "worker", "--workers", "2", program=PROBE,
                     env=plain_environment(ASAN_OPTIONS="detect_leaks=0"))
    assert done.returncode == 4, done
    lines = done.stderr.splitlines()
    assert_roles([line for line in lines if "start handler" in line], r"worker [12]")
    assert_roles([line for line in lines if "start handler" not in line], "master")


def test_a_child_that_cannot_become_a_worker_names_its_role(crier, tmp_path):
    """The program may not be executed any more, which even root needs a permission for."""
    program = shutil.copy(CRIER, str(tmp_path / "crier"))
    server = crier("--no-welcome", workers=2, program=program)
    os.chmod(program, 0o600)
    os.kill(server.members()[1].pid, signal.SIGKILL)
    line = server.wait_log("cannot start a worker: ")
    os.chmod(program, 0o700)
    assert_roles([line], "worker 1")
    server.wait_ready()
