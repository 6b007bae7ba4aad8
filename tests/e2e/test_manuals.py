"""Numbers and options that texts for users repeat, against the code that they come from."""

import os
import re

import pytest

from harness import BUILD, REPOSITORY, run_crier

STANDARD = "worker/apps/standard.c"
HTTP1 = "worker/proto/http1.h"
PAGE = "worker/http/page.html"
RECORD = "shm/record.h"
SUBPROTOCOL = "worker/proto/subprotocol.h"

# A text; what it says, with {} for each number; where each number is in the code: file, name, and in what the text counts.
NUMBERS = [
    ("docs/crier.1.in", "A datagram of more than {} KiB is skipped", [("server/console_source.h", "SOURCE_CHUNK_BYTES", 1024)]),
    ("docs/crier.1.in", "keeps up to {} KiB of lines", [("shm/util/log_out.h", "LOG_OUT_QUEUE_BYTES", 1024)]),
    ("docs/crier.1.in", "the last {:,} messages, fewer if they have more than {:,} characters together, and of each the first {:,}",
     [(PAGE, "MESSAGES", 1), (PAGE, "CHARS", 1), (PAGE, "MESSAGE_CHARS", 1)]),
    ("docs/crier.1.in", "a head of more than {} bytes, and 431 for more than {} headers; 501 for a method of more than {} bytes",
     [(HTTP1, "HTTP1_HEAD_MAX_BYTES", 1), (HTTP1, "HTTP1_HEADERS_MAX", 1), (HTTP1, "HTTP1_METHOD_MAX_BYTES", 1)]),
    ("docs/crier.1.in", "token of RFC 9110 of at most {} bytes", [(SUBPROTOCOL, "SUBPROTOCOL_NAME_MAX_BYTES", 1)]),
    ("docs/crier.1.in", "more than {} names with 431", [(SUBPROTOCOL, "SUBPROTOCOL_OFFERS_MAX", 1)]),
    ("docs/crier.1.in", "accepts nothing for {} seconds", [("worker/conn_timeout.h", "CONN_CLOSE_TIMEOUT_MS", 1000)]),
    ("docs/crier.1.in", "a text of more than {} bytes", [(STANDARD, "FORMAT_BYTES", 1)]),
    ("docs/crier.1.in", "not exited {} seconds later", [("worker/worker.c", "WORKER_DOOM_MS", 1000)]),
    ("docs/crier-bench.1", "the newest {:,} broadcasts", [("tools/bench_audience.h", "BENCH_AUDIENCE_MESSAGES", 1)]),
    ("docs/crier-bench.1", "at most {} handshakes under way", [("tools/bench_thread.c", "OPENING_AT_ONCE", 1)]),
    ("README.md", "which shows the last {:,} messages", [(PAGE, "MESSAGES", 1)]),
    ("README.md", "longer than {} KiB are sent uncompressed", [(RECORD, "RECORD_DEFLATE_MAX_BYTES", 1024)]),
    ("shm/conf.def", "messages of up to {} KiB", [(RECORD, "RECORD_DEFLATE_MAX_BYTES", 1024)]),
    ("shm/conf.def", "at least {} x --max-message, and {}k", [("shm/arena.h", "ARENA_RECORDS_MIN", 1),
                                                              ("server/options_check.c", "OPTIONS_POOL_MIN_BYTES", 1024)]),
    ("worker/proto/http1.c", "has more than {} headers.", [(HTTP1, "HTTP1_HEADERS_MAX", 1)]),
    ("worker/proto/http1.c", "request is longer than {} bytes.", [(HTTP1, "HTTP1_HEAD_MAX_BYTES", 1)]),
    ("worker/proto/http1.c", "target is longer than {} bytes.", [(HTTP1, "HTTP1_HEAD_MAX_BYTES", 1)]),
    ("worker/proto/handshake.c", "has more than {} names.", [(SUBPROTOCOL, "SUBPROTOCOL_OFFERS_MAX", 1)]),
]


def read(path):
    with open(os.path.join(REPOSITORY, path)) as file:
        return file.read()


def constant(path, name):
    found = re.search(rf"\b{name} = ([0-9 *<]+)[,; }}]", read(path))
    assert found, f"{path} has no {name}"
    return eval(found[1])


@pytest.mark.parametrize("path, sentence, places", NUMBERS)
def test_a_number_in_a_text_is_the_one_in_the_code(path, sentence, places):
    numbers = [constant(*place[:2]) / place[2] for place in places]
    assert all(number.is_integer() for number in numbers), numbers
    sentence = sentence.format(*map(int, numbers))
    assert sentence in " ".join(read(path).split()), f"{path} does not say: {sentence}"


@pytest.mark.parametrize("option, too_much, limit", [("workers", "256", r"from 1 to (\w+)"), ("ring", "2G", r"at most (\w+)"),
                                                     ("max-message", "256M", r"from 1 to (\w+)")])
def test_the_manual_has_the_greatest_value_that_is_accepted(option, too_much, limit):
    done = run_crier(f"--{option}", too_much)
    assert done.returncode == 2, done
    about = re.search(rf"^@about {option}\n((?:[^@].*\n)*)", read("docs/crier.1.in"), re.M)[1]
    assert f"At most {re.search(limit, done.stderr)[1]}.\n" in about, (done.stderr, about)


@pytest.mark.parametrize("name", ["crier-bench", "crier-ring"])
def test_a_tools_manual_has_the_options_and_defaults_of_its_help(name):
    items = dict(re.findall(r"^\.It (?:Fl \w , )?Fl -([\w-]+).*\n((?:(?!\.It ).*\n)*)", read(f"docs/{name}.1"), re.M))
    shown = run_crier("--help", program=os.path.join(BUILD, name)).stdout
    rows = re.findall(r"^  +(?:-\w, )?--([\w-]+)((?:.*\n {20,})*.*)", shown, re.M)
    assert rows
    for option, text in (row for row in rows if row[0] not in ("help", "version")):
        assert option in items, f"docs/{name}.1 lacks --{option}"
        for default in re.findall(r"\(default: (\d+)", text):
            said = re.search(r"\b(\d+) by default", items[option].replace("\n", " "))
            assert said and said[1] == default, f"--{option}: {default}"
    assert set(items) - {option for option, _ in rows} <= {"version"}, items


def test_the_manual_has_every_status_that_is_answered():
    answered = set(re.findall(r'^    \{(\d{3}), "', read("worker/proto/response.c"), re.M))
    section = re.search(r"^\.Sh HTTP\n(.*?)^\.Sh ", read("docs/crier.1.in"), re.M | re.S)[1]
    assert answered and answered == set(re.findall(r"(?<![\d,])[1-5]\d\d\b", section))


def test_manual_and_readme_have_every_code_of_a_close():
    codes = set(re.findall(r"\b(?:FRAME_)?CLOSE_\w+ = (\d{4})\b", read("shm/layout.h") + read("worker/proto/frame.h")))
    codes -= {"1005", "1006"}  # never sent, RFC 6455 section 7.4.1
    section = re.search(r"^\.Sh CLOSE CODES\n(.*?)^\.Sh ", read("docs/crier.1.in"), re.M | re.S)[1]
    assert codes == set(re.findall(r"^\.It (\d{4})$", section, re.M))
    table = re.search(r"^\| close code \|.*\n((?:\|.*\n)+)", read("README.md"), re.M)[1]
    assert codes == set(re.findall(r"\b\d{4}\b", " ".join(row.split("|")[1] for row in table.splitlines())))
