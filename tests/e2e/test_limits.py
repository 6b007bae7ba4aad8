"""A limit that is too low is named at start with the value that is needed, and that value is enough."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess

import pytest

from harness import CRIER, PATIENCE, REPOSITORY, SANITIZED, descriptors, plain_environment, run_crier, wait_until

SMALL = ("--no-welcome", "--max-message", "1k", "--ring", "64k", "--pool", "1M")
SPARE = 12  # of the master's and of a worker's descriptors, says LIMITS in docs/crier.1.in
CLIENTS_MIN = 16

no_sanitizer = pytest.mark.skipif(SANITIZED, reason="the sanitizers need descriptors and memory of their own")


def manual():
    with open(os.path.join(REPOSITORY, "docs/crier.1.in")) as page:
        return page.read()


def only_sentence(done):
    """The one line that a server has printed before it ended with status 1."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1, done
    return lines[0]


def refused(*flags, **how):
    """The sentence of a server that does not start."""
    return only_sentence(run_crier("--listen", "127.0.0.1:0", *SMALL, *flags, **how))


# ---- descriptors ----

def limit_descriptors(limit, hard=None, inherited=()):
    """Sets the limit in the child, after opening the descriptors in `inherited`."""
    def prepare():
        for number in inherited:
            os.dup2(0, number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard or limit))
    return prepare


def manual_descriptors(workers, sockets=1):
    """The limit of descriptors that the manual says is needed."""
    master = re.search(r"^master: 4W \+ L \+ (\d+)$", manual(), re.M)
    worker = re.search(r"^worker: W \+ (\d+)$", manual(), re.M)
    return max(4 * workers + sockets + int(master[1]), workers + int(worker[1]))


def needed_descriptors(sentence):
    return int(re.search(r"need (\d+)", sentence)[1])


def serve_everywhere(server, workers):
    """Has a client on every one of `workers` workers."""
    wait_until(lambda: len(server.client_counts()) == workers, lambda: f"{workers} workers: {server.client_counts()}")
    for _ in range(CLIENTS_MIN // 2):  # clients that have just left may count for a moment
        for _ in range(workers):
            server.connect().expect_pong()
        counts = server.client_counts()
        if len(counts) == workers and all(counts.values()):
            return
    raise AssertionError(f"not on every one of {workers} workers: {server.client_counts()}")


def kill_a_worker(server):
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.client_counts(), "the dead worker to be noticed")
    server.drop_clients()


@no_sanitizer
@pytest.mark.limit(180)
@pytest.mark.parametrize("workers", [1, 2, 10, 100])
def test_the_limit_of_descriptors_in_the_sentence_is_the_lowest_that_works(crier, workers):
    flags = ["--workers", str(workers)]
    need = needed_descriptors(refused(*flags, preexec_fn=limit_descriptors(20)))
    assert need == manual_descriptors(workers)
    sentence = refused(*flags, preexec_fn=limit_descriptors(need - 1))
    assert f"(`ulimit -n`) is {need - 1}; {workers} worker" in sentence and needed_descriptors(sentence) == need
    server = crier(*SMALL, workers=workers, preexec_fn=limit_descriptors(need))
    serve_everywhere(server, workers)
    kill_a_worker(server)
    serve_everywhere(server, workers)
    assert not [line for line in server.log if "cannot" in line], server.log


@no_sanitizer
def test_the_arithmetic_counts_what_the_processes_have_open(crier):
    workers, sockets = 10, 2
    assert f"of which the application can use {SPARE}," in " ".join(manual().split())
    with open(os.path.join(REPOSITORY, "worker/api/crier.h")) as header:
        assert f"up to {SPARE} descriptors in each process" in header.read()
    server = crier(*SMALL, workers=workers, listen=["127.0.0.1:0", "127.0.0.1:0"])
    wait_until(lambda: len(server.client_counts()) == workers, "all workers")
    master = 4 * workers + sockets + int(re.search(r"^master: 4W \+ L \+ (\d+)$", manual(), re.M)[1])
    worker = workers + int(re.search(r"^worker: W \+ (\d+)$", manual(), re.M)[1])
    streams = 4  # a descriptor that stands for standard input, standard error, and what wakes the loop: not always there
    unused = master - SPARE - len(descriptors(server.pid))
    assert 0 <= unused <= streams + 1, f"{unused} descriptors of the master are counted and not open"
    for pid in server.workers():
        unused = worker - CLIENTS_MIN - SPARE - len(descriptors(pid))
        assert 0 <= unused <= streams, f"{unused} descriptors of a worker are counted and not open"


