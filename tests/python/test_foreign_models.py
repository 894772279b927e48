"""Models of another tool, with a `manifest.json` beside them: served as they are, or refused with what is missing."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from server_process import ServerProcess
from small_models import CHANNELS, graph, manifest, put

SIDE = 96


def photo() -> tuple[numpy.ndarray, bytes]:
    """A picture that the model sees as it is."""
    pixels = numpy.random.default_rng(5).integers(0, 256, (64, SIDE, 3), numpy.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


def repository(root: Path, model: onnx.ModelProto, beside: dict | None) -> Path:
    put(root / "foreign" / "1" / "model.onnx", model.SerializeToString())
    if beside is not None:
        put(root / "foreign" / "1" / "manifest.json", json.dumps(beside).encode())
    return root


def test_is_served_as_it_is(binary, tmp_path):
    model = graph(seed=1)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels, picture = photo()
    server = ServerProcess(binary, repository(tmp_path, model, manifest("foreign")), tmp_path / "server.log")
    try:
        for layer in CHANNELS:
            reply = server.post(
                f"/features?layer={layer}&side={SIDE}&normalize=none&format=npy", picture, "image/png"
            )
            assert reply.status == 200, reply.body
            expected = session.run([layer], {"images": pixels[None]})[0][0]
            found = numpy.load(io.BytesIO(reply.body))
            numpy.testing.assert_allclose(found, expected, 1e-4, 1e-5 * numpy.abs(expected).max(), err_msg=layer)
        entry = server.get("/models/foreign").json()
        assert (entry["state"], entry["manifest"]) == ("ready", manifest("foreign"))
        match = server.post_form("/correspondence", {"source": picture, "target": picture, "points": [[40, 30]]})
        assert match.status == 200 and len(match.json()["matches"]) == 1
    finally:
        assert server.stop() == 0


def without_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def float_input(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])
    model.graph.input[0].CopyFrom(value)


def external_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Flattten"


@pytest.mark.parametrize(
    "damage, beside, reason",
    [
        (None, None, "no manifest"),
        (None, {"name": "foreign"}, "missing field"),
        (None, manifest("foreign", default_layer="res9"), "default_layer"),
        (None, manifest("foreign", layers=[{"name": "res5", "channels": 21, "stride": 32}]), "by the manifest"),
        (None, manifest("foreign", layers=[{"name": "res5", "channels": 20, "stride": 16}]), "by the manifest"),
        (without_output, manifest("foreign"), "res5"),
        (float_input, manifest("foreign"), "images"),
        (external_weights, manifest("foreign"), "outside"),
        (unknown_operator, manifest("foreign"), "Flattten"),
    ],
    ids=["none", "half", "default", "channels", "stride", "output", "input", "external", "operator"],
)
def test_is_refused_with_what_is_missing(binary, tmp_path, damage, beside, reason):
    model = graph(seed=1)
    if damage:
        damage(model)
    folder = repository(tmp_path / "repository", model, beside)
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--models", folder, "--device", "cpu"]
    ended = subprocess.run(command, capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert reason in ended.stderr.decode() and "foreign/1/model.onnx" in ended.stderr.decode(), ended.stderr.decode()
