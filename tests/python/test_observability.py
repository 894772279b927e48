"""The log and the traces: one line and one span a request, and nothing in them that a client wrote."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable, Iterator

import pytest
from PIL import Image

from conftest import ZOO
from raw_http import RawConnection, exchange, post, request
from server_process import ServerProcess

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "dont-write-this-down"


def photo(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, "PNG")
    return buffer.getvalue()


def until(condition: Callable[[], object], seconds: float = 15) -> object:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return result


# --- The log ------------------------------------------------------------------------------------


@pytest.fixture
def logging(binary, tmp_path) -> Iterator[ServerProcess]:
    # Nothing is kept: a picture that is asked for again takes its time again.
    flags = ["--log-format=json", "--trusted-proxies=127.0.0.1", "--cache-bytes=0"]
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", flags)
    try:
        yield server
    finally:
        assert server.stop() == 0


def lines(server: ServerProcess) -> list[dict]:
    """The log; every line of it must be a JSON document."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def answered(server: ServerProcess, request_id: str) -> dict:
    """The one line of a request."""
    mine = lambda: [it for it in lines(server) if it["target"] == "access" and it["request_id"] == request_id]
    until(mine)
    [line] = mine()
    return line


def test_a_request_leaves_one_line_that_says_it_all(logging, manifest):
    picture = photo()
    headers = {"X_Request_Id": "one", "X_Forwarded_For": "198.51.100.7", "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    reply = exchange(logging.port, post("/features?format=npy&layer=res3", picture, **headers))
    line = answered(logging, "one")
    expected = {
        "level": "INFO", "method": "POST", "route": "/features", "status": 200, "layer": "res3", "client": "198.51.100.7",
        "trace_id": TRACE_ID, "bytes_in": len(picture), "bytes_out": len(reply.body), "outcome": "complete",
    }
    assert {name: line.get(name) for name in expected} == expected, line
    assert line["model"] == reply.headers["densecl-model"] and line["model"].startswith(manifest["name"] + "/")
    assert 0 < line["duration_ms"] <= line["whole_ms"] < 60_000
    timing = dict(part.strip().split(";dur=") for part in reply.headers["server-timing"].split(","))
    for stage in ("decode", "queue", "inference", "encode"):
        assert abs(line[f"{stage}_ms"] - float(timing[stage])) < 0.01, (stage, line, timing)
    assert "match_ms" not in line


def test_what_clients_write_is_not_in_the_log(logging):
    odd = [f"/{SECRET}", f"/features?key={SECRET}", f"/models/{SECRET}", f"/%1b[31m{SECRET}%0a%22", f"/docs/{SECRET}"]
    for path in odd:
        for headers in ({}, {"X-Request-Id": f'{SECRET} "\\'}, {"User-Agent": SECRET, "Cookie": SECRET, "Referer": SECRET}):
            exchange(logging.port, request("GET", path, headers={**headers, "X-Forwarded-For": SECRET}))
    body = json.dumps({"images": [SECRET], SECRET: SECRET}).encode()
    exchange(logging.port, post("/features", body, "application/json"))
    exchange(logging.port, post("/features", SECRET.encode(), f"image/{SECRET}"))
    exchange(logging.port, request("GET", "/models", headers={"X-Request-Id": 'a"b\\c<d>'}))
    line = answered(logging, 'a"b\\c<d>')
    assert line["route"] == "/models"
    assert len([it for it in lines(logging) if it["target"] == "access"]) == 3 * len(odd) + 3
    assert SECRET not in logging.log.read_text()


def test_probes_are_no_news(logging):
    for path in ("/livez", "/readyz", "/metrics", "/models"):
        exchange(logging.port, request("GET", path, headers={"X-Request-Id": path}))
    answered(logging, "/models")
    assert [it["route"] for it in lines(logging) if it["target"] == "access"] == ["/models"]


def test_a_client_that_leaves_has_its_line_too(logging):
    with RawConnection(logging.port) as connection:
        # More work than the client waits for.
        connection.send(post("/features?side=2048", photo(), X_Request_Id="gone"))
        time.sleep(0.1)
    line = answered(logging, "gone")
    assert line["outcome"] == "abandoned" and "status" not in line and line["bytes_in"] > 0
    with RawConnection(logging.port, receive_buffer=4096) as connection:
        connection.send(post("/features?format=npy&resolution=2000x2000&layer=res2", photo(), X_Request_Id="half"))
        received = 0
        while received < 100_000:  # More than the head of the reply.
            received += len(connection.socket.recv(1 << 16))
    line = answered(logging, "half")
    assert line["outcome"] == "broken off" and line["status"] == 200 and line["bytes_out"] > 0


def test_text_logs_are_one_line_a_request(binary, tmp_path):
    server = ServerProcess(binary, ZOO, tmp_path / "server.log")
    exchange(server.port, request("GET", "/models", headers={"X-Request-Id": "text"}))
    until(lambda: "request_id=\"text\"" in server.log.read_text())
    assert server.stop() == 0
    assert len([line for line in server.log.read_text().splitlines() if "text" in line]) == 1


# --- Traces -------------------------------------------------------------------------------------


class Collector:
    """Takes spans as a collector does; `answer` is what it does with a request."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None] | None = None):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.requests: list = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                if handler.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if answer is not None:
                    return answer(handler)
                assert handler.headers["Content-Type"] == "application/x-protobuf"
                self.requests.append((handler.path, ExportTraceServiceRequest.FromString(body)))
                handler.send_response(200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list:
        scopes = [scope for _, it in self.requests for resource in it.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def refusal(binary: Path, endpoint: str) -> str:
    """What the server says of an endpoint that is none."""
    run = subprocess.run([binary, "serve", "--otlp-endpoint", endpoint], capture_output=True, text=True, timeout=30)
    assert run.returncode == 2, run
    return run.stderr


@pytest.fixture(scope="session")
def exports_traces(binary) -> None:
    """Skips where the program was built without the feature; DENSECL_TEST_OTLP=1 forbids that."""
    if "--features otlp" in refusal(binary, "https://collector"):
        assert os.environ.get("DENSECL_TEST_OTLP") != "1", "the server was built without the feature otlp"
        pytest.skip("the server was built without the feature otlp")


def test_without_the_feature_a_collector_is_refused(binary):
    said = refusal(binary, "https://collector")
    if "--features otlp" not in said:
        assert "by http:// alone" in said
        for wrong in ("collector:4318", "http://", "ftp://collector"):
            assert "is not the URL of a collector" in refusal(binary, wrong)


def attributes(span: object) -> dict:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in span.attributes}


def test_a_request_is_a_span_with_its_stages_below(exports_traces, binary, tmp_path):
    collector = Collector()
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", [f"--otlp-endpoint={collector.url}", "--log-format=json"])
    try:
        begun = time.time_ns()
        headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "X_Request_Id": "traced"}
        assert exchange(server.port, post("/features?layer=res3", photo(), **headers)).status == 200
        unsampled = {"traceparent": f"00-{TRACE_ID[::-1]}-{SPAN_ID}-00", "X-Request-Id": "unsampled"}
        assert exchange(server.port, request("GET", "/models", headers=unsampled)).status == 200
        assert exchange(server.port, request("GET", "/nowhere", headers={"X-Request-Id": "alone"})).status == 404
        alone_line = answered(server, "alone")
    finally:
        # What has not been sent is sent before the end.
        assert server.stop() == 0
        collector.stop()
    assert {path for path, _ in collector.requests} == {"/v1/traces"}
    resource = attributes(collector.requests[0][1].resource_spans[0].resource)
    assert resource["service.name"] == "densecl-server" and resource["service.version"]
    spans = {span.name: span for span in collector.spans() if span.trace_id.hex() == TRACE_ID}
    assert set(spans) == {"POST /features", "decode", "queue", "inference", "encode"}
    whole = spans.pop("POST /features")
    assert whole.parent_span_id.hex() == SPAN_ID and whole.kind == 2
    found = attributes(whole)
    assert found["http.route"] == "/features" and found["http.response.status_code"] == 200
    assert found["densecl.layer"] == "res3" and found["densecl.request_id"] == "traced"
    assert begun <= whole.start_time_unix_nano < whole.end_time_unix_nano < time.time_ns()
    for stage in spans.values():
        assert stage.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= whole.end_time_unix_nano
    order = [spans[name].start_time_unix_nano for name in ("decode", "queue", "inference", "encode")]
    assert order == sorted(order)
    assert not [span for span in collector.spans() if span.trace_id.hex() == TRACE_ID[::-1]], "its caller keeps no trace"
    [alone] = [span for span in collector.spans() if attributes(span).get("densecl.request_id") == "alone"]
    assert alone.parent_span_id == b"" and alone.trace_id.hex() == alone_line["trace_id"]


def test_a_collector_that_is_gone_or_hangs_costs_nothing(exports_traces, binary, tmp_path):
    hang = threading.Event()
    hanging = Collector(answer=lambda handler: hang.wait(60))
    endpoints = {"gone": "http://127.0.0.1:1", "hanging": hanging.url}
    # Measured beside one that exports nothing, in turns.
    servers = {"none": ServerProcess(binary, ZOO, tmp_path / "none.log")}
    for name, url in endpoints.items():
        servers[name] = ServerProcess(binary, ZOO, tmp_path / f"{name}.log", [f"--otlp-endpoint={url}"])
    times: dict[str, list[float]] = {name: [] for name in servers}
    try:
        connections = {name: RawConnection(server.port) for name, server in servers.items()}
        # More spans than may wait.
        for _ in range(5000):
            for name, connection in connections.items():
                begun = time.perf_counter()
                connection.send(request("GET", "/models"))
                assert connection.reply().status == 200
                times[name].append(time.perf_counter() - begun)
        for connection in connections.values():
            connection.__exit__()
        memory = {name: server.resident_bytes() for name, server in servers.items()}
        stopping = {}
        for name, server in servers.items():
            begun = time.monotonic()
            assert server.stop() == 0
            stopping[name] = time.monotonic() - begun
    finally:
        hang.set()
        hanging.stop()
    medians = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    for name in endpoints:
        assert medians[name] < 2 * medians["none"] + 0.001, medians
        assert memory[name] < memory["none"] + (48 << 20), memory
        assert stopping[name] < 12, stopping
