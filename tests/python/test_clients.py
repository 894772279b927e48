"""Requests as real clients send them, and bodies as the libraries of other languages write them.

Every client sends one picture with the same parameters in all the ways that it has, and must get the bytes that a
plain request gets. A client that is not installed is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Callable
from urllib.parse import quote

import pytest
from PIL import Image

from raw_http import RawConnection, exchange, post
from server_process import ServerProcess

HERE = Path(__file__).resolve().parent
POINTS = "[[10, 20], [30.5, 40]]"
FIELDS = {"side": "128", "layer": "res5", "format": "npy"}
RAW = "/features?" + "&".join(f"{name}={value}" for name, value in FIELDS.items()) + "&points=" + quote(POINTS)


@pytest.fixture(scope="module")
def picture() -> bytes:
    pixels = bytes((x * 7 + y * 13 + c * 50) % 256 for y in range(64) for x in range(96) for c in range(3))
    buffer = io.BytesIO()
    Image.frombytes("RGB", (96, 64), pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def truth(server: ServerProcess, picture: bytes) -> bytes:
    """What a plain request gets."""
    reply = server.post(RAW, picture, "image/jpeg")
    assert reply.status == 200, reply
    return reply.body


@pytest.fixture(scope="module")
def files(picture: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "photo.jpg").write_bytes(picture)
    (folder / "points.json").write_bytes(b"\xef\xbb\xbf" + POINTS.encode() + b"\r\n")
    return folder


def as_json(picture: bytes) -> dict:
    return {"images": [base64.b64encode(picture).decode()], "points": json.loads(POINTS), **FIELDS, "side": 128}


# Clients -----------------------------------------------------------------------------------------


def test_requests(server, picture, truth):
    requests = pytest.importorskip("requests")
    features = f"{server.url}/features"
    points = ("points.json", POINTS, "application/json")
    with requests.Session() as session:
        for reply in (
            session.post(features, files={"image": ("photo.jpg", picture), "points": points}, data=FIELDS),
            session.post(features, files={"points": (None, POINTS), "image": picture}, data=FIELDS),
            session.post(features, files={"image": ("föto.jpg", picture, "image/jpg"), "points": points}, data=FIELDS),
            session.post(server.url + RAW, data=picture),
            session.post(server.url + RAW, data=io.BytesIO(picture)),
            session.post(server.url + RAW, data=iter([picture[:100], picture[100:]])),
            session.post(features, json=as_json(picture)),
        ):
            assert reply.status_code == 200 and reply.content == truth, reply.text[:300]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_httpx(server, picture, truth, http2):
    httpx = pytest.importorskip("httpx")
    if http2:
        pytest.importorskip("h2")
    features = f"{server.url}/features"
    # Without HTTP/1.1 the client begins with HTTP/2, as it has to without TLS.
    with httpx.Client(http1=not http2, http2=http2, timeout=60) as client:
        for reply in (
            client.post(features, files={"image": picture, "points": ("p.json", POINTS.encode())}, data=FIELDS),
            client.post(features, files={"image": ("a;name=b.jpg", picture, "image/*")}, data={**FIELDS, "points": POINTS}),
            client.post(server.url + RAW, content=picture),
            client.post(features, json=as_json(picture)),
        ):
            assert reply.status_code == 200 and reply.content == truth, reply.text[:300]
            assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")


def test_aiohttp(server, picture, truth):
    aiohttp = pytest.importorskip("aiohttp")

    async def ask() -> list[tuple[int, bytes]]:
        form = aiohttp.FormData()
        form.add_field("points", POINTS, content_type="application/json", filename="blob")
        for name, value in FIELDS.items():
            form.add_field(name, value)
        form.add_field("image", io.BytesIO(picture), content_type="binary/octet-stream", filename="photo 1.jpg")
        chunks = iter([picture[:1000], picture[1000:]])

        async def pieces():
            for piece in chunks:
                yield piece

        async with aiohttp.ClientSession() as session:
            replies = []
            for url, options in (
                (f"{server.url}/features", {"data": form}),
                (server.url + RAW, {"data": picture}),
                (server.url + RAW, {"data": pieces()}),
                (f"{server.url}/features", {"json": as_json(picture)}),
            ):
                async with session.post(url, **options) as reply:
                    replies.append((reply.status, await reply.read()))
            return replies

    for status, body in asyncio.run(ask()):
        assert status == 200 and body == truth, body[:300]


def test_urllib3(server, picture, truth):
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager() as pool:
        fields = {**FIELDS, "points": ("points.json", POINTS, "application/json"), "image": ("photo.jpg", picture)}
        for reply in (
            pool.request("POST", f"{server.url}/features", fields=fields),
            pool.request("POST", server.url + RAW, body=picture),
            pool.request("POST", f"{server.url}/features", json=as_json(picture)),
        ):
            assert reply.status == 200 and reply.data == truth, reply.data[:300]


def program(name: str, *words: str, cwd: Path | None = None) -> bytes:
    """Output of a program, which the test is skipped without."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *words], capture_output=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_curl(server, files, truth, version):
    features, raw = f"{server.url}/features", server.url + RAW
    fields = [word for name, value in FIELDS.items() for word in ("-F", f"{name}={value}")]
    for words in (
        ["-F", "image=@photo.jpg", "-F", "points=@points.json", *fields, features],
        ["-F", "points=@points.json;type=application/json;filename=blob", "-F", "image=@photo.jpg;type=image/jpg", *fields, features],
        ["-F", "points=<points.json", "-F", 'image=@photo.jpg;filename="a;b.jpg"', *fields, features],
        ["--data-binary", "@photo.jpg", raw],
        ["-T", "photo.jpg", "-X", "POST", raw],
        ["--data-binary", "@photo.jpg", "-H", "Content-Type:", raw],
        ["--data-binary", "@photo.jpg", "-H", "Content-Type: image/jpg", "-H", "Connection: keep-alive", "--compressed", raw],
    ):
        assert program("curl", "-sS", version, *words, cwd=files) == truth, words


