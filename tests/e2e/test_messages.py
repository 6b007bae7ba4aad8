"""What a client sends comes back to it, or goes where --on-message says."""

import pytest

from harness import (BINARY, CONTINUATION, PATIENCE, PING, PONG, TEXT, Disconnected, Frame, Job, Late,
                     each_worker_count, encode_frame, in_time, server_frame)

each_size = pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])


def bytes_of(size):
    return bytes(i * 7 % 251 for i in range(min(size, 4096))) * (size // 4096 + 1)


# ---- echo ----

@each_worker_count
def test_a_message_comes_back_to_its_sender_alone(crier, workers):
    server = crier("--no-welcome", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    for number, client in enumerate(server.clients):
        client.text(f"message of {number}")
        assert client.recv_message() == (TEXT, f"message of {number}".encode())
    server.line("that is all")
    for client in server.clients:
        assert client.texts_until("that is all") == [], f"{client.name} got what others sent"


@each_size
def test_text_of_any_size_comes_back_as_text(crier, size):
    client = crier("--no-welcome").connect()
    text = ("grün ☂ 𝄞 " * (size // 10 + 1)).encode()[:size]
    text = text.decode("utf-8", "ignore").encode().ljust(size, b".")
    client.text(text)
    assert client.recv_frame() == Frame(True, TEXT, text)


@each_size
def test_binary_of_any_size_comes_back_as_binary(crier, size):
    client = crier("--no-welcome").connect()
    data = bytes_of(size)[:size]
    client.binary(data)
    assert client.recv_frame() == Frame(True, BINARY, data)


def test_every_mask_and_length_near_a_word_is_undone(crier):
    client = crier("--no-welcome").connect()
    data = bytes(range(1, 140))
    masks = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4", b"\0\0\0\1"]
    sent = [data[:length] for length in range(len(data)) for _ in masks]
    client.send_raw(b"".join(encode_frame(BINARY, part, mask=masks[i % 4]) for i, part in enumerate(sent)))
    for part in sent:
        assert client.recv_message() == (BINARY, part)


@each_worker_count
def test_thousands_of_pipelined_messages_come_back_in_order(crier, workers):
    client = crier("--no-welcome", workers=workers).connect()
    sent = [f"{number} {'x' * (number % 300)}".encode() for number in range(5000)]
    stream = b"".join(encode_frame(TEXT, text) for text in sent)
    client.socket.settimeout(4 * PATIENCE)
    sender = Job(client.socket.sendall, stream)
    expected = b"".join(server_frame(TEXT, text) for text in sent)
    got = client.read(len(expected), what="all echoes")
    sender.join()
    assert got == expected, f"first difference at byte {next(i for i in range(len(got)) if got[i] != expected[i])}"
    client.expect_pong()


@each_worker_count
def test_frames_behind_the_handshake_in_the_same_packet_are_answered(crier, workers):
    server = crier(workers=workers)
    client = server.connect(extra=encode_frame(TEXT, b"hasty") + encode_frame(PING, b"now"))
    got = [client.recv_frame() for _ in range(3)]
    welcome = Frame(True, TEXT, f"Welcome, {client.name}!".encode())
    assert sorted(got) == sorted([welcome, Frame(True, TEXT, b"hasty"), Frame(True, PONG, b"now")])


# ---- other ways ----

@each_worker_count
def test_broadcast_sends_a_message_to_everybody_with_its_sender(crier, workers):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    expected = []
    for number, client in enumerate(server.clients):
        client.text(f"text {number}")
        client.binary(b"\xff\xfe binary %d" % number)
        expected += [(TEXT, b"text %d" % number), (BINARY, b"\xff\xfe binary %d" % number)]
        # One after the other, so that the order is known.
        for other in server.clients:
            assert [other.recv_message() for _ in range(2)] == expected[-2:]
    for client in server.clients:
        client.expect_pong()


@each_worker_count
def test_both_echoes_to_the_sender_and_broadcasts_to_all_others_exactly_once(crier, workers):
    server = crier("--no-welcome", "--on-message", "both", workers=workers)
    server.connect_everywhere(workers, at_least=2)
    for number, client in enumerate(server.clients):
        for i in range(20):
            client.text(f"{i} from {number}")
    expected = sorted(f"{i} from {number}" for i in range(20) for number in range(len(server.clients)))
    for number, client in enumerate(server.clients):
        got = [client.recv_text() for _ in expected]
        assert sorted(got) == expected, f"{client.name} missed or doubled messages"
        for other in range(len(server.clients)):
            mine = [text for text in got if text.endswith(f" from {other}")]
            assert mine == [f"{i} from {other}" for i in range(20)], f"{other}'s messages out of order"
    server.line("that is all")
    for client in server.clients:
        assert client.texts_until("that is all") == []


def test_others_see_one_order_in_both(crier):
    server = crier("--no-welcome", "--on-message", "both", workers=2)
    places = server.connect_everywhere(2, at_least=4)
    listeners = [client for clients in places.values() for client in clients[2:]]
    talkers = [client for clients in places.values() for client in clients[:2]]
    for i in range(200):
        for talker in talkers:
            talker.text(f"{i} of {talker.port}")
    orders = [[client.recv_text() for _ in range(200 * len(talkers))] for client in listeners]
    assert all(order == orders[0] for order in orders)


@each_worker_count
def test_drop_sends_a_message_nowhere(crier, workers):
    server = crier("--no-welcome", "--on-message", "drop", workers=workers)
    server.connect_everywhere(workers)
    for client in server.clients:
        client.text("lost")
        client.expect_pong()
    server.line("that is all")
    for client in server.clients:
        assert client.texts_until("that is all") == []


def test_a_fragmented_message_is_broadcast_as_one_message(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=2)
    server.connect_everywhere(2)
    sender = server.clients[0]
    sender.send_frame(TEXT, b"one ", fin=False)
    sender.send_frame(CONTINUATION, b"two")
    for client in server.clients:
        assert client.recv_frame() == Frame(True, TEXT, b"one two")


def test_large_messages_are_broadcast_whole(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=2)
    server.connect_everywhere(2)
    data = bytes_of(1 << 20)[:1 << 20]
    for number, client in enumerate(server.clients):
        client.binary(data[number:])
    for client in server.clients:
        got = [client.recv_message() for _ in server.clients]
        lengths = sorted(len(payload) for _, payload in got)
        assert lengths == sorted(len(data) - i for i in range(len(server.clients)))
        assert all(payload == data[len(data) - len(payload):] for _, payload in got)


# ---- life signs ----

def test_a_silent_client_is_pinged_and_stays_while_it_answers(crier):
    def attempt(scale):
        client = crier("--no-welcome", "--ping", "0.2", "--ping-timeout", str(0.3 * scale), workers=1).connect()
        try:
            for _ in range(3):
                frame = client.recv_frame(what="ping")
                assert frame.opcode == PING
                client.send_frame(PONG, frame.payload)
            client.text("still here")
            while (frame := client.recv_frame(what="echo")).opcode == PING:
                client.send_frame(PONG, frame.payload)
        except (Disconnected, ConnectionError) as end:
            raise Late from end
        assert frame == Frame(True, TEXT, b"still here")

    in_time(attempt)


def test_a_client_that_answers_no_ping_is_dropped(crier):
    server = crier("--no-welcome", "--ping", "0.2", "--ping-timeout", "0.2")
    client = server.connect()
    data, _ = client.read_to_end()
    assert data[0] == 0x80 | PING, f"expected a ping first, got {data[:16]!r}"
