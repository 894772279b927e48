"""The page at `/` in a real browser. Skipped without Chromium."""

from __future__ import annotations

import os
import shutil

import numpy
import pytest
from playwright import sync_api as playwright

from conftest import ZOO
from photographs import folder
from server_process import ServerProcess
from test_keys import make_key

CHROMIUM = os.environ.get("DENSECL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, loaded; a script error or a request to anyone else fails the test."""
    page = browser.new_page(viewport={"width": 400, "height": 850})
    page.set_default_timeout(TIMEOUT_MS)
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#model option", state="attached")
    yield page
    page.close()
    assert errors == []
    assert [url for url in requests if not url.startswith((server.url, "data:", "blob:"))] == []


def choose(page, pane: str, name: str) -> None:
    page.set_input_files(f"#{pane} input", folder() / name)
    page.wait_for_selector(f"#{pane} canvas:not([hidden])")


def test_a_click_shows_the_match(page):
    choose(page, "source", "motorcycle_left.png")
    choose(page, "target", "motorcycle_right.png")
    page.click("#source canvas")
    page.wait_for_selector("#match:not([hidden])")
    assert -1 <= float(page.inner_text("#match-score")) <= 1
    x, y = map(float, page.inner_text("#match-target").split(","))
    assert 0 <= x <= 741 and 0 <= y <= 500
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_arrow_keys_move_the_point(page):
    choose(page, "source", "motorcycle_left.png")
    choose(page, "target", "motorcycle_right.png")
    page.focus("#source canvas")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#match:not([hidden])")
    assert page.inner_text("#match-source") == "384.8, 249.5"


def test_features_can_be_downloaded(page, tmp_path):
    choose(page, "source", "chelsea.png")
    page.click("#tab-features")
    page.wait_for_selector("#features:not([hidden])")
    assert page.evaluate("document.querySelector('#components').naturalWidth") == 451
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "features.npy")
    assert numpy.load(tmp_path / "features.npy").ndim == 3


def test_a_key_is_asked_for_once_and_kept_out_of_sight(browser, binary, tmp_path):
    file = tmp_path / "keys.toml"
    key = make_key(binary, file, "someone")
    locked = ServerProcess(binary, ZOO, tmp_path / "server.log", [f"--api-keys={file}"])
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    try:
        page.goto(locked.url)
        page.wait_for_selector("#key-form:not([hidden])")
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        page.wait_for_selector("#problem:not([hidden])")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_selector("#model option", state="attached")
        choose(page, "source", "chelsea.png")
        page.click("#tab-features")
        page.wait_for_selector("#features:not([hidden])")
        assert page.is_hidden("#key-form") and key not in page.content()
        # A link sends no key.
        assert page.locator("nav a:visible").all_inner_texts() == ["API"]
        page.reload()
        page.wait_for_selector("#model option", state="attached")
        # The description's own page works under its policy, too.
        problems = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(f"{locked.url}/docs/")
        page.wait_for_selector(".opblock")
        assert problems == []
    finally:
        page.close()
        assert locked.stop() == 0


def test_links_are_answered(page, server):
    links = page.locator("nav a:visible")
    assert links.all_inner_texts() == ["API", "Models", "Metrics"]
    for link in links.all():
        assert server.get(f"/{link.get_attribute('href')}").status == 200


def test_a_refusal_is_shown_in_the_servers_words(page):
    choose(page, "source", "chelsea.png")
    page.fill("#side", "65536")
    page.click("#tab-features")
    page.wait_for_selector("#problem:not([hidden])")
    assert "side" in page.inner_text("#problem")
