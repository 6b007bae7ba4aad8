"""Each rule of tree.py complains about the tree that breaks it, and only then."""

import os
import subprocess
import sys

import pytest

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tree.py")

GOOD = {
    "Makefile": "all:\n\ttrue\n",
    "shm/atomic.h": "static inline int load(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }\n",
    "shm/ring.h": '#include "shm/atomic.h"\nint ring_get(void);\n',
    "shm/ring.c": '#include "shm/ring.h"\n/* __atomic_ in a comment, sleep() too */\nint\nring_get(void)\n{\n    return 1;\n}\n',
    "shm/util/inbox.h": "#include <urcu/wfcqueue.h>\n",
    "shm/ring_master.h": "int ring_make(void);\n",
    "server/main.c": '#include <stdio.h>\n#include "shm/ring_master.h"\n#include "worker/worker.h"\n',
    "worker/worker.h": "int worker_main(void);\n",
    "worker/worker.c": '#include "worker/worker.h"\n#include "worker/proto/utf8.h"\n#include <event2/event.h>\n',
    "worker/proto/utf8.h": "int utf8_check(void);\n",
    "worker/api/crier.h": "int crier_run(void);\n",
    "worker/apps/standard.c": '#include "worker/api/crier.h"\n',
    "tests/unit/test_ring.c": '#include "shm/ring_master.h"\n',
    "tests/e2e/test_ring.py": "done.wait(20)\npoll.poll(0)\nselect.select([a], [], [], 0)\nclient.read(9, timeout=30)\n",
}

BODY = "    x++;\n" * 101
FUNCTION = "int\nf(int x)\n{\n" + BODY + "    return x;\n}\n"

# what the file is, what it holds, what the complaint says
BAD = [
    ("shm/bad.h", '#include "worker/worker.h"\n', "shm/ may include shm/*"),
    ("shm/bad.h", "#include <event2/event.h>\n", "shm/ is free of <event2/event.h>"),
    ("worker/bad.h", "#include <zlib.h>\n", "worker/ is free of <zlib.h>"),
    ("shm/bad.h", '#include "ring.h"\n', '"ring.h" is no file of the tree'),
    ("shm/bad.h", "#include <shm/ring.h>\n", 'write #include "shm/ring.h"'),
    ("worker/proto/bad.h", '#include "shm/ring.h"\n', "worker/proto/ may include worker/proto/*"),
    ("worker/bad.h", '#include "shm/ring_master.h"\n', "only server/ includes it"),
    ("worker/bad.h", '#include "server/main.c"\n', "worker/ may include shm/*, worker/*"),
    ("worker/apps/bad.h", '#include "worker/worker.h"\n', "worker/apps/ may include worker/api/*"),
    ("worker/api/bad.h", '#include "shm/ring.h"\n', "worker/api/ may include nothing of ours"),
    ("server/bad.h", '#include "worker/proto/bad2.h"\n', "is no file of the tree"),
    ("server/bad.h", '#include "worker/apps/standard.c"\n', "server/ may include shm/*"),
    ("tools/bad.h", '#include "worker/worker.h"\n', "tools/ may include shm/*"),
    ("tools/bad.h", '#include "shm/ring_master.h"\n', "only server/ includes it"),
    ("elsewhere/bad.h", "int x(void);\n", "move it"),
    ("worker/bad.h", "static inline void f(int *p) { __sync_fetch_and_add(p, 1); }\n", "__sync_fetch_and_add belongs in shm/atomic.h"),
    ("worker/bad.h", "static inline int f(int *p) { return __atomic_load_n(p, 0); }\n", "__atomic_load_n belongs in shm/atomic.h"),
    ("worker/bad.h", "struct s { _Atomic int x; };\n", "_Atomic belongs in shm/atomic.h"),
    ("worker/bad.h", "#include <urcu/wfcqueue.h>\n", "<urcu/wfcqueue.h> belongs in shm/atomic.h"),
    ("shm/util/inbox.h", "#include <urcu/uatomic.h>\n", "<urcu/uatomic.h> belongs in shm/atomic.h"),
    ("worker/bad.h", "    conn->state = CONN_GONE;\n", "conn->state = belongs in worker/conn_list.c"),
    ("worker/bad.h", "    worker->queued[0]--;\n", "queued[0]-- belongs in worker/conn_list.c"),
    ("worker/bad.h", "    TAILQ_REMOVE(&worker->gone, conn, link);\n", "conn, link) belongs in worker/conn_list.c"),
    ("server/ring.h", "int f(void);\n", "ring is also the name of"),
    ("tests/lib/worker.c", "", "worker is also the name of"),
    ("bad(int bytes),+18p", "int x;\n", "its name has other characters than"),
    ("shm/bad.c", "int x;\n", "shm/bad.c:1: it has no shm/bad.h"),
    ("shm/bad.h", "size_t f(void);\n", "it does not compile alone"),
    ("shm/bad.h", "int f(void); \n", "bad.h:1: remove the blanks"),
    ("shm/bad.h", "\tint f(void);\n", "replace the tab"),
    ("shm/bad.h", "int f(void);", "end the file with a newline"),
    ("tests/unit/bad.c", FUNCTION, "bad.c:3: a function of 102 lines"),
    ("tests/unit/bad.c", "\n" * 701, "701 lines: split it below 700"),
    ("tests/lib/bad.py", "pass\n" * 701, "say # long: why"),
    ("Makefile", "# x\n" * 251, "251 lines: split it below 250"),
    ("tests/e2e/bad.py", "import time\ntime.sleep(1)\n", "bad.py:2: do not sleep in a test"),
    ("tests/e2e/bad.py", "from time import sleep\nsleep(1)\n", "bad.py:2: do not sleep in a test"),
    ("tests/e2e/bad.py", "pause(1)\n", "bad.py:1: do not sleep in a test"),
    ("tests/e2e/bad.py", "import threading\nthreading.Event().wait(2)\n", "bad.py:2: do not sleep in a test"),
    ("tests/e2e/bad.py", "import threading\nthreading.Timer(2, print).start()\n", "bad.py:2: do not sleep in a test"),
    ("tests/e2e/bad.py", "import select\nselect.select([a], [], [], 0.5)\n", "bad.py:2: do not sleep in a test"),
    ("tests/e2e/bad.py", "poll.poll(300)\n", "bad.py:1: do not sleep in a test"),
    ("tests/e2e/bad.py", "client.settimeout(0.05)\n", "bad.py:1: do not sleep in a test"),
    ("tests/e2e/bad.py", "done.wait(0.3)\n", "bad.py:1: do not sleep in a test"),
    ("tests/e2e/bad.py", "client.read_to_end(timeout=0.2)\n", "bad.py:1: do not sleep in a test"),
    ("tests/e2e/bad.py", "import threading\nthreading.Thread(target=print).start()\n",
     "bad.py:2: an exception in a thread is lost"),
    ("tests/unit/bad.c", "int f(void)\n{\n    return poll(NULL, 0, 100);\n}\n", "bad.c:3: do not sleep in a test"),
    ("tests/unit/bad.c", "int usleep(int);\n", "bad.c:1: do not sleep in a test"),
    ("tests/bad.sh", "sleep 1\n", "bad.sh:1: do not sleep in a test"),
]


