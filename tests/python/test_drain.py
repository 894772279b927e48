"""Being told to stop in the middle of everything: nothing that was accepted is lost."""

from __future__ import annotations

import io
import os
import signal
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from PIL import Image

from conftest import ZOO
from raw_http import RawConnection, Reset, exchange, post, request
from server_process import ServerProcess

CLIENTS = 200
DRAIN_S = 30.0


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (96, 64), os.urandom(96 * 64 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = photo()
ASK = post("/features?side=64&format=npy", PHOTO)
# Longer than what the operating system and the server buffer, so that it is under way for a while.
ASK_LARGE = post("/features?side=512&layer=res2&format=npy", PHOTO)


@dataclass
class Tally:
    """What all clients saw."""

    statuses: Counter = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, status: int) -> None:
        with self.lock:
            self.statuses[status] += 1

    def loss(self, what: str) -> None:
        with self.lock:
            self.lost.append(what)


def keep_asking(port: int, ask: bytes, tally: Tally, all_asked: threading.Barrier) -> None:
    """Asks until the server says that this connection, or the server, is at its end."""
    first = True
    try:
        with RawConnection(port, timeout=60.0) as connection:
            while True:
                connection.send(ask)
                if first:
                    first = False
                    all_asked.wait()
                reply = connection.reply()
                if reply is None:
                    tally.loss("closed without a reply")
                    return
                tally.reply(reply.status)
                if reply.headers.get("connection") == "close":
                    return
    except (Reset, OSError) as error:
        tally.loss(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("ask", [ASK, ASK_LARGE], ids=["small", "large"])
def test_every_accepted_request_of_200_clients_is_answered(binary, tmp_path, ask):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", [f"--drain-timeout={DRAIN_S}s"])
    tally, all_asked = Tally(), threading.Barrier(CLIENTS + 1)
    threads = [
        threading.Thread(target=keep_asking, args=(server.port, ask, tally, all_asked)) for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    all_asked.wait()
    # Every client has a connection, and a request on it.
    server.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    for thread in threads:
        thread.join()
    assert server.process.wait(timeout=DRAIN_S) == 0, server.log.read_text()
    assert time.monotonic() - told < DRAIN_S
    assert tally.lost == []
    assert sum(tally.statuses.values()) >= CLIENTS and set(tally.statuses) <= {200, 503}, tally.statuses
    assert tally.statuses[200] > 0


def test_readiness_fails_first_and_replies_say_that_they_are_the_last(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--drain-delay=2s"])
    with RawConnection(server.port) as kept, RawConnection(server.port) as idle:
        for connection in (kept, idle):
            connection.send(request("GET", "/livez"))
            assert connection.reply().status == 200
        server.process.send_signal(signal.SIGTERM)
        while (ready := exchange(server.port, request("GET", "/readyz"))).status == 200:
            pass
        assert (ready.status, ready.problem()) == (503, "draining")
        # Who still comes is served, and told to go elsewhere next.
        kept.send(ASK)
        reply = kept.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert kept.closed()
        assert exchange(server.port, ASK).status == 200
        assert idle.closed()
    assert server.process.wait(timeout=10) == 0


def test_a_request_sent_while_the_door_closes_is_answered(binary, tmp_path):
    """Connections that wait for their first or next request get a moment for it."""
    server = ServerProcess(binary, ZOO, tmp_path / "server.log")
    with RawConnection(server.port) as fresh, RawConnection(server.port) as used:
        used.send(request("GET", "/livez"))
        assert used.reply().status == 200
        server.process.send_signal(signal.SIGTERM)
        while "draining" not in server.log.read_text():
            time.sleep(0.01)
        for connection in (fresh, used):
            connection.send(ASK)
            assert connection.reply().status == 200
    assert server.process.wait(timeout=10) == 0


def test_a_second_signal_ends_it_at_once(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log")
    with RawConnection(server.port) as stuck:
        stuck.send(b"POST /features HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
        server.process.send_signal(signal.SIGTERM)
        while "draining" not in server.log.read_text():
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=5) == 1


def test_probes_are_quick_whatever_the_load(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log")
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            exchange(server.port, ASK_LARGE, timeout=60.0)

    threads = [threading.Thread(target=load) for _ in range(16)]
    try:
        for thread in threads:
            thread.start()
        times = []
        with RawConnection(server.port) as probe:
            for _ in range(100):
                begun = time.perf_counter()
                probe.send(request("GET", "/readyz"))
                assert probe.reply().status == 200
                times.append(time.perf_counter() - begun)
                time.sleep(0.01)
        # This process has threads of its own to run, and so have others: the median says it.
        assert statistics.median(times) < 0.02, sorted(times)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
