"""A browser for the tests of the viewer: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.viewer_pages import NO_WEBGL, empty, tab_of, without_faults

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Return a Chromium that all tests of this folder share, and that is closed before other tests start event loops.

    WebGL2 is drawn by SwiftShader, on the CPU.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CNNVIZ_REQUIRE_BROWSER", "0") not in ("", "0"):
            pytest.fail("CNNVIZ_REQUIRE_BROWSER is set, and no Chromium is installed")
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--enable-unsafe-swiftshader", "--force-color-profile=srgb"]
    switches.append("--use-fake-device-for-media-stream")  # a camera
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=switches)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def kept(browser: Browser) -> Iterator[Page]:
    """Return a tab that the tests of a file share."""
    for tab in tab_of(browser):
        tab.add_init_script(NO_WEBGL)
        yield tab


@pytest.fixture
def tab(kept: Page) -> Iterator[Page]:
    """Return that tab, empty and as new. What it throws or logs as an error fails the test."""
    empty(kept)
    with without_faults(kept):
        yield kept
