"""Models change while they are served: nothing is lost, and every answer is one version's, whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

import numpy
import pytest
from PIL import Image

from server_process import Reply, ServerProcess, free_port
from small_models import graph, manifest, put, small_model

SIDE = 64
PIXELS = numpy.random.default_rng(3).integers(0, 256, (1, SIDE, SIDE, 3), numpy.uint8)
WAIT_S = 60.0


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = photo()


FILES = [small_model(seed) for seed in range(3)]


@dataclass
class Served:
    """A server of its own for a test, and the folder it serves."""

    process: ServerProcess
    admin: str
    root: Path

    def file(self, name: str = "m", version: int = 1) -> Path:
        return self.root / name / str(version) / "model.onnx"

    def admin_post(self, path: str) -> Reply:
        return ServerProcess._send(urllib.request.Request(f"http://{self.admin}{path}", b""))

    def load(self, name: str = "m") -> Reply:
        return self.admin_post(f"/v2/repository/models/{name}/load")

    def unload(self, name: str = "m") -> Reply:
        return self.admin_post(f"/v2/repository/models/{name}/unload")

    def index(self) -> dict[tuple[str, int], tuple[str, str]]:
        """State and reason of each version."""
        entries = self.admin_post("/v2/repository/index").json()
        return {(entry["name"], int(entry["version"])): (entry["state"], entry["reason"]) for entry in entries}

    def hang_up(self) -> None:
        """SIGHUP, until the repository has been looked at."""
        looked = lambda: self.process.log.read_text().count("looked at the model repository")
        kept = lambda: self.process.log.read_text().count("the models stay as they are")
        before = looked() + kept()
        self.process.process.send_signal(signal.SIGHUP)
        until(lambda: looked() + kept() > before)

    def ask(self, name: str = "m", version: int | None = None) -> tuple[int, bytes]:
        """Status, and the version and values of an answer."""
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "") + "/infer"
        entry = {"name": "images", "datatype": "UINT8", "shape": PIXELS.shape}
        entry["parameters"] = {"binary_data_size": PIXELS.nbytes}
        request = {"inputs": [entry], "outputs": [{"name": "res5", "parameters": {"binary_data": True}}]}
        head = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        reply = ServerProcess._send(
            urllib.request.Request(self.process.url + path, head + PIXELS.tobytes(), headers)
        )
        return reply.status, reply.body

    def answer(self, name: str = "m", version: int | None = None) -> bytes:
        status, body = self.ask(name, version)
        assert status == 200, body
        return body


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def serve(binary: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts a server of `m/1`, the first of the small files if none is given."""
    started = []

    def start(*flags: str, file: bytes = FILES[0]) -> Served:
        root = tmp_path / "repository"
        put(root / "m" / "1" / "model.onnx", file)
        admin = f"127.0.0.1:{free_port()}"
        process = ServerProcess(binary, root, tmp_path / "server.log", [f"--admin-listen={admin}", *flags])
        started.append(process)
        return Served(process, admin, root)

    yield start
    for process in started:
        assert process.stop() == 0


@dataclass
class Load:
    """What clients saw who asked without a pause."""

    answers: set[bytes] = field(default_factory=set)
    failures: list[tuple[int, bytes]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@contextmanager
def under_load(served: Served, clients: int = 6) -> Iterator[Load]:
    seen, stop = Load(), threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            status, body = served.ask()
            seen.seconds.append(time.monotonic() - begun)
            if status == 200:
                seen.answers.add(body)
            else:
                seen.failures.append((status, body))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(keep_asking) for _ in range(clients)]
        try:
            yield seen
        finally:
            stop.set()
        for each in asking:
            each.result()


def test_a_reload_under_load_loses_nothing(serve):
    served = serve()
    old = served.answer()
    with under_load(served) as seen:
        until(lambda: len(seen.seconds) > 20)
        put(served.file(), FILES[1])
        assert served.load().status == 200
        new = served.answer()
        before = len(seen.seconds)
        until(lambda: len(seen.seconds) > before + 20)
    assert seen.failures == []
    assert old != new and seen.answers == {old, new}
    with under_load(served) as later:
        until(lambda: len(later.seconds) > 10)
    assert later.answers == {new}, "the old version does not come back"


def test_a_new_version_takes_over_and_its_removal_gives_back(serve):
    served = serve()
    old = served.answer()
    put(served.file(version=2), FILES[1])
    assert served.answer() == old, "nobody was told yet"
    served.hang_up()
    new = served.answer()
    assert new != old and served.answer(version=1) == old and served.answer(version=2) == new
    assert served.index() == {("m", 1): ("READY", ""), ("m", 2): ("READY", "")}
    shutil.rmtree(served.file(version=2).parent)
    served.hang_up()
    assert served.answer() == old
    status, body = served.ask(version=2)
    assert (status, b"no version 2" in body) == (404, True)


def test_models_come_and_go_with_their_folders(serve):
    served = serve()
    put(served.file("n"), FILES[1])
    served.hang_up()
    assert served.answer("n") != served.answer("m")
    shutil.rmtree(served.root / "n")
    served.hang_up()
    assert served.ask("n")[0] == 404 and ("n", 1) not in served.index()
    assert served.process.get("/readyz").status == 200


