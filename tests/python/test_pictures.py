"""Pictures of every kind, as the server decodes and resizes them, against Pillow."""

from __future__ import annotations

import io

import numpy
import pytest
from PIL import Image

from photographs import photograph, png
from picture_files import PictureFile, every_file, pillow_pixels
from pixel_server import as_a_model_sees_it, assert_pixels_of, served_pixels
from server_process import ServerProcess

FILES = every_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_pixels_are_those_of_pillow(pixel_server: ServerProcess, file: PictureFile):
    assert_pixels_of(pixel_server, file)


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
