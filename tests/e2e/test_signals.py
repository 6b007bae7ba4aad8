"""Every signal of signal(7) but KILL and STOP, as shm/disposition.def lists them: inherited, sent to the master, sent to a worker."""

import os
import re
import resource
import signal
import subprocess
import sys

import pytest

import harness.background_job
from harness import (CRIER_RING, REALTIME, REPOSITORY, SANITIZED, Disconnected, all_signals, is_alive, masks, process_state,
                     run_crier, signals_that, table_items, wait_for_reader, wait_until)

MANUAL = os.path.join(REPOSITORY, "docs/crier.1.in")
BACKGROUND = [sys.executable, harness.background_job.__file__]
unsanitized = pytest.mark.skipif(SANITIZED, reason="the sanitizers handle these signals, and want to be loaded first")
long = pytest.mark.skipif(not os.environ.get("CRIER_LONG"), reason="CRIER_LONG=1 inherits each signal alone, too")


# ---- the table ----

HARMLESS = {"master": [*signals_that(0, "IGNORE"), signal.SIGCHLD, signal.SIGCONT],
            "worker": [*signals_that(1, "IGNORE", "REFUSE"), signal.SIGCHLD, signal.SIGCONT]}
DEADLY = {"master": [number for number in signals_that(0, "DEFAULT") if number not in HARMLESS["master"] + [signal.SIGTSTP]],
          "worker": [*signals_that(1, "REPORT"), signal.SIGXCPU]}
STOPPING = signals_that(0, "STOP")
name_of = "{0.name}".format


def test_the_table_has_each_signal_once():
    names = [name for rows, _ in table_items() for name, *_ in rows]
    assert len(names) == len(set(names))
    listed = {signal.Signals[f"SIG{name}"] for name in names if name != "realtime signals"}
    assert listed | set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) == set(all_signals())


def test_every_row_of_the_table_is_tested_below_in_both_processes():
    for process in ("master", "worker"):
        more = STOPPING if process == "master" else []
        tested = {*HARMLESS[process], *DEADLY[process], *more, signal.SIGTSTP}
        assert tested == set(all_signals()) - set(range(signal.SIGRTMIN + 1, signal.SIGRTMAX))


def plain_text(mdoc):
    """The words of lines of mdoc(7)."""
    words = []
    for line in mdoc:
        macro, *arguments = line.split() if line.startswith(".") else ("", *line.split())
        if macro == ".Fl":
            arguments[0] = "-" + arguments[0]
        elif macro == ".Xr":
            arguments[0:2] = [f"{arguments[0]}({arguments[1]})"]
        else:
            assert macro == "", line
        words += arguments
    return re.sub(r" ([.,:;])(?= |$)", r"\1", " ".join(words))


def test_the_manual_says_what_the_table_says():
    with open(MANUAL) as f:
        section = re.search(r"^\.Sh SIGNALS\n.*?^\.Bl [^\n]*\n(.*?)^\.El\n", f.read(), re.M | re.S)[1]
    items = [item.splitlines() for item in section.split(".It ")[1:]]
    manual = [(item[0].split(" , "), plain_text(item[1:])) for item in items]
    assert manual == [([name for name, *_ in rows], text) for rows, text in table_items()]


# How a text begins, and what is done in the master and in a worker.
PROMISES = [
    ("Ignored", "IGNORE", "IGNORE"),
    ("No effect", "DEFAULT", "DEFAULT"),
    ("The process is killed. The master logs the crash report of a worker", "DEFAULT", "REPORT"),
    ("The process is killed, as by SEGV, but a worker leaves no crash report", "DEFAULT", "DEFAULT"),
    ("The master reads no more input", "STOP", "REFUSE"),
    ("As TERM", "STOP", "REFUSE"),
    ("The master stops at once", "STOP", "REFUSE"),
    ("The process stops until it receives CONT", "DEFAULT", "DEFAULT"),
    ("A stopped process continues", "DEFAULT", "FOLLOW"),
]


def test_each_text_says_what_is_done():
    for rows, text in table_items():
        promise, = [tuple(does) for begin, *does in PROMISES if text.startswith(begin)]
        assert {row[1:] for row in rows} == {promise}, text


# ---- what a process has inherited ----

def inherits(blocked=(), ignored=()):
    """For Popen: a process that starts like this, and does not dump core."""
    def prepare():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return {"preexec_fn": prepare, "restore_signals": False}


def assert_echo(client):
    client.text("echo")
    client.expect_texts(["echo"])


