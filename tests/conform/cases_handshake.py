"""RFC 6455 section 4.2, and what of RFC 9110 and 9112 it stands on: the opening handshake, line by line."""

from harness import TEXT
from table import bye, case, closed, echo, frame, ping, ponged, refused, text, upgraded

SECTION = "RFC 6455 4.2.1"
LINES = {"host": "Host: localhost", "upgrade": "Upgrade: websocket", "connection": "Connection: Upgrade",
         "key": "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "version": "Sec-WebSocket-Version: 13"}


def request(*more, start="GET / HTTP/1.1", **replaced):
    """An opening handshake; a line that is replaced by None is left out."""
    lines = [line for line in {**LINES, **replaced}.values() if line is not None]
    return "".join(f"{line}\r\n" for line in [start, *lines, *more, ""]).encode("latin-1")


def opened(id, *more, section=SECTION, **how):
    return case(id, section, [request(*more, **how), text("hello")], [upgraded(), echo("hello")], opening=True)


def denied(id, status, *more, section=SECTION, headers=None, behind=(), flags=(), cut=True, **how):
    return case(id, section, [request(*more, **how), *behind], [refused(status, **headers or {})], opening=True,
                flags=flags, cut=cut)


def raw(id, status, data, section="RFC 9112 3", flags=(), cut=True):
    return case(id, section, [data], [refused(status)], opening=True, flags=flags, cut=cut)


LINE = "RFC 9112 3"
REQUEST_LINE = [
    *(opened(f"4.1-target-{name}", start=f"GET {target} HTTP/1.1", section=LINE) for name, target in (
        ("path", "/chat"), ("query", "/?a=b&c"), ("escaped", "/%e2%98%82"), ("deep", "/a/b/c.html"),
        ("absolute", "http://localhost/chat"), ("absolute-ws", "ws://localhost/chat"))),
    *(denied(f"4.1-method-{method}", 405, start=f"{method} / HTTP/1.1", headers={"allow": "get, head, options"},
             section="RFC 9110 15.5.6") for method in ("POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE")),
    *(denied(f"4.1-method-{method}", 501, start=f"{method} / HTTP/1.1", section="RFC 9110 9.1")
      for method in ("BREW", "get", "Get", "GETS", "head", "X" * 32)),
    *(denied(f"4.1-http-{version}", 505, start=f"GET / HTTP/{version}", section="RFC 9110 15.6.6")
      for version in ("0.9", "2.0", "3.0")),
    denied("4.1-http-1.0", 426, start="GET / HTTP/1.0", section="RFC 9110 7.8"),
    opened("4.1-http-1.2", start="GET / HTTP/1.2", section="RFC 9110 2.5"),
    *(denied(f"4.1-http-{version.replace('/', '-')}", 400, start=f"GET / {version}", section="RFC 9112 2.3")
      for version in ("http/1.1", "HTTP/1.1.1", "HTTP/11", "HTTP/1,1", "HTTPS/1.1", "HTTP 1.1")),
    *(raw(f"4.1-line-{name}", 400, data) for name, data in (
        ("one-word", b"GARBAGE\r\n\r\n"), ("no-version", b"GET /\r\n\r\n"), ("no-target", b"GET HTTP/1.1\r\n\r\n"),
        ("two-blanks", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), ("blank-end", b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n"),
        ("control", b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n"), ("eighth-bit", b"GET /\xe2 HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("fragment", b"GET /#x HTTP/1.1\r\nHost: x\r\n\r\n"), ("relative", b"GET x HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("other-scheme", b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n"), ("tab", b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        ("star", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n"), ("authority", b"GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("user", b"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n"))),
    case("4.1-line-empty-first", "RFC 9112 2.2", [b"\r\n" + request(), text("hello")], [upgraded(), echo("hello")], opening=True),
    raw("4.1-line-two-empty-first", 400, b"\r\n\r\nG"), raw("4.1-line-lf-first", 400, b"\n"),
    raw("4.1-line-cr-first", 400, b"\rG"), raw("4.1-line-http-0.9", 400, b"GET /\r\n"), raw("4.1-line-no-method", 400, b" "),
    raw("4.1-line-tls-hello", 400, b"\x16\x03\x01\x02\x00"), raw("4.1-line-lone-lf", 400, b"GET / HTTP/1.1\n"),
    raw("4.1-line-proxy-1", 400, b"PROXY UNKNOWN\r\n"), raw("4.1-line-proxy-2", 400, b"\r\n\r\n\x00\r\nQUIT\n"),
    raw("4.1-line-http2-preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
]

HOST = [
    denied("4.2.1-host-missing", 400, host=None, section="RFC 9112 3.2"),
    denied("4.2.1-host-twice", 400, "Host: other", section="RFC 9112 3.2"),
    denied("4.2.1-host-twice-the-same", 400, LINES["host"], section="RFC 9112 3.2"),
    *(denied(f"4.2.1-host-bad-{name}", 400, host=f"Host: {value}", section="RFC 9112 3.2") for name, value in (
        ("empty", ""), ("blank", "a b"), ("list", "a, b"), ("port", "a:x"), ("port-range", "a:65536"), ("path", "a/b"),
        ("user", "a@b"), ("bracket", "[::1"), ("literal", "[f]"), ("escape", "a%zz"))),
    *(opened(f"4.2.1-host-{name}", host=f"Host: {value}") for name, value in (
        ("name", "example.org"), ("port", "example.org:81"), ("ipv6", "[::1]:8080"), ("upper", "EXAMPLE.ORG"))),
]

UPGRADE = [
    *(opened(f"4.2.1-upgrade-{name}", upgrade=f"Upgrade: {value}") for name, value in (
        ("case", "WebSocket"), ("list", "h2c, websocket"), ("empty-elements", ", ,websocket,"))),
    *(denied(f"4.2.1-upgrade-{name}", 426, upgrade=line,
             headers={"upgrade": "websocket", "sec-websocket-version": "13"}) for name, line in (
        ("missing", None), ("empty", "Upgrade:"), ("other", "Upgrade: h2c"), ("prefix", "Upgrade: websocket2"),
        ("words", "Upgrade: web socket"), ("versioned", "Upgrade: websocket/13"))),
    opened("4.2.1-upgrade-two-lines", "Upgrade: h2c", section="RFC 9110 5.3"),
    *(opened(f"4.2.1-connection-{name}", connection=f"Connection: {value}") for name, value in (
        ("case", "UPGRADE"), ("list", "keep-alive, Upgrade"), ("blanks", "foo,upgrade ,bar"),
        ("empty-elements", ",,Upgrade"))),
    opened("4.2.1-connection-two-lines", "Connection: Upgrade", connection="Connection: keep-alive",
           section="RFC 9110 5.3"),
    *(denied(f"4.2.1-connection-{name}", 426, connection=line, headers={"upgrade": "websocket"}) for name, line in (
        ("missing", None), ("empty", "Connection:"), ("other", "Connection: keep-alive"),
        ("prefix", "Connection: Upgrades"), ("words", "Connection: keep-alive Upgrade"))),
    denied("4.2.1-plain-http", 426, start="GET /x HTTP/1.1", upgrade=None, connection=None, key=None, version=None,
           headers={"upgrade": "websocket", "sec-websocket-version": "13"}),
    *(denied(f"4.2.1-without-{name}", 426, upgrade=None, connection=None, **without, headers={"upgrade": "websocket"})
      for name, without in (("upgrade", {}), ("upgrade-and-key", {"key": None}), ("upgrade-and-version", {"version": None}))),
]

KEY = [
    *(case(f"4.2.2-key-{name}", "RFC 6455 4.2.2", [request(key=f"Sec-WebSocket-Key: {value}"), text("hello")],
           [upgraded(value.strip().encode()), echo("hello")], opening=True)
      for name, value in (("other", "AQIDBAUGBwgJCgsMDQ4PEA=="), ("zeros", "AAAAAAAAAAAAAAAAAAAAAA=="),
                          ("signs", "+/+/+/+/+/+/+/+/+/+/+w=="), ("blanks", "  AQIDBAUGBwgJCgsMDQ4PEA== \t"),
                          ("spare-bits", "AQIDBAUGBwgJCgsMDQ4PEB=="))),
    *(denied(f"4.2.1-key-{name}", 400, key=f"Sec-WebSocket-Key: {value}") for name, value in (
        ("empty", ""), ("short", "short"), ("15-bytes", "AQIDBAUGBwgJCgsMDQ4P"), ("17-bytes", "AQIDBAUGBwgJCgsMDQ4PEBE="),
        ("18-bytes", "AQIDBAUGBwgJCgsMDQ4PEBES"), ("no-padding", "AQIDBAUGBwgJCgsMDQ4PEA"),
        ("one-padding", "AQIDBAUGBwgJCgsMDQ4PEA="), ("bad-digit", "AQIDBAUGBwgJCgsMDQ4P!A=="),
        ("url-digits", "-_-_-_-_-_-_-_-_-_-_-w=="), ("blank-inside", "AQIDBAUGBwgJ gsMDQ4PEA=="))),
    denied("4.2.1-key-missing", 400, key=None),
    denied("4.2.1-key-twice", 400, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==", section="RFC 6455 11.3.1"),
    denied("4.2.1-key-twice-the-same", 400, LINES["key"], section="RFC 6455 11.3.1"),
]

VERSION = [
    *(denied(f"4.4-version-{value.replace(' ', '')}", 426, version=f"Sec-WebSocket-Version: {value}",
             section="RFC 6455 4.4", headers={"sec-websocket-version": "13"})
      for value in ("0", "7", "8", "12", "14", "25", "130", "013", "256", "13, 8")),
    denied("4.2.1-version-missing", 400, version=None),
    denied("4.2.1-version-twice", 400, "Sec-WebSocket-Version: 8", section="RFC 6455 11.3.5"),
]

PROTOCOL = "RFC 6455 4.2.2"


def spoken(id, chosen, *offers, flags, section=PROTOCOL):
    """These lines of Sec-WebSocket-Protocol, and the one that the answer names, None for no such header."""
    return case(id, section, [request(*(f"Sec-WebSocket-Protocol: {line}" for line in offers)), text("hello")],
                [upgraded(subprotocol=chosen), echo("hello")], opening=True, flags=flags)


LISTED, ANY = ("--subprotocol", "chat,graphql-ws,crier.v9"), ("--subprotocol", "any")
TOKEN_CHARS = "!#$%&'*+-.^_`|~09azAZ"
SUBPROTOCOL = [
    spoken("4.2.2-subprotocol-listed", "chat", "chat", flags=LISTED),
    spoken("4.2.2-subprotocol-first-of-the-client", "graphql-ws", "mqtt, graphql-ws, chat", flags=LISTED),
    spoken("4.2.2-subprotocol-over-lines", "chat", "mqtt", "x,chat", "graphql-ws", flags=LISTED, section="RFC 6455 11.3.4"),
    spoken("4.2.2-subprotocol-empty-elements", "chat", ", ,chat,\t,", flags=LISTED, section="RFC 9110 5.6.1"),
    spoken("4.2.2-subprotocol-an-empty-line-more", "chat", "", "chat", flags=LISTED, section="RFC 9110 5.3"),
    spoken("4.2.2-subprotocol-none-in-common", None, "mqtt, stomp", flags=LISTED),
    spoken("4.2.2-subprotocol-none-offered", None, flags=LISTED),
    spoken("4.2.2-subprotocol-has-case", None, "Chat, CHAT", flags=LISTED),
    spoken("4.2.2-subprotocol-whole-names", None, "cha, chatt, chat.v1", flags=LISTED),
    spoken("4.2.2-subprotocol-listed-although-reserved", "crier.v9", "crier.v9", flags=LISTED),
    spoken("4.2.2-subprotocol-any-is-the-first", "mqtt", "mqtt, chat", flags=ANY),
    spoken("4.2.2-subprotocol-any-of-all-characters", TOKEN_CHARS, TOKEN_CHARS, flags=ANY),
    spoken("4.2.2-subprotocol-any-of-255-bytes", "x" * 255, "y" * 256 + "," + "x" * 255, flags=ANY),
    spoken("4.2.2-subprotocol-any-but-reserved", "crier", "crier.v1, bearer.c2VjcmV0, Bearer.x, CRIER.y, crier", flags=ANY),
    spoken("4.2.2-subprotocol-any-but-only-reserved", None, "bearer.c2VjcmV0, crier.v1", flags=ANY),
    *(spoken(f"4.2.2-subprotocol-any-but-no-token-{name.split('.')[0]}", "v4.channel.k8s.io", f"{name}, v4.channel.k8s.io", flags=ANY)
      for name in ("base64url.bearer.authorization.k8s.io.c2VjcmV0", "openai-insecure-api-key.sk-1", "eyJhbGciOiJub25lIn0.e30.")),
    *(spoken(f"4.2.2-subprotocol-of-64-names-{name}", chosen, ",".join(f"p{i}" for i in range(64)), flags=flags)
      for name, chosen, flags in (("any", "p0", ANY), ("none", None, ()))),
    *(denied(f"4.1-subprotocol-{name}-{how}", 400, *(f"Sec-WebSocket-Protocol: {line}" for line in lines),
             section="RFC 6455 4.1", flags=flags)
      for how, flags in (("unwanted", ()), ("any", ANY))
      for name, lines in (
          ("empty", [""]), ("commas", [", ,"]), ("blank-inside", ["a b"]), ("quoted", ['"chat"']), ("slash", ["chat/1"]),
          ("equals", ["chat;v=1"]), ("eighth-bit", ["ch\xe4t"]), ("bad-last", ["chat, a@b"]), ("bad-line", ["chat", "a:b"]),
          ("twice", ["chat, chat"]), ("twice-over-lines", ["chat, x", "y, chat"]))),
    denied("4.1-subprotocol-too-many", 431, "Sec-WebSocket-Protocol: " + ",".join(f"p{i}" for i in range(65)),
           section="RFC 6585 5"),
]

REST = [
    opened("4.2.2-subprotocols-not-agreed-to", "Sec-WebSocket-Protocol: chat, superchat", section="RFC 6455 4.2.2"),
    opened("4.2.2-subprotocols-in-two-lines", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: superchat",
           section="RFC 6455 11.3.4"),
    opened("4.2.2-extension-not-known", "Sec-WebSocket-Extensions: foo; bar=1, baz", section="RFC 6455 9.1"),
    opened("4.2.2-old-compression-not-known", "Sec-WebSocket-Extensions: x-webkit-deflate-frame",
           section="RFC 6455 9.1"),
    opened("4.2.1-cookies-and-more", "Cookie: a=b; c=d", "Authorization: Basic eA==", "X-Empty:", "Accept: */*"),
    opened("4.2.1-names-have-no-case", host="hOST:x", upgrade="UPGRADE: \t websocket \t", connection="connection:Upgrade",
           key="sec-websocket-KEY:   dGhlIHNhbXBsZSBub25jZQ==  ", version="sec-websocket-version:13",
           section="RFC 9110 5.1"),
    opened("4.2.1-eighth-bit-in-a-value", "X-Name: gr\xfc\xdfe", section="RFC 9110 5.5"),
    opened("4.2.1-origin-of-the-host", "Origin: http://localhost"),
    opened("4.2.1-origin-with-a-slash", "Origin: http://localhost/"),
    denied("4.2.2-origin-of-another", 403, "Origin: http://evil.example", section="RFC 6455 4.2.2"),
    denied("4.2.2-origin-null", 403, "Origin: null", section="RFC 6455 4.2.2"),
    denied("4.2.2-origin-twice", 400, "Origin: http://localhost", "Origin: http://localhost"),
    *(denied(f"4.2.1-header-{name}", 400, line, section="RFC 9112 5") for name, line in (
        ("folded", "X: a\r\n b"), ("folded-tab", "X: a\r\n\tb"), ("no-colon", "X-Thing"), ("no-name", ": x"),
        ("blank-in-the-name", "X Y: z"), ("blank-before-the-colon", "X : y"), ("nul", "X: \0"), ("control", "X: \x07"),
        ("lone-cr", "X: a\rb"), ("delete", "X: \x7f"), ("name-not-ascii", "X\xfc: y"))),
    denied("4.2.1-header-folded-first", 400, host=" folded: x\r\nHost: x", section="RFC 9112 5.2"),
    denied("4.2.1-lone-lf-in-a-header", 400, "X: a\nY: b", section="RFC 9112 2.2"),
    denied("4.2.1-body", 413, "Content-Length: 5", behind=[b"hello"], section="RFC 9110 15.5.14"),
    denied("4.2.1-body-chunked", 413, "Transfer-Encoding: chunked", behind=[b"0\r\n\r\n"], section="RFC 9110 15.5.14"),
    denied("4.2.1-body-smuggled", 413, "Content-Length: 200", behind=[request()], section="RFC 9112 11.2"),
    denied("4.2.1-body-expected", 413, "Content-Length: 5", "Expect: 100-continue", section="RFC 9110 10.1.1"),
    opened("4.2.1-expect-without-a-body", "Expect: 100-continue", section="RFC 9110 10.1.1"),
    opened("4.2.1-body-of-0", "Content-Length: 0", section="RFC 9112 6"),
    *(denied(f"4.2.1-length-{name}", 400, *lines, behind=[b"hello"], section="RFC 9112 6.3") for name, lines in (
        ("empty", ["Content-Length:"]), ("sign", ["Content-Length: +5"]), ("negative", ["Content-Length: -5"]),
        ("hex", ["Content-Length: 0x5"]), ("list", ["Content-Length: 5, 5"]), ("words", ["Content-Length: 5 5"]),
        ("twice", ["Content-Length: 5", "Content-Length: 6"]), ("twice-the-same", ["Content-Length: 0"] * 2),
        ("and-coding", ["Content-Length: 5", "Transfer-Encoding: chunked"]),
        ("and-coding-behind", ["Transfer-Encoding: chunked", "Content-Length: 0"]))),
    *(denied(f"4.2.1-coding-{name}", status, *lines, behind=[b"0\r\n\r\n"], section="RFC 9112 6.1")
      for name, status, lines in (
          ("empty", 400, ["Transfer-Encoding:"]), ("identity", 400, ["Transfer-Encoding: identity"]),
          ("not-last", 400, ["Transfer-Encoding: chunked, gzip"]), ("prefix", 400, ["Transfer-Encoding: xchunked"]),
          ("tab", 413, ["Transfer-Encoding:\tchunked"]), ("unknown", 501, ["Transfer-Encoding: gzip, chunked"]),
          ("two-lines", 501, ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"]),
          ("twice", 501, ["Transfer-Encoding: chunked, chunked"]))),
    denied("4.2.1-frames-behind-a-refusal", 400, key=None, behind=[text("smuggled"), ping(b"x")]),
    case("4.2.2-frames-behind-the-request", "RFC 6455 4.2.2", [request(), text("hasty"), ping(b"now"), text("on")],
         [upgraded(), echo("hasty"), ponged(b"now"), echo("on")], opening=True),
    case("4.2.2-bad-frame-behind-the-request", "RFC 6455 4.2.2", [request(), frame(TEXT, "x", rsv=1)],
         [upgraded(), closed(1002)], opening=True),
    case("4.2.2-close-behind-the-request", "RFC 6455 4.2.2", [request(), bye(1001)],
         [upgraded(), closed(1001, b"")], opening=True),
]

SIZES = [
    opened("4.2.1-head-of-8191-bytes", "X: " + "x" * (8191 - len(request()) - 5), section="RFC 6585 5"),
    opened("4.2.1-head-of-64-headers", *(f"X-{i}: y" for i in range(59)), section="RFC 6585 5"),
    *(denied(f"4.2.1-431-{name}", 431, *lines, section="RFC 6585 5") for name, lines in (
        ("long-value", ["X: " + "x" * 8200]), ("long-name", ["X" * 9000 + ": x"]),
        ("many", [f"X-{i}: y" for i in range(60)]), ("many-long", [f"X-{i}: {'y' * 200}" for i in range(50)]))),
    raw("4.2.1-431-endless-value", 431, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8192, section="RFC 6585 5"),
    raw("4.2.1-414-endless-target", 414, b"GET /" + b"x" * 9000, section="RFC 9112 3"),
    raw("4.2.1-431-endless-value-behind-a-long-target", 431, b"GET /" + b"x" * 7000 + b" HTTP/1.1\r\nX: " + b"x" * 1200,
        section="RFC 6585 5"),
    raw("4.1-method-too-long", 501, b"X" * 40),
    *(raw(f"4.2.1-408-{name}", 408, data, section="RFC 9110 15.5.9", flags=("--handshake-timeout", "0.3"), cut=False)
      for name, data in (("nothing", b""), ("one-byte", b"G"), ("half", request()[:60]), ("almost", request()[:-1]))),
]

CASES = [*REQUEST_LINE, *HOST, *UPGRADE, *KEY, *VERSION, *SUBPROTOCOL, *REST, *SIZES]
