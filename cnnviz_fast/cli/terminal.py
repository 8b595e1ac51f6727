"""What the command line prints: results on stdout, a path a line or JSON; progress, reports and errors on stderr."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..runtime.caller import Note
from .streams import Lasting

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3  # PARTLY: some images failed, and the rest are done
_MOST_NOTES = 3  # of a kind: a data set may have a million images of which the same is to be said
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


def complain(message: object) -> None:
    """Print one line on stderr on what went wrong, --quiet or not."""
    stream = sys.stderr
    muted = is_quiet()
    if isinstance(stream, Lasting):
        stream.muted = False
    note(message)
    if isinstance(stream, Lasting):
        stream.muted = muted


def note(message: object) -> None:
    """Print one line on stderr that is worth knowing, unless --quiet is given."""
    print(f"cnnviz: {' '.join(str(message).split())}", file=sys.stderr)


def be_quiet() -> None:
    """Drop all that this command prints from now on, but for errors, tables and JSON."""
    if isinstance(sys.stderr, Lasting):
        sys.stderr.muted = True


def is_quiet() -> bool:
    """Check whether --quiet is given."""
    return isinstance(sys.stderr, Lasting) and sys.stderr.muted


@contextlib.contextmanager
def notes_as_lines() -> Iterator[None]:
    """Print notes as lines on stderr: none twice, as of a model that is loaded twice, and few of one kind of images."""
    told, kinds = set[str](), Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if not issubclass(category, Note):
                show(message, category, *where)
                return
            text = str(message)
            if text in told:
                return
            told.add(text)
            named = re.match(r"image '.*'", text)
            kind = text[named.end() :].partition(":")[0] if named else text
            kinds[kind] += 1
            if kinds[kind] <= _MOST_NOTES:
                note(f"{text} Of others the same is not said." if kinds[kind] == _MOST_NOTES else text)

        warnings.showwarning = tell  # type: ignore[assignment]  # which it calls by position
        yield


_kept: list[str] = []  # lines that are true only if something comes of the command


def say_with_results(message: str) -> None:
    """Print one line on stderr as soon as there is a result; none after an error, which is one line alone."""
    _kept.append(message)


def say_kept() -> None:
    """Print what was kept for the first result."""
    while _kept:
        note(_kept.pop(0))


def drop_kept() -> None:
    """Forget what was kept for results, since there are none."""
    _kept.clear()


def print_lines(lines: Sequence[str]) -> None:
    """Print several lines on stderr; a progress bar there steps aside."""
    from tqdm import tqdm

    tqdm.write("\n".join(lines), file=sys.stderr)


def print_path(path: object) -> None:
    """Print a path at once, unless --quiet is given; a progress bar on the same terminal steps aside."""
    if is_quiet():
        return
    say_kept()
    if sys.stdout.isatty():
        from tqdm import tqdm

        tqdm.write(str(path), file=sys.stdout)
    else:
        print(path, flush=True)


def print_json(document: Any) -> None:
    """Print a document as one line of JSON."""
    print(json.dumps(document))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], fit: bool = False) -> None:
    """Print columns, each as wide as its widest entry; on a terminal that is narrower, lines are cut if `fit`."""
    shown = [header, *rows] if any(header) else list(rows)
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    room = shutil.get_terminal_size().columns if fit and sys.stdout.isatty() else sys.maxsize
    for row in shown:
        line = "  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip()
        print(f"{line[: room - 1]}…" if len(line) > room else line)


def everything_is_loaded() -> None:
    """Turn the garbage collector on again, but leave what has been loaded out of its walks; see `cli.main`."""
    gc.freeze()
    gc.enable()
