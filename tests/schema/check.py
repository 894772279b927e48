"""Asks a server whatever its OpenAPI document allows, and much that it does not.

Every answer must be one that the document names: its status, its type and its shape; and none a
5xx. The same requests are made in every run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

from server_process import ServerProcess  # noqa: E402

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
PICTURES = Path(__file__).with_name("pictures.py")
MODES = [("--mode=all",), ("--mode=positive", "--phases=fuzzing", "--max-examples=150")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", type=Path, default=ROOT / "target/debug/densecl-server")
    arguments, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        # Large replies say nothing new about their type, and take their time.
        server = ServerProcess(arguments.server, ROOT / "models" / "zoo", log, ["--max-side=128"])
        try:
            # What the document does not allow as well, then more of what it does.
            statuses = [run_schemathesis(server.url, folder, more, *mode) for mode in MODES]
            answered = server.get("/metrics").body.decode()
        finally:
            ended = server.stop()
        text = log.read_text()
    if ended != 0 or "panicked" in text or "request failed" in text:
        print(f"the server ended with {ended}; its log:\n{text}", file=sys.stderr)
        return 1
    for route in ("/features", "/correspondence"):
        if f'densecl_http_requests_total{{route="{route}",method="POST",status="200"' not in answered:
            print(f"no generated request to {route} succeeded: the check says little", file=sys.stderr)
            return 1
    return max(statuses)


def run_schemathesis(url: str, folder: str, more: list[str], *mode: str) -> int:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIGURATION, "run", f"{url}/openapi.json"]
    command += ["--checks=all", "--request-timeout=40", *mode, *more]
    # It keeps its examples in the working directory.
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(PICTURES)}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
