"""Many clients in one process: drives tests/lib/swarm.c line by line."""

from .load_program import LoadProgram
from .raw_client import TEXT
from .waiting import PATIENCE

FNV_OFFSET, FNV_PRIME = 0xcbf29ce484222325, 0x100000001b3


def transcript_hash(texts, opcode=TEXT):
    """What a swarm client computes: FNV-1a over opcode, length (8 bytes, big endian) and payload of each message."""
    value = FNV_OFFSET
    for text in texts:
        payload = text.encode() if isinstance(text, str) else text
        for byte in bytes([opcode]) + len(payload).to_bytes(8, "big") + payload:
            value = (value ^ byte) * FNV_PRIME & 0xffffffffffffffff
    return f"{value:016x}"


class Swarm(LoadProgram):
    """`clients` clients of the server at address, all through the opening handshake."""

    def __init__(self, address, clients, *flags, timeout=None):
        super().__init__("swarm", address, clients, *flags, timeout=timeout)

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
