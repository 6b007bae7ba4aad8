"""The server's own page, in the browser that most people have."""

import pytest
from prefix_proxy import PrefixProxy

from harness import PATIENCE, wait_until

pytestmark = pytest.mark.limit(180)

# Before the page's own script: counts what the page does, and makes its timers 20 times as fast.
COUNTS = """
    var sockets = [], received = 0, calls = 0, changes = 0, injected = 0;
    WebSocket = class extends WebSocket {
        constructor(url) {
            super(url);
            sockets.push(this);
            this.addEventListener("message", () => received++);
        }
    };
    {
        const later = setTimeout, frame = requestAnimationFrame;  // not names of the page's script
        setTimeout = (call, ms) => later(() => { calls++; call(); }, ms / 20);
        requestAnimationFrame = call => frame(time => { calls++; call(time); });
    }
    new MutationObserver(() => changes++).observe(document, { subtree: true, childList: true, characterData: true });
"""
STATE = "document.getElementById('state').textContent"
LINES = "[...document.querySelectorAll('#log li')].map(line => line.textContent)"
LAST = "document.querySelector('#log li:last-child')?.textContent"
EARLIER = "document.getElementById('earlier').textContent"


def url_of(server):
    return "http://{}:{}/".format(*server.address)


def wait_for(page, expression, value):
    wait_until(lambda: page.evaluate(expression) == value,
               lambda: f"{expression}: {value!r}, not {page.evaluate(expression)!r}", PATIENCE, 0.05)


@pytest.fixture
def opened(browser):
    """opened(url): the page at the URL, connected unless state= another is waited for."""
    pages = []

    def open(url, state="connected"):
        pages.append(browser.page(url, COUNTS))
        wait_for(pages[-1], STATE, state)
        return pages[-1]

    yield open
    for page in pages:
        page.close()


def test_it_connects_sends_and_shows_what_it_hears(crier, opened):
    server = crier()
    page = opened(url_of(server))
    wait_for(page, f"{LINES}.length", 1)
    assert page.evaluate(LINES)[0].startswith("Welcome, 127.0.0.1:")
    server.line("from the console")
    wait_for(page, f"{LINES}.slice(1)", ["from the console"])
    page.evaluate("document.querySelector('input').value = 'from the page', document.querySelector('form').requestSubmit()")
    wait_for(page, f"{LINES}.slice(2)", ["from the page"])


@pytest.mark.parametrize("rest", ["#x", "#", "?a=b&c#x?y"])
def test_it_connects_from_a_url_with_a_fragment(crier, opened, rest):
    server = crier()
    page = opened(url_of(server) + rest)
    assert page.evaluate("sockets.map(one => one.url)") == [f"ws://{'{}:{}'.format(*server.address)}/{rest.partition('#')[0]}"]


def test_text_of_messages_and_of_a_close_is_never_html(crier, opened):
    markup = "<img src=x onerror='injected++'><b>&lt;script>injected++</script>"
    server = crier("--no-welcome")
    page = opened(url_of(server))
    server.line(markup)
    wait_for(page, LINES, [markup])
    page.evaluate(f"""sockets[0].dispatchEvent(new CloseEvent("close", {{ code: 4000, reason: {markup!r} }}))""")
    wait_for(page, LINES, [markup, f"closed with 4000: {markup}"])
    assert page.evaluate("document.querySelectorAll('#log li *, #state *, #earlier *').length + injected") == 0


