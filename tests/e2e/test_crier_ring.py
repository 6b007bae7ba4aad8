"""crier-ring shows members and messages of a running server or of an image, and only reads."""

import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import time

import pytest

from harness import CRIER_RING, PATIENCE, Swarm, descriptors, plain_environment, process_state, run_crier, wait_until

MEMBER = re.compile(r"^ +(\d+)  (master|worker) +(\d+)  (\w+) +(\d+) +(\d+) +(\d+) +(-|\d+) +(-|-?\d+) +([\d.]+)%  #(\d+)"
                    r"(.*)$", re.M)
MESSAGE = re.compile(r'^#(\d+) +\d\d:\d\d:\d\d\.\d{3}  (text|binary) +(\d+) bytes  (?:client (\d+)  )?"(.*)"(\.\.\.)?$',
                     re.M)


def look(*arguments, status=0):
    done = run_crier(*map(str, arguments), program=CRIER_RING, env=plain_environment(LC_ALL="C"))
    assert done.returncode == status, done
    assert (done.stdout == "") == (status != 0) and (done.stderr == "") == (status == 0), done
    return done.stdout if status == 0 else done.stderr


def messages(text):
    return [(int(m[1]), m[2], int(m[3]), m[5]) for m in MESSAGE.finditer(text)]