def complaints(tmp_path, files, listed=None):
    for path, text in files.items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    if listed is None:
        listed = [p for p in files if p.endswith(".c")]
    return subprocess.run([sys.executable, TREE, *listed], cwd=tmp_path, text=True, capture_output=True)


def test_a_tree_that_keeps_the_rules_is_passed_in_silence(tmp_path):
    result = complaints(tmp_path, GOOD)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("path,text,expected", BAD)
def test_a_broken_rule_is_named(tmp_path, path, text, expected):
    result = complaints(tmp_path, {**GOOD, path: text})
    assert result.returncode == 1
    assert expected in result.stdout
    assert result.stderr == ""


def test_inputs_for_fuzzing_are_bytes_not_text(tmp_path):
    assert complaints(tmp_path, {**GOOD, "tests/fuzz/corpus/http1/tabs": "X:\ty \n\n"}).stdout == ""
    assert "remove the blanks" in complaints(tmp_path, {**GOOD, "tests/fuzz/tabs": "X: y \n"}).stdout


def test_a_reason_allows_a_long_function_and_a_long_file(tmp_path):
    text = "/* long: one table */\n" + "int a(void);\n" * 700 + "/* long: one switch over all states */\n" + FUNCTION
    assert complaints(tmp_path, {**GOOD, "tests/unit/bad.c": text}).stdout == ""


def test_a_reason_is_for_its_own_function_only(tmp_path):
    text = "/* long: one switch */\n" + FUNCTION + "\n" + FUNCTION.replace("f(", "g(")
    assert "a function of 102 lines" in complaints(tmp_path, {**GOOD, "tests/unit/bad.c": text}).stdout


def test_the_source_lists_and_the_tree_say_the_same(tmp_path):
    listed = [p for p in GOOD if p.endswith(".c")]
    assert "shm/gone.c is listed but is not there" in complaints(tmp_path, GOOD, listed + ["shm/gone.c"]).stdout
    assert "none of the Makefile's source lists" in complaints(tmp_path, GOOD, listed[1:]).stdout
    assert "is listed 2 times" in complaints(tmp_path, GOOD, listed + listed[:1]).stdout
