"""RFC 6455 after the handshake: who breaks it is closed with the code that says so, and disturbs nobody."""

import struct

import pytest

from harness import (BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Closed, Disconnected, Frame, each_worker_count,
                     encode_frame)


def closed_with(crier, code, *frames, flags=()):
    """The frames get the sender closed with the code; another client is served before and after."""
    server = crier("--no-welcome", *flags)
    other = server.connect()
    client = server.connect()
    client.send_raw(b"".join(frames))
    client.expect_close(code)
    other.text("served")
    other.expect_texts(["served"])
    other.expect_pong()


# ---- 1002 ----

@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
def test_an_unmasked_frame_is_1002(crier, opcode):
    closed_with(crier, 1002, encode_frame(opcode, b"", mask=None))


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [TEXT, PING])
def test_reserved_bits_are_1002(crier, rsv, opcode):
    closed_with(crier, 1002, encode_frame(opcode, b"x", rsv=rsv))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_1002(crier, opcode):
    closed_with(crier, 1002, encode_frame(opcode, b"x"))


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_1002(crier, opcode):
    closed_with(crier, 1002, encode_frame(opcode, b"", fin=False))


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_of_126_bytes_is_1002(crier, opcode):
    closed_with(crier, 1002, encode_frame(opcode, struct.pack(">H", 1000) + b"x" * 124))


def test_a_continuation_of_nothing_is_1002(crier):
    closed_with(crier, 1002, encode_frame(CONTINUATION, b"x"))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_new_message_within_a_message_is_1002(crier, opcode):
    closed_with(crier, 1002, encode_frame(TEXT, b"x", fin=False), encode_frame(opcode, b"y"))


def test_a_length_with_its_highest_bit_set_is_refused(crier):
    closed_with(crier, (1002, 1009), encode_frame(BINARY, b"", declared=1 << 63))


# ---- 1009 ----

def test_a_header_that_announces_2_to_the_62_bytes_is_1009_at_once(crier):
    closed_with(crier, 1009, encode_frame(BINARY, b"", declared=1 << 62))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_longer_than_the_longest_is_1009(crier, opcode):
    closed_with(crier, 1009, encode_frame(opcode, b"x" * 1001), flags=["--max-message", "1000"])


def test_the_header_alone_is_enough_for_1009(crier):
    closed_with(crier, 1009, encode_frame(TEXT, b"", declared=(1 << 20) + 1))


def test_fragments_that_add_up_to_more_than_the_longest_message_are_1009(crier):
    closed_with(crier, 1009, encode_frame(BINARY, b"x" * 600, fin=False), encode_frame(CONTINUATION, b"x" * 401),
                flags=["--max-message", "1000"])


def test_the_longest_message_is_taken_in_one_frame_and_in_fragments(crier):
    client = crier("--no-welcome", "--max-message", "1000").connect()
    client.binary(b"x" * 1000)
    client.send_frame(BINARY, b"y" * 600, fin=False)
    client.send_frame(CONTINUATION, b"y" * 400)
    assert client.recv_message() == (BINARY, b"x" * 1000)
    assert client.recv_message() == (BINARY, b"y" * 1000)


# ---- 1007 ----

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


def test_bad_utf8_in_a_later_fragment_is_1007(crier):
    closed_with(crier, 1007, encode_frame(TEXT, b"good ", fin=False), encode_frame(CONTINUATION, b"\xe2\x28\xa1"))


def test_a_message_that_ends_within_a_character_is_1007(crier):
    closed_with(crier, 1007, encode_frame(TEXT, b"\xe2", fin=False), encode_frame(CONTINUATION, b"\x98"))


def test_binary_may_hold_any_bytes(crier):
    client = crier("--no-welcome").connect()
    client.binary(bytes(range(256)))
    assert client.recv_frame() == Frame(True, BINARY, bytes(range(256)))


# ---- closing ----

@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(crier, code):
    client = crier("--no-welcome").connect()
    client.close(code, "grüße".encode())
    client.expect_close(code, answer=False)


def test_a_close_without_code_is_answered(crier):
    client = crier("--no-welcome").connect()
    client.close(None)
    client.expect_close((None, 1000), answer=False)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_a_close_with_a_code_that_must_not_be_sent_is_1002(crier, code):
    client = crier("--no-welcome").connect()
    client.close(code)
    client.expect_close(1002, answer=False)


def test_a_close_with_half_a_code_is_1002(crier):
    client = crier("--no-welcome").connect()
    client.send_frame(CLOSE, b"\x03")
    client.expect_close(1002, answer=False)


def test_a_close_whose_reason_is_not_utf8_is_refused(crier):
    client = crier("--no-welcome").connect()
    client.close(1000, b"\xff\xfe")
    client.expect_close((1002, 1007), answer=False)


def test_what_was_sent_before_a_close_is_answered_before_it(crier):
    client = crier("--no-welcome").connect()
    client.send_raw(b"".join(encode_frame(TEXT, b"%d" % i) for i in range(50)) +
                    encode_frame(CLOSE, struct.pack(">H", 1000)))
    client.expect_texts(str(i) for i in range(50))
    client.expect_close(1000, answer=False)


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


# ---- ping ----

@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))])
def test_a_ping_is_answered_with_its_payload(crier, payload):
    client = crier("--no-welcome").connect()
    client.expect_pong(payload)


def test_many_pings_are_answered_in_order(crier):
    client = crier("--no-welcome").connect()
    client.send_raw(b"".join(encode_frame(PING, b"%d" % i) for i in range(1000)))
    for i in range(1000):
        assert client.recv_frame() == Frame(True, PONG, b"%d" % i)


def test_a_pong_that_nobody_asked_for_is_ignored(crier):
    client = crier("--no-welcome").connect()
    client.send_frame(PONG, b"by the way")
    client.expect_pong()


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
