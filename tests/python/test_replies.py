"""What every reply carries, and what none does: headers that protect, and nothing of the machine's inside."""

from __future__ import annotations

import io
import json
import os
from typing import Iterator

import pytest
from PIL import Image

from conftest import ROOT, ZOO
from raw_http import RawReply, exchange, post, request
from server_process import ServerProcess


def photo(side: int = 64, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, form)
    return buffer.getvalue()


def form(**parts: bytes) -> tuple[bytes, str]:
    body = b"".join(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
                    for name, value in parts.items())
    return body + b"--b--\r\n", "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def narrow(binary, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server with limits that are easily passed."""
    folder = tmp_path_factory.mktemp("narrow")
    flags = ["--max-body=1MiB", "--max-pixels=1000000", "--max-images=3", "--max-response=1MiB", "--max-side=512",
             "--request-timeout=20s", "--body-timeout=1s", "--max-memory=512MiB"]
    process = ServerProcess(binary, ZOO, folder / "server.log", flags)
    try:
        yield process
    finally:
        assert process.stop() == 0


def failures(picture: bytes) -> dict[str, bytes]:
    """A request for each way to fail, by its problem."""
    points = lambda text: form(source=picture, target=picture, points=text)
    return {
        "empty-body": post("/features", b""),
        "empty-part": post("/features", *form(image=b"")),
        "missing-part": post("/correspondence", *form(source=picture)),
        "too-many-images": post("/features", json.dumps({"images": ["AA=="] * 4}).encode(), "application/json"),
        "unknown-parameter": post("/features?nothing=1", picture),
        "malformed-parameter": post("/features?side=large", picture),
        "malformed-body": post("/features", b"{", "application/json"),
        "unsupported-content-type": post("/features", b"not a picture", "text/plain"),
        "unsupported-content-encoding": post("/features", picture, Content_Encoding="br"),
        "not-acceptable": post("/features", picture, Accept="text/html"),
        "body-too-large": post("/features", photo(1000)),
        "reply-too-large": post("/features?resolution=2000x2000&format=npy", picture),
        "conflicting-parameters": post("/features?points=[[1,1]]&resolution=pixel", picture),
        "no-such-path": request("GET", "/../../etc/passwd"),
        "method-not-allowed": request("DELETE", "/features"),
        "unknown-model": post("/features?model=../../etc/passwd", picture),
        "unknown-version": post("/features?version=77", picture),
        "unknown-layer": post("/features?layer=/etc/passwd", picture),
        "repeated-layer": post("/features?layer=res3%2Bres3", picture),
        "unsupported-image": post("/features", b"/etc/passwd"),
        "corrupt-image": post("/features?side=64", picture[:-200]),
        "side-out-of-range": post("/features?side=31", picture),
        "point-outside": post("/correspondence", *points(b"[[1000,1]]")),
        "grid-out-of-range": post("/correspondence", *form(source=picture, target=picture, grid=b"0.1")),
        "crop-outside": post("/features?crop=1000,0,10,10", picture),
        "components-out-of-range": post("/features?components=9999", picture),
        "unsupported-mask": post("/correspondence", *form(source=picture, target=picture, mask=b"no mask")),
        "unknown-feature-id": post("/correspondence", b'{"source_id":"0","target_id":"1"}', "application/json"),
        "body-too-slow": post("/features", picture)[:-10],
    }


def check_inside(reply: RawReply) -> None:
    """Nothing in a reply tells of the machine that it comes from."""
    text = (reply.body + repr(reply.headers).encode()).decode("latin-1")
    inside = [str(ROOT), str(ROOT.parent), str(ZOO), "/root", "/home", "/tmp", "/usr", "/proc", ".cargo", "registry/src", "src/",
              ".rs:", "panicked", "libonnxruntime", "os error", "No such file"]
    found = [it for it in inside if it in text]
    assert not found, (found, text)


def test_every_failure_is_a_problem_that_tells_nothing_of_the_inside(narrow):
    wrong = {}
    for problem, data in failures(photo()).items():
        reply = exchange(narrow.port, data)
        check_inside(reply)
        if reply.problem() != problem:
            wrong[problem] = (reply.status, reply.body[:300])
    assert not wrong, wrong
    for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", request("GET", "/" + "x" * 70_000)):
        check_inside(exchange(narrow.port, data))


def test_every_reply_carries_what_browsers_and_caches_should_know(narrow):
    picture = photo()
    asked = [request("GET", path) for path in ("/", "/app.js", "/docs/", "/openapi.json", "/models", "/livez", "/readyz",
                                               "/metrics", "/nowhere", "/docs/nowhere")]
    asked += [post("/features?format=png", picture), request("OPTIONS", "/features"), request("BREW", "/models")]
    asked += failures(picture).values()
    for data in asked:
        reply = exchange(narrow.port, data)
        what = (data[:60], reply.headers)
        assert reply.headers["x-content-type-options"] == "nosniff", what
        assert reply.headers["referrer-policy"] == "no-referrer", what
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"], what
        assert reply.headers["cross-origin-resource-policy"] == "same-origin", what
        assert "no-store" in reply.headers["cache-control"] or "no-cache" in reply.headers["cache-control"], what
        assert "server" not in reply.headers and "x-powered-by" not in reply.headers, what
    features = exchange(narrow.port, post("/features?format=npy&side=64", picture))
    assert features.status == 200 and features.headers["cache-control"] == "no-store"
    assert "unsafe" not in exchange(narrow.port, request("GET", "/")).headers["content-security-policy"]


def test_a_server_for_other_origins_lets_them_have_its_replies(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--cors-origin=https://example.org"])
    reply = exchange(server.port, post("/features?format=png", photo()))
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert server.stop() == 0