def test_node(server, files, truth):
    replies = json.loads(program("node", str(HERE / "clients" / "client.mjs"), server.url, str(files / "photo.jpg")))
    expected = {"status": 200, "sha256": sha256(truth).hexdigest()}
    assert len(replies) == 9 and all(reply == expected for reply in replies.values()), replies


def test_java(server, files, truth, tmp_path):
    lines = program("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(HERE / "clients" / "Client.java"), server.url,
                    str(files / "photo.jpg"), cwd=tmp_path).decode().splitlines()
    replies = {name: (status, digest) for name, status, digest in (line.split("\t") for line in lines)}
    assert len(replies) == 8 and set(replies.values()) == {("200", sha256(truth).hexdigest())}, replies


# Forms as libraries write them --------------------------------------------------------------------

IMAGE_HEADS = {
    "browsers": 'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg',
    "browsers, a name with quotes": 'Content-Disposition: form-data; name="image"; filename="a%22b%0D%0A.jpg"\r\nContent-Type: image/jpeg',
    ".NET": "Content-Type: image/jpeg\r\nContent-Disposition: form-data; name=image; filename=photo.jpg; filename*=utf-8''photo.jpg",
    ".NET, another alphabet": "Content-Disposition: form-data; name=image; filename=\"=?utf-8?B?w6kuanBn?=\"; filename*=utf-8''%C3%A9.jpg",
    "old urllib3": "Content-Disposition: form-data; name=\"image\"; filename*=utf-8''f%C3%B6to.jpg\r\nContent-Type: image/jpg",
    "filename first": 'Content-Disposition: form-data; filename="points.jpg"; name="image"',
    "a filename with name=": 'Content-Disposition: form-data; filename="my name=points; name=\\"points\\".jpg"; name="image"',
    "Internet Explorer": 'Content-Disposition: form-data; name="image"; filename="C:\\photos\\new\\a.jpg"\r\nContent-Type: image/pjpeg',
    "capitals": 'CONTENT-DISPOSITION: FORM-DATA; NAME="image"; FILENAME="PHOTO.JPG"\r\nCONTENT-TYPE: IMAGE/JPEG',
    "lower case": 'content-disposition: form-data; name="image"; filename="photo.jpg"\r\ncontent-type: image/jpeg',
    "spaces": 'Content-Disposition :form-data ; name = "image" ;filename= photo.jpg ;'.replace(" :", ":"),
    "no spaces": "Content-Disposition:form-data;name=image;filename=photo.jpg",
    "a content id first": 'Content-ID: <1>\r\nContent-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: binary',
    "attachment": 'Content-Disposition: attachment; name="image"; filename="photo.jpg"',
    "UTF-8": 'Content-Disposition: form-data; name="image"; filename="фото.jpg"',
    "Latin-1": 'Content-Disposition: form-data; name="image"; filename="f\xf6to.jpg"',
}
POINTS_HEADS = {
    "text": 'Content-Disposition: form-data; name="points"',
    "a blob": 'Content-Disposition: form-data; name="points"; filename="blob"\r\nContent-Type: application/json',
    "a file": 'Content-Disposition: form-data; filename="image.json"; name="points"\r\nContent-Type: application/octet-stream',
    "an image, by its type": 'Content-Disposition: form-data; name=points; filename=image\r\nContent-Type: image/jpeg',
}


