"""The requests of the soak, each with the check of its answer."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from dataclasses import dataclass

import numpy
from PIL import Image

import truth
from models import LAYERS
from raw_http import RawConnection, RawReply, post
from truth import Truth

WIDTH, HEIGHT = 96, 64  # Multiples of 32, asked for at their own size: nothing is resized.
QUERY = f"side={WIDTH}"
HOT_PICTURES = 12
POINTS = 40


class Wrong(Exception):
    """An answer that is not the right one."""


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


@dataclass(frozen=True)
class Picture:
    """Pixels `[H, W, 3]` and the file that holds them without loss."""

    pixels: numpy.ndarray
    file: bytes


def picture(generator: numpy.random.Generator) -> Picture:
    """Coarse noise under fine noise, so that cells differ but resemble their neighbours."""
    coarse = generator.integers(0, 200, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    pixels = (coarse + generator.integers(0, 56, (HEIGHT, WIDTH, 3))).astype(numpy.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return Picture(pixels, buffer.getvalue())


@dataclass(frozen=True)
class Expected:
    """A model that is asked for, and since when the answer may come from."""

    truth: Truth
    name: str
    since: float

    def check(self, reply: RawReply, is_right) -> None:
        """Whether the reply is that of some file that may have answered; `is_right` gets its session."""
        expect(reply.status == 200, f"status {reply.status}: {reply.body[:300]!r}")
        name, _, version = reply.headers["densecl-model"].rpartition("/")
        expect(name == self.name, f"{name} answered for {self.name}")
        self.check_version(int(version), is_right)

    def check_version(self, version: int, is_right) -> None:
        candidates = self.truth.candidates(self.name, version, self.since)
        expect(bool(candidates), f"{self.name}/{version} answered, which is not served")
        expect(any(is_right(session) for session in candidates), f"{self.name}/{version} answered with other numbers")


class Client:
    """One client with a connection of its own and pictures of its own; every method is a request and its check."""

    def __init__(self, port: int, truth: Truth, hot: list[Picture], seed: int):
        self.port, self.truth, self.hot = port, truth, hot
        self.random, self.generator = random.Random(seed), numpy.random.default_rng(seed)
        self.connection = RawConnection(port)
        self.notes: dict[str, int] = {}

    def note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def exchange(self, request: bytes) -> RawReply:
        self.connection.send(request)
        return self.reply()

    def reply(self) -> RawReply:
        reply = self.connection.reply()
        if reply is None:
            raise Wrong("the connection was closed instead of an answer")
        if reply.headers.get("connection") == "close":
            self.reconnect()
        return reply

    def reconnect(self) -> None:
        self.connection.socket.close()
        self.connection = RawConnection(self.port)

    def a_picture(self) -> Picture:
        return self.random.choice(self.hot) if self.random.random() < 0.6 else picture(self.generator)

    def a_model(self) -> Expected:
        return Expected(self.truth, self.random.choice(["alpha", "beta"]), time.monotonic())

    def a_layer(self) -> str:
        return self.random.choice(list(LAYERS))

    # Good requests

    def features(self) -> None:
        asked, model, layer = self.a_picture(), self.a_model(), self.a_layer()
        normalize = self.random.choice(["l2", "none"])
        path = f"/features?model={model.name}&layer={layer}&{QUERY}&normalize={normalize}&format=npy"
        reply = self.exchange(post(path, asked.file, "image/png"))

        def is_right(session) -> bool:
            expected = truth.layer(session, asked.pixels[None], layer)[0]
            return truth.close(numpy.load(io.BytesIO(reply.body)), truth.unit(expected) if normalize == "l2" else expected)

        model.check(reply, is_right)

    def features_of_several(self) -> None:
        asked, model, layer = [self.a_picture() for _ in range(3)], self.a_model(), self.a_layer()
        body = {
            "images": [base64.b64encode(each.file).decode() for each in asked],
            "model": model.name, "layer": layer, "side": WIDTH, "normalize": "none",
        }  # fmt: skip
        reply = self.exchange(post("/features", json.dumps(body).encode(), "application/json"))
        expect(reply.status == 200, f"status {reply.status}: {reply.body[:300]!r}")
        answer = json.loads(reply.body)
        found = [
            numpy.frombuffer(base64.b64decode(each["data"]), numpy.float32).reshape(each["shape"])
            for each in answer["images"]
        ]
        model.check(reply, lambda session: truth.close(
            numpy.stack(found), truth.layer(session, numpy.stack([each.pixels for each in asked]), layer)
        ))  # fmt: skip

    def correspondence(self) -> None:
        source, target, model = self.a_picture(), self.a_picture(), self.a_model()
        form = {"source": source.file, "target": target.file}
        self._correspondence(model, source, target, form)

    def correspondence_by_ids(self) -> None:
        source, target, model = self.random.choice(self.hot), self.a_picture(), self.a_model()
        ids = []
        for each in (source, target):
            reply = self.exchange(post(f"/features?model={model.name}&layer=res3&{QUERY}&format=npy", each.file))
            expect(reply.status == 200, f"status {reply.status}: {reply.body[:300]!r}")
            ids.append((reply.headers["densecl-feature-id"], reply.headers["densecl-model"]))
        (source_id, source_model), (target_id, target_model) = ids
        if source_model != target_model:
            return self.note("a reload came between two pictures")
        self._correspondence(model, source, target, {"source_id": source_id, "target_id": target_id}, may_be_gone=True)

    def _correspondence(
        self, model: Expected, source: Picture, target: Picture, images: dict, may_be_gone: bool = False
    ) -> None:
        channels_stride = LAYERS["res3"]
        stride = channels_stride[1]
        cells = self.generator.integers(0, (WIDTH // stride, HEIGHT // stride), (POINTS, 2))
        fields = {**images, "points": json.dumps(truth.cell_centres(cells, stride).tolist()), "refine": "none", "format": "npy"}
        if not may_be_gone:
            fields |= {"model": model.name, "layer": "res3", "side": str(WIDTH)}
        reply = self.exchange(form("/correspondence", fields))
        if may_be_gone and reply.status == 404 and reply.problem() == "unknown-feature-id":
            return self.note("an id had expired")

        def is_right(session) -> bool:
            maps = truth.layer(session, numpy.stack([source.pixels, target.pixels]), "res3")
            scores = truth.nearest_cells(maps[0], maps[1], cells)
            found = numpy.load(io.BytesIO(reply.body))
            chosen = numpy.rint((found[:, 2:4] + 0.5) / stride - 0.5).astype(int)
            score = scores[numpy.arange(POINTS), chosen[:, 1] * (WIDTH // stride) + chosen[:, 0]]
            # Two cells may be equally near but for rounding: the score decides, and belongs to the place.
            return truth.close(found[:, 4], scores.max(axis=1)) and truth.close(found[:, 4], score)

        model.check(reply, is_right)

    def infer(self) -> None:
        model, layer = self.a_model(), self.a_layer()
        pixels = numpy.stack([self.a_picture().pixels for _ in range(self.random.choice([1, 2]))])
        header = json.dumps({
            "inputs": [{
                "name": "images", "shape": list(pixels.shape), "datatype": "UINT8",
                "parameters": {"binary_data_size": pixels.nbytes},
            }],
            "outputs": [{"name": layer, "parameters": {"binary_data": True}}],
        }).encode()  # fmt: skip
        request = post(f"/v2/models/{model.name}/infer", header + pixels.tobytes(),
                       Inference_Header_Content_Length=str(len(header)))  # fmt: skip
        reply = self.exchange(request)
        expect(reply.status == 200, f"status {reply.status}: {reply.body[:300]!r}")
        length = int(reply.headers["inference-header-content-length"])
        answer = json.loads(reply.body[:length])
        [output] = answer["outputs"]
        found = numpy.frombuffer(reply.body[length:], numpy.float32).reshape(output["shape"])
        model.check_version(
            int(answer["model_version"]), lambda session: truth.close(found, truth.layer(session, pixels, layer))
        )

    # The same thing, many times at once

    def burst(self) -> None:
        asked, model = picture(self.generator), self.a_model()
        request = post(f"/features?model={model.name}&layer=res2&{QUERY}&normalize=none&format=npy", asked.file)
        connections = [RawConnection(self.port) for _ in range(12)]
        try:
            for connection in connections:
                connection.send(request)
            replies = [connection.reply() for connection in connections]
        finally:
            for connection in connections:
                connection.socket.close()
        for reply in replies:
            expect(reply is not None, "a connection of a burst was closed instead of an answer")
            model.check(reply, lambda session: truth.close(
                numpy.load(io.BytesIO(reply.body)), truth.layer(session, asked.pixels[None], "res2")[0]
            ))  # fmt: skip

    # Clients that are slow, or go away

    def slow(self) -> None:
        asked, model = picture(self.generator), self.a_model()
        request = post(f"/features?model={model.name}&layer=res3&{QUERY}&normalize=none&format=npy", asked.file)
        step = len(request) // 8 + 1
        for begin in range(0, len(request), step):
            self.connection.send(request[begin : begin + step])
            time.sleep(0.1)
        reply = self.reply()
        model.check(reply, lambda session: truth.close(
            numpy.load(io.BytesIO(reply.body)), truth.layer(session, asked.pixels[None], "res3")[0]
        ))  # fmt: skip

    def too_slow(self) -> None:
        request = post("/features", picture(self.generator).file)
        self.connection.send(request[: len(request) // 2])
        reply = self.connection.reply()
        expect(reply is not None and reply.status == 408, f"a body that stops was answered with {reply}")
        self.reconnect()

    def broken_off(self) -> None:
        request = post(f"/features?model=alpha&layer=res2&{QUERY}&resolution=pixel", picture(self.generator).file)
        sent = self.random.choice([len(request) // 3, len(request)])
        self.connection.send(request[:sent])
        time.sleep(self.random.choice([0, 0.01, 0.05]))
        self.reconnect()

    # Requests that must be refused

    def bad(self) -> None:
        request, status, problem = self.random.choice(self._bad_requests())
        reply = self.exchange(request)
        expect(
            (reply.status, reply.problem()) == (status, problem),
            f"{request[:80]!r} was answered with {reply.status} {reply.body[:300]!r} instead of {status} {problem}",
        )

    def _bad_requests(self) -> list[tuple[bytes, int, str]]:
        file = self.hot[0].file
        twice = {"source": file, "target": file}
        return [
            (post("/features", file[: len(file) // 2]), 422, "corrupt-image"),
            (post("/features", b"GIF89a"), 422, "corrupt-image"),
            (post("/features", b"no picture"), 415, "unsupported-image"),
            (post("/features?model=gamma", file), 404, "unknown-model"),
            (post("/features?model=alpha&version=100000", file), 404, "unknown-version"),
            (post("/features?model=alpha&layer=res9", file), 404, "unknown-layer"),
            (post("/features?side=7", file), 422, "side-out-of-range"),
            (post("/features?colour=blue", file), 400, "unknown-parameter"),
            (form("/correspondence", {**twice, "points": "[[5000,1]]"}), 422, "point-outside"),
            (form("/correspondence", {"source_id": "0" * 32, "target": file}), 404, "unknown-feature-id"),
            (post("/correspondence", b"{", "application/json"), 400, "malformed-body"),
        ]  # fmt: skip


def form(path: str, fields: dict[str, bytes | str]) -> bytes:
    """A form; bytes become files."""
    boundary, body = "a-line-that-is-in-no-picture", b""
    for name, value in fields.items():
        is_file = isinstance(value, bytes)
        extra = '; filename="p"\r\nContent-Type: application/octet-stream' if is_file else ""
        content = value if is_file else value.encode()
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"
    return post(path, body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


# How often each is asked, of all requests.
WEIGHTS = {
    Client.features: 30, Client.features_of_several: 6, Client.correspondence: 14, Client.correspondence_by_ids: 10,
    Client.infer: 12, Client.bad: 16, Client.burst: 2, Client.slow: 2, Client.too_slow: 1, Client.broken_off: 7,
}  # fmt: skip
