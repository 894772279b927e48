"""Pictures of every kind, as the server decodes and resizes them, against Pillow.

The server has no route that returns pixels; a model whose only layer is its input makes one of `POST /features`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Iterator

import numpy
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from photographs import photograph, png
from picture_files import PictureFile, every_file, pillow_pixels
from server_process import ServerProcess

# Sides that the server leaves as they are.
CELL_MULTIPLE = 32
FILES = every_file()


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


@pytest.fixture(scope="module")
def pixel_server(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose features are the pixels that a model would see."""
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "pixels" / "1").mkdir(parents=True)
    onnx.save(pixel_model(), folder / "pixels" / "1" / "model.onnx")
    process = ServerProcess(binary, folder, tmp_path_factory.mktemp("server") / "server.log")
    try:
        yield process
    finally:
        process.stop()


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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_pixels_are_those_of_pillow(pixel_server: ServerProcess, file: PictureFile):
    height, width = file.pixels.shape[:2]
    # Odd sizes cannot come back as they are; resizing them is compared below.
    is_resized = width % CELL_MULTIPLE != 0 or height % CELL_MULTIPLE != 0
    side = max(width, height) if not is_resized else 2 * CELL_MULTIPLE
    difference = numpy.abs(served_pixels(pixel_server, file.content, side) - as_a_model_sees_it(file.pixels, side))
    if file.is_lossy:
        assert difference.mean() < 1
        assert (difference <= 4).mean() >= 0.999
    else:
        assert difference.max() <= (1 if is_resized else 0)


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "camera.png", "motorcycle_left.png", "rocket.jpg"])
@pytest.mark.parametrize("quality", [75, 95])
def test_photographs_of_a_camera_are_those_of_pillow(pixel_server: ServerProcess, name: str, quality: int):
    image = photograph(name).resize((640, 480))
    for progressive in (False, True):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling=2, progressive=progressive)
        difference = numpy.abs(served_pixels(pixel_server, buffer.getvalue(), 640) - pillow_pixels(buffer.getvalue()))
        assert difference.mean() < 1
        assert (difference <= 4).mean() >= 0.999


@pytest.mark.parametrize("side", [32, 64, 96, 128, 224, 320, 416, 512, 608, 768, 1024])
@pytest.mark.parametrize("size", [(512, 512), (600, 400), (97, 301), (33, 32), (300, 20), (640, 480), (1000, 750)])
def test_resizing_is_that_of_pillow(pixel_server: ServerProcess, size: tuple[int, int], side: int):
    image = photograph("coffee.png").crop((0, 0, min(size[0], 600), min(size[1], 400))).resize(size)
    pixels = served_pixels(pixel_server, png(image), side)
    expected = as_a_model_sees_it(numpy.asarray(image), side)
    assert pixels.shape == expected.shape
    difference = numpy.abs(pixels - expected)
    # Both round after either pass; where both passes come to stand on a half, two levels can come of it.
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4


def jpeg_with(place: int, value: int) -> bytes:
    """A JPEG with a byte of its frame header changed; 0 is the marker."""
    buffer = io.BytesIO()
    photograph("astronaut.png").resize((64, 64)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    content[content.index(b"\xff\xc0") + 1 + place] = value
    return bytes(content)


@pytest.mark.parametrize(
    "content, detail",
    [
        (jpeg_with(0, 0xC9), "arithmetic coding"),
        (jpeg_with(0, 0xC3), "lossless coding"),
        (jpeg_with(0, 0xC5), "hierarchical coding"),
        (jpeg_with(3, 12), "12 bits a sample"),
        (jpeg_with(8, 2), "2 components"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_said(pixel_server: ServerProcess, content: bytes, detail: str):
    reply = pixel_server.post("/features", content, "image/jpeg")
    assert reply.status == 415
    assert reply.json()["type"] == "/problems/unsupported-image"
    assert detail in reply.json()["detail"]
