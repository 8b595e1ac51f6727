"""Many cheap cases in one test: pytest takes 5 ms for a test of its own, in each process that collects it."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def case(*names: object) -> Iterator[None]:
    """Name the case in the error of what fails inside."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{', '.join(map(str, names))}: {error}") from error


def over(names: str | tuple[str, ...], values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make one test of what `pytest.mark.parametrize` makes one a case of. All cases have the same fixtures.

    Args:
        names: an argument of the test, or several.
        values: what it is in each case; tuples for several.
    """
    arguments = (names,) if isinstance(names, str) else names

    def looped(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            for value in values:
                given = dict(zip(arguments, (value,) if isinstance(names, str) else value, strict=True))
                with case(*given.values()):
                    test(**given, **fixtures)

        signature = inspect.signature(test)
        others = [argument for name, argument in signature.parameters.items() if name not in arguments]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return looped
