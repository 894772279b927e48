"""Clients that are slow, silent or too many: each is cut off in its time, and nobody else waits."""

from __future__ import annotations

import io
import os
import resource
import threading
import time
from contextlib import ExitStack
from typing import Callable, Iterator

import pytest
from PIL import Image

from conftest import ZOO
from raw_http import RawConnection, Reset, exchange, post, request
from server_process import ServerProcess

# Seconds, as the servers of this file are told; short, so that the tests are.
HEADER_S, BODY_S, IDLE_S, WRITE_S = 1.0, 1.0, 1.5, 1.0
FLAGS = [
    f"--header-timeout={HEADER_S}s",
    f"--body-timeout={BODY_S}s",
    f"--idle-timeout={IDLE_S}s",
    f"--write-timeout={WRITE_S}s",
    "--max-body=2MiB",
]
# How much later than told a loaded machine may be.
SLACK_S = 3.0


def photo(side: int = 64) -> bytes:
    """A picture that no compression makes small."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def impatient(binary, tmp_path_factory) -> Iterator[ServerProcess]:
    process = ServerProcess(binary, ZOO, tmp_path_factory.mktemp("impatient") / "server.log", FLAGS)
    try:
        yield process
    finally:
        process.stop()


def seconds_until(condition: Callable[[], object]) -> float:
    begun = time.monotonic()
    condition()
    return time.monotonic() - begun


def drip(connection: RawConnection, data: bytes, stop: threading.Event) -> None:
    """Sends a byte every tenth of a second."""
    for byte in data:
        if stop.wait(0.1):
            return
        try:
            connection.send(bytes([byte]))
        except OSError:
            return


@pytest.fixture
def dripping() -> Iterator[Callable[[RawConnection, bytes], None]]:
    stop, threads = threading.Event(), []

    def start(connection: RawConnection, data: bytes) -> None:
        threads.append(threading.Thread(target=drip, args=(connection, data, stop)))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def test_a_head_that_drips_is_cut_off(impatient, dripping):
    with RawConnection(impatient.port) as connection:
        dripping(connection, b"GET /livez HTTP/1.1\r\n" + b"X-Slow: " + b"a" * 1000)
        assert HEADER_S * 0.9 < seconds_until(connection.closed) < HEADER_S + SLACK_S


def test_a_connection_that_says_nothing_is_closed(impatient):
    with RawConnection(impatient.port) as connection:
        assert HEADER_S * 0.9 < seconds_until(connection.closed) < HEADER_S + SLACK_S


def test_a_connection_is_kept_between_requests_and_closed_when_none_comes(impatient):
    with RawConnection(impatient.port) as connection:
        for _ in range(3):
            time.sleep(HEADER_S * 0.2)
            connection.send(request("GET", "/livez"))
            assert connection.reply().status == 200
        assert IDLE_S * 0.9 < seconds_until(connection.closed) < IDLE_S + SLACK_S


@pytest.mark.parametrize("head", [
    b"Content-Length: 1000\r\n\r\nhalf",
    b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
], ids=["length", "chunked"])
def test_a_body_that_stops_half_way_is_408(impatient, head):
    with RawConnection(impatient.port) as connection:
        connection.send(b"POST /features HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n" + head)
        begun = time.monotonic()
        reply = connection.reply()
        assert BODY_S * 0.9 < time.monotonic() - begun < BODY_S + SLACK_S
        assert (reply.status, reply.problem()) == (408, "body-too-slow")
        assert connection.closed()


def test_a_body_that_drips_is_408(impatient, dripping):
    with RawConnection(impatient.port) as connection:
        connection.send(b"POST /features HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n")
        dripping(connection, b"a" * 1000)
        assert (reply := connection.reply()).status == 408, reply


def test_slow_bodies_keep_nobody_out(impatient):
    """More of them than requests are admitted at a time; a request beside them is answered."""
    with ExitStack() as stack:
        slow = []
        for _ in range(100):
            slow.append(stack.enter_context(RawConnection(impatient.port)))
            slow[-1].send(b"POST /features HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nhalf")
        assert exchange(impatient.port, post("/features?side=64", photo())).status == 200
        assert {connection.reply().status for connection in slow} == {408}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("mib", [3, 40])
def test_an_oversized_body_gets_its_413_however_it_comes(impatient, chunked, mib):
    """The client sends all of it before it reads, as many do; the reply must still be there."""
    size = mib << 20
    with RawConnection(impatient.port) as connection:
        head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        connection.send(f"POST /features HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n".encode())
        piece = bytes(1 << 16)
        for _ in range(size // len(piece)):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        reply = connection.reply()
        assert (reply.status, reply.problem()) == (413, "body-too-large")


def test_a_refusal_before_the_body_is_read_arrives(impatient):
    body = bytes(8 << 20)
    for path, status in [("/nowhere", 404), ("/models", 405)]:
        assert exchange(impatient.port, post(path, body)).status == status


def test_a_client_that_does_not_read_is_cut_off(impatient):
    """The reply is far larger than what the operating system keeps for the connection."""
    ask = post("/features?side=2048&layer=res2&format=npy", photo())
    with RawConnection(impatient.port, receive_buffer=4096) as connection:
        connection.send(ask)
        time.sleep(WRITE_S + SLACK_S + 2.0)
        with pytest.raises(Reset):
            connection.reply()


def test_a_client_that_reads_slowly_but_steadily_gets_everything(impatient):
    ask = post("/features?side=1024&layer=res3&format=npy", photo())
    with RawConnection(impatient.port, receive_buffer=64 << 10) as connection:
        connection.send(ask)
        received = bytearray()
        begun = time.monotonic()
        while b"\r\n\r\n" not in received or len(received) < 4 << 20:
            received += connection.socket.recv(32 << 10)
            time.sleep(0.02)
        assert time.monotonic() - begun > WRITE_S
        # The rest at full speed, to the last byte.
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        connection._unread = head + b"\r\n\r\n" + body
        reply = connection.reply()
        assert reply.status == 200 and reply.body.startswith(b"\x93NUMPY")


def test_too_many_connections_are_told_so_and_probes_get_through(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--max-connections=8", *FLAGS])
    try:
        time.sleep(IDLE_S + 0.5)  # The connections of the start-up have ended.
        with ExitStack() as stack:
            held = [stack.enter_context(RawConnection(server.port)) for _ in range(8)]
            for connection in held:
                connection.send(request("GET", "/livez"))
                assert connection.reply().status == 200
            reply = exchange(server.port, post("/features?side=64", photo()))
            assert (reply.status, reply.problem()) == (503, "too-many-connections")
            assert reply.headers["connection"] == "close" and "retry-after" in reply.headers
            for path in ("/livez", "/readyz", "/metrics"):
                assert (probe := exchange(server.port, request("GET", path))).status == 200, path
            assert b'densecl_http_problems_total{problem="too-many-connections"} 1' in probe.body
            # Many more than are let in wait, and are answered in turn.
            more = []
            for _ in range(120):
                more.append(stack.enter_context(RawConnection(server.port)))
                more[-1].send(request("GET", "/models"))
            assert {connection.reply().status for connection in more} <= {200, 503}
        # When they have gone, which the server learns a moment later, all is as before.
        deadline = time.monotonic() + IDLE_S + SLACK_S
        while (reply := exchange(server.port, post("/features?side=64", photo()))).status == 503:
            assert time.monotonic() < deadline
        assert reply.status == 200
    finally:
        assert server.stop() == 0


def test_running_out_of_files_is_survived(binary, tmp_path):
    """With 40 files the server cannot accept 60 connections; it waits, and goes on when some end."""
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", FLAGS)
    try:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 40))
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(RawConnection(server.port))
            used = cpu_seconds(server.process.pid)
            time.sleep(HEADER_S * 0.5)
            assert cpu_seconds(server.process.pid) - used < HEADER_S * 0.3, "it spins"
            # The silent ones are closed in their time.
            assert exchange(server.port, request("GET", "/livez")).status == 200
        assert server.log.read_text().count("cannot accept connections") < 10
    finally:
        assert server.stop() == 0


def cpu_seconds(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
