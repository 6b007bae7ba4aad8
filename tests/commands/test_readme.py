"""Every command of README.md runs as written, in order, from a fresh clone, and prints what README.md shows.

The copy of the tree comes with what is built, and with a prefix of its own. A server that a command starts runs until a
command needs its port, so that the clients and tools in between find it. `make TARGET` is only looked up (`make -n`)
when it takes minutes: .ci/run runs those.
"""

import os
import re

import pytest
from markdown import Command, commands, first_block, shape, source

from harness import REPOSITORY

SLOW = re.compile(r"make (test|lint|interop|fuzz|bench|bench-peers|check-long|asan|tsan|cov)\b")
SERVES = re.compile(r"make run\b|(?:.*\| )?(?:build/release/)?crier (?!.*--help)|\./shout\b")
CLIENT = re.compile(r"python3 -m websockets|wscat")
RING = re.compile(r"(?:build/release/)?crier-ring ")
OWN_SERVER = re.compile(r"crier-bench .* -- ")
MASTER = re.compile(r"(\w+)\[(\d+)\] master: ")


def text_of(path):
    with open(os.path.join(REPOSITORY, path)) as f:
        return f.read()


pytestmark = pytest.mark.limit(300)
README = text_of("README.md")
STORY = ("once upon a time", "the end")


class Reader:
    """Types the commands; knows which server runs, and which lines are shown for it and did not come yet."""

    def __init__(self, clone):
        self.clone = clone
        self.server = None
        self.shown = []
        with open(os.path.join(clone.root, "story.txt"), "w") as f:
            f.write("".join(f"{line}\n" for line in STORY))
        with open(os.path.join(clone.root, "shout.c"), "w") as f:
            f.write(source(README, "c"))

    def start(self, command, terminal=False):
        return self.clone.start(command, terminal, CRIER_WORKERS="2")  # README.md was written on two processors

    def serve(self, command):
        self.stop()
        server = self.start(command.text, terminal=command.text.startswith("make run"))
        for line in command.prints[:2]:
            server.expect(lambda printed, line=line: shape(printed) == shape(line), line)
        if not command.prints:
            server.expect(lambda printed: "listening on " in printed, "listening on")
        self.server = server
        self.shown = list(command.prints[2:])
        if "|" in command.text:
            client = self.connect()
            client.expect(lambda printed: printed.startswith("< "), "< (a line of the command before the pipe)")
            client.stop()
        elif "< story.txt" in command.text:
            self.tell_story(int(re.search(r"--wait-clients (\d+)", command.text)[1]))

    def tell_story(self, count):
        for client in [self.connect() for _ in range(count)]:
            for line in STORY:
                client.expect(lambda printed, line=line: printed == f"< {line}", line)
            client.expect(lambda printed: "1000" in printed, "closed with 1000")
            client.stop()
        assert self.server.finish() == 0, str(self.server)
        self.server = None

    def connect(self, command="python3 -m websockets ws://127.0.0.1:8080/"):
        return self.start(command, terminal=True)

    def client(self, command):
        """A client, and as many more as it sees welcomed; what is typed into the server is in the server's lines."""
        assert self.server, "no server runs"
        clients, welcomes = [self.connect(command.text)], 0
        for line in command.prints or ("Connected",):
            typed = line[2:] in self.shown and line.startswith("< ")
            welcomes += line.startswith("< Welcome")
            if welcomes > len(clients):
                clients.append(self.connect(command.text))
            if line.startswith("> "):
                clients[0].type(line[2:])
                continue
            if typed:
                self.server.type(line[2:])
                self.shown.remove(line[2:])
            clients[0].expect(lambda printed, line=line: shape(printed).startswith(shape(line)), line)
        for line in self.shown:
            self.server.expect(lambda printed, line=line: shape(printed) == shape(line), line)
        self.shown = []
        for client in clients:
            client.stop()

    def look(self, command):
        """At a ring with the messages that are shown: a client is welcomed, the rest is typed into the server."""
        assert self.server, "no server runs"
        client = self.connect()
        for line in command.prints:
            text = re.match(r"#.* \"(.*)\"$", line)
            if text and not text[1].startswith("Welcome"):
                self.server.type(text[1])
            if text:
                client.expect(lambda printed, text=text: shape(printed) == shape(f"< {text[1]}"), text[1])
        self.compare(command)
        client.stop()

    def compare(self, command):
        printed = self.clone.run(command.text, CRIER_WORKERS="2")
        left = iter(printed)
        for line in command.prints:
            assert any(shape(line) == shape(other) for other in left), f"{line!r} is not, or not there, in:\n" + "\n".join(printed)

    def run(self, command):
        if SLOW.match(command.text):
            self.clone.run("make -n " + command.text.removeprefix("make "))
        elif SERVES.match(command.text):
            self.serve(command)
        elif CLIENT.match(command.text):
            self.client(command)
        elif RING.match(command.text):
            self.look(command)
        else:
            if OWN_SERVER.search(command.text):
                self.stop()
            self.compare(command)

    def stop(self):
        if self.server is None:
            return
        server, self.server = self.server, None
        self.clone.run(f"kill {MASTER.search(str(server))[2]}")
        assert server.finish() == 0, str(server)


@pytest.fixture(scope="module")
def reader(clone):
    reader = Reader(clone)
    yield reader
    reader.stop()


@pytest.mark.parametrize("command", commands(README), ids=str)
def test_a_command_of_the_readme_runs_as_written(reader, command):
    reader.run(command)


@pytest.mark.parametrize("command", first_block(text_of("CONTRIBUTING.md")), ids=str)
def test_a_command_of_the_first_block_of_contributing_runs_as_written(reader, command):
    reader.run(command)


def test_all_ways_to_write_a_command_are_found():
    text = ("`make` is a name, `make all` is not, nor is `./shout`.\n\n```sh\nmake run  # here\n\n# no\n```\n\n"
            "```\n$ ls\nfile\n$ make\n```\n\n```c\nint x;\n```\n\n    make help  # that\n    make\n\ntext `gcc x.c`\n")
    assert commands(text) == [Command(1, "make all"), Command(1, "./shout"), Command(4, "make run  # here"),
                              Command(10, "ls", ("file",)), Command(12, "make"), Command(22, "gcc x.c")]
    assert first_block(text) == [Command(19, "make help  # that"), Command(20, "make")]
    assert source(text, "c") == "int x;\n"


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "tests/README.md", *sorted(
    f"docs/{name}" for name in os.listdir(os.path.join(REPOSITORY, "docs")) if name.endswith(".md"))])
def test_every_target_that_a_text_names_is_one_of_make_help(path):
    targets = {line.split()[0].partition(":")[0] for line in text_of("Makefile").splitlines() if ":" in line and "##" in line}
    named = re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text_of(path), re.M)
    assert [name for name in named if name not in targets] == []
