#!/usr/bin/python3
"""Checks what compilers do not: which file includes which, where things live, how long they are.

    tests/lint/tree.py [--cc "gcc FLAGS"] SOURCE.c...

Run from the root of the tree with every source that the Makefile lists. Each rule is a generator of
(file, line, sentence that says what to do); test_tree.py shows each of them at work.
"""

import argparse
import ast
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatch

FUNCTION_LINES = 100
FILE_LINES = 700
MAKEFILE_LINES = 250

# The first row whose folder holds a file is the one that counts. `*` crosses slashes.
#   folder            may include of ours                                    and may not include of others
INCLUDES = [
    ("tests/",        ["*"],                                                 []),
    ("shm/",          ["shm/*"],                                             ["event2/*", "openssl/*", "zlib.h"]),
    ("server/",       ["shm/*", "server/*", "worker/worker.h",
                       "worker/proto/deflate.h", "worker/proto/origin.h",
                       "worker/proto/subprotocol.h", "worker/proto/utf8.h",
                       "worker/api/crier.h"],                                ["zlib.h"]),
    ("worker/proto/", ["worker/proto/*"],                                    ["event2/*"]),
    ("worker/api/",   [],                                                    ["event2/*", "openssl/*", "zlib.h"]),
    ("worker/apps/",  ["worker/api/*"],                                      ["event2/*", "zlib.h"]),
    ("worker/",       ["shm/*", "worker/*"],                                 ["zlib.h"]),
    ("tools/",        ["shm/*", "worker/proto/*", "worker/api/crier.h",
                       "tools/*"],                                           ["zlib.h"]),
]
MASTER_HEADERS = "shm/*_master.h"
MASTER_HEADER_USERS = ("shm/", "server/", "tests/")

ORDERED = re.compile(r"__atomic_\w+|__sync_\w+|\b_Atomic\b|\buatomic_\w+|\bcmm_\w+|<stdatomic\.h>|<urcu/\w+\.h>")
ORDERED_HOME = "shm/atomic.h"
ORDERED_EXCEPTIONS = {  # what another file may use all the same, and why
    ("shm/util/inbox.h", "<urcu/wfcqueue.h>"): "the queue is its implementation; ordered by liburcu, labelled there",
}
WRITTEN = [  # what only one file writes
    (re.compile(r"\bconn->(?:state|queue|waits|parting|unwatched)\s*=[^=]|\bqueued\[[^]]*\]\s*(?:[-+|]?=[^=]|--|\+\+)|"
                r"\bTAILQ_(?:INSERT|REMOVE)\w*\(.*\bconn, link\)"), "worker/", "worker/conn_list.c"),
]
SLEEP = re.compile(r"\b(?:time\.sleep|usleep|nanosleep|clock_nanosleep|sleep)\s*\(|^\s*sleep\s+[\d.$]|"
                   r"\bp?poll\(NULL,|\bselect\(0,|\bsigtimedwait\(")
SLEEPING_HOME = "tests/lib/harness/waiting.py"  # wait_until looks again and again
THREAD_HOME = "tests/lib/harness/jobs.py"
SLEEPING_CALLS = ("sleep", "pause", "sigtimedwait", "Timer")
A_MOMENT = 1  # second: a timeout that is shorter is there to pass
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
PATH = re.compile(r"[\w./+-]+", re.A)
REASON = re.compile(r"(?:/\*|//|#) long: \S")


class Tree:
    """The text files below the current folder, read once."""

    def __init__(self):
        self.text = {}
        for folder, folders, names in os.walk("."):
            folders[:] = sorted(d for d in folders if d not in ("build", ".git", "__pycache__", "corpus"))
            for name in sorted(names):
                path = os.path.normpath(os.path.join(folder, name))
                with open(path, "rb") as f:
                    data = f.read()
                if b"\0" not in data:
                    self.text[path] = data.decode("utf-8", "replace")

    def files(self, *suffixes):
        return [p for p in self.text if p.endswith(suffixes)]

    def lines(self, path):
        return enumerate(self.text[path].splitlines(), 1)

    def code_lines(self, path):
        """The lines of a C file without comments, and with empty strings; line numbers stay."""
        def blank(m):
            quote = m.group()[0]
            return "\n" * m.group().count("\n") if quote == "/" else quote * 2
        return enumerate(COMMENT_OR_STRING.sub(blank, self.text[path]).splitlines(), 1)


