"""One vector for each picture: pooled layers and `global`, over HTTP, on the command line and by the Open Inference
Protocol, against NumPy on the maps that the server itself gives."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Iterator

import numpy
import onnx
import pytest
import safetensors.numpy
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from conftest import ZOO
from photographs import folder, photograph, png, window
from server_process import Reply, ServerProcess
from small_models import manifest as small_manifest
from small_models import put, small_model
from test_cache import problem, runs

SIDE = 192
POOLS = ("mean", "max", "gem")
STACK = "res3+res5"
# Of a vector of length 1, or of the largest value of one that is not.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Neither a square nor of the size that the network sees."""
    return window(photograph("astronaut.png"), 40, 20, 300, 200)


@pytest.fixture(scope="module")
def images(image) -> list[Image.Image]:
    """Pictures of different sizes, upright and lying."""
    return [image, image.crop((0, 0, 120, 190)), window(photograph("coffee.png"), 100, 60, 333, 222)]


def post_json(server: ServerProcess, **fields) -> Reply:
    return server.post("/features", json.dumps(fields).encode(), "application/json")


def ask(server: ServerProcess, *pictures: Image.Image, **parameters) -> Reply:
    """A reply of status 200."""
    encoded = [base64.b64encode(png(picture)).decode() for picture in pictures]
    reply = post_json(server, images=encoded, **{"side": SIDE, **parameters})
    assert reply.status == 200, reply.body
    return reply


def array(reply: Reply) -> numpy.ndarray:
    return numpy.load(io.BytesIO(reply.body))


def pooled(feature_map: numpy.ndarray, pool: str) -> numpy.ndarray:
    """The definition, in float64: `[C, h, w]` to `[C]`."""
    cells = feature_map.astype(numpy.float64).reshape(len(feature_map), -1)
    if pool == "gem":
        return (numpy.maximum(cells, 1e-6) ** 3).mean(axis=1) ** (1 / 3)
    return cells.mean(axis=1) if pool == "mean" else cells.max(axis=1)


def unit(vector: numpy.ndarray) -> numpy.ndarray:
    return vector / numpy.linalg.norm(vector, axis=-1, keepdims=True)


def check(served: numpy.ndarray, expected: numpy.ndarray, tolerance: float = TOLERANCE) -> None:
    assert served.shape == expected.shape
    assert numpy.abs(served - expected).max() <= tolerance * numpy.abs(expected).max()


@pytest.fixture(scope="module")
def layers(manifest) -> list[str]:
    return [layer["name"] for layer in manifest["layers"]] + [STACK]


