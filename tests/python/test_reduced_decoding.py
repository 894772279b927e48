"""Large JPEGs, which are decoded at a fraction of their size where the model's is much smaller."""

from __future__ import annotations

import io

import numpy
import pytest
from PIL import Image

from photographs import photograph, png
from picture_files import ORIENTATION_TAG, pillow_pixels, saved
from pixel_server import as_a_model_sees_it, served_pixels
from server_process import ServerProcess

SIDES = [64, 224, 512, 736]


def enlarged(name: str, width: int, height: int) -> Image.Image:
    """A photograph at the size that telephones take, with the noise of a sensor."""
    image = photograph(name).resize((width, height), Image.Resampling.LANCZOS)
    noise = numpy.random.default_rng(len(name)).normal(0, 3, (height, width, 1))
    return Image.fromarray((numpy.asarray(image) + noise).clip(0, 255).astype(numpy.uint8))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return exif


FILES = {
    "420": ("astronaut.png", (3000, 3000), {"quality": 85}),
    "422 of an odd size": ("chelsea.png", (2995, 1993), {"quality": 92, "subsampling": "4:2:2"}),
    "444": ("coffee.png", (3000, 2000), {"quality": 75, "subsampling": "4:4:4"}),
    "progressive": ("rocket.jpg", (2991, 2001), {"quality": 85, "progressive": True}),
    "upside down": ("chelsea.png", (2995, 1993), {"exif": turned(3)}),
    "turned": ("coffee.png", (2993, 1997), {"exif": turned(6)}),
    "mirrored and turned": ("rocket.jpg", (2993, 1997), {"exif": turned(5)}),
    "restart markers": ("astronaut.png", (2400, 2400), {"restart_marker_rows": 1}),
}


@pytest.fixture(scope="module", params=[*FILES, "grey"])
def jpeg(request: pytest.FixtureRequest) -> bytes:
    if request.param == "grey":
        return saved(enlarged("astronaut.png", 2999, 2403).convert("L"), format="JPEG")
    name, size, options = FILES[request.param]
    return saved(enlarged(name, *size), format="JPEG", **options)


def features(server: ServerProcess, content: bytes, side: int) -> numpy.ndarray:
    reply = server.post(f"/features?layer=res4&layout=hwc&format=npy&side={side}", content, "application/octet-stream")
    assert reply.status == 200, reply.body
    return numpy.load(io.BytesIO(reply.body))


def test_the_model_sees_nearly_the_same_pixels(pixel_server: ServerProcess, jpeg: bytes):
    pixels = pillow_pixels(jpeg)
    for side in SIDES:
        served, expected = served_pixels(pixel_server, jpeg, side), as_a_model_sees_it(pixels, side)
        assert served.shape == expected.shape
        assert numpy.abs(served - expected).mean() < 1, side


@pytest.mark.parametrize("name", ["astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "rocket.jpg"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_so_it_is_for_photographs_that_are_sharp(pixel_server: ServerProcess, name: str, subsampling: str):
    image = photograph(name)
    content = saved(image, format="JPEG", quality=90, subsampling=subsampling)
    pixels = pillow_pixels(content)
    for side in (32, 64, 96, 128):
        served, expected = served_pixels(pixel_server, content, side), as_a_model_sees_it(pixels, side)
        assert numpy.abs(served - expected).mean() < 1, side


def test_features_are_nearly_those_of_the_whole_picture(server: ServerProcess, jpeg: bytes):
    whole = saved(Image.fromarray(pillow_pixels(jpeg)), format="PNG", compress_level=1)
    for side in (224, 512):
        reduced, expected = features(server, jpeg, side), features(server, whole, side)
        assert reduced.shape == expected.shape
        cosines = (reduced * expected).sum(axis=-1)
        assert cosines.mean() > 0.999, side


def test_matches_are_in_pixels_of_the_whole_picture(server: ServerProcess):
    image = enlarged("coffee.png", 3000, 2000)
    small = image.resize((600, 400), Image.Resampling.BOX)
    points = [[x, y] for x in range(200, 3000, 520) for y in range(200, 2000, 400)]
    fields = {"source": saved(image, format="JPEG", quality=90), "target": png(small), "side": 512, "points": points}
    reply = server.post_form("/correspondence", fields).json()
    found = numpy.array([match["target"] for match in reply["matches"]])
    distances = numpy.hypot(*(found - ((numpy.array(points) + 0.5) / 5 - 0.5)).T)
    assert numpy.median(distances) < 4, distances


def test_damage_is_judged_alike_at_every_size(server: ServerProcess):
    content = saved(enlarged("chelsea.png", 2000, 1400), format="JPEG")
    half = content[: len(content) // 2]
    flipped = bytearray(content)
    for place in range(len(content) // 2, len(content) // 2 + 40):
        flipped[place] ^= 0x55
    for file, status in ((half, 422), (bytes(flipped), 200), (content[:-2], 200)):
        for side in (64, 1024):
            reply = server.post(f"/features?format=npy&side={side}", file, "image/jpeg")
            assert reply.status == status, (side, reply.body[:300])
