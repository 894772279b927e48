"""Small models for the soak, sound and broken, made without the project's own tools."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = {"res2": (32, 4), "res3": (64, 8)}  # channels, stride
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def manifest(name: str, version: int) -> dict:
    """What a model says of itself."""
    layers = [{"name": layer, "channels": channels, "stride": stride} for layer, (channels, stride) in LAYERS.items()]
    return {
        "name": name, "version": version, "method": "random", "architecture": "two-convolutions", "layers": layers,
        "default_layer": "res3", "default_side": 96, "mean": MEAN, "std": STD, "licence": "Apache-2.0",
    }  # fmt: skip


def sound(name: str, version: int, seed: int) -> bytes:
    """An ONNX file with two layers, whose weights come from `seed`."""
    random = numpy.random.default_rng(seed)
    weights = lambda out, into, side: random.normal(0, (2 / (into * side * side)) ** 0.5, (out, into, side, side))
    constants = {
        "shift": numpy.array(MEAN).reshape(1, 3, 1, 1) * 255,
        "scale": numpy.array(STD).reshape(1, 3, 1, 1) * 255,
        "first": weights(LAYERS["res2"][0], 3, 4),
        "second": weights(LAYERS["res3"][0], LAYERS["res2"][0], 2),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "shift"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["normalised"]),
        helper.make_node("Conv", ["normalised", "first"], ["res2"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["res2"], ["positive"]),
        helper.make_node("Conv", ["positive", "second"], ["res3"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])
    outputs = [
        helper.make_tensor_value_info(layer, TensorProto.FLOAT, ["N", channels, f"h_{layer}", f"w_{layer}"])
        for layer, (channels, _) in LAYERS.items()
    ]
    initializers = [numpy_helper.from_array(value.astype(numpy.float32), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "soak", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"densecl.manifest": json.dumps(manifest(name, version))})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def broken(name: str, version: int, kind: int) -> bytes:
    """A file that must be refused, in one of five ways."""
    model = onnx.load_from_string(sound(name, version, seed=version))
    match kind % 5:
        case 0:
            return model.SerializeToString()[: 4000 + version]
        case 1:
            return b"this is no model" * 100
        case 2:
            del model.metadata_props[:]  # no manifest, inside or beside
        case 3:
            model.graph.node[4].op_type = "NoSuchOperator"
        case 4:
            # The manifest promises more channels than the graph has.
            promised = manifest(name, version)
            promised["layers"][1]["channels"] = 65
            helper.set_model_props(model, {"densecl.manifest": json.dumps(promised)})
    return model.SerializeToString()


def install(repository: Path, name: str, version: int, content: bytes) -> None:
    """Puts a file in its place as an operator should: whole, by renaming."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".model.onnx.new"
    aside.write_bytes(content)
    os.replace(aside, folder / "model.onnx")


def remove(repository: Path, name: str, version: int) -> None:
    """Takes a version away: its folder disappears at once."""
    gone = repository / f".gone-{name}-{version}"
    os.replace(repository / name / str(version), gone)
    shutil.rmtree(gone)
