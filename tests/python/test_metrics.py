"""What `/metrics` tells an operator, and that nobody else can make it tell more."""

from __future__ import annotations

import io
import json
import os
import random
import re
import threading
import time
from pathlib import Path
from typing import Iterator

import promql_parser
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from conftest import ROOT, ZOO
from exposition import OPENMETRICS, Samples
from raw_http import RawConnection, Reset, exchange, post, request
from server_process import ServerProcess

DEPLOY = ROOT / "deploy"
# What is there only where an engine runs on a GPU.
OF_GPUS = {"densecl_gpu_memory_used_bytes", "densecl_gpu_memory_limit_bytes", "densecl_gpu_utilization_ratio"}
# What is there only with another Redis, or with keys, and what Prometheus itself adds.
NOT_HERE = {"densecl_cache_redis_errors_total", "densecl_key_requests_total", "up"} | OF_GPUS


def photo(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def fresh(binary, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server whose figures are this file's alone."""
    flags = ["--max-body=1MiB", "--threads=2"]
    process = ServerProcess(binary, ZOO, tmp_path_factory.mktemp("fresh") / "server.log", flags)
    try:
        yield process
    finally:
        assert process.stop() == 0


def test_a_request_is_counted_by_route_model_and_status(fresh, manifest):
    before = Samples(fresh)
    replies = [exchange(fresh.port, post("/features?format=npy", photo())) for _ in range(3)]
    assert {reply.status for reply in replies} == {200}
    after = Samples(fresh)
    labels = {"route": "/features", "method": "POST", "status": "200", "model": manifest["name"]}
    gained = lambda name, **labels: after.total(name, **labels) - before.total(name, **labels)
    assert gained("densecl_http_requests_total", **labels) == 3
    assert gained("densecl_http_request_duration_seconds_count", route="/features", status="200") == 3
    assert gained("densecl_http_whole_duration_seconds_count", route="/features") == 3
    assert gained("densecl_http_reply_bytes_total", route="/features") == sum(len(reply.body) for reply in replies)
    for stage in ("decode", "queue", "inference", "encode"):
        assert gained("densecl_stage_duration_seconds_count", stage=stage) == 3, stage
        assert 0 < gained("densecl_stage_duration_seconds_sum", stage=stage) < 60, stage
    assert 1 <= gained("densecl_batch_size_count") <= 3 == gained("densecl_batch_size_sum")


def test_a_model_is_named_only_if_it_exists(fresh, manifest):
    for name in ("nobody", "a" * 500, 'x"} 1\n'):
        query = {"model": name}
        body = json.dumps({"images": ["AAAA"], **query}).encode()
        assert exchange(fresh.port, post("/features", body, "application/json")).status == 404
    assert Samples(fresh).values("densecl_http_requests_total", "model") <= {"", manifest["name"]}


def test_refusals_are_counted_by_their_problem(fresh):
    before = Samples(fresh)
    asked = {
        "no-such-path": request("GET", "/nowhere"),
        "method-not-allowed": request("BREW", "/features"),
        "body-too-large": post("/features", photo(1024)),
        "unsupported-image": post("/features", b"no picture"),
        "side-out-of-range": post("/features?side=1", photo()),
        "unknown-layer": post("/features?layer=none", photo()),
        "not-acceptable": post("/features", photo(), Accept="text/html"),
    }
    for problem, data in asked.items():
        assert exchange(fresh.port, data).problem() == problem
    after = Samples(fresh)
    for problem in asked:
        gained = after.total("densecl_http_problems_total", problem=problem)
        assert gained - before.total("densecl_http_problems_total", problem=problem) == 1, problem


def test_a_flood_of_odd_requests_makes_no_series(fresh):
    def flood(seed: int) -> None:
        draw = random.Random(seed)
        word = lambda: "".join(draw.choices("abcdefgh%20.~", k=draw.randint(1, 30)))
        for _ in range(150):
            method = draw.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", word().upper().strip("%.~") or "X"])
            path = draw.choice([f"/{word()}", f"/models/{word()}", f"/docs/{word()}", f"/features?model={word()}",
                                f"/features?{word()}={word()}", f"/{word()}/{word()}/{word()}"])
            headers = {"X-Request-Id": word(), "User-Agent": word(), "X-Forwarded-For": f"10.0.0.{draw.randint(0, 255)}",
                       "X-Api-Key": word(), "traceparent": f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01"}
            try:
                exchange(fresh.port, request(method, path, headers=headers))
            except Reset:
                pass

    def series() -> set[tuple]:
        return Samples(fresh).series()

    # The first flood shows each route with each method and each status that there is.
    for seed in range(4):
        flood(seed)
    first = series()
    threads = [threading.Thread(target=flood, args=(seed,)) for seed in range(4, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = {it for it in series() - first if not it[0].endswith(("_bucket", "_sum", "_count", "_created"))}
    # A rare status of a known route may still be missing after the first flood; nothing that was made up is.
    assert len(grown) <= 3, grown
    assert Samples(fresh).values("densecl_http_requests_total", "method") <= {
        "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "other"}
    routes = Samples(fresh).values("densecl_http_requests_total", "route")
    assert routes <= {"", "/", "/app.js", "/style.css", "/features", "/correspondence", "/models", "/models/{name}", "/livez",
                      "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/", "/docs/{*rest}"}, routes


def test_the_queue_s_depth_and_age_show_while_images_wait(fresh):
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            exchange(fresh.port, post("/features?side=512&format=npy&layer=res2", photo(256)))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 30
        deepest = oldest = 0.0
        while (deepest < 1 or oldest <= 0) and time.monotonic() < deadline:
            samples = Samples(fresh)
            deepest = max(deepest, samples.total("densecl_queue_depth"))
            oldest = max(oldest, samples.total("densecl_queue_oldest_age_seconds"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert deepest >= 1 and 0 < oldest < 30, (deepest, oldest)
    samples = Samples(fresh)
    assert samples.total("densecl_queue_depth") == 0 == samples.total("densecl_queue_oldest_age_seconds")


def test_a_client_that_leaves_is_counted(fresh):
    before = Samples(fresh).total("densecl_http_abandoned_total")
    with RawConnection(fresh.port) as connection:
        # More work than the client waits for.
        connection.send(post("/features?side=2048", photo()))
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while Samples(fresh).total("densecl_http_abandoned_total") == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert Samples(fresh).total("densecl_http_abandoned_total") == before + 1


def test_the_process_and_the_program_are_described(fresh):
    samples = Samples(fresh)
    assert abs(samples.total("process_resident_memory_bytes") / fresh.resident_bytes() - 1) < 0.2
    assert samples.total("process_cpu_seconds_total") > 0
    assert 0 < samples.total("process_open_fds") < samples.total("process_max_fds")
    assert 0 < time.time() - samples.total("process_start_time_seconds") < 3600
    assert samples.values("densecl_engine_info", "provider") == {"cpu"}
    assert re.fullmatch("[0-9a-f]{7,40}", *samples.values("densecl_engine_info", "onnxruntime_commit"))
    assert samples.total("densecl_build_info") == 1
    assert samples.total("densecl_request_memory_limit_bytes", budget="Work") == 2 << 30


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression in deploy/, and where it stands."""
    dashboard = json.loads((DEPLOY / "grafana/densecl.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h")
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def selectors(expression: str) -> set[str]:
    """The names of the metrics that an expression looks at."""
    found = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_dashboard_and_alerts_ask_for_what_there_is(fresh):
    # What a server has only once something happened.
    exchange(fresh.port, request("GET", "/nowhere"))
    picture = photo()
    for _ in range(2):
        exchange(fresh.port, post("/features", picture))
    exported = Samples(fresh).names() | families_without_samples(fresh) | NOT_HERE
    source = (ROOT / "server/src/metrics/gpu.rs").read_text()
    assert all(f'"{name.removeprefix("densecl_")}"' in source for name in OF_GPUS)
    used = set()
    for place, expression in expressions():
        names = selectors(expression)
        assert names, place
        assert names <= exported, f"{place}: {names - exported} is not exported"
        used |= names
    assert len(used) > 20, used


def test_both_formats_have_the_same_samples(fresh):
    exchange(fresh.port, post("/features?format=npy", photo()))
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    plain = exchange(fresh.port, request("GET", "/metrics", headers={"Accept": browser}))
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(plain.body.decode()))
    # A family that is described by another name than its samples have would have no type.
    assert len(families) > 20 and {family.type for family in families} == {"counter", "gauge", "histogram"}
    assert all(family.documentation for family in families)
    series = {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}
    assert series == Samples(fresh).series()
    assert exchange(fresh.port, request("GET", "/metrics")).headers["content-type"] == plain.headers["content-type"]


def families_without_samples(server: ServerProcess) -> set[str]:
    """Names of families of which nothing has been counted yet."""
    text = exchange(server.port, request("GET", "/metrics", headers={"Accept": OPENMETRICS})).body.decode()
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""], "info": ["_info"]}
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {name + suffix for name, kind in types for suffix in suffixes[kind]}


def test_deploy_is_whole():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    observers = {name for name, service in compose["services"].items() if service.get("profiles") == ["observe"]}
    assert observers == {"prometheus", "grafana"}
    for name in observers:
        for volume in compose["services"][name]["volumes"]:
            assert (DEPLOY / volume.split(":")[0]).exists(), volume
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = {target.split(":")[0] for target in scraped["scrape_configs"][0]["static_configs"][0]["targets"]}
    assert targets == {name for name in compose["services"] if name.startswith("replica-")}
    assert all((DEPLOY / "prometheus" / file).is_file() for file in scraped["rule_files"])
