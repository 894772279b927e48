"""API keys: who gets in, who does not, and that nobody reads a key anywhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Callable, Iterator

import pytest
from PIL import Image

from conftest import ZOO
from exposition import Samples
from raw_http import RawConnection, RawReply, exchange, post, request
from server_process import ServerProcess

LOCKED = ("/models", "/models/any", "/metrics", "/v2", "/v2/models/any")
OPEN = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/app.js", "/style.css", "/docs/", "/openapi.json")


def photo(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, "PNG")
    return buffer.getvalue()


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def make_key(binary: Path, file: Path, name: str, *flags: str) -> str:
    """As an operator does: the entry is appended to the file, and the key is read off the terminal."""
    run = subprocess.run([binary, "keys", "new", "--name", name, *flags], capture_output=True, text=True, check=True)
    with open(file, "a") as keys:
        keys.write(run.stdout)
    file.chmod(0o600)
    [key] = [line for line in run.stderr.splitlines() if line.startswith("densecl_")]
    assert key not in run.stdout
    return key


class Locked:
    """A server with a file of keys."""

    def __init__(self, binary: Path, folder: Path, *flags: str):
        self.binary, self.file, self.flags = binary, folder / "keys.toml", flags
        self.log = folder / "server.log"

    def key(self, name: str, *flags: str) -> str:
        return make_key(self.binary, self.file, name, *flags)

    def start(self) -> None:
        self.server = ServerProcess(self.binary, ZOO, self.log, [f"--api-keys={self.file}", *self.flags])
        self.port = self.server.port

    def reload(self, says: str = "read the API keys again") -> None:
        before = self.log.read_text().count(says)
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: self.log.read_text().count(says) > before)

    def ask(self, path: str, key: str | None = None, **headers: str) -> RawReply:
        given = {"Authorization": f"Bearer {key}"} if key is not None else {}
        return exchange(self.port, request("GET", path, headers={**given, **headers}))


@pytest.fixture
def locked(binary, tmp_path) -> Iterator[Locked]:
    locked = Locked(binary, tmp_path)
    yield locked
    assert locked.server.stop() == 0


def test_only_who_has_a_key_gets_in(locked):
    key, admin = locked.key("someone"), locked.key("operator", "--admin")
    locked.start()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for path in LOCKED:
        for reply in (locked.ask(path), locked.ask(path, wrong), locked.ask(path, ""), locked.ask(path, "x" * 8000)):
            assert (reply.status, json.loads(reply.body)["type"]) == (401, "/problems/unauthorized"), path
            assert reply.headers["www-authenticate"] == "Bearer"
        expected = 404 if path.endswith("/any") else 200
        for good in (key, admin):
            assert locked.ask(path, good).status == expected
            assert locked.ask(path, **{"X-API-Key": good}).status == expected
    assert locked.ask("/models", Authorization=f"Basic {key}").status == 401
    assert locked.ask("/models", wrong, **{"X-API-Key": key}).status == 401, "one of two is not enough"
    hashed = sha256(key.encode()).hexdigest()
    assert locked.ask("/models", hashed).status == 401, "the hash in the file is no key"
    for path in OPEN:
        assert locked.ask(path).status == 200, path
    assert locked.ask("/nowhere").status == 404
    body = post("/features?format=npy", photo())
    assert exchange(locked.port, body).status == 401
    assert exchange(locked.port, post("/correspondence", b"")).status == 401
    assert exchange(locked.port, post("/features?format=npy", photo(), X_API_Key=key)).status == 200


def test_who_sends_much_without_a_key_gets_to_read_why(locked):
    locked.key("someone")
    locked.start()
    reply = exchange(locked.port, post("/features", os.urandom(8 << 20)))
    assert reply.problem() == "unauthorized"


def test_browsers_of_other_origins_may_send_keys(binary, tmp_path):
    locked = Locked(binary, tmp_path, "--cors-origin=https://example.org")
    key = locked.key("someone")
    locked.start()
    asks = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-api-key"}
    preflight = exchange(locked.port, request("OPTIONS", "/features", headers=asks))
    assert preflight.status == 200
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed and "x-api-key" in allowed
    refused = locked.ask("/models", Origin="https://example.org")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://example.org")
    assert locked.ask("/models", key, Origin="https://example.org").status == 200
    assert locked.server.stop() == 0


def test_a_key_has_its_own_rate(binary, tmp_path):
    locked = Locked(binary, tmp_path, "--rate-limit=1/h", "--rate-burst=2")
    own, more, none = locked.key("own", "--rate=1/h", "--burst=4"), locked.key("more", "--rate=1000/s"), locked.key("none")
    locked.start()
    statuses = lambda key, count: [locked.ask("/models", key).status for _ in range(count)]
    assert statuses(own, 5) == [200] * 4 + [429]
    assert statuses(more, 20) == [200] * 20
    assert statuses(none, 3) == [200] * 2 + [429], "a key without a rate has its address's"
    assert locked.ask("/models").status == 401
    locked.reload()
    assert locked.ask("/models", own).status == 429, "reading the file again is no new hour"
    assert locked.server.stop() == 0


def test_repository_calls_take_an_admin_key(locked):
    key, admin = locked.key("someone"), locked.key("operator", "--admin")
    locked.start()
    [model] = [path.name for path in ZOO.iterdir() if path.is_dir()]
    call = lambda *given: exchange(locked.port, post(f"/v2/repository/models/{model}/load", b"", "application/json",
                                                     **({"X_API_Key": given[0]} if given else {})), timeout=60)
    assert [call().status, call(key).status, call(admin).status] == [401, 403, 200]
    index = lambda **given: exchange(locked.port, post("/v2/repository/index", b"", "application/json", **given)).status
    assert [index(), index(X_API_Key=key), index(X_API_Key=admin)] == [401, 200, 200], "it can be read like /models"


def test_a_key_expires(locked):
    old, new = locked.key("old", "--expires=2020-02-29"), locked.key("new", "--expires=2999-12-31")
    locked.start()
    reply = locked.ask("/models", old)
    assert reply.status == 401 and "expired" in json.loads(reply.body)["detail"]
    assert locked.ask("/models", new).status == 200


def test_keys_are_rotated_and_revoked_under_load(locked):
    old = locked.key("old")
    revoked = locked.key("revoked")
    locked.start()
    assert locked.ask("/models", revoked).status == 200
    current, stop = [old], threading.Event()
    statuses: list[list[int]] = [[], [], [], []]

    def ask(found: list[int]) -> None:
        with RawConnection(locked.port) as connection:
            while not stop.is_set():
                connection.send(request("GET", "/models", headers={"X-API-Key": current[0]}))
                found.append(connection.reply().status)

    threads = [threading.Thread(target=ask, args=(found,)) for found in statuses]
    for thread in threads:
        thread.start()
    keys = [old]
    try:
        for turn in range(5):
            keys.append(locked.key(f"new-{turn}"))
            locked.reload()  # Now both are good,
            current[0] = keys[-1]
            time.sleep(0.1)  # whoever has begun with the old one is answered,
            entries = locked.file.read_text().split("[[key]]")
            locked.file.write_text("[[key]]" + entries[-1])
            locked.reload()  # and the old one is gone.
            assert locked.ask("/models", keys[-2]).status == 401
            assert locked.ask("/models", revoked).status == 401
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(set(found) == {200} and len(found) > 50 for found in statuses), [set(found) for found in statuses]
    seen = Samples(locked.server, {"X-API-Key": keys[-1]}).values("densecl_key_requests_total", "key")
    assert seen == {"new-4"}, "there are as many series as keys"


def test_a_file_that_is_wrong_changes_nothing_and_says_why(locked):
    key = locked.key("someone")
    locked.start()
    good = locked.file.read_text()
    for text, why in [
        (good + "\n[[key]]\nname = 'x'\n", "line 5: missing field `sha256`"),
        (good + good, "line 5: there is another key of this name"),
        (good + "sudo = true\n", "line 4: unknown field `sudo`"),
        (good.replace(good.split('"')[3], key), "line 3: `sha256` is 64 hexadecimal digits"),
        ("", "holds no key"),
        ("\0" * 100, "line 1"),
        ("#" * (2 << 20), "larger than"),
    ]:
        locked.file.write_text(text)
        locked.reload(says="the old API keys stay")
        assert why in locked.log.read_text()
        assert locked.ask("/models", key).status == 200 and locked.ask("/models").status == 401
    locked.file.unlink()
    locked.reload(says="the old API keys stay")
    assert locked.ask("/models", key).status == 200
    assert key not in locked.log.read_text()


def test_a_server_does_not_start_with_a_wrong_file(binary, tmp_path):
    locked = Locked(binary, tmp_path)
    locked.key("someone")
    locked.file.write_text(locked.file.read_text() + "rate = 'fast'\n")
    with pytest.raises(RuntimeError, match="line 4: `rate` is N/s"):
        locked.start()
    locked.file.unlink()
    with pytest.raises(RuntimeError, match="cannot be read"):
        locked.start()


def test_a_file_that_everyone_can_read_is_worth_a_warning(locked):
    locked.key("someone")
    locked.start()
    assert "chmod o-r" not in locked.log.read_text()
    locked.file.chmod(0o604)
    locked.reload()
    assert "chmod o-r" in locked.log.read_text()


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_key_is_in_any_log_at_any_level(binary, tmp_path, monkeypatch, form):
    monkeypatch.setenv("DENSECL_LOG", "trace")
    monkeypatch.setenv("RUST_LOG", "trace")
    locked = Locked(binary, tmp_path, f"--log-format={form}")
    keys = [locked.key("someone"), locked.key("operator", "--admin")]
    locked.start()
    wrong = "densecl_" + "Z" * 43
    for key in (*keys, wrong, keys[0] + "x"):
        for path in (*LOCKED, *OPEN, "/nowhere", f"/models?key={key}", f"/{key}"):
            locked.ask(path, key)
            locked.ask(path, **{"X-API-Key": key})
        exchange(locked.port, post("/features", photo(), Authorization=f"Bearer {key}"))
        exchange(locked.port, post("/features", b"no picture", X_API_Key=key))
        exchange(locked.port, b"GET /models HTTP/1.1\r\nAuthorization: Bearer " + key.encode() + b"\r\n bad\r\n\r\n")
        with RawConnection(locked.port) as connection:
            connection.send(post("/features", photo(), X_API_Key=key)[:-20])
        if shutil.which("curl"):
            url = f"http://127.0.0.1:{locked.port}/models"
            subprocess.run(["curl", "-s", "--http2-prior-knowledge", "-H", f"Authorization: Bearer {key}", url],
                           check=True, capture_output=True)
    locked.reload()
    assert locked.server.stop() == 0
    text = locked.log.read_text()
    assert "someone" in text and "TRACE" in text, "the log is silent: the test says little"
    for key in (*keys, wrong):
        digest = sha256(key.encode()).hexdigest()
        for secret in (key[len("densecl_"):][:12], digest[:12], digest.upper()[:12]):
            assert secret not in text, secret
    assert str(list(sha256(keys[0].encode()).digest()))[1:30] not in text
