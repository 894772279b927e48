"""Requests that are broken, forged or meant to do harm, byte by byte.

Each gets a documented refusal or a closed connection, never a 5xx; afterwards the server serves as
before, in no more memory.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import time
from typing import Iterator

import pytest
from PIL import Image

from conftest import ZOO
from raw_http import RawConnection, RawReply, Reset, exchange, post, request
from server_process import ServerProcess

HEADER_S, BODY_S = 2.0, 1.0
# Of the whole file's abuse; the allocator keeps some of what it had.
MAX_GROWTH_BYTES = 128e6


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (96, 64), os.urandom(96 * 64 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = photo()
GOOD = post("/features?side=64&format=npy", PHOTO)


@pytest.fixture(scope="module")
def victim(binary, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server with somebody else's requests going on all the time, none of which may fail."""
    flags = [f"--header-timeout={HEADER_S}s", f"--body-timeout={BODY_S}s"]
    process = ServerProcess(binary, ZOO, tmp_path_factory.mktemp("victim") / "server.log", flags)
    stop, failures = threading.Event(), []

    def bystander() -> None:
        while not stop.wait(0.05):
            try:
                reply = exchange(process.port, GOOD)
                if reply is None or reply.status != 200:
                    failures.append(reply)
            except (OSError, Reset) as error:
                failures.append(error)

    thread = threading.Thread(target=bystander)
    try:
        for _ in range(20):
            assert exchange(process.port, GOOD).status == 200
        before = process.resident_bytes()
        thread.start()
        yield process
        stop.set()
        thread.join()
        assert failures == []
        growth = process.resident_bytes() - before
        assert growth < MAX_GROWTH_BYTES, f"{growth / 1e6:.0f} MB more"
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        assert process.stop() == 0
        assert "panicked" not in process.log.read_text()


def outcome(server: ServerProcess, data: bytes) -> RawReply | None:
    """What a client sees that sends `data`, however the server closes the connection."""
    with RawConnection(server.port) as connection:
        try:
            connection.send(data)
        except ConnectionError:
            pass  # The answer may be there nevertheless.
        try:
            return connection.reply()
        except Reset:
            return None


def refused(reply: RawReply | None) -> bool:
    return reply is None or 400 <= reply.status < 500


# Requests --------------------------------------------------------------------------------------

HEAD = b"POST /features?side=64 HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
FORM = "multipart/form-data; boundary=x"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


FRAMING = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(64),
    "empty lines": b"\r\n" * 1000,
    "no version": b"GET /livez\r\n\r\n",
    "version 9": b"GET /livez HTTP/9.9\r\n\r\n",
    "method of bytes": b"\xff\xfe /livez HTTP/1.1\r\nHost: t\r\n\r\n",
    "space in the target": b"GET /li vez HTTP/1.1\r\nHost: t\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: t\r\nX: a\x00b\r\n\r\n",
    "space before a colon": HEAD + b"Content-Length : 4\r\n\r\nabcd",
    "folded header": b"GET /livez HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
    "header without colon": b"GET /livez HTTP/1.1\r\nHost: t\r\nnonsense\r\n\r\n",
    "a thousand headers": b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(1000)) + b"\r\n",
    "a megabyte of header": b"GET /livez HTTP/1.1\r\nHost: t\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "a megabyte of path": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: t\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of lengths": HEAD + b"Content-Length: 4, 5\r\n\r\nabcde",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: cow\r\n\r\nabcd",
    "chunked but not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a hidden chunked": HEAD + b"Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nabcd",
    "chunked in HTTP/1.0": HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size of letters": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabcd\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabcd",
    "a negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n",
    "a chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "a megabyte of chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4;" + b"a" * (1 << 20),
    "a megabyte of trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"abcd") + b"0\r\n" + b"X: y\r\n" * 180_000 + b"\r\n",
    "a CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    "a proxy request": b"GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
}


@pytest.mark.parametrize("data", FRAMING.values(), ids=FRAMING.keys())
def test_broken_framing(victim, data):
    reply = outcome(victim, data)
    assert refused(reply), reply


