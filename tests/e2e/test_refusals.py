"""Connections that do not become clients: each is counted by its cause, and logged, one line per second and cause."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

from harness import procs, wait_until

OTHERS = re.compile(r" \(and (\d+) more\)$")
CAUSES = ("malformed", "method", "path", "plain", "proxy", "handshake", "origin", "application", "timeout", "left", "stopping",
          "busy", "unwatched", "lost")


def refused(server, **request):
    """The status that a request gets."""
    client = server.socket()
    client.send_raw(client.request(**request))
    answer = client.read_response()
    assert answer.status >= 400, answer
    client.read_to_end()
    return answer.status


def raw(server, data):
    client = server.socket()
    client.send_raw(data)
    return client.read_response().status


def causes(server):
    """The causes that have happened, by their counters, whose sum must be that of all refusals."""
    counters = server.counters()
    counts = {cause: counters[f"refused_{cause}"] for cause in CAUSES}
    assert sum(counts.values()) == counters["clients_refused"], counters
    assert {name[8:] for name in counters if name.startswith("refused_")} == set(CAUSES)
    return {cause: count for cause, count in counts.items() if count}


def logged(server, pattern):
    """How many events the lines stand for in which the pattern is found."""
    lines = [line for line in server.log if re.search(pattern, line)]
    return sum(1 + int((OTHERS.search(line) or [0, 0])[1]) for line in lines)


ORIGIN = [("Origin", "http://evil.example:81")]
TABLE = [  # cause, flags, request, what the line says
    ("malformed", (), {"version": "HTTP/2.0"}, r'refused with 505, for "GET /": This server speaks'),
    ("malformed", (), {"without": ["Host"]}, r'refused with 400, for "GET /": The request has no Host header$'),
    *(("malformed", (), {"replace": {"Host": host}}, r'refused with 400, .*: The Host header is malformed \(an IPv6 address stands in brackets')
      for host in ("::1:8080", "[fe80::1%25lo]:8080")),
    ("method", (), {"method": "POST"}, r'refused with 405, for "POST /": A WebSocket is opened with GET$'),
    ("method", (), {"method": "BREW"}, r'refused with 501, for "BREW /": '),
    ("method", (), {"headers": [("Content-Length", "1")]}, r'refused with 413, for "GET /": '),
    ("path", (), {"path": "/_/x?y"}, r'refused with 404, for "GET /_/x\?y": '),
    ("plain", (), {"path": "/chat", "without": ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]},
     r'refused with 426, for "GET /chat": This is a WebSocket server'),
    ("proxy", (), {"without": ["Upgrade", "Connection"]}, r"refused with 426, for \"GET /\": .*proxy_set_header Upgrade \$http_upgrade"),
    ("proxy", (), {"version": "HTTP/1.0"}, r"refused with 426, for \"GET /\": .*proxy_http_version 1\.1"),
    ("handshake", (), {"without": ["Sec-WebSocket-Key"]}, r"refused with 400, .*: The Sec-WebSocket-Key header is missing$"),
    ("handshake", (), {"replace": {"Sec-WebSocket-Version": "8"}}, r"refused with 426, .*version 13"),
    ("origin", (), {"headers": ORIGIN, "replace": {"Host": "inner:8080"}},
     r'refused with 403: .*Origin "http://evil\.example:81".*Host, "inner:8080".*--origin.*proxy_set_header Host \$http_host'),
    ("origin", ("--origin", "http://a.example"), {"headers": ORIGIN, "replace": {"Host": "inner:8080"}},
     r'refused with 403: .*Origin "http://evil\.example:81" \(Host "inner:8080"\), which --origin does not list'),
    *(("origin", flags, {"headers": [("Origin", origin)], "replace": {"Host": "inner"}},
       rf'refused with 403: .*Origin "{origin}" \(Host "inner"\), which no list can name: only --origin any')
      for flags in ((), ("--origin", "http://a.example")) for origin in ("null", "file://", "http://a/b")),
]


@pytest.mark.parametrize("cause, flags, request_, line", TABLE, ids=[f"{n}-{row[0]}" for n, row in enumerate(TABLE)])
def test_a_refusal_is_counted_by_its_cause_and_logged_with_the_remedy(crier, cause, flags, request_, line):
    server = crier("--no-welcome", *flags, workers=1)
    refused(server, **request_)
    client = server.clients[0]
    said = server.wait_log(line)
    assert f"worker 1: {client.name} refused with " in said
    assert causes(server) == {cause: 1}


@pytest.mark.parametrize("first", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN\r\n",
                                   b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)])
def test_a_proxy_that_sends_the_proxy_protocol_is_named(crier, first):
    server = crier("--no-welcome", workers=1)
    assert raw(server, first + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == 400
    server.wait_log("refused with 400.*: This is the PROXY protocol, .*haproxy: no send-proxy")
    assert causes(server) == {"malformed": 1}


WARNINGS = ("proxy", "origin")


@pytest.mark.parametrize("cause, flags, request_, line", TABLE, ids=[f"{n}-{row[0]}" for n, row in enumerate(TABLE)])
def test_quiet_shows_only_what_an_operator_can_end(crier, cause, flags, request_, line):
    server = crier("--no-welcome", "-q", *flags, workers=1, url=False)
    address = wait_until(lambda: listening(server), "the server to listen")
    client = server.socket(address)
    client.send_raw(client.request(**request_))
    assert client.read_response().status >= 400
    server.stop()
    wait_until(lambda: "(end of stderr)" in server.log, "the end of the log")
    assert any(re.search(line, said) for said in server.log) == (cause in WARNINGS), server.log


def listening(server):
    """The address of a server that does not say it."""
    inodes = {target for pid in [server.pid] for target in procs.descriptors(pid).values() if target.startswith("socket:")}
    with open("/proc/net/tcp") as table:
        for row in map(str.split, table):
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes:
                return "127.0.0.1", int(row[1].rpartition(":")[2], 16)
    return None


def test_a_client_that_does_not_speak_or_leaves_is_told_of_with_verbose_only(crier):
    for verbose in (True, False):
        server = crier("--no-welcome", "--handshake-timeout", "0.3", *(["-v"] if verbose else []), workers=1)
        silent, half, leaving = (server.socket() for _ in range(3))
        half.send_raw(b"GET / HTTP/1.1\r\n")
        leaving.send_raw(b"GET / HT")
        leaving.drop()
        for client in (silent, half):
            assert client.read_response().status == 408
        server.wait_counter("refused_left", 1)
        assert causes(server) == {"timeout": 2, "left": 1}
        server.stop()
        wait_until(lambda: "(end of stderr)" in server.log, "the end of the log")
        assert logged(server, "has left before its handshake was complete") == int(verbose)
        assert logged(server, "refused with 408") == 1 + int(verbose)


def test_many_refusals_have_few_lines_and_none_is_lost(crier):
    server = crier("--no-welcome", workers=1)
    begin = time.monotonic()
    for _ in range(300):
        assert raw(server, b"\x00") == 400
        assert refused(server, headers=ORIGIN) == 403
    server.drop_clients()
    assert causes(server) == {"malformed": 300, "origin": 300}
    server.stop()
    wait_until(lambda: "(end of stderr)" in server.log, "the end of the log")
    for pattern in ("refused with 400", "refused with 403"):
        assert logged(server, pattern) == 300
        assert sum(1 for line in server.log if re.search(pattern, line)) <= 2 + time.monotonic() - begin


def test_a_refusal_of_the_stopping_server_is_counted_as_such(crier):
    server = crier("--no-welcome", "-v", "--drain", "20", workers=1)
    reader = server.connect()
    waiting = server.socket()
    waiting.send_raw(b"GET / HT")
    wait_until(lambda: server.counters()["clients_accepted"] == 2, "the connection to be taken")
    server.wait_ticks(2)
    server.send_signal(signal.SIGTERM)
    assert waiting.read_response().status == 503
    assert causes(server) == {"stopping": 1}
    server.wait_log(f"{waiting.name} refused with 503: The server is shutting down$")
    reader.drop()


@pytest.mark.parametrize("does, status, why", [("close", 403, "go away"), ("fail", 500, "The application refused this client")])
def test_a_client_that_the_application_does_not_want_is_counted_as_such(probe, does, status, why):
    server = probe("--on-connect", does, workers=1)
    assert refused(server) == status
    server.wait_log(f"{server.clients[0].name} refused with {status}: {why}$")
    assert causes(server) == {"application": 1}


def test_a_connection_whose_worker_dies_is_counted_as_lost(crier):
    server = crier("--no-welcome", workers=1)
    worker = server.workers()[0]
    waiting = server.socket()
    waiting.send_raw(b"GET / HT")
    server.wait_counter("clients_accepted", 1)
    os.kill(worker, signal.SIGKILL)
    server.wait_counter("refused_lost", 1)
    assert causes(server) == {"lost": 1}


# ---- what a client sends, on a terminal ----

SEQUENCES = [(b"\x9b31m", r"\x9b31m"), (b"\xc2\x9b31m", r"\xc2\x9b31m"), (b"\xc2\x9d0;t\xc2\x9c", r"\xc2\x9d0;t\xc2\x9c"),
             (b"\xe2\x80\xaeabc", r"\xe2\x80\xaeabc"), (b"\xe2\x81\xa6abc", r"\xe2\x81\xa6abc"), (b"\xef\xbb\xbf", r"\xef\xbb\xbf"),
             (b"\xc2\xad", r"\xc2\xad"), (b"\xff", r"\xff"), (b'"', r'\"'), (b"\\", r"\\"), (b"\t", r"\x09")]


@pytest.mark.parametrize("sequence, shown", SEQUENCES, ids=[sequence.hex() for sequence, _ in SEQUENCES])
def test_nothing_of_a_header_reaches_a_terminal_as_a_control_sequence(crier, sequence, shown):
    server = crier("--no-welcome", workers=1, env={"LC_ALL": "C.UTF-8"})
    client = server.socket()
    client.send_raw(client.request().replace(b"Upgrade: websocket", b"Origin: http://" + sequence + b"x\r\nUpgrade: websocket"))
    assert client.read_response().status == 403
    line = server.wait_log("refused with 403")
    assert line.isprintable() and line.isascii(), ascii(line)
    assert f'Origin "http://{shown}x" ' in line, line


def test_a_long_target_is_cut_in_the_log(crier):
    server = crier("--no-welcome", workers=1)
    refused(server, path="/_/" + "x" * 5000)
    line = server.wait_log("refused with 404")
    assert len(line) < 400 and re.search(r'for "GET /_/x+\.\.\.": ', line)


# ---- the usual reason ----

NGINX = """daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
server {{ listen unix:{folder}/front; location / {{ proxy_pass http://{host}:{port}; {more} }} }} }}
"""
UPGRADE = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; "


def listens(path):
    """The file is there before connections are accepted."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def nginx(tmp_path):
    """nginx(server, directives): the path of the socket of an nginx in front of the server."""
    running = []

    def start(server, more):
        config = tmp_path / "nginx.conf"
        host, port = server.address
        config.write_text(NGINX.format(folder=tmp_path, host=host, port=port, more=more))
        running.append(subprocess.Popen(["/usr/sbin/nginx", "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL))
        wait_until(lambda: listens(tmp_path / "front"), "nginx to listen")
        return str(tmp_path / "front")

    yield start
    for process in running:
        process.terminate()
        process.wait()


def behind(server, path, more, status):
    """A page of http://crier.example opens a WebSocket through the proxy at `path`."""
    client = server.socket(path)
    client.send_raw(client.request(replace={"Host": "crier.example"}, headers=[("Origin", "http://crier.example")]))
    if status == 101:
        client.expect_open()
    else:
        assert client.read_response().status == status


@pytest.mark.skipif(subprocess.run(["test", "-x", "/usr/sbin/nginx"]).returncode != 0, reason="nginx is not installed")
@pytest.mark.parametrize("more, status, line", [
    (UPGRADE, 403, r'Origin "http://crier\.example" .*Host, "127\.0\.0\.1:\d+".*--origin.*nginx: proxy_set_header Host \$http_host'),
    ("proxy_set_header Host $http_host; ", 426, r"proxy_http_version 1\.1"),
    ("proxy_http_version 1.1; proxy_set_header Host $http_host; ", 426, r"proxy_set_header Upgrade \$http_upgrade"),
    (UPGRADE + "proxy_set_header Host $http_host; ", 101, None)])
def test_behind_nginx_the_line_names_the_directive_that_is_missing(crier, nginx, more, status, line):
    server = crier("--no-welcome", workers=1)
    behind(server, nginx(server, more), more, status)
    if line:
        server.wait_log(line)
    else:
        assert causes(server) == {}
