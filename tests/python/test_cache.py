"""Features that are kept: equal requests, ids instead of images, and what may be asked of them."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import numpy
import pytest
from PIL import Image

from conftest import ZOO
from photographs import photograph, png, turned_and_brightened
from server_process import Reply, ServerProcess

NPY = "/features?format=npy"


def metric(server: ServerProcess, name: str) -> float:
    """The sum over all labels of a metric, `name` with its labels or without; 0 if it is not there."""
    lines = server.get("/metrics").body.decode().splitlines()
    values = [line.rsplit(" ", 1) for line in lines if line.startswith(name) and not line.startswith("#")]
    return sum(float(value) for key, value in values if re.match(re.escape(name) + r"(\{|$)", key) or key == name)


def runs(server: ServerProcess) -> float:
    """Images that the model has seen."""
    return metric(server, "densecl_batch_size_sum")


def problem(reply: Reply, status: int) -> tuple[str, str]:
    """Kind and detail of an error."""
    assert reply.status == status, reply.body
    document = reply.json()
    return document["type"].removeprefix("/problems/"), document["detail"]


def fresh(seed: int, size: tuple[int, int] = (160, 128)) -> bytes:
    """A picture that no other test sends."""
    noise = numpy.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=numpy.uint8)
    return png(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def features(server: ServerProcess, image: bytes, query: str = "") -> Reply:
    reply = server.post(f"/features?format=npy{query}", image, "image/png")
    assert reply.status == 200, reply.body
    return reply


def feature_id(server: ServerProcess, image: bytes, query: str = "") -> str:
    return features(server, image, query).headers["Densecl-Feature-Id"]


def array(reply: Reply) -> numpy.ndarray:
    return numpy.load(io.BytesIO(reply.body))


@pytest.fixture(scope="module")
def uncached(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that keeps nothing."""
    log = tmp_path_factory.mktemp("uncached") / "server.log"
    server = ServerProcess(binary, ZOO, log, ["--cache-bytes", "0"])
    yield server
    server.stop()


@pytest.mark.parametrize("query", [
    "", "&layer=res4", "&layer=res4%2Bres5", "&layer=res5&normalize=none", "&layer=res4%2Bres5&normalize=none",
    "&layer=res5&components=3&layout=hwc", "&layer=res4&resolution=80x64&crop=8,8,64,64", "&dtype=float16",
    "&layer=res4&points=[[3,4],[100.5,60]]",
])
def test_what_is_kept_is_what_is_computed(server, uncached, query):
    image = fresh(1)
    truth = features(uncached, image, query)
    for _ in range(3):  # computed (or found as the last query left it), prepared, found prepared
        reply = features(server, image, query)
        assert reply.body == truth.body
        for name in ["Densecl-Model", "Densecl-Layer", "Densecl-Shape", "Densecl-Image-Size", "Densecl-Feature-Id"]:
            assert reply.headers[name] == truth.headers[name]


def test_an_equal_request_runs_nothing(server):
    image = fresh(2)
    first = features(server, image)
    before, hits = runs(server), metric(server, 'densecl_cache_hits_total{tier="memory"}')
    for query in ["", "&dtype=float16", "&points=[[1,2]]", "&normalize=none", "&components=2"]:
        reply = features(server, image, query)
        assert reply.headers["Densecl-Feature-Id"] == first.headers["Densecl-Feature-Id"]
        assert "inference;dur=0.00" in reply.headers["Server-Timing"]
    assert runs(server) == before
    assert metric(server, 'densecl_cache_hits_total{tier="memory"}') >= hits + 5
    # As an upload of another kind, too.
    body = json.dumps({"images": [base64.b64encode(image).decode()]}).encode()
    assert server.post("/features", body, "application/json").json()["feature_id"] == first.headers["Densecl-Feature-Id"]
    assert runs(server) == before


def test_another_picture_layer_or_side_is_another_entry(server):
    image = fresh(3)
    requests = [(image, ""), (fresh(4), ""), (image, "&layer=res4"), (image, "&layer=res5"), (image, "&side=64")]
    before = runs(server)
    ids = {feature_id(server, *request) for request in requests}
    assert len(ids) == len(requests)
    assert runs(server) == before + len(requests)


def test_a_hundred_equal_requests_cost_one_inference(server):
    image = fresh(5, (320, 240))
    before, coalesced = runs(server), metric(server, "densecl_cache_coalesced_total")
    barrier = threading.Barrier(100)

    def ask(_) -> Reply:
        barrier.wait()
        return features(server, image, "&layer=res4")

    with ThreadPoolExecutor(100) as threads:
        replies = list(threads.map(ask, range(100)))
    assert len({reply.body for reply in replies}) == 1
    assert runs(server) == before + 1
    assert metric(server, "densecl_cache_coalesced_total") > coalesced


