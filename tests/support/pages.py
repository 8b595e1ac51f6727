"""Pages of HTML as tests read them, with the parser of the standard library."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

EMPTY = {"meta", "img"}
"""Elements that are never closed."""


class Page(HTMLParser):
    """A page of which every element is closed where it belongs.

    Attributes:
        tags: names of all elements, in order.
        images: the file of each image, seen from the folder of the page.
        links: the same of each link.
        texts: name of an element -> the text of each, in order, without that of the elements in it.
        shown_instead: the alternative text of each image.
    """

    def __init__(self, path: Path) -> None:
        """Read the page at `path`; fail where it is not well formed."""
        super().__init__()
        self.tags: list[str] = []
        self.images: list[Path] = []
        self.links: list[Path] = []
        self.texts: dict[str, list[str]] = {}
        self.shown_instead: list[str | None] = []
        self._open: list[str] = []
        self._folder = path.parent
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        values = dict(attrs)
        assert len(values) == len(attrs), "an attribute stands there twice"
        self.tags.append(tag)
        if tag == "img":
            self.images.append(self._file(values["src"]))
            self.shown_instead.append(values["alt"])
        if tag == "a":
            self.links.append(self._file(values["href"]))
        if tag not in EMPTY:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        """Close an element, which must be the last that was opened."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self._open:
            self.texts[self._open[-1]][-1] += data
        else:
            assert not data.strip()

    def _file(self, address: str | None) -> Path:
        assert address is not None
        return self._folder / unquote(address)
