"""Second opinions: clients of other projects get along with the server, with and without compression."""

import subprocess

import pytest
from driven import Node
from libraries import Websockets, Wsproto
from scenarios import PLAIN, Scenarios, url_of


class TestLibraries(Scenarios):
    libraries = (Websockets, Wsproto, Node)


@pytest.mark.parametrize("option, status", [("origin=http://elsewhere.example", 403), ("version=8", 426)])
def test_the_ws_client_of_node_sees_why_it_is_refused(crier, option, status):
    server = crier("--no-welcome")
    with Node(url_of(server), PLAIN, option) as node:
        assert node.opening == ["refused", str(status)]


# ---- curl ----

def curl(server, *arguments):
    url = "http://{}:{}/".format(*server.address)
    done = subprocess.run(["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments, url],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done
    return done.stdout.decode()


def test_curl_gets_the_page(crier):
    server = crier("--no-welcome")
    answer = curl(server, "--include")
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    assert "<title>crier</title>" in body, body


@pytest.mark.parametrize("arguments, status", [
    (["--data", "x=1"], "405"),
    (["--request", "DELETE"], "405"),
    (["--head"], "200"),
    (["--http1.0"], "200"),
    (["--request", "OPTIONS"], "204"),
    (["--header", "X-Long: " + "x" * 9000], "431"),
    (["--header", "Host:"], "400"),
])
def test_curl_gets_the_status_of_its_request(crier, arguments, status):
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
