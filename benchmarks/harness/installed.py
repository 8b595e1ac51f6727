"""Tools that are measured where they are installed, and named with their versions; see the extra `bench`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Protocol, TypeVar


class Tool(Protocol):
    """A peer. packages: the distributions that it needs."""

    @property
    def packages(self) -> tuple[str, ...]: ...


AnyTool = TypeVar("AnyTool", bound=Tool)


@cache
def version_of(package: str) -> str | None:
    """Return the version of an installed distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(packages: Iterable[str]) -> str | None:
    """Return distributions with their versions, such as "zlib-ng 1.1.0"; None if one is missing."""
    found = {package: version_of(package) for package in packages}
    return None if None in found.values() else ", ".join(f"{name} {version}" for name, version in found.items())


def of(tools: Iterable[AnyTool]) -> Iterator[AnyTool]:
    """Yield the tools that are installed here."""
    return (tool for tool in tools if versions_of(tool.packages) is not None)