class TestPooling:
    @pytest.mark.parametrize("pool", POOLS)
    def test_every_layer_and_a_stack(self, server, image, layers, pool):
        for layer in layers:
            feature_map = array(ask(server, image, layer=layer, normalize="none", format="npy"))
            expected = pooled(feature_map, pool)
            raw = ask(server, image, layer=layer, pool=pool, normalize="none", format="npy")
            check(array(raw), expected)
            reply = ask(server, image, layer=layer, pool=pool, format="npy")
            check(array(reply), unit(expected))
            assert array(reply).dtype == numpy.float32
            assert reply.headers["Densecl-Shape"] == str(len(feature_map))
            assert reply.headers["Densecl-Layer"] == layer
            assert reply.headers["Densecl-Image-Size"] == f"{image.width}x{image.height}"

    @pytest.mark.parametrize("pool", POOLS)
    def test_within_a_crop(self, server, image, pool):
        x, y, w, h = 33, 70, 121, 55
        cells = array(ask(server, image, layer="res3", normalize="none", crop=f"{x},{y},{w},{h}", format="npy"))
        whole = array(ask(server, image, layer="res3", normalize="none", format="npy"))
        assert cells.size < whole.size / 4
        vector = array(ask(server, image, layer="res3", pool=pool, crop=f"{x},{y},{w},{h}", format="npy"))
        check(vector, unit(pooled(cells, pool)))
        between = post_json(server, images=[base64.b64encode(png(image)).decode()], side=SIDE, layer="res5", pool=pool,
                            crop="0,0,2,2")
        assert problem(between, 422)[0] == "crop-without-cells"

    def test_in_every_format_and_type(self, server, image):
        expected = array(ask(server, image, layer="res4", pool="gem", format="npy"))
        half = array(ask(server, image, layer="res4", pool="gem", dtype="float16", format="npy"))
        assert half.dtype == numpy.float16
        numpy.testing.assert_array_equal(half, expected.astype(numpy.float16))
        raw = ask(server, image, layer="res4", pool="gem", format="raw").body
        numpy.testing.assert_array_equal(numpy.frombuffer(raw, "<f4"), expected)

        document = ask(server, image, layer="res4", pool="gem").json()
        assert (document["shape"], document["pool"], document["layer"]) == ([len(expected)], "gem", "res4")
        assert not {"layout", "cell_origin", "cell_scale"} & set(document)
        numpy.testing.assert_array_equal(numpy.frombuffer(base64.b64decode(document["data"]), "<f4"), expected)
        document = ask(server, image, layer="res4", pool="gem", encoding="array").json()
        numpy.testing.assert_array_equal(numpy.float32(document["data"]), expected)

        reply = ask(server, image, layer="res4", pool="gem", format="safetensors")
        numpy.testing.assert_array_equal(safetensors.numpy.load(reply.body)["features"], expected)
        metadata = json.loads(reply.body[8 : 8 + int.from_bytes(reply.body[:8], "little")])["__metadata__"]
        assert (metadata["pool"], metadata["feature_id"]) == ("gem", reply.headers["Densecl-Feature-Id"])
        assert "layout" not in metadata

    def test_of_several_pictures(self, server, images):
        parameters = {"layer": STACK, "pool": "gem"}
        alone = [ask(server, picture, format="npy", **parameters) for picture in images]
        expected = numpy.stack([array(reply) for reply in alone])
        reply = ask(server, *images, format="npy", **parameters)
        check(array(reply), expected, 1e-5)
        assert reply.headers["Densecl-Shape"] == ",".join(map(str, expected.shape))
        assert "Densecl-Feature-Id" not in reply.headers
        # In every form the same numbers, which are in the cache now.
        expected = array(ask(server, *images, format="npy", **parameters))
        raw = ask(server, *images, format="raw", **parameters).body
        numpy.testing.assert_array_equal(numpy.frombuffer(raw, "<f4").reshape(expected.shape), expected)
        half = array(ask(server, *images, format="npy", dtype="float16", **parameters))
        numpy.testing.assert_array_equal(half, expected.astype(numpy.float16))

        ids = [reply.headers["Densecl-Feature-Id"] for reply in alone]
        sizes = [{"width": picture.width, "height": picture.height} for picture in images]
        for encoding in ("base64", "array"):
            document = ask(server, *images, encoding=encoding, **parameters).json()
            assert document["shape"] == list(expected.shape) and document["pool"] == "gem"
            assert document["images"] == [{"image_size": size, "feature_id": it} for size, it in zip(sizes, ids)]
            data = document["data"]
            values = numpy.float32(data) if encoding == "array" else numpy.frombuffer(base64.b64decode(data), "<f4")
            numpy.testing.assert_array_equal(values.reshape(expected.shape), expected)

        reply = ask(server, *images, format="safetensors", **parameters)
        numpy.testing.assert_array_equal(safetensors.numpy.load(reply.body)["features"], expected)
        metadata = json.loads(reply.body[8 : 8 + int.from_bytes(reply.body[:8], "little")])["__metadata__"]
        assert [metadata[f"{index}.feature_id"] for index in range(len(images))] == ids
        assert metadata["1.image_size"] == f"{images[1].width}x{images[1].height}"

        form = server.post_form("/features", {"image": list(map(png, images)), "side": SIDE, "format": "npy", **parameters})
        numpy.testing.assert_array_equal(array(form), expected)

    @pytest.mark.parametrize("other", [
        {"points": [[1, 2]]}, {"resolution": "pixel"}, {"resolution": "9x9"}, {"components": 3}, {"format": "png"},
    ])
    @pytest.mark.parametrize("vector", [{"pool": "mean"}, {"layer": "global"}])
    def test_with_what_is_about_maps_is_refused(self, server, image, vector, other):
        reply = post_json(server, images=[base64.b64encode(png(image)).decode()], **vector, **other)
        kind, detail = problem(reply, 422)
        assert kind == "conflicting-parameters"
        assert next(iter(vector)) in detail and (other.get("format") or next(iter(other))) in detail

    def test_is_one_of_three(self, server, image):
        reply = post_json(server, images=[base64.b64encode(png(image)).decode()], pool="avg")
        kind, detail = problem(reply, 400)
        assert kind == "malformed-parameter" and "`gem`" in detail
        assert ask(server, image, pool="max", resolution="grid", format="npy").status == 200

    def test_follows_accept(self, server, image):
        def status(accept: str) -> int:
            request = urllib.request.Request(f"{server.url}/features?pool=gem&side={SIDE}", png(image), {"Accept": accept})
            return server._send(request).status

        assert [status(it) for it in ("application/x-npy", "image/png", "image/png, application/json;q=0.1")] == [200, 406, 200]


