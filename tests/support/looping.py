"""Many cheap cases in one test: pytest takes 5 ms for a test of its own, in each process that collects it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def case(*names: object) -> Iterator[None]:
    """Name the case in the error of what fails inside."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{', '.join(map(str, names))}: {error}") from error
