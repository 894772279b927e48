"""Every model of the repository is valid ONNX and is what its manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest

from conftest import ZOO

MODELS = sorted(ZOO.glob("*/*/model.onnx"))


def test_the_repository_is_not_empty():
    assert MODELS


@pytest.mark.parametrize("path", MODELS, ids=lambda path: "/".join(path.parts[-3:-1]))
class TestModelFile:
    def test_passes_the_checker(self, path: Path):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.key for entry in model.metadata_props] == ["densecl.manifest"]

    def test_is_in_the_folder_of_its_name_and_version(self, path: Path):
        manifest = json.loads(onnx.load(path, load_external_data=False).metadata_props[0].value)
        assert (manifest["name"], str(manifest["version"])) == path.parts[-3:-1]

    @pytest.mark.parametrize("height, width", [(64, 64), (64, 160), (96, 32)])
    def test_outputs_are_those_of_the_manifest(self, path: Path, height: int, width: int):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        manifest = json.loads(session.get_modelmeta().custom_metadata_map["densecl.manifest"])
        assert [(entry.name, entry.type) for entry in session.get_inputs()] == [("images", "tensor(uint8)")]

        names = [output.name for output in session.get_outputs()]
        images = numpy.random.default_rng(7).integers(0, 256, (2, height, width, 3), numpy.uint8)
        outputs = dict(zip(names, session.run(names, {"images": images})))
        expected = {
            layer["name"]: (2, layer["channels"], height // layer["stride"], width // layer["stride"])
            for layer in manifest["layers"]
        }
        if manifest.get("global"):
            expected["global"] = (2, manifest["global"])
        assert {name: output.shape for name, output in outputs.items()} == expected
        for name, output in outputs.items():
            assert output.dtype == numpy.float32, name
            assert numpy.isfinite(output).all(), name