class TestGlobal:
    """The vector that the model itself computes."""

    def test_is_the_models_own(self, server, session, manifest):
        picture = window(photograph("astronaut.png"), 64, 0, 256, 256)  # Nothing is resized on the way.
        expected = session.run(["global"], {"images": numpy.asarray(picture)[None]})[0][0]
        raw = ask(server, picture, layer="global", side=256, normalize="none", format="npy")
        check(array(raw), expected, 1e-4)
        reply = ask(server, picture, layer="global", side=256)
        document = reply.json()
        assert (document["shape"], document["layer"]) == ([manifest["global"]], "global")
        assert "pool" not in document and reply.headers["Densecl-Layer"] == "global"
        check(numpy.frombuffer(base64.b64decode(document["data"]), "<f4"), unit(expected), 1e-4)

    def test_of_several_pictures(self, server, images, manifest):
        alone = numpy.stack([array(ask(server, picture, layer="global", format="npy")) for picture in images])
        assert alone.shape == (len(images), manifest["global"])
        check(array(ask(server, *images, layer="global", format="npy")), alone, 1e-4)
        check(numpy.linalg.norm(alone, axis=1), numpy.ones(len(images)))

    @pytest.mark.parametrize("other, word", [({"pool": "gem"}, "`pool`"), ({"crop": "0,0,50,50"}, "`crop`")])
    def test_is_not_pooled_or_cropped(self, server, image, other, word):
        reply = post_json(server, images=[base64.b64encode(png(image)).decode()], layer="global", **other)
        kind, detail = problem(reply, 422)
        assert kind == "conflicting-parameters" and word in detail

    def test_is_not_stacked_or_matched(self, server, image):
        encoded = base64.b64encode(png(image)).decode()
        for layer in ("res5+global", "global+res5", "global+global"):
            kind, detail = problem(post_json(server, images=[encoded], layer=layer), 422)
            assert kind == "conflicting-parameters" and "stacks `global`" in detail
        body = {"source": encoded, "target": encoded, "layer": "global"}
        kind, detail = problem(server.post("/correspondence", json.dumps(body).encode(), "application/json"), 422)
        assert kind == "conflicting-parameters" and "`global`" in detail
        identity = ask(server, image, layer="global").headers["Densecl-Feature-Id"]
        body = {"source_id": identity, "target_id": identity}
        kind, detail = problem(server.post("/correspondence", json.dumps(body).encode(), "application/json"), 422)
        assert kind == "conflicting-parameters" and "`global`" in detail

    def test_is_offered_where_a_layer_is_not_known(self, server, image):
        reply = post_json(server, images=[base64.b64encode(png(image)).decode()], layer="res9")
        assert problem(reply, 404)[1].endswith("dense, global")


class TestModelsWithout:
    """A model that has no `global`, and another that has."""

    @pytest.fixture(scope="class")
    def served(self, binary: Path, tmp_path_factory) -> Iterator[ServerProcess]:
        models = tmp_path_factory.mktemp("models")
        put(models / "with" / "1" / "model.onnx", small_model(1))
        without = onnx.load_from_string(small_model(2))
        del without.graph.node[-2:], without.graph.output[-1:]
        without.metadata_props[0].value = json.dumps({key: value for key, value in small_manifest("m").items() if key != "global"})
        put(models / "without" / "1" / "model.onnx", without.SerializeToString())
        server = ServerProcess(binary, models, models / "server.log", ["--warm-up=global,res4"])
        yield server
        assert server.stop() == 0

    def test_say_so(self, served, image):
        encoded = base64.b64encode(png(image)).decode()
        assert problem(post_json(served, images=[encoded], model="without", layer="global"), 404)[0] == "unknown-layer"
        assert ask(served, image, model="with", layer="global").json()["shape"] == [20]
        assert ask(served, image, model="without", pool="gem").json()["shape"] == [20]