def assert_serves(server, clients=None):
    """Every worker echoes, and the master's input reaches every client."""
    for client in clients or server.clients:
        assert_echo(client)
    server.line("to all")
    for client in clients or server.clients:
        client.expect_texts(["to all"])


def replace_worker(server):
    """Kills the only worker, and waits for a client of its successor."""
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    server.wait_log(rf"\(pid {before[0]}\) was killed by signal 9 \(Killed\).*; starting another")
    server.drop_clients()
    server.connect()
    assert server.workers() != before


def expand(numbers):
    """With all realtime signals if one is among them."""
    return {*numbers, *(range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if set(REALTIME) & set(numbers) else ())}


def assert_dispositions(server, hup_is_ignored, handled=()):
    handled = set(handled)
    stopping = set(STOPPING) - ({signal.SIGHUP} if hup_is_ignored else set())
    ignored = expand(signals_that(0, "IGNORE")) | set(STOPPING) - stopping
    assert masks(server.pid) == {"blocked": set(), "ignored": ignored - handled, "caught": stopping | handled}
    ignored, caught = expand(signals_that(1, "IGNORE", "REFUSE")), {*signals_that(1, "REPORT"), signal.SIGCONT}
    for pid in server.workers():
        assert masks(pid) == {"blocked": set(), "ignored": ignored - handled, "caught": caught | handled}


def start_serve_replace_and_stop(crier, blocked, ignored):
    server = crier("--no-welcome", workers=1, **inherits(blocked, ignored))
    server.connect()
    hup_is_ignored = signal.SIGHUP in ignored
    if not SANITIZED:
        assert_dispositions(server, hup_is_ignored)
    if hup_is_ignored:
        server.send_signal(signal.SIGHUP)
    assert_serves(server)
    replace_worker(server)
    assert_serves(server)
    server.send_signal(signal.SIGTERM)
    server.clients[0].expect_close(1001)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("ignored", [[], all_signals()], ids=["", "all ignored"])
@pytest.mark.parametrize("blocked", [[], all_signals()], ids=["", "all blocked"])
def test_whatever_was_inherited_it_serves_replaces_a_worker_and_stops(crier, blocked, ignored):
    start_serve_replace_and_stop(crier, blocked, ignored)


@long
@pytest.mark.parametrize("how", ["blocked", "ignored"])
@pytest.mark.parametrize("number", [*filter(lambda number: number not in range(35, 64), all_signals())], ids=str)
def test_a_signal_that_was_inherited_alone_changes_nothing(crier, number, how):
    start_serve_replace_and_stop(crier, [number] if how == "blocked" else [], [number] if how == "ignored" else [])


@pytest.mark.parametrize("number", STOPPING, ids=name_of)
def test_each_stop_signal_stops_a_server_that_inherited_it_blocked(crier, number):
    server = crier("--no-welcome", workers=1, **inherits(blocked=[number]))
    server.connect()
    server.send_signal(number)
    server.clients[0].expect_close(1001)
    assert server.wait_exit() == 0


def test_a_hup_that_was_ignored_at_start_stays_ignored_even_if_it_was_blocked_too(crier):
    server = crier("--no-welcome", workers=1, **inherits([signal.SIGHUP], [signal.SIGHUP]))
    server.connect()
    server.send_signal(signal.SIGHUP)
    assert_serves(server)


# ---- sent while serving ----

def test_signals_without_effect_change_nothing_in_the_master(crier):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    workers, log = server.workers(), list(server.log)
    for number in HARMLESS["master"]:
        server.send_signal(number)
        assert_serves(server)
    assert server.workers() == workers and server.log == log


def test_signals_without_effect_change_nothing_in_a_worker(crier):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    workers, log = server.workers(), list(server.log)
    for number in HARMLESS["worker"]:
        for pid in workers:
            os.kill(pid, number)
        assert_serves(server)
    assert server.workers() == workers and server.log == log


@pytest.mark.parametrize("number", STOPPING, ids=name_of)
def test_a_stop_signal_closes_clients_with_1001_and_exits_0(crier, number):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    server.send_signal(number)
    for client in server.clients:
        client.expect_close(1001)
    assert server.wait_exit() == 0


@unsanitized
@pytest.mark.parametrize("number", DEADLY["master"], ids=name_of)
def test_a_deadly_signal_kills_the_master_and_its_workers_close_with_1001(crier, number):
    server = crier("--no-welcome", workers=2, expected=-number, **inherits())
    server.connect_everywhere(2)
    server.send_signal(number)
    for client in server.clients:
        client.expect_close(1001)
    assert server.wait_exit() == -number
    wait_until(lambda: not server.left_behind(), lambda: f"processes left: {server.left_behind()}")


