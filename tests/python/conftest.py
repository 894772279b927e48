"""One server for the whole run, with the models that the repository ships."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Iterator

import onnxruntime
import pytest

from pixel_server import start_pixel_server
from server_process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent.parent
# The repository that is tested: the one that is shipped, unless another is named.
ZOO = Path(os.environ.get("DENSECL_TEST_MODELS", ROOT / "models" / "zoo"))


@pytest.fixture(scope="session")
def binary() -> Path:
    """The server to test: DENSECL_SERVER, or the debug build."""
    path = ROOT / os.environ.get("DENSECL_SERVER", "target/debug/densecl-server")
    assert path.is_file(), f"{path} is missing: run `make test-python`"
    return path


@pytest.fixture(scope="session")
def server(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that is ready."""
    process = ServerProcess(binary, ZOO, tmp_path_factory.mktemp("server") / "server.log")
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def pixel_server(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose features are the pixels that a model would see."""
    process = start_pixel_server(binary, tmp_path_factory.mktemp("pixels"))
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The file of the first model's newest version, which answers where a request names none."""
    name = sorted(path.name for path in ZOO.iterdir() if path.is_dir())[0]
    version = max(int(path.name) for path in (ZOO / name).iterdir() if path.name.isdigit())
    return ZOO / name / str(version) / "model.onnx"


@pytest.fixture(scope="session")
def session(model_path: Path) -> onnxruntime.InferenceSession:
    """The same model in Python's own ONNX Runtime."""
    return onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def manifest(session: onnxruntime.InferenceSession) -> dict:
    """What the model says of itself."""
    return json.loads(session.get_modelmeta().custom_metadata_map["densecl.manifest"])
