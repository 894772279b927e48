"""The server as a process: how fast it starts, what it holds, how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conftest import ZOO
from server_process import ServerProcess

MAX_START_S = 2.0
MAX_IDLE_BYTES = 250e6


def test_is_ready_soon_and_small_while_idle(binary, tmp_path):
    """The best of three starts: another process may have the cores during one of them."""
    seconds, sizes = [], []
    for _ in range(3):
        server = ServerProcess(binary, ZOO, tmp_path / "server.log")
        seconds.append(server.start_to_ready_s)
        sizes.append(server.resident_bytes())
        assert server.stop() == 0
    assert min(seconds) < MAX_START_S, seconds
    assert max(sizes) < MAX_IDLE_BYTES, sizes


def test_a_corrupt_model_is_named_at_start(binary, model_path, tmp_path):
    broken = tmp_path / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(model_path.read_bytes()[:100_000])
    with pytest.raises(RuntimeError, match=r"broken.*model\.onnx"):
        ServerProcess(binary, tmp_path, tmp_path / "server.log")


def test_the_page_asks_nobody_else(server):
    """Everything that the page loads comes from the server itself."""
    page = server.get("/")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    text = page.body.decode()
    for name in ("app.js", "style.css"):
        assert f'"{name}"' in text
        part = server.get(f"/{name}")
        assert part.status == 200, name
        assert b"://" not in part.body.replace(b"http://www.w3.org", b""), name
    assert "src=\"http" not in text and "href=\"http" not in text


def test_healthcheck_for_containers(binary, server):
    address = server.url.removeprefix("http://")
    command = [binary, "healthcheck"]
    environment = {"DENSECL_LISTEN": address}
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    environment = {"DENSECL_LISTEN": "127.0.0.1:1"}
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode != 0


def test_zoo_is_small_enough_to_be_cloned():
    assert sum(path.stat().st_size for path in Path(ZOO).rglob("*") if path.is_file()) < 60e6