def written(parts: list[tuple[str, bytes]], boundary: str = "b-1") -> bytes:
    encode = lambda head: head.encode("latin-1" if "\xf6" in head else "utf-8")
    bodies = [f"--{boundary}\r\n".encode() + encode(head) + b"\r\n\r\n" + content + b"\r\n" for head, content in parts]
    return b"".join(bodies) + f"--{boundary}--\r\n".encode()


@pytest.mark.parametrize("image_head", IMAGE_HEADS.values(), ids=IMAGE_HEADS.keys())
def test_parts_are_known_by_their_names(server, picture, truth, image_head):
    others = [(f'Content-Disposition: form-data; name="{name}"', value.encode()) for name, value in FIELDS.items()]
    for points_head in POINTS_HEADS.values():
        for parts in ([(image_head, picture), (points_head, POINTS.encode())], [(points_head, POINTS.encode()), (image_head, picture)]):
            reply = server.post("/features", written(parts + others), "multipart/form-data; boundary=b-1")
            assert reply.status == 200 and reply.body == truth, (points_head, reply.body[:300])


@pytest.mark.parametrize("content_type", [
    'multipart/form-data; boundary="b-1"', "multipart/form-data;boundary=b-1;charset=utf-8", "Multipart/Form-Data; Boundary=b-1",
    "multipart/form-data; charset=UTF-8; boundary=b-1",
])
def test_boundaries(server, picture, truth, content_type):
    parts = [(IMAGE_HEADS["browsers"], picture), (POINTS_HEADS["text"], POINTS.encode())]
    others = [(f'Content-Disposition: form-data; name="{name}"', value.encode()) for name, value in FIELDS.items()]
    assert server.post("/features", written(parts + others), content_type).body == truth


TYPES = [
    "image/jpeg", "image/jpg", "image/pjpeg", "image/x-citrix-jpeg", "image/*", "image/png", "IMAGE/JPEG", "image/jpeg; q=1", "image/heic",
    "application/octet-stream", "binary/octet-stream", "application/binary", "application/x-binary", "application/download",
    "application/x-www-form-urlencoded", "text/plain", "text/plain; charset=utf-8", "text/html", "application/pdf", "jpeg", "", "*/*",
]


@pytest.mark.parametrize("content_type", TYPES)
def test_pictures_of_any_type(server, picture, truth, content_type):
    reply = exchange(server.port, post(RAW, picture, content_type))
    assert reply.status == 200 and reply.body == truth, reply.body[:300]


def test_a_picture_without_a_type(server, picture, truth):
    head = f"POST {RAW} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(picture)}\r\n\r\n"
    assert exchange(server.port, head.encode() + picture).body == truth


JSON_TYPES = ["application/json", "application/json; charset=utf-8", "text/json", "APPLICATION/JSON", "application/vnd.densecl+json"]


@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_json_of_its_types(server, picture, truth, content_type):
    assert server.post("/features", json.dumps(as_json(picture)).encode(), content_type).body == truth