@no_sanitizer
def test_inherited_descriptors_count_where_they_are_in_the_way(crier):
    inherited = [*range(3, 23), 500]
    need = manual_descriptors(10) + 20
    sentence = refused("--workers", "10", preexec_fn=limit_descriptors(need - 1, inherited=inherited), close_fds=False)
    assert f"need {need}, 20 of them for inherited descriptors" in sentence
    worker_needs = manual_descriptors(1)
    assert f"need {worker_needs}: raise it" in refused("--workers", "1", preexec_fn=limit_descriptors(40, inherited=[3]),
                                                       close_fds=False)
    server = crier(*SMALL, workers=10, preexec_fn=limit_descriptors(need, inherited=inherited), close_fds=False)
    serve_everywhere(server, 10)
    assert not [line for line in server.log if "cannot" in line], server.log


@no_sanitizer
def test_each_listening_socket_counts(crier):
    addresses = [flag for _ in range(6) for flag in ("--listen", "127.0.0.1:0")]
    sentence = refused("--workers", "10", *addresses, preexec_fn=limit_descriptors(20))
    assert "7 listening sockets" in sentence and needed_descriptors(sentence) == manual_descriptors(10, 7)


def can_mount():
    return subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0


@no_sanitizer
@pytest.mark.skipif(not can_mount(), reason="a name of its own needs a mount namespace of its own")
@pytest.mark.parametrize("addresses", [3, 200])
def test_each_address_of_a_name_counts(tmp_path, addresses):
    workers, need = 10, manual_descriptors(10, addresses)
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.{number} several\n" for number in range(1, addresses + 1)))
    with socket.create_server(("127.0.0.1", 0)) as port:
        free = port.getsockname()[1]

    def run(limit):
        # With the end of its input it ends as soon as it serves.
        return run_crier("--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts), CRIER, *SMALL,
                         "--workers", str(workers), "--exit-on-eof", "--listen", f"several:{free}", program="unshare",
                         preexec_fn=limit_descriptors(limit))

    lowest_without = manual_descriptors(10, 1)  # the name resolved, or each of its sockets open, when it is found out
    for limit in [20, lowest_without - 1, lowest_without, need - 1]:
        sentence = only_sentence(run(limit))
        assert f"{addresses} listening sockets need {need}:" in sentence, sentence
    done = run(need)
    assert done.returncode == 0 and done.stderr.count("listening on") == addresses, done


@no_sanitizer
def test_a_soft_limit_that_is_too_low_is_raised(crier):
    need = manual_descriptors(10)
    server = crier(*SMALL, workers=10, preexec_fn=limit_descriptors(20, hard=need))
    serve_everywhere(server, 10)


@no_sanitizer
@pytest.mark.parametrize("workers", [2, 10])
def test_a_worker_is_replaced_while_the_master_has_no_free_descriptor(crier, workers):
    server = crier(*SMALL, workers=workers)
    serve_everywhere(server, workers)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = descriptors(server.pid)
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free, hard))
    kill_a_worker(server)
    wait_until(lambda: len(server.client_counts()) == workers, lambda: f"a successor: {server.log}")
    for pid in server.processes():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    serve_everywhere(server, workers)
    assert not [line for line in server.log if "cannot start" in line], server.log


@no_sanitizer
def test_a_rush_is_served_with_the_few_descriptors_that_are_spare(crier):
    workers, clients = 20, 120
    server = crier(*SMALL, workers=workers, preexec_fn=limit_descriptors(manual_descriptors(workers)))
    wait_until(lambda: len(server.client_counts()) == workers, "all workers")
    os.kill(server.pid, signal.SIGSTOP)
    waiting = [server.socket() for _ in range(clients)]
    os.kill(server.pid, signal.SIGCONT)
    for client in waiting:
        client.handshake()
        client.expect_pong()
    assert not [line for line in server.log if "cannot accept" in line], server.log


# ---- control groups ----

class ControlGroup:
    """A group of version 1 or 2 below the one that this process is in, with `controller`."""

    def __init__(self, path, version):
        self.path = path
        self.version = version
        os.mkdir(path)

    def set_memory(self, mib):
        self.set("memory.limit_in_bytes" if self.version == 1 else "memory.max", mib << 20)

    def killed(self):
        """How many of its processes the kernel has killed for want of memory."""
        events = self.get("memory.oom_control" if self.version == 1 else "memory.events")
        return int(re.search(r"^oom_kill (\d+)$", events, re.M)[1])

    def set(self, name, value):
        with open(os.path.join(self.path, name), "w") as file:
            file.write(str(value))

    def get(self, name):
        with open(os.path.join(self.path, name)) as file:
            return file.read().strip()

    def enter(self):
        """In a child, before exec."""
        self.set("cgroup.procs", os.getpid())

    def remove(self):
        def removed():
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
            return not os.path.exists(self.path)

        wait_until(removed, f"{self.path} to be empty")


