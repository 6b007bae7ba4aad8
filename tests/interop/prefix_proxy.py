"""A reverse proxy that serves the server below a path of its own, as nginx does with a slash after proxy_pass."""

import contextlib
import http.server
import socket

from harness import PATIENCE, Job


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        proxy = self.server
        if not self.path.startswith(proxy.prefix + "/"):
            self.send_error(404)
            return
        try:
            far = socket.create_connection(proxy.server_address_behind, timeout=PATIENCE)
        except OSError:
            self.send_error(502)
            return
        self.close_connection = True
        if proxy.host:
            self.headers.replace_header("Host", proxy.host)
        lines = [f"GET {self.path[len(proxy.prefix):]} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        with far:
            far.settimeout(None)
            far.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
            up = Job(self.pass_on, self.connection, far, lasting=True)
            self.pass_on(far, self.connection)
            up.join()

    @staticmethod
    def pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


class PrefixProxy(http.server.ThreadingHTTPServer):
    """`url` is what it serves the server's / at. host: what it puts in the place of each Host header."""

    def __init__(self, server, prefix="/live", host=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_address_behind = server.address
        self.prefix, self.host = prefix, host
        self.url = "http://{}:{}{}/".format(*self.server_address, prefix)
        self.job = Job(self.serve_forever, lasting=True)

    def __exit__(self, *_):
        self.shutdown()
        self.job.join()
        self.server_close()
