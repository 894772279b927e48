"""Swagger UI at `/docs` in a real browser: "Try it out" and "Execute" of every route, with what is filled in and a
photograph. Skipped without Chromium. The page without a browser, and under a prefix, is tested wherever nginx is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Iterator

import pytest

from photographs import folder
from nginx_process import PrefixProxy
from raw_http import exchange, request
from server_process import ServerProcess
from test_page import CHROMIUM, TIMEOUT_MS, browser  # noqa: F401 (a fixture)

SCREENSHOTS = os.environ.get("DENSECL_SCREENSHOTS")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
# Routes for administrators.
FORBIDDEN = re.compile(r"^/v2/repository/models/")


@pytest.fixture(scope="module")
def proxy(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefixProxy]:
    """The server under the prefix `/densecl/`."""
    proxy = PrefixProxy(tmp_path_factory.mktemp("nginx"), server.port)
    proxy.start()
    yield proxy
    proxy.stop()


class Docs:
    """The page at `/docs/` below `url`."""

    def __init__(self, browser, url: str):  # noqa: F811
        self.url = url
        self.page = browser.new_page(viewport={"width": 1100, "height": 1400})
        self.page.set_default_timeout(TIMEOUT_MS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        # The browser also logs every reply that is no 2xx, which some routes are documented to give.
        is_ours = lambda message: message.type == "error" and "Failed to load resource" not in message.text
        self.page.on("console", lambda message: self.errors.append(message.text) if is_ours(message) else None)
        self.page.goto(f"{url}/docs")
        self.page.wait_for_selector(".opblock")

    def operation(self, method: str, path: str):
        """The block of one route, opened, with "Try it out" pressed."""
        zero_width = "​"  # Swagger UI lets long paths break at their slashes.
        for block in self.page.locator(f".opblock-{method}").all():
            found = block.locator(".opblock-summary-path").first.get_attribute("data-path")
            if found is not None and found.replace(zero_width, "") == path:
                block.locator(".opblock-summary").first.click()
                block.locator("button.try-out__btn").click()
                block.locator("button.execute").wait_for()
                return block
        raise AssertionError(f"{method} {path} is not on the page")

    def execute(self, block, name: str) -> int:
        """Presses "Execute" and reads the status of the answer that the page shows."""
        block.locator("button.execute").click()
        answer = block.locator(".live-responses-table .response-col_status").nth(1)
        answer.wait_for()
        if SCREENSHOTS:
            block.screenshot(path=Path(SCREENSHOTS) / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.png")
        return int(answer.inner_text().split()[0])

    def close(self) -> None:
        self.page.close()
        assert self.errors == []


@pytest.fixture
def docs(browser, server) -> Iterator[Docs]:  # noqa: F811
    docs = Docs(browser, server.url)
    yield docs
    docs.close()


def operations(server: ServerProcess) -> list[tuple[str, str, list[str]]]:
    """Method, path and media types of the body of every route, in the order of the document."""
    paths = server.get("/openapi.json").json()["paths"]
    found = [(method, path, operation) for path, item in paths.items() for method, operation in item.items()]
    return [(method, path, list(it.get("requestBody", {}).get("content", {}))) for method, path, it in found]


def photograph_files(block) -> None:
    """Chooses a photograph wherever the form needs one."""
    names = iter(["motorcycle_left.png", "motorcycle_right.png"])
    for row in block.locator("tr:has(input[type=file])").all():
        # The name, and a mark where the part is required.
        if row.locator(".parameter__name").inner_text().split()[0].rstrip("*") in ("image", "source", "target"):
            row.locator("input[type=file]").set_input_files(folder() / next(names))


@in_a_browser
def test_every_route_answers_what_is_filled_in(docs, server):
    statuses = {}
    for method, path, content in operations(server):
        block = docs.operation(method, path)
        if content and content[0] == "multipart/form-data":
            photograph_files(block)
        status = docs.execute(block, f"{method} {path}")
        statuses[method, path] = status
        block.locator(".opblock-summary").first.click()
    expected = {route: 403 if FORBIDDEN.match(route[1]) else 200 for route in statuses}
    assert statuses == expected
    assert len(statuses) == 19


@in_a_browser
@pytest.mark.parametrize("path", ["/features", "/correspondence"])
def test_only_the_photographs_are_needed(docs, path):
    block = docs.operation("post", path)
    media_type = block.locator(".opblock-section-request-body select.content-type")
    assert media_type.input_value() == "multipart/form-data"
    filled = [it.input_value() for it in block.locator(".parameters-container input:not([type=file]):not([type=checkbox]), "
                                                       ".opblock-section-request-body input[type=text]").all()]
    chosen = [it.input_value() for it in block.locator(".parameters-container select, .opblock-section-request-body td select").all()]
    assert not any(filled) and not any(chosen), (filled, chosen)
    photograph_files(block)
    assert docs.execute(block, f"form {path}") == 200
    picture = block.locator(".live-responses-table img")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300


@in_a_browser
@pytest.mark.parametrize("path", ["/features", "/correspondence"])
def test_the_json_is_sent_as_it_is(docs, path):
    block = docs.operation("post", path)
    block.locator(".opblock-section-request-body select.content-type").select_option("application/json")
    assert docs.execute(block, f"json {path}") == 200


@in_a_browser
@pytest.mark.parametrize("media_type", ["application/octet-stream", "image/png"])
def test_a_photograph_is_the_body(docs, media_type):
    block = docs.operation("post", "/features")
    block.locator(".opblock-section-request-body select.content-type").select_option(media_type)
    block.locator(".opblock-section-request-body input[type=file]").set_input_files(folder() / "chelsea.png")
    assert docs.execute(block, f"body {media_type}") == 200


@in_a_browser
def test_a_vector_of_the_photograph(docs):
    block = docs.operation("post", "/features")
    photograph_files(block)
    block.locator("tr[data-param-name=pool] select").select_option("gem")
    block.locator(".responses-inner select").first.select_option("application/json")
    assert docs.execute(block, "vector") == 200
    assert '"pool": "gem"' in block.locator(".live-responses-table .response-col_description").nth(1).inner_text()


@in_a_browser
def test_all_works_under_a_prefix(browser, server, proxy):  # noqa: F811
    url = f"{proxy.url}/densecl"
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/")
    page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#source input", folder() / "chelsea.png")
    page.click("#tab-features")
    page.wait_for_selector("#features:not([hidden])")
    with page.expect_navigation():
        page.click("nav a >> text=API")
    page.wait_for_selector(".opblock")
    assert page.url == f"{url}/docs/"
    page.close()
    docs = Docs(browser, url)
    docs.page.on("request", lambda request: requested.append(request.url))
    for method, path in (("get", "/models"), ("post", "/features")):
        block = docs.operation(method, path)
        photograph_files(block)
        assert docs.execute(block, f"prefix {path}") == 200
    docs.close()
    assert [it for it in requested if not it.startswith((f"{url}/", "data:", "blob:"))] == []


def test_addresses_are_relative(server, proxy):
    for base, port in (("", server.port), ("/densecl", proxy.port)):
        reply = exchange(port, request("GET", f"{base}/docs"))
        location = reply.headers["location"]
        # nginx makes the address of its own server absolute.
        assert reply.status == 303 and (location == "docs/" or location.endswith("/densecl/docs/")), location
        one = server if base == "" else proxy
        assert one.get(f"{base}/docs/").status == 200
        initializer = one.get(f"{base}/docs/swagger-initializer.js").body.decode()
        assert re.search(r'\burl: "([^"]*)"', initializer)[1] == "../openapi.json"
        document = one.get(f"{base}/openapi.json").json()
        assert [it["url"] for it in document["servers"]] == ["."]


def test_what_is_not_there_is_a_problem(server):
    for path in ("/docs/nope", "/docs/nope.js", "/docs/a/b"):
        reply = server.get(path)
        assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json")
        assert reply.json()["type"] == "/problems/no-such-path"


def test_the_document_names_a_model_that_is_served(server, manifest):
    document = server.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    expected = {"name": manifest["name"], "version": str(manifest["version"])}[parameter["name"]]
                    assert parameter["example"] == expected, path
                else:
                    assert "example" not in parameter and "default" not in parameter["schema"], (path, parameter["name"])
    assert server.get(f"/models/{manifest['name']}").status == 200


def test_the_examples_are_answered(server):
    """Every example of a body, sent as it is."""
    sent = 0
    for path, item in server.get("/openapi.json").json()["paths"].items():
        for operation in item.values():
            parameters = {it["name"]: it.get("example", "") for it in operation.get("parameters", []) if it["in"] == "path"}
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                if "example" in content:
                    reply = server.post(path.format(**parameters), json.dumps(content["example"]).encode(), media_type)
                    assert reply.status == 200, (path, reply.body[:300])
                    sent += 1
    assert sent == 4