def mount_point(kind, controller):
    """Where the hierarchy with the controller is mounted: of version 1 ("cgroup") or 2 ("cgroup2")."""
    with open("/proc/self/mounts") as mounts:
        for _, point, fstype, options, *_ in map(str.split, mounts):
            if fstype != kind:
                continue
            if kind == "cgroup" and controller in options.split(","):
                return point
            if kind == "cgroup2":
                with open(os.path.join(point, "cgroup.subtree_control")) as enabled:
                    if controller in enabled.read().split():
                        return point
    return None


@pytest.fixture(params=["cgroup", "cgroup2"])
def control_group(request):
    """control_group("memory"): a new group, or the reason for skipping the test. Goes before `crier` in the
    parameters of a test, so that the servers in it have ended when it is removed."""
    made = []

    def make(controller):
        point = mount_point(request.param, controller)
        if not point:
            pytest.skip(f"no {request.param} hierarchy with the controller {controller} is mounted")
        try:
            made.append(ControlGroup(os.path.join(point, f"crier-test-{os.getpid()}-{controller}"),
                                     2 if request.param == "cgroup2" else 1))
        except OSError as error:
            pytest.skip(f"cannot make a group in {point}: {error.strerror}")
        return made[-1]

    yield make
    for group in made:
        group.remove()


# ---- processes ----

USER = 61000 + os.getpid() % 1000  # has no other process: the limit counts all of a user

as_other_user = pytest.mark.skipif(os.getuid() != 0, reason="becoming a user without other processes needs root")


def limit_processes(limit):
    """Becomes a user of its own with so many processes at most."""
    def prepare():
        os.setgroups([])
        os.setgid(USER)
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, 100))
        os.setuid(USER)
    return prepare


def change_processes(server, limit):
    """As that user: root may lack the capability to do it for another one."""
    subprocess.run(["prlimit", f"--pid={server.pid}", f"--nproc={limit}:100"], check=True, user=USER, group=USER, extra_groups=[])


@pytest.fixture
def processes(for_other_users):
    """processes(count): how to start the program as that user. The first process is the master."""
    return lambda count: dict(program=for_other_users(CRIER), preexec_fn=limit_processes(count))


@no_sanitizer
@as_other_user
@pytest.mark.parametrize("workers", [1, 10])
def test_a_server_that_cannot_fork_ends_and_names_the_limit_that_is_enough(crier, processes, workers):
    done = run_crier("--listen", "127.0.0.1:0", *SMALL, "--workers", str(workers), **processes(1))
    errors = [line for line in done.stderr.splitlines() if "cannot" in line]
    assert done.returncode == 4 and len(errors) == 1, done
    assert errors[0].endswith(f"cannot start a worker, stopping the server: the limit of processes (`ulimit -u`) is 1, and user "
                              f"{USER} has 1 task (processes and threads): raise it to at least {workers + 1}"), done
    server = crier(*SMALL, workers=workers, stdin=None, **processes(workers + 1))
    serve_everywhere(server, workers)
    kill_a_worker(server)
    serve_everywhere(server, workers)
    assert not [line for line in server.log if "cannot" in line], server.log


@no_sanitizer
@as_other_user
def test_workers_that_run_serve_while_others_cannot_be_forked(crier, processes):
    server = crier(*SMALL, workers=4, stdin=None, url=False, **processes(3))
    line = server.wait_log("cannot start")
    assert line.endswith(f"cannot start 2 of 4 workers, trying again: the limit of processes (`ulimit -u`) is 3, and user {USER} "
                         f"has 3 tasks (processes and threads): raise it to at least 5")
    wait_until(lambda: len(server.client_counts()) == 2, "two workers that are ready")
    # Nor does the server end when those die and cannot be replaced, with more tries than it makes at start.
    change_processes(server, 1)
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.workers(), "the death of both")
    tries = server.counters()["forks_failed"]
    wait_until(lambda: server.counters()["forks_failed"] >= tries + 4 * 6, "more tries", 4 * PATIENCE)
    assert server.process.poll() is None
    assert len([line for line in server.log if "cannot start" in line]) == 1, f"not logged once: {server.log}"
    change_processes(server, 100)
    server.wait_log("all 4 workers run again")
    server.address = tuple(re.search(r"listening on ws://([\d.]+):(\d+)/", server.wait_log("listening")).groups())
    server.address = (server.address[0], int(server.address[1]))
    serve_everywhere(server, 4)


