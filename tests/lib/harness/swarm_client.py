"""Many clients in one process: drives tests/lib/swarm.c line by line."""

import os
import queue
import signal
import subprocess

from .jobs import Job
from .raw_client import TEXT
from .segment import BUILD
from .waiting import PATIENCE

SWARM = os.path.join(BUILD, "tests/lib/swarm")
FNV_OFFSET, FNV_PRIME = 0xcbf29ce484222325, 0x100000001b3


def transcript_hash(texts, opcode=TEXT):
    """What a swarm client computes: FNV-1a over opcode, length (8 bytes, big endian) and payload of each message."""
    value = FNV_OFFSET
    for text in texts:
        payload = text.encode() if isinstance(text, str) else text
        for byte in bytes([opcode]) + len(payload).to_bytes(8, "big") + payload:
            value = (value ^ byte) * FNV_PRIME & 0xffffffffffffffff
    return f"{value:016x}"


class Swarm:
    """`clients` clients of the server at address, all through the opening handshake."""

    def __init__(self, address, clients, *flags, timeout=None):
        host, port = address
        host = f"[{host}]" if ":" in host else host
        argv = [SWARM, "--connect", f"{host}:{port}", "--clients", str(clients), *flags]
        self.clients = clients
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.answers = queue.Queue()
        self.reader = Job(self.read_answers, lasting=True)
        try:
            assert self.answer(timeout) == f"ready {clients}", "swarm not ready"
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        self.reader.join(PATIENCE)
        assert status == -signal.SIGKILL, f"swarm ended with {status}: {self.process.stderr.read().decode()}"

    def read_answers(self):
        for line in self.process.stdout:
            self.answers.put(line.decode().rstrip("\n"))
        self.answers.put(None)

    def answer(self, timeout=None):
        try:
            line = self.answers.get(timeout=timeout or 2 * PATIENCE)
        except queue.Empty:
            raise AssertionError("no answer from swarm") from None
        if line is None:
            raise AssertionError(f"swarm ended: {self.process.stderr.read().decode()}")
        return line

    def order(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def command(self, line, timeout=None):
        self.order(line)
        return self.answer(timeout)

    def send(self, client, text):
        assert self.command(f"send {client} {text}") == "ok"

    def burst(self, client, count, prefix):
        """Client sends PREFIX-0 ... one after the other; returns before all are out."""
        assert self.command(f"burst {client} {count} {prefix}") == "ok"

    def stall(self, client):
        assert self.command(f"stall {client}") == "ok"

    def resume(self, client):
        assert self.command(f"resume {client}") == "ok"

    def expect(self, count, seconds=None):
        """Waits until every client has got `count` messages."""
        seconds = seconds or 4 * PATIENCE
        answer = self.command(f"expect {count} {int(seconds * 1000)}", seconds + PATIENCE)
        assert answer == "ok", f"not all clients got {count} messages: {answer}; {self.report()}"

    def report(self):
        """{"transcripts": {(hash, count): clients}, "short": {client: (count, state)}}; at most 20 that are short."""
        self.order("report")
        transcripts, short = {}, {}
        while True:
            word, *fields = self.answer().split()
            if word == "end":
                return {"transcripts": transcripts, "short": short}
            if word == "transcript":
                transcripts[fields[0], int(fields[1])] = int(fields[2])
            else:
                short[int(fields[0])] = (int(fields[1]), fields[2])
