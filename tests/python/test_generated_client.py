"""A client that a generator makes of the OpenAPI document, against the running server.

The document is what the server itself answers with, so what is described is what is tried.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from photographs import photograph, png, window
from server_process import ServerProcess

PACKAGE = "densecl_client"
# The generator warns of content types that it has no code for; it must have some for everything else.
NOT_GENERATED = ("image/jpeg", "image/png", "openmetrics-text")


@pytest.fixture(scope="module")
def generated(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the generated package."""
    folder = tmp_path_factory.mktemp("client")
    document, config = folder / "openapi.json", folder / "config.json"
    document.write_bytes(server.get("/openapi.json").body)
    config.write_text(json.dumps({"post_hooks": []}))
    command = [
        sys.executable, "-m", "openapi_python_client", "generate", "--path", document, "--config", config,
        "--meta", "none", "--output-path", folder / PACKAGE,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for warning in (done.stdout + done.stderr).split("WARNING")[1:]:
        assert any(name in warning for name in NOT_GENERATED), warning
    return folder


@pytest.fixture(scope="module")
def package(generated: Path) -> ModuleType:
    sys.path.insert(0, str(generated))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(generated))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture
def client(package: ModuleType, server: ServerProcess):
    return package.Client(base_url=server.url, raise_on_unexpected_status=True)


@pytest.fixture(scope="module")
def photo() -> bytes:
    return png(window(photograph("astronaut.png"), 100, 20, 256, 192))


def values(document) -> numpy.ndarray:
    return numpy.frombuffer(base64.b64decode(document.data), document.dtype).reshape(document.shape)


def test_lists_the_models(client, manifest: dict):
    answer = part("api.models.list_models").sync(client=client)
    [model] = [model for model in answer.models if model.name == manifest["name"]]
    assert model.manifest.additional_properties["layers"] == manifest["layers"]
    one = part("api.models.get_model").sync(manifest["name"], client=client)
    assert one.version == model.version


def test_features_of_a_raw_body(client, server: ServerProcess, photo: bytes):
    image = part("types").File(io.BytesIO(photo))
    document = part("api.features.post_features").sync(client=client, body=image, layer="res4", side=256)
    expected = server.post("/features?layer=res4&side=256&format=npy", photo, "image/png")
    numpy.testing.assert_array_equal(values(document), numpy.load(io.BytesIO(expected.body)))
    assert (document.image_size.width, document.image_size.height) == (256, 192)
    assert document.feature_id == expected.headers["Densecl-Feature-Id"]


def test_features_of_a_form_and_of_json(client, photo: bytes):
    models, post_features = part("models"), part("api.features.post_features")
    form = models.FeaturesForm(image=part("types").File(io.BytesIO(photo), "photo.png", "image/png"))
    of_form = post_features.sync(client=client, body=form, layer="res5", side=128)
    images = models.FeaturesObject(images=[base64.b64encode(photo).decode()] * 2)
    of_json = post_features.sync(client=client, body=images, layer="res5", side=128)
    assert [each.feature_id for each in of_json.images] == [of_form.feature_id] * 2
    numpy.testing.assert_array_equal(values(of_json.images[1]), values(of_form))


def test_correspondences(client, photo: bytes):
    file = lambda: part("types").File(io.BytesIO(photo), "photo.png", "image/png")
    form = part("models").CorrespondenceForm(source=file(), target=file(), points="[[100, 80], [20.5, 30]]", layer="res4")
    answer = part("api.features.post_correspondence").sync(client=client, body=form)
    assert not isinstance(answer, part("models").Problem), answer
    assert [match.source for match in answer.matches] == [[100, 80], [20.5, 30]]
    for match in answer.matches:
        assert numpy.hypot(*numpy.subtract(match.source, match.target)) < 4, match
        assert match.score > 0.99


def test_correspondences_by_ids(client, photo: bytes):
    image = part("types").File(io.BytesIO(photo))
    feature_id = part("api.features.post_features").sync(client=client, body=image).feature_id
    ids = part("models").CorrespondenceObject(source_id=feature_id, target_id=feature_id, points=[[100.0, 80.0]])
    [match] = part("api.features.post_correspondence").sync(client=client, body=ids).matches
    assert numpy.hypot(*numpy.subtract(match.source, match.target)) < 4


def test_a_problem_is_an_object_of_its_own(client):
    image = part("types").File(io.BytesIO(b"no picture"))
    reply = part("api.features.post_features").sync_detailed(client=client, body=image)
    assert reply.status_code == 415
    assert isinstance(reply.parsed, part("models").Problem)
    assert reply.parsed.type_.endswith("unsupported-image")
