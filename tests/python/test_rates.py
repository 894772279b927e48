"""How often one client may ask, as clients see it."""

from __future__ import annotations

import time
from typing import Iterator

import pytest

from conftest import ZOO
from raw_http import RawReply, exchange, request
from server_process import ServerProcess

BURST = 5


@pytest.fixture
def limited(binary, tmp_path) -> Iterator[ServerProcess]:
    flags = ["--rate-limit=2/s", f"--rate-burst={BURST}", "--trusted-proxies=127.0.0.1,10.0.0.0/8"]
    server = ServerProcess(binary, ZOO, tmp_path / "server.log", flags)
    try:
        yield server
    finally:
        assert server.stop() == 0


def ask(server: ServerProcess, client: str, path: str = "/models") -> RawReply:
    """As a proxy passes it on that was asked by `client`."""
    return exchange(server.port, request("GET", path, headers={"X-Forwarded-For": client}))


def test_a_client_that_asks_too_often_waits_and_others_do_not(limited):
    statuses = [ask(limited, "198.51.100.7").status for _ in range(BURST + 5)]
    assert statuses[:BURST] == [200] * BURST and statuses[-1] == 429, statuses
    refused = ask(limited, "203.0.113.1, 198.51.100.7, 10.0.0.3")
    assert (refused.status, refused.problem()) == (429, "rate-limited"), "what a client says of itself changes nothing"
    assert refused.headers["retry-after"] == "1"
    assert ask(limited, "198.51.100.8").status == 200
    time.sleep(1.0)
    assert ask(limited, "198.51.100.7").status == 200


def test_what_costs_nothing_is_never_limited(limited):
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs/", "/", "/app.js", "/nowhere"):
        statuses = {ask(limited, "198.51.100.7", path).status for _ in range(3 * BURST)}
        assert statuses == {404 if path == "/nowhere" else 200}, path
    while ask(limited, "198.51.100.7").status == 200:
        pass
    text = ask(limited, "198.51.100.7", "/metrics").body.decode()
    assert 'densecl_http_problems_total{problem="rate-limited"}' in text


def test_a_rate_that_makes_no_sense_is_an_error(binary, tmp_path):
    for flag in ("--rate-limit=fast", "--rate-limit=0/s", "--trusted-proxies=everyone"):
        with pytest.raises(RuntimeError, match="invalid value"):
            ServerProcess(binary, ZOO, tmp_path / "server.log", [flag])
