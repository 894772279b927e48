"""Models of a few kilobytes as another tool would make them, with `onnx.helper` alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
CHANNELS = {"res4": 12, "res5": 20}
STRIDES = {"res4": 16, "res5": 32}


def manifest(name: str, width: int = 1, **changes) -> dict:
    """What a model says of itself."""
    layers = [{"name": layer, "channels": width * CHANNELS[layer], "stride": STRIDES[layer]} for layer in STRIDES]
    return {
        "name": name,
        "version": 1,
        "method": "random",
        "architecture": "two convolutions",
        "layers": layers,
        "global": width * CHANNELS["res5"],
        "default_layer": "res5",
        "default_side": 64,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "licence": "Apache-2.0",
        **changes,
    }


def graph(seed: int, width: int = 1) -> onnx.ModelProto:
    """Two convolutions and the mean of the second, with random weights; no manifest."""
    random = numpy.random.default_rng(seed)
    channels = {layer: width * CHANNELS[layer] for layer in CHANNELS}
    weights = {
        "weight4": random.normal(0, 0.01, (channels["res4"], 3, 16, 16)),
        "weight5": random.normal(0, 0.1 / width, (channels["res5"], channels["res4"], 2, 2)),
        "scale": numpy.array(1 / 255.0),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight4"], ["res4"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["res4", "weight5"], ["res5"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["res5"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["global"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])
    maps = [
        helper.make_tensor_value_info(layer, TensorProto.FLOAT, ["N", channels[layer], f"h_{layer}", f"w_{layer}"])
        for layer in STRIDES
    ]
    vector = helper.make_tensor_value_info("global", TensorProto.FLOAT, ["N", channels["res5"]])
    initializers = [numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in weights.items()]
    body = helper.make_graph(nodes, "small", [images], [*maps, vector], initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def small_model(seed: int, width: int = 1) -> bytes:
    """A file with its manifest inside; its answers depend on `seed`, its size on the square of `width`."""
    model = graph(seed, width)
    entry = model.metadata_props.add()
    entry.key, entry.value = "densecl.manifest", json.dumps(manifest("m", width))
    return model.SerializeToString()


def put(target: Path, content: bytes) -> None:
    """Appears whole, by a rename, as models should."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".aside")
    aside.write_bytes(content)
    aside.rename(target)