class TestCache:
    def test_pools_what_it_keeps(self, server):
        picture = Image.fromarray(numpy.random.default_rng(41).integers(0, 256, (40, 60, 3), numpy.uint8))
        before = runs(server)
        first = ask(server, picture, layer="res5", pool="gem")
        again = [ask(server, picture, layer="res5", **it) for it in ({"pool": "gem"}, {"pool": "max", "crop": "0,0,60,40"}, {})]
        assert runs(server) == before + 1
        ids = {reply.headers["Densecl-Feature-Id"] for reply in [first, *again]}
        assert len(ids) == 1, "that of the map, whatever is made of it"
        body = json.dumps({"source_id": [*ids][0], "target_id": [*ids][0], "points": [[3, 4]]}).encode()
        assert server.post("/correspondence", body, "application/json").status == 200
        vector = ask(server, picture, layer="global")
        assert vector.headers["Densecl-Feature-Id"] not in ids and runs(server) == before + 2
        assert ask(server, picture, layer="global", normalize="none").status == 200 and runs(server) == before + 2

    def test_does_not_change_the_numbers(self, binary, server, image, tmp_path):
        uncached = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--cache-bytes=0"])
        try:
            for parameters in ({"layer": STACK, "pool": "gem"}, {"layer": "global"}):
                replies = [array(ask(one, image, format="npy", **parameters)) for one in (server, server, uncached)]
                numpy.testing.assert_array_equal(replies[0], replies[1])
                check(replies[2], replies[0], 1e-5)
        finally:
            assert uncached.stop() == 0


def test_memory_of_what_is_pooled_is_reserved(binary, image, tmp_path):
    """The reply is small; what it is pooled from is not."""
    small = ServerProcess(binary, ZOO, tmp_path / "server.log", ["--max-memory=8MiB", "--cache-bytes=0"])
    encoded = base64.b64encode(png(image)).decode()
    try:
        assert problem(post_json(small, images=[encoded], layer="res2", side=1024, pool="gem"), 413)[0] == "too-much-memory"
        assert post_json(small, images=[encoded], layer="res5", side=256, pool="gem").status == 200
        assert post_json(small, images=[encoded], layer="global", side=256).status == 200
    finally:
        assert small.stop() == 0


