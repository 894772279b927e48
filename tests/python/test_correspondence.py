"""POST /correspondence on photographs whose true correspondences are known."""

from __future__ import annotations

import io

import numpy
import pytest
from PIL import Image

from photographs import folder, is_inside, photograph, png, turn_points, turned_and_brightened, window


def find_matches(server, source: Image.Image, target: Image.Image, **fields) -> list[dict]:
    reply = server.post_form("/correspondence", {"source": png(source), "target": png(target), **fields})
    assert reply.status == 200, reply.body
    return reply.json()["matches"]


def ends(matches: list[dict]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Sources and targets, `[M, 2]` each."""
    return tuple(numpy.array([match[end] for match in matches]) for end in ("source", "target"))


def distances(one: numpy.ndarray, other: numpy.ndarray) -> numpy.ndarray:
    return numpy.linalg.norm(one - other, axis=1)


# Not the astronaut: the black below her is black in several cells of res2, and equal cells tie.
@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png", "motorcycle_left.png"])
@pytest.mark.parametrize("refine", ["none", "softargmax"])
def test_a_photograph_against_itself(server, manifest, name, refine):
    photo = photograph(name)
    for layer in manifest["layers"]:
        matches = find_matches(server, photo, photo, layer=layer["name"], refine=refine, side=256)
        sources, targets = ends(matches)
        assert all(match["mutual"] for match in matches)
        assert max(abs(match["score"] - 1) for match in matches) <= 1e-3
        assert distances(sources, targets).max() <= 0.5, layer["name"]


def test_a_photograph_shifted_by_whole_cells(server, manifest):
    """Two windows of one photograph, 64 px apart: a multiple of every stride."""
    shift, side = 64, 384
    photo = photograph("astronaut.png")
    source, target = window(photo, 0, 64, side, side), window(photo, shift, 64, side, side)
    layer = next(layer for layer in manifest["layers"] if layer["name"] == "res4")
    matches = find_matches(server, source, target, layer="res4", side=side)
    sources, targets = ends(matches)
    truth = sources - [shift, 0]
    # What lies near an edge sees padding in one window and picture in the other.
    interior = is_inside(truth, target, 64) & is_inside(sources, source, 64)
    assert interior.sum() >= 100
    near = distances(truth, targets)[interior] <= layer["stride"]
    assert near.mean() >= 0.95, near.mean()


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png"])
def test_a_photograph_against_its_turned_and_brightened_copy(server, name):
    degrees = 15
    photo = photograph(name)
    copy = turned_and_brightened(photo, degrees, 1.2)
    sources, targets = ends(find_matches(server, photo, copy, layer="res3+res4", grid=24, mutual=True))
    truth = turn_points(sources, photo, degrees)
    inside = is_inside(truth, copy, 0)
    correct = distances(truth, targets)[inside] <= 0.05 * max(photo.size)
    assert inside.sum() >= 30
    assert correct.mean() >= 0.8, correct.mean()


def test_a_stereo_pair(server):
    """Two photographs of one scene, with the disparity that a scanner measured."""
    left, right = photograph("motorcycle_left.png"), photograph("motorcycle_right.png")
    disparity = numpy.load(folder() / "motorcycle_disp.npz")["arr_0"]
    sources, targets = ends(find_matches(server, left, right, layer="res4", grid=16, mutual=True))
    columns, rows = numpy.round(sources).astype(int).T
    truth = sources - numpy.stack([disparity[rows, columns], numpy.zeros(len(rows))], axis=1)
    known = numpy.isfinite(truth).all(axis=1) & is_inside(numpy.nan_to_num(truth, posinf=-1, neginf=-1), right, 0)
    correct = distances(truth[known], targets[known]) <= 0.05 * max(left.size)
    assert known.sum() >= 100
    assert correct.mean() >= 0.8, correct.mean()


def test_points_and_formats_agree(server):
    photo = photograph("coffee.png")
    copy = turned_and_brightened(photo, 10, 1.1)
    points = [[100, 80], [300.5, 200.25], [599, 399]]
    matches = find_matches(server, photo, copy, points=points)
    sources, targets = ends(matches)
    numpy.testing.assert_allclose(sources, points)
    reply = server.post_form("/correspondence", {
        "source": png(photo), "target": png(copy), "points": points, "format": "npy"})
    array = numpy.load(io.BytesIO(reply.body))
    assert (array.shape, array.dtype) == ((3, 5), numpy.float32)
    scores = numpy.array([match["score"] for match in matches])
    numpy.testing.assert_allclose(array, numpy.column_stack([sources, targets, scores]), rtol=1e-5, atol=1e-3)


def test_matches_are_drawn_as_a_picture(server):
    photo = photograph("chelsea.png")
    copy = turned_and_brightened(photo, 10, 1.1)
    reply = server.post_form("/correspondence", {
        "source": png(photo), "target": png(copy), "grid": 48, "mutual": True, "format": "png"})
    picture = Image.open(io.BytesIO(reply.body))
    assert picture.format == "PNG"
    assert picture.width >= photo.width + copy.width and picture.height >= photo.height


def test_min_score_keeps_only_good_matches(server):
    photo, other = photograph("chelsea.png"), photograph("coffee.png")
    everything = find_matches(server, photo, other, grid=32)
    threshold = float(numpy.median([match["score"] for match in everything]))
    kept = find_matches(server, photo, other, grid=32, min_score=threshold)
    assert 0 < len(kept) < len(everything)
    assert all(match["score"] >= threshold for match in kept)
