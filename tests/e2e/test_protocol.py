"""A client that breaks the protocol, closes, or falls silent disturbs no other. What breaks it is a table: tests/conform."""

import struct

import pytest

from harness import (BINARY, CLOSE, TEXT, Closed, Disconnected, each_worker_count, encode_frame)


@pytest.mark.parametrize("code, frame", [(1002, encode_frame(TEXT, b"x", rsv=2)), (1007, encode_frame(TEXT, b"\xff")),
                                         (1009, encode_frame(TEXT, b"x" * 1001))], ids=["1002", "1007", "1009"])
def test_who_breaks_the_protocol_is_closed_and_disturbs_nobody(crier, code, frame):
    server = crier("--no-welcome", "--max-message", "1000")
    other = server.connect()
    client = server.connect()
    client.send_raw(frame)
    client.expect_close(code)
    other.text("served")
    other.expect_texts(["served"])
    other.expect_pong()


@pytest.mark.parametrize("bad", [b"\xff", b"abc\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x98",
                                 b"x" * 4000 + b"\xc3", b"\xf8\x88\x80\x80\x80"],
                         ids=["ff", "lone continuation", "overlong", "surrogate", "above", "cut", "cut late",
                              "5 bytes"])
@pytest.mark.parametrize("mode", ["echo", "broadcast", "both", "drop"])
def test_text_that_is_not_utf8_is_1007(crier, bad, mode):
    server = crier("--no-welcome", "--on-message", mode)
    other = server.connect()
    client = server.connect()
    client.text(bad)
    client.expect_close(1007)
    other.expect_pong()  # and has got nothing of it


# ---- closing ----

def test_what_comes_behind_a_close_is_ignored(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    other = server.connect()
    client = server.connect()
    client.send_raw(encode_frame(CLOSE, struct.pack(">H", 1000)) + encode_frame(TEXT, b"too late"))
    client.expect_close_frame(1000)
    server.line("that is all")
    assert other.texts_until("that is all") == []


def test_nothing_is_sent_behind_a_close(crier):
    server = crier("--no-welcome")
    client = server.connect()
    other = server.connect()
    client.send_frame(TEXT, b"\xff")
    client.expect_close_frame(1007)
    server.line("for those who are there")
    other.expect_texts(["for those who are there"])
    client.close(1007)
    assert client.read_to_end()[0] == b""


def test_a_client_that_does_not_answer_a_close_is_let_go_in_time(crier):
    server = crier("--no-welcome")
    client = server.connect()
    client.send_frame(TEXT, b"\xff")
    client.expect_close_frame(1007)
    data, _ = client.read_to_end(30)
    assert data == b""


# ---- others ----

@each_worker_count
@pytest.mark.parametrize("half", [b"\x81", b"\x81\xfe\x01", encode_frame(TEXT, b"y" * 1000)[:700],
                                  encode_frame(BINARY, b"part", fin=False)],
                         ids=["first byte", "length", "payload", "fragment"])
def test_half_a_frame_and_silence_disturb_nobody(crier, workers, half):
    server = crier("--no-welcome", workers=workers)
    places = server.connect_everywhere(workers, at_least=2)
    for clients in places.values():
        clients[0].send_raw(half)
    for number in range(50):
        server.line(f"line {number}")
    for clients in places.values():
        clients[1].text("echo")
        texts = [clients[1].recv_text() for _ in range(51)]
        assert [text for text in texts if text != "echo"] == [f"line {number}" for number in range(50)]
        # The silent one gets broadcasts all the same.
        clients[0].expect_texts(f"line {number}" for number in range(50))


@pytest.mark.parametrize("flag", ["--on-message=echo", "--on-message=broadcast"])
def test_a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing(crier, flag):
    server = crier("--no-welcome", flag, workers=2)
    places = server.connect_everywhere(2, at_least=2)
    for clients in places.values():
        clients[0].send_frame(TEXT, b"never finished", fin=False)
        clients[0].expect_pong()
        clients[0].reset()
    server.line("that is all")
    for clients in places.values():
        assert clients[1].texts_until("that is all") == []


def test_the_end_of_the_stream_without_a_close_is_noticed(crier):
    server = crier("--no-welcome")
    client = server.connect()
    client.socket.shutdown(1)
    try:
        while True:
            client.recv_message()
    except (Closed, Disconnected):
        pass
