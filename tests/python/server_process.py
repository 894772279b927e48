"""A densecl-server of the tests' own, and the few HTTP calls that they need."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Sequence

READY_TIMEOUT_S = 30.0
POLL_S = 0.005


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Reply:
    """A reply of whatever status."""

    status: int
    headers: Message  # looks names up without regard to case
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


class ServerProcess:
    """Starts a server on `port`, or on a free one, with `flags` besides; `start_to_ready_s` says how long that took."""

    def __init__(self, binary: Path, models: Path, log: Path, flags: Sequence[str] = (), port: int | None = None):
        self.port = free_port() if port is None else port
        address = f"127.0.0.1:{self.port}"
        self.url = f"http://{address}"
        self.log = log
        command = [binary, "serve", "--listen", address, "--models", models, "--device", "cpu", *flags]
        started = time.monotonic()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self._wait_until_ready(started + READY_TIMEOUT_S)
        self.start_to_ready_s = time.monotonic() - started

    def _wait_until_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                if self.get("/readyz").status == 200:
                    return
            except OSError:
                pass  # It does not listen yet.
            time.sleep(POLL_S)
        self.stop()
        raise RuntimeError(f"the server was not ready in time:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Asks the server to finish and returns its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=READY_TIMEOUT_S)

    def resident_bytes(self) -> int:
        """The memory that the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def get(self, path: str) -> Reply:
        return self._send(urllib.request.Request(self.url + path))

    def post(self, path: str, body: bytes, content_type: str) -> Reply:
        return self._send(urllib.request.Request(self.url + path, body, {"Content-Type": content_type}))

    def post_form(self, path: str, fields: dict[str, bytes | str | int | bool | list]) -> Reply:
        """Sends a form; bytes become file parts, a list of bytes several of one name, everything else text as curl
        would send it."""
        boundary = uuid.uuid4().hex
        parts = []
        are_files = lambda value: isinstance(value, list) and value and isinstance(value[0], bytes)
        pairs = [(name, part) for name, value in fields.items() for part in (value if are_files(value) else [value])]
        for name, value in pairs:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
            if isinstance(value, bytes):
                head += '; filename="photo"\r\nContent-Type: application/octet-stream'
                content = value
            else:
                content = (value if isinstance(value, str) else json.dumps(value)).encode()
            parts.append(head.encode() + b"\r\n\r\n" + content + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        return self.post(path, body, f"multipart/form-data; boundary={boundary}")

    @staticmethod
    def _send(request: urllib.request.Request) -> Reply:
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())