def freeze(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")


def thaw(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def segment_bytes(pid):
    number = next(n for n, target in descriptors(pid).items() if target.startswith("/memfd:crier"))
    with open(f"/proc/{pid}/fd/{number}", "rb") as segment:
        return segment.read()


def talk(crier, workers=2):
    """A server with two workers that has broadcast a few lines and gone quiet."""
    server = crier("--no-welcome", "--on-message", "both", "--max-message", "1k", "--ring", "64k", workers=workers)
    places = server.connect_everywhere(workers)
    server.write('one\ntwo "quoted" \\ \x1b[31mred\nh\u00e4\n'.encode())
    server.line("x" * 500)
    server.line("all said")
    for client in server.clients:
        client.texts_until("all said")
    server.clients[0].binary(b"\x00\x01")
    for client in server.clients:
        client.recv_message()
    # A worker stores its cursor behind what it sends.
    wait_until(lambda: "next message #7, needed from #7 on; " in look(server.pid), "the workers to be past all")
    return server, places


EXPECTED = [(1, "text", 3, "one"), (2, "text", 23, 'two \\"quoted\\" \\\\ \\x1b[31mred'), (3, "text", 3, "h\\xc3\\xa4"),
            (4, "text", 500, "x" * 72), (5, "text", 8, "all said"), (6, "binary", 2, "\\x00\\x01")]


def expect_report(text, server, places):
    members = {int(m[3]): m for m in MEMBER.finditer(text)}
    assert set(members) == {server.pid, *places}, text
    assert members[server.pid][2] == "master" and members[server.pid][8] == "-"
    for pid, clients in places.items():
        assert (members[pid][4], members[pid][7], members[pid][8], members[pid][9]) == \
            ("ready", str(len(clients)), "7", "0"), text
    assert "next message #7, needed from #7 on; 0 of " in text
    assert "the invariants hold" in text
    assert messages(text) == EXPECTED


def test_a_running_server_is_shown_by_the_pid_of_any_of_its_processes(crier):
    server, places = talk(crier)
    for pid in server.processes():
        text = wait_until(lambda: "lag" in look(pid) and look(pid), "a report")
        assert text.startswith(f"running server {server.pid}, phase serve, epoch ")
        expect_report(text, server, places)
    assert "client " in look(server.pid)


def test_without_an_argument_it_finds_the_server_or_names_those_that_run(crier):
    server = crier("--no-welcome")
    done = run_crier(program=CRIER_RING)
    if done.returncode == 0:  # no other server runs on this machine
        assert done.stdout.startswith(f"running server {server.pid}, "), done
    another = crier("--no-welcome")
    asked = look(status=1)
    assert asked.startswith("crier-ring: name one of the servers that run: ")
    named = set(asked.split())
    assert {str(server.pid), str(another.pid)} <= named, asked
    assert not named & {str(pid) for pid in server.workers() + another.workers()}, f"workers are named: {asked}"


def test_it_works_while_every_process_is_stopped_and_changes_nothing(crier):
    server, places = talk(crier)
    pids = server.processes()
    freeze(pids)
    try:
        before = segment_bytes(server.pid)
        expect_report(look(server.pid), server, places)
        assert segment_bytes(server.pid) == before
        assert all(process_state(pid) == "T" for pid in pids)
    finally:
        thaw(pids)
    server.clients[0].text("still here")
    server.clients[0].expect_texts(["still here"])


def test_who_holds_the_ring_back_is_seen(crier):
    server, places = talk(crier)
    frozen, running = places
    freeze([frozen])
    try:
        feeder = server.feed(b"".join(b"%0100d\n" % number for number in range(5000)))
        server.wait_held_up()
        text = look(server.pid)
        assert "a publisher waits for room" in text
        members = {int(m[3]): m for m in MEMBER.finditer(text)}
        assert int(members[frozen][9]) > 100 > int(members[running][9]), text
        assert "waits until all have passed #" in members[server.pid][12], text
        assert float(members[server.pid][10]) > 60, text
        assert "the invariants hold" in text
        assert len(messages(look("-n", "3", server.pid))) == 3
        assert messages(look("--last", "0", server.pid)) == []
    finally:
        thaw([frozen])
        server.drop_clients()
    feeder.join()


def test_an_image_shows_the_same_when_the_server_is_gone(crier, tmp_path):
    server, places = talk(crier)
    image = tmp_path / "image"
    assert str(image) in look("--save", image, server.pid)
    assert image.stat().st_mode & 0o777 == 0o600
    assert image.stat().st_blocks * 512 < image.stat().st_size, "what was never used is written out"
    assert "exists" in look("--save", image, server.pid, status=1)
    server.drop_clients()
    server.stop()
    text = look(image)
    assert text.startswith(f"image {image} of server {server.pid}, phase serve")
    shutil.copy(image, tmp_path / "2nd")  # a name that begins with a digit is no process
    done = run_crier("2nd", program=os.path.abspath(CRIER_RING), cwd=tmp_path)
    assert done.stdout.startswith(f"image 2nd of server {server.pid}, phase serve"), done
    expect_report(text, server, places)
    again = tmp_path / "again"
    look("--save", again, image)
    assert again.read_bytes() == image.read_bytes()


def test_an_image_of_a_server_at_work_can_be_read(crier, tmp_path):
    server = crier("--no-welcome", "--max-message", "1k", "--ring", "64k", workers=2)
    server.connect_everywhere(2)
    feeder = server.feed(b"".join(b"%0200d\n" % number for number in range(20000)))
    for number in range(5):
        image = tmp_path / f"image{number}"
        look("--save", image, server.pid)
        for seq, kind, size, text in messages(look("-n", "50", image)):
            assert (kind, size, text) == ("text", 200, f"{seq - 1:0200d}"[:72]) or size == 200
    server.drop_clients()
    feeder.join()


def test_an_image_that_cannot_be_written_is_removed(crier, tmp_path):
    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # what exec keeps
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    server = crier("--no-welcome", workers=1)
    image = tmp_path / "image"
    done = run_crier("--save", str(image), str(server.pid), program=CRIER_RING, preexec_fn=limit_files)
    assert done.returncode == 1 and "cannot write" in done.stderr and "File too large" in done.stderr, done
    assert not image.exists()


def test_last_words_are_shown(probe):
    server = probe("--on-message", "obey", workers=1, dies=True)
    client = server.connect()
    client.text("assert")
    server.wait_log("was killed by signal 6")
    assert re.search(r"last words of life 1: in the application's message handler: .*Assertion `sheep == 1",
                     wait_until(lambda: "last words" in look(server.pid) and look(server.pid), "last words"))


def test_what_is_no_segment_is_one_sentence(crier, tmp_path):
    server, _ = talk(crier)
    image = tmp_path / "image"
    look("--save", image, server.pid)
    data = image.read_bytes()
    version = struct.unpack_from("<I", data, 8)[0]
    for name, content, why in [("cut", data[:len(data) // 2], "cut"), ("empty", b"", "cut"),
                               ("version", data[:8] + struct.pack("<I", version + 1) + data[12:], "version"),
                               ("noise", os.urandom(100000), "not a segment"),
                               ("sizes", data[:24] + struct.pack("<Q", len(data)) + b"\xff" * 16 + data[48:], "sizes")]:
        path = tmp_path / name
        path.write_bytes(content)
        said = look(path, status=1)
        assert len(said.splitlines()) == 1 and why in said and name in said, said
    assert "there is no process" in look(2 ** 22 + 1, status=1)
    assert "is not a crier server" in look(os.getpid(), status=1)
    assert "cannot open" in look(tmp_path / "missing", status=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_server_of_another_user_is_one_sentence(crier, for_other_users):
    def become_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    server = crier("--no-welcome")
    done = run_crier(str(server.pid), program=for_other_users(CRIER_RING), preexec_fn=become_nobody)
    assert done.returncode == 1 and "run this as its user or root" in done.stderr, done


def test_a_server_of_another_user_is_not_taken_for_none_where_proc_hides_it(crier, for_other_users):
    server = crier("--no-welcome")
    script = ('mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"')
    done = run_crier("--mount", "sh", "-c", script, for_other_users(CRIER_RING), str(server.pid), program="unshare")
    if re.match("unshare|mount|setpriv", done.stderr):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 1 and f"cannot look into process {server.pid}: Permission denied" in done.stderr, done


def test_the_histograms_say_how_long_broadcasts_and_stretches_took(crier):
    server = crier("--no-welcome", workers=1)
    with Swarm(server.address, 200) as swarm:
        for number in range(5):
            server.line("to more than one stretch holds")
            swarm.expect(number + 1)
        wait_until(lambda: server.counters()["broadcast_last_client"] == 5, "the end of the last sweep")
        assert server.counters()["sweep_stretch"] == 20
        for name in ("broadcast_last_client", "sweep_stretch"):
            line = re.search(rf"^{name} .*$", look("-c", server.pid), re.M)[0]
            values = [float(value) for value in re.findall(r"=([\d.]+)us", line)]
            assert re.findall(r"(\S+)=", line) == ["p50", "p90", "p99", "p99.9", "max"], line
            assert 0 < values[0] and values == sorted(values) and values[-1] < PATIENCE * 1e6, line


def test_a_message_has_the_time_of_the_wall_clock(crier):
    before = int(time.time())
    server, _ = talk(crier)
    times = {time.strftime("%H:%M:%S", time.localtime(s)) for s in range(before - 1, int(time.time()) + 2)}
    shown = set(re.findall(r"^#\d+ +(\d\d:\d\d:\d\d)", look(server.pid), re.M))
    assert shown and shown <= times


@pytest.mark.parametrize("flags", [["--bogus"], ["--last"], ["--last", "many"], ["-n", "-1"], ["a", "b"]])
def test_a_bad_command_line_is_status_2(flags):
    done = run_crier(*flags, program=CRIER_RING)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done


def test_help_and_version():
    assert "--save" in look("--help")
    assert look("--version").startswith("crier-ring ")


def test_no_rubbish_in_an_image_crashes_it(crier, tmp_path):
    """Words of the header, members and slots are overwritten: it shows something, or says a sentence."""
    server, _ = talk(crier)
    image = tmp_path / "image"
    look("--save", image, server.pid)
    server.drop_clients()
    server.stop()
    data = image.read_bytes()
    dice = random.Random(7)
    for number in range(150 if os.environ.get("CRIER_LONG") else 60):
        broken = bytearray(data)
        for _ in range(dice.randrange(1, 40)):
            at = dice.randrange(0, 12 * 4096 // 8) * 8 if number % 3 else dice.randrange(0, len(data) // 8) * 8
            if at < 96 and number % 2:
                continue
            broken[at:at + 8] = struct.pack("<Q", dice.choice([0, 2 ** 64 - 1, dice.getrandbits(64), 1 << at % 64]))
        image.write_bytes(broken)
        shown = [["--counters"], []][number % 4 > 0]
        done = subprocess.run([CRIER_RING, *shown, image], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert done.returncode in (0, 1), f"{number}: {done}"
        assert b"Sanitizer" not in done.stderr, done
