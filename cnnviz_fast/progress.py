"""A bar over pictures: the notebook's own in a notebook, text on a terminal, nothing anywhere else."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


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
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm warns, and then writes text, which is not asked for there.
        warnings.simplefilter("ignore")
        from tqdm import auto
    in_notebook = auto.notebook_tqdm is not auto.std_tqdm
    bar: Iterable[Item] = auto.tqdm(items, unit=unit, leave=False, disable=False if in_notebook else None)
    return bar