@no_sanitizer
@as_other_user
def test_input_that_needs_a_thread_waits_until_the_limit_allows_it(crier, processes, tmp_path):
    lines = [f"line {number}" for number in range(5)]
    text = tmp_path / "input"
    text.write_text("".join(f"{line}\n" for line in lines))
    with open(text) as stdin:  # a file, which no poll makes readable
        done = run_crier("--listen", "127.0.0.1:0", *SMALL, "--workers", "1", stdin=stdin, **processes(1))
        assert done.returncode == 4 and "raise it to at least 3" in done.stderr, done
        server = crier(*SMALL, "--wait-clients", "1", workers=1, stdin=stdin, **processes(2))
        client = server.connect()
        line = server.wait_log("cannot start a thread")
        assert line.endswith(f"(`ulimit -u`) is 2, and user {USER} has 2 tasks (processes and threads): raise it to at least 3")
        client.expect_pong()
        change_processes(server, 3)
        client.expect_texts(lines)
    assert len([line for line in server.log if "cannot" in line]) == 1, server.log


def test_a_group_without_room_for_another_process_is_named(control_group):
    group = control_group("pids")
    group.set("pids.max", 1)
    # What looks for leaks at the end would be another process.
    done = run_crier("--listen", "127.0.0.1:0", *SMALL, "--workers", "2", preexec_fn=group.enter,
                     env=plain_environment(ASAN_OPTIONS="detect_leaks=0"))
    errors = [line for line in done.stderr.splitlines() if "cannot" in line]
    assert done.returncode == 4 and len(errors) == 1, done
    assert errors[0].endswith(f"{group.path}/pids.max is 1, and the group has 1 task (processes and threads): raise it to at least 3"), done


@no_sanitizer
@as_other_user
def test_the_limit_in_the_sentence_lets_the_log_be_written_that_needs_a_thread(for_other_users, tmp_path):
    path = tmp_path / "log"
    arguments = [for_other_users(CRIER), "--listen", "127.0.0.1:0", *SMALL, "--workers", "2"]
    with open(path, "ab") as log:
        how = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=plain_environment())
        assert subprocess.run(arguments, timeout=PATIENCE, **how, preexec_fn=limit_processes(1)).returncode == 4
        assert "raise it to at least 4\n" in path.read_text()
        with subprocess.Popen(arguments, **how, preexec_fn=limit_processes(4)) as server:
            try:
                wait_until(lambda: "listening on" in path.read_text(), "the log")
            finally:
                server.terminate()
        assert server.returncode == 0


# ---- memory ----

def exchange(server, workers):
    """Broadcasts to a client on every worker, which has all of them use what they use."""
    serve_everywhere(server, workers)
    lines = [f"{number} {'x' * 900}" for number in range(300)]
    server.feed("".join(f"{line}\n" for line in lines).encode())
    for client in server.clients:
        client.expect_texts(lines)


def needed_memory(sentence):
    """MiB: what the server needs, and what the limit must be raised to."""
    return int(re.search(r"need (\d+) MiB", sentence)[1]), int(re.search(r"to at least (\d+) MiB", sentence)[1])


@no_sanitizer
def test_sixty_four_workers_in_half_a_gigabyte_are_refused_in_one_sentence(control_group):
    group = control_group("memory")
    group.set_memory(512)
    done = run_crier("--listen", "127.0.0.1:0", "--workers", "64", "--ring", "16M", preexec_fn=group.enter)
    need, limit = needed_memory(only_sentence(done))
    shared = int(re.search(r"(\d+) MiB of it shared", done.stderr)[1])
    assert 65 * 16 < shared < 65 * 18 and need == shared + 2 * (64 + 1) <= limit, done.stderr
    assert f"leaves {512 - (limit - need)}" in done.stderr or f"leaves {511 - (limit - need)}" in done.stderr, done.stderr
    assert "64 workers with --ring 16M" in done.stderr and " of 512 MiB" in done.stderr and group.path in done.stderr
    assert "2 MiB for each process" in " ".join(manual().split()) and group.killed() == 0


