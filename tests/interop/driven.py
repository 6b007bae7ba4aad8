"""Clients that run as programs of their own, in the language of the library; clients/README.md has the lines they speak.

A class says how its program is started, and what its library cannot do. The tests choose by that and by nothing else, and
try what is said to be impossible as well: the order then has to end as Cannot.

    cannot: "deflate"    compress as the server asks, with no context kept between messages
            "fragments"  send a message in fragments
            "payload"    choose the payload of a ping
            "agreed"     tell the subprotocol that was agreed on
            "none"       open although the server agrees on none of its subprotocols
"""

import functools
import os
import queue
import shutil
import subprocess
import tempfile

from harness import PATIENCE, REPOSITORY, Job, plain_environment

CLIENTS = os.path.join(REPOSITORY, "tests/interop/clients")


class Cannot(Exception):
    """The library has no way to do what was ordered, or fails at it."""


class Driven:
    cannot = ()

    def __init__(self, url, deflate, *options, protocols=()):
        options = [f"deflate={int(deflate)}", *([f"protocols={','.join(protocols)}"] if protocols else []), *options]
        self.process = subprocess.Popen([*self.command(), url, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=self.environment())
        self.events = queue.Queue()
        self.reader = Job(self.read_events)
        try:
            self.opening = self.next_event()
            if self.opening[0] == "open":
                self.extension, self.agreed = map(self.text, self.opening[1:])
            elif self.opening[0] != "refused":
                raise Cannot(self.told_of(self.opening))
        except BaseException:
            self.__exit__()
            raise

    @staticmethod
    def environment():
        return plain_environment()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()

    @staticmethod
    def text(word):
        return bytes.fromhex(word).decode()

    def told_of(self, event):
        return f"{event[0]}: {self.text(event[1])}" if event[0] in ("unable", "failed") else " ".join(event)

    def read_events(self):
        for line in self.process.stdout:
            self.events.put(line.decode().rstrip("\n").split(" "))
        self.events.put(["exit"])

    def next_event(self):
        return self.events.get(timeout=2 * PATIENCE)

    def expect(self, name):
        """The words of the next event, which is of this name."""
        event = self.next_event()
        if event[0] != name and event[0] in ("unable", "failed"):
            raise Cannot(self.told_of(event))
        assert event[0] == name, self.told_of(event)
        return event[1:]

    def order(self, *words):
        self.process.stdin.write(" ".join(words).encode() + b"\n")
        self.process.stdin.flush()

    def send(self, message):
        parts = message if isinstance(message, list) else [message]
        kind = "text" if isinstance(parts[0], str) else "binary"
        self.order("send", kind, *((part.encode() if kind == "text" else part).hex() for part in parts))

    def recv(self):
        kind, content = self.expect("message")
        return self.text(content) if kind == "text" else bytes.fromhex(content)

    def ping(self, payload):
        self.order("ping", payload.hex())
        if bytes.fromhex(self.expect("pong")[0]) != payload:
            raise Cannot("the pong has another payload")

    def close(self, code, reason):
        self.order("close", str(code), reason.encode().hex())
        return self.recv_close()

    def recv_close(self):
        code, reason = self.expect("close")
        return int(code), self.text(reason)


class Node(Driven):
    """`ws` for Node, of Debian's node-ws."""
    cannot = ("none",)

    @staticmethod
    def command():
        return ["node", os.path.join(CLIENTS, "ws_client.js")]

    @staticmethod
    def environment():
        path = os.environ.get("NODE_PATH", "")
        return plain_environment(NODE_PATH="/usr/share/nodejs" + (f":{path}" if path else ""))


class OfPython(Driven):
    @classmethod
    def command(cls):
        return ["/usr/bin/python3", os.path.join(CLIENTS, "python_client.py"), cls.__name__.lower()]


class Aiohttp(OfPython):
    """Debian's python3-aiohttp."""
    cannot = ("fragments",)


class Tornado(OfPython):
    """Debian's python3-tornado."""
    cannot = ("deflate", "fragments")


class Libsoup(OfPython):
    """libsoup 3, by Debian's gir1.2-soup-3.0."""
    cannot = ("fragments", "payload")


class Qt(OfPython):
    """Qt 5, by Debian's python3-pyqt5.qtwebsockets."""
    cannot = ("deflate", "agreed")


class Mojolicious(Driven):
    """Debian's libmojolicious-perl."""
    cannot = ("deflate",)

    @staticmethod
    def command():
        return ["/usr/bin/perl", os.path.join(CLIENTS, "mojolicious_client.pl")]


class Java(Driven):
    """java.net.http of Debian's openjdk-17-jdk-headless."""
    cannot = ("deflate",)

    @staticmethod
    @functools.cache
    def classes():
        """The folder with the compiled program, removed when Python ends."""
        folder = tempfile.TemporaryDirectory(prefix="crier-java-")
        subprocess.run(["javac", "-d", folder.name, os.path.join(CLIENTS, "JavaClient.java")], check=True)
        return folder

    @classmethod
    def command(cls):
        return [shutil.which("java"), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", cls.classes().name, "JavaClient"]
