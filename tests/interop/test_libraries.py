"""Second opinions: clients that others wrote get along with the server, with and without compression."""

import subprocess

import pytest
from libraries import Node, Websockets, Wsproto
from wire import Wire

from harness import each_worker_count

PLAIN, DEFLATE = False, True
each_library = pytest.mark.parametrize("library", [Websockets, Wsproto, Node], ids=lambda one: one.__name__.lower())
each_way = pytest.mark.parametrize("deflate", [PLAIN, DEFLATE], ids=["plain", "deflate"])


def url_of(server):
    return "ws://{}:{}/some/path?query=1".format(*server.address)


@each_library
@each_way
def test_it_is_welcomed_echoed_and_closed(crier, library, deflate):
    server = crier("-v")
    with Wire(server) as wire, library(wire.url, deflate) as client:
        assert client.extension.split(";")[0] == ("permessage-deflate" if deflate else "")
        assert client.recv() == f"Welcome, {wire.name}!"
        for message in ("text", "grüße ☂ 𝄞", "", b"\x00\xff\x10", b"", "x" * 70000, bytes(range(256)) * 4096):
            client.send(message)
            assert client.recv() == message
        client.ping(b"payload")
        server.line("from the console, " * 50)
        assert client.recv() == "from the console, " * 50
        assert client.close(4321, "enough")[0] == 4321
        server.wait_log(f"{wire.name} disconnected with 4321")


@each_library
@each_way
def test_its_fragments_are_one_message(crier, library, deflate):
    server = crier("--no-welcome")
    with library(url_of(server), deflate) as client:
        for parts in (["one, ", "two, ", "three"], ["", "x" * 300, ""], [b"a" * 70000, b"b" * 70000, b"c"],
                      ["\u2602" * 1000] * 20):
            client.send(parts)
            assert client.recv() == parts[0][:0].join(parts)


@each_library
@each_way
def test_many_of_its_messages_come_back_in_order(crier, library, deflate):
    server = crier("--no-welcome")
    with library(url_of(server), deflate) as client:
        sent = [f"{number} {'grün, ' * (number % 400)}" for number in range(200)]
        for message in sent:
            client.send(message)
        assert [client.recv() for _ in sent] == sent


@each_library
@each_way
def test_it_is_told_why_the_server_closes(crier, library, deflate):
    server = crier("--no-welcome", "--max-message", "1000")
    with library(url_of(server), deflate) as client:
        client.send("*" * 1001)
        code, reason = client.recv_close()
        assert code == 1009 and reason
    with library(url_of(server), deflate) as client:
        server.process.terminate()
        assert client.recv_close()[0] == 1001
        assert server.wait_exit() == 0


@each_library
@each_worker_count
def test_all_of_them_hear_the_console_and_each_other(crier, library, workers):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=workers)
    clients = [library(url_of(server), PLAIN) for _ in range(4)]
    try:
        server.line("to all of you")
        assert [client.recv() for client in clients] == ["to all of you"] * 4
        clients[0].send(b"\xff and to you")
        assert [client.recv() for client in clients] == [b"\xff and to you"] * 4
        assert [client.close(1000, "")[0] for client in clients] == [1000] * 4
    finally:
        for client in clients:
            client.__exit__(None, None, None)


@each_library
def test_what_it_is_sent_compressed_is_fewer_bytes(crier, library):
    server = crier("--no-welcome")
    message, received = "compress me, " * 10000, {}
    for deflate in (PLAIN, DEFLATE):
        with Wire(server) as wire, library(wire.url, deflate) as client:
            client.send(message)  # once as an echo ...
            assert client.recv() == message
            server.line(message)  # ... and once as a broadcast
            assert client.recv() == message
            client.close(1000, "")
            received[deflate] = wire.up, wire.down
    assert all(count > len(message) for count in received[PLAIN])
    assert received[PLAIN][1] > 2 * len(message)
    assert all(count < len(message) / 20 for count in received[DEFLATE]), received


@pytest.mark.parametrize("option, status", [("origin=http://elsewhere.example", 403), ("version=8", 426)])
def test_the_ws_client_of_node_sees_why_it_is_refused(crier, option, status):
    server = crier("--no-welcome")
    with Node(url_of(server), PLAIN, option) as node:
        assert node.opening == {"event": "refused", "status": status}


# ---- curl ----

def curl(server, *arguments):
    url = "http://{}:{}/".format(*server.address)
    done = subprocess.run(["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments, url],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done
    return done.stdout.decode()


def test_plain_http_gets_an_answer_that_says_what_to_do(crier):
    server = crier("--no-welcome")
    answer = curl(server, "--include")
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 426 "), answer
    assert "\r\nupgrade: websocket" in head.lower(), answer
    assert "websocket" in body.lower() and len(body.split()) >= 3, answer


@pytest.mark.parametrize("arguments, status", [
    (["--data", "x=1"], "405"),
    (["--request", "DELETE"], "405"),
    (["--head"], "405"),
    (["--http1.0"], "505"),
    (["--header", "X-Long: " + "x" * 9000], "431"),
    (["--header", "Host:"], "400"),
])
def test_curl_gets_a_proper_error(crier, arguments, status):
    server = crier("--no-welcome")
    assert curl(server, "--output", "/dev/null", "--write-out", "%{http_code}", *arguments) == status


def test_curl_sees_the_upgrade_and_the_frames_behind_it(crier):
    server = crier("--welcome", "to %n")
    process = subprocess.Popen(
        ["curl", "--silent", "--include", "--no-buffer", "--http1.1", "--noproxy", "*", "--max-time", "20",
         "--header", "Connection: Upgrade", "--header", "Upgrade: websocket", "--header", "Sec-WebSocket-Version: 13",
         "--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "http://{}:{}/".format(*server.address)],
        stdout=subprocess.PIPE)
    try:
        # curl keeps the head back until something follows it: the welcome.
        head = b""
        while b"\r\n\r\n" not in head:
            byte = process.stdout.read(1)
            assert byte, f"no upgrade: {head!r}"
            head += byte
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
        assert process.stdout.read(6) == b"\x81\x04to 1"
        server.line("hello curl")
        assert process.stdout.read(12) == b"\x81\x0ahello curl"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
