"""Models that other tools made, served with a manifest.json beside them, and what is said of those that cannot be."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import numpy
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from conftest import ROOT
from server_process import ServerProcess

CHANNELS = {"fine": 4, "coarse": 6}


def smallest_manifest() -> dict:
    """The one in the documentation."""
    block = re.search(r"## Your own models.*?```json\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S)
    return json.loads(block[1])


def manifest(name: str) -> dict:
    return smallest_manifest() | {
        "name": name,
        "layers": [
            {"name": "fine", "channels": CHANNELS["fine"], "stride": 2},
            {"name": "coarse", "channels": CHANNELS["coarse"], "stride": 4},
        ],
        "default_layer": "coarse",
        "default_side": 64,
    }


def values(seed: int, *shape: int) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)


def constants() -> list[TensorProto]:
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (6, 4, 3, 3), "b2": (6,)}
    return [numpy_helper.from_array(values(seed, *shape), name) for seed, (name, shape) in enumerate(shapes.items())]


def nodes() -> list[onnx.NodeProto]:
    convolution = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1", "b1"], ["conv1"], **convolution),
        helper.make_node("Relu", ["conv1"], ["fine"]),
        helper.make_node("Conv", ["fine", "w2", "b2"], ["coarse"], **convolution),
    ]


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def made(
    graph_nodes: list[onnx.NodeProto] | None = None,
    opset: int = 17,
    ir_version: int = 8,
    images: tuple = ("N", "H", "W", 3),
    more_inputs: tuple = (),
    functions: tuple = (),
    domains: tuple = (),
    more_outputs: tuple = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        graph_nodes or nodes(),
        "foreign",
        [*more_inputs, helper.make_tensor_value_info("images", TensorProto.UINT8, list(images))],
        [floats("fine", "N", 4, None, None), floats("coarse", None, None, None, None), *more_outputs],
        constants(),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def for_one_size() -> onnx.ModelProto:
    """Its shapes are written down for pictures of 96 x 128; the tests send others."""
    model = made(images=("N", 96, 128, 3), more_outputs=(floats("conv1", "N", 4, 48, 64),))
    del model.graph.output[:2]
    model.graph.output.extend([floats("fine", "N", 4, 48, 64), floats("coarse", "N", 6, 24, 32)])
    return onnx.shape_inference.infer_shapes(model)


def constants_among_inputs() -> onnx.ModelProto:
    return made(opset=9, ir_version=3, more_inputs=tuple(floats(c.name, *c.dims) for c in constants()))


def with_a_branch() -> onnx.ModelProto:
    branch = lambda name, op: helper.make_graph([helper.make_node(op, ["conv1"], [name])], name, [], [floats(name)])
    chosen = helper.make_node("If", ["yes"], ["fine"], then_branch=branch("then", "Relu"), else_branch=branch("else", "Abs"))
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(numpy.array(True)))
    return made([*nodes()[:3], yes, chosen, nodes()[4]])


def with_functions() -> onnx.ModelProto:
    relu = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function("made.here", "Rectify", ["x"], ["y"], [relu], [helper.make_opsetid("", 17)])
    call = helper.make_node("Rectify", ["conv1"], ["fine"], domain="made.here")
    return made([*nodes()[:3], call, nodes()[4]], functions=(function,), domains=("made.here",))


def with_more_outputs() -> onnx.ModelProto:
    return made(more_outputs=(floats("conv1", "N", 4, None, None), floats("planes", "N", 3, "H", "W")))


def with_numbers_one_by_one() -> onnx.ModelProto:
    model = made()
    for tensor in model.graph.initializer:
        numbers = numpy_helper.to_array(tensor).ravel()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(numbers.tolist())
    return model


def out_of_order() -> onnx.ModelProto:
    return made(list(reversed(nodes())))


FOREIGN: dict[str, Callable[[], onnx.ModelProto]] = {
    "oldest-operators": lambda: made(opset=7, ir_version=3),
    "newest-operators": lambda: made(opset=26, ir_version=13),
    "constants-among-inputs": constants_among_inputs,
    "branch": with_a_branch,
    "functions": with_functions,
    "more-outputs": with_more_outputs,
    "numbers": with_numbers_one_by_one,
    "out-of-order": out_of_order,
    "external": made,
    "one-size": for_one_size,
}


def write(folder: Path, model: onnx.ModelProto, described: dict | None, external: bool = False) -> Path:
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    beside = dict(save_as_external_data=True, location="weights.bin", size_threshold=0) if external else {}
    onnx.save(model, path, **beside)
    if described is not None:
        (folder / "manifest.json").write_text(json.dumps(described))
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    for name, make in FOREIGN.items():
        write(root / name / "1", make(), manifest(name), external=name == "external")
    assert (root / "external" / "1" / "weights.bin").is_file()
    return root


@pytest.fixture(scope="module")
def foreign(binary: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(binary, repository, tmp_path_factory.mktemp("server") / "server.log")
    try:
        yield process
    finally:
        process.stop()


PIXELS = numpy.random.default_rng(3).integers(0, 256, (64, 64, 3), numpy.uint8)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("layer", ["fine", "coarse"])
@pytest.mark.parametrize("name", FOREIGN)
def test_answers_as_another_runtime(foreign: ServerProcess, repository: Path, name: str, layer: str):
    query = f"model={name}&layer={layer}&side=64&normalize=none&format=npy"
    reply = foreign.post(f"/features?{query}", picture(), "image/png")
    assert reply.status == 200, reply.body
    # The same weights, in a graph that takes any size.
    other = "branch" if name == "one-size" else name
    session = onnxruntime.InferenceSession(repository / other / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    [[expected]] = session.run([layer], {"images": PIXELS[None]})
    assert expected.shape[0] == CHANNELS[layer]
    numpy.testing.assert_allclose(numpy.load(io.BytesIO(reply.body)), expected, rtol=1e-4, atol=1e-2)


def refusal(binary: Path, root: Path) -> str:
    """What the server says of a repository that it cannot read."""
    result = subprocess.run([binary, "models", "--models", root], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0, result.stdout
    return result.stderr


def recursive() -> onnx.ModelProto:
    call = lambda source, result: helper.make_node("F", [source], [result], domain="made.here")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("made.here", 1)]
    function = helper.make_function("made.here", "F", ["x"], ["y"], [call("x", "y")], imports)
    return made([*nodes()[:3], call("conv1", "fine"), nodes()[4]], functions=(function,), domains=("made.here",))


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "custom-operator": (
        lambda: made([*nodes()[:3], helper.make_node("Magic", ["conv1"], ["fine"], domain="org.example"), nodes()[4]]),
        "(Magic) is of the operator set `org.example`",
    ),
    "recursive": (recursive, "`F` calls itself"),
    "too-new": (lambda: made(opset=27), "version 27 of the ONNX operators (opset), and 7 to 26 are run here"),
    "one-picture": (lambda: made(images=(1, "H", "W", 3)), "exactly 1 pictures"),
    "planes-first": (lambda: made(images=("N", 3, "H", "W")), "`images`, uint8 [N, 3, H, W]"),
    "odd-size": (lambda: made(images=("N", 100, 96, 3)), "sides of 100 pixels"),
    "undefined": (lambda: made([*nodes()[:3], nodes()[4]]), "reads `fine`, which nothing computes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_what_was_found(binary: Path, tmp_path: Path, name: str):
    make, expected = REFUSED[name]
    write(tmp_path / name / "1", make(), manifest(name))
    assert expected in refusal(binary, tmp_path)


def test_all_missing_fields_are_named_at_once(binary: Path, tmp_path: Path):
    write(tmp_path / "m" / "1", made(), {"name": "m", "layers": [{"name": "fine"}]})
    message = refusal(binary, tmp_path)
    for field in ("`version`", "`default_layer`", "`licence`", "`layers[0].channels`", "`layers[0].stride`"):
        assert field in message


def test_a_model_without_a_manifest_is_told_where_one_may_be(binary: Path, tmp_path: Path):
    write(tmp_path / "m" / "1", made(), None)
    assert "manifest.json" in refusal(binary, tmp_path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_the_folder_are_not_read(binary: Path, tmp_path: Path, location: str):
    path = write(tmp_path / "m" / "1", made(), manifest("m"), external=True)
    weights = path.with_name("weights.bin")
    (tmp_path / "m" / "secret.bin").write_bytes(weights.read_bytes())
    path.with_name("link.bin").symlink_to("../secret.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    message = refusal(binary, tmp_path)
    assert "lie in another file, and cannot be read" in message
    assert "the model's own folder" in message or "leads out of the model's folder" in message
