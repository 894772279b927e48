"""Two replicas behind the balancer of deploy/: restarts and crashes that no client sees."""

from __future__ import annotations

import io
import itertools
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Iterator

import pytest
from PIL import Image

from conftest import ZOO
from nginx_process import NginxProcess
from redis_process import RedisProcess
from server_process import ServerProcess

CLIENTS = 6
FLAGS = ("--trusted-proxies=127.0.0.1", "--drain-delay=1s")
# Each picture is another one: no answer comes from a cache.
PICTURES = itertools.count()


def picture() -> bytes:
    buffer = io.BytesIO()
    pixels = next(PICTURES).to_bytes(8, "little") + os.urandom(96 * 64 * 3 - 8)
    Image.frombytes("RGB", (96, 64), pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Deployment:
    """Replicas that can be started again at their place, and a balancer before them."""

    def __init__(self, binary: Path, folder: Path, flags: tuple[str, ...] = ()):
        self._binary, self._folder, self._flags = binary, folder, FLAGS + flags
        self._starts = itertools.count()
        self.replicas: list[ServerProcess] = []
        for _ in range(2):
            self.replicas.append(self._started())
        self.balancer = NginxProcess(folder, [replica.port for replica in self.replicas])
        self.balancer.start()

    def _started(self, port: int | None = None) -> ServerProcess:
        log = self._folder / f"server-{next(self._starts)}.log"
        return ServerProcess(self._binary, ZOO, log, self._flags, port)

    def start_again(self, index: int) -> None:
        self.replicas[index] = self._started(self.replicas[index].port)

    def answered(self, index: int) -> int:
        """How many pictures a replica has answered since it started."""
        lines = self.replicas[index].get("/metrics").body.decode().splitlines()
        counts = [line for line in lines if line.startswith('densecl_http_requests_total{route="/features"')]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in counts if 'status="200"' in line)

    def stop(self) -> None:
        self.balancer.stop()
        for replica in self.replicas:
            if replica.process.poll() is None:
                replica.stop()


@pytest.fixture
def deployment(binary: Path, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(binary, tmp_path)
    yield deployment
    deployment.stop()


class Load:
    """Clients that ask all the time, and what they are answered."""

    def __init__(self, balancer: NginxProcess):
        self._balancer, self._ended = balancer, threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                reply = self._balancer.post("/features?side=64&layer=res3&format=npy", picture(), "image/png")
                answer = str(reply.status) if reply.status != 200 or len(reply.body) > 1000 else "cut off"
            except Exception as error:  # noqa: BLE001 - whatever it is, the client has no answer
                answer = f"{type(error).__name__}: {error}"
            with self._lock:
                self.answers[answer] += 1

    def wait_for_more(self, count: int) -> None:
        wanted, deadline = self.answers.total() + count, time.monotonic() + 30
        while self.answers.total() < wanted:
            assert time.monotonic() < deadline, f"no more answers: {self.answers}"
            time.sleep(0.02)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_more(2 * CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_replicas_are_replaced_one_by_one_and_no_client_notices(deployment):
    with Load(deployment.balancer) as load:
        for index in range(2):
            assert deployment.replicas[index].stop() == 0
            load.wait_for_more(4 * CLIENTS)
            deployment.start_again(index)
            load.wait_for_more(4 * CLIENTS)
    assert set(load.answers) == {"200"}, load.answers
    assert deployment.answered(0) > 0 and deployment.answered(1) > 0, "both are used again"


def test_a_replica_that_is_killed_takes_no_answer_with_it(deployment):
    with Load(deployment.balancer) as load:
        deployment.replicas[0].process.kill()
        deployment.replicas[0].process.wait()
        load.wait_for_more(8 * CLIENTS)
    assert set(load.answers) == {"200"}, load.answers


def test_without_any_replica_the_balancer_says_so_and_finds_them_again(deployment):
    for replica in deployment.replicas:
        replica.process.kill()
        replica.process.wait()
    assert deployment.balancer.get("/models").status == 502
    for index in range(2):
        deployment.start_again(index)
    assert deployment.balancer.get("/models").status == 200


def test_problems_of_the_server_reach_the_client_as_they_are(deployment):
    too_large = deployment.balancer.post("/features", bytes((32 << 20) + 1), "image/png")
    assert too_large.status == 413 and too_large.json()["limit"] == 32 << 20
    no_picture = deployment.balancer.post("/features", b"hello", "image/png")
    assert no_picture.status == 415
    assert no_picture.headers["Content-Type"] == "application/problem+json"


def test_ids_are_good_at_any_replica(binary, tmp_path):
    redis = RedisProcess(tmp_path)
    redis.start()
    deployment = Deployment(binary, tmp_path, (f"--cache-redis={redis.url}",))
    try:
        def feature_id() -> str:
            reply = deployment.balancer.post("/features?side=64&layer=res3&format=npy", picture(), "image/png")
            return reply.headers["Densecl-Feature-Id"]

        source, target = feature_id(), feature_id()
        # Redis is written after the reply: both ids are there once the replica that did not make them says so.
        fields = {"source_id": source, "target_id": target, "grid": 16}
        deadline = time.monotonic() + 10
        while any(replica.post_form("/correspondence", fields).status != 200 for replica in deployment.replicas):
            assert time.monotonic() < deadline, "the other replica does not know the ids"
            time.sleep(0.05)
        answers = [deployment.balancer.post_form("/correspondence", fields) for _ in range(8)]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
    finally:
        deployment.stop()
        redis.kill()