def base64_forms(picture: bytes) -> dict[str, str]:
    plain, safe = base64.b64encode(picture).decode(), base64.urlsafe_b64encode(picture).decode()
    lines = base64.encodebytes(picture).decode()
    return {
        "plain": plain,
        "lines": lines,
        "lines of CR LF": lines.replace("\n", "\r\n"),
        "spaces": f"  {plain[:50]} {plain[50:99]}\t{plain[99:]} ",
        "URL-safe": safe,
        "URL-safe, unpadded": safe.rstrip("="),
        "unpadded": plain.rstrip("="),
        "unpadded lines": lines.rstrip("=\n"),
        "data URL": f"data:image/jpeg;base64,{plain}",
        "data URL, capitals": f"DATA:IMAGE/JPEG;BASE64,{plain}",
        "data URL with parameters": f"data:image/jpeg;name=a.jpg;charset=utf-8;base64,{lines}",
        "data URL without a type": f"data:;base64,{safe}",
        "data URL, escaped": f"data:image/jpeg;base64,{quote(plain, safe='')}",
    }


def test_base64_in_every_form(server, picture, truth):
    for name, text in base64_forms(picture).items():
        for ascii_only in (True, False):
            body = json.dumps({**as_json(picture), "images": [text]}, ensure_ascii=ascii_only).encode()
            reply = server.post("/features", body, "application/json")
            assert reply.status == 200 and reply.body == truth, (name, reply.body[:300])


# Mistakes ------------------------------------------------------------------------------------------