def test_a_client_that_goes_takes_nobody_with_it(server):
    """The first to ask breaks off while others wait for the same; they are all answered."""
    for seed in range(20, 26):
        image = fresh(seed, (640, 480))
        impatient = raw_connection(server, image)
        with ThreadPoolExecutor(4) as threads:
            waiting = [threads.submit(features, server, image) for _ in range(4)]
            time.sleep(random.Random(seed).uniform(0, 0.03))
            impatient.close()
            bodies = {future.result().body for future in waiting}
        assert len(bodies) == 1


def raw_connection(server: ServerProcess, image: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST {NPY} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    connection.sendall(head.encode() + image)
    return connection


def test_failures_are_told_to_each_and_kept_for_nobody(server):
    broken = fresh(6)[:-60]
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: server.post(NPY, broken, "image/png"), range(8)))
    entries = metric(server, "densecl_cache_entries")
    assert {problem(reply, 422)[0] for reply in replies} == {"corrupt-image"}
    assert problem(server.post(NPY, broken, "image/png"), 422)[0] == "corrupt-image"
    assert metric(server, "densecl_cache_entries") == entries


def test_the_bound_on_memory_holds(binary, tmp_path):
    limit = 8 << 20
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--cache-bytes", str(limit)])
    try:
        ids = []
        for seed in range(100, 112):
            ids.append(feature_id(server, fresh(seed, (512, 384))))
            assert 0 < metric(server, "densecl_cache_bytes") <= limit
        assert metric(server, "densecl_cache_evictions_total") > 0
        pair = lambda one, other: server.post_form("/correspondence", {"source_id": one, "target_id": other})
        assert problem(pair(ids[0], ids[-1]), 404)[0] == "unknown-feature-id"
        assert pair(ids[-1], ids[-1]).status == 200
        assert metric(server, "densecl_cache_bytes") <= limit
    finally:
        server.stop()


def test_nothing_is_kept_if_nothing_may_be(uncached):
    image = fresh(7)
    before = runs(uncached)
    identifier = feature_id(uncached, image)
    assert feature_id(uncached, image) == identifier
    assert runs(uncached) == before + 2
    reply = uncached.post_form("/correspondence", {"source_id": identifier, "target": image})
    assert problem(reply, 404)[0] == "unknown-feature-id"


def test_a_hit_needs_no_place_among_those_that_wait(binary, tmp_path):
    """A server that takes one image at a time answers what it knows while that one runs."""
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--max-in-flight", "1", "--threads", "1"])
    try:
        known = fresh(8)
        features(server, known)
        answered, refused = 0, 0
        with ThreadPoolExecutor(1) as thread:
            large = fresh(30, (800, 600))
            working = thread.submit(server.post, "/features?format=npy&side=1536", large, "image/png")
            while not working.done():
                features(server, known)
                answered += 1
                refused += server.post(NPY, fresh(1000 + answered), "image/png").status == 503
            assert working.result().status in (200, 503)
        assert answered > 0 and refused > 0, "it was busy, and said so to those it did not know"
    finally:
        server.stop()


POINTS = [[10, 12], [60.5, 40], [150, 100]]


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    photo = photograph("coffee.png").resize((300, 200))
    return [png(photo), png(turned_and_brightened(photo, 10, 1.1)), png(turned_and_brightened(photo, -7, 0.9))]


@pytest.fixture(scope="module")
def ids(server, images) -> list[str]:
    return [feature_id(server, image) for image in images]


@pytest.fixture(scope="module")
def truth(uncached, images) -> dict:
    fields = {"source": images[0], "target": images[1:], "points": POINTS}
    return uncached.post_form("/correspondence", fields).json()


