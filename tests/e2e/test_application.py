"""What worker/api/crier.h promises to applications: tests/lib/probe_app.c does what its options say."""

import errno
import os
import signal
import time

import pytest

from harness import (CLOSE, PATIENCE, PROBE, TEXT, Disconnected, at_once, each_worker_count, encode_frame, plain_environment,
                     run_crier, wait_until)

def run_probe(*flags, **how):
    return run_crier("--listen", "127.0.0.1:0", *flags, program=PROBE, **how)


# ---- options and start ----

def test_help_names_the_application_and_its_options_with_their_defaults():
    done = run_probe("--help")
    assert done.returncode == 0 and done.stderr == ""
    server, title, application = done.stdout.partition("Application probe:")
    assert title, done.stdout
    assert "--max-message" in server and "--on-connect" not in server
    for words in ("--on-connect accept|close|fail|send|broadcast|broadcast-others", "(default: accept)",
                  "--on-disconnect nothing|tell", "--close-code CODE", "--start-behind FIFO"):
        assert words in application, f"--help does not say {words}: {application}"
    assert "--welcome" not in done.stdout, "an option of another application"


@pytest.mark.parametrize("flags, named", [
    (["--on-connect", "yell"], "--on-connect"),
    (["--on-connect", ""], "--on-connect"),
    (["--on-connect", "acc"], "--on-connect"),
    (["--close-code"], "--close-code"),
    (["--close-code", b"\xff\xfe"], "--close-code"),
    (["--no-welcome"], "--no-welcome"),
])
def test_a_bad_option_of_the_application_is_one_sentence_that_names_it_and_status_2(flags, named):
    done = run_probe(*flags)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and named in done.stderr, done.stderr


def test_an_option_of_the_application_is_read_from_the_environment_and_the_command_line_wins(probe):
    bad = run_probe(env=plain_environment(CRIER_ON_CONNECT="yell"))
    assert bad.returncode == 2 and "yell" in bad.stderr, bad
    server = probe("--close-code", "4002", env={"CRIER_ON_MESSAGE": "close", "CRIER_CLOSE_CODE": "4001"})
    client = server.connect()
    client.text("anything")
    client.expect_close(4002)


def test_a_start_handler_that_fails_in_the_master_is_status_1():
    done = run_probe("--fail-start", "master")
    assert done.returncode == 1, done
    assert "application" in done.stderr and "listening" not in done.stderr, done.stderr


def test_the_start_handler_sees_the_options_and_may_refuse_them():
    done = run_probe("--close-code", "17")
    assert done.returncode == 2, done
    assert done.stdout == "" and done.stderr == "probe_app: --close-code wants 3000 to 4999\n", done


def test_a_start_handler_that_fails_in_every_worker_is_status_4():
    done = run_probe("--fail-start", "worker", "--workers", "2", timeout=2 * PATIENCE)
    assert done.returncode == 4, done
    assert "start handler" in done.stderr, done.stderr


@each_worker_count
def test_a_worker_whose_start_handler_takes_its_time_holds_up_nobody(probe, tmp_path, workers):
    """The ring goes round many times meanwhile: a worker joins it only when it is ready."""
    fifo = tmp_path / "fifo"
    server = probe("--start-behind", str(fifo), "--max-message", "1k", "--ring", "64k", "--slow-grace", "60",
                   workers=workers)
    places = server.connect_everywhere(workers)
    victim, doomed = next(iter(places.items()))
    os.mkfifo(fifo)
    os.kill(victim, signal.SIGKILL)
    gate = wait_until(lambda: opened_for_writing(fifo), "the successor's start handler", 2 * PATIENCE)
    try:
        lines = [f"{number:0100d}" for number in range(5000)]
        writer = server.feed("".join(f"{line}\n" for line in lines).encode())
        at_once([lambda client=client: expect_lines_and_echo(client, lines)
                 for client in server.clients if client not in doomed])
        writer.join()
        wait_until(lambda: server.unread_input() == 0, "all lines to be read")
        assert len(server.workers()) == workers, "the successor has not waited"
    finally:
        os.close(gate)
    # With only one worker these wait for it; in any case it serves in the end.
    newcomers = [server.socket() for _ in range(workers)]
    for client in newcomers:
        client.send_raw(client.request())
    for client in newcomers:
        client.expect_open()
    wait_until(lambda: server.worker_of(server.connect()) not in places, "the successor to serve")
    server.line("to all that are left")
    for client in server.clients:
        if client not in doomed:
            client.expect_texts(["to all that are left"])


