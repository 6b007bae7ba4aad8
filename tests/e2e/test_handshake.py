"""The opening handshake: strict, bounded, timed; what is wrong is said in proper HTTP."""

import re
import socket
import time

import pytest

from harness import PATIENCE, TEXT, each_worker_count, encode_frame

SLACK = PATIENCE / 15


def assert_sentence(answer):
    """A body that a person can read, of the announced length, and the end of the connection announced."""
    body = answer.body.decode()
    assert len(body.split()) >= 3, f"no sentence in the body: {answer}"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "close" in answer.headers.get("connection", "").lower().split(", "), answer
    assert answer.headers.get("content-type", "").startswith("text/"), answer


def refused(crier, status, data=None, flags=(), **request):
    """The answer to a handshake that is refused; afterwards the connection ends and others are served."""
    server = crier("--no-welcome", *flags)
    client = server.socket()
    client.send_raw(client.request(**request) if data is None else data)
    answer = client.read_response()
    allowed = status if isinstance(status, tuple) else (status,)
    assert answer.status in allowed, f"expected {status}, got {answer}"
    assert_sentence(answer)
    assert client.read_to_end()[0] == b""
    other = server.connect()
    other.text("served")
    other.expect_texts(["served"])
    return answer


# ---- what is right ----

def accepted(crier, flags=(), **request):
    client = crier("--no-welcome", *flags).connect(request=request)
    client.text("hello")
    client.expect_texts(["hello"])


@pytest.mark.parametrize("path", ["/", "/chat", "/a/b/c.html", "/?token=1", "/x?since=9&y=%20", "/%e2%98%82",
                                  "/" + "long" * 1000], ids=lambda path: path[:20])
def test_any_path_and_query_is_accepted(crier, path):
    accepted(crier, path=path)


@pytest.mark.parametrize("replace", [
    {"Connection": "keep-alive, Upgrade"},
    {"Connection": "UPGRADE"},
    {"Connection": "foo,upgrade ,bar"},
    {"Upgrade": "WebSocket"},
    {"Upgrade": "h2c, websocket"},
    {"Host": "example.org"},
    {"Host": "example.org:81"},
    {"Host": "[::1]:8080"},
])
def test_tokens_are_lists_without_regard_to_case(crier, replace):
    accepted(crier, replace=replace)


def test_names_of_headers_have_no_case_and_values_any_blanks(crier):
    client = crier("--no-welcome").socket()
    client.send_raw(b"GET / HTTP/1.1\r\nhOST:x\r\nUPGRADE: \t websocket \t\r\nconnection:Upgrade\r\n"
                    b"sec-websocket-KEY:   dGhlIHNhbXBsZSBub25jZQ==  \r\nsec-websocket-version:13\r\n\r\n")
    client.expect_open()


def test_unknown_headers_subprotocols_and_extensions_are_let_pass_and_not_agreed_to(crier):
    # expect_open() refuses an answer that agrees to either.
    accepted(crier, headers=[("Cookie", "a=b; c=d"), ("X-Thing", ""), ("Sec-WebSocket-Protocol", "chat, superchat"),
                             ("Sec-WebSocket-Extensions", "foo; bar=1")])


def test_a_connection_header_in_two_lines_is_one_list(crier):
    accepted(crier, replace={"Connection": "keep-alive"}, headers=[("Connection", "Upgrade")])


def test_the_accept_is_made_from_the_clients_key(crier):
    key = b"AQIDBAUGBwgJCgsMDQ4PEA=="
    client = crier("--no-welcome").socket()
    client.send_raw(client.request(replace={"Sec-WebSocket-Key": key.decode()}))
    client.expect_open(key=key)


def test_a_handshake_may_come_one_byte_at_a_time(crier):
    client = crier("--no-welcome").socket()
    for byte in client.request():
        client.send_raw(bytes([byte]))
    client.expect_open()


def test_eight_kib_of_headers_are_still_accepted(crier):
    accepted(crier, headers=[("X-Filler", "x" * 7900)])


# ---- what is wrong ----

@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_405(crier, method):
    server = crier("--no-welcome")
    client = server.socket()
    client.send_raw(client.request(method=method))
    data, _ = client.read_to_end()
    assert data.startswith(b"HTTP/1.1 405 "), data
    assert re.search(rb"(?im)^allow: *GET\r$", data), f"405 says which method is right: {data}"


def test_no_host_is_400(crier):
    refused(crier, 400, without=["Host"])


def test_two_hosts_are_400(crier):
    refused(crier, 400, headers=[("Host", "other")])