PATHS = [
    "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/models/..%2f..%2f",
    "/models/%00", "/models/%ff%fe", "/docs/../../../etc/passwd", "/docs/%2e%2e%2fetc/passwd", "/.git/config", "/features/",
    "/models/densecl%2Fresnet18", "/models/" + "a" * 60_000, "/models/" + "%41" * 10_000,
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_paths_lead_nowhere(victim, path):
    reply = outcome(victim, request("GET", path))
    assert refused(reply), reply
    if reply is not None:
        assert b"root:" not in reply.body and b"/work" not in reply.body and b"/zoo" not in reply.body


QUERIES = [
    "side=" + "9" * 50_000, "side=1e400", "side=NaN", "side=0x200", "side=%EF%BC%95", "%ff=%fe",
    "layer=%00", "layer=" + "%2B" * 10_000, "layer=" + "res4%2B" * 500 + "res4", "layer=../../model.onnx",
    "model=../zoo", "version=-1", "version=99999999999999999999", "points=" + "[" * 20_000, "points=[[1e309,0]]",
    "points=[[[[0]]]]", "points={\"a\":1}", "points=" + "[[1,1]]" * 3000, "format=exe", "side=64&side=64", "x=" * 20_000,
    "&".join(f"a{i}=1" for i in range(5000)), "crop=0,0,-1,-1", "crop=1e308,1e308,1e308,1e308", "components=999999999",
    "resolution=4294967296x4294967296", "resolution=0x0", "dtype=float8", "normalize=%0d%0aX-Injected:%201",
]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_queries(victim, query):
    reply = outcome(victim, post(f"/features?{query}", PHOTO))
    assert refused(reply), reply
    if reply is not None:
        assert "x-injected" not in reply.headers
        assert len(reply.body) < 5000, "a problem does not repeat what was sent"


@pytest.mark.parametrize("query", ["", "=", "&" * 30_000, "layer", "layer=&model="], ids=range(5))
def test_queries_that_say_nothing_do_no_harm(victim, query):
    assert outcome(victim, post(f"/features?side=64&format=npy&{query}", PHOTO)).status == 200


def part(name: str, content: bytes, more: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


FORMS = {
    "no boundary": ("multipart/form-data", part("image", PHOTO) + b"--x--\r\n"),
    "an empty boundary": ("multipart/form-data; boundary=", part("image", PHOTO) + b"--x--\r\n"),
    "two boundaries": ("multipart/form-data; boundary=y; boundary=z", part("image", PHOTO) + b"--x--\r\n"),
    "a boundary of 10,000": ("multipart/form-data; boundary=" + "y" * 10_000, part("image", PHOTO) + b"--x--\r\n"),
    "another boundary": ("multipart/form-data; boundary=y", part("image", PHOTO) + b"--x--\r\n"),
    "no end": (FORM, part("image", PHOTO)),
    "no parts": (FORM, b"--x--\r\n"),
    "nothing": (FORM, b""),
    "10,000 images": (FORM, part("image", PHOTO[:50], '; filename="a"') * 10_000 + b"--x--\r\n"),
    "10,000 parameters": (FORM, part("image", PHOTO) + part("side", b"64") * 10_000 + b"--x--\r\n"),
    "10,000 unknown parts": (FORM, b"".join(part(f"p{i}", b"") for i in range(10_000)) + b"--x--\r\n"),
    "100,000 headers in a part": (FORM, b"--x\r\n" + b"X: y\r\n" * 100_000 + b"\r\n--x--\r\n"),
    "a megabyte of part header": (FORM, b"--x\r\nContent-Disposition: form-data; name=\"" + b"a" * (1 << 20) + b"\"\r\n\r\n\r\n--x--\r\n"),
    "a part in a part": (FORM, b'--x\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n' + PHOTO + b"\r\n--y--\r\n--x--\r\n"),
    "a megabyte of parameter": (FORM, part("image", PHOTO) + part("layer", b"a" * (1 << 20)) + b"--x--\r\n"),
    "a parameter of bytes": (FORM, part("image", PHOTO) + part("layer", b"\xff\xfe") + b"--x--\r\n"),
    "no name": (FORM, b"--x\r\n\r\n" + PHOTO + b"\r\n--x--\r\n"),
    "a name of bytes": (FORM, part("image", PHOTO) + b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na\r\n--x--\r\n'),
    "a file name with a path": (FORM, part("layer", b"res4", '; filename="../../etc/passwd"') + b"--x--\r\n"),
    "a million dashes": (FORM, b"-" * 1_000_000),
    "a million new lines": (FORM, b"--x\r\n" + b"\r\n" * 500_000),
}


@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS.keys())
def test_forms(victim, content_type, body):
    for path in ("/features", "/correspondence"):
        reply = outcome(victim, post(path, body, content_type))
        assert refused(reply), reply
        assert reply is None or reply.problem(), reply


BASE64 = "A" * 1000
DOCUMENTS = {
    "nothing": b"",
    "half": b'{"images": ["AAAA',
    "text": b"hello",
    "a list": b"[]",
    "a number": b"1",
    "bytes": b"\xff\xfe\xfd",
    "UTF-16": '{"images": ["AAAA"]}'.encode("utf-16"),
    "a lone surrogate": b'{"images": ["\\ud800"]}',
    "100,000 deep": b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 deep elsewhere": b'{"images": ["AAAA"], "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "a number of a megabyte": b'{"images": ["AAAA"], "side": ' + b"9" * (1 << 20) + b"}",
    "a number beyond a double": b'{"images": ["AAAA"], "side": 1e999999999}',
    "a key of a megabyte": b'{"' + b"a" * (1 << 20) + b'": 1}',
    "100,000 keys": json.dumps({f"k{i}": i for i in range(100_000)}).encode(),
    "100,000 images": json.dumps({"images": [""] * 100_000}).encode(),
    "the same key twice": b'{"images": ["AAAA"], "images": ["AAAA"]}',
    "base64 that is none": json.dumps({"images": ["%%% not base64 %%%"]}).encode(),
    "base64 of nothing": json.dumps({"images": [""]}).encode(),
    "base64 of zeros": json.dumps({"images": [BASE64]}).encode(),
    "base64 cut off": json.dumps({"images": [BASE64 + "A"]}).encode(),
    "base64 with new lines": json.dumps({"images": ["AA\nAA\n" * 100]}).encode(),
    "a data URL": json.dumps({"images": ["data:image/png;base64," + BASE64]}).encode(),
    "an image that is a number": b'{"images": [1]}',
    "an image that is null": b'{"images": null}',
    "a million points": json.dumps({"images": [BASE64], "points": [[1, 1]] * 500_000}).encode(),
    "points that are none": b'{"images": ["AAAA"], "points": [[null, true]]}',
    "escapes": b'{"images": ["' + b"\\u0041" * 100_000 + b'"]}',
}


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_documents(victim, body):
    for path in ("/features", "/correspondence"):
        reply = outcome(victim, post(path, body, "application/json"))
        assert refused(reply) and reply is not None and reply.problem(), reply
        assert len(reply.body) < 5000, "a problem does not repeat what was sent"


# Lengths that do not hold --------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["image/png", FORM, "application/json"])
def test_a_body_shorter_than_its_length(victim, content_type):
    """The client stops, and waits: 408. It closes: nobody is there to be told."""
    body = {"image/png": PHOTO, FORM: part("image", PHOTO), "application/json": b'{"images":'}[content_type]
    ask = post("/features", body, content_type, Content_Length=str(len(body) + 10))
    reply = outcome(victim, ask)
    assert (reply.status, reply.problem()) == (408, "body-too-slow")
    with RawConnection(victim.port) as connection:
        connection.send(ask)


def test_a_body_longer_than_its_length_is_the_next_request(victim):
    """And no valid one: the second answer is a refusal, or the end."""
    with RawConnection(victim.port) as connection:
        connection.send(post("/features?side=64", PHOTO) + b"garbage garbage\r\n\r\n")
        assert connection.reply().status == 200
        assert refused(connection.reply())


# HTTP, rarely seen -----------------------------------------------------------------------------


def test_smuggled_requests_are_not_answered(victim):
    """Of two framings at once neither may leave the rest of the bytes as another request."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
    for head in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(smuggled))):
        with RawConnection(victim.port) as connection:
            connection.send(HEAD + head + smuggled)
            replies = []
            try:
                while (reply := connection.reply()) is not None:
                    replies.append(reply.status)
            except Reset:
                pass
            assert 200 not in replies, replies


def test_expect_100_continue(victim):
    with RawConnection(victim.port) as connection:
        connection.send(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(PHOTO))
        assert connection.reply().status == 100
        connection.send(PHOTO)
        assert connection.reply().status == 200
    # Who asks first is told at once that the body would be too large, and never sends it.
    with RawConnection(victim.port) as connection:
        connection.send(HEAD + b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n")
        assert connection.reply().status == 413
    unknown = outcome(victim, HEAD + b"Content-Length: 4\r\nExpect: the-unexpected\r\n\r\nabcd")
    assert refused(unknown)


def test_pipelined_requests_are_answered_in_order(victim):
    paths = ["/livez", "/nowhere", "/readyz", "/models/nobody"] * 25
    with RawConnection(victim.port) as connection:
        connection.send(b"".join(request("GET", path) for path in paths))
        statuses = [connection.reply().status for _ in paths]
    assert statuses == [200, 404, 200, 404] * 25


def test_http_1_0(victim):
    with RawConnection(victim.port) as connection:
        connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert connection.reply().body == b"ok\n"
        assert connection.closed()
    head = f"POST /features?side=64&format=npy HTTP/1.0\r\nContent-Length: {len(PHOTO)}\r\n\r\n".encode()
    with RawConnection(victim.port) as connection:
        connection.send(head + PHOTO)
        reply = connection.reply()
        assert reply.status == 200 and reply.body.startswith(b"\x93NUMPY")


def test_a_client_that_closes_its_way_out_early_harms_nobody(victim):
    for _ in range(20):
        with RawConnection(victim.port) as connection:
            connection.send(GOOD)
    for _ in range(20):
        with RawConnection(victim.port) as connection:
            connection.send(GOOD[: len(GOOD) // 2])


def test_bytes_at_random(victim):
    """Whole requests with some bytes changed: whatever they mean, they are no failure of ours."""
    state = 12345
    for _ in range(300):
        data = bytearray(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(PHOTO) + PHOTO)
        for _ in range(3):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            data[(state >> 33) % 140] = (state >> 20) % 256
        with RawConnection(victim.port) as connection:
            connection.send(bytes(data))
            connection.socket.shutdown(1)
            try:
                reply = connection.reply()
            except Reset:
                continue
            assert reply is None or reply.status < 500, reply


# HTTP/2 without TLS ------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


SETTINGS = frame(4, 0, 0)


def literal(name: bytes, value: bytes) -> bytes:
    """A header, not indexed, in HPACK; both shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


GET_LIVEZ = b"".join(
    literal(name, value)
    for name, value in [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/livez"), (b":authority", b"t")]
)


def frames(connection: RawConnection) -> Iterator[tuple[int, int, bytes]]:
    """Kind, stream and payload of what the server sends, until it closes."""
    data = b""
    while True:
        try:
            more = connection.socket.recv(65536)
        except ConnectionError:
            return
        if not more:
            return
        data += more
        while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
            yield data[3], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
            data = data[9 + length :]


def test_h2c_with_prior_knowledge(victim):
    with RawConnection(victim.port) as connection:
        connection.send(PREFACE + SETTINGS + b"".join(frame(1, 5, stream, GET_LIVEZ) for stream in (1, 3, 5)))
        bodies = {}
        for kind, stream, payload in frames(connection):
            if kind == 0:
                bodies[stream] = bodies.get(stream, b"") + payload
            if len(bodies) == 3:
                break
        assert bodies == {1: b"ok\n", 3: b"ok\n", 5: b"ok\n"}


H2 = {
    "half a preface": PREFACE[:10],
    "only a preface": PREFACE,
    "garbage after the preface": PREFACE + os.urandom(200),
    "a frame of 16 MiB": PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "data on no stream": PREFACE + SETTINGS + frame(0, 0, 7, b"abc"),
    "broken HPACK": PREFACE + SETTINGS + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "headers without end": PREFACE + SETTINGS + frame(1, 1, 1, GET_LIVEZ) + frame(9, 0, 1, literal(b"a" * 100, b"b" * 100) * 50) * 400,
    "rapid reset": PREFACE + SETTINGS + b"".join(frame(1, 5, 2 * i + 1, GET_LIVEZ) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(5000)),
    "a flood of settings": PREFACE + SETTINGS * 20_000,
    "a flood of pings": PREFACE + SETTINGS + frame(6, 0, 0, b"12345678") * 20_000,
    "a window of nothing": PREFACE + frame(4, 0, 0, b"\0\x04\0\0\0\0") + frame(1, 5, 1, GET_LIVEZ),
}


@pytest.mark.parametrize("data", H2.values(), ids=H2.keys())
def test_hostile_h2(victim, data):
    """The server may answer or close; it must go on living, and others with it."""
    with RawConnection(victim.port) as connection:
        connection.socket.settimeout(0.5)
        try:
            connection.send(data)
            for _ in frames(connection):
                pass
        except (TimeoutError, ConnectionError):
            pass
    assert exchange(victim.port, GOOD).status == 200


def test_memory_stays_flat_under_bodies_that_never_end(binary, tmp_path):
    """Eighty of 4 MiB are more than bodies may take, a quarter of the memory: some are refused at once."""
    flags = [f"--body-timeout={BODY_S}s", "--max-body=8MiB", "--max-memory=192MiB"]
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", flags)
    assert exchange(server.port, GOOD).status == 200
    before = server.resident_bytes()
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    piece = chunk(bytes(1 << 20))
    statuses, largest, stop = [], [before], threading.Event()

    def send() -> None:
        with RawConnection(server.port) as connection:
            try:
                connection.send(head)
                for _ in range(4):
                    connection.send(piece)
                statuses.append(connection.reply().status)
            except (ConnectionError, Reset) as error:
                statuses.append(error)

    def watch() -> None:
        while not stop.wait(0.02):
            largest.append(server.resident_bytes())

    threads = [threading.Thread(target=send) for _ in range(80)]
    watcher = threading.Thread(target=watch)
    try:
        for thread in (watcher, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        assert exchange(server.port, GOOD).status == 200
    finally:
        stop.set()
        watcher.join()
        assert server.stop() == 0
    assert set(statuses) == {408, 503}, statuses
    assert max(largest) - before < MAX_GROWTH_BYTES, f"{(max(largest) - before) / 1e6:.0f} MB more"
