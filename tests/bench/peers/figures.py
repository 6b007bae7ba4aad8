"""What the reports come to: medians, spread and ratios, the table, the plot, and their place in the document."""

import datetime
import os
import re
import statistics
import subprocess
from dataclasses import dataclass
from typing import Callable

BEGIN = "<!-- peers: what is between these two marks is written by `make bench-peers` -->"
END = "<!-- peers: end -->"
PLOT = "bench-peers.svg"


@dataclass
class Metric:
    workload: str
    title: str
    value: Callable
    ratio: bool = True


def cpu_us(report):
    return report["server"]["cpu_us_each"]


def deliveries(report):
    return report["received_per_s"]


def connections(report):
    return report["cycles_per_s"]


def latency_ms(key, percentile):
    return lambda report: report[key][percentile] / 1e6


def bytes_each(report):
    return report["server"]["pss_bytes_per_client"]


def grown_mib(report):
    return (report["server"]["pss_bytes"] - report["server"]["pss_bytes_before"]) / 2 ** 20


SECTIONS = [
    ("1,000 clients, 64 bytes, one broadcast at a time", [
        Metric("single", "CPU per delivery, us", cpu_us),
        Metric("single", "deliveries/s", deliveries),
        Metric("single", "latency p50, ms", latency_ms("latency_ns", "p50")),
        Metric("single", "latency p99, ms", latency_ms("latency_ns", "p99")),
        Metric("single", "until the last client has it, p50, ms", latency_ms("last_client_ns", "p50"))]),
    ("1,000 clients, 64 bytes, 32 broadcasts on their way", [
        Metric("burst", "CPU per delivery, us", cpu_us),
        Metric("burst", "deliveries/s", deliveries)]),
    ("1,000 clients, 1 KiB, 32 broadcasts on their way", [
        Metric("burst_1k", "CPU per delivery, us", cpu_us),
        Metric("burst_1k", "deliveries/s", deliveries)]),
    ("1,000 clients, 64 bytes, 20 broadcasts/s", [
        Metric("paced", "CPU per delivery, us", cpu_us),
        Metric("paced", "latency p50, ms", latency_ms("latency_ns", "p50")),
        Metric("paced", "latency p99, ms", latency_ms("latency_ns", "p99")),
        Metric("paced", "until the last client has it, p99, ms", latency_ms("last_client_ns", "p99"))]),
    ("idle clients, user memory of all processes", [
        Metric("idle_1000", "bytes per client, of 1,000", bytes_each),
        Metric("idle_5000", "bytes per client, of 5,000", bytes_each)]),
    ("connect, handshake, closing handshake, 16 at once", [
        Metric("storm", "CPU per connection, us", cpu_us),
        Metric("storm", "connections/s", connections)]),
    ("20 clients, 16 KiB, 500 broadcasts/s, 3 s", [
        Metric("stream", "memory grows by, MiB", grown_mib, ratio=False),
        Metric("stream", "latency p99, ms", latency_ms("latency_ns", "p99"), ratio=False)]),
    ("the same, and one more client that does not read", [
        Metric("stalled", "memory grows by, MiB", grown_mib, ratio=False),
        Metric("stalled", "latency p99 of the others, ms", latency_ms("latency_ns", "p99"), ratio=False)]),
]


# ---- numbers ----

def number(value):
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def has_faults(report):
    return any(report["faults"].values())


def in_short(report):
    """One line for the terminal."""
    if not report:
        return "no report"
    each = f"{cpu_us(report):.3f} us of CPU each, " if report["server"]["cpu_us_each"] else ""
    return f"{each}{report['received']} received, {report['cycles']} connections" + (
        f", FAULTS {report['faults']}" if has_faults(report) else "")


def values(metric, reports):
    return [metric.value(r) for r in reports if r]


def cell(metric, of_server, of_crier):
    """Median, half of the range in per cent of it, and the median of the rounds' ratios to crier."""
    found = values(metric, of_server)
    if not found:
        return "-"
    median = statistics.median(found)
    text = number(median)
    if len(found) > 1 and median:
        text += f" ±{100 * (max(found) - min(found)) / 2 / abs(median):.0f} %"
    pairs = [(metric.value(a), metric.value(b)) for a, b in zip(of_server, of_crier) if a and b]
    if metric.ratio and of_server is not of_crier and all(b for _, b in pairs):
        text += f" (x {statistics.median([a / b for a, b in pairs]):.2f})"
    if any(r and has_faults(r) for r in of_server):
        text += " †"
    if any(r and r["self"]["bottleneck"] for r in of_server) and "/s" in metric.title:
        text += " *"
    return text


