"""The opening handshake in time, and from which pages. What its lines may be is a table: tests/conform."""

import time

import pytest

from harness import TEXT, Late, each_worker_count, encode_frame, in_time


def assert_sentence(answer):
    """A body that a person can read, of the announced length, and the end of the connection announced."""
    body = answer.body.decode()
    assert len(body.split()) >= 3, f"no sentence in the body: {answer}"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "close" in answer.headers.get("connection", "").lower().split(", "), answer
    assert answer.headers.get("content-type", "").startswith("text/"), answer


def refused(crier, status, flags=(), **request):
    """The answer to a handshake that is refused; afterwards the connection ends and others are served."""
    server = crier("--no-welcome", *flags)
    client = server.socket()
    client.send_raw(client.request(**request))
    answer = client.read_response()
    assert answer.status == status, f"expected {status}, got {answer}"
    assert_sentence(answer)
    assert client.read_to_end()[0] == b""
    other = server.connect()
    other.text("served")
    other.expect_texts(["served"])
    return answer


def accepted(crier, flags=(), **request):
    client = crier("--no-welcome", *flags).connect(request=request)
    client.text("hello")
    client.expect_texts(["hello"])


def test_a_tls_hello_does_not_stay_for_ever(crier):
    server = crier("--no-welcome", "--handshake-timeout", "0.5")
    client = server.socket()
    client.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
    data, _ = client.read_to_end()
    assert data == b"" or data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), data


# ---- time ----

@each_worker_count
@pytest.mark.parametrize("part", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "a byte", "a part"])
def test_a_handshake_that_does_not_come_is_408_after_its_time(crier, workers, part):
    server = crier("--no-welcome", "--handshake-timeout", "0.4", workers=workers)
    client = server.socket()
    begin = time.monotonic()
    client.send_raw(part)
    answer = client.read_response()
    seconds = time.monotonic() - begin
    assert answer.status == 408, answer
    assert_sentence(answer)
    assert 0.3 < seconds < 4.5, f"after {seconds:g} s"  # and not after the 5 s of the default


def test_a_slow_loris_gets_no_more_time_for_each_byte(crier):
    server = crier("--no-welcome", "--handshake-timeout", "0.5", workers=1)
    client = server.socket()
    sent = 0
    for byte in client.request():
        if client.has_input():
            break
        client.send_raw(bytes([byte]))
        sent += 1
        server.wait_ticks(1)
    assert client.read_response().status == 408
    assert sent < 20, f"{sent} bytes in {sent} ticks of a tenth of a second"


def test_the_handshake_time_does_not_count_for_open_clients(crier):
    def attempt(scale):
        server = crier("--no-welcome", "--handshake-timeout", str(0.2 * scale))
        client, silent = server.socket(), server.socket()
        client.send_raw(client.request())
        if client.read_head().startswith(b"HTTP/1.1 408 "):
            raise Late
        assert silent.read_response().status == 408
        client.text("still here")
        client.expect_texts(["still here"])

    in_time(attempt)


# ---- origin ----

def test_no_origin_is_no_browser_and_let_in(crier):
    accepted(crier)


def test_a_page_of_the_same_host_is_let_in(crier):
    server = crier("--no-welcome")
    host, port = server.address
    server.connect(request={"headers": [("Origin", f"http://{host}:{port}")]}).expect_pong()


def test_the_same_host_is_compared_without_regard_to_case(crier):
    accepted(crier, replace={"Host": "Example.ORG:8080"}, headers=[("Origin", "http://example.org:8080")])


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null",
                                    "http://127.0.0.1.evil.example"])
def test_a_page_from_elsewhere_gets_403_that_names_the_flag(crier, origin):
    answer = refused(crier, 403, headers=[("Origin", origin)])
    assert b"--origin" in answer.body, answer


@pytest.mark.parametrize("origin", ["http://evil.example", "https://a.example:444", "null"])
def test_any_lets_every_page_in(crier, origin):
    accepted(crier, flags=["--origin", "any"], headers=[("Origin", origin)])


LIST = ["--origin", "https://a.example,http://b.example:8080"]


@pytest.mark.parametrize("origin", ["https://a.example", "http://b.example:8080", "HTTPS://A.EXAMPLE", "https://a.example:443"])
def test_a_list_lets_its_pages_in(crier, origin):
    accepted(crier, flags=LIST, headers=[("Origin", origin)])


@pytest.mark.parametrize("origin", ["http://a.example", "http://b.example", "https://a.example.evil", "null",
                                    "https://a.example:444", "https://a.exampl"])
def test_a_list_refuses_all_others(crier, origin):
    answer = refused(crier, 403, flags=LIST, headers=[("Origin", origin)])
    assert b"--origin" in answer.body, answer


# ---- what is behind it ----

def test_frames_behind_a_refused_handshake_are_ignored(crier):
    server = crier("--no-welcome", "--on-message", "broadcast")
    other = server.connect()
    client = server.socket()
    client.send_raw(client.request(without=["Sec-WebSocket-Key"]) + encode_frame(TEXT, b"smuggled"))
    assert client.read_response().status == 400
    server.line("that is all")
    assert other.texts_until("that is all") == []
