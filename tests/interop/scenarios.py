"""What is played with each library; a file of tests has a class of these with `libraries`."""

import contextlib

import pytest
from driven import Cannot
from wire import Wire

from harness import Job, each_worker_count, wait_until

PLAIN, DEFLATE = False, True
SIZES = (0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537, 1 << 20)


def url_of(server):
    return "ws://{}:{}/some/path?query=1".format(*server.address)


@contextlib.contextmanager
def as_its_table_says(library, need):
    """What needs something of the library: where `cannot` names that, the same is tried, and has to fail."""
    if need not in library.cannot:
        yield
        return
    try:
        yield
    except (Cannot, AssertionError):
        return
    pytest.fail(f"{library.__name__} has done what `cannot` says it cannot: {need}")


class Scenarios:
    def pytest_generate_tests(self, metafunc):
        """Each library plain, and those that can compress as well."""
        names = metafunc.fixturenames
        if "deflate" in names:
            pairs = [(library, deflate) for library in self.libraries for deflate in (PLAIN, DEFLATE)
                     if not (deflate and "deflate" in library.cannot)]
            metafunc.parametrize("library, deflate", pairs, ids=[
                f"{library.__name__.lower()}-{'deflate' if deflate else 'plain'}" for library, deflate in pairs])
        elif "library" in names:
            metafunc.parametrize("library", self.libraries, ids=lambda one: one.__name__.lower())

    def test_it_is_welcomed_echoed_and_closed(self, crier, library, deflate):
        server = crier("-v")
        with Wire(server) as wire, library(wire.url, deflate) as client:
            assert client.extension.split(";")[0] == ("permessage-deflate" if deflate else "")
            assert client.recv() == f"Welcome, {wire.name}!"
            for message in ("text", "grüße ☂ 𝄞", "", b"\x00\xff\x10", b"", "x" * 70000, bytes(range(256)) * 4096):
                client.send(message)
                assert client.recv() == message
            server.line("from the console, " * 50)
            assert client.recv() == "from the console, " * 50
            assert client.close(4321, "enough")[0] == 4321
            server.wait_log(f"{wire.name} disconnected with 4321")

    def test_messages_around_each_encoding_of_a_length_come_back_and_come_from_the_console(self, crier, library, deflate):
        server = crier("--no-welcome")
        with library(url_of(server), deflate) as client:
            for size in SIZES:
                for message in ("x" * size, b"\xff" * size):
                    client.send(message)
                    assert client.recv() == message, size
                if size:
                    server.line("y" * size)
                    assert client.recv() == "y" * size, size

    def test_its_ping_is_answered_with_its_payload(self, crier, library):
        server = crier("--no-welcome")
        with as_its_table_says(library, "payload"), library(url_of(server), PLAIN) as client:
            client.ping(b"payload")

    def test_it_answers_pings(self, crier, library):
        server = crier("--no-welcome", "--ping", "0.1", "--ping-timeout", "0")
        with Wire(server) as wire, library(wire.url, PLAIN) as client:
            before = wire.up

            def speak_after_the_pong():
                wait_until(lambda: wire.up > before, "a pong")
                server.line("go on")

            speaking = Job(speak_after_the_pong)
            assert client.recv() == "go on"
            speaking.join()

    def test_it_agrees_on_a_subprotocol(self, crier, library):
        server = crier("--no-welcome", "--subprotocol", "chat,graphql-ws")
        with as_its_table_says(library, "agreed"), \
                library(url_of(server), PLAIN, protocols=["other", "graphql-ws", "chat"]) as client:
            assert client.agreed == "graphql-ws"
            client.send("chatter")
            assert client.recv() == "chatter"

    def test_it_opens_when_none_of_its_subprotocols_is_agreed_on(self, crier, library):
        server = crier("--no-welcome")
        with as_its_table_says(library, "none"), library(url_of(server), PLAIN, protocols=["other"]) as client:
            client.send("chatter")
            assert client.recv() == "chatter"

    def test_it_connects_by_ipv6(self, crier, library):
        server = crier("--no-welcome", listen="[::1]:0")
        with library("ws://[{}]:{}/some/path?query=1".format(*server.address), PLAIN) as client:
            client.send("by six")
            assert client.recv() == "by six"

    def test_it_compresses_without_contexts(self, crier, library):
        server = crier("--no-welcome")
        with as_its_table_says(library, "deflate"), library(url_of(server), DEFLATE) as client:
            assert client.extension.split(";")[0] == "permessage-deflate"
            for _ in range(3):
                client.send("compress me, " * 100)
                assert client.recv() == "compress me, " * 100

    def test_its_fragments_are_one_message(self, crier, library, deflate):
        server = crier("--no-welcome")
        with as_its_table_says(library, "fragments"), library(url_of(server), deflate) as client:
            for parts in (["one, ", "two, ", "three"], ["", "x" * 300, ""], [b"a" * 70000, b"b" * 70000, b"c"],
                          ["\u2602" * 1000] * 20):
                client.send(parts)
                assert client.recv() == parts[0][:0].join(parts)

    def test_many_of_its_messages_come_back_in_order(self, crier, library, deflate):
        server = crier("--no-welcome")
        with library(url_of(server), deflate) as client:
            sent = [f"{number} {'grün, ' * (number % 400)}" for number in range(200)]
            for message in sent:
                client.send(message)
            assert [client.recv() for _ in sent] == sent

    def test_it_is_told_why_the_server_closes(self, crier, library, deflate):
        server = crier("--no-welcome", "--max-message", "1000")
        with library(url_of(server), deflate) as client:
            client.send("*" * 1001)
            code, reason = client.recv_close()
            assert code == 1009 and reason
        with library(url_of(server), deflate) as client:
            server.process.terminate()
            assert client.recv_close()[0] == 1001
            assert server.wait_exit() == 0

    @each_worker_count
    def test_all_of_them_hear_the_console_and_each_other(self, crier, library, workers):
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

    def test_what_it_is_sent_compressed_is_fewer_bytes(self, crier, library):
        server = crier("--no-welcome")
        if "deflate" in library.cannot:
            return  # test_it_compresses_without_contexts tries
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