def mistakes(picture: bytes) -> dict[str, tuple[bytes, int, list[str]]]:
    """Requests that users really send by mistake: the status, and what its answer has to say."""
    good = [(IMAGE_HEADS["browsers"], picture)]
    text = lambda name, value: (f'Content-Disposition: form-data; name="{name}"', value.encode())
    form = lambda parts, content_type="multipart/form-data; boundary=b-1": post("/features", written(parts), content_type)
    encode = lambda body: body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    document = lambda body, path="/features": post(path, encode(body), "application/json")
    image = base64.b64encode(picture).decode()
    infer = "/v2/models/densecl-resnet18/infer"
    tensor = lambda more: json.dumps({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], **more}]})
    return {
        "Content-Type by hand": (form(good, "multipart/form-data"), 400, ["no boundary", "Do not set the header"]),
        "another boundary": (form(good, "multipart/form-data; boundary=x"), 400, ["`--b-1`", "`x`", "Do not set the header"]),
        "LF alone": (post("/features", written(good).replace(b"\r\n", b"\n"), "multipart/form-data; boundary=b-1"), 400, ["LF alone", "CR LF"]),
        "half a form": (post("/features", written(good)[:-50], "multipart/form-data; boundary=b-1"), 400, ["before its last line"]),
        "an image as a form": (post("/features", picture, "multipart/form-data; boundary=x"), 400, ["file of an image"]),
        "JSON as a form": (post("/features", b"{}", "multipart/form-data; boundary=x"), 400, ["no line `--x`"]),
        "base64 in a form": (form([text("image", image)]), 415, ["`image` is base64", "taken in JSON"]),
        "a data URL in a form": (form([text("image", f"data:image/png;base64,{image}")]), 415, ["`image` is base64"]),
        "curl without @": (form([text("image", "photo.jpg")]), 415, ["the text `photo.jpg`", "@FILE"]),
        "curl -d without @": (post("/features", b"photo.jpg", "application/x-www-form-urlencoded"), 415, ["@FILE"]),
        "an unknown file": (form([('Content-Disposition: form-data; name="file"; filename="a.jpg"', picture)]), 400,
                            ["`file`", "images are `image`", "`points`"]),
        "plural": (form([('Content-Disposition: form-data; name="images"; filename="a.jpg"', picture)]), 400, ["did you mean `image`?"]),
        "brackets": (form([('Content-Disposition: form-data; name="image[]"; filename="a.jpg"', picture)]), 400, ["without brackets"]),
        "an unknown text": (form([*good, text("layers", "res4")]), 400, ["did you mean `layer`?", "images are `image`"]),
        "points taken apart": (form([*good, *(text("points", value) for value in ("10", "8", "20", "41"))]), 400,
                               ["`points`", "given 4 times", "json.dumps"]),
        "points in brackets": (form([*good, text("points[0][0]", "10")]), 400, ["one text, without brackets", "JSON.stringify"]),
        "one point": (form([*good, text("points", "[10, 20]")]), 400, ["`points[0]`", "[[12.5, 40], [80, 120]]"]),
        "points of text": (form([*good, text("points", '[[1, 2], ["a", 3]]')]), 400, ["`points[1][0]`", "line 1 column"]),
        "points of objects": (form([*good, text("points", '[{"x": 1, "y": 2}]')]), 400, ["`points[0]`", "map"]),
        "a side of text": (form([*good, text("side", "large")]), 400, ["`large` is not a whole number"]),
        "UTF-16 in a part": (form([*good, ('Content-Disposition: form-data; name="points"', POINTS.encode("utf-16"))]), 400, ["UTF-16", "UTF-8"]),
        "points in UTF-16 JSON": (document(json.dumps(as_json(picture)).encode("utf-16")), 400, ["UTF-16", "UTF-8"]),
        "UTF-32 JSON": (document(json.dumps(as_json(picture)).encode("utf-32")), 400, ["UTF-32"]),
        "Latin-1 JSON": (document(b'{"images": ["\xe9"]}'), 400, ["not UTF-8 from byte 13"]),
        "str() of a dict": (document(str(as_json(picture))), 400, ["double quotes", "line 1 column 2"]),
        "JSON twice": (document(json.dumps(json.dumps(as_json(picture)))), 400, ["JSON twice", "json=OBJECT"]),
        "a list": (document(json.dumps([image])), 400, ["but a list"]),
        "NaN": (document('{"images": ["%s"],\n "points": [[1, 2], [NaN, 4]]}' % image), 400, ["`points[1][0]`", "line 2", "no NaN"]),
        "a comma too many": (document('{"images": ["%s"],\n "points": [[1, 2],]}' % image), 400, ["`points`", "line 2 column 20"]),
        "a null point": (document('{"images": ["%s"],\n "points": [[1, 2], [null, 4]]}' % image), 400,
                         ["`points[1][0]`", "line 2 column 25 of the body"]),
        "half a JSON": (document(json.dumps(as_json(picture))[:200]), 400, ["EOF", "line 1 column 200"]),
        "a broken base64": (document({**as_json(picture), "images": [image, image[:40] + "*" + image[41:]]}), 400, ["`images[1]`", "'*' at offset 40"]),
        "a broken base64 in lines": (document({**as_json(picture), "images": [base64.encodebytes(picture).decode()[:100] + "é"]}), 400,
                                     ["`images[0]`", "'é' at offset 100"]),
        "repr of bytes": (document({"images": [str(base64.b64encode(picture))]}), 400, ["`images[0]`", "decode()"]),
        "a file's name": (document({"images": ["photo.jpg"]}), 400, ["name of a file"]),
        "an address": (document({"images": ["https://example.org/photo.jpg"]}), 400, ["not fetched"]),
        "a list of bytes": (document({"images": [list(picture[:9])]}), 400, ["`images[0]`", "base64"]),
        "image for images": (document({"image": image}), 400, ["did you mean `images`?"]),
        "JSON as text": (post("/features", json.dumps(as_json(picture)).encode(), "text/plain"), 415, ["looks like JSON", "application/json"]),
        "a form as text": (post("/features", written(good), "text/plain"), 415, ["looks like a form"]),
        "GET": (b"GET /features HTTP/1.1\r\nHost: t\r\n\r\n", 405, ["takes POST, not GET"]),
        "a slash too many": (post("/features/", picture), 404, ["POST /features"]),
        "OIP: bytes of a file": (document(tensor({"datatype": "BYTES", "shape": [1], "data": [image]}), infer), 400,
                                 ["`BYTES`", "UINT8 [N, height, width, 3]", "multiples of 32", "POST /features"]),
        "OIP: floats": (document(tensor({"datatype": "FP32", "data": [0.5]}), infer), 400, ["`FP32`", "UINT8"]),
        "OIP: no batch": (document(tensor({"shape": [32, 32, 3], "data": ["x"]}), infer), 400, ["[1, 32, 32, 3]"]),
        "OIP: channels first": (document(tensor({"shape": [1, 3, 32, 32], "data": []}), infer), 400, ["channels first"]),
        "OIP: a text among numbers": (document(tensor({"data": [1, 2, "x"]}), infer), 400, ["`inputs[0].data[2]`", "line 1 column"]),
        "OIP: another size": (document(tensor({"shape": [1, 30, 32, 3], "data": [0] * 2880}), infer), 422, ["multiples of 32", "/features"]),
        "OIP: an image": (post(infer, picture), 400, ["file of an image", "POST /features"]),
        "OIP: UTF-16": (document(tensor({"data": []}).encode("utf-16"), infer), 400, ["UTF-16"]),
        "OIP: no header": (post(infer, tensor({"parameters": {"binary_data_size": 3072}}).encode() + bytes(3072)), 400,
                           ["Inference-Header-Content-Length"]),
        "index: UTF-16": (document('{"ready": true}'.encode("utf-16"), "/v2/repository/index"), 400, ["UTF-16"]),
        "index: a text": (document('{"ready": "yes"}', "/v2/repository/index"), 400, ["`ready`", "line 1 column"]),
    }  # fmt: skip


