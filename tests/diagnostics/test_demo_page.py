"""The page of `cnnviz demo`: well formed whatever it names, with every figure where it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pages import Page

from cnnviz_fast.diagnostics.demo_page import Figure, Section, refuse_other_page, write_page
from cnnviz_fast.errors import WriteError

HOSTILE = "\"><script>alert('a & b')</script>{title}"


def test_write_page_names_sections_figures_and_commands_in_order(tmp_path: Path) -> None:
    figures = [Figure(tmp_path / "layer" / f"{name}.png", name) for name in "abc"]
    sections = [Section("first", "of two"), None, Section("second", "alone")]
    path = write_page(
        tmp_path / "index.html", "a title", "a lead", list(zip(sections, figures, strict=True)), ["do a", "do b"]
    )
    assert path == tmp_path / "index.html"
    page = Page(path)
    assert page.images == page.links == [figure.path for figure in figures]
    assert page.texts["figcaption"] == page.shown_instead == ["a", "b", "c"]
    assert page.texts["title"] == page.texts["h1"] == ["a title"]
    assert page.texts["h2"] == ["first", "second", "Now your own"]
    assert page.texts["p"] == ["a lead", "of two", "alone"]
    assert page.texts["pre"] == ["do a\ndo b"]
    order = [tag for tag in page.tags if tag in ("h2", "figure")]
    assert order == ["h2", "figure", "figure", "h2", "figure", "h2"]


def test_write_page_escapes_whatever_it_is_given(tmp_path: Path) -> None:
    figure = tmp_path / "a&b" / "100% \"<i>\" #1?x=y 'ü' javascript:0.png"
    figure.parent.mkdir()
    figure.touch()
    parts = [(Section(HOSTILE, HOSTILE), Figure(figure, HOSTILE))]
    page = Page(write_page(tmp_path / "index.html", HOSTILE, HOSTILE, parts, [HOSTILE]))
    assert not {"script", "i"} & set(page.tags)
    assert page.images == page.links == [figure]
    assert page.images[0].is_file()
    assert page.shown_instead == page.texts["figcaption"] == page.texts["h1"] == page.texts["pre"] == [HOSTILE]
    assert page.texts["p"] == [HOSTILE, HOSTILE]


def test_write_page_shows_names_that_are_no_text(tmp_path: Path) -> None:
    page = Page(write_page(tmp_path / "index.html", "net\udcff.py", "", [], []))
    assert page.texts["h1"] == ["net?.py"]


def test_write_page_can_be_moved_with_its_figures(tmp_path: Path) -> None:
    (tmp_path / "before" / "layer").mkdir(parents=True)
    figure = tmp_path / "before" / "layer" / "a.png"
    figure.touch()
    write_page(tmp_path / "before" / "index.html", "", "", [(None, Figure(figure, ""))], [])
    page = Page((tmp_path / "before").rename(tmp_path / "after") / "index.html")
    assert page.images == [tmp_path / "after" / "layer" / "a.png"]


def test_write_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    with pytest.raises(WriteError, match=r"index\.html"):
        write_page(tmp_path / "index.html", "", "", [], [])


def test_refuse_other_page_lets_only_pages_of_the_demo_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    refuse_other_page(path)
    refuse_other_page(write_page(path, "", "", [], []))
    path.write_text("<title>mine</title>")
    with pytest.raises(WriteError, match="it is no page of the demo, and would be lost"):
        refuse_other_page(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(WriteError, match="no page of the demo"):
        refuse_other_page(path)
