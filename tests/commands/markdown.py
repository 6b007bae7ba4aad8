"""Finds the commands in a Markdown text, and what the text says they print."""

import dataclasses
import re

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:^    .*\n)+", re.M)
SPAN = re.compile(r"`([^`\n]+)`")

# A code span that begins with one of these and has more words is a command; one word alone is a name.
PROGRAMS = re.compile(r"(?:make|gcc|crier|crier-ring|crier-bench|build/\S+|tests/\S+|python3|wscat|vmstat|addr2line|ulimit|pkg-config)\s|\./")


@dataclasses.dataclass(frozen=True)
class Command:
    line: int  # in the file, from 1
    text: str  # as written
    prints: tuple = ()  # the lines below it, in a block that shows a terminal

    def __str__(self):
        return f"{self.line}: {self.text}"


def commands(text):
    """All commands of the text, in order: of ```sh blocks, behind `$ ` in other blocks, and in code spans."""
    found = []
    for block in FENCE.finditer(text):
        first = text.count("\n", 0, block.start()) + 2
        lines = block[2].splitlines()
        if block[1] == "sh":
            found += [Command(first + i, line.strip()) for i, line in enumerate(lines) if line.strip() and line[0] != "#"]
        elif block[1] == "":
            found += transcript(first, lines)
    prose = FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
    for span in SPAN.finditer(prose):
        if PROGRAMS.match(span[1]):
            found.append(Command(prose.count("\n", 0, span.start()) + 1, span[1]))
    return sorted(found, key=lambda command: command.line)


def transcript(first, lines):
    """The commands of a block that shows a terminal, each with the lines up to the next."""
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        yield Command(first + start, lines[start][2:], tuple(lines[start + 1:end]))


def first_block(text):
    """The commands of the first indented block: one a line."""
    block = INDENTED.search(text)
    first = text.count("\n", 0, block.start()) + 1
    return [Command(first + i, line.strip()) for i, line in enumerate(block[0].splitlines())]


def source(text, language):
    """The first fenced block of that language."""
    return next(block[2] for block in FENCE.finditer(text) if block[1] == language)


def shape(line):
    """What stays of a printed line when its values are replaced: numbers, ids, units of time, and the room they take."""
    line = line.removesuffix(", asleep")  # as a worker is that has nothing to do just now
    line = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b", "N", line)
    line = re.sub(r"\b[\d.,]+\b", "N", line)
    line = re.sub(r"\bN (?:ns|us|ms|s)\b", "N TIME", line)
    return re.sub(r"\s+", " ", line).strip()
