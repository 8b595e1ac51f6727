"""Rules of operations that take entries of an axis together: sums, normalisations, products, attention."""

from __future__ import annotations

from .calls import Call, Found, Rule, refuse, tensors
from .reach import Reach, combined, plain


def over(name: str, what: str) -> Rule:
    """Make the rule of what takes all entries along axes together: those that the argument of this name names."""

    def rule(call: Call) -> Found:
        dims = call.dims(name)
        refuse(call.first, dims, f"{what or call.name.strip('_')} over")
        if len(call.shape) == len(call.first.axes):
            found = call.first
            for dim in dims:
                found = found.with_axis(dim, plain(call.shape[dim]))
            return found
        return Reach(tuple(axis for at, axis in enumerate(call.first.axes) if at not in dims))

    return rule


def normalised(call: Call) -> Found:
    """Follow the normalisation of the last axes: of channels, or of maps as a whole."""
    axes = len(call.given["normalized_shape"])
    refuse(call.first, range(len(call.first.axes))[-axes:], "layer normalisation over")
    return _before_others(call.first, call)


def normalised_in_groups(call: Call) -> Found:
    """Follow the normalisation of groups of channels, each over all its positions."""
    refuse(call.first, range(1, len(call.first.axes)), "group normalisation over")
    return _before_others(call.first, call)


def normalised_by_channel(call: Call) -> Found:
    """Follow batch normalisation: by statistics that are stored, or by those of the map itself."""
    if call.given.get("training", call.given.get("train", "no_training" not in call.name)):
        others = [dim for dim in range(len(call.first.axes)) if dim != 1]
        refuse(call.first, others, "normalisation by the map's own values over")
    return _before_others(call.first, call)


def _before_others(reach: Reach, call: Call) -> Found:
    """Return the reach of the first output; the others, such as means, are made for gradients, and not followed."""
    return [reach, *(Reach((), (f"a second output of {call.name.strip('_')}",)) for _ in call.outputs[1:])]


def product(first: str, second: str) -> Rule:
    """Make the rule of a product of two matrices, or of batches of them, the arguments of these names."""

    def rule(call: Call) -> Found:
        a, b = call.reach(call.given[first]), call.reach(call.given[second])
        for reach, dim in ((a, -1), (b, -2)):
            refuse(reach, [dim], "a matrix product over")
        batch = combined([Reach(a.axes[:-2]), Reach(b.axes[:-2])], call.shape[:-2]).axes
        found = Reach((*batch, a.axes[-2], b.axes[-1]))
        others = [tensor for name, tensor in call.given.items() if name not in (first, second)]
        return combined([found, *map(call.reach, tensors(others))], call.shape)

    return rule


def linear(call: Call) -> Found:
    """Follow a linear layer along the last axis."""
    x = call.first
    refuse(x, [len(x.axes) - 1], "a matrix product over")
    return x.with_axis(len(x.axes) - 1, plain(call.shape[-1]))


def attended(call: Call) -> Found:
    """Follow attention: every query sees all keys."""
    query, key, value = (call.reach(call.given[name]) for name in ("query", "key", "value"))
    for reach in (key, value):
        refuse(reach, [len(reach.axes) - 2], "attention over")
    found = combined([Reach(reach.axes[:-2]) for reach in (query, key, value)], call.shape[:-2])
    return _before_others(Reach((*found.axes, query.axes[-2], value.axes[-1])), call)
