"""The page as HTML: the program and its style inside, and what it shows as data that is never run.

Names of layers and images are anybody's text. In the catalogue, JSON in a script element, `<` and the two line ends
that JavaScript does not allow in text are escaped, so that nothing in it ends the element; the program sets them as
text only. The page may load nothing: no request leaves it.

The program is in the page deflated, as data, in half of its bytes. A few lines inflate it and run it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

MARK = '<meta name="generator" content="cnnviz page">'
"""By which a page is known as one of these, and may be replaced."""

_STATIC = Path(__file__).parent / "static"

_BASE64_BYTES = 3 << 16
"""Of a payload are encoded at once: a multiple of 3."""


_STARTER = """
(async () => {
  const packed = atob(document.getElementById("program").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const script = document.createElement("script");
  script.text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  document.body.append(script);
})();
"""
"""Runs the program. The policy knows the program by the hash of its text, whoever puts it in."""


@cache
def _built(name: str) -> str:
    """Return the built program or its style, which `npm run build` in `source/` makes."""
    return (_STATIC / name).read_text("utf-8").strip()


def policy(store: str) -> str:
    """Return the content security policy of a page: the two texts that are in it by their hashes, and no request.

    Args:
        store: where payloads lie; see Collection.catalogue.
    """
    beside = {"scripts": " 'self' file:"}.get(store, "")
    rules = {
        "default-src": "'none'",
        "script-src": f"{_hash(_STARTER)} {_hash(_built('viewer.js'))}{beside}",
        "style-src": _hash(_built("viewer.css")),
        "img-src": "blob: data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if store == "server":
        rules |= {"connect-src": "'self'", "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _program() -> str:
    """Return the program as data, with what runs it."""
    packed = base64.b64encode(zlib.compress(_built("viewer.js").encode(), 9)).decode()
    return f'<script type="text/plain" id="program">{packed}</script><script>{_STARTER}</script>'


def page(catalogue: Mapping[str, Any], payloads: Iterable[tuple[str, bytes]] = ()) -> Iterator[bytes]:
    """Return a page, part by part.

    Args:
        catalogue: see Collection.catalogue.
        payloads: key and bytes of what is inside.
    """
    store = catalogue["store"]
    # Of a server the same policy is a header, where it can also refuse frames.
    meta = "" if store == "server" else f'<meta http-equiv="Content-Security-Policy" content="{policy(store)}">'
    yield (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{meta}{MARK}'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(printable(catalogue['title']))}</title><style>{_built('viewer.css')}</style></head>"
        f'<body><div id="app"></div><script type="application/json" id="catalogue">{as_data(catalogue)}</script>'
    ).encode()
    for key, payload in payloads:
        yield f'<script type="text/plain" id="{key}">'.encode()
        yield from as_base64(payload)
        yield b"</script>"
    yield f"{_program()}</body></html>\n".encode()


def as_base64(payload: bytes) -> Iterator[bytes]:
    """Return bytes in base64, part by part."""
    for first in range(0, len(payload), _BASE64_BYTES):
        yield base64.b64encode(payload[first : first + _BASE64_BYTES])


def as_data(document: Any) -> str:
    """Return JSON in ASCII that may stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def printable(text: str) -> str:
    """Return a text in which what turns the direction of writing or cannot be encoded is replaced."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", "\ufffd", text)
