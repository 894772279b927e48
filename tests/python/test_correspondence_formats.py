"""POST /correspondence: several targets, verification, masks, heatmaps, and what is refused."""

from __future__ import annotations

import base64
import io
import json

import numpy
import pytest
from PIL import Image, ImageDraw

from photographs import folder, photograph, png, turned_and_brightened, window

SIDE = 256


def correspondence(server, source: Image.Image, target: Image.Image | list[Image.Image], **fields):
    targets = target if isinstance(target, list) else [target]
    return server.post_form("/correspondence", {
        "source": png(source), "target": [png(image) for image in targets], "side": SIDE, **fields})


def succeed(reply):
    assert reply.status == 200, reply.body
    return reply


def problem(reply, status: int) -> str:
    """The slug of a refusal."""
    assert reply.status == status, reply.body[:500]
    assert reply.headers["Content-Type"] == "application/problem+json"
    return reply.json()["type"].removeprefix("/problems/")


def npy(reply) -> numpy.ndarray:
    assert succeed(reply).headers["Content-Type"] == "application/x-npy"
    return numpy.load(io.BytesIO(reply.body))


def tensors(reply) -> dict[str, numpy.ndarray]:
    """The tensors of a safetensors file: a length, JSON, numbers."""
    assert succeed(reply).headers["Content-Type"] == "application/x-safetensors"
    types = {"F32": "<f4", "F64": "<f8", "U8": "u1"}
    length = int.from_bytes(reply.body[:8], "little")
    data = reply.body[8 + length:]
    header = json.loads(reply.body[8:8 + length])
    header.pop("__metadata__", None)
    return {
        name: numpy.frombuffer(data[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def warped(image: Image.Image, homography: numpy.ndarray) -> Image.Image:
    """The image under a homography of pixel centres; what comes from outside is grey."""
    shift = numpy.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # Pillow's coordinates are of corners
    back = numpy.linalg.inv(shift @ homography @ numpy.linalg.inv(shift))
    coefficients = (back / back[2, 2]).ravel()[:8]
    return image.transform(
        image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


def project(homography: numpy.ndarray, points: numpy.ndarray) -> numpy.ndarray:
    x = numpy.column_stack([points, numpy.ones(len(points))]) @ homography.T
    return x[:, :2] / x[:, 2:]


def tilt(image: Image.Image) -> numpy.ndarray:
    """A turn of 8 degrees about the middle, a little smaller, with some perspective."""
    middle = numpy.array([[1, 0, image.width / 2], [0, 1, image.height / 2], [0, 0, 1]])
    angle = numpy.deg2rad(8)
    turn = 0.95 * numpy.array([[numpy.cos(angle), -numpy.sin(angle), 0], [numpy.sin(angle), numpy.cos(angle), 0], [0, 0, 0]])
    turn[2] = [1e-4, -2e-4, 1]
    homography = middle @ turn @ numpy.linalg.inv(middle)
    return homography / homography[2, 2]


# Several targets


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    photo = photograph("coffee.png")
    return [photo, turned_and_brightened(photo, 10, 1.1), window(photo, 50, 30, 320, 320)]


def test_each_of_several_targets_is_answered_as_if_alone(server, photos):
    source, *targets = photos
    fields = {"grid": 32, "top_k": 2, "verify": "homography"}
    together = succeed(correspondence(server, source, targets, **fields)).json()
    assert together["source_size"] == {"width": 600, "height": 400}
    assert len(together["targets"]) == 2
    for target, found in zip(targets, together["targets"]):
        alone = succeed(correspondence(server, source, target, **fields)).json()
        assert found == {name: alone[name] for name in ["target_size", "target_id", "matches", "verification"]}


def test_several_targets_as_tensors(server, photos):
    source, *targets = photos
    found = tensors(correspondence(server, source, targets, grid=32, format="safetensors"))
    assert sorted(found) == ["0", "1"]
    for target, table in zip(targets, [found["0"], found["1"]]):
        numpy.testing.assert_array_equal(table, npy(correspondence(server, source, target, grid=32, format="npy")))


def test_json_bodies_are_read_too(server, photos):
    source, *targets = photos
    encoded = [base64.b64encode(png(image)).decode() for image in photos]
    body = {"source": encoded[0], "target": encoded[1:], "side": SIDE, "points": [[100, 80], [300.5, 200]]}
    reply = succeed(server.post("/correspondence", json.dumps(body).encode(), "application/json"))
    form = succeed(correspondence(server, source, targets, points=[[100, 80], [300.5, 200]]))
    assert reply.json() == form.json()


@pytest.mark.parametrize("format", ["npy", "png"])
def test_several_targets_do_not_fit_every_format(server, photos, format):
    source, *targets = photos
    assert problem(correspondence(server, source, targets, grid=64, format=format), 406) == "not-acceptable"


def test_a_bad_target_is_named(server, photos):
    form = {"source": png(photos[0]), "target": [png(photos[1]), b"nonsense"]}
    reply = server.post_form("/correspondence", form)
    assert problem(reply, 415) == "unsupported-image"
    assert "target[1]" in reply.json()["detail"]


def test_images_are_missing(server, photos):
    for form in [{"source": png(photos[0])}, {"target": png(photos[0])}]:
        assert problem(server.post_form("/correspondence", form), 400) == "missing-part"


@pytest.mark.parametrize("field", ["source_id", "target_id"])
def test_no_id_is_known(server, photos, field):
    body = {field: "0123456789abcdef0123456789abcdef"}
    reply = server.post("/correspondence", json.dumps(body).encode(), "application/json")
    assert problem(reply, 404) == "unknown-feature-id"
    assert "0123456789abcdef" in reply.json()["detail"] and "source" in reply.json()["hint"]


# Filters


@pytest.mark.parametrize("queries", [{}, {"grid": 40}, {"points": [[x, y] for x in (90, 300, 500) for y in (60, 200, 350)]}])
def test_filters_work_with_every_kind_of_query(server, photos, queries):
    source, target = photos[0], photos[1]
    fields = {"layer": "res4", "top_k": 3, **queries}
    everything = succeed(correspondence(server, source, target, **fields)).json()["matches"]
    assert all(1 <= len(match["candidates"]) <= 3 for match in everything)
    filters = {
        "mutual": (True, lambda match: match["mutual"]),
        "min_score": (0.9, lambda match: match["score"] >= 0.9),
        "max_ratio": (0.95, lambda match: match["ratio"] <= 0.95),
    }
    for name, (value, keep) in filters.items():
        kept = succeed(correspondence(server, source, target, **fields, **{name: value})).json()["matches"]
        assert kept == [match for match in everything if keep(match)], name


# Verification


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png", "astronaut.png"])
def test_a_known_homography_is_recovered(server, name):
    photo = photograph(name)
    truth = tilt(photo)
    reply = succeed(correspondence(
        server, photo, warped(photo, truth), side=512, layer="res3+res4", mutual=True, verify="homography")).json()
    verification = reply["verification"]
    assert verification["model"] == "homography" and "reason" not in verification
    inliers = [match for match in reply["matches"] if match["inlier"]]
    assert verification["inliers"] == len(inliers) >= 0.3 * len(reply["matches"])
    matrix = numpy.array(verification["matrix"])
    assert matrix[2, 2] == 1
    corners = numpy.array([[0, 0], [photo.width, 0], [0, photo.height], photo.size]) - 0.5
    error = numpy.linalg.norm(project(matrix, corners) - project(truth, corners), axis=1).max()
    assert error <= 0.01 * max(photo.size), error
    sources, targets = (numpy.array([match[end] for match in inliers]) for end in ["source", "target"])
    distances = numpy.linalg.norm(project(matrix, sources) - targets, axis=1)
    assert distances.max() <= verification["threshold_px"] + 1e-6


def test_the_epipolar_lines_of_a_stereo_pair_are_rows(server):
    left, right = photograph("motorcycle_left.png"), photograph("motorcycle_right.png")
    reply = succeed(correspondence(
        server, left, right, side=512, layer="res3+res4", mutual=True, verify="fundamental")).json()
    verification = reply["verification"]
    matrix = numpy.array(verification["matrix"])
    numpy.testing.assert_allclose(numpy.linalg.norm(matrix), 1)
    assert abs(numpy.linalg.det(matrix)) < 1e-9
    assert verification["inliers"] >= 0.5 * len(reply["matches"])
    points = numpy.array([[x, y] for x in (100, 350, 600) for y in (100, 250, 400)])
    lines = numpy.column_stack([points, numpy.ones(len(points))]) @ matrix.T
    # Where each line is at the point's own column, and at the far edges: on the point's row.
    for x in (0, left.width / 2, left.width):
        rows = -(lines[:, 0] * x + lines[:, 2]) / lines[:, 1]
        assert numpy.abs(rows - points[:, 1]).max() <= 8, rows - points[:, 1]


def test_the_same_request_gets_the_same_answer(server, photos):
    source, target = photos[0], photos[1]
    one, other = (
        succeed(correspondence(server, source, target, grid=16, verify="fundamental")).json() for _ in range(2))
    assert one == other


@pytest.mark.parametrize("model,points,reason", [
    ("homography", [[100, 100], [200, 200], [300, 150]], "too_few_matches"),
    ("fundamental", [[100 + 50 * i, 100 + 20 * (i % 3)] for i in range(7)], "too_few_matches"),
    ("homography", [[50 + 25 * i, 50 + 12 * i] for i in range(20)], "degenerate"),
])
def test_what_is_not_determined_is_null(server, photos, model, points, reason):
    photo = photos[0]
    verification = succeed(correspondence(server, photo, photo, points=points, verify=model)).json()["verification"]
    assert verification["matrix"] is None and verification["inliers"] == 0
    assert verification["reason"] == reason


def test_a_flat_scene_has_no_fundamental_matrix(server):
    photo = photograph("coffee.png")
    reply = succeed(correspondence(server, photo, warped(photo, tilt(photo)), layer="res4", mutual=True, verify="fundamental"))
    assert reply.json()["verification"]["reason"] == "degenerate"


def test_the_threshold_can_be_chosen(server, photos):
    source, target = photos[0], photos[1]
    inliers = []
    for threshold in [1, 4, 16]:
        verification = succeed(correspondence(
            server, source, target, grid=16, verify="homography", verify_threshold=threshold)).json()["verification"]
        assert verification["threshold_px"] == threshold
        inliers.append(verification["inliers"])
    assert inliers == sorted(inliers) and inliers[0] < inliers[2]


def test_verified_tensors_hold_flags_and_matrix(server, photos):
    fields = {"grid": 24, "verify": "homography"}
    found = tensors(correspondence(server, photos[0], photos[1], format="safetensors", **fields))
    document = succeed(correspondence(server, photos[0], photos[1], **fields)).json()
    assert sorted(found) == ["0", "0.inlier", "0.matrix"]
    assert found["0.inlier"].tolist() == [int(match["inlier"]) for match in document["matches"]]
    numpy.testing.assert_array_equal(found["0.matrix"], document["verification"]["matrix"])


def test_a_table_has_no_room_for_a_matrix(server, photos):
    reply = correspondence(server, photos[0], photos[1], grid=24, verify="homography", format="npy")
    assert problem(reply, 406) == "not-acceptable"


def test_inliers_and_outliers_have_their_colours(server, photos):
    fields = {"grid": 24, "format": "png"}
    plain = Image.open(io.BytesIO(succeed(correspondence(server, photos[0], photos[1], **fields)).body))
    verified = Image.open(io.BytesIO(succeed(correspondence(server, photos[0], photos[1], verify="homography", **fields)).body))
    assert plain.size == verified.size
    pixels = numpy.asarray(verified.convert("RGB"))
    assert (pixels == [60, 220, 90]).all(axis=2).sum() > 100


# Masks


PALETTE = [0, 0, 0, 200, 30, 30, 20, 160, 60, 250, 250, 250]


def mask_of(photo: Image.Image, mode: str = "P", labels: tuple[int, ...] = (0, 1)) -> Image.Image:
    """The cup on the coffee photograph: an ellipse of the second label."""
    mask = Image.new(mode, photo.size, labels[0])
    if mode == "P":
        mask.putpalette(PALETTE)
    ImageDraw.Draw(mask).ellipse([170, 60, 450, 330], fill=labels[1])
    return mask


def overlap(one: numpy.ndarray, other: numpy.ndarray) -> float:
    """Intersection over union."""
    return (one & other).sum() / (one | other).sum()


def test_a_mask_is_carried_over_as_the_picture_it_is(server, photos):
    photo, truth = photos[0], tilt(photos[0])
    mask = mask_of(photo)
    reply = succeed(correspondence(server, photo, warped(photo, truth), mask=png(mask), side=512))
    assert reply.headers["Content-Type"] == "image/png"
    carried = Image.open(io.BytesIO(reply.body))
    assert (carried.mode, carried.size) == ("P", photo.size)
    assert carried.getpalette()[:12] == PALETTE
    expected = numpy.asarray(warped(mask.convert("L").convert("RGB"), truth))[..., 0]
    expected = numpy.asarray(warped(Image.fromarray(255 * numpy.asarray(mask)).convert("RGB"), truth))[..., 0] > 200
    assert overlap(numpy.asarray(carried) == 1, expected) >= 0.85


@pytest.mark.parametrize("mode,labels", [("L", (3, 250)), ("1", (0, 1)), ("P", (2, 1))])
def test_numbers_are_kept_in_every_mode(server, photos, mode, labels):
    photo = photos[0]
    reply = succeed(correspondence(server, photo, photo, mask=png(mask_of(photo, mode, labels))))
    carried = Image.open(io.BytesIO(reply.body))
    assert carried.mode == mode
    expected = numpy.asarray(mask_of(photo, mode, labels))
    assert set(numpy.unique(carried)) == set(numpy.unique(expected))
    assert (numpy.asarray(carried) == expected).mean() >= 0.95


def test_labels_as_arrays(server, photos):
    photo, target, other = photos
    mask = png(mask_of(photo, "L", (7, 9)))
    labels = npy(correspondence(server, photo, target, mask=mask, format="npy"))
    assert (labels.shape, labels.dtype) == ((400, 600), numpy.uint8)
    assert set(numpy.unique(labels)) == {7, 9}
    both = tensors(correspondence(server, photo, [target, other], mask=mask, format="safetensors"))
    numpy.testing.assert_array_equal(both["0"], labels)
    assert both["1"].shape == (320, 320)


def test_masks_of_several_targets_are_tensors(server, photos):
    reply = correspondence(server, photos[0], photos[1:], mask=png(mask_of(photos[0])), format="png")
    assert problem(reply, 406) == "not-acceptable"


@pytest.mark.parametrize("mask,status,slug", [
    (lambda photo: png(Image.new("RGB", photo.size)), 415, "unsupported-mask"),
    (lambda photo: png(Image.new("I;16", photo.size)), 415, "unsupported-mask"),
    (lambda photo: png(Image.new("LA", photo.size)), 415, "unsupported-mask"),
    (lambda photo: b"GIF89a", 415, "unsupported-mask"),
    (lambda photo: png(mask_of(photo))[:200], 422, "corrupt-mask"),
    (lambda photo: png(Image.new("L", (photo.width, photo.height - 1))), 422, "mask-size"),
])
def test_what_is_no_mask_is_refused(server, photos, mask, status, slug):
    photo = photos[0]
    assert problem(correspondence(server, photo, photo, mask=mask(photo)), status) == slug


@pytest.mark.parametrize("field,value", [("points", [[1, 1]]), ("grid", 9), ("verify", "homography"), ("top_k", 2)])
def test_a_mask_stands_alone(server, photos, field, value):
    photo = photos[0]
    reply = correspondence(server, photo, photo, mask=png(mask_of(photo)), **{field: value})
    assert problem(reply, 422) == "conflicting-parameters"


# Heatmaps


def test_a_heatmap_is_the_cosine_of_the_features(server, photos):
    source, target = photos[0], photos[2]
    points = [[100, 80], [300.5, 200.25], [599, 399]]
    maps = npy(correspondence(server, source, target, points=points, format="heatmap"))
    form = {"image": png(source), "side": SIDE, "points": points, "format": "npy"}
    descriptors = npy(server.post_form("/features", form))
    features = npy(server.post_form("/features", {"image": png(target), "side": SIDE, "format": "npy"}))
    expected = numpy.einsum("pc,chw->phw", descriptors, features)
    assert maps.dtype == numpy.float32
    numpy.testing.assert_allclose(maps, expected, atol=1e-5)


def test_many_heatmaps_are_streamed(server, photos):
    maps = npy(correspondence(server, photos[0], photos[1], grid=8, layer="res3", format="heatmap"))
    assert maps.shape == (50 * 75, 24, 32) or maps.shape[0] == 50 * 75
    few = npy(correspondence(server, photos[0], photos[1], points=[[3.5, 3.5]], layer="res3", format="heatmap"))
    numpy.testing.assert_allclose(maps[0], few[0], atol=1e-6)


def test_heatmaps_need_points_and_one_target(server, photos):
    assert problem(correspondence(server, photos[0], photos[1], format="heatmap"), 422) == "conflicting-parameters"
    assert problem(correspondence(server, photos[0], photos[1:], grid=64, format="heatmap"), 406) == "not-acceptable"
