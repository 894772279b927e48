"""`tritonclient` from PyPI, unchanged, against the server: what comes out is what onnxruntime computes."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import urllib.request
import zlib
from pathlib import Path
from typing import Iterator

import numpy
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from server_process import Reply, ServerProcess, free_port

# Both run the same kernels; batches and threads change the order of sums in the last bits.
ABSOLUTE, RELATIVE = 1e-5, 1e-4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """Two versions of one model, in a folder of their own."""
    folder = tmp_path_factory.mktemp("repository")
    for version in ("1", "3"):
        (folder / "m" / version).mkdir(parents=True)
        shutil.copy(model_path, folder / "m" / version / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def served(binary: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("served") / "server.log"
    flags = [f"--admin-listen=127.0.0.1:{free_port()}", "--max-side=256", "--max-images=4", "--max-response=4MiB"]
    process = ServerProcess(binary, repository, log, flags)
    process.admin = flags[0].removeprefix("--admin-listen=")
    try:
        yield process
    finally:
        assert process.stop() == 0


@pytest.fixture
def client(served: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.url.removeprefix("http://"), concurrency=8) as client:
        yield client


@pytest.fixture
def admin(served: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.admin) as client:
        yield client


def images(count: int = 2, height: int = 64, width: int = 96, seed: int = 7) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, (count, height, width, 3), numpy.uint8)


def tensor(pixels: numpy.ndarray, binary: bool = True) -> triton.InferInput:
    entry = triton.InferInput("images", pixels.shape, "UINT8")
    entry.set_data_from_numpy(pixels, binary_data=binary)
    return entry


def check(result: triton.InferResult, session, pixels: numpy.ndarray, names: list[str]) -> None:
    """Every output, un-normalised, against Python's own ONNX Runtime."""
    assert [output["name"] for output in result.get_response()["outputs"]] == names
    for name, expected in zip(names, session.run(names, {"images": pixels})):
        found = result.as_numpy(name)
        assert (found.shape, found.dtype) == (expected.shape, numpy.float32)
        numpy.testing.assert_allclose(found, expected, RELATIVE, ABSOLUTE * numpy.abs(expected).max(), err_msg=name)


def refusal(call) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value


def post(served: ServerProcess, path: str, body: bytes, headers: dict[str, str] | None = None) -> Reply:
    return served._send(urllib.request.Request(served.url + path, body, headers or {}))


class TestMetadata:
    def test_of_the_server(self, client):
        assert client.is_server_live() and client.is_server_ready()
        metadata = client.get_server_metadata()
        assert metadata["name"] == "densecl-server"
        assert metadata["extensions"] == ["binary_tensor_data", "model_repository"]

    def test_of_a_model(self, client, manifest):
        metadata = client.get_model_metadata("m")
        assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("m", ["1", "3"], "onnxruntime_onnx")
        assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
        layers = [
            {"name": layer["name"], "datatype": "FP32", "shape": [-1, layer["channels"], -1, -1]}
            for layer in manifest["layers"]
        ]
        vector = {"name": "global", "datatype": "FP32", "shape": [-1, manifest["global"]]}
        assert metadata["outputs"] == [*layers, vector]
        assert client.get_model_metadata("m", "1") == metadata

    def test_of_what_is_not_there(self, client):
        assert client.is_model_ready("m") and client.is_model_ready("m", "3")
        assert not client.is_model_ready("m", "2") and not client.is_model_ready("n")
        error = refusal(lambda: client.get_model_metadata("n"))
        assert (error.status(), error.message()) == ("404", "there is no model `n`; the models are: m")
        assert "no version 2" in refusal(lambda: client.get_model_metadata("m", "2")).message()
        assert refusal(lambda: client.get_model_metadata("m", "x")).status() == "404"


