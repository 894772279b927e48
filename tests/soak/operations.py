"""What an operator does to the server while it is used: new versions, replaced files, broken ones, models taken away."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import models
from raw_http import RawReply, exchange, post
from traffic import Wrong, expect
from truth import Truth

# An answer may have been computed this long before it is checked.
FORGET_S = 60.0


class Operations:
    """One change at a time, each followed by a look at what is served."""

    def __init__(self, repository: Path, admin_port: int, process_id: int, truth: Truth):
        self.repository, self.admin_port, self.process_id, self.truth = repository, admin_port, process_id, truth
        self.newest = {"alpha": 1, "beta": 1}
        self.seeds = itertools.count(100)
        self.done: dict[str, int] = {}

    def next(self, turn: int) -> None:
        """The `turn`-th change of a round that repeats."""
        changes = [self.new_version, self.broken_version, self.replaced_file, self.rescan, self.broken_file, self.guest]
        change = changes[turn % len(changes)]
        change()
        self.truth.forget(time.monotonic() - FORGET_S)
        self.done[change.__name__] = self.done.get(change.__name__, 0) + 1

    def call(self, path: str) -> RawReply:
        reply = exchange(self.admin_port, post(path, b"{}", "application/json"), timeout=60)
        expect(reply is not None, f"{path} was not answered")
        return reply

    def load(self, name: str) -> None:
        reply = self.call(f"/v2/repository/models/{name}/load")
        expect(reply.status == 200, f"loading {name} was answered with {reply.status} {reply.body[:300]!r}")

    def refuse_to_load(self, name: str) -> None:
        reply = self.call(f"/v2/repository/models/{name}/load")
        expect(400 <= reply.status < 600 and b'"error"' in reply.body,
               f"a broken {name} was answered with {reply.status} {reply.body[:300]!r}")  # fmt: skip
        expect(str(self.repository).encode() not in reply.body, "an error names a path of the file system")

    def install(self, name: str, version: int) -> None:
        content = models.sound(name, version, next(self.seeds))
        self.truth.begins(name, version, content)
        models.install(self.repository, name, version, content)

    def new_version(self) -> None:
        """A version is added, and the one before the last taken away."""
        old, new = self.newest["alpha"], self.newest["alpha"] + 1
        self.install("alpha", new)
        self.load("alpha")
        models.remove(self.repository, "alpha", old)
        self.load("alpha")
        self.truth.ends("alpha", old)
        self.newest["alpha"] = new

    def broken_version(self) -> None:
        """A newer version does not load: the one there is goes on serving."""
        version = self.newest["alpha"] + 1
        models.install(self.repository, "alpha", version, models.broken("alpha", version, next(self.seeds)))
        self.refuse_to_load("alpha")
        models.remove(self.repository, "alpha", version)
        self.load("alpha")

    def replaced_file(self) -> None:
        """The same version with other weights."""
        self.install("beta", 1)
        self.load("beta")
        self.truth.ends("beta", 1, but_newest=True)

    def rescan(self) -> None:
        """SIGHUP finds a new version by itself."""
        old, new = self.newest["alpha"], self.newest["alpha"] + 1
        self.install("alpha", new)
        os.kill(self.process_id, signal.SIGHUP)
        self.wait_for("alpha", new)
        models.remove(self.repository, "alpha", old)
        os.kill(self.process_id, signal.SIGHUP)
        self.wait_for("alpha", old, is_served=False)
        self.truth.ends("alpha", old)
        self.newest["alpha"] = new

    def broken_file(self) -> None:
        """A served file is replaced by one that does not load: what was read of it goes on serving."""
        path = self.repository / "beta" / "1" / "model.onnx"
        sound = path.read_bytes()
        models.install(self.repository, "beta", 1, models.broken("beta", 1, next(self.seeds)))
        self.refuse_to_load("beta")
        models.install(self.repository, "beta", 1, sound)
        self.load("beta")

    def guest(self) -> None:
        """A model comes and goes."""
        models.install(self.repository, "guest", 1, models.sound("guest", 1, next(self.seeds)))
        self.load("guest")
        expect(self.is_served("guest", 1), "a model was loaded and is not served")
        reply = self.call("/v2/repository/models/guest/unload")
        expect(reply.status == 200, f"unloading was answered with {reply.status} {reply.body[:300]!r}")
        expect(not self.is_served("guest", 1), "a model was unloaded and is served")
        models.remove(self.repository, "guest", 1)

    def is_served(self, name: str, version: int) -> bool:
        reply = exchange(self.admin_port, b"GET /v2/models/%b/versions/%d/ready HTTP/1.1\r\nHost: t\r\n\r\n" % (name.encode(), version))
        return reply is not None and reply.status == 200

    def wait_for(self, name: str, version: int, is_served: bool = True) -> None:
        deadline = time.monotonic() + 30
        while self.is_served(name, version) != is_served:
            if time.monotonic() > deadline:
                raise Wrong(f"30 s after SIGHUP {name}/{version} is {'not ' if is_served else ''}served")
            time.sleep(0.05)
