"""What pages of other origins may send, and which headers of the replies they may read."""

from __future__ import annotations

import io
import json
from typing import Iterator

import pytest
from PIL import Image

from conftest import ZOO
from raw_http import RawReply, exchange, post, request
from server_process import ServerProcess
from test_keys import make_key

ORIGIN = "https://app.example"
# Every page may read these (the Fetch standard's safelist).
SAFELISTED = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
# For the browser itself, or about the connection: no page has a use for them.
FOR_BROWSERS = {
    "access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "access-control-expose-headers",
    "content-security-policy", "cross-origin-resource-policy", "referrer-policy", "x-content-type-options",
    "connection", "content-encoding", "date", "etag", "location", "transfer-encoding", "vary",
}


@pytest.fixture(scope="module")
def served(binary, tmp_path_factory) -> Iterator[tuple[ServerProcess, str]]:
    """A server for pages of ORIGIN, and a key."""
    folder = tmp_path_factory.mktemp("cors")
    key = make_key(binary, folder / "keys.toml", "page", "--rate", "1000/s")
    slow = make_key(binary, folder / "keys.toml", "slow", "--rate", "1/m", "--burst", "1")
    flags = [f"--api-keys={folder / 'keys.toml'}", f"--cors-origin={ORIGIN}", "--max-in-flight=1"]
    server = ServerProcess(binary, ZOO, folder / "server.log", flags)
    yield server, key, slow
    assert server.stop() == 0


def photo(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def replies(server: ServerProcess, key: str, slow: str) -> Iterator[RawReply]:
    """Replies of every route and of the failures that have headers of their own."""
    images = json.dumps({"images": ["AAAA"] * 2})
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}
    binary_output = {"name": "res5", "parameters": {"binary_data": True}}
    inference = json.dumps({"inputs": [tensor], "outputs": [binary_output]}).encode()
    headers = {"Origin": ORIGIN, "X-API-Key": key}
    sent = {name.replace("-", "_"): value for name, value in headers.items()}
    for path in ("/", "/models", "/models/densecl-resnet18", "/metrics", "/livez", "/readyz", "/openapi.json", "/docs/", "/nowhere",
                 "/features", "/v2", "/v2/health/live", "/v2/models/densecl-resnet18", "/v2/models/densecl-resnet18/ready"):
        yield exchange(server.port, request("GET", path, headers=headers))
    form = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n'
    pair = b"".join(form % (name, photo()) for name in (b"source", b"target")) + b"--b--\r\n"
    for data in (
        post("/features", photo(), **sent),
        post("/features?format=npy", photo(), **sent),
        post("/features?side=1", photo(), **sent),
        post("/features", images.encode(), "application/json", **sent),
        post("/correspondence", pair, "multipart/form-data; boundary=b", **sent),
        post("/v2/models/densecl-resnet18/infer", inference, "application/json", **sent),
        post("/v2/repository/index", b"", **sent),
        post("/v2/repository/models/densecl-resnet18/load", b"", **sent),
        request("BREW", "/models", headers=headers),
        request("GET", "/models", headers={"Origin": ORIGIN}),
        *(request("GET", "/models", headers={"Origin": ORIGIN, "X-API-Key": slow}) for _ in range(2)),
    ):
        yield exchange(server.port, data)


def test_the_exposed_headers_are_those_that_replies_have(served):
    server, key, slow = served
    seen, exposed, statuses = set(), set(), set()
    for reply in replies(server, key, slow):
        assert reply.headers["access-control-allow-origin"] == ORIGIN, reply
        exposed |= {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
        seen |= reply.headers.keys()
        statuses.add(reply.status)
    assert {200, 401, 403, 404, 405, 422, 429} <= statuses, statuses
    assert seen - SAFELISTED - FOR_BROWSERS == exposed


def test_a_page_may_send_every_header_that_requests_have(served):
    server, _, _ = served
    wanted = {"content-type", "content-encoding", "accept", "authorization", "x-api-key", "x-request-id", "traceparent",
              "inference-header-content-length"}
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join(sorted(wanted))}
    for path in ("/features", "/v2/models/densecl-resnet18/infer"):
        reply = exchange(server.port, request("OPTIONS", path, headers=asks))
        assert reply.status == 200, reply
        assert {name.strip() for name in reply.headers["access-control-allow-headers"].split(",")} == wanted
        assert {"GET", "POST"} <= set(reply.headers["access-control-allow-methods"].split(","))
