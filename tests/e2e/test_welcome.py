"""A new client is announced to all clients, itself included."""

import os

import pytest

from harness import TEXT, each_worker_count, needs_ipv6, plain_environment, run_crier


@each_worker_count
def test_the_first_message_of_a_new_client_is_its_own_welcome(crier, workers):
    server = crier(workers=workers)
    client = server.connect()
    frame = client.recv_frame(what="welcome")
    assert frame == (True, TEXT, f"Welcome, 127.0.0.1:{client.port}!".encode())


@each_worker_count
def test_a_welcome_reaches_every_client_on_every_worker(crier, workers):
    server = crier(workers=workers)
    places = server.connect_everywhere(workers, at_least=2)
    assert len(places) == workers
    names = [client.name for client in server.clients]
    for number, client in enumerate(server.clients):
        client.expect_texts(f"Welcome, {name}!" for name in names[number:])
        client.expect_pong()  # and nothing else


@each_worker_count
def test_clients_that_come_at_once_see_one_order_each_from_its_own_welcome_on(crier, workers):
    server = crier(workers=workers)
    clients = [server.socket() for _ in range(100)]
    for client in clients:
        client.send_raw(client.request())
    for client in clients:
        client.expect_open()
    server.line("that is all")
    seen = [client.texts_until("that is all") for client in clients]
    longest = max(seen, key=len)
    assert sorted(longest) == sorted(f"Welcome, {client.name}!" for client in clients)
    for client, texts in zip(clients, seen):
        assert texts[:1] == [f"Welcome, {client.name}!"], f"{client.name} saw {texts[:3]} first"
        assert texts == longest[-len(texts):], f"{client.name} saw another order"


@needs_ipv6
def test_an_ipv6_client_is_named_with_brackets(crier):
    server = crier(listen="[::1]:0")
    client = server.connect(address=("::1", server.address[1]))
    client.expect_texts([f"Welcome, [::1]:{client.port}!"])


@needs_ipv6
def test_a_port_alone_serves_both_families_and_names_an_ipv4_client_as_such(crier):
    server = crier(listen=":0")
    port = server.address[1]
    old = server.connect(address=("127.0.0.1", port))
    new = server.connect(address=("::1", port))
    welcomes = [f"Welcome, 127.0.0.1:{old.port}!", f"Welcome, [::1]:{new.port}!"]
    old.expect_texts(welcomes)
    new.expect_texts(welcomes[1:])


def test_a_unix_client_is_named_by_its_process(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier(listen=f"unix:{path}")
    server.connect(address=path).expect_texts([f"Welcome, unix:{os.getpid()}!"])


def test_the_welcome_format_knows_address_number_and_percent(crier):
    server = crier("--welcome", "%a is one of %n, 100%%.", workers=2)
    first, second = server.connect(), server.connect()
    welcomes = [f"{first.name} is one of 1, 100%.", f"{second.name} is one of 2, 100%."]
    first.expect_texts(welcomes)
    second.expect_texts(welcomes[1:])


def test_the_welcome_format_may_hold_any_utf8(crier):
    server = crier("--welcome", "grüß dich, %a ☂")
    client = server.connect()
    client.expect_texts([f"grüß dich, {client.name} ☂"])


@each_worker_count
def test_no_welcome_announces_nobody(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers)
    server.line("that is all")
    for client in server.clients:
        assert client.texts_until("that is all") == []


def test_clients_of_several_listeners_are_welcomed_to_each_other(crier, tmp_path):
    path = str(tmp_path / "socket")
    server = crier(listen=["127.0.0.1:0", f"unix:{path}"], workers=2)
    tcp = server.connect()
    unix = server.connect(address=path)
    tcp.expect_texts([f"Welcome, {tcp.name}!", f"Welcome, unix:{os.getpid()}!"])
    unix.expect_texts([f"Welcome, unix:{os.getpid()}!"])


@each_worker_count
def test_clients_are_welcomed_however_short_their_own_messages_must_be(crier, workers):
    server = crier("--max-message", "10", workers=workers)
    for _ in range(2):
        client = server.connect()
        client.expect_texts([f"Welcome, {client.name}!"])
        client.text("ten bytes.")
        client.text("eleven byte")
        client.expect_texts(["ten bytes."])
        client.expect_close(1009, before=[])


def test_a_welcome_of_1024_bytes_is_sent_whole(crier):
    text = "é%a" + "%a" * 500 + "x" * 20
    assert len(text.encode()) == 1024
    server = crier("--welcome", text)
    client = server.connect()
    client.expect_texts([text.replace("%a", client.name)])


@pytest.mark.parametrize("flag", ["--welcome", "--goodbye"])
def test_a_longer_format_is_refused_with_a_sentence(flag):
    done = run_crier("--listen", "127.0.0.1:0", flag, "x" * 1025)
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr == f"crier: {flag} takes at most 1024 bytes\n"


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xe2\x98", b"\xc0\x80"])
def test_a_format_that_is_not_utf8_is_refused_with_a_sentence_that_names_it(bad):
    for flag in ("--welcome", "--goodbye"):
        done = run_crier("--listen", "127.0.0.1:0", flag, bad)
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1 and flag in done.stderr, done.stderr
    done = run_crier("--listen", "127.0.0.1:0", env={**plain_environment(), "CRIER_WELCOME": os.fsdecode(bad)})
    assert done.returncode == 2, done
