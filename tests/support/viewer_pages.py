"""Pages of the viewer from a catalogue and payloads made by hand."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cnnviz_fast

STATIC = Path(cnnviz_fast.__file__).parent / "viewer" / "static"


def write_page(path: Path, catalogue: dict[str, Any], payloads: dict[str, bytes]) -> Path:
    """Write a page with its payloads inside, and return its path."""
    record = json.dumps(catalogue).replace("<", "\\u003c")
    blocks = [
        f'<script type="text/plain" id="{key}">{base64.b64encode(payload).decode()}</script>'
        for key, payload in payloads.items()
    ]
    style, program = ((STATIC / name).read_text() for name in ("viewer.css", "viewer.js"))
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>page</title><style>{style}</style>'
        '<meta name="viewport" content="width=device-width"><div id="app"></div>'
        f'<script type="application/json" id="catalogue">{record}</script>{"".join(blocks)}<script>{program}</script>'
    )
    return path
