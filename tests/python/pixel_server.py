"""A server whose features are the pixels that a model would see.

The server has no route that returns pixels; a model whose only layer is its input makes one of `POST /features`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper
from PIL import Image

from picture_files import PictureFile
from server_process import ServerProcess

# Sides that the server leaves as they are.
CELL_MULTIPLE = 32


def pixel_model() -> onnx.ModelProto:
    """One layer of stride 1: the pixels, as float32 `[N, 3, H, W]`."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, "H", "W"])
    graph = helper.make_graph(nodes, "pixels", [images], [pixels])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = {
        "name": "pixels",
        "version": 1,
        "method": "none",
        "architecture": "identity",
        "layers": [{"name": "pixels", "channels": 3, "stride": 1}],
        "default_layer": "pixels",
        "default_side": CELL_MULTIPLE,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "licence": "Apache-2.0",
    }
    helper.set_model_props(model, {"densecl.manifest": json.dumps(manifest)})
    return model


def start_pixel_server(binary: Path, folder: Path) -> ServerProcess:
    """Starts the server, with its model and its log in `folder`."""
    (folder / "models" / "pixels" / "1").mkdir(parents=True)
    onnx.save(pixel_model(), folder / "models" / "pixels" / "1" / "model.onnx")
    return ServerProcess(binary, folder / "models", folder / "server.log")


def served_pixels(server: ServerProcess, content: bytes, side: int) -> numpy.ndarray:
    """`[H, W, 3]`: what a model sees of a file."""
    path = f"/features?normalize=none&layout=hwc&format=npy&side={side}"
    reply = server.post(path, content, "application/octet-stream")
    assert reply.status == 200, reply.body
    return numpy.load(io.BytesIO(reply.body))


def inference_size(width: int, height: int, side: int) -> tuple[int, int]:
    """The size at which a model sees a picture."""
    scale = side / max(width, height)
    width, height = (max(1, int(length * scale / CELL_MULTIPLE + 0.5)) * CELL_MULTIPLE for length in (width, height))
    return width, height


def as_a_model_sees_it(pixels: numpy.ndarray, side: int) -> numpy.ndarray:
    """Pillow's pixels at the size that the server makes of `side`."""
    height, width = pixels.shape[:2]
    resized = Image.fromarray(pixels).resize(inference_size(width, height, side), Image.Resampling.BILINEAR)
    return numpy.asarray(resized)


def assert_pixels_of(server: ServerProcess, file: PictureFile) -> None:
    """Compares what a model sees of a file with the pixels that it stands for."""
    height, width = file.pixels.shape[:2]
    # Odd sizes cannot come back as they are.
    is_resized = width % CELL_MULTIPLE != 0 or height % CELL_MULTIPLE != 0
    side = max(width, height) if not is_resized else 2 * CELL_MULTIPLE
    pixels, expected = served_pixels(server, file.content, side), as_a_model_sees_it(file.pixels, side)
    assert pixels.shape == expected.shape
    difference = numpy.abs(pixels - expected)
    if file.is_lossy:
        assert difference.mean() < 1
        assert (difference <= 4).mean() >= 0.999
    else:
        assert difference.max() <= (1 if is_resized else 0)
