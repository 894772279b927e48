"""POST /features against a direct run of the same model in Python's ONNX Runtime."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from PIL import Image

from photographs import photograph, png, window

# Photographs whose size is the inference size already, so that nothing is resized on the way:
# name, window (left, top, width, height). Square, wide and tall.
PIXEL_EXACT = [
    ("astronaut.png", (64, 0, 256, 256)),
    ("coffee.png", (100, 60, 384, 224)),
    ("chelsea.png", (60, 10, 128, 288)),
]
# Of the largest value of a map; ONNX Runtime orders its sums differently for other batch sizes.
TOLERANCE = 1e-4


def pixel_exact(case: tuple) -> Image.Image:
    name, box = case
    return window(photograph(name), *box)


def direct(session, image: Image.Image, layer: str) -> numpy.ndarray:
    """`[C, h, w]` from the whole graph, without the server."""
    return session.run([layer], {"images": numpy.asarray(image)[None]})[0][0]


def normalized(feature_map: numpy.ndarray) -> numpy.ndarray:
    return feature_map / numpy.linalg.norm(feature_map, axis=0, keepdims=True)


def ask(server, image: Image.Image, **parameters) -> numpy.ndarray:
    """The feature map, opened as a user would: numpy.load, nothing else."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    reply = server.post(f"/features?format=npy&side={max(image.size)}&{query}", png(image), "image/png")
    assert reply.status == 200, reply.body
    return numpy.load(io.BytesIO(reply.body))


@pytest.mark.parametrize("case", PIXEL_EXACT, ids=lambda case: case[0])
@pytest.mark.parametrize("normalize", ["l2", "none"])
def test_every_layer_equals_a_direct_run(server, session, manifest, case, normalize):
    image = pixel_exact(case)
    for layer in manifest["layers"]:
        served = ask(server, image, layer=layer["name"], normalize=normalize)
        expected = direct(session, image, layer["name"])
        if normalize == "l2":
            expected = normalized(expected)
        assert served.shape == expected.shape and served.dtype == numpy.float32
        difference = numpy.abs(served - expected).max()
        assert difference <= TOLERANCE * numpy.abs(expected).max(), (layer["name"], difference)


def test_defaults_are_the_manifests(server, manifest):
    image = photograph("coffee.png")
    reply = server.post("/features?format=npy", png(image), "application/octet-stream")
    # One layer, or several stacked at the finest one's stride.
    names = manifest["default_layer"].split("+")
    layers = [layer for layer in manifest["layers"] if layer["name"] in names]
    channels, stride = sum(layer["channels"] for layer in layers), min(layer["stride"] for layer in layers)
    side = manifest["default_side"]
    # Each side to the nearest multiple of 32.
    height = max(32, round(side * image.height / image.width / 32) * 32)
    shape = (channels, height // stride, side // stride)
    assert numpy.load(io.BytesIO(reply.body)).shape == shape
    assert reply.headers["Densecl-Layer"] == manifest["default_layer"]
    assert manifest["name"] in reply.headers["Densecl-Model"]


def test_layouts_and_types_hold_the_same_numbers(server):
    image = pixel_exact(PIXEL_EXACT[0])
    reference = ask(server, image)
    numpy.testing.assert_array_equal(ask(server, image, layout="hwc"), reference.transpose(1, 2, 0))
    half = ask(server, image, dtype="float16")
    assert half.dtype == numpy.float16
    numpy.testing.assert_array_equal(half, reference.astype(numpy.float16))


def test_raw_and_json_hold_the_same_numbers(server):
    image = pixel_exact(PIXEL_EXACT[0])
    reference = ask(server, image)
    query = f"side={max(image.size)}"
    raw = server.post(f"/features?{query}&format=raw", png(image), "image/png")
    numpy.testing.assert_array_equal(numpy.frombuffer(raw.body, "<f4").reshape(reference.shape), reference)

    document = server.post(f"/features?{query}&format=json", png(image), "image/png").json()
    values = numpy.frombuffer(base64.b64decode(document["data"]), "<f4").reshape(document["shape"])
    numpy.testing.assert_array_equal(values, reference)


def test_points_are_sampled_from_the_map(server):
    """At a cell's centre the descriptor is the cell's own."""
    image = pixel_exact(PIXEL_EXACT[0])
    feature_map = ask(server, image)
    _, height, width = feature_map.shape
    rows, columns = numpy.array([0, 2, height - 1]), numpy.array([0, 3, width - 1])
    xs = (columns + 0.5) * image.width / width - 0.5
    ys = (rows + 0.5) * image.height / height - 0.5
    reply = server.post_form("/features", {
        "image": png(image), "side": max(image.size), "format": "npy",
        "points": numpy.stack([xs, ys], axis=1).tolist(),
    })
    descriptors = numpy.load(io.BytesIO(reply.body))
    numpy.testing.assert_allclose(descriptors, feature_map[:, rows, columns].T, atol=1e-5)


def test_picture_of_the_components_has_the_photographs_size(server):
    image = photograph("chelsea.png")
    reply = server.post("/features?format=png", png(image), "image/png")
    picture = Image.open(io.BytesIO(reply.body))
    assert reply.headers["Content-Type"] == "image/png"
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", image.size)
    spread = numpy.asarray(picture).reshape(-1, 3).std(axis=0)
    assert (spread > 10).all(), f"a flat picture: standard deviation {spread}"


def test_answers_given_together_equal_those_given_alone(server):
    """Equal shapes that arrive together share a run; nobody may notice."""
    photo = photograph("astronaut.png")
    images = [window(photo, 16 * i, 8 * i, 160, 160) for i in range(12)]
    alone = [ask(server, image) for image in images]
    with ThreadPoolExecutor(len(images)) as pool:
        together = list(pool.map(lambda image: ask(server, image), images))
    for one, other in zip(alone, together):
        numpy.testing.assert_allclose(one, other, atol=TOLERANCE)
