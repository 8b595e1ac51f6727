"""Rules of operations that move entries: views, cuts, joins, picks."""

from __future__ import annotations

from .calls import Call, Found, refuse
from .lines import shifted
from .reach import Reach, Whole, combined, plain, regrouped, words


def same(call: Call) -> Found:
    """Follow what leaves every entry where it is."""
    return call.first


def viewed(call: Call) -> Found:
    """Follow reshapes of any kind."""
    return Reach(regrouped(call.first.axes, call.shape))


def permuted(call: Call) -> Found:
    """Follow axes in another order."""
    return Reach(tuple(call.first.axes[dim] for dim in call.dims("dims")))


def transposed(call: Call) -> Found:
    """Follow two axes that change places."""
    axes = list(call.first.axes)
    a, b = (call.number("dim0"), call.number("dim1")) if "dim0" in call.given else (0, -1)
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return Reach(tuple(axes))


def expanded(call: Call) -> Found:
    """Follow axes of length 1 that are spread over others."""
    return combined([call.first], call.shape)


def repeated(call: Call) -> Found:
    """Follow copies side by side: of channels, but not of maps."""
    axes = ((),) * (len(call.shape) - len(call.first.axes)) + call.first.axes
    found = []
    for axis, times, size in zip(axes, call.given["repeats"], call.shape, strict=True):
        if times != 1 and any(digit.kind is not None for digit in axis):
            raise Whole("copies of maps side by side")
        found.append(axis if times == 1 else plain(size))
    return Reach(tuple(found))


def sliced(call: Call) -> Found:
    """Follow a cut along an axis."""
    (dim,), size = call.dims("dim"), call.given["self"].shape[call.number("dim")]
    start, _, step = slice(call.given["start"], call.given["end"], call.given["step"]).indices(size)
    return call.first.cut(dim, start, step, call.shape[dim])


def split(call: Call) -> Found:
    """Follow several cuts along an axis."""
    (dim,), start, found = call.dims("dim"), 0, []
    for output in call.outputs:
        found.append(call.first.cut(dim, start, 1, output.shape[dim]))
        start += output.shape[dim]
    return found


def selected(call: Call) -> Found:
    """Follow one entry taken out of an axis."""
    (dim,) = call.dims("dim")
    refuse(call.first, [dim], "one position taken out of")
    return call.first.without_axis(dim)


def padded(call: Call) -> Found:
    """Follow padding, as if the map went on where it lies."""
    given = call.given["pad"] if "pad" in call.given else call.given["padding"]
    found = call.first
    for at, before in enumerate(given[::2]):
        dim = len(call.shape) - 1 - at
        found = found.reading(dim, shifted(-int(before)), call.shape[dim], "padding")
    return found


def joined(call: Call) -> Found:
    """Follow cat: channels of several tensors, or rows of one with constants around it, as padding puts them."""
    given = [part for part in call.given["tensors"] if part.numel()]
    dim = call.number("dim") % len(call.shape)
    reaches = [call.reach(part) for part in given]
    with_positions = [at for at, reach in enumerate(reaches) if reach.kinds(dim)]
    if not with_positions:
        both = combined([reach.with_axis(dim, plain(call.shape[dim])) for reach in reaches], call.shape)
        parts = tuple((part.shape[dim], reach) for part, reach in zip(given, reaches, strict=True))
        return Reach(both.axes, joined=(dim, parts))
    others = [reach for at, reach in enumerate(reaches) if at not in with_positions]
    if any(reach.holds_positions() for reach in others):
        raise Whole(f"{words(reaches[with_positions[0]].kinds(dim))} joined to what lies elsewhere")
    if any(len(reaches[at].axes[dim]) > 1 for at in with_positions):
        raise Whole("tokens of the map joined to others, such as a class token")
    placed = []
    for at in with_positions:
        before = sum(part.shape[dim] for part in given[:at])
        placed.append(reaches[at].reading(dim, shifted(-before), call.shape[dim], "parts joined"))
    if any(reach.axes[dim] != placed[0].axes[dim] for reach in placed):
        raise Whole(f"{words(placed[0].kinds(dim))} of several maps joined")
    return combined(placed, call.shape)


def stacked(call: Call) -> Found:
    """Follow tensors put side by side along a new axis."""
    dim = call.number("dim") % len(call.shape)
    reaches = [call.reach(part) for part in call.given["tensors"]]
    both = combined(reaches, [size for at, size in enumerate(call.shape) if at != dim])
    return Reach((*both.axes[:dim], plain(call.shape[dim]), *both.axes[dim:]))


def flipped(call: Call) -> Found:
    """Follow a reversed order of rows or columns."""
    found = call.first
    for dim in call.dims("dims"):
        found = found.reading(dim, shifted(call.shape[dim] - 1, -1), call.shape[dim], "a flip")
    return found


def rolled(call: Call) -> Found:
    """Follow a roll: of channels, but not of maps, whose ends it would join."""
    moved = call.dims("dims")  # all, of a roll of the flattened tensor
    if len(moved) == len(call.given["shifts"]):
        moved = [dim for dim, by in zip(moved, call.given["shifts"], strict=True) if by]
    refuse(call.first, moved, "a roll around the ends of")
    return call.first


def copied(call: Call) -> Found:
    """Follow what is written over another tensor."""
    return combined([call.reach(call.given["src"])], call.shape)


def picked(call: Call) -> Found:
    """Follow an axis without positions of which entries are picked by a list of indices."""
    (dim,), picked = call.dims("dim"), call.given["index"]
    refuse(call.first, [dim], "picked")
    if call.known(picked) is not None:
        raise Whole("entries picked by the values of a tensor")
    return call.first.with_axis(dim, plain(call.shape[dim]))


def indexed(call: Call) -> Found:
    """Follow x[:, indices], where the indices come from no input."""
    given = call.given["indices"]
    dims = [dim for dim, index in enumerate(given) if index is not None]
    if any(call.known(given[dim]) is not None for dim in dims):
        raise Whole("entries picked by the values of a tensor")
    refuse(call.first, dims, "picked")
    if len(dims) != 1 or given[dims[0]].ndim != 1:
        raise Whole("entries picked along several axes")
    return call.first.with_axis(dims[0], plain(call.shape[dims[0]]))


def as_real(call: Call) -> Found:
    """Follow the two parts of complex numbers along a new axis."""
    return Reach((*call.first.axes, plain(2)))
