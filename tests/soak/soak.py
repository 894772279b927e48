#!/usr/bin/env python3
"""Uses a server for a long time as the world does, changes its models meanwhile, and checks every answer.

Good requests, bad, slow, broken-off and repeated ones go to several models; once a minute an operator adds, replaces,
breaks or removes one. Every answer is compared with a direct run of the same file by Python's own ONNX Runtime. At the
end: no answer was wrong, none is missing, and the server holds as much memory as after its first minutes.

    python3 tests/soak/soak.py --server target/release/densecl-server --minutes 20
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy

sys.path[1:1] = [str(Path(__file__).resolve().parent.parent / "python")]

import models
from operations import Operations
from raw_http import Reset
from server_process import ServerProcess
from traffic import HOT_PICTURES, WEIGHTS, Client, Wrong, picture
from truth import Truth

MAX_MEMORY_GROWTH = 0.05
FLAGS = ["--cache-bytes=16MiB", "--body-timeout=2s", "--header-timeout=5s", "--drain-delay=5s", "--max-side=512"]
SHOWN_FAILURES = 20


@dataclass
class Result:
    """What all clients and the operator saw."""

    requests: Counter = field(default_factory=Counter)
    notes: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def failed(self, what: str) -> None:
        with self.lock:
            self.failures.append(what)
            if len(self.failures) <= SHOWN_FAILURES:
                print(f"FAILED {what}", file=sys.stderr, flush=True)


def use(client: Client, result: Result, stop: threading.Event) -> None:
    """One client's requests until `stop`."""
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while not stop.is_set():
        [kind] = client.random.choices(kinds, weights)
        began = time.monotonic()
        try:
            kind(client)
        except (Wrong, Reset, OSError, KeyError, ValueError) as error:
            result.failed(f"{kind.__name__}: {type(error).__name__}: {error}")
            client.reconnect()
        with result.lock:
            result.requests[kind.__name__] += 1
            if kind is Client.features:
                result.latencies_s.append(time.monotonic() - began)
    with result.lock:
        result.notes.update(client.notes)


def operate(operations: Operations, every_s: float, result: Result, stop: threading.Event) -> None:
    """A change of the models every so often."""
    turn = 0
    while not stop.wait(every_s):
        try:
            operations.next(turn)
        except (Wrong, Reset, OSError) as error:
            result.failed(f"operation {turn}: {type(error).__name__}: {error}")
        turn += 1


def watch(server: ServerProcess, result: Result, stop: threading.Event) -> None:
    """The server's memory, every second."""
    began = time.monotonic()
    while not stop.wait(1.0):
        result.memory.append((time.monotonic() - began, server.resident_bytes()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def memory_growth(memory: list[tuple[float, int]], total_s: float) -> tuple[float, float, float]:
    """Mebibytes after the first quarter (at most five minutes) and at the end, and the growth between: medians of as
    many seconds as a sixth of the time."""
    settled, span = min(total_s / 4, 300.0), total_s / 6
    of = lambda begin: statistics.median(size for at, size in memory if begin <= at < begin + span) / 2**20
    early, late = of(settled), of(total_s - span)
    return early, late, late / early - 1


def run(arguments: argparse.Namespace, folder: Path) -> tuple[Result, Operations, int]:
    repository, truth, result = folder / "models", Truth(), Result()
    for name in ("alpha", "beta"):
        content = models.sound(name, 1, seed=len(name))
        models.install(repository, name, 1, content)
        truth.begins(name, 1, content)
    admin_port = free_port()
    flags = [*FLAGS, f"--admin-listen=127.0.0.1:{admin_port}", *arguments.flag]
    server = ServerProcess(arguments.server, repository, folder / "server.log", flags)
    hot = [picture(numpy.random.default_rng(seed)) for seed in range(HOT_PICTURES)]
    operations = Operations(repository, admin_port, server.process.pid, truth)
    stop_changes, stop_use, stop_watching = threading.Event(), threading.Event(), threading.Event()
    clients = [Client(server.port, truth, hot, arguments.seed + index) for index in range(arguments.clients)]
    users = [threading.Thread(target=use, args=(client, result, stop_use)) for client in clients]
    every_s = arguments.change_every
    operator = threading.Thread(target=operate, args=(operations, every_s, result, stop_changes))
    watcher = threading.Thread(target=watch, args=(server, result, stop_watching))
    for thread in (*users, operator, watcher):
        thread.start()
    try:
        progress(arguments.minutes * 60, server, result)
    finally:
        # The changes end first, then the watching; the clients are at it when the server is told to stop.
        for event, thread in ((stop_changes, operator), (stop_watching, watcher)):
            event.set()
            thread.join()
        server.process.terminate()
        time.sleep(0.3)  # Within the drain delay: what is asked now is answered.
        stop_use.set()
        for thread in users:
            thread.join()
        # What they were in the middle of is over; idle connections must not keep the server up.
        for client in clients:
            client.connection.socket.close()
        status = server.process.wait(timeout=60)
    return result, operations, status


def progress(seconds: float, server: ServerProcess, result: Result) -> None:
    began = shown = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        if server.process.poll() is not None:
            result.failed(f"the server ended by itself with {server.process.returncode}")
            return
        if now - shown >= 60:
            shown = now
            print(f"{(now - began) / 60:.0f} min: {result.requests.total()} requests, {len(result.failures)} failures, "
                  f"{server.resident_bytes() / 2**20:.0f} MiB", file=sys.stderr, flush=True)  # fmt: skip
        time.sleep(0.2)


def log_failures(log: Path) -> list[str]:
    """Lines of the server's log that no request and no broken model may cause."""
    return [line for line in log.read_text(errors="replace").splitlines() if "panick" in line]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="the server's binary")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=6, help="clients at a time")
    parser.add_argument("--change-every", type=float, default=60, metavar="SECONDS", help="between two changes of the models")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flag", action="append", default=[], help="one more flag of the server, such as --flag=--threads=1")
    parser.add_argument("--max-growth", type=float, default=MAX_MEMORY_GROWTH, help="of the memory, after the first minutes")
    parser.add_argument("--log", type=Path, help="where to keep the server's log")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result, operations, status = run(arguments, Path(folder))
        log = Path(folder) / "server.log"
        for line in log_failures(log):
            result.failed(f"log: {line}")
        if arguments.log:
            arguments.log.write_bytes(log.read_bytes())
    if status != 0:
        result.failed(f"the server ended with {status}")
    early, late, growth = memory_growth(result.memory, arguments.minutes * 60)
    if growth > arguments.max_growth:
        result.failed(f"memory grew by {growth:.1%}, from {early:.0f} to {late:.0f} MiB")
    quantiles = statistics.quantiles(result.latencies_s, n=100) if len(result.latencies_s) > 100 else [float("nan")] * 99
    print(json.dumps({
        "minutes": arguments.minutes, "requests": result.requests.total(), "by_kind": dict(result.requests),
        "changes": operations.done, "notes": dict(result.notes), "failures": len(result.failures),
        "features_ms": {"p50": round(quantiles[49] * 1e3, 1), "p99": round(quantiles[98] * 1e3, 1)},
        "memory_mib": {"early": round(early, 1), "late": round(late, 1), "growth": round(growth, 4)},
    }, indent=2))  # fmt: skip
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
