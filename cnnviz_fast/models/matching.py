"""Which names of a checkpoint belong to a module: the state dict in it, and the prefix, under which most of them fit.

A name fits where it is one of the module's after a prefix is taken away, and has its shape. What wrappers such as
DataParallel and torch.compile add anywhere in names does not count, on either side.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .checkpoint_files import StateDict

if TYPE_CHECKING:
    from torch import nn

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

_LONGEST = 1000  # characters of a name with a prefix; names of modules have some 100

_AVERAGED = re.compile(r"(^|[._])(ema|teacher|averaged|swa)([._]|$)|(^|[._])ema_|_ema([._]|$)")
_FOLLOWS = re.compile(r"(^|[._])(encoder_k|momentum|target|discriminator)")


@dataclass(frozen=True)
class Fit:
    """A state dict as a module may take it.

    Attributes:
        state: of the checkpoint.
        prefix: that is taken away, with the dot at its end.
        values: name without the prefix -> value; names that the module knows are the module's.
        outside: names of the state dict without the prefix.
        count: of names that fit.
    """

    state: StateDict
    prefix: str
    values: dict[str, Any]
    outside: list[str]
    count: int

    @property
    def path(self) -> str:
        """Where the weights lie in the file."""
        return ".".join(filter(None, (self.state.key, self.prefix.rstrip("."))))

    def versions(self, module: nn.Module) -> dict[str, dict[str, Any]]:
        """Return what torch keeps for each module beside the tensors, by the module's own names."""
        own = {plain(path): path for path, _ in module.named_modules()}
        held = {plain(path): kept for path, kept in self.state.versions.items()}
        prefix = self.prefix.rstrip(".")
        inside = {
            path.removeprefix(prefix).lstrip("."): kept
            for path, kept in held.items()
            if path == prefix or not prefix or path.startswith(f"{prefix}.")
        }
        return {own.get(path, path): kept for path, kept in inside.items()}


def fits(states: Iterable[StateDict], shapes: Mapping[str, Any], key: str | None = None) -> list[Fit]:
    """List how state dicts fit a module, the best first.

    Of those under which equally many names fit, averaged weights (`ema`, `teacher`) come first, which are what such
    training is for; then those that stand first in the file.

    Args:
        states: of the checkpoint.
        shapes: name -> shape of the module, None for any.
        key: where weights must lie: keys of dicts, and then a prefix; None for anywhere.

    Returns:
        Every state dict and prefix under which most of the names fit; if there are none, the best one. Nothing if
        there is none under the key.
    """
    own = _by_plain_name(shapes)
    found = [fit for state in states for fit in _fits_of(state, own, shapes, key)]
    found.sort(key=lambda fit: (-fit.count, not _AVERAGED.search(fit.path), bool(_FOLLOWS.search(fit.path))))
    return [fit for fit in found if 2 * fit.count > len(shapes)] or found[:1]


def shape_differs(value: Any, wanted: Any) -> bool:
    """Check whether a value has another shape than the one that is wanted; None wants any."""
    return wanted is not None and tuple(wanted) != getattr(value, "shape", None)


def plain(name: str) -> str:
    """Return a dotted name without what wrappers have put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """Map names without wrappers to names; where two become one, each is known by its full name only."""
    counts = collections.Counter(map(plain, names))
    return {plain(name) if counts[plain(name)] == 1 else name: name for name in names}


def _fits_of(state: StateDict, own: Mapping[str, str], shapes: Mapping[str, Any], key: str | None) -> list[Fit]:
    """List how a state dict fits: under no prefix, and under each that makes a name of the module of one of its."""
    counts: dict[str, int] = collections.Counter({"": 0})
    theirs = _by_plain_name(state.values)
    for known, name in theirs.items():
        for prefix, rest in _splits(known):
            if rest in own and not shape_differs(state.values[name], shapes[own[rest]]):
                counts[prefix] += 1
    counts = {prefix: count for prefix, count in counts.items() if key is None or _lies_under(key, state, prefix)}
    most = max(counts.values(), default=0)
    return [_fit(state, prefix, count, theirs, own) for prefix, count in counts.items() if 2 * count >= most]


def _lies_under(key: str, state: StateDict, prefix: str) -> bool:
    """Check whether a key that the user gave is where names with a prefix lie, or is above it."""
    return f"{state.key}.{prefix}".lstrip(".").startswith(f"{key.strip('.')}.")


def _splits(name: str) -> Iterable[tuple[str, str]]:
    """Split a name before it, and at each of its dots; a long one only before it, since each split copies it."""
    at = 0
    while True:
        yield name[:at], name[at:]
        at = name.find(".", at) + 1
        if not at or len(name) > _LONGEST:
            return


def _fit(state: StateDict, prefix: str, count: int, theirs: Mapping[str, str], own: Mapping[str, str]) -> Fit:
    values, outside = {}, []
    for known, name in theirs.items():
        if known.startswith(prefix):
            rest = known[len(prefix) :]
            values[own.get(rest, rest)] = state.values[name]
        else:
            outside.append(name)
    return Fit(state, prefix, values, outside, count)
