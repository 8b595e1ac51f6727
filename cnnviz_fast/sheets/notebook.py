"""What a notebook shows of several sheets: each as an image with its name under it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import SupportsIndex, overload

from .sheet import NOTEBOOK_PX, Sheet

MOST_SHOWN = 24
"""Sheets of a list that are shown. They share NOTEBOOK_PX: with more, each would be too small to see anything."""


class Sheets(list[Sheet]):
    """A list of sheets that a notebook shows as images; otherwise a list like any other, and equal to one."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Sheet: ...
    @overload
    def __getitem__(self, index: slice) -> Sheets: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Sheet | Sheets:
        """Return a sheet, or a part of the list that is shown as well."""
        return Sheets(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def _repr_html_(self) -> str:
        """Return the sheets as HTML for a notebook."""
        return html_of([(sheet.name, sheet) for sheet in self])


def html_of(named: Sequence[tuple[str, Sheet]]) -> str:
    """Show sheets as HTML that needs no other file.

    Args:
        named: what is written under each sheet, and the sheet.

    Returns:
        The first MOST_SHOWN sheets, scaled down to NOTEBOOK_PX in all, and how many there are beside them.
    """
    chosen, left = named[:MOST_SHOWN], len(named) - MOST_SHOWN
    figures = [_figure(name, sheet.preview(NOTEBOOK_PX // len(chosen))) for name, sheet in chosen]
    if not figures:
        return "no sheets"
    return "".join(figures) + (f"<p>and {left:,} more</p>" if left > 0 else "")


def _figure(name: str, png: bytes) -> str:
    """Return an image and what is written under it."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    caption, style = html.escape(name), "display: inline-block; margin: 4px; vertical-align: top"
    image = f'<img src="{source}" alt="{caption}" style="max-width: 100%">'
    return f'<figure style="{style}">{image}<figcaption>{caption}</figcaption></figure>'