def check_includes(tree):
    """Each folder includes only what its place in the architecture allows."""
    for path in tree.files(".c", ".h", ".def"):
        row = next((r for r in INCLUDES if path.startswith(r[0])), None)
        if row is None:
            yield path, 1, "C files live in shm/, server/, worker/, tools/ or tests/; move it"
            continue
        folder, ours, not_others = row
        for number, line in tree.lines(path):
            m = INCLUDE.match(line)
            if not m:
                continue
            quoted, angled = m.groups()
            if angled:
                if angled in tree.text:
                    yield path, number, f'write #include "{angled}": quotes for our own headers'
                elif any(fnmatch(angled, p) for p in not_others):
                    yield path, number, f"{folder} is free of <{angled}>: move what needs it to its caller"
                continue
            if quoted not in tree.text:
                yield path, number, f'"{quoted}" is no file of the tree: write the path from the root, as in "shm/ring.h"'
            elif fnmatch(quoted, MASTER_HEADERS) and not path.startswith(MASTER_HEADER_USERS):
                yield path, number, f'"{quoted}" is the master\'s: only server/ includes it'
            elif not any(fnmatch(quoted, p) for p in ours):
                allowed = ", ".join(ours) or "nothing of ours"
                yield path, number, f'{folder} may include {allowed}, not "{quoted}": ask for less, or move the code'


def check_ordered_accesses(tree):
    """Ordered accesses are written in one file, where they are named and can be reviewed."""
    for path in tree.files(".c", ".h", ".def"):
        if path == ORDERED_HOME:
            continue
        for number, line in tree.code_lines(path):
            for word in ORDERED.findall(line):
                if (path, word) in ORDERED_EXCEPTIONS:
                    continue
                yield path, number, f"{word} belongs in {ORDERED_HOME}: use the names that it defines"


def check_writers(tree):
    """A field whose value has to fit others is written by one file."""
    for pattern, folder, home in WRITTEN:
        for path in tree.files(".c", ".h"):
            if not path.startswith(folder) or path == home:
                continue
            for number, line in tree.code_lines(path):
                for word in pattern.findall(line):
                    yield path, number, f"{word.strip()} belongs in {home}: call what it declares"


def check_names(tree):
    """A base name is an address: unique in the tree, X.c beside X.h."""
    places = defaultdict(list)
    for path in tree.files(".c", ".h", ".def"):
        folder, name = os.path.split(path)
        places[name.rsplit(".", 1)[0]].append((folder, path))
    for stem, found in sorted(places.items()):
        for folder, path in found[1:]:
            if folder != found[0][0]:
                yield path, 1, f"{stem} is also the name of {found[0][1]}: rename one of them"
    for path in tree.files(".c"):
        if not path.startswith(("shm/", "server/", "worker/")) or path.startswith("worker/apps/"):
            continue
        header = path[:-2] + ".h"
        if os.path.basename(path) != "main.c" and header not in tree.text:
            yield path, 1, f"it has no {header}: declare there what it offers"


def check_paths(tree):
    """File names are plain: one with blanks or brackets is the output of a mistyped command."""
    for path in tree.text:
        if not PATH.fullmatch(path):
            yield path, 1, "its name has other characters than letters, digits and ._+-: remove or rename it"


def check_headers_alone(tree, cc):
    """Every header compiles without help from the files that include it."""
    def compile_one(path):
        command = shlex.split(cc) + ["-fsyntax-only", "-Wno-unused", "-Wno-unused-function", "-x", "c", "-"]
        return path, subprocess.run(command, input=f'#include "{path}"\n', text=True, capture_output=True)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, result in pool.map(compile_one, tree.files(".h")):
            if result.returncode:
                first = next((x for x in result.stderr.splitlines() if "error:" in x), result.stderr.strip())
                yield path, 1, f"it does not compile alone; include what it uses ({first})"


def check_blanks(tree):
    """No tabs outside Makefiles, no blanks at the end of a line, a newline at the end of a file."""
    for path in tree.text:
        text = tree.text[path]
        if text and not text.endswith("\n"):
            yield path, text.count("\n") + 1, "end the file with a newline"
        for number, line in tree.lines(path):
            if line != line.rstrip():
                yield path, number, "remove the blanks at the end of the line"
            if "\t" in line and os.path.basename(path) != "Makefile":
                yield path, number, "replace the tab by spaces"


