"""A Redis that becomes the wrong one, or is not ready: said once, left at once, and found again without a restart."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from conftest import ZOO
from redis_process import RedisProcess, find_redis
from server_process import ServerProcess, free_port
from test_cache import features, fresh, metric, runs
from test_cache_redis import PATIENT, QUERY, WARM_UP, wait_for, wait_until_up

# The longest pause between attempts to connect, the time to connect, and that of a busy machine.
FOUND_AGAIN_S = 3.0 + 2.0 + 5.0
UNUSABLE = "Redis cannot be used"


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisProcess]]:
    started = []

    def start(*flags: str | Path) -> RedisProcess:
        folder = tmp_path / f"redis-{len(started)}"
        folder.mkdir()
        redis = RedisProcess(folder, "--masterauth", RedisProcess.PASSWORD, *flags)
        started.append(redis)
        redis.launch()
        return redis

    yield start
    for redis in started:
        redis.kill()


@pytest.fixture
def serve(binary: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    servers = []

    def start(url: str) -> ServerProcess:
        # Without memory for entries, so that every request asks Redis.
        flags = ["--cache-redis", url, "--cache-bytes", "0", *WARM_UP, *PATIENT]
        servers.append(ServerProcess(binary, ZOO, tmp_path / f"server-{len(servers)}.log", flags))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        assert RedisProcess.PASSWORD not in server.log.read_text(), "the password is in a log"


class MovingAddress:
    """An address that leads new connections to one port after another, as a name does after a failover."""

    def __init__(self, target: int):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://:{RedisProcess.PASSWORD}@127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port: int) -> None:
        self._target = port

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def write_new(server: ServerProcess, seed: int) -> bytes:
    """Asks for a new picture, whose features are then written."""
    image = fresh(seed)
    features(server, image, QUERY)
    return image


def is_shared(server: ServerProcess, seed: int) -> None:
    """What the server computes is found in Redis within seconds."""
    seeds = iter(range(seed, seed + 10_000))

    def is_found() -> bool:
        image = write_new(server, next(seeds))
        time.sleep(0.1)
        before = runs(server)
        features(server, image, QUERY)
        return runs(server) == before

    wait_for(is_found, "features are written and read", FOUND_AGAIN_S)


def warnings(server: ServerProcess) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if " WARN " in line]


def said_once(server: ServerProcess, cause: str) -> None:
    [warning] = warnings(server)
    assert UNUSABLE in warning and cause in warning, warning


def is_down(server: ServerProcess) -> bool:
    return metric(server, "densecl_cache_redis_up") == 0


def test_a_primary_that_becomes_a_replica(start_redis, serve):
    old, new = start_redis(), start_redis()
    address = MovingAddress(old.port)
    server = serve(address.url)
    wait_until_up(server)
    is_shared(server, 20_000)
    old.command("REPLICAOF", "127.0.0.1", str(new.port))
    wait_for(lambda: write_new(server, 30_000 + int(time.monotonic() * 1000)) and is_down(server), "it is noticed")
    time.sleep(4.0)
    assert is_down(server), "a replica is not connected to again and again"
    said_once(server, "READONLY")
    address.lead_to(new.port)
    wait_for(lambda: not is_down(server), "the new primary is found", FOUND_AGAIN_S)
    is_shared(server, 40_000)
    assert new.keys() and metric(server, 'densecl_cache_redis_errors_total{reason="refused"}') > 0
    said_once(server, "READONLY")
    wait_for(lambda: server.log.read_text().count("features are shared through Redis") == 2, "the end is said")


def test_a_replica_that_lost_its_primary(start_redis, serve):
    redis = start_redis("--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no")
    server = serve(redis.url)
    wait_for(lambda: warnings(server), "it is said")
    said_once(server, "MASTERDOWN")
    redis.command("REPLICAOF", "NO", "ONE")
    wait_for(lambda: not is_down(server), "it is used", FOUND_AGAIN_S)
    is_shared(server, 50_000)
    said_once(server, "MASTERDOWN")


def test_a_redis_that_is_loading(start_redis, serve, tmp_path):
    writer = start_redis()
    for number in range(2000):
        writer.command("SET", f"other:{number}", b"x" * 100)
    writer.command("SAVE")
    # 8 s, in which it answers after every 10 keys.
    slow = ["--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024"]
    loading = RedisProcess(tmp_path / "redis-0", *slow)
    loading.launch()
    wait_for(loading.is_loading, "it says that it is loading")
    try:
        server = serve(loading.url)
        wait_for(lambda: warnings(server), "it is said")
        said_once(server, "LOADING")
        wait_for(lambda: not is_down(server), "it is used once it has loaded", 30.0)
        said_once(server, "LOADING")
        is_shared(server, 60_000)
    finally:
        loading.kill()


def test_rights_that_are_taken_and_given_back(start_redis, serve):
    redis = start_redis()
    server = serve(redis.url)
    wait_until_up(server)
    redis.command("ACL", "SETUSER", "default", "-set")
    wait_for(lambda: write_new(server, 70_000 + int(time.monotonic() * 1000)) and is_down(server), "it is noticed")
    said_once(server, "NOPERM")
    redis.command("ACL", "SETUSER", "default", "+set")
    wait_for(lambda: not is_down(server), "it is used", FOUND_AGAIN_S)
    is_shared(server, 80_000)


@pytest.mark.parametrize(
    ("url", "cause", "cure"), [("redis://{at}", "NOAUTH", ["nopass"]), ("redis://:another@{at}", "WRONGPASS", ["resetpass", ">another"])]
)
def test_a_password_that_is_missing_or_wrong(start_redis, serve, url, cause, cure):
    redis = start_redis()
    server = serve(url.format(at=f"127.0.0.1:{redis.port}"))
    wait_for(lambda: warnings(server), "it is said")
    time.sleep(2.0)
    said_once(server, cause)
    assert "another" not in server.log.read_text()
    redis.command("ACL", "SETUSER", "default", *cure)
    wait_for(lambda: not is_down(server), "it is used", FOUND_AGAIN_S)


def test_a_node_of_a_cluster(start_redis, serve):
    # By default the nodes speak with one another on a port that is higher by 10,000, and need not exist.
    buses = [str(free_port()) for _ in range(2)]
    first, second = (start_redis("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses)
    server = serve(first.url)
    wait_for(lambda: warnings(server), "it is said")
    said_once(server, "CLUSTERDOWN")
    first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port), buses[1])
    # The entry that is written as a test belongs to the first node, and half of all others to the second.
    slot = first.command("CLUSTER", "KEYSLOT", "densecl:features:1:probe")
    owned = (0, 8191) if slot <= 8191 else (8192, 16383)
    others = (8192, 16383) if slot <= 8191 else (0, 8191)
    first.command("CLUSTER", "ADDSLOTSRANGE", *map(str, owned))
    second.command("CLUSTER", "ADDSLOTSRANGE", *map(str, others))
    wait_for(lambda: b"cluster_state:ok" in first.command("CLUSTER", "INFO"), "the nodes have met")
    wait_for(lambda: not is_down(server), "the first node is used", FOUND_AGAIN_S)
    for seed in range(90_000, 90_040):
        write_new(server, seed)
    assert len([line for line in warnings(server) if UNUSABLE in line]) <= 2, "it is not said each time"
    assert "MOVED" in server.log.read_text() and "Redis Cluster, which is not supported" in server.log.read_text()


def test_a_socket_of_the_machine(start_redis, serve, tmp_path):
    path = tmp_path / "redis.sock"
    start_redis("--unixsocket", path)
    for scheme in ("unix", "redis+unix"):
        server = serve(f"{scheme}://{path}?db=1&pass={RedisProcess.PASSWORD}")
        wait_until_up(server)
        is_shared(server, 100_000)
        assert str(path) in server.log.read_text()


# TLS -----------------------------------------------------------------------------------------------


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate of an authority, and a key and a certificate of `localhost` by it."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = lambda *words: run("openssl", *words)
    try:
        openssl("version")
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    for name in ("ca", "other-ca"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key",
                "-out", folder / f"{name}.crt", "-days", "2", "-subj", f"/CN={name}")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "redis.key",
            "-out", folder / "redis.csr", "-subj", "/CN=localhost")
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", folder / "redis.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
            "-out", folder / "redis.crt", "-days", "2", "-extfile", extensions)
    return folder


def test_tls(start_redis, serve, certificates, tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = [(f"--tls-{name}-file", certificates / file) for name, file in (("cert", "redis.crt"), ("key", "redis.key"), ("ca-cert", "ca.crt"))]
    flags = [word for pair in keys for word in pair]
    help_text = subprocess.run([find_redis(), "--tls-port", "x", "-"], input=b"", capture_output=True).stdout
    if b"Bad directive" in help_text:
        pytest.skip("this redis-server was built without TLS")
    start_redis("--tls-port", str(port), "--tls-auth-clients", "no", *flags)
    url = f"rediss://:{RedisProcess.PASSWORD}@localhost:{port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    server = serve(url)
    wait_until_up(server)
    is_shared(server, 110_000)
    # Of another name, or by another authority, the certificate is refused.
    by_number = serve(url.replace("localhost", "127.0.0.1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "other-ca.crt"))
    for stranger in (by_number, serve(url)):
        wait_for(lambda: warnings(stranger), "it is said")
        said_once(stranger, "certificate")
        assert is_down(stranger)