def test_plain_http_is_426(crier):
    answer = refused(crier, 426, without=["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    assert answer.headers.get("upgrade", "").lower() == "websocket", answer


def test_no_upgrade_is_426(crier):
    answer = refused(crier, 426, without=["Upgrade"])
    assert answer.headers.get("upgrade", "").lower() == "websocket", answer


def test_an_upgrade_to_something_else_is_refused(crier):
    refused(crier, (400, 426), replace={"Upgrade": "h2c"})


def test_a_connection_header_without_upgrade_is_refused(crier):
    refused(crier, (400, 426), replace={"Connection": "keep-alive"})


@pytest.mark.parametrize("key", ["", "short", "AQIDBAUGBwgJCgsMDQ4P", "AQIDBAUGBwgJCgsMDQ4PEBES",
                                 "AQIDBAUGBwgJCgsMDQ4PEA", "AQIDBAUGBwgJCgsMDQ4P!A==", "A" * 200],
                         ids=["empty", "short", "15 bytes", "18 bytes", "no padding", "bad character", "long"])
def test_a_key_that_is_not_16_bytes_is_400(crier, key):
    refused(crier, 400, replace={"Sec-WebSocket-Key": key})


def test_no_key_is_400(crier):
    refused(crier, 400, without=["Sec-WebSocket-Key"])


def test_two_keys_are_400(crier):
    refused(crier, 400, headers=[("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")])


@pytest.mark.parametrize("version", ["8", "0", "12", "14", "130"])
def test_another_version_is_426_and_names_13(crier, version):
    answer = refused(crier, 426, replace={"Sec-WebSocket-Version": version})
    assert answer.headers.get("sec-websocket-version") == "13", answer


def test_no_version_is_refused(crier):
    refused(crier, (400, 426), without=["Sec-WebSocket-Version"])


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9"])
def test_another_http_version_is_505(crier, version):
    refused(crier, 505, version=version)


@pytest.mark.parametrize("data", [
    b"GARBAGE\r\n\r\n",
    b"\r\n\r\n\r\n\r\nhello?\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBad: \0\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTPS/1.1\r\nHost: x\r\n\r\n",
    b": HTTP/1.1\r\n\r\n",
    bytes(range(256)) + b"\r\n\r\n",
], ids=["one word", "blank lines", "no version", "two blanks", "blank at the end", "no colon", "blank before colon",
        "folded", "NUL", "control byte", "other protocol", "no method", "every byte"])
def test_garbage_is_400(crier, data):
    refused(crier, 400, data=data)


def test_a_tls_hello_does_not_stay_for_ever(crier):
    server = crier("--no-welcome", "--handshake-timeout", "0.5")
    client = server.socket()
    client.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
    data, _ = client.read_to_end()
    assert data == b"" or data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), data


@pytest.mark.parametrize("headers", [
    [("X-Long", "x" * 8200)],
    [(f"X-{number}", "y" * 50) for number in range(200)],
    [("X" * 9000, "long name")],
], ids=["long value", "many", "long name"])
def test_headers_of_more_than_8_kib_are_431(crier, headers):
    refused(crier, 431, headers=headers)


def test_a_header_that_never_ends_is_431_and_read_no_further(crier):
    server = crier("--no-welcome")
    client = server.socket()
    client.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    client.send_raw(b"x" * 8192)
    assert client.read_response().status == 431


def test_a_request_line_that_never_ends_is_refused(crier):
    server = crier("--no-welcome")
    client = server.socket()
    client.send_raw(b"GET /" + b"x" * 9000)
    assert client.read_response().status in (414, 431)


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
    assert 0.3 < seconds < 3 * SLACK, f"after {seconds:g} s"


def test_a_slow_loris_gets_no_more_time_for_each_byte(crier):
    server = crier("--no-welcome", "--handshake-timeout", "0.5")
    client = server.socket()
    begin, data = time.monotonic(), b""
    for byte in client.request():
        # A byte every 50 ms, until there is an answer.
        client.send_raw(bytes([byte]))
        client.socket.settimeout(0.05)
        try:
            data = client.socket.recv(4096)
        except socket.timeout:
            continue
        break
    assert data.startswith(b"HTTP/1.1 408 "), data
    assert time.monotonic() - begin < 3 * SLACK


def test_the_handshake_time_does_not_count_for_open_clients(crier):
    server = crier("--no-welcome", "--handshake-timeout", "0.2")
    client = server.connect()
    silent = server.socket()
    assert silent.read_response().status == 408
    client.text("still here")
    client.expect_texts(["still here"])


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


@pytest.mark.parametrize("origin", ["https://a.example", "http://b.example:8080", "HTTPS://A.EXAMPLE"])
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
