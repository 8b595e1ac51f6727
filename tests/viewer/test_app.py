"""The application in a browser: what is clicked and typed, and what is then shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support.viewer_pages import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_page_opens_from_disk(tab: Page, tmp_path: Path) -> None:
    catalogue = {"version": 1, "package": "0", "title": "</script>", "store": "inline", "palettes": {}, "runs": []}
    tab.goto(write_page(tmp_path / "page.html", catalogue, {}).as_uri())
    assert tab.get_by_role("heading").inner_text() == "</script>"
