"""Half a minute of the soak (tests/soak): every kind of request and every change of the models, all answers checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

SOAK = ROOT / "tests" / "soak" / "soak.py"
CHANGES = {"new_version", "broken_version", "replaced_file", "rescan", "broken_file", "guest"}


def test_nothing_is_wrong_and_nothing_is_lost(binary: Path):
    # Memory is still being taken at this age: how much of it, only the long run tells.
    command = [sys.executable, SOAK, "--server", binary, "--minutes=0.5", "--change-every=3", "--max-growth=inf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == 0
    assert set(report["changes"]) == CHANGES
    assert min(report["by_kind"].values()) > 0 and len(report["by_kind"]) == 10, report["by_kind"]
