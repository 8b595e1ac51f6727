"""The random states of Python and of numpy, which a foreign model may draw from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the random states of Python and of numpy, where the block has drawn from them."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        if random.getstate() != python:
            random.setstate(python)
        if _place(np.random.get_state(legacy=False)) != _place(numpy):
            np.random.set_state(numpy)


def _place(state: Any) -> tuple[Any, ...]:
    """Return where in its sequence a generator of numpy is."""
    inner = state["state"]
    return inner["pos"], inner["key"][:4].tobytes(), state["has_gauss"]