@no_sanitizer
@pytest.mark.parametrize("workers", [1, 8])
def test_the_memory_in_the_sentence_is_enough_for_the_server_to_serve(control_group, crier, workers):
    flags = ["--no-welcome", "--ring", "16M", "--workers", str(workers)]
    group = control_group("memory")
    group.set_memory(20)
    _, limit = needed_memory(only_sentence(run_crier("--listen", "127.0.0.1:0", *flags, preexec_fn=group.enter)))
    group.set_memory(limit - 2)
    only_sentence(run_crier("--listen", "127.0.0.1:0", *flags, preexec_fn=group.enter))
    group.set_memory(limit + 2)  # what it holds before the server starts is not constant
    server = crier(*flags, preexec_fn=group.enter)
    exchange(server, workers)
    assert group.killed() == 0


@no_sanitizer
def test_pools_that_may_not_fit_are_a_warning(control_group, crier):
    group = control_group("memory")
    group.set_memory(256)
    server = crier("--no-welcome", "--pool", "256M", workers=2, preexec_fn=group.enter)
    server.connect().expect_pong()
    warnings = [line for line in server.log if "may use" in line]
    assert len(warnings) == 1 and group.path in warnings[0] and "give less with --pool" in warnings[0], server.log
    fits = crier("--no-welcome", "--pool", "32M", workers=2, preexec_fn=group.enter)
    fits.connect().expect_pong()
    assert not [line for line in fits.log if "may use" in line], fits.log


@no_sanitizer
@pytest.mark.parametrize("limit, name", [(resource.RLIMIT_FSIZE, "ulimit -f"), (resource.RLIMIT_AS, "ulimit -v"),
                                         (resource.RLIMIT_DATA, "ulimit -d")])
def test_a_limit_of_each_process_is_named_and_the_value_in_the_sentence_is_enough(crier, limit, name):
    def limited(kib, which=limit):
        return dict(preexec_fn=lambda: resource.setrlimit(which, (kib << 10, kib << 10)))

    flags = ["--workers", "2", "--ring", "4M", "--pool", "4M", "--no-welcome"]
    sentence = only_sentence(run_crier("--listen", "127.0.0.1:0", *flags, **limited(10 << 10)))
    need = int(re.search(r"need (\d+) KiB", sentence)[1])
    assert f"(`{name}`) is {10 << 10} KiB; 2 workers with --ring 4M need" in sentence
    page = " ".join(manual().split())
    segment = int(re.search(r"ulimit -f.*need (\d+) KiB", only_sentence(run_crier(*flags, **limited(10 << 10, resource.RLIMIT_FSIZE))))[1])
    assert need == {"ulimit -f": segment,
                    "ulimit -v": segment + 1024 * int(re.search(r"size of the shared memory and (\d+) MiB", page)[1]),
                    "ulimit -d": 1024 * int(re.search(r"ulimit -d \) (\d+) MiB", page)[1])}[name]
    only_sentence(run_crier("--listen", "127.0.0.1:0", *flags, **limited(need - 1)))
    server = crier(*flags, **limited(need))
    exchange(server, 2)
    kill_a_worker(server)
    serve_everywhere(server, 2)


# ---- the size of the log ----

def come_and_go(server, count):
    """Two lines of the log for each client, in the process that serves it."""
    for _ in range(count):
        left = server.counters()["clients_left"]
        server.connect().drop()
        server.wait_counter("clients_left", left + 1)


@no_sanitizer
def test_a_log_at_the_limit_of_file_sizes_loses_lines_and_stops_nothing(crier, tmp_path):
    log = tmp_path / "log"
    limit, room = 16 << 20, 600
    with open(log, "wb") as file:
        file.truncate(limit - room)

    def prepare():
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
        limit_descriptors(256)()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def logged():
        with open(log, "rb") as file:
            file.seek(limit - room)
            return file.read().decode()

    server = crier(*SMALL, "--verbose", workers=2, url=False, preexec_fn=prepare)
    found = wait_until(lambda: re.search(r"listening on ws://([\d.]+):(\d+)/", logged()), "the start line")
    server.address = (found[1], int(found[2]))
    serve_everywhere(server, 2)
    come_and_go(server, 10)
    wait_until(lambda: os.path.getsize(log) > limit - 100, "the log to be full")
    kill_a_worker(server)
    serve_everywhere(server, 2)
    come_and_go(server, 60)
    assert os.path.getsize(log) <= limit
    os.truncate(log, limit - room)

    def reported():
        come_and_go(server, 1)
        return sum(map(int, re.findall(r"(\d+) lines of log were dropped", logged()))) > 90

    wait_until(reported, lambda: f"the count of dropped lines, in each process: {logged()}")