def check_length(tree):
    """Long functions and files are split, or say why not."""
    for path in tree.files(".c", ".h", ".py", ".sh", "Makefile"):
        lines = tree.text[path].splitlines()
        limit = MAKEFILE_LINES if os.path.basename(path) == "Makefile" else FILE_LINES
        if len(lines) > limit and not any(REASON.search(x) for x in lines[:30]):
            mark = "/* long: why */" if path.endswith((".c", ".h")) else "# long: why"
            yield path, 1, f"{len(lines)} lines: split it below {limit}, or say {mark} near its top"
    for path in tree.files(".c", ".h"):
        lines = tree.text[path].splitlines()
        start = None
        for i, line in enumerate(lines):
            if line.startswith("{"):
                start = i
            elif line.startswith("}") and start is not None:
                length = i - start - 1
                above = lines[max(start - 12, 0):start]
                last_end = max((k for k, x in enumerate(above) if x.startswith("}")), default=-1)
                reasons = above[last_end + 1:] + lines[start:i]
                if length > FUNCTION_LINES and not any(REASON.search(x) for x in reasons):
                    yield path, start + 1, f"a function of {length} lines: split it below {FUNCTION_LINES}, or say /* long: why */ above it"
                start = None


def is_moment(node):
    """A number for which a wait is no deadline but a sleep."""
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and 0 < node.value < A_MOMENT


def calls_of(tree, path):
    """The calls of a Python file and the names of what they call, without what stands before the last dot."""
    for node in ast.walk(ast.parse(tree.text[path])):
        if isinstance(node, ast.Call):
            yield node, getattr(node.func, "attr", getattr(node.func, "id", ""))


def is_sleep(call, name):
    """Does this call let time pass? By its name, or by what it waits for and how long."""
    made_here = getattr(getattr(call.func, "value", None), "func", None)
    if name in SLEEPING_CALLS or (name == "wait" and made_here):  # Event().wait(): nothing sets it
        return True
    if name in ("select", "poll", "epoll", "settimeout", "Deadline", "wait", "join", "get"):
        limit = call.args[3:] if name == "select" else call.args[:1]
        in_ms = name == "poll" and limit and isinstance(limit[0], ast.Constant) and limit[0].value
        return bool(in_ms) or any(map(is_moment, limit))
    return any(key.arg == "timeout" and is_moment(key.value) for key in call.keywords)


def check_sleeps(tree):
    """Tests wait for an event with a deadline; they never wait for time to pass."""
    for path in tree.files(".c", ".h", ".py", ".sh", ".js"):
        if not path.startswith("tests/") or path.startswith("tests/lint/"):
            continue
        if path.endswith(".py"):
            sleeps = [call.lineno for call, name in calls_of(tree, path) if is_sleep(call, name) and path != SLEEPING_HOME]
        else:
            numbered = tree.code_lines(path) if path.endswith((".c", ".h")) else tree.lines(path)
            sleeps = [number for number, line in numbered if SLEEP.search(line.split(" # ")[0])]
        for number in sleeps:
            yield path, number, "do not sleep in a test: wait for the event, with a deadline"


def check_threads(tree):
    """What a thread of a test raises is raised in the test."""
    for path in tree.files(".py"):
        if not path.startswith("tests/") or path.startswith("tests/lint/") or path == THREAD_HOME:
            continue
        for call, name in calls_of(tree, path):
            if name in ("Thread", "ThreadPoolExecutor"):
                yield path, call.lineno, "an exception in a thread is lost: use Job or at_once of tests/lib/harness"


def check_source_lists(tree, sources):
    """The Makefile's lists and the tree say the same."""
    for path in sorted(set(sources) - set(tree.text)):
        yield "Makefile", 1, f"{path} is listed but is not there: write it, or take it off its list"
    for path in sorted(set(tree.files(".c")) - set(sources)):
        yield path, 1, "it is in none of the Makefile's source lists: add its name to its folder's list"
    for path, count in sorted((p, sources.count(p)) for p in set(sources)):
        if count > 1:
            yield "Makefile", 1, f"{path} is listed {count} times: once is enough"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cc", default="gcc -std=gnu11 -I. -D_GNU_SOURCE", help="compiler and flags for the headers")
    parser.add_argument("sources", nargs="*", help="every source that the Makefile lists")
    args = parser.parse_args()
    tree = Tree()
    found = 0
    for rule in (check_includes(tree), check_ordered_accesses(tree), check_writers(tree), check_names(tree), check_paths(tree),
                 check_headers_alone(tree, args.cc), check_blanks(tree), check_length(tree), check_sleeps(tree), check_threads(tree),
                 check_source_lists(tree, args.sources)):
        for path, line, sentence in rule:
            print(f"{path}:{line}: {sentence}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
