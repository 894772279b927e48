"""A redis-server of the tests' own, which they may kill, stop and fill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_TIMEOUT_S = 20.0


def find_redis() -> str:
    """The program; without it the tests are skipped, but never on CI."""
    path = shutil.which("redis-server")
    if path is None and not os.environ.get("CI"):
        pytest.skip("redis-server is not installed (Debian and Ubuntu: apt-get install redis-server)")
    assert path is not None, "redis-server is not installed: CI runs these tests"
    return path


class RedisProcess:
    """Redis on a port that stays the same when it is started again; nothing is written to disk."""

    PASSWORD = "n0t-for-logs"

    def __init__(self, folder: Path, *flags: str | Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://:{self.PASSWORD}@127.0.0.1:{self.port}"
        self._folder = folder
        self._flags = flags
        self.process: subprocess.Popen | None = None

    def launch(self) -> None:
        """Starts Redis, which may refuse commands at first, and waits until it listens."""
        command = [find_redis(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--requirepass", self.PASSWORD, "--dir", str(self._folder), *self._flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server does not answer")

    def start(self) -> None:
        self.launch()
        assert self.command("PING") == b"PONG"

    def kill(self) -> None:
        """Without a word to anyone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop_answering(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def keys(self) -> list[bytes]:
        return self.command("KEYS", "densecl:*")

    def is_loading(self) -> bool:
        try:
            self.command("PING")
        except RuntimeError as error:
            return str(error).startswith("LOADING")
        return False

    def command(self, *words: str | bytes):
        """One command and its answer: bytes, a number, a list, or None."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            stream = connection.makefile("rwb")
            for command in [("AUTH", self.PASSWORD), words]:
                stream.write(b"*%d\r\n" % len(command))
                for word in command:
                    word = word.encode() if isinstance(word, str) else word
                    stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
                stream.flush()
                answer = self._read(stream)
            return answer

    def _read(self, stream):
        line = stream.readline()
        if not line:
            raise ConnectionResetError("redis-server closed the connection")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else stream.read(length + 2)[:-2]
        if kind == b"*":
            return [self._read(stream) for _ in range(int(rest))]
        return rest