@pytest.mark.parametrize("broken", [b"nonsense", b""], ids=["nonsense", "empty"])
def test_a_broken_file_leaves_the_old_one(serve, broken):
    served = serve()
    old = served.answer()
    put(served.file(), broken)
    put(served.file(version=2), broken)
    reply = served.load()
    problem = reply.json()
    assert (reply.status, problem["type"]) == (422, "/problems/cannot-load-model")
    assert "m/1: " in problem["error"] and "m/2: " in problem["error"], problem
    assert str(served.root) not in reply.body.decode()
    assert served.answer() == old
    index = served.index()
    assert index[("m", 1)][0] == "READY" and index[("m", 1)][1] != ""
    assert index[("m", 2)][0] == "UNAVAILABLE" and index[("m", 2)][1] != ""
    listed = {entry["version"]: entry for entry in served.process.get("/models").json()["models"]}
    assert (listed[1]["state"], listed[2]["state"]) == ("ready", "unavailable")
    assert listed[2]["reason"] and "manifest" not in listed[2] and listed[1]["manifest"]["layers"]
    assert str(served.root) not in json.dumps(listed)

    put(served.file(), FILES[1])
    shutil.rmtree(served.file(version=2).parent)
    served.hang_up()
    assert served.answer() != old and served.index() == {("m", 1): ("READY", "")}


def test_a_layer_that_is_asked_for_first_after_its_file_was_replaced(serve):
    """The session for it is built from what was loaded, not from what is there by now."""
    served = serve()
    features = lambda: served.process.post("/features?layer=res4&side=64&format=npy", PHOTO, "image/png")
    put(served.file(), FILES[1])
    old = features()
    assert old.status == 200
    assert served.load().status == 200
    new = features()
    assert new.status == 200 and new.body != old.body
    served.file().unlink()
    other = served.process.post("/features?layer=res4%2Bres5&side=64&format=npy", PHOTO, "image/png")
    assert other.status == 200, other.body


def test_a_file_that_was_overwritten_in_place_is_told(serve):
    served = serve()
    served.file().write_bytes(FILES[1])
    assert served.process.post("/features?side=64&format=npy", PHOTO, "image/png").status == 200
    reply = served.process.post("/features?layer=res4&side=64&format=npy", PHOTO, "image/png")
    assert (reply.status, reply.json()["type"]) == (503, "/problems/model-file-changed")
    assert served.load().status == 200
    assert served.process.post("/features?layer=res4&side=64&format=npy", PHOTO, "image/png").status == 200


def test_what_was_unloaded_stays_so_until_it_is_loaded(serve):
    served = serve()
    old = served.answer()
    assert served.unload().status == 200
    status, body = served.ask()
    assert (status, json.loads(body)["type"]) == (404, "/problems/model-not-loaded")
    put(served.file(), FILES[1])
    served.hang_up()
    assert served.ask()[0] == 404
    assert served.process.post("/features?side=64", PHOTO, "image/png").status == 404
    assert served.process.get("/models/m").json()["state"] == "unavailable"
    assert served.unload().status == 200, "twice is once"
    assert served.load().status == 200
    assert served.answer() != old


def test_an_unloaded_model_finishes_what_it_began(serve):
    served = serve()
    old = served.answer()
    with under_load(served) as seen:
        until(lambda: len(seen.seconds) > 10)
        assert served.unload().status == 200
        until(lambda: len(seen.failures) > 10)
    assert seen.answers == {old}
    assert {status for status, _ in seen.failures} == {404}


def test_a_repository_that_is_gone_leaves_everything(serve):
    served = serve()
    old = served.answer()
    away = served.root.with_name("away")
    served.root.rename(away)
    served.hang_up()
    assert served.answer() == old
    reply = served.load()
    assert (reply.status, "cannot be read" in reply.json()["error"]) == (422, True)
    served.root.mkdir()
    served.hang_up()
    assert served.answer() == old, "an empty folder is rather one that is not mounted"
    served.root.rmdir()
    away.rename(served.root)
    served.hang_up()
    assert served.answer() == old and served.index() == {("m", 1): ("READY", "")}


def test_a_manifest_beside_the_file_is_part_of_it(serve):
    served = serve()
    beside = served.file("n").with_name("manifest.json")
    put(served.file("n"), graph(1).SerializeToString())
    reply = served.load("n")
    assert (reply.status, "no manifest" in reply.json()["error"]) == (422, True)
    put(beside, json.dumps(manifest("n", default_layer="res4")).encode())
    assert served.load("n").status == 200
    put(beside, json.dumps(manifest("n")).encode())
    served.hang_up()
    assert served.process.get("/models/n").json()["manifest"]["default_layer"] == "res5"


def test_reloads_leave_no_memory_behind(serve):
    """Twenty, each of two engines and the sessions that they share, with requests in between."""
    files = [small_model(seed, width=40) for seed in range(2)]
    served = serve("--threads=2", "--request-timeout=120s", file=files[0])

    def reload(index: int) -> None:
        put(served.file(), files[index % 2])
        assert served.load().status == 200
        served.answer()

    for index in range(1, 5):
        reload(index)
    before = served.process.resident_bytes()
    for index in range(5, 25):
        reload(index)
    grown = served.process.resident_bytes() - before
    # Each reload builds four sessions; a version keeps three and the one that a request asked for.
    assert grown < 2 * len(files[0]), f"{grown / 1e6:.0f} MB more, with a model of {len(files[0]) / 1e6:.0f} MB"
    descriptors = Path(f"/proc/{served.process.process.pid}/fd").iterdir()
    assert sum("model.onnx" in os.readlink(path) for path in descriptors) == 1, "old files are closed"


def test_answers_are_not_kept_waiting_by_a_load(serve):
    """While a large model loads, a small one is answered as ever."""
    large = [small_model(seed, width=100) for seed in range(3)]
    served = serve("--request-timeout=120s")
    loads = []
    with under_load(served, clients=2) as seen:
        until(lambda: len(seen.seconds) > 20)
        for file in large:
            put(served.file("n"), file)
            begun = time.monotonic()
            assert served.load("n").status == 200
            loads.append(time.monotonic() - begun)
    assert seen.failures == []
    assert max(seen.seconds) < min(loads) / 2, (max(seen.seconds), loads)