@unsanitized
def test_a_deadly_signal_kills_a_worker_which_is_reported_and_replaced(crier):
    server = crier("--no-welcome", workers=len(DEADLY["worker"]), **inherits())
    places = server.connect_everywhere(len(DEADLY["worker"]))
    for number, (pid, clients) in zip(DEADLY["worker"], places.items()):
        os.kill(pid, number)
        for client in clients:
            with pytest.raises(Disconnected):
                client.recv_text()
        line = server.wait_log(rf"\(pid {pid}\) was killed by signal {int(number)} ")
        assert f"; {len(clients)} client" in line and "; starting another" in line
        assert (f": sent by process {os.getpid()}, at " in line) == (number in signals_that(1, "REPORT")), line
    server.drop_clients()
    wait_until(lambda: len(server.client_counts()) == len(places), "all successors to be ready")
    assert not set(server.workers()) & set(places)
    server.connect_everywhere(len(places))
    assert_serves(server)


def states(pids):
    return {process_state(pid) for pid in pids}


def test_a_job_that_is_stopped_and_continued_keeps_its_clients(terminal, crier):
    server = crier("--no-welcome", workers=2, stdin=terminal[1], prefix=BACKGROUND)
    server.connect_everywhere(2)
    pids = server.processes()
    for _ in range(2):
        os.killpg(server.pid, signal.SIGTSTP)
        wait_until(lambda: states(pids) == {"T"}, lambda: f"all processes to stop: {states(pids)}")
        for client in server.clients:
            client.text("while it is stopped")
        os.killpg(server.pid, signal.SIGCONT)
        for client in server.clients:
            client.expect_texts(["while it is stopped"])
    assert server.processes() == pids
    assert [timers(pid) for pid in pids] == [""] * 3


@pytest.mark.parametrize("process", ["master", "worker"])
def test_one_process_that_is_stopped_and_continued_keeps_its_clients(terminal, crier, process):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1, stdin=terminal[1], prefix=BACKGROUND)
    client = server.connect()
    pids = server.processes()
    pid = pids[0] if process == "master" else pids[1]
    os.kill(pid, signal.SIGTSTP)
    wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")
    client.text("before")
    os.kill(pid, signal.SIGCONT)
    client.expect_texts(["before"])
    assert_echo(client)
    assert server.processes() == pids


# ---- the death of the master, and signals that only look like it ----

def timers(pid):
    """The POSIX timers of a process, as the kernel lists them."""
    with open(f"/proc/{pid}/timers") as f:
        return f.read()


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGURG], ids=name_of)
def test_a_worker_that_is_sent_a_signal_while_its_master_lives_sets_no_timer(crier, number):
    server = crier("--no-welcome", workers=2)
    server.connect_everywhere(2)
    for pid in server.workers():
        os.kill(pid, number)
    assert_serves(server)
    assert [timers(pid) for pid in server.workers()] == ["", ""]


def test_a_child_of_the_application_that_is_continued_sets_no_timer(probe):
    server = probe("--on-message", "obey", workers=1)
    client = server.connect()
    client.text("fork-wait")
    client.expect_texts(["fork-wait"])
    child, = harness.procs.children(server.workers()[0])
    try:
        wait_until(lambda: process_state(child) == "S", "the child to wait")
        interrupted = switches(child)
        os.kill(child, signal.SIGCONT)
        wait_until(lambda: switches(child) > interrupted and process_state(child) == "S", "the handler to have run")
        assert timers(child) == ""
    finally:
        os.kill(child, signal.SIGKILL)


def switches(pid):
    """How often the process has gone to sleep."""
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M)[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_are_all_stopped_go_when_the_master_dies(crier, workers):
    server = crier("--no-welcome", workers=workers, expected=-signal.SIGKILL)
    server.connect_everywhere(workers)
    pids = server.workers()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: states(pids) == {"T"}, "all workers to stop")
    server.send_signal(signal.SIGKILL)
    for client in server.clients:
        client.expect_close(1001)
    wait_until(lambda: not server.left_behind(), lambda: f"processes left: {server.left_behind()}")


def test_a_worker_in_its_start_handler_does_not_outlive_the_master(probe, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = probe("--start-behind", str(fifo), workers=2, url=False, expected=-signal.SIGKILL)
    pids = wait_until(lambda: len(server.workers()) == 2 and server.workers(), "the workers")
    wait_until(lambda: signal.SIGSEGV in masks(pids[1])["caught"], "the start handler to be next")
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), "the workers to end")


