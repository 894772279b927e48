"""The trainer's binary, for tests that start it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def trainer_binary() -> Path:
    """The trainer to test: DENSECL_TRAINER, or the debug build."""
    path = ROOT / os.environ.get("DENSECL_TRAINER", "target/debug/densecl-trainer")
    assert path.is_file(), f"{path} is missing: run `make test-transfer`"
    return path


@pytest.fixture(scope="session")
def trainer(trainer_binary: Path) -> Callable[..., str]:
    """Runs a command of the trainer on one thread; returns what it prints."""
    def run(*arguments: str | Path) -> str:
        found = subprocess.run([trainer_binary, *arguments], capture_output=True, text=True, check=False,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert found.returncode == 0, f"{arguments}: {found.stderr}"
        return found.stdout
    return run


def pytest_configure(config: pytest.Config) -> None:
    """pycocotools asks NumPy 2 for an array in the old way."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")
