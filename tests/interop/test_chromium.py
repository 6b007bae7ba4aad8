"""The browser that most people have, from a page of another origin."""

import http.server
import json

import pytest
from wire import Wire

from harness import Job

pytestmark = pytest.mark.limit(180)

# Of the page: messages wait in a queue until next() is called, close() and closed() tell the code.
CLIENT = """
    class Client {
        constructor(url) {
            this.queue = []; this.readers = [];
            this.socket = new WebSocket(url);
            this.socket.binaryType = "arraybuffer";
            this.opened = new Promise((yes, no) => { this.socket.onopen = yes; this.socket.onerror = no; });
            this.closed = new Promise(yes => { this.socket.onclose = e => yes([e.code, e.reason, e.wasClean]); });
            this.socket.onmessage = e => this.readers.length ? this.readers.shift()(e.data) : this.queue.push(e.data);
        }
        next() { return this.queue.length ? this.queue.shift() : new Promise(yes => this.readers.push(yes)); }
    }
    const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
"""


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """An empty page; not a data: URL, whose pages may not connect to this machine."""

    def do_GET(self):
        body = b"<!doctype html><title>elsewhere</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    """The URL of a page of another origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        job = Job(server.serve_forever, lasting=True)
        yield "http://127.0.0.1:{}/".format(server.server_address[1])
        server.shutdown()
        job.join()


@pytest.fixture
def opened(browser, elsewhere):
    """opened(url): a page of another origin with `client`, which has connected to the URL."""
    def open(url):
        page = browser.page(elsewhere)
        page.evaluate(CLIENT + f"var client = new Client({json.dumps(url)}); client.opened.then(() => true)")
        return page
    return open


def test_it_is_welcomed_echoed_and_closed(crier, opened):
    server = crier("-v", "--origin", "any")
    with Wire(server) as wire:
        page = opened(wire.url)
        assert page.evaluate("client.socket.extensions").startswith("permessage-deflate")
        assert page.evaluate("client.socket.protocol") == ""
        assert page.evaluate("client.next()") == f"Welcome, {wire.name}!"
        assert page.evaluate("client.socket.send('grüße ☂ 𝄞'), client.next()") == "grüße ☂ 𝄞"
        assert page.evaluate("client.socket.send(''), client.next()") == ""
        assert page.evaluate("client.socket.send(new Uint8Array([0, 255, 16])),"
                             "client.next().then(data => [...new Uint8Array(data)])") == [0, 255, 16]
        assert page.evaluate("""(async () => {
            const sent = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * i) >> 8);
            client.socket.send(sent);
            return same(sent, new Uint8Array(await client.next()));
        })()""")
        assert page.evaluate("client.socket.close(4321, 'enough'), client.closed") == [4321, "", True]
        server.wait_log(f"{wire.name} disconnected with 4321")


def test_what_is_random_comes_back_from_it_and_what_repeats_is_fewer_bytes(crier, opened):
    server = crier("--no-welcome", "--origin", "any")
    with Wire(server) as wire:
        page = opened(wire.url)
        assert page.evaluate("""(async () => {
            const sent = new Uint8Array(1 << 18);  // the longest that the server deflates
            for (let i = 0; i < sent.length; i += 65536) crypto.getRandomValues(sent.subarray(i, i + 65536));
            client.socket.send(sent);
            return same(sent, new Uint8Array(await client.next()));
        })()""")
        up, down = wire.up, wire.down
        assert up > 1 << 18 and down > 1 << 18
        assert page.evaluate("""(async () => {
            const sent = "compress me, ".repeat(20000);
            client.socket.send(sent);
            return sent === await client.next();
        })()""")
        assert wire.up - up < 25000 and wire.down - down < 25000


def test_it_hears_the_console_compressed(crier, opened):
    server = crier("--no-welcome", "--origin", "any", workers=2)
    with Wire(server) as wire:
        page = opened(wire.url)
        before = wire.down
        lines = ["short", "long " * 2000, "länger ☂ " * 1000, "x" * 256]
        for line in lines:
            server.line(line)
        assert [page.evaluate("client.next()") for _ in lines] == lines
        assert wire.down - before < 2000


def test_many_of_its_messages_come_back_in_order(crier, opened):
    server = crier("--no-welcome", "--origin", "any")
    page = opened("ws://{}:{}/".format(*server.address))
    assert page.evaluate("""(async () => {
        const sent = Array.from({ length: 1000 }, (_, i) => `${i} ` + "grün ".repeat(i % 300));
        sent.forEach(text => client.socket.send(text));
        for (const text of sent)
            if (text !== await client.next()) return text;
        return "all";
    })()""") == "all"


def test_it_is_told_why_the_server_closes(crier, opened):
    server = crier("--no-welcome", "--origin", "any", "--max-message", "1000")
    url = "ws://{}:{}/".format(*server.address)
    page = opened(url)
    code, reason, clean = page.evaluate("client.socket.send('*'.repeat(1001)), client.closed")
    assert (code, clean) == (1009, True) and reason
    page = opened(url)
    server.process.terminate()
    assert page.evaluate("client.closed")[::2] == [1001, True]
    assert server.wait_exit() == 0


def test_a_page_of_another_origin_is_not_let_in(crier, browser, elsewhere):
    with Wire(crier("--no-welcome")) as wire:
        page = browser.page(elsewhere)
        url = json.dumps(wire.url)
        code = page.evaluate(CLIENT + f"var client = new Client({url}); client.opened.catch(() => 0); client.closed")[0]
        assert code == 1006
        assert wire.up and wire.down, "it was not the server that refused"