def test_a_busy_worker_that_may_set_no_timer_does_not_outlive_the_master(probe):
    def prepare():
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))

    server = probe("--on-message", "obey", workers=1, expected=-signal.SIGKILL, preexec_fn=prepare)
    worker = server.workers()[0]
    server.connect().text("spin")
    wait_until(lambda: harness.cpu_seconds(worker) > 0.1, "the worker to be busy")
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "the worker to end")


def test_a_death_is_noticed_at_once_and_not_with_the_next_turn_of_a_timer(crier):
    server = crier("--no-welcome", workers=1)

    def master_turns():
        done = run_crier("-n", "0", str(server.pid), program=CRIER_RING)
        return int(re.search(rf"^ *0 +master +{server.pid} +ready +\d+ +(\d+)", done.stdout, re.M)[1])

    def is_noticed_between_turns():
        victim = wait_until(server.client_counts, "a worker that is ready").popitem()[0]
        turns = master_turns()
        os.kill(victim, signal.SIGKILL)
        server.wait_log(rf"\(pid {victim}\) was killed by signal 9")
        return master_turns() == turns

    assert any(is_noticed_between_turns() for _ in range(20))


@unsanitized
def test_a_worker_is_replaced_where_there_are_no_pidfds(crier, tmp_path):
    source, library = tmp_path / "no_pidfd.c", tmp_path / "no_pidfd.so"
    source.write_text("#include <errno.h>\nint pidfd_open(void) { errno = ENOSYS; return -1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    server = crier("--no-welcome", "--stuck-timeout", "1", workers=1, env={"LD_PRELOAD": str(library)})
    server.connect()
    replace_worker(server)
    assert_serves(server)
    os.kill(server.workers()[0], signal.SIGSTOP)
    server.wait_log(r"was stalled for --stuck-timeout \(1 s\) and was killed")
    assert "pidfd" not in "".join(harness.procs.descriptors(server.pid).values())


# ---- an application's own ----

def test_a_worker_is_replaced_although_the_application_ignores_sigchld(probe):
    server = probe("--in-master", "ignore-chld", workers=1)
    assert signal.SIGCHLD in masks(server.pid)["ignored"]
    server.connect()
    for _ in range(2):
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        server.wait_log(rf"\(pid {victim}\) has ended, its exit status was collected elsewhere; \d clients? lost; starting")
        server.drop_clients()
        assert_echo(server.connect())


@unsanitized
def test_a_handler_from_before_crier_run_stays_and_all_else_is_set(probe):
    server = probe(workers=2, env={"PROBE_BEFORE_RUN": "1"})
    server.connect_everywhere(2)
    assert_dispositions(server, True, handled=[signal.SIGUSR1])
    for pid in server.processes():
        os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: server.log.count("probe: USR1") == 3, lambda: f"three handlers to run: {server.log}")
    for client in server.clients:
        assert_echo(client)


def test_a_handler_that_the_start_handler_has_installed_is_called(probe):
    server = probe("--in-master", "handle-usr1")
    server.send_signal(signal.SIGUSR1)
    server.wait_log("^probe: USR1")
    assert_echo(server.connect())


def test_a_signal_to_a_child_that_the_application_has_forked_does_not_stop_the_server(probe, tmp_path):
    path = str(tmp_path / "socket")
    server = probe("--in-master", "fork", workers=1, listen=[f"unix:{path}", "127.0.0.1:0"])
    child, = set(server.workers()) - set(server.client_counts())
    os.kill(child, signal.SIGTERM)
    wait_until(lambda: not is_alive(child), "the child to die")
    assert int(harness.procs.stat(child)[49]) == signal.SIGTERM, "it was not the signal that ended the child"
    assert_echo(server.connect(address=path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=name_of)
def test_a_stop_handler_that_does_not_return_is_ended_by_one_more_signal(probe, tmp_path, number):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = probe("--master-stop-behind", str(fifo), workers=1)
    server.send_signal(signal.SIGTERM)
    with wait_for_reader(fifo):
        assert signal.SIGHUP in masks(server.pid)["ignored"]
        server.send_signal(signal.SIGHUP)
        server.send_signal(number)
        assert server.wait_exit() == 0


def test_a_stop_handler_that_does_not_return_leaves_the_status_of_a_server_that_has_given_up(probe, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = probe("--fail-start", "worker", "--master-stop-behind", str(fifo), workers=1, url=False, expected=4)
    with wait_for_reader(fifo):
        server.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 4
