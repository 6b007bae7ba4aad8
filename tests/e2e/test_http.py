"""What is answered to requests that are no handshakes, one table; what may be a handshake is tests/conform.

Each row is sent in one write and cut in two at every byte, and must get the same answer.
"""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from harness import RawClient, Server, wait_until

SENTENCE = "a sentence"  # of three words at least, in plain text
PAGE, HEALTHY = "the page", b"ok\n"
NOTHING = None

ALLOW = {"allow": "GET, HEAD, OPTIONS"}
UPGRADE = {"upgrade": "websocket", "sec-websocket-version": "13", "connection": "close, Upgrade"}
WEBSOCKET = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")

# the request line, its headers,                                              the status, content and headers; RFC
TABLE = [
    ("GET / HTTP/1.1", ["Host: x"],                                           200, PAGE, {}, "9110 9.3.1"),
    ("GET / HTTP/1.1", ["Host: x", "Accept: */*"],                            200, PAGE, {}, "9110 12.5.1"),
    ("GET / HTTP/1.1", ["Host: x", "Accept: text/html;q=0.9, */*;q=0.1"],     200, PAGE, {}, "9110 12.5.1"),
    ("GET / HTTP/1.1", ["Host: x", "Accept: application/json"],               200, PAGE, {}, "9110 12.5.1"),
    ("GET /?a=b HTTP/1.1", ["Host: x"],                                       200, PAGE, {}, "9112 3.2.1"),
    ("GET http://x HTTP/1.1", ["Host: x"],                                    200, PAGE, {}, "9112 3.2.2"),
    ("GET http://y/ HTTP/1.1", ["Host: x"],                                   200, PAGE, {}, "9112 3.2.2"),
    ("GET / HTTP/1.1", ["Host: x", "Connection: keep-alive"],                 200, PAGE, {}, "9112 9.6"),
    ("GET / HTTP/1.1", ["Host: x", "Connection: close"],                      200, PAGE, {}, "9112 9.6"),
    ("GET / HTTP/1.1", ["Host: x", "Connection: Upgrade", "Upgrade: h2c"],    200, PAGE, {}, "9110 7.8"),
    ("GET / HTTP/1.1", ["Host: x", "Expect: 100-continue"],                   200, PAGE, {}, "9110 10.1.1"),
    ("GET / HTTP/1.1", ["Host: x", "Range: bytes=0-9"],                       200, PAGE, {}, "9110 14.2"),
    ("GET / HTTP/1.1", ["Host: x", "Content-Length: 0"],                      200, PAGE, {}, "9112 6.3"),
    ("GET / HTTP/1.0", [],                                                    200, PAGE, {}, "9112 3.2"),
    ("GET / HTTP/1.0", ["Host: x", "Connection: keep-alive"],                 200, PAGE, {}, "9112 9.3"),
    ("GET / HTTP/1.7", ["Host: x"],                                           200, PAGE, {}, "9110 2.5"),
    ("\r\nGET / HTTP/1.1", ["Host: x"],                                       200, PAGE, {}, "9112 2.2"),
    ("HEAD / HTTP/1.1", ["Host: x"],                                          200, NOTHING, {}, "9110 9.3.2"),
    ("\r\nHEAD / HTTP/1.1", ["Host: x"],                                      200, NOTHING, {}, "9110 9.3.2"),
    ("HEAD / HTTP/1.0", [],                                                   200, NOTHING, {}, "9110 9.3.2"),
    ("HEAD / HTTP/1.1", ["Host: x", *WEBSOCKET],                              200, NOTHING, {}, "9110 7.8"),
    ("GET /_/healthz HTTP/1.1", ["Host: x"],                                  200, HEALTHY, {"cache-control": "no-store"}, "9110 9.3.1"),
    ("GET /_/healthz?x HTTP/1.1", ["Host: x"],                                200, HEALTHY, {}, "9110 9.3.1"),
    ("GET http://x/_/healthz HTTP/1.1", ["Host: x"],                          200, HEALTHY, {}, "9112 3.2.2"),
    ("GET /_/healthz HTTP/1.0", [],                                           200, HEALTHY, {}, "9112 3.2"),
    ("GET /_/healthz HTTP/1.1", ["Host: x", *WEBSOCKET],                      200, HEALTHY, {}, "9110 7.8"),
    ("HEAD /_/healthz HTTP/1.1", ["Host: x"],                                 200, NOTHING, {}, "9110 9.3.2"),
    ("GET /%5F/%68ealthz HTTP/1.1", ["Host: x"],                              200, HEALTHY, {}, "9110 4.2.3"),
    ("GET / HTTP/1.1", ["Host: x", 'If-None-Match: "a"'],                     200, PAGE, {}, "9110 13.1.2"),
    ("GET / HTTP/1.1", ["Host: x", "If-Match: *"],                            200, PAGE, {}, "9110 13.1.1"),
    ("OPTIONS / HTTP/1.0", [],                                                204, NOTHING, ALLOW, "9110 9.3.7"),
    ("OPTIONS / HTTP/1.1", ["Host: x"],                                       204, NOTHING, ALLOW, "9110 9.3.7"),
    ("OPTIONS * HTTP/1.1", ["Host: x"],                                       204, NOTHING, ALLOW, "9112 3.2.4"),
    ("OPTIONS http://x HTTP/1.1", ["Host: x"],                                204, NOTHING, ALLOW, "9112 3.2.4"),
    ("OPTIONS /chat HTTP/1.1", ["Host: x", "Origin: http://y"],               204, NOTHING, ALLOW, "9110 9.3.7"),
    ("OPTIONS /_/healthz HTTP/1.1", ["Host: x"],                              204, NOTHING, ALLOW, "9110 9.3.7"),
    ("GET / HTTP/1.1", ["Host: x", "If-None-Match: *"],                       304, NOTHING, {"cache-control": "no-cache"}, "9110 13.1.2"),
    ("HEAD /_/healthz HTTP/1.1", ["Host: x", "If-None-Match: *"],             304, NOTHING, {}, "9110 13.1.2"),
    ("GET / HTTP/1.1", [],                                                    400, SENTENCE, {}, "9112 3.2"),
    ("HEAD / HTTP/1.1", [],                                                   400, NOTHING, {}, "9110 9.3.2"),
    ("GET / HTTP/1.1", ["Host: x", "Host: x"],                                400, SENTENCE, {}, "9112 3.2"),
    ("GET / HTTP/1.0", ["Host: x", "Host: y"],                                400, SENTENCE, {}, "9112 3.2"),
    ("GET / HTTP/1.1", ["Host: a b"],                                         400, SENTENCE, {}, "9112 3.2"),
    ("GET / HTTP/1.1", ["Host:"],                                             400, SENTENCE, {}, "9112 3.2"),
    ("GET http://x/ HTTP/1.1", [],                                            400, SENTENCE, {}, "9112 3.2"),
    ("GET http://u@x/ HTTP/1.1", ["Host: x"],                                 400, SENTENCE, {}, "9110 4.2.4"),
    ("GET * HTTP/1.1", ["Host: x"],                                           400, SENTENCE, {}, "9112 3.2.4"),
    ("GET x HTTP/1.1", ["Host: x"],                                           400, SENTENCE, {}, "9112 3.2"),
    ("GET /#x HTTP/1.1", ["Host: x"],                                         400, SENTENCE, {}, "9112 3.2"),
    ("GET /\x01 HTTP/1.1", ["Host: x"],                                       400, SENTENCE, {}, "9112 3"),
    ("GET  / HTTP/1.1", ["Host: x"],                                          400, SENTENCE, {}, "9112 3"),
    ("GET / http/1.1", ["Host: x"],                                           400, SENTENCE, {}, "9112 2.3"),
    ("GET /", [],                                                             400, SENTENCE, {}, "9112 3"),
    ("\r\n\r\nGET / HTTP/1.1", ["Host: x"],                                   400, SENTENCE, {}, "9112 2.2"),
    (" GET / HTTP/1.1", ["Host: x"],                                          400, SENTENCE, {}, "9112 3"),
    ("\x16\x03\x01", [],                                                      400, SENTENCE, {}, "9112 3"),
    ("PROXY TCP4 127.0.0.1 127.0.0.1 1 2", [],                                400, SENTENCE, {}, "9112 3"),
    ("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", [],                            400, SENTENCE, {}, "9112 3"),
    ("GET / HTTP/1.1", [" Host: x"],                                          400, SENTENCE, {}, "9112 2.2"),
    ("GET / HTTP/1.1", ["Host: x", "X: a\r\n b"],                             400, SENTENCE, {}, "9112 5.2"),
    ("GET / HTTP/1.1", ["Host : x"],                                          400, SENTENCE, {}, "9112 5.1"),
    ("GET / HTTP/1.1", ["Host: x", "X: a\x00"],                               400, SENTENCE, {}, "9110 5.5"),
    ("GET / HTTP/1.1", ["Host: x", "X: a\rb"],                                400, SENTENCE, {}, "9112 2.2"),
    ("GET / HTTP/1.1", ["Host: x", "X: a\nY: b"],                             400, SENTENCE, {}, "9112 2.2"),
    ("GET / HTTP/1.1", ["Host: x", "Content-Length: x"],                      400, SENTENCE, {}, "9112 6.3"),
    ("GET / HTTP/1.1", ["Host: x", "Content-Length: 1, 1"],                   400, SENTENCE, {}, "9112 6.3"),
    ("POST / HTTP/1.1", ["Host: x", "Content-Length: 1", "Content-Length: 2"], 400, SENTENCE, {}, "9112 6.3"),
    ("POST / HTTP/1.1", ["Host: x", "Content-Length: 1", "Transfer-Encoding: chunked"], 400, SENTENCE, {}, "9112 6.1"),
    ("POST / HTTP/1.1", ["Host: x", "Transfer-Encoding: identity"],           400, SENTENCE, {}, "9112 6.3"),
    ("POST / HTTP/1.0", ["Transfer-Encoding: chunked"],                       400, SENTENCE, {}, "9112 6.1"),
    ("GET /_/ HTTP/1.1", ["Host: x"],                                         404, SENTENCE, {}, "9110 15.5.5"),
    ("GET /_/x HTTP/1.1", ["Host: x", *WEBSOCKET],                            404, SENTENCE, {}, "9110 15.5.5"),
    ("GET /%5F/x HTTP/1.1", ["Host: x", *WEBSOCKET],                          404, SENTENCE, {}, "9110 15.5.5"),
    ("HEAD /_/x HTTP/1.1", ["Host: x"],                                       404, NOTHING, {}, "9110 9.3.2"),
    *((f"{method} / HTTP/1.1", ["Host: x"],                                   405, SENTENCE, ALLOW, "9110 15.5.6")
      for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE")),
    ("CONNECT x:80 HTTP/1.1", ["Host: x"],                                    405, SENTENCE, ALLOW, "9112 3.2.3"),
    ("POST / HTTP/1.1", ["Host: x", "Content-Length: 5"],                     405, SENTENCE, ALLOW, "9110 15.5.6"),
    ("POST /_/healthz HTTP/1.1", ["Host: x", *WEBSOCKET],                     405, SENTENCE, ALLOW, "9110 15.5.6"),
    ("GET / HTTP/1.1", ["Host: x", 'If-Match: "a"'],                          412, SENTENCE, {}, "9110 13.1.1"),
    ("HEAD / HTTP/1.1", ["Host: x", 'If-Match: "a"'],                         412, NOTHING, {}, "9110 13.1.1"),
    ("GET / HTTP/1.1", ["Host: x", "Content-Length: 5"],                      413, SENTENCE, {}, "9110 9.3.1"),
    ("HEAD / HTTP/1.1", ["Host: x", "Content-Length: 5"],                     413, NOTHING, {}, "9110 9.3.2"),
    ("OPTIONS / HTTP/1.1", ["Host: x", "Content-Length: 5"],                  413, SENTENCE, {}, "9110 9.3.7"),
    ("GET / HTTP/1.1", ["Host: x", "Transfer-Encoding: chunked"],             413, SENTENCE, {}, "9110 9.3.1"),
    ("GET / HTTP/1.1", ["Host: x", "Content-Length: 5", "Expect: 100-continue"], 413, SENTENCE, {}, "9110 10.1.1"),
    ("GET /" + "x" * 8192, [],                                                414, SENTENCE, {}, "9112 3"),
    ("GET /chat HTTP/1.1", ["Host: x"],                                       426, SENTENCE, UPGRADE, "9110 15.5.22"),
    ("GET /chat HTTP/1.0", [],                                                426, SENTENCE, UPGRADE, "9110 15.5.22"),
    ("HEAD /chat HTTP/1.1", ["Host: x"],                                      426, NOTHING, UPGRADE, "9110 9.3.2"),
    ("GET / HTTP/1.0", ["Host: x", *WEBSOCKET],                               426, SENTENCE, UPGRADE, "9110 7.8"),
    ("GET / HTTP/1.1", ["Host: x", *WEBSOCKET[2:]],                           426, SENTENCE, UPGRADE, "9110 7.8"),
    ("GET / HTTP/1.1", ["Host: x", *WEBSOCKET[:2], "Sec-WebSocket-Version: 8, 7", WEBSOCKET[3]], 426, SENTENCE, UPGRADE, "6455 4.4"),
    ("GET / HTTP/1.1", ["Host: x", "X: " + "x" * 8192],                       431, SENTENCE, {}, "6585 5"),
    ("GET / HTTP/1.1", ["Host: x", *("X: y" for _ in range(64))],             431, SENTENCE, {}, "6585 5"),
    *((f"{method} / HTTP/1.1", ["Host: x"],                                   501, SENTENCE, {}, "9110 9.1")
      for method in ("BREW", "get", "PROPFIND", "X" * 32)),
    ("X" * 33, [],                                                            501, SENTENCE, {}, "9112 3"),
    ("POST / HTTP/1.1", ["Host: x", "Transfer-Encoding: gzip, chunked"],      501, SENTENCE, {}, "9112 6.1"),
    ("GET / HTTP/0.9", ["Host: x"],                                           505, SENTENCE, {}, "9110 15.6.6"),
    ("PRI * HTTP/2.0", [],                                                    505, SENTENCE, {}, "9113 3.4"),
]
DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")


def bytes_of(line, headers):
    return "".join(f"{part}\r\n" for part in [line, *headers, ""]).encode("latin-1")


def answer_of(data):
    """The only answer, which ends the connection: status, headers, content."""
    head, end, content = data.partition(b"\r\n\r\n")
    assert end, f"no answer: {data[:200]!r}"
    first, *lines = head.decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 "), first
    headers = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon and name.lower() not in headers, lines
        headers[name.lower()] = value
    return int(first.split()[1]), headers, content


def check(data, status, expected, headers, page_bytes):
    got, got_headers, content = answer_of(data)
    assert got == status, data[:300]
    assert "close" in got_headers["connection"].split(", ")
    assert DATE.fullmatch(got_headers["date"])  # RFC 9110 section 6.6.1
    assert {name: got_headers.get(name) for name in headers} == headers
    assert ("allow" in got_headers) == (status in (204, 405)) and ("upgrade" in got_headers) == (status == 426)
    if status in (204, 304):  # RFC 9110 sections 8.6 and 15.4.5
        assert "content-length" not in got_headers and "content-type" not in got_headers
    if expected is NOTHING:
        assert content == b""
        return
    assert len(content) == int(got_headers["content-length"])
    if expected is SENTENCE:
        assert got_headers["content-type"].startswith("text/plain") and len(content.split()) >= 3
    elif expected is PAGE:
        assert got_headers["content-type"].startswith("text/html") and len(content) == page_bytes
    else:
        assert content == expected


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server for the whole table, on a unix socket: there the kernel tells when it has read what was sent."""
    path = str(tmp_path_factory.mktemp("http") / "socket")
    with Server("--no-welcome", listen=[f"unix:{path}"], workers=1, url=True) as server:
        server.path = path
        yield server


def ask(path, *parts):
    with RawClient(path) as client:
        for part in parts:
            try:
                client.send_raw(part)
            except (BrokenPipeError, ConnectionResetError):
                break
            wait_until(lambda: client.unsent() == 0 or client.is_readable(), "the server to read", interval=0)
        data, how = client.read_to_end()
    assert how == "eof", f"{how} after {data[:100]!r}"
    return data


def length_of(path, line):
    status, headers, content = answer_of(ask(path, bytes_of(line, ["Host: x"])))
    assert (status, int(headers["content-length"])) == (200, len(content))
    return len(content)


@pytest.mark.parametrize("line, headers, status, content, expected, section", TABLE,
                         ids=[f"{row[2]}-{number}-RFC-{row[5].replace(' ', '-')}" for number, row in enumerate(TABLE)])
def test_each_request_of_the_table_gets_its_answer(served, line, headers, status, content, expected, section):
    request = bytes_of(line, headers)
    page_bytes = length_of(served.path, "GET / HTTP/1.1")
    check(ask(served.path, request), status, content, expected, page_bytes)
    cuts = range(1, len(request)) if len(request) < 400 else (1, 8, len(request) // 2, len(request) - 1)
    for cut in cuts:
        check(ask(served.path, request[:cut], request[cut:]), status, content, expected, page_bytes)


@pytest.mark.parametrize("path", ["/", "/_/healthz", "/chat", "/_/x"])
def test_head_has_the_headers_of_get(served, path):
    heads = [answer_of(ask(served.path, bytes_of(f"{method} {path} HTTP/1.1", ["Host: x"]))) for method in ("GET", "HEAD")]
    for _, headers, _ in heads:
        headers.pop("date")
    assert heads[0][:2] == heads[1][:2] and heads[1][2] == b""


def test_what_follows_an_answered_request_is_no_second_request(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=1)
    second = b"GET /_/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for first in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 36\r\n\r\n",
                  b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n"):
        client = server.socket()
        client.send_raw(first + second)
        data, how = client.read_to_end()
        assert data.count(b"HTTP/1.1 ") == 1 and how == "eof", data
    counters = server.counters()
    assert (counters["requests_answered"], counters["refused_method"]) == (2, 1)


# ---- health ----

def health(server):
    client = server.socket()
    client.send_raw(b"GET /_/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return client.read_response().status


def test_health_is_answered_by_a_new_worker_when_the_old_one_has_died(crier):
    server = crier("--no-welcome", workers=1)
    assert health(server) == 200
    os.kill(server.workers()[0], signal.SIGKILL)
    assert health(server) == 200


def test_a_server_that_stops_is_not_healthy(crier):
    server = crier("--no-welcome", "--drain", "20", workers=1)
    stalled = server.connect()
    early = [server.socket() for _ in range(2)]
    wait_until(lambda: server.counters()["clients_accepted"] == 3, "the connections to be taken")
    early[0].send_raw(b"GET /_/healthz HTTP/1.1\r\nHost: ")
    early[1].send_raw(b"HEAD /_/healthz HTTP/1.1\r\nHost: ")
    server.wait_ticks(2)
    server.send_signal(signal.SIGTERM)
    answer = early[0].read_response()
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    status, headers, content = answer_of(early[1].read_to_end()[0])
    assert (status, content) == (503, b"") and int(headers["content-length"]) > 0
    stalled.drop()


# ---- other programs ----

def run(*command, **how):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **how)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("arguments, status, content", [
    ([], 200, b"<!doctype html>"), (["-I"], 200, b"HTTP/1.1 200 OK\r\n"), (["-0"], 200, b"<!doctype html>"),
    (["--http2"], 200, b"<!doctype html>"), (["-X", "OPTIONS"], 204, b""), (["-d", "x"], 405, b"A WebSocket"),
    (["-T", "/dev/null"], 405, b"A WebSocket"), (["-G", "-d", "x=y"], 200, b"<!doctype html>")])
def test_curl_is_served(crier, arguments, status, content):
    server = crier("--no-welcome", workers=1)
    host, port = server.address
    done = run("curl", "-sS", "--max-time", "30", "-w", "%{stderr}%{http_code}", *arguments, f"http://{host}:{port}/")
    assert (done.returncode, done.stderr) == (0, str(status).encode()), done
    assert done.stdout.startswith(content), done


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@pytest.mark.parametrize("checks", ["option httpchk", "option httpchk GET /_/healthz",
                                    "option httpchk\n  http-check send meth HEAD uri /_/healthz ver HTTP/1.1 hdr Host x"])
def test_a_check_of_haproxy_finds_the_server_up(crier, tmp_path, checks):
    server = crier("--no-welcome", workers=1)
    host, port = server.address
    config, control = tmp_path / "haproxy.cfg", tmp_path / "stats"
    config.write_text(f"global\n  stats socket {control} level admin\n"
                      "defaults\n  mode http\n  timeout connect 60s\n  timeout client 60s\n  timeout server 60s\n"
                      f"  timeout check 60s\nbackend crier\n  {checks}\n"
                      f"  server one {host}:{port} check inter 100ms rise 1 fall 1\n")
    proxy = subprocess.Popen(["haproxy", "-f", str(config), "-db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: proxy_status(str(control)) not in (None, ("UP", "INI")), "the first check")
        assert proxy_status(str(control)) == ("UP", "L7OK")
    finally:
        proxy.kill()
        proxy.wait()
    assert server.counters()["requests_answered"] > 0


def proxy_status(path):
    """How haproxy finds the server, and what the last check that is over said; None: haproxy does not answer yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(30)
        try:
            control.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        control.sendall(b"show stat\n")
        text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
    names, *rows = [line.split(",") for line in text.strip().splitlines()]
    found = next(dict(zip(names, row)) for row in rows if row[1] == "one")
    return found["status"], found["check_status"].lstrip("* ")