# ---- the table ----

def table(servers, reports):
    lines = ["| | " + " | ".join(s.name for s in servers) + " |", "|---|" + "---|" * len(servers)]
    for title, metrics in SECTIONS:
        lines.append(f"| **{title}** |" + " |" * len(servers))
        for metric in metrics:
            cells = [cell(metric, reports[s.name, metric.workload], reports["crier", metric.workload]) for s in servers]
            lines.append(f"| {metric.title} | " + " | ".join(cells) + " |")
    return lines


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    return f"{os.cpu_count()} x {model.group(1) if model else 'an unknown CPU'}, Linux {os.uname().release}"


def disconnected(reports):
    """The servers that lost clients or messages, and in which workload."""
    for (name, workload), of_server in reports.items():
        counts = [r["faults"] for r in of_server if r and has_faults(r)]
        if counts:
            yield f"{name}, {workload}: " + ", ".join(f"{k} {max(c[k] for c in counts):,}" for k in counts[0]
                                                      if any(c[k] for c in counts))


def page(servers, reports):
    rounds = max(map(len, reports.values()))
    lines = [f"{datetime.date.today()}, {machine()}, congestion control `reno`; {rounds} interleaved "
             f"round{'s' if rounds > 1 else ''}.", "",
             "Median over the rounds, ± half of the range in per cent of it, and in parentheses the median of the ratios to crier "
             "in the same round.", "", *table(servers, reports), ""]
    if any(r and r["self"]["bottleneck"] for found in reports.values() for r in found):
        lines += ["\\* crier-bench was busy or often late itself: the server could have done more.", ""]
    lost = list(disconnected(reports))
    if lost:
        lines += ["† messages did not arrive within 5 s, or clients were disconnected, in the worst round: " + "; ".join(lost) + ".", ""]
    lines += ["| server | version | what it does differently |", "|---|---|---|"]
    lines += [f"| {s.name} | {s.version} | {s.note} |" for s in servers]
    return "\n".join(lines)


# ---- the plot ----

PLOTTED = [("single", "64 B, one at a time"), ("burst", "64 B, 32 on their way"), ("burst_1k", "1 KiB, 32 on their way")]


def plot(path, servers, reports):
    """CPU per delivery of all servers, by workload; gnuplot draws, and what a linter minds is smoothed."""
    script = ["set terminal svg size 900,420 background 'white'", "set style data histograms",
              "set style histogram clustered gap 1", "set style fill solid 0.8 noborder", "set logscale y", "set yrange [0.05:*]", "set grid y",
              "set ylabel 'CPU per delivery, us'", "set key outside top center horizontal", "$cpu << END"]
    for server in servers:
        medians = [statistics.median(values(Metric(w, t, cpu_us), reports[server.name, w]) or [float("nan")]) for w, t in PLOTTED]
        script.append(" ".join([f'"{server.name}"', *(f"{m:.4f}" for m in medians)]))
    script += ["END", "plot " + ", ".join(f"$cpu using {i + 2}:xtic(1) title '{title}'" for i, (_, title) in enumerate(PLOTTED))]
    drawn = subprocess.run(["gnuplot"], input="\n".join(script) + "\n", stdout=subprocess.PIPE, text=True, check=True).stdout
    with open(path, "w") as f:
        f.writelines(line.rstrip().replace("\t", " ") + "\n" for line in drawn.splitlines())


def read_document(path):
    """What is before and behind the place of the figures."""
    with open(path) as f:
        before, begin, rest = f.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has not both marks, {BEGIN} and {END}")
    return before, after


def write_document(path, servers, reports):
    before, after = read_document(path)
    plot(os.path.join(os.path.dirname(path), PLOT), servers, reports)
    image = f"![CPU per delivery of each server]({PLOT})"
    with open(path, "w") as f:
        f.write(f"{before}{BEGIN}\n\n{page(servers, reports)}\n\n{image}\n\n{END}{after}")
