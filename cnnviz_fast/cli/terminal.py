"""What is said on the terminal: one line of complaint, several of a report, a table, JSON."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from typing import Any


def complain(message: object) -> None:
    """Say one line on stderr."""
    print(f"cnnviz: {' '.join(str(message).split())}", file=sys.stderr)


def tell(lines: Sequence[str]) -> None:
    """Say several lines on stderr, beside a progress bar that may be there."""
    from tqdm import tqdm

    tqdm.write("\n".join(lines), file=sys.stderr)


def print_path(path: object) -> None:
    """Print a path at once; a progress bar on the same terminal steps aside."""
    if sys.stdout.isatty():
        from tqdm import tqdm

        tqdm.write(str(path))
    else:
        print(path, flush=True)


def print_json(document: Any) -> None:
    """Print a document as one line of JSON."""
    print(json.dumps(document))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest entry."""
    shown = [header, *rows] if any(header) else list(rows)
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    for row in shown:
        print("  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip())


def everything_is_loaded() -> None:
    """Collect garbage again from here on, but none among what has been loaded; see `cli.main`."""
    gc.freeze()
    gc.enable()
