"""Second opinions: clients that others wrote get along with the server."""

import asyncio
import json
import os
import queue
import subprocess
import threading

import pytest
import websockets

from harness import PATIENCE, REPOSITORY, each_worker_count, plain_environment

# ---- Python's websockets ----


def library(server, play, **how):
    async def run():
        uri = "ws://{}:{}/".format(*server.address)
        async with websockets.connect(uri, open_timeout=PATIENCE, close_timeout=PATIENCE, **how) as client:
            await play(client)
    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))


def test_the_websockets_library_is_welcomed_and_echoed(crier):
    async def play(client):
        host, port = client.local_address
        assert await client.recv() == f"Welcome, {host}:{port}!"
        for message in ("text", "grüße ☂", "", b"\x00\xff", b"", "x" * 100000, os.urandom(1 << 20)):
            await client.send(message)
            assert await client.recv() == message
    library(crier(), play)


def test_the_websockets_library_sends_fragments_and_gets_one_message(crier):
    async def play(client):
        await client.send(["one, ", "two, ", "three"])
        assert await client.recv() == "one, two, three"
        await client.send([b"a" * 70000, b"b" * 70000])
        assert await client.recv() == b"a" * 70000 + b"b" * 70000
    library(crier("--no-welcome"), play)


def test_the_websockets_library_pings_and_closes(crier):
    async def play(client):
        await asyncio.wait_for(await client.ping(b"payload"), PATIENCE)
        await client.close(4321, "reason")
        assert client.close_code == 4321
    library(crier("--no-welcome"), play)


def test_the_websockets_library_is_told_of_a_shutdown(crier):
    server = crier("--no-welcome")

    async def play(client):
        server.process.terminate()
        with pytest.raises(websockets.ConnectionClosed) as end:
            await client.recv()
        assert end.value.rcvd.code == 1001
    library(server, play)
    assert server.wait_exit() == 0


@each_worker_count
def test_twenty_library_clients_hear_the_console(crier, workers):
    server = crier("--no-welcome", workers=workers)

    async def run():
        uri = "ws://{}:{}/".format(*server.address)
        clients = [await websockets.connect(uri) for _ in range(20)]
        server.line("to all of you")
        for client in clients:
            assert await client.recv() == "to all of you"
        await asyncio.gather(*(client.close() for client in clients))
    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))


# ---- ws for Node ----

class NodeClient:
    """tests/interop/ws_client.js: one JSON object per line in both directions."""

    def __init__(self, url, *options):
        path = os.environ.get("NODE_PATH", "")
        environment = plain_environment(NODE_PATH="/usr/share/nodejs" + (f":{path}" if path else ""))
        self.process = subprocess.Popen(
            ["node", os.path.join(REPOSITORY, "tests/interop/ws_client.js"), url, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.events = queue.Queue()
        threading.Thread(target=self.read_events, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def read_events(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put({"event": "exit"})

    def expect(self, **expected):
        event = self.events.get(timeout=2 * PATIENCE)
        seen = {name: event.get(name) for name in expected}
        assert seen == expected, f"expected {expected}, got {event}"
        return event

    def do(self, **order):
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()


def url_of(server):
    return "ws://{}:{}/some/path?query=1".format(*server.address)


def test_the_ws_client_of_node_is_welcomed_echoed_and_closed(crier):
    server = crier()
    with NodeClient(url_of(server)) as node:
        port = node.expect(event="open", extensions="permessage-deflate", protocol="")["port"]
        node.expect(event="message", text=f"Welcome, 127.0.0.1:{port}!")
        node.do(do="text", text="grüße ☂")
        node.expect(event="message", text="grüße ☂")
        node.do(do="binary", hex="00ff10")
        node.expect(event="message", hex="00ff10")
        node.do(do="fragments", parts=["one ", "two ", "three"])
        node.expect(event="message", text="one two three")
        node.do(do="large", size=1 << 20)
        node.expect(event="large", size=1 << 20, same=True)
        node.do(do="ping", text="payload")
        node.expect(event="pong", text="payload")
        server.line("from the console")
        node.expect(event="message", text="from the console")
        node.do(do="close", code=4001, reason="enough")
        node.expect(event="close", code=4001)


def test_the_ws_client_of_node_hears_others_and_the_shutdown(crier):
    server = crier("--no-welcome", "--on-message", "broadcast", workers=2)
    with NodeClient(url_of(server)) as first, NodeClient(url_of(server)) as second:
        first.expect(event="open")
        second.expect(event="open")
        first.do(do="text", text="to everybody")
        first.expect(event="message", text="to everybody")
        second.expect(event="message", text="to everybody")
        server.process.terminate()
        first.expect(event="close", code=1001)
        second.expect(event="close", code=1001)
        assert server.wait_exit() == 0


@pytest.mark.parametrize("option, status", [("origin=http://elsewhere.example", 403), ("version=8", 426)])
def test_the_ws_client_of_node_sees_why_it_is_refused(crier, option, status):
    server = crier("--no-welcome")
    with NodeClient(url_of(server), option) as node:
        node.expect(event="refused", status=status)


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
