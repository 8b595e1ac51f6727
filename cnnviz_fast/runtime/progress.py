"""How far something is: a bar, the notebook's own in a notebook, text on a terminal; or lines of JSON for machines."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

JSON_EVERY_S = 1.0
"""Between two lines for machines."""


def with_bar(items: Sequence[Item], unit: str) -> Iterable[Item]:
    """Show how far a loop is, where somebody can see it and there is more than one item.

    Args:
        items: of the loop.
        unit: what one of them is.

    Returns:
        The items.
    """
    if len(items) < 2:
        return items
    bar: Iterable[Item] = _bar(items, unit=unit, leave=False, disable=None)
    return bar


def _bar(*items: Any, disable: bool | None, **options: Any) -> Any:
    """Make a bar; with `disable` None it shows where somebody can see it."""
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm warns, and then writes text, which is not asked for there.
        warnings.simplefilter("ignore")
        from tqdm import auto
    in_notebook = auto.notebook_tqdm is not auto.std_tqdm
    return auto.tqdm(*items, disable=False if in_notebook else disable, **options)


class Progress:
    """How far a run is, on stderr."""

    def __init__(self, kind: str, total: int | None) -> None:
        """Begin.

        Args:
            kind: one of `options.PROGRESS`.
            total: number of pictures, where it is known.
        """
        self._total = total
        self._begin = self._said = time.monotonic()
        self._json = kind == "json"
        self._bar: Any = None
        if kind in ("auto", "bar"):
            self._bar = _bar(total=total, unit="picture", leave=False, disable=None if kind == "auto" else False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, finished: int, failed: int, skipped: int) -> None:
        """Say how many pictures are done so far; as JSON once a second at most, and when all are.

        Args:
            finished: by this run.
            failed: of which nothing came.
            skipped: that were finished before it.
        """
        done = finished + failed + skipped
        if self._bar is not None:
            self._bar.initial = skipped  # which took no time
            if failed:
                self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if self._json and (now - self._said >= JSON_EVERY_S or done == self._total):
            self._said = now
            rate = (finished + failed) / (now - self._begin)
            left = None if self._total is None or not rate else round((self._total - done) / rate, 1)
            line = {"finished": finished, "failed": failed, "skipped": skipped, "total": self._total}
            sys.stderr.write(json.dumps({**line, "per_s": round(rate, 2), "left_s": left}) + "\n")

    def say(self, message: str) -> None:
        """Say a sentence beside the bar."""
        if self._bar is not None:
            self._bar.write(f"cnnviz: {message}", file=sys.stderr)
        else:
            sys.stderr.write(f"cnnviz: {message}\n")