class TestIds:
    """`source_id` and `target_id`."""

    def test_ids_stand_for_images(self, server, images, ids, truth):
        before = runs(server)
        for fields in [
            {"source_id": ids[0], "target_id": json.dumps(ids[1:])},
            {"source": images[0], "target_id": json.dumps(ids[1:])},
            {"source_id": ids[0], "target": images[1], "target_id": ids[2]},
            {"source_id": ids[0], "target": images[1:]},
        ]:
            reply = server.post_form("/correspondence", {**fields, "points": POINTS})
            assert reply.json() == truth
        body = {"source_id": ids[0], "target_id": ids[1:], "points": POINTS}
        assert server.post("/correspondence", json.dumps(body).encode(), "application/json").json() == truth
        assert runs(server) == before

    def test_several_parts_are_several_targets(self, server, ids, truth):
        query = f"source_id={ids[0]}&target_id={ids[1]}&target_id={ids[2]}&points={json.dumps(POINTS)}"
        reply = server.post_form(f"/correspondence?{query.replace(' ', '')}", {"top_k": 1})
        assert reply.json() == truth

    def test_other_work_on_ids(self, server, uncached, images, ids):
        mask = Image.new("P", (300, 200))
        mask.putpalette([0, 0, 0, 255, 0, 0])
        mask.paste(1, (40, 40, 160, 160))
        buffer = io.BytesIO()
        mask.save(buffer, "PNG")
        for fields in [{"grid": 40, "verify": "homography"}, {"points": [[9, 9]], "format": "heatmap"},
                       {"grid": 30, "format": "npy"}, {"mask": buffer.getvalue()}]:
            by_id = server.post_form("/correspondence", {"source_id": ids[0], "target_id": ids[1], **fields})
            uploaded = uncached.post_form("/correspondence", {"source": images[0], "target": images[1], **fields})
            assert by_id.status == 200, by_id.body
            assert by_id.body == uploaded.body

    def test_layer_and_side_follow_from_the_id(self, server, images):
        query = "&layer=res4&side=128"
        one, other = (feature_id(server, image, query) for image in images[:2])
        document = server.post_form("/correspondence", {"source_id": one, "target": images[1], "grid": 50}).json()
        assert (document["layer"], document["target_id"]) == ("res4", other)
        same = {"source_id": one, "target_id": other, "layer": "res4", "side": 128, "version": document["version"]}
        assert server.post_form("/correspondence", same).status == 200

    @pytest.mark.parametrize("name, value", [("layer", "res3"), ("side", 256), ("version", 9), ("model", "another")])
    def test_what_contradicts_an_id_is_refused(self, server, ids, name, value):
        reply = server.post_form("/correspondence", {"source_id": ids[0], "target_id": ids[1], name: value})
        kind, detail = problem(reply, 422)
        assert kind == "conflicting-parameters" and f"`{name}`" in detail and "source_id" in detail

    def test_unlike_features_are_not_compared(self, server, images, ids):
        other = feature_id(server, images[1], "&layer=res4")
        kind, detail = problem(server.post_form("/correspondence", {"source_id": ids[0], "target_id": other}), 422)
        assert kind == "conflicting-parameters" and "res4" in detail

    def test_there_is_no_picture_of_features(self, server, images, ids):
        for fields in [{"source_id": ids[0], "target": images[1]}, {"source": images[0], "target_id": ids[1]}]:
            kind, detail = problem(server.post_form("/correspondence", {**fields, "format": "png"}), 422)
            assert kind == "conflicting-parameters" and "upload the image" in detail
        both = {"source": images[0], "target": images[1], "format": "png", "grid": 40}
        assert server.post_form("/correspondence", both).body.startswith(b"\x89PNG")

    @pytest.mark.parametrize("wrong", ["0" * 32, "abc", "../../etc/passwd", "x" * 5000])
    def test_an_unknown_id_says_what_to_do(self, server, ids, wrong):
        for fields in [{"source_id": wrong, "target_id": ids[0]}, {"source_id": ids[0], "target_id": wrong}]:
            reply = server.post_form("/correspondence", fields)
            assert problem(reply, 404)[0] == "unknown-feature-id"
            assert "send the image again" in reply.json()["hint"]

    def test_one_source(self, server, images, ids):
        both = {"source": images[0], "source_id": ids[0], "target_id": ids[1]}
        assert problem(server.post_form("/correspondence", both), 422)[0] == "conflicting-parameters"
        for fields, missing in [({"target_id": ids[0]}, "source"), ({"source_id": ids[0]}, "target")]:
            kind, detail = problem(server.post_form("/correspondence", fields), 400)
            assert kind == "missing-part" and f"`{missing}`" in detail
        many = {"source_id": ids[0], "target_id": json.dumps([ids[1]] * 40)}
        assert problem(server.post_form("/correspondence", many), 422)[0] == "too-many-images"
        outside = {"source_id": ids[0], "target_id": ids[1], "points": [[400, 10]]}
        assert problem(server.post_form("/correspondence", outside), 422)[0] == "point-outside"


def test_a_replaced_model_file_has_other_ids(binary, tmp_path, model_path):
    """The same name and version, another file: nothing of the first is found."""
    import onnx

    repository = tmp_path / "models"
    version = repository / model_path.parent.parent.name / model_path.parent.name
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model_path.read_bytes())
    image, ids = fresh(9), []
    for _ in range(2):
        server = ServerProcess(binary, repository, tmp_path / "server.log")
        try:
            ids.append(feature_id(server, image))
        finally:
            server.stop()
        model = onnx.load(version / "model.onnx")
        model.doc_string = "replaced"
        onnx.save(model, version / "model.onnx")
    assert ids[0] != ids[1]