class TestInference:
    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_json_and_binary_are_what_onnxruntime_computes(self, client, session, binary_in, binary_out):
        pixels, names = images(), ["res5", "global", "res3"]
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
        result = client.infer("m", [tensor(pixels, binary_in)], outputs=outputs, request_id="some id")
        check(result, session, pixels, names)
        reply = result.get_response()
        assert (reply["id"], reply["model_name"], reply["model_version"]) == ("some id", "m", "3")

    def test_some_outputs_as_bytes_and_some_as_numbers(self, client, session):
        pixels, names = images(1), ["global", "res4", "res5"]
        outputs = [triton.InferRequestedOutput(name, binary_data=name == "res4") for name in names]
        check(client.infer("m", [tensor(pixels)], outputs=outputs), session, pixels, names)

    def test_all_outputs_unless_some_are_chosen(self, client, session, manifest):
        pixels = images(1, 32, 32)
        names = [layer["name"] for layer in manifest["layers"]] + ["global"]
        check(client.infer("m", [tensor(pixels)]), session, pixels, names)

    def test_a_version(self, client, session):
        pixels = images(1, 32, 32)
        outputs = [triton.InferRequestedOutput("res5")]
        result = client.infer("m", [tensor(pixels)], model_version="1", outputs=outputs)
        assert result.get_response()["model_version"] == "1"
        check(result, session, pixels, ["res5"])
        assert "no version 2" in refusal(lambda: client.infer("m", [tensor(pixels)], model_version="2")).message()

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compressed_on_the_way(self, client, session, algorithm):
        pixels = images()
        outputs = [triton.InferRequestedOutput("res5", binary_data=False)]
        result = client.infer(
            "m",
            [tensor(pixels)],
            outputs=outputs,
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        check(result, session, pixels, ["res5"])

    def test_many_at_once(self, client, session):
        """Of different sizes and with different outputs, so that some share a run and some do not."""
        asked = []
        for index in range(32):
            pixels = images(1 + index % 3, 32 * (1 + index % 2), 64, seed=index)
            names = ["res5"] if index % 4 else ["res4", "dense"]
            outputs = [triton.InferRequestedOutput(name) for name in names]
            asked.append((client.async_infer("m", [tensor(pixels)], outputs=outputs), pixels, names))
        for request, pixels, names in asked:
            check(request.get_result(), session, pixels, names)

    def test_parameters_that_are_not_known_are_ignored(self, client, session):
        pixels = images(1, 32, 32)
        outputs = [triton.InferRequestedOutput("res5")]
        result = client.infer("m", [tensor(pixels)], outputs=outputs, priority=3, timeout=1, parameters={"x": "y"})
        check(result, session, pixels, ["res5"])

    def test_numbers_may_be_nested(self, served, session):
        pixels = images(1, 32, 32)
        entry = {"name": "images", "datatype": "UINT8", "shape": pixels.shape, "data": pixels.tolist()}
        request = {"inputs": [entry], "outputs": [{"name": "res5"}]}
        reply = post(served, "/v2/models/m/infer", json.dumps(request).encode())
        assert reply.status == 200 and reply.headers["Content-Type"] == "application/json"
        (output,) = reply.json()["outputs"]
        expected = session.run(["res5"], {"images": pixels})[0]
        found = numpy.array(output["data"], numpy.float32)
        assert output["shape"] == list(expected.shape) == list(found.shape)
        numpy.testing.assert_allclose(found, expected, RELATIVE, ABSOLUTE * numpy.abs(expected).max())
        for name in ("decode", "queue", "inference", "encode"):
            assert f"{name};dur=" in reply.headers["Server-Timing"]


class TestRefusals:
    @pytest.mark.parametrize(
        "pixels, outputs, status, message",
        [
            (images(1, 33, 64), None, "422", "multiples of 32"),
            (images(1, 32, 288), None, "422", "32 to 256 pixels, not 288"),
            (images(5, 32, 32), None, "422", "at most 4"),
            (images(1, 32, 32)[..., :2].copy(), None, "400", "[N, height, width, 3]"),
            (images(1, 32, 32)[0], None, "400", "[N, height, width, 3]"),
            (images(1, 32, 32), ["res9"], "404", "no layer `res9`"),
            (images(1, 32, 32), ["res5", "res5"], "400", "more than once"),
            (images(4, 256, 256), ["res2"], None, None),
            (images(4, 256, 256), ["res2", "res3"], "413", "at most 4194304"),
        ],
    )
    def test_what_cannot_be_done(self, client, pixels, outputs, status, message):
        outputs = outputs and [triton.InferRequestedOutput(name) for name in outputs]
        ask = lambda: client.infer("m", [tensor(pixels)], outputs=outputs)
        if status is None:
            assert ask().as_numpy("res2").nbytes == 4 << 20, "just within the limit of a reply"
            return
        error = refusal(ask)
        assert error.status() == status and message in error.message(), error

    @pytest.mark.parametrize(
        "request_, message",
        [
            (b"{", "cannot be read"),
            (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [NaN]}]}', "JSON"),
            (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1e30, 1, 1, 3], "data": [1]}]}', "inputs[0].shape[0]"),
            (
                b'{"inputs": [{"name": "images", "datatype": "UINT8",'
                b' "shape": [4294967295, 4294967295, 4294967295, 3], "data": [1]}]}',
                "larger than any memory",
            ),
            (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [9, 9, 9, 3], "data": [1]}]}', "2187"),
            (b'{"inputs": [{"name": "images", "datatype": "UINT8", "data": ' + b"[" * 100_000, "recursion limit"),
        ],
        ids=["half", "nan", "float", "overflow", "lie", "deep"],
    )
    def test_malformed_json(self, served, request_, message):
        reply = post(served, "/v2/models/m/infer", request_)
        problem = reply.json()
        assert reply.status == 400 and reply.headers["Content-Type"] == "application/problem+json"
        assert problem["type"] == "/problems/malformed-inference"
        assert message in problem["error"] == problem["detail"], problem

    @pytest.mark.parametrize("declared, tail", [(3072, 3071), (3072, 3073), (1 << 62, 3072)])
    def test_sizes_that_lie(self, served, declared, tail):
        entry = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
        head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": declared}}]}).encode()
        ask = lambda length: post(
            served, "/v2/models/m/infer", head + bytes(tail), {"Inference-Header-Content-Length": str(length)}
        )
        reply = ask(len(head))
        assert (reply.status, f"{tail} bytes follow" in reply.json()["error"]) == (400, True), reply.body
        for length in (0, 1 << 40, "x", -1):
            assert ask(length).status == 400

    def test_what_the_protocol_has_and_this_server_has_not(self, client):
        pixels = images(1, 32, 32)
        outputs = [triton.InferRequestedOutput("res5", class_count=3)]
        error = refusal(lambda: client.infer("m", [tensor(pixels)], outputs=outputs))
        assert (error.status(), "`classification` is not supported" in error.message()) == ("400", True)
        shared = triton.InferInput("images", pixels.shape, "UINT8")
        shared.set_shared_memory("region", pixels.nbytes)
        assert "shared memory is not supported" in refusal(lambda: client.infer("m", [shared])).message()
        sequence = refusal(lambda: client.infer("m", [tensor(pixels)], sequence_id=3))
        assert "sequence" in sequence.message()

    def test_a_body_that_inflates_to_anything(self, served):
        """100 MiB in 100 kB, where 32 MiB are taken."""
        headers = {"Content-Encoding": "gzip"}
        bomb = gzip.compress(bytes(100 << 20), 6)
        before = served.resident_bytes()
        reply = post(served, "/v2/models/m/infer", bomb, headers)
        assert (reply.status, reply.json()["type"]) == (413, "/problems/body-too-large")
        assert served.resident_bytes() < before + (64 << 20)
        assert post(served, "/v2/models/m/infer", b"no gzip", headers).status == 400
        assert post(served, "/v2/models/m/infer", zlib.compress(b"{}")[:-1], {"Content-Encoding": "deflate"}).status == 400
        assert post(served, "/v2/models/m/infer", b"{}", {"Content-Encoding": "br"}).status == 415

    def test_an_empty_body_and_a_wrong_path(self, served):
        assert post(served, "/v2/models/m/infer", b"").json()["error"] == "the request has no body"
        assert "error" in served.get("/v2/nothing").json()
        assert "error" not in served.get("/nothing").json()
        wrong = served.get("/v2/models/m/infer")
        assert (wrong.status, "GET" in wrong.json()["error"]) == (405, True)


