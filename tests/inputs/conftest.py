"""What tests of several modules of inputs share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest
from support.processes import forking


@pytest.fixture(params=["forkserver", pytest.param("spawn", marks=pytest.mark.long)])
def _not_forked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begin readers as processes that are sent all that they need: `spawn` alone imports torch once more for each."""
    forking()
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)
