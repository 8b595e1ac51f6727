"""Progress: a bar in a notebook or on a terminal, or lines of JSON for machines."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

JSON_EVERY_S = 1.0
"""Seconds between two lines for machines."""


def with_bar(items: Sequence[Item], unit: str) -> Iterable[Item]:
    """Show the progress of a loop of more than one step, if a terminal or a notebook is there to show it.

    Args:
        items: what the loop runs over.
        unit: name of one of them.

    Returns:
        The same items.
    """
    if len(items) < 2:
        return items
    bar: Iterable[Item] = _bar(items, unit=unit, leave=False, disable=None)
    return bar


def _bar(*items: Any, disable: bool | None, **options: Any) -> Any:
    """Make a bar. With `disable` None it shows only in a notebook or on a terminal."""
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm warns and then writes text. The warning helps nobody.
        warnings.simplefilter("ignore")
        from tqdm import auto
    in_notebook = auto.notebook_tqdm is not auto.std_tqdm
    return auto.tqdm(*items, disable=False if in_notebook else disable, **options)


class Progress:
    """Progress of a run, on stderr."""

    def __init__(self, kind: str, total: int | None) -> None:
        """Start.

        Args:
            kind: one of `options.runs.PROGRESS`.
            total: number of images, if it is known.
        """
        self._total = total
        self._begin = self._said = time.monotonic()
        self._json = kind == "json"
        self._bar: Any = None
        if kind in ("auto", "bar"):
            self._bar = _bar(total=total, unit="image", leave=False, disable=None if kind == "auto" else False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, finished: int, failed: int, skipped: int) -> None:
        """Show how many images are done; as JSON at most once a second, and when all are done.

        Args:
            finished: number of images that this run has finished.
            failed: number of images that failed.
            skipped: number of images that were finished before this run.
        """
        done = finished + failed + skipped
        if self._bar is not None:
            self._bar.initial = skipped  # they took no time
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
        """Write a message beside the bar."""
        if self._bar is not None:
            self._bar.write(f"cnnviz: {message}", file=sys.stderr)
        else:
            sys.stderr.write(f"cnnviz: {message}\n")