class TestRepository:
    def test_is_for_administrators(self, client, served):
        for call in (
            lambda: client.load_model("m"),
            lambda: client.unload_model("m"),
        ):
            error = refusal(call)
            assert error.status() == "403"
        problem = served.get("/v2/repository/index").json()
        assert problem["status"] == 405, "the method is wrong first"
        problem = post(served, "/v2/repository/models/m/load", b"").json()
        assert "--admin-listen" in problem["hint"]

    def test_everybody_may_read_the_index(self, client, admin):
        index = client.get_model_repository_index()
        assert {"name": "m", "version": "1", "state": "READY", "reason": ""} in index
        assert index == admin.get_model_repository_index()

    def test_the_admin_listener_serves_no_inference(self, admin, served):
        assert refusal(lambda: admin.infer("m", [tensor(images(1, 32, 32))])).status() == "404"
        for path in ("/metrics", "/livez", "/readyz", "/models", "/models/m"):
            with urllib.request.urlopen(f"http://{served.admin}{path}") as reply:
                assert reply.status == 200
        assert admin.is_server_ready() and admin.get_model_metadata("m")["name"] == "m"

    def test_index_load_and_unload(self, client, admin, repository, session):
        entry = lambda version, state, reason="": {"name": "m", "version": version, "state": state, "reason": reason}
        both = [entry("1", "READY"), entry("3", "READY")]
        assert admin.get_model_repository_index() == both

        admin.unload_model("m")
        gone = "it was unloaded on request"
        assert admin.get_model_repository_index() == [entry("1", "UNAVAILABLE", gone), entry("3", "UNAVAILABLE", gone)]
        assert not client.is_model_ready("m")
        error = refusal(lambda: client.infer("m", [tensor(images(1, 32, 32))]))
        assert (error.status(), gone in error.message()) == ("404", True)

        admin.load_model("m")
        assert admin.get_model_repository_index() == both
        pixels = images(1, 32, 32)
        outputs = [triton.InferRequestedOutput("res5")]
        check(client.infer("m", [tensor(pixels)], outputs=outputs), session, pixels, ["res5"])

    def test_a_model_that_cannot_be_loaded(self, client, admin, repository):
        folder = repository / "b" / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"nonsense")
        try:
            error = refusal(lambda: admin.load_model("b"))
            assert error.status() == "422" and "not an ONNX file" in error.message()
            assert str(repository) not in error.message()
            (entry,) = [entry for entry in admin.get_model_repository_index() if entry["name"] == "b"]
            assert (entry["state"], "not an ONNX file" in entry["reason"]) == ("UNAVAILABLE", True)
            assert "not an ONNX file" in refusal(lambda: client.get_model_metadata("b")).message()
        finally:
            shutil.rmtree(folder.parent)
        assert refusal(lambda: admin.load_model("c")).message() == "there is no model `c` in the repository"
        assert refusal(lambda: admin.unload_model("c")).status() == "404"

    def test_models_come_from_the_repository_alone(self, admin):
        error = refusal(lambda: admin.load_model("m", config="{}"))
        assert (error.status(), "`config` is not supported" in error.message()) == ("400", True)
        files = {"file:1/model.onnx": b"anything"}
        error = refusal(lambda: admin.load_model("m", config="{}", files=files))
        assert error.status() == "400"


def test_binary_form_byte_by_byte(served, session):
    """Without a client library: what stands where."""
    pixels = images(1, 32, 32)
    request = {
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": pixels.shape,
                "parameters": {"binary_data_size": pixels.nbytes},
            }
        ],
        "outputs": [{"name": "global"}, {"name": "res5", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    reply = post(served, "/v2/models/m/infer", head + pixels.tobytes(), headers)
    assert reply.status == 200 and reply.headers["Content-Type"] == "application/octet-stream"
    length = int(reply.headers["Inference-Header-Content-Length"])
    vector, layer = json.loads(reply.body[:length])["outputs"]
    assert "data" in vector and "data" not in layer
    values = numpy.prod(layer["shape"])
    assert layer["parameters"]["binary_data_size"] == 4 * values == len(reply.body) - length
    expected = session.run(["res5"], {"images": pixels})[0]
    found = struct.unpack(f"<{values}f", reply.body[length:])
    numpy.testing.assert_allclose(found, expected.ravel(), RELATIVE, ABSOLUTE * numpy.abs(expected).max())
