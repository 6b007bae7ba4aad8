"""permessage-deflate (RFC 7692): one deflate a broadcast, whichever client publishes it and however many receive it."""

import os
import random
import signal

import pytest

from harness import (BINARY, CONTINUATION, PING, PONG, SANITIZED, TEXT, DeflateClient, Frame, deflate, encode_frame,
                     is_alive, memory, server_frame, wait_until)

MIN = 256  # --compress-min
LONGEST = 256 << 10  # RECORD_DEFLATE_MAX_BYTES


def words(count, seed=1):
    """Text that deflates to about a third."""
    pick = random.Random(seed)
    return " ".join(pick.choice(("price", "score", "order", "alpha", "beta")) + str(pick.randrange(1000)) for _ in range(count))


def noise(count):
    return random.Random(count).randbytes(count)


def connect_deflating(server, **how):
    client = server.connect(kind=DeflateClient, **how)
    assert client.agreed
    return client


# ---- broadcasts ----

@pytest.mark.parametrize("source", ["console", "client"])
def test_a_broadcast_is_deflated_once_however_many_clients_and_workers(crier, source):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=3)
    plain = server.connect()
    server.connect_everywhere(3, at_least=2)
    say = server.line if source == "console" else plain.text
    texts = [words(200, seed) for seed in range(7)]
    short = "x" * (MIN - 1)

    for text in texts:  # no client can use a twin
        say(text)
    for client in server.clients:
        client.expect_texts(texts)
    assert server.counters()["broadcast_deflate_calls"] == 0

    deflating = [connect_deflating(server) for _ in range(9)]
    for text in [*texts, short]:
        say(text)
    for client in server.clients:
        client.expect_texts([*texts, short])
    assert all(len(client.compressed) == len(texts) for client in deflating)
    assert all(max(client.compressed) < min(map(len, texts)) // 2 for client in deflating)
    assert server.counters()["broadcast_deflate_calls"] == len(texts)
    assert server.counters()["private_deflate_calls"] == 0

    for client in deflating:
        client.close()
        client.read_to_end()
        client.drop()
        server.clients.remove(client)
    server.wait_counter("clients_left", len(deflating))
    for text in texts:
        say(text)
    for client in server.clients:
        client.expect_texts(texts)
    assert server.counters()["broadcast_deflate_calls"] == len(texts)


def test_the_shortest_broadcast_that_is_deflated_has_as_many_bytes_as_compress_min(crier):
    server = crier("--no-welcome", "--compress-min", "1k", workers=1)
    client = connect_deflating(server)
    server.line("a" * 1023)
    server.line("b" * 1024)
    client.expect_texts(["a" * 1023])
    assert client.compressed == []
    client.expect_texts(["b" * 1024])
    assert len(client.compressed) == 1
    assert server.counters()["broadcast_deflate_calls"] == 1


@pytest.mark.parametrize("source", ["broadcast", "echo"])
def test_the_longest_message_that_is_deflated_has_256_kib(crier, source):
    server = crier("--no-welcome", "--on-message", source, workers=1)
    client, plain = connect_deflating(server), server.connect()
    sender = plain if source == "broadcast" else client
    for more in (1, 0):  # the byte more comes first
        payload = b"a" * (LONGEST + more)
        sender.text(payload)
        client.expect_texts([payload.decode()])
        assert len(client.compressed) == 1 - more
    name = "broadcast_deflate_calls" if source == "broadcast" else "private_deflate_calls"
    assert server.counters()[name] == 1


def test_a_broadcast_that_does_not_get_smaller_goes_out_as_it_is(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)
    client = connect_deflating(server)
    client.binary(noise(5000))
    assert client.recv_message() == (BINARY, noise(5000))
    counters = server.counters()
    assert (client.compressed, counters["broadcast_deflate_calls"], counters["broadcast_twins"]) == ([], 1, 0)


def test_clients_with_and_without_compression_see_one_order_in_a_flood(crier):
    server = crier("--no-welcome", "--slow-grace", "30", workers=2)
    for _ in range(3):
        server.connect()
        connect_deflating(server)
    texts = [f"{number} {words(number % 150, number)}" for number in range(4000)]
    server.feed("\n".join(texts).encode() + b"\n")
    for client in server.clients:
        client.expect_texts(texts)
    long = sum(len(text) >= MIN for text in texts)
    assert server.counters()["broadcast_deflate_calls"] == long
    assert all(len(client.compressed) == long for client in server.clients[1::2])


def test_a_client_that_fell_behind_gets_its_compressed_broadcasts_whole(crier):
    server = crier("--no-welcome", "--slow-grace", "60", "--ping", "0", workers=1)
    slow = connect_deflating(server, receive_buffer=4096)
    quick = connect_deflating(server)
    texts = [f"{number} {noise(1500).hex()}" for number in range(1500)]  # deflates to a bit more than a half
    feeder = server.feed("\n".join(texts).encode() + b"\n")
    quick.expect_texts(texts)
    feeder.join()
    assert server.counters()["sends_blocked"] > 0
    slow.expect_texts(texts)
    assert len(slow.compressed) == len(texts)


def test_after_the_death_of_the_worker_with_the_only_client_that_inflates_nothing_is_deflated(crier):
    server = crier("--no-welcome", workers=2)
    client = connect_deflating(server)
    server.line(words(100))
    client.expect_texts([words(100)])
    pid = server.worker_of(client)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the death of the worker")
    server.wait_log("was killed by signal 9")
    other = server.connect()
    server.line(words(100))
    other.expect_texts([words(100)])
    assert server.counters()["broadcast_deflate_calls"] == 1


# ---- windows ----

def test_a_client_with_a_small_window_gets_broadcasts_plain_and_its_echoes_in_its_window(crier):
    server = crier("--no-welcome", "--on-message", "both", workers=1)
    small = connect_deflating(server, offer="permessage-deflate; server_max_window_bits=10")
    assert "server_max_window_bits=10" in small.agreed
    far = (noise(3000).hex() + "#") * 3  # worth compressing across 6000 bytes, which this window cannot
    server.line(far)
    small.expect_texts([far])
    assert small.compressed == []
    assert server.counters()["broadcast_deflate_calls"] == 0  # no client could use it
    small.text(far)
    small.expect_texts([far])  # inflated in a window of 10 bits
    assert len(small.compressed) == 1

    large = connect_deflating(server)
    large.text(far)
    large.expect_texts([far])
    assert large.compressed[0] < small.compressed[0] / 2
    small.expect_texts([far])
    assert len(small.compressed) == 1


# ---- echoes ----

def test_echoes_are_compressed_for_each_client_and_counted_apart(crier):
    server = crier("--no-welcome", workers=1)
    client, plain = connect_deflating(server), server.connect()
    for text in (words(100), "short", words(20000)):
        for one in (client, plain):
            one.text(text)
            one.expect_texts([text])
    counters = server.counters()
    assert len(client.compressed) == counters["private_deflate_calls"] == 2
    assert counters["broadcast_deflate_calls"] == 0


def test_what_comes_compressed_in_pieces_with_pings_between_is_one_message(crier):
    client = connect_deflating(crier("--no-welcome", workers=1))
    packed = deflate(words(20000).encode())
    cuts = [0, 1, 2, 500, 501, len(packed) - 1, len(packed)]
    for number, (start, end) in enumerate(zip(cuts, cuts[1:])):
        client.send_raw(encode_frame(TEXT if number == 0 else 0, packed[start:end], fin=end == len(packed),
                                     rsv=4 if number == 0 else 0))
        client.send_frame(PING, b"%d" % number)
        frame = client.recv_frame() if end < len(packed) else None
        if frame:
            assert (frame.opcode, frame.payload) == (PONG, b"%d" % number)
    client.expect_texts([words(20000)])
    assert client.recv_frame().opcode == PONG


def test_a_message_of_another_client_is_no_context(crier):
    server = crier("--no-welcome", workers=1)
    secret = connect_deflating(server)
    secret.text("the password is swordfish " * 20)
    secret.recv_text()
    thief = connect_deflating(server)
    # A fixed block that copies 20 bytes from a distance of 30, before anything was said.
    thief.send_raw(encode_frame(TEXT, bytes.fromhex("02134000"), rsv=4))
    thief.expect_close(1007)


# ---- limits ----

def bomb(size):
    return deflate(b"\0" * size)


def test_what_inflates_to_the_longest_message_is_taken_and_one_byte_more_closes_with_1009(crier):
    server = crier("--no-welcome", "--max-message", "100000", workers=1)
    client = connect_deflating(server)
    client.send_raw(encode_frame(BINARY, bomb(100000), rsv=4))
    assert client.recv_message() == (BINARY, b"\0" * 100000)
    client.send_raw(encode_frame(BINARY, bomb(100001), rsv=4))
    client.expect_close(1009)


def test_a_message_counts_for_its_client_compressed_and_inflated_when_the_pool_is_used_up(crier):
    server = crier("--no-welcome", "--on-message", "drop", "--pool", "4M", workers=1)
    holders = [server.connect() for _ in range(6)]
    for holder in holders:  # six times less than half a megabyte
        holder.send_frame(BINARY, noise(400000), fin=False)
        holder.expect_pong()
    most = connect_deflating(server)
    packed = deflate(noise(900000))
    most.send_raw(encode_frame(BINARY, packed[:1000], fin=False, rsv=4))
    most.send_frame(CONTINUATION, packed[1000:])  # 900 kB, and as many of what it inflates to
    most.expect_close(1013)
    for holder in holders:
        holder.expect_pong()
    assert server.counters()["clients_overload_closed"] == 1


@pytest.mark.skipif(SANITIZED, reason="memory is measured")
def test_zip_bombs_end_with_1009_and_take_no_memory(crier):
    server = crier("--no-welcome", "--pool", "8M", workers=1)
    packed = bomb(200 << 20)

    def explode():
        client = connect_deflating(server)
        client.send_raw(encode_frame(BINARY, packed, rsv=4))
        client.expect_close(1009)

    for _ in range(5):
        explode()
    before = memory(server.workers())["private"]
    for _ in range(30):
        explode()
    assert memory(server.workers())["private"] - before < 1 << 20
    server.wait_counter("clients_protocol_closed", 35)


def test_a_flood_of_small_bombs_does_not_keep_others_waiting(crier):
    """Each inflates to a megabyte; a turn of the loop inflates one, then another client has its turn."""
    server = crier("--no-welcome", "--on-message", "drop", workers=1)
    flood, other = connect_deflating(server), server.connect()
    worker = server.workers()[0]
    frame = encode_frame(BINARY, bomb(1 << 20), rsv=4)
    count = 60000 // len(frame)  # fewer bytes than one turn receives
    meanwhile = []
    for turn in range(7):  # the other may come first in some, and this test be late in some
        os.kill(worker, signal.SIGSTOP)
        flood.send_raw(frame * count)
        other.send_frame(PING)
        os.kill(worker, signal.SIGCONT)
        assert other.recv_frame() == Frame(True, PONG, b"")
        os.kill(worker, signal.SIGSTOP)
        meanwhile.append(server.counters()["messages_inflated"] - turn * count)
        os.kill(worker, signal.SIGCONT)
        server.wait_counter("messages_received", (turn + 1) * count)
    assert sorted(meanwhile)[len(meanwhile) // 2] < count, meanwhile


# ---- off ----

def test_compress_off_agrees_to_nothing(crier):
    server = crier("--no-welcome", "--compress", "off", workers=1)
    client = server.connect(kind=DeflateClient)
    assert client.agreed is None
    client.text(words(1000))
    client.expect_texts([words(1000)])
    client.send_compressed(TEXT, b"hello")
    client.expect_close(1002)


def test_a_plain_client_is_sent_the_very_bytes_that_it_was_sent_before_there_was_compression(crier):
    server = crier("--no-welcome", workers=1)
    plain, _ = server.connect(), connect_deflating(server)
    text = words(100).encode()
    server.line(text)
    assert plain.read(len(server_frame(TEXT, text))) == server_frame(TEXT, text)
