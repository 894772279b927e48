"""Two servers that share features through a real Redis, and whatever may happen to it: every request is answered, right
and in time."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator

import pytest

from conftest import ZOO
from redis_process import RedisProcess
from server_process import ServerProcess
from test_cache import array, feature_id, features, fresh, metric, problem, runs

QUERY = "&layer=res5&side=128"
# So that no request has to wait for a session to be built.
WARM_UP = ["--warm-up", "res5@128"]
# Where Redis is well a busy machine must not make it look ill.
PATIENT = ["--cache-redis-timeout", "5s"]
HITS = 'densecl_cache_hits_total{tier="redis"}'
LOOKUPS = "densecl_cache_redis_lookup_seconds"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path)
    process.start()
    yield process
    process.kill()


class Replicas:
    """Servers with one Redis."""

    def __init__(self, binary: Path, folder: Path):
        self._binary, self._folder = binary, folder
        self.servers: list[ServerProcess] = []

    def start(self, url: str, *flags: str) -> ServerProcess:
        log = self._folder / f"server-{len(self.servers)}.log"
        server = ServerProcess(self._binary, ZOO, log, ["--cache-redis", url, *WARM_UP, *flags])
        self.servers.append(server)
        return server


@pytest.fixture
def replicas(binary: Path, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(binary, tmp_path)
    yield started
    for server in started.servers:
        server.stop()
        assert RedisProcess.PASSWORD not in server.log.read_text(), "the password is in a log"


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)


def wait_until_up(*servers: ServerProcess) -> None:
    for server in servers:
        wait_for(lambda: metric(server, "densecl_cache_redis_up") == 1, "Redis is used")


def shared(server: ServerProcess, redis: RedisProcess, image: bytes) -> str:
    """The id of a picture whose features are in Redis."""
    identifier = feature_id(server, image, QUERY)
    wait_for(lambda: any(key.endswith(identifier.encode()) for key in redis.keys()), "the entry is written")
    return identifier


def test_ids_cross_over(replicas, redis):
    one, other = replicas.start(redis.url, *PATIENT), replicas.start(redis.url, *PATIENT)
    wait_until_up(one, other)
    images = [fresh(200), fresh(201)]
    ids = [shared(server, redis, image) for server, image in zip((one, other), images)]
    fields = {"points": [[10, 20], [100, 90]], "layer": "res5", "side": 128}
    truth = one.post_form("/correspondence", {"source": images[0], "target": images[1], **fields}).json()
    before = [runs(server) for server in (one, other)]
    for server in (one, other):
        reply = server.post_form("/correspondence", {"source_id": ids[0], "target_id": ids[1], **fields})
        assert reply.json() == truth
    # As images, too: neither computes what the other has.
    for image in images:
        assert (array(features(one, image, QUERY)) == array(features(other, image, QUERY))).all()
    assert [runs(server) for server in (one, other)] == before
    assert metric(other, HITS) > 0


def test_entries_expire(replicas, redis):
    one = replicas.start(redis.url, "--cache-redis-ttl", "1s")
    wait_until_up(one)
    identifier = shared(one, redis, fresh(202))
    wait_for(lambda: redis.keys() == [], "the entry is gone")
    other = replicas.start(redis.url)
    wait_until_up(other)
    reply = other.post_form("/correspondence", {"source_id": identifier, "target_id": identifier})
    assert problem(reply, 404)[0] == "unknown-feature-id"


def test_a_redis_that_comes_later(binary, replicas, tmp_path):
    redis = RedisProcess(tmp_path)
    server = replicas.start(redis.url)
    features(server, fresh(203), QUERY)
    assert server.log.read_text().count("Redis cannot be used") == 1
    time.sleep(1.0)
    assert server.log.read_text().count("Redis cannot be used") == 1, "it says so once"
    redis.start()
    try:
        wait_until_up(server)
        shared(server, redis, fresh(204))
    finally:
        redis.kill()


def test_a_wrong_password_is_said_without_it(replicas, redis):
    server = replicas.start(f"redis://:another-s3cret@127.0.0.1:{redis.port}")
    features(server, fresh(205), QUERY)
    log = server.log.read_text()
    assert "Redis cannot be used" in log and f"127.0.0.1:{redis.port}" in log
    assert "another-s3cret" not in log


def rubbish(good: bytes) -> dict[str, bytes]:
    """What may lie under our keys."""
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    return {"nothing": b"", "text": b"hello", "half": good[: len(good) // 2], "flipped": bytes(flipped),
            "longer": good + b"\0", "large": bytes(20 << 20), "other format": good[:4] + b"\xff\xff" + good[6:]}


def test_rubbish_under_our_keys(replicas, redis):
    writer, reader = replicas.start(redis.url), replicas.start(redis.url, *PATIENT, "--cache-bytes", "0")
    wait_until_up(writer, reader)
    image, other = fresh(206), fresh(207)
    identifier, other_identifier = shared(writer, redis, image), shared(writer, redis, other)
    truth = array(features(writer, image, QUERY))
    key = next(key for key in redis.keys() if key.endswith(identifier.encode()))
    other_key = next(key for key in redis.keys() if key.endswith(other_identifier.encode()))
    good = redis.command("GET", key)
    cases = {**rubbish(good), "another's entry": redis.command("GET", other_key)}
    for name, content in cases.items():
        redis.command("SET", key, content)
        faults, computed = metric(reader, "densecl_cache_redis_errors_total"), runs(reader)
        assert (array(features(reader, image, QUERY)) == truth).all(), name
        assert runs(reader) == computed + 1, name
        if content:
            assert metric(reader, "densecl_cache_redis_errors_total") == faults + 1, name
        # What was bad is deleted, and what was computed takes its place.
        wait_for(lambda: redis.command("GET", key) == good, f"{name} is replaced")
    redis.command("DEL", key)
    redis.command("LPUSH", key, b"no string")
    assert (array(features(reader, image, QUERY)) == truth).all()
    wait_for(lambda: redis.command("TYPE", key) == b"string", "the list is replaced")
    computed = runs(reader)
    assert (array(features(reader, image, QUERY)) == truth).all()
    assert runs(reader) == computed, "and is found again"


def test_a_full_redis(replicas, tmp_path):
    redis = RedisProcess(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    redis.start()
    try:
        server = replicas.start(redis.url)
        wait_until_up(server)
        for seed in range(210, 225):
            features(server, fresh(seed), "&layer=res4&side=384")
        wait_for(lambda: metric(server, 'densecl_cache_redis_errors_total{reason="full"}') > 0, "it was full")
        assert metric(server, "densecl_cache_redis_dropped_writes_total") > 0
        assert metric(server, "densecl_cache_redis_up") == 1, "what it holds can still be read"
        redis.command("FLUSHALL")
        wait_for(lambda: features(server, fresh(int(time.monotonic() * 1000)), QUERY) and redis.keys(), "it is used again")
    finally:
        redis.kill()


class Load:
    """Clients that ask all the time, for what is known and for what is not, and check every answer."""

    CLIENTS = 3

    def __init__(self, servers: list[ServerProcess], images: list[bytes]):
        self.servers, self.images = servers, images
        self.truth = [array(features(servers[0], image, QUERY)) for image in images]
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures[:3]

    def _ask(self, number: int) -> None:
        turn = number
        while not self._end.is_set():
            turn += 1
            index = turn % len(self.images)
            server = self.servers[turn % len(self.servers)]
            begun = time.monotonic()
            try:
                reply = server.post(f"/features?format=npy{QUERY}", self.images[index], "image/png")
                self.seconds.append(time.monotonic() - begun)
                if reply.status != 200 or not (array(reply) == self.truth[index]).all():
                    self.failures.append(f"{reply.status} {reply.body[:200]!r}")
            except Exception as error:  # Any of them is a failed request.
                self.failures.append(repr(error))


def test_whatever_happens_to_redis_under_load(replicas, redis):
    """Neither server has memory for entries: every request asks Redis, and computes when that says nothing."""
    servers = [replicas.start(redis.url, "--cache-bytes", "0") for _ in range(2)]
    wait_until_up(*servers)
    with Load(servers, [fresh(seed) for seed in range(230, 238)]) as load:

        def asked(count: int) -> None:
            start = len(load.seconds)
            wait_for(lambda: len(load.seconds) >= start + count or bool(load.failures), f"{count} answers")

        def is_down() -> bool:
            return all(metric(server, "densecl_cache_redis_up") == 0 for server in servers)

        asked(30)
        redis.command("FLUSHALL")
        asked(30)
        redis.kill()
        wait_for(is_down, "it was noticed")
        asked(60)
        redis.start()
        wait_until_up(*servers)
        hits = metric(servers[0], HITS)
        wait_for(lambda: metric(servers[0], HITS) > hits, "it is used again")
        for key in redis.keys():
            redis.command("SET", key, b"rubbish")
        asked(30)
        redis.stop_answering()
        wait_for(is_down, "it was noticed")
        lookups = sum(metric(server, f"{LOOKUPS}_count") for server in servers)
        asked(60)
        assert sum(metric(server, f"{LOOKUPS}_count") for server in servers) == lookups, "nobody waits for what is down"
        redis.answer_again()
        wait_until_up(*servers)
        hits = metric(servers[0], HITS)
        wait_for(lambda: metric(servers[0], HITS) > hits, "it is used again")
    for server in servers:
        check_lookups_were_in_time(server)


def check_lookups_were_in_time(server: ServerProcess) -> None:
    """No request has waited much longer for Redis than the 50 ms that it may: of the histogram's buckets the third above
    that, because a thread that is woken in time may have to wait for a core."""
    count = metric(server, f"{LOOKUPS}_count")
    assert count > 0 and metric(server, LOOKUPS + '_bucket{le="0.4096"}') == count


def test_a_lookup_ends_in_time(replicas, redis):
    """What a request waits for a Redis that has stopped, by the server's own clock."""
    server = replicas.start(redis.url, "--cache-bytes", "0")
    for seed in range(240, 243):
        wait_until_up(server)
        redis.stop_answering()
        try:
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda image: features(server, image, QUERY), [fresh(seed * 10 + n) for n in range(4)]))
        finally:
            redis.answer_again()
    check_lookups_were_in_time(server)