def test_answers_to_mistakes_name_them_and_the_cure(server, picture):
    wrong = {}
    for name, (data, status, expected) in mistakes(picture).items():
        reply = exchange(server.port, data)
        problem = json.loads(reply.body)
        said = f"{problem['detail']} {problem['hint']}"
        missing = [words for words in expected if words not in said]
        if reply.status != status or missing or reply.headers["content-type"] != "application/problem+json":
            wrong[name] = (reply.status, missing, said)
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


def test_a_mark_before_json_is_skipped(server, picture, truth):
    mark = b"\xef\xbb\xbf"
    assert server.post("/features", mark + json.dumps(as_json(picture)).encode(), "application/json").body == truth
    pair = {"source": base64.b64encode(picture).decode(), "target": base64.b64encode(picture).decode(), "grid": 32, "side": 128}
    assert server.post("/correspondence", mark + json.dumps(pair).encode(), "application/json").status == 200
    assert server.post("/v2/repository/index", mark + b"{}", "application/json").status == 200
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "res5"}]}).encode()
    assert server.post("/v2/models/densecl-resnet18/infer", mark + body, "application/json").status == 200


# HTTP/1.0 ------------------------------------------------------------------------------------------


def one_zero(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.0\r\nHost: test\r\n{length}{headers}\r\n".encode() + body


def routes(picture: bytes) -> dict[str, Callable[[str], bytes]]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}
    inference = json.dumps({"inputs": [tensor], "outputs": [{"name": "res5"}]}).encode()
    get = lambda path: lambda headers: one_zero("GET", path, headers=headers)
    send = lambda path, body: lambda headers: one_zero("POST", path, body, headers)
    paths = ["/", "/app.js", "/openapi.json", "/docs/", "/models", "/metrics", "/livez", "/v2", "/v2/models/densecl-resnet18", "/nowhere"]
    return {
        **{path: get(path) for path in paths},
        "json": send("/features?side=256&layer=res4", picture),
        "numbers": send("/features?side=512&layer=res4&encoding=array", picture),
        "npy": send(RAW, picture),
        "png": send("/features?format=png", picture),
        "a problem": send("/features?side=1", picture),
        "inference": send("/v2/models/densecl-resnet18/infer", inference),
        "index": send("/v2/repository/index", b"{}"),
    }


@pytest.mark.parametrize("encoding", ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: zstd, gzip\r\n"], ids=["plain", "gzip", "zstd"])
def test_http_1_0_is_never_left_waiting(server, picture, encoding):
    """A reply to a client that would keep the connection open has a length, or says that it is closed and is."""
    lengths = set()
    for name, request in routes(picture).items():
        with RawConnection(server.port) as connection:
            connection.send(request(encoding + "Connection: keep-alive\r\n"))
            head = connection.reply()
            has_length, tokens = "content-length" in head.headers, head.headers.get("connection", "")
            assert tokens == ("keep-alive" if has_length else "close"), (name, head.headers)
            assert "transfer-encoding" not in head.headers, name
            lengths.add(has_length)
            if has_length:
                connection.send(one_zero("GET", "/livez", headers="Connection: Keep-Alive\r\n"))
                assert connection.reply().body == b"ok\n", name
            else:
                assert connection.closed(), name
        with RawConnection(server.port) as connection:
            connection.send(request(encoding))
            assert connection.reply().headers.get("connection", "close") == "close" and connection.closed(), name
    assert lengths == {True, False}, "both kinds of replies were seen"
