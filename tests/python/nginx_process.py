"""nginx before servers: the load balancer of deploy/, with its very configuration but for addresses and places of files, and
a proxy that serves a server under a prefix."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Sequence

import pytest

from server_process import ServerProcess, free_port

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
START_TIMEOUT_S = 20.0


def find_nginx() -> str:
    """The program; without it the tests are skipped, but never on CI."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if path is None and not os.environ.get("CI"):
        pytest.skip("nginx is not installed (Debian and Ubuntu: apt-get install nginx-light)")
    assert path is not None, "nginx is not installed: CI runs these tests"
    return path


def replaced(text: str, pattern: str, replacement: str) -> str:
    """`text` with what `pattern` names replaced, which is there exactly once."""
    text, count = re.subn(pattern, replacement, text)
    assert count == 1, f"{CONFIGURATION.name} has {pattern} {count} times"
    return text


class Nginx:
    """nginx with a configuration of its own, which works once it answers a request for `probe`."""

    probe = "/livez"

    def __init__(self, folder: Path, port: int, configuration: str):
        self._folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        (folder / "nginx.conf").write_text(configuration)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [find_nginx(), "-p", self._folder, "-c", self._folder / "nginx.conf", "-g", "daemon off;"]
        if os.geteuid() == 0:
            # Else its workers become another account, which may not write here.
            command[-1] += " user root;"
        with open(self._folder / "nginx.out", "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self._folder / "nginx.out").read_text()
            try:
                self.get(self.probe)
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("nginx does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=START_TIMEOUT_S)
            self.process = None

    # What is asked of a server can be asked through the balancer.
    get = ServerProcess.get
    post = ServerProcess.post
    post_form = ServerProcess.post_form
    _send = staticmethod(ServerProcess._send)


class NginxProcess(Nginx):
    """The load balancer before the servers at `ports`, which stand for the replicas in their order."""

    def __init__(self, folder: Path, ports: Sequence[int]):
        own_port = free_port()
        text = CONFIGURATION.read_text()
        for number, port in enumerate(ports, start=1):
            text = replaced(text, rf"replica-{number}:8080", f"127.0.0.1:{port}")
        assert "replica-" not in text, "deploy/nginx.conf names more replicas"
        text = replaced(text, r"listen 8080", f"listen 127.0.0.1:{own_port}")
        text = replaced(text, r"/tmp/nginx\.pid", str(folder / "nginx.pid"))
        text = replaced(text, r"/dev/stdout", str(folder / "access.log"))
        text = replaced(text, r"/dev/stderr", str(folder / "error.log"))
        text = replaced(text, r"worker_processes auto", "worker_processes 1")
        # Where a distribution puts bodies that do not fit into memory may belong to another account.
        text = replaced(text, r"http \{", f"http {{\n    client_body_temp_path {folder}/bodies;")
        super().__init__(folder, own_port, text)


class PrefixProxy(Nginx):
    """A proxy that serves the server at `port` under `/densecl/`, as many do who have one name for several programs."""

    probe = "/densecl/livez"

    def __init__(self, folder: Path, port: int):
        own_port = free_port()
        super().__init__(folder, own_port, f"""
            worker_processes 1;
            pid {folder}/nginx.pid;
            error_log {folder}/error.log;
            events {{}}
            http {{
                access_log {folder}/access.log;
                client_body_temp_path {folder}/bodies;
                proxy_temp_path {folder}/replies;
                client_max_body_size 32m;
                server {{
                    listen 127.0.0.1:{own_port};
                    location /densecl/ {{
                        proxy_pass http://127.0.0.1:{port}/;
                    }}
                }}
            }}
        """)
