"""POST /features: formats, several images, resolutions, crops and components, read as users would read them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import urllib.request

import numpy
import pytest
import safetensors
import safetensors.numpy
from PIL import Image

from photographs import photograph, png, window

SIDE = 256
LAYER = "res3"


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Neither a square nor of the size that the network sees."""
    return window(photograph("astronaut.png"), 40, 20, 300, 200)


def ask(server, image: Image.Image, **parameters):
    """A reply of status 200 to a raw body."""
    query = "&".join(f"{name}={value}" for name, value in {"side": SIDE, "layer": LAYER, **parameters}.items())
    reply = server.post(f"/features?{query}", png(image), "image/png")
    assert reply.status == 200, reply.body
    return reply


def npy(server, image: Image.Image, **parameters) -> numpy.ndarray:
    return numpy.load(io.BytesIO(ask(server, image, format="npy", **parameters).body))


def post_json(server, **fields):
    return server.post("/features", json.dumps(fields).encode(), "application/json")


def as_base64(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def unit(feature_map: numpy.ndarray) -> numpy.ndarray:
    """Descriptors along the first axis, scaled to length 1."""
    return feature_map / numpy.linalg.norm(feature_map, axis=0, keepdims=True)


def upsampled(feature_map: numpy.ndarray, xs: numpy.ndarray, ys: numpy.ndarray, image: Image.Image) -> numpy.ndarray:
    """Bilinear interpolation at pixels `xs`, `ys`, by the formula of the coordinates, in float64."""

    def along(places: numpy.ndarray, pixels: int, cells: int):
        position = numpy.clip((places + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        first = numpy.minimum(position.astype(int), cells - 1)
        return first, numpy.minimum(first + 1, cells - 1), position - first

    _, height, width = feature_map.shape
    x0, x1, fx = along(xs, image.width, width)
    y0, y1, fy = along(ys, image.height, height)
    rows = feature_map[:, y0] * (1 - fy)[:, None] + feature_map[:, y1] * fy[:, None]
    return rows[:, :, x0] * (1 - fx) + rows[:, :, x1] * fx


@pytest.mark.parametrize("normalize", ["l2", "none"])
def test_every_pixel_is_interpolated(server, image, normalize):
    feature_map = npy(server, image, normalize=normalize).astype(numpy.float64)
    expected = upsampled(feature_map, numpy.arange(image.width), numpy.arange(image.height), image)
    if normalize == "l2":
        expected = unit(expected)
    scale = numpy.abs(expected).max()
    chw = npy(server, image, normalize=normalize, resolution="pixel")
    assert chw.shape == (feature_map.shape[0], image.height, image.width)
    assert numpy.abs(chw - expected).max() < 1e-5 * scale
    hwc = npy(server, image, normalize=normalize, resolution="pixel", layout="hwc")
    assert numpy.abs(hwc.transpose(2, 0, 1) - expected).max() < 1e-5 * scale
    half = npy(server, image, normalize=normalize, resolution="pixel", dtype="float16")
    numpy.testing.assert_array_equal(half, chw.astype(numpy.float16))


def test_crops_are_windows_of_the_result(server, image):
    x, y, w, h = 33, 70, 121, 55
    whole, part = (npy(server, image, resolution="pixel", **crop) for crop in ({}, {"crop": f"{x},{y},{w},{h}"}))
    numpy.testing.assert_allclose(part, whole[:, y : y + h, x : x + w], atol=1e-6)

    grid, cells = (npy(server, image, **crop) for crop in ({}, {"crop": f"{x},{y},{w},{h}"}))
    _, rows, columns = grid.shape
    centres = [(numpy.arange(n) + 0.5) * size / n - 0.5 for n, size in ((columns, image.width), (rows, image.height))]
    across = (centres[0] >= x - 0.5) & (centres[0] < x + w - 0.5)
    down = (centres[1] >= y - 0.5) & (centres[1] < y + h - 0.5)
    numpy.testing.assert_array_equal(cells, grid[:, down][:, :, across])


def test_a_size_of_ones_own_spans_the_window(server, image):
    feature_map = npy(server, image, normalize="none").astype(numpy.float64)
    x, y, w, h, width, height = 20, 30, 200, 100, 77, 31
    xs = x + (numpy.arange(width) + 0.5) * w / width - 0.5
    ys = y + (numpy.arange(height) + 0.5) * h / height - 0.5
    expected = upsampled(feature_map, xs, ys, image)
    served = npy(server, image, normalize="none", resolution=f"{width}x{height}", crop=f"{x},{y},{w},{h}")
    assert numpy.abs(served - expected).max() < 1e-5 * numpy.abs(expected).max()

    document = ask(server, image, resolution=f"{width}x{height}", crop=f"{x},{y},{w},{h}").json()
    assert document["cell_origin"] == pytest.approx([xs[0], ys[0]])
    assert document["cell_scale"] == pytest.approx({"x": w / width, "y": h / height})


def test_safetensors_are_read_by_their_own_package(server, image):
    reply = ask(server, image, format="safetensors", dtype="float16")
    assert reply.headers["Content-Type"] == "application/x-safetensors"
    tensors = safetensors.numpy.load(reply.body)
    numpy.testing.assert_array_equal(tensors["features"], npy(server, image, dtype="float16"))
    metadata = json.loads(reply.body[8 : 8 + int.from_bytes(reply.body[:8], "little")])["__metadata__"]
    assert metadata["layer"] == LAYER
    assert metadata["image_size"] == f"{image.width}x{image.height}"
    assert metadata["feature_id"] == reply.headers["Densecl-Feature-Id"]
    assert metadata["model"] + "/" + metadata["version"] == reply.headers["Densecl-Model"]


def test_several_images_are_answered_together(server, image):
    images = [image, image.crop((0, 0, 200, 200)), image.rotate(90, expand=True)]
    alone = [npy(server, image) for image in images]
    fields = {"images": [as_base64(image) for image in images], "side": SIDE, "layer": LAYER}

    documents = post_json(server, **fields).json()["images"]
    for document, image, expected in zip(documents, images, alone, strict=True):
        assert (document["image_size"]["width"], document["image_size"]["height"]) == image.size
        values = numpy.frombuffer(base64.b64decode(document["data"]), "<f4").reshape(document["shape"])
        numpy.testing.assert_allclose(values, expected, atol=1e-5)

    reply = post_json(server, format="safetensors", **fields)
    tensors = safetensors.numpy.load(reply.body)
    assert sorted(tensors) == ["0", "1", "2"]
    for index, expected in enumerate(alone):
        numpy.testing.assert_allclose(tensors[str(index)], expected, atol=1e-5)

    refused = post_json(server, format="npy", **fields)
    assert refused.status == 406 and "application/x-safetensors" in refused.json()["detail"]


def test_an_error_names_the_image_it_is_about(server, image):
    good = as_base64(image)
    broken = base64.b64encode(png(image)[:300]).decode()
    reply = post_json(server, images=[good, broken], side=SIDE)
    assert (reply.status, reply.json()["type"]) == (422, "/problems/corrupt-image")
    assert reply.json()["detail"].startswith("images[1]: ")
    reply = post_json(server, images=[good, as_base64(image.crop((0, 0, 50, 50)))], points=[[100, 100]])
    assert (reply.status, reply.json()["type"]) == (422, "/problems/point-outside")
    assert reply.json()["detail"].startswith("images[1]: ")


@pytest.mark.parametrize("count", [3, 100])
def test_components_are_those_of_a_full_decomposition(server, image, count):
    feature_map = npy(server, image).astype(numpy.float64)
    descriptors = feature_map.reshape(len(feature_map), -1)
    centred = descriptors - descriptors.mean(axis=1, keepdims=True)
    variances, vectors = numpy.linalg.eigh(centred @ centred.T)
    directions = vectors[:, ::-1][:, :count].T
    peaks = numpy.take_along_axis(directions, numpy.abs(directions).argmax(axis=1)[:, None], axis=1)
    expected = (directions * numpy.sign(peaks)) @ centred
    expected = unit(expected).reshape(count, *feature_map.shape[1:])
    served = npy(server, image, components=count)
    # The last of many differ little in variance, so they may be mixtures of each other.
    numpy.testing.assert_allclose(served[:3], expected[:3], atol=2e-3)
    gram, expected_gram = (numpy.einsum("cyx,cyx->yx", part, part[:, :1, :1]) for part in (served, expected))
    numpy.testing.assert_allclose(gram, expected_gram, atol=2e-2)


def test_components_are_the_same_whichever_part_is_asked_for(server, image):
    whole = npy(server, image, components=4, resolution="pixel")
    x, y = 120, 77
    part = npy(server, image, components=4, resolution="pixel", crop=f"{x},{y},10,10")
    numpy.testing.assert_allclose(part, whole[:, y : y + 10, x : x + 10], atol=1e-5)
    points = npy(server, image, components=4, points=f"[[{x},{y}]]")
    numpy.testing.assert_allclose(points[0], whole[:, y, x], atol=1e-4)


def test_large_replies_say_their_length(server, image):
    reply = ask(server, image, format="raw", resolution="pixel")
    shape = [int(size) for size in reply.headers["Densecl-Shape"].split(",")]
    assert int(reply.headers["Content-Length"]) == len(reply.body) == 4 * numpy.prod(shape)
    document = ask(server, image, resolution="pixel", dtype="float16", components=2, encoding="array").json()
    assert numpy.asarray(document["data"]).shape == (2, image.height, image.width)
    document = ask(server, image, resolution="pixel", dtype="float16").json()
    assert len(base64.b64decode(document["data"])) == 2 * numpy.prod(document["shape"])


def compressed(server, image: Image.Image, accept_encoding: str, **parameters):
    query = "&".join(f"{name}={value}" for name, value in {"side": SIDE, "layer": LAYER, **parameters}.items())
    headers = {"Content-Type": "image/png", "Accept-Encoding": accept_encoding}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/features?{query}", png(image), headers)) as reply:
        return reply.headers["Content-Encoding"], reply.read()


def test_replies_are_compressed_for_those_who_ask(server, image):
    plain = ask(server, image, resolution="100x100", encoding="array").body
    encoding, body = compressed(server, image, "gzip", resolution="100x100", encoding="array")
    assert encoding == "gzip" and gzip.decompress(body) == plain and len(body) < 0.6 * len(plain)
    assert compressed(server, image, "gzip", format="npy")[0] is None
    encoding, body = compressed(server, image, "gzip, zstd", format="npy")
    assert encoding == "zstd" and body[:4] == b"\x28\xb5\x2f\xfd"
    assert compressed(server, image, "gzip, zstd", format="png")[0] is None


@pytest.mark.parametrize("parameters, status, kind", [
    ({"crop": "0,0,301,200"}, 422, "crop-outside"),
    ({"crop": "0,0,0,10"}, 422, "crop-outside"),
    ({"crop": "1,1,2"}, 400, "malformed-parameter"),
    ({"crop": "1,1,1,1"}, 422, "crop-without-cells"),
    ({"resolution": "0x10"}, 422, "resolution-out-of-range"),
    ({"resolution": "70000x10"}, 422, "resolution-out-of-range"),
    ({"resolution": "60000x60000"}, 413, "reply-too-large"),
    ({"resolution": "full"}, 400, "malformed-parameter"),
    ({"components": "0"}, 422, "components-out-of-range"),
    ({"components": "100000"}, 422, "components-out-of-range"),
    ({"components": "-1"}, 400, "malformed-parameter"),
    ({"components": "3", "format": "png"}, 422, "conflicting-parameters"),
    ({"points": "[[1,1]]", "resolution": "pixel"}, 422, "conflicting-parameters"),
    ({"points": "[[1,1]]", "crop": "0,0,10,10"}, 422, "conflicting-parameters"),
])
def test_what_cannot_be_is_refused(server, image, parameters, status, kind):
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    reply = server.post(f"/features?side={SIDE}&layer={LAYER}&{query}", png(image), "image/png")
    assert (reply.status, reply.json()["type"]) == (status, f"/problems/{kind}"), reply.body


def test_parameters_in_json_have_their_own_types(server, image):
    fields = {"images": [as_base64(image)], "layer": LAYER, "format": "npy"}
    typed = post_json(server, side=SIDE, crop=[0, 0, 100, 100], components=3, **fields)
    text = post_json(server, side=str(SIDE), crop="0,0,100,100", components="3", **fields)
    assert typed.status == 200 and typed.body == text.body
