"""What auditing costs the application: processor time and latency of each request, beside what people run today.

python -m benchmarks.cost [--requests 1000] [--rounds 7] [--json]

The same application (`cost_app.py`) runs under gunicorn in several ways at once, and all of them are asked in turn,
round by round. What their background threads do between two turns counts as theirs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.machine import machine
from examples.demo.processes import Service, free_port

_BIN = Path(sys.executable).parent
_TICKS = os.sysconf("SC_CLK_TCK")
_METHODS = {"GET": "/invoices/{}", "POST": "/invoices/{}/approve"}
_BATCH_SECONDS = 6.0
"""Longer than the SDK's span processor waits before it sends what it has."""


class _Sink(BaseHTTPRequestHandler):
    """Takes what exporters send, and says that it is stored."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read it all, answer an empty success."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def sink() -> Iterator[str]:
    """Serve a sink; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Way:
    """One way to run the application."""

    name: str
    service: Service
    begun: float = 0.0
    microseconds: dict[str, list[float]] = field(default_factory=dict)
    """Processor time of a request, by method: one number a round."""
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of every request."""


def ways(directory: Path, url: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name the ways: a prefix of the command, and variables."""
    off = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    otlp = {
        **off,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_SERVICE_NAME": "cost",
    }
    without = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "spanseal"}
    run = [str(_BIN / "opentelemetry-instrument")]

    def audited(durability: str) -> dict[str, str]:
        spool = directory / f"spool-{durability}-{free_port()}"
        return {**otlp, "SPANSEAL_SPOOL_DIR": str(spool), "SPANSEAL_DURABILITY": durability}

    def by_hand(synchronous: str) -> dict[str, str]:
        return {"AUDIT_BY_HAND": str(directory / f"by-hand-{synchronous}.db"), "SYNCHRONOUS": synchronous}

    return {
        "bare Flask": ([], {}),
        "audit by hand in SQLite": ([], by_hand("NORMAL")),
        "audit by hand in SQLite, synced": ([], by_hand("FULL")),
        "OpenTelemetry traces": (run, {**otlp, **without}),
        "OpenTelemetry traces and Spanseal": (run, audited("process")),
        "OpenTelemetry traces and Spanseal, synced": (run, audited("disk")),
    }


def processor_seconds(root: int) -> float:
    """Return the processor time that a process and its children have used."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    total = 0
    for pid, used in ticks.items():
        at = pid
        while at not in (root, 0):
            at = parents.get(at, 0)
        total += used if at == root else 0
    return total / _TICKS


def ask(way: Way, method: str, requests: int) -> None:
    """Send requests one after the other, and keep each one's time."""
    latencies = way.latencies.setdefault(method, [])
    for number in range(requests):
        connection = http.client.HTTPConnection("127.0.0.1", way.service.port, timeout=30)
        begun = time.perf_counter()
        connection.request(method, _METHODS[method].format(number % 999 + 1))
        response = connection.getresponse()
        response.read()
        latencies.append((time.perf_counter() - begun) * 1000)
        connection.close()
        if response.status >= 400:
            sys.exit(f"{way.name} answered {response.status}")


def measure(all_ways: list[Way], requests: int, rounds: int) -> None:
    """Ask all of them in turn."""
    for way in all_ways:
        for method in _METHODS:
            ask(way, method, 50)
            way.latencies.clear()
    for method in _METHODS:
        time.sleep(_BATCH_SECONDS)
        for way in all_ways:
            way.begun = processor_seconds(way.service.pid)
        for _ in range(rounds):
            for way in all_ways:
                ask(way, method, requests)
            time.sleep(_BATCH_SECONDS)
            for way in all_ways:
                now = processor_seconds(way.service.pid)
                way.microseconds.setdefault(method, []).append((now - way.begun) / requests * 1e6)
                way.begun = now


def report(all_ways: list[Way]) -> dict[str, dict[str, dict[str, float]]]:
    """Make the results: medians, and what each adds to what it stands on."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way in all_ways:
        found[way.name] = {}
        for method, values in way.microseconds.items():
            latencies = sorted(way.latencies[method])
            found[way.name][method] = {
                "cpu_us": statistics.median(values),
                "cpu_us_least": min(values),
                "cpu_us_most": max(values),
                "latency_ms_p50": latencies[len(latencies) // 2],
                "latency_ms_p99": latencies[len(latencies) * 99 // 100],
            }
    return found


def show(all_ways: list[Way]) -> None:
    """Print the table."""
    found = report(all_ways)
    print(f"{'':<44}{'':>5}{'CPU µs per request':>24}{'latency ms':>18}")
    print(f"{'':<44}{'':>5}{'median':>8}{'least':>8}{'most':>8}{'p50':>9}{'p99':>9}")
    for name, methods in found.items():
        for method, numbers in methods.items():
            print(
                f"{name:<44}{method:>5}{numbers['cpu_us']:>8.0f}{numbers['cpu_us_least']:>8.0f}"
                f"{numbers['cpu_us_most']:>8.0f}{numbers['latency_ms_p50']:>9.2f}{numbers['latency_ms_p99']:>9.2f}"
            )
    bare, traces = all_ways[0], next(way for way in all_ways if way.name == "OpenTelemetry traces")
    by_hand = all_ways[1]
    audited = next(way for way in all_ways if way.name == "OpenTelemetry traces and Spanseal")
    for method in _METHODS:

        def added(way: Way, to: Way, method: str = method) -> list[float]:
            return [
                one - other
                for one, other in zip(way.microseconds[method], to.microseconds[method], strict=True)
            ]

        tracing = statistics.median(added(traces, bare))
        hand = statistics.median(added(by_hand, bare))
        ours = statistics.median(added(audited, traces))
        print(
            f"{method}: tracing adds {tracing:.0f} µs, an insert by hand {hand:.0f} µs; Spanseal adds {ours:.0f} µs, "
            f"{ours / tracing:.2f} of tracing and {ours / hand:.2f} of the insert by hand"
        )


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of each method, way and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(sink())
        all_ways = []
        for number, (name, (prefix, variables)) in enumerate(ways(directory, url).items()):
            port = free_port()
            gunicorn = [str(_BIN / "gunicorn"), "--no-control-socket", "-b", f"127.0.0.1:{port}"]
            command = [*prefix, *gunicorn, "benchmarks.cost_app:app"]
            service = Service(
                name, command, port=port, ready_path="/invoices/1", log=directory / f"{number}.log"
            )
            service.env = variables
            all_ways.append(Way(name, stack.enter_context(service)))
        measure(all_ways, arguments.requests, arguments.rounds)
        if arguments.json:
            print(json.dumps({"machine": machine(), "results": report(all_ways)}, indent=1))
        else:
            print(machine())
            show(all_ways)


if __name__ == "__main__":
    main()
