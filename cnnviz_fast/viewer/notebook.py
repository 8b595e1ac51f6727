"""`view`: the page inside of a notebook, in a frame whose content is the page itself: no server, no extension."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

from ..options.parsers import path as path_of
from ..options.parsers import whole
from ..provenance import Provenance
from .collection import Collection
from .page import collection_of, inline_page, write_page

HEIGHT_PX = 720


class PageView:
    """A page that notebooks show where it is the value of a cell, in Jupyter, Colab and VS Code."""

    def __init__(self, shown: Collection, height_px: int, similarity: bool) -> None:
        """Take what is shown, and how high."""
        self._shown, self._height_px, self._similarity = shown, height_px, similarity

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        counts = [f"{len(run.layers)} layers of {run.image_count:,} images" for run in self._shown.runs]
        return f"PageView({self._shown.title}: {', '.join(counts)})"

    def _repr_html_(self) -> str:
        """Return the frame.

        Sandboxed, so that the page has an origin of its own and does not reach the notebook; with scripts, and with the
        downloads and the copying that its buttons do.
        """
        page = escape(inline_page(self._shown, self._similarity), quote=True)
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-downloads" allow="clipboard-write" '
            f'title="{escape(self._shown.title)}" width="100%" height="{self._height_px}" '
            f'style="border: 0; max-width: 100%"></iframe>'
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as a file or a folder; see save_page."""
        return write_page(self._shown, path_of("path", path), self._similarity)


def view(
    maps: Any,
    *,
    photos: Any = None,
    title: str | None = None,
    similarity: bool = False,
    height_px: int = HEIGHT_PX,
    provenance: Provenance | None = None,
    axes: str = "auto",
) -> PageView:
    """Show every channel of maps in a notebook: the page of `save_page`, as the value of a cell.

    Args:
        maps: (C, H, W) real dtype, or what else save_page takes. Not modified.
        photos: see save_page.
        title: see save_page.
        similarity: see save_page.
        height_px: of the frame.
        provenance: see save_page.
        axes: see save_page.

    Returns:
        What the notebook shows. It can be saved as well.

    Raises:
        InputError: see save_page.
    """
    height = whole(1)("height_px", height_px)
    return PageView(collection_of(maps, photos, title, provenance, axes), height, similarity)
