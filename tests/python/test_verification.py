"""POST /correspondence with `verify`: no matrix where many would fit, and scores that are cosines."""

from __future__ import annotations

import io
import json

import numpy
import pytest
import safetensors.numpy
from PIL import Image

from conftest import ZOO
from photographs import photograph, png, window
from server_process import ServerProcess

REASONS = {"too_few_matches", "no_consensus", "degenerate"}
LINE = [[20 * i, 40 + 10 * i] for i in range(1, 13)]
PLACES = [[25, 30], [250, 40], [150, 170], [50, 50], [280, 120], [100, 140], [200, 90]]


def photo() -> Image.Image:
    return window(photograph("astronaut.png"), 100, 20, 300, 200)


def twice_as_large(image: Image.Image) -> Image.Image:
    return image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC)


def blank(level: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def correspond(server: ServerProcess, source: Image.Image, target: Image.Image, **fields):
    reply = server.post_form("/correspondence", {"source": png(source), "target": png(target), **fields})
    assert reply.status == 200, reply.body
    return reply


def verification(server: ServerProcess, source: Image.Image, target: Image.Image, **fields) -> dict:
    """The verification, whose parts agree with one another."""
    document = correspond(server, source, target, **fields).json()
    found = document["verification"]
    inliers = [match["inlier"] for match in document["matches"]]
    assert found["inliers"] == sum(inliers)
    if found["matrix"] is None:
        assert found["reason"] in REASONS and not any(inliers)
    else:
        assert "reason" not in found and numpy.isfinite(found["matrix"]).all()
    return found


@pytest.mark.parametrize("name, points", [
    ("a line and one point", [*LINE, [250, 25]]),
    ("a line and two points", [*LINE, [250, 25], [30, 180]]),
    ("a line", LINE),
    ("seven places three times", 3 * PLACES),
    ("one place", 20 * [[150, 100]]),
])
@pytest.mark.parametrize("layer", ["res3", "res4", "res5", "res3+res4+res5"])
def test_few_places_and_lines_determine_no_fundamental_matrix(server, name, points, layer):
    for target in (twice_as_large(photo()), photo()):
        found = verification(server, photo(), target, points=points, layer=layer, verify="fundamental")
        assert found["matrix"] is None, name


@pytest.mark.parametrize("name, points", [
    ("a line and one point", [*LINE, [250, 25]]),
    ("three places five times", 5 * PLACES[:3]),
    ("one place", 20 * [[150, 100]]),
])
def test_few_places_and_lines_determine_no_homography(server, name, points):
    found = verification(server, photo(), twice_as_large(photo()), points=points, layer="res3", verify="homography")
    assert found["matrix"] is None, name


@pytest.mark.parametrize("queries", [{"grid": 24}, {"grid": 12}, {}], ids=str)
@pytest.mark.parametrize("layer", ["res2", "res3", "res4", "res5"])
def test_blank_pictures_determine_no_fundamental_matrix(server, layer, queries):
    pictures = {"black": blank(0), "white": blank(255), "grey": blank(128, (300, 200)), "small": blank(90, (64, 64)), "photo": photo()}
    pairs = [("black", "photo"), ("photo", "black"), ("black", "white"), ("grey", "photo"), ("photo", "grey"), ("small", "photo")]
    found = {}
    for source, target in pairs:
        fields = {"layer": layer, "side": 256, "verify": "fundamental", **queries}
        found[source, target] = verification(server, pictures[source], pictures[target], **fields)
    wrong = {pair: it["inliers"] for pair, it in found.items() if it["matrix"] is not None}
    assert not wrong, wrong


def test_a_photograph_determines_what_it_should(server):
    """A plane has a homography and, for that reason, no fundamental matrix; two views of a room have that."""
    turned = twice_as_large(photo())
    assert verification(server, photo(), turned, grid=12, verify="homography")["matrix"] is not None
    assert verification(server, photo(), turned, grid=12, verify="fundamental")["reason"] == "degenerate"
    left, right = (photograph(f"motorcycle_{side}.png") for side in ("left", "right"))
    found = verification(server, left, right, grid=16, mutual="true", verify="fundamental")
    # The cameras stand side by side: epipolar lines are the rows.
    matrix = numpy.array(found["matrix"])
    assert found["inliers"] > 300 and abs(matrix[2, 1] + matrix[1, 2]) < 0.05 * numpy.abs(matrix).max()


def test_safetensors_say_why_there_is_no_matrix(server):
    fields = {"grid": 24, "verify": "fundamental", "format": "safetensors"}
    reply = correspond(server, blank(0), photo(), **fields)
    metadata = json.loads(reply.body[8 : 8 + int.from_bytes(reply.body[:8], "little")])["__metadata__"]
    tensors = safetensors.numpy.load(reply.body)
    assert metadata == {"0.reason": "degenerate"}
    assert "0.matrix" not in tensors and not tensors["0.inlier"].any()
    found = safetensors.numpy.load(correspond(server, photo(), twice_as_large(photo()), **{**fields, "verify": "homography"}).body)
    assert found["0.matrix"].shape == (3, 3) and found["0.inlier"].any()


class TestScores:
    """Cosines, so that an `arccos` of them is a number."""

    @pytest.fixture(scope="class", params=["float32", "float16"])
    def computing(self, request, binary, tmp_path_factory):
        log = tmp_path_factory.mktemp("scores") / "server.log"
        server = ServerProcess(binary, ZOO, log, [f"--precision={request.param}"])
        yield server
        assert server.stop() == 0

    @pytest.mark.parametrize("refine", ["softargmax", "none"])
    @pytest.mark.parametrize("layer", ["res2", "res5", "res3+res4+res5"])
    def test_are_within_one(self, computing, layer, refine):
        for picture in (photo(), blank(0)):
            fields = {"layer": layer, "side": 128, "refine": refine}
            document = correspond(computing, picture, picture, top_k=3, **fields).json()
            candidates = [it["score"] for match in document["matches"] for it in match["candidates"]]
            scores = numpy.array(candidates + [match["score"] for match in document["matches"]])
            table = numpy.load(io.BytesIO(correspond(computing, picture, picture, format="npy", **fields).body))
            tensors = safetensors.numpy.load(correspond(computing, picture, picture, format="safetensors", **fields).body)
            heatmap = {"format": "heatmap", "points": [[9, 9], [100.5, 77]], "layer": layer, "side": 128}
            maps = numpy.load(io.BytesIO(correspond(computing, picture, picture, **heatmap).body))
            for values in (scores, table[:, 4], tensors["0"][:, 4], maps):
                assert len(values) and numpy.abs(values).max() <= 1
                assert numpy.isfinite(numpy.arccos(values)).all()