def expect_lines_and_echo(client, lines):
    client.expect_texts(lines)
    client.text("echo")
    client.expect_texts(["echo"])


def opened_for_writing(fifo):
    """The descriptor, once a process has opened the pipe to read."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO, error
        return None


# ---- the connect handler ----

@each_worker_count
def test_a_client_that_the_connect_handler_closes_gets_403_with_the_reason_and_nothing_else(probe, workers):
    server = probe("--on-connect", "close", "--on-disconnect", "tell", workers=workers)
    for extra in (b"", encode_frame(TEXT, b"hasty")):
        client = server.socket()
        client.send_raw(client.request() + extra)
        answer = client.read_response()
        assert answer.status == 403, answer
        assert b"go away" in answer.body, answer
        assert client.read_to_end()[0] == b""
    server.stop()
    assert "clients served: 0, broadcasts published: 0" in server.wait_log("stopped;")


def test_a_connect_handler_that_fails_is_answered_with_500_and_nothing_else(probe):
    server = probe("--on-connect", "fail", "--on-disconnect", "tell")
    client = server.socket()
    client.send_raw(client.request() + encode_frame(TEXT, b"hasty"))
    answer = client.read_response()
    assert answer.status == 500, answer
    assert client.read_to_end()[0] == b""
    server.stop()
    assert "clients served: 0, broadcasts published: 0" in server.wait_log("stopped;")


@each_worker_count
def test_what_the_connect_handler_sends_comes_behind_the_101_and_before_echoes(probe, workers):
    server = probe("--on-connect", "send", workers=workers)
    for number in range(1, 5):
        client = server.connect(extra=encode_frame(TEXT, b"hasty"))
        client.expect_texts([f"{client.name} is number {number}", "hasty"])
    for client in server.clients:
        client.expect_pong()  # and what others were sent went to them alone


@each_worker_count
def test_a_broadcast_of_the_connect_handler_is_the_clients_first_and_reaches_everybody(probe, workers):
    server = probe("--on-connect", "broadcast", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    said = [f"{client.name} is number {number}" for number, client in enumerate(server.clients, 1)]
    for number, client in enumerate(server.clients):
        client.expect_texts(said[number:])
        client.expect_pong()


@each_worker_count
def test_crier_broadcast_others_in_the_connect_handler_reaches_everybody_but_the_new_client(probe, workers):
    server = probe("--on-connect", "broadcast-others", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    said = [f"{client.name} is number {number}" for number, client in enumerate(server.clients, 1)]
    server.line("that is all")
    for number, client in enumerate(server.clients):
        assert client.texts_until("that is all") == said[number + 1:], f"client {number}"
    clients = len(said)
    server.drop_clients()
    server.stop()
    # Each client was due the announcements of later ones, and the line.
    due = clients * (clients - 1) // 2 + clients
    assert server.totals() == (due, due, 0, 0)


# ---- the message handler ----

@each_worker_count
def test_a_message_handler_that_fails_closes_that_client_with_1011_and_the_others_live_on(probe, workers):
    server = probe("--on-message", "fail", workers=workers)
    places = server.connect_everywhere(workers, at_least=2)
    failing = [clients[0] for clients in places.values()]
    for client in failing:
        client.text("well")
        client.expect_texts(["well"])
        client.send_raw(encode_frame(TEXT, b"fail") + encode_frame(TEXT, b"behind it"))
        client.expect_close(1011)
    server.line("that is all")
    for client in server.clients:
        if client not in failing:
            client.expect_texts(["that is all"])
            client.text("still here")
            client.expect_texts(["still here"])
    assert set(server.workers()) == set(places), "a worker was replaced"


def test_what_a_handler_sends_before_it_closes_comes_before_the_close(probe):
    client = probe("--on-message", "echo-close", "--close-code", "4999").connect()
    client.send_raw(b"".join(encode_frame(TEXT, text) for text in (b"one", b"two")))
    before = []
    client.expect_close(4999, before)
    assert before == [b"one"]


def test_what_a_client_sends_until_it_hears_of_the_close_is_discarded_to_its_own_close(probe):
    """However many frames that are: neither side waits for a timeout, and nothing is reset."""
    client = probe("--on-message", "close").connect()
    small = encode_frame(TEXT, b"x")
    start = time.monotonic()
    client.send_raw(small * 15000 + encode_frame(CLOSE, b"\x10\xe1"))
    assert client.close_content(client.recv_frame()) == (4321, b"enough")
    assert client.read_to_end() == (b"", "eof")
    assert time.monotonic() - start < 4.5  # a closing handshake may take 5 s


def test_what_comes_behind_a_close_by_the_application_is_not_counted_as_broken_protocol(probe):
    server = probe("--on-message", "close", workers=1)
    client = server.connect(extra=encode_frame(TEXT, b"close") + encode_frame(3, b"an unknown opcode"))
    client.expect_close(4321)
    client.drop()
    server.wait_counter("clients_left", 1)
    assert server.counters()["clients_protocol_closed"] == 0


def test_crier_close_sends_the_reason(probe):
    client = probe("--on-message", "close").connect()
    client.text("anything")
    frame = client.recv_frame()
    assert client.close_content(frame) == (4321, b"enough")


@each_worker_count
def test_crier_broadcast_others_reaches_everybody_but_the_sender(probe, workers):
    server = probe("--on-message", "broadcast-others", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    sender, *others = server.clients
    sender.text("hello")
    for client in others:
        client.expect_texts(["hello"])
    sender.expect_pong()


# ---- the disconnect handler ----

def end_with_close(client):
    client.close(4711)
    client.expect_close(4711)


def end_without_close(client):
    client.drop()


def end_with_reset(client):
    client.reset()


def end_by_the_application(client):
    client.text("close")
    client.expect_close(4321)


def end_by_bad_bytes(client):
    client.send_frame(TEXT, b"\xff")
    client.expect_close(1007)


def test_a_message_for_one_client_that_may_not_fit_into_the_pool_is_refused_and_nobody_closed_for_it(probe):
    server = probe("--on-message", "huge", "--pool", "8M", workers=1)
    holder, client = server.connect(), server.connect()
    holder.send_frame(TEXT, b"a part", fin=False)
    holder.expect_pong()
    client.text("send")
    client.expect_texts(["too much"])
    holder.expect_pong()


@pytest.mark.parametrize("end, code", [
    (end_with_close, 4711), (end_without_close, 1006), (end_with_reset, 1006), (end_by_the_application, 4321),
    (end_by_bad_bytes, 1007)])
def test_the_disconnect_handler_is_told_the_code(probe, end, code):
    server = probe("--on-disconnect", "tell", "--on-message", "close", workers=2)
    stays, leaves = server.connect(), server.connect()
    name = leaves.name
    end(leaves)
    stays.expect_texts([f"{name} left with {code}"])


def test_the_disconnect_handler_is_told_1011_when_the_message_handler_has_failed(probe):
    server = probe("--on-disconnect", "tell", "--on-message", "fail", workers=2)
    stays, leaves = server.connect(), server.connect()
    leaves.text("fail")
    leaves.expect_close(1011)
    stays.expect_texts([f"{leaves.name} left with 1011"])


def test_a_dead_workers_clients_do_not_run_the_disconnect_handler(probe):
    server = probe("--on-disconnect", "tell", workers=2)
    places = server.connect_everywhere(2)
    victim, survivor = list(places)
    os.kill(victim, signal.SIGKILL)
    for client in places[victim]:
        with pytest.raises(Disconnected):
            client.recv_text()
    server.line("that is all")
    for client in places[survivor]:
        assert client.texts_until("that is all") == []