class TestCommandLine:
    def run(self, binary: Path, out: Path, *arguments) -> numpy.ndarray:
        command = [binary, "features", "--models", ZOO, "--device=cpu", "--out", out, "--format=npy", f"--set=side={SIDE}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return numpy.load(out)

    def test_pools_as_the_server_does(self, binary, server, images, tmp_path):
        files = []
        for index, picture in enumerate(images):
            files.append(tmp_path / f"{index}.png")
            picture.save(files[-1])
        out = tmp_path / "out.npy"
        one = self.run(binary, out, files[0], "--pool=gem", "--set=layer=res4")
        check(one, array(ask(server, images[0], layer="res4", pool="gem", format="npy")), 1e-5)
        several = self.run(binary, out, *files, "--pool=mean", "--set=layer=res4", "--set=normalize=none")
        check(several, array(ask(server, *images, layer="res4", pool="mean", normalize="none", format="npy")), 1e-5)
        vectors = self.run(binary, out, *files, "--set=layer=global")
        check(vectors, array(ask(server, *images, layer="global", format="npy")), 1e-4)

    def test_takes_more_pictures_than_run_together(self, binary, tmp_path):
        pixels = numpy.random.default_rng(3).integers(0, 256, (100, 32, 32, 3), numpy.uint8)
        files = [tmp_path / f"{index}.png" for index in range(len(pixels))]
        for file, picture in zip(files, pixels):
            Image.fromarray(picture).save(file)
        vectors = self.run(binary, tmp_path / "out.npy", *files, "--pool=max", "--set=layer=res2")
        assert vectors.shape[0] == 100
        last = self.run(binary, tmp_path / "last.npy", files[-1], "--pool=max", "--set=layer=res2")
        check(vectors[-1], last, 1e-5)


class TestOpenInference:
    PIXELS = numpy.random.default_rng(7).integers(0, 256, (3, 64, 96, 3), numpy.uint8)

    @pytest.fixture
    def client(self, server) -> Iterator[triton.InferenceServerClient]:
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            yield client

    def infer(self, client, manifest, names, binary: bool = True, **parameters) -> dict[str, numpy.ndarray]:
        images = triton.InferInput("images", self.PIXELS.shape, "UINT8")
        images.set_data_from_numpy(self.PIXELS)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names] if names else None
        result = client.infer(manifest["name"], [images], outputs=outputs, parameters=parameters)
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}

    @pytest.mark.parametrize("pool", POOLS)
    @pytest.mark.parametrize("is_binary", [True, False])
    def test_pools_every_layer(self, client, session, manifest, pool, is_binary):
        names = [layer["name"] for layer in manifest["layers"]] + ["global"]
        maps = dict(zip(names, session.run(names, {"images": self.PIXELS})))
        expected = {name: numpy.stack([pooled(it, pool) for it in maps[name]]) for name in names[:-1]}
        expected["global"] = maps["global"]
        found = self.infer(client, manifest, None if is_binary else names, is_binary, pool=pool)
        assert list(found) == names
        normalized = self.infer(client, manifest, names, is_binary, pool=pool, normalize="l2")
        for name in names:
            check(found[name], expected[name], 1e-4)
            check(normalized[name], unit(expected[name]), 1e-4)

    def test_pools_one_output(self, server, session, manifest):
        outputs = [{"name": "res5", "parameters": {"pool": "max"}}, {"name": "res4"}]
        image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 64, 3], "data": self.PIXELS[0, :32, :64].ravel().tolist()}
        body = json.dumps({"inputs": [image], "outputs": outputs}).encode()
        reply = server.post(f"/v2/models/{manifest['name']}/infer", body, "application/json").json()
        channels = {layer["name"]: layer["channels"] for layer in manifest["layers"]}
        assert [it["shape"] for it in reply["outputs"]] == [[1, channels["res5"]], [1, channels["res4"], 2, 4]]
        expected = session.run(["res5"], {"images": self.PIXELS[:1, :32, :64]})[0][0]
        check(numpy.float32(reply["outputs"][0]["data"])[0], pooled(expected, "max"), 1e-4)

    @pytest.mark.parametrize("parameters, names, text", [
        ({"pool": "avg"}, ["res5"], "`avg` is not mean, max or gem"),
        ({"normalize": "l2"}, ["res5"], "`normalize` is for vectors"),
        ({"normalize": "l1"}, ["global"], "parameters.normalize"),
    ])
    def test_says_what_is_wrong(self, client, manifest, parameters, names, text):
        with pytest.raises(InferenceServerException, match=text):
            self.infer(client, manifest, names, **parameters)


def photographs() -> dict[str, Image.Image]:
    """All photographs that scikit-image ships, and scikit-learn's if it is there. Of the stereo pair only one picture: its
    two are one scene."""
    files = [it for it in folder().iterdir() if it.suffix in (".png", ".jpg") and not it.name.startswith("motorcycle_right")]
    learn = importlib.util.find_spec("sklearn")
    if learn is not None and learn.submodule_search_locations:
        files += (Path(learn.submodule_search_locations[0]) / "datasets" / "images").glob("*.jpg")
    # Drawings, texts and patterns are no photographs.
    drawn = {"chessboard_GRAY", "chessboard_RGB", "color", "horse", "logo", "page", "phantom", "text"}
    return {it.stem: Image.open(it).convert("RGB") for it in sorted(files) if it.stem not in drawn}


@pytest.mark.parametrize("parameters", [{"layer": "res5", "pool": "gem"}, {"pool": "mean"}, {"pool": "max"}, {"layer": "global"}],
                         ids=lambda it: "-".join(it.values()))
def test_a_cropped_photograph_is_nearest_to_itself(server, parameters):
    """What retrieval needs: of all photographs, the one that a slightly smaller picture was cut from."""
    known = photographs()
    assert len(known) >= 16
    cut = {name: it.crop((it.width // 25, it.height // 25, it.width - it.width // 25, it.height - it.height // 25))
           for name, it in known.items()}
    index, queries = (array(ask(server, *it.values(), side=256, format="npy", **parameters)) for it in (known, cut))
    similarities = queries @ index.T
    nearest = similarities.argmax(axis=1)
    wrong = [(name, list(known)[at]) for name, at, own in zip(known, nearest, range(len(known))) if at != own]
    assert not wrong, wrong
    assert numpy.abs(similarities).max() <= 1 + 1e-5
