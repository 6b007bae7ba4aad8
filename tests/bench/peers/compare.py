#!/usr/bin/python3
"""Measures crier beside other WebSocket servers, with crier-bench, on this machine.

    make bench-peers
    make bench-peers ARGS="--quick --only crier,ws"

Every workload is run on all servers, one after the other, before the next one begins, and all of that three times, each
time in another order. A server is started anew for each run. Everything happens in a network namespace of its own, whose
congestion control is `reno` on both sides, so that nothing else listens there and no socket is paced by timers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import figures
import servers

sys.path.insert(0, os.path.join(servers.HERE, "../../lib"))
from harness import RawClient, wait_until  # noqa: E402

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
SETTING_UP = "CRIER_BENCH_PEERS_INSIDE"
START_SECONDS = 20


@dataclass
class Workload:
    key: str
    flags: list
    seconds: float
    stalled: bool = False  # one more client, that never reads


BROADCAST = ["--broadcast", "--clients", "1000"]
STREAM = ["--broadcast", "--clients", "20", "--size", "16k", "--rate", "500", "--drain", "5"]
WORKLOADS = [
    Workload("single", [*BROADCAST, "--window", "1"], 2),
    Workload("burst", [*BROADCAST, "--window", "32"], 2),
    Workload("burst_1k", [*BROADCAST, "--window", "32", "--size", "1k"], 2),
    Workload("paced", [*BROADCAST, "--rate", "20"], 2),
    Workload("idle_1000", ["--idle", "--clients", "1000"], 0.2),
    Workload("idle_5000", ["--idle", "--clients", "5000"], 0.2),
    Workload("storm", ["--storm", "--clients", "16"], 2),
    Workload("stream", STREAM, 3),
    Workload("stalled", STREAM, 3, stalled=True),
]


# ---- one run ----

def is_listening():
    try:
        with RawClient(("127.0.0.1", servers.PORT), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def running(server, log):
    with subprocess.Popen(server.command, env={**os.environ, **server.environment}, stdin=subprocess.DEVNULL, stdout=log,
                          stderr=log) as process:
        try:
            wait_until(lambda: is_listening() or process.poll() is not None, f"{server.name} to listen", timeout=START_SECONDS)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def stalled_client(server):
    """Connects, and never reads what it gets."""
    with RawClient(("127.0.0.1", servers.PORT), receive_buffer=4096) as client:
        client.send_raw(client.request(headers=[("Sec-WebSocket-Protocol", "mqtt")] if server.mqtt else []))
        assert client.read_response().status == 101
        if server.mqtt:
            client.binary(b"\x10\x0c\0\4MQTT\4\2\0\0\0\0" + b"\x82\x10\0\1\0\x0bcrier-bench\0")
            client.recv_frame()  # CONNACK
            client.recv_frame()  # SUBACK
        yield


def bench(crier_bench, server, workload, seconds, log):
    """crier-bench's report, or None and its log says why."""
    with running(server, log) as process:
        command = [crier_bench, "--json", *workload.flags, *(["--mqtt"] if server.mqtt else []), "--duration", str(seconds),
                   "--pid", str(process.pid), servers.URL]
        with stalled_client(server) if workload.stalled else nullcontext():
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True)
    return json.loads(done.stdout) if done.stdout else None


def measure(crier_bench, chosen, rounds, factor):
    """{(server's name, workload's key): [a report for each round, or None]}"""
    reports = {}
    for number in range(rounds):
        order = chosen[number % len(chosen):] + chosen[:number % len(chosen)]
        for workload in WORKLOADS:
            for server in order:
                with tempfile.TemporaryFile("w+") as log:
                    report = bench(crier_bench, server, workload, workload.seconds * factor, log)
                    log.seek(0)
                    why = log.read().strip()
                reports.setdefault((server.name, workload.key), []).append(report)
                print(f"round {number + 1} of {rounds}: {workload.key}: {server.name}: {figures.in_short(report)}",
                      *([why] if why and not report else []), file=sys.stderr)
    return reports


# ---- where it is measured ----

def namespace_command():
    """What the same program is started with again in a network of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", sys.executable, "-B", *sys.argv]


def set_up_namespace():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open(CONGESTION, "w") as f:
        f.write("reno")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("build", help="where crier was built, such as build/release")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one short round; the document stays as it is")
    parser.add_argument("--only", help="these servers, with commas between; crier is always one; the document stays as it is")
    parser.add_argument("--document", default="docs/BENCHMARKS.md", help="where the table goes (default: docs/BENCHMARKS.md)")
    options = parser.parse_args()
    build = os.path.abspath(options.build)

    known = servers.build_all(build)  # this may need the network outside
    figures.read_document(options.document)  # better now than after ten minutes
    if SETTING_UP not in os.environ:
        os.execvpe("unshare", namespace_command(), {**os.environ, SETTING_UP: "1"})
    set_up_namespace()
    only = ["crier", *options.only.split(",")] if options.only else [s.name for s in known]
    chosen = [s for s in known if s.name in only]
    reports = measure(os.path.join(build, "crier-bench"), chosen, 1 if options.quick else options.rounds,
                      0.25 if options.quick else 1)
    with open(os.path.join(build, "peers/reports.json"), "w") as f:
        json.dump([{"server": s, "workload": w, "reports": r} for (s, w), r in reports.items()], f, indent=1)
    print(figures.page(chosen, reports))
    if not options.quick and not options.only:
        figures.write_document(options.document, chosen, reports)


if __name__ == "__main__":
    main()