def test_a_burst_changes_the_document_once_per_frame(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    lines = [f"line {i}" for i in range(20000)]
    calls, changes, layouts = page.evaluate("calls"), page.evaluate("changes"), page.layouts()
    server.feed("".join(f"{line}\n" for line in lines).encode())
    wait_until(lambda: page.evaluate("received") == len(lines), lambda: f"not {page.evaluate('received')}", 4 * PATIENCE, 0.05)
    wait_for(page, LAST, lines[-1])
    calls, changes, layouts = page.evaluate("calls") - calls, page.evaluate("changes") - changes, page.layouts() - layouts
    assert page.evaluate(LINES) == lines[-1000:]
    assert changes <= calls, f"{changes} changes in {calls} frames and timers"
    assert layouts <= 2 * calls + 20, f"{layouts} layouts in {calls} frames and timers"  # a few for the first layouts of a page
    assert page.evaluate(EARLIER) == "19000 earlier messages are no longer shown"


def test_messages_of_one_task_lay_the_page_out_once(crier, opened):
    page = opened(url_of(crier("--no-welcome")))
    layouts = page.layouts()
    page.evaluate("""
        for (let i = 0; i < 5000; i++) sockets[0].dispatchEvent(new MessageEvent("message", { data: `${i}` }));
    """)
    wait_for(page, LAST, "4999")
    assert page.layouts() - layouts <= 20  # a few for the first layouts of a page; not 5000
    assert page.evaluate(LINES) == [str(i) for i in range(4000, 5000)]


def test_it_follows_the_last_line_until_it_is_scrolled_up(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    below = "(log => Math.round(log.scrollHeight - log.scrollTop - log.clientHeight))(document.getElementById('log'))"
    server.write("".join(f"line {i}\n" for i in range(500)).encode())
    wait_for(page, LAST, "line 499")
    assert page.evaluate(below) <= 1
    page.evaluate("document.getElementById('log').scrollTop = 100")
    server.line("one more")
    wait_for(page, LAST, "one more")
    assert page.evaluate("document.getElementById('log').scrollTop") == 100


def test_a_tab_in_the_background_shows_what_it_hears(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    other = opened(url_of(crier("--no-welcome")))
    other.to_front()
    wait_for(page, "document.visibilityState", "hidden")
    server.line("in the background")
    wait_for(page, LINES, ["in the background"])


def test_long_messages_are_cut_and_fewer_are_kept(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    for i in range(100):
        server.line(f"{i} " + "x" * 20000)
    wait_for(page, "received", 100)
    wait_for(page, f"{LAST}.slice(0, 3)", "99 ")
    shown = page.evaluate(LINES)
    assert all(line.endswith(f"… [{20000 + len(line.split(' ')[0]) + 1} characters]") for line in shown)
    assert 32 < len(shown) < 100 and sum(map(len, shown)) <= 1 << 20
    assert page.evaluate(EARLIER) == f"{100 - len(shown)} earlier messages are no longer shown"


def test_retries_push_no_message_out(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    server.line("the last message")
    wait_for(page, LINES, ["the last message"])
    server.process.terminate()
    assert server.wait_exit() == 0
    wait_until(lambda: page.evaluate("sockets.length") > 4, "attempts")
    wait_for(page, STATE, "unreachable; trying again")
    message, closed = page.evaluate(LINES)
    assert message == "the last message" and closed.startswith("closed with 1001")


def test_closes_without_a_message_between_them_are_one_line(crier, opened):
    server = crier("--no-welcome")
    page = opened(url_of(server))
    server.line("the last message")
    wait_for(page, LINES, ["the last message"])
    for i in range(3):
        wait_for(page, "[sockets.length, sockets.at(-1).readyState]", [i + 1, 1])
        page.evaluate(f"sockets.at(-1).close({4000 + i})")
    wait_for(page, LINES, ["the last message", "closed with 4002"])


def test_below_a_prefix_it_connects(crier, opened):
    server = crier("--no-welcome")
    with PrefixProxy(server) as proxy:
        page = opened(proxy.url + "?a#b")
        server.line("through the proxy")
        wait_for(page, LINES, ["through the proxy"])
        page.leave()


def test_a_refusal_is_told_from_a_server_that_cannot_be_reached(crier, opened):
    server = crier("-v", "--no-welcome")
    with PrefixProxy(server, host="elsewhere.example") as proxy:
        page = opened(proxy.url, "refused: the server answers but opens no WebSocket; "
                                 "the reason is in its log or in that of a proxy in front; trying again")
        server.wait_log("refused with 403")
        assert server.counters()["refused_origin"] > 0
        server.process.terminate()
        assert server.wait_exit() == 0
        wait_for(page, STATE, f"refused: {proxy.url}_/healthz answers 502; trying again")
    wait_for(page, STATE, "unreachable; trying again")
    assert page.evaluate(LINES) == []
