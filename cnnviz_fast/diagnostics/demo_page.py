"""The page of the sheets of `cnnviz demo`: its pictures in order, each with a sentence, and what to try next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..errors import WriteError
from ..runtime.files import whole_file
from ..runtime.untrusted import read_regular

_MARK = '<meta name="generator" content="cnnviz demo">'
"""By which a page is known as one of the demo, and may be replaced."""

_MOST_BYTES = 2**20
"""Of such a page; it has about 5,000."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{mark}
<title>{title}</title>
<style>
  body {{ margin: 0 auto; max-width: 1400px; padding: 2rem; background: #202020 }}
  body {{ color: #eee; font: 16px/1.5 sans-serif }}
  h1, h2 {{ font-weight: 600; line-height: 1.2 }} h2 {{ margin-top: 3rem }} p {{ max-width: 46rem }}
  figure {{ margin: 1.5rem 0 }} img {{ max-width: 100%; height: auto }} figcaption {{ color: #bbb }}
  pre {{ padding: 1rem; background: #111; overflow-x: auto }} a {{ color: #9cf }}
</style>
<h1>{title}</h1>
<p>{lead}</p>
{sections}
<h2>Now your own</h2>
<pre>{commands}</pre>
</html>
"""


class Figure(NamedTuple):
    """A picture with its caption."""

    path: Path
    caption: str


class Section(NamedTuple):
    """A heading, and what is to be seen below it."""

    title: str
    text: str


def refuse_other_page(path: Path) -> None:
    """Refuse to write the page over a file that is no page of the demo.

    Args:
        path: where the page is to go.

    Raises:
        WriteError: there is such a file.
    """
    if not os.path.lexists(path):
        return
    with contextlib.suppress(OSError):
        if _MARK.encode() in read_regular(path, _MOST_BYTES):
            return
    raise WriteError(f"cannot write {path}: it is no page of the demo, and would be lost. Give another --out.")


def write_page(
    path: Path, title: str, lead: str, parts: Sequence[tuple[Section | None, Figure]], commands: Sequence[str]
) -> Path:
    """Write the page.

    Args:
        path: of the page. Pictures are named relative to its folder, so that both can be moved together.
        title: its heading.
        lead: the paragraph below that.
        parts: the figures in order, each with the section that it begins, if it begins one.
        commands: what to try next, one a line.

    Returns:
        The path.

    Raises:
        WriteError: the file cannot be written.
    """
    lines = []
    for section, figure in parts:
        if section is not None:
            lines.append(f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>")
        source = quote(os.path.relpath(figure.path, path.parent).replace(os.sep, "/"))
        caption = escape(figure.caption)
        lines.append(
            f'<figure><a href="{source}"><img src="{source}" alt="{caption}" loading="lazy"></a>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    shown = {"mark": _MARK, "title": escape(title), "lead": escape(lead), "commands": escape("\n".join(commands))}
    with whole_file(path) as file:
        file.write(_PAGE.format(sections="\n".join(lines), **shown).encode(errors="replace"))
    return path
