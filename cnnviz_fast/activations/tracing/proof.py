"""The axes that follow from what each axis of an output holds, or the reason why it has no maps."""

from __future__ import annotations

from typing import NamedTuple

from .roles import (
    BATCH,
    CHANNELS,
    COLUMNS,
    LENGTH,
    PLACES,
    RESTORED,
    ROWS,
    TAPS,
    TIME,
    UNKNOWN,
    Axis,
    Part,
    Roles,
    length,
)

_ORDERS = {
    "nchw": "nchw", "nhwc": "nhwc", "ncthw": "ncthw", "nthwc": "nthwc", "ngc": "tokens", "gnc": "tnc", "ncg": "nct",
    "nhw": "nhw", "ncl": "ncl", "nlc": "nlc",
}  # fmt: skip
"""What four, five or three axes hold, in order, g for a grid of tokens -> the name of the axes."""
NAMES = frozenset(_ORDERS.values())
"""Names of axes that a pass can prove."""
_ONE, _GRID, _PART = "1", "g", "x"


class Proof(NamedTuple):
    """What the roles of an output prove.

    name: of the axes; "" where it has none.
    reason: why it has none.
    places: whether any axis holds positions in the image.
    steps: number of time steps.
    prefix: number of tokens before the grid.
    grid: (rows, columns) of the tokens; None for other axes.
    """

    name: str
    reason: str = ""
    places: bool = True
    steps: int = 1
    prefix: int = 0
    grid: tuple[int, int] | None = None


def prove(roles: Roles) -> Proof | None:
    """Find what the roles of an output prove.

    Args:
        roles: what each of its axes holds.

    Returns:
        The name of its axes, or the reason why it has no maps; None where the roles prove neither.
    """
    letters = "".join(map(_letter, roles))
    if UNKNOWN in letters:
        return None
    found = [order for order in _ORDERS if _agree(letters, order) and _is_even(order, roles)]
    if len(found) == 1:
        return _named(_ORDERS[found[0]], found[0], roles)
    # One token of an image, as its class token, is drawn as a vector is.
    if found or BATCH not in letters[:2] or letters == BATCH + _ONE + CHANNELS:
        return None
    if TAPS in letters:
        return Proof("", "it was unfolded, reordered, pooled along rows of rows, cut, or joined from several grids")
    places = letters.translate({ord(letter): None for letter in (BATCH, CHANNELS, _ONE)})
    if len(places) == 2 and _is_matrix(letters):
        return Proof("matrix")
    if not _complete(roles):
        return None
    if not places:
        return Proof("", "none of its axes holds positions in the image", places=False)
    return Proof("", f"its axes hold {', '.join(map(_words, roles))}")


def possible(roles: Roles) -> set[str] | None:
    """Find the axes that an output may have of which a pass has lost sight of some.

    Args:
        roles: what each of its axes holds.

    Returns:
        Names of axes, as `prove` gives them, that what is known does not speak against; None where no axis is unknown.
    """
    letters = "".join(map(_letter, roles))
    if UNKNOWN not in letters:
        return None
    return {name for order, name in _ORDERS.items() if _agree(letters, order)}


def why_out_of_place(roles: Roles, name: str) -> str:
    """Find why maps do not lie in the image as they are drawn.

    Args:
        roles: what each axis of an output holds.
        name: of the axes that it is read by.

    Returns:
        The reason, which follows on "which"; "" where nothing speaks against their place.
    """
    proof = prove(roles)
    if proof is not None and proof.name != name:
        return "has no place in it"
    order = next(order for order, named in _ORDERS.items() if named == name)
    for axis, letter in zip(roles, order, strict=True):
        parts = [inner for part in axis for inner in part.grid or (part,) if inner.kind != CHANNELS]
        if letter not in (TIME, ROWS, COLUMNS, _GRID) or not parts:
            continue
        if any(part.kind == UNKNOWN for part in parts):
            return "a pass of the model lost sight of, so that nothing shows where it lies"
        if not all(part.covers or part.kind not in PLACES for part in parts):
            return "was cut, joined or moved, so that it is not the whole image in order"
    return ""


def _is_matrix(letters: str) -> bool:
    """Check whether the last two axes hold positions, each of them all: rows by rows, or tokens by tokens."""
    last = letters[-2:]
    return len(letters) in (3, 4) and set(last) <= {ROWS, COLUMNS, LENGTH, _GRID} and set(last) != {ROWS, COLUMNS}


def _complete(roles: Roles) -> bool:
    """Check whether the parts of rows, columns and steps in all axes make up whole ones, so that none is mistaken."""
    parts = [inner for axis in roles for part in axis for inner in part.grid or (part,) if inner.kind in PLACES]
    for kind, total in {(part.kind, part.total) for part in parts}:
        left = 1
        for part in sorted((p for p in parts if (p.kind, p.total) == (kind, total)), key=lambda p: p.stride):
            if part.stride not in (1, left):
                return False
            left = part.stride * part.size
        if left != total:
            return False
    return True


def _agree(letters: str, order: str) -> bool:
    """Check whether axes may stand in an order; one of length 1 may hold anything but the batch, an unknown one all."""
    return len(letters) == len(order) and all(
        letter in (wanted, UNKNOWN) or (letter == _ONE and wanted not in (BATCH, LENGTH, _GRID))
        for letter, wanted in zip(letters, order, strict=True)
    )


def _is_even(order: str, roles: Roles) -> bool:
    """Check whether rows and columns were enlarged alike, where channels were moved into them."""
    axes = [axis for axis, kind in zip(roles, order, strict=True) if kind in (ROWS, COLUMNS) and axis]
    return len({length(axis) // axis[0].size for axis in axes}) < 2


def _letter(axis: Axis) -> str:
    """Return what an axis holds: one of the kinds of roles.py, a grid, 1 for nothing, x for something partial."""
    if not axis:
        return _ONE
    kinds = [part.kind for part in axis]
    if UNKNOWN in kinds or RESTORED in kinds:
        return UNKNOWN
    if TAPS in kinds:
        return CHANNELS if CHANNELS in kinds else TAPS  # the cells of a patch that layers have worked on are channels
    if _grid_of(axis):
        return _GRID
    # Cells that were moved into channels, as by pixel_unshuffle: the rest of their rows lies in another axis.
    if all(part.kind == CHANNELS or (part.kind in PLACES and part.size * part.stride < part.total) for part in axis):
        return CHANNELS
    # Channels that were moved into rows, as by pixel_shuffle.
    if axis[0].runs and all(part.kind == CHANNELS for part in axis[1:]):
        return axis[0].kind
    return BATCH if kinds == [BATCH] else _PART


def _grid_of(axis: Axis) -> Axis:
    """Return the parts of the grid that an axis of tokens holds; () for other axes."""
    grid = axis[0].grid if len(axis) == 1 and axis[0].grid else axis
    kinds = [part.kind for part in grid]
    whole = kinds in ([ROWS, COLUMNS], [TIME, ROWS, COLUMNS]) and all(part.runs for part in grid)
    return grid if whole else ()


def _named(name: str, order: str, roles: Roles) -> Proof:
    """Return the proof for axes that have a name, with the grid of tokens."""
    if _GRID not in order:
        steps = length(roles[order.index(TIME)]) if TIME in order else 1
        return Proof(name, steps=steps)
    axis = roles[order.index(_GRID)]
    *time, rows, columns = (part.size for part in _grid_of(axis))
    return Proof(name, steps=time[0] if time else 1, prefix=axis[0].prefix, grid=(rows, columns))


def _words(axis: Axis) -> str:
    """Return in words what an axis holds."""
    if _grid_of(axis):
        return "tokens"
    names = {BATCH: "images", CHANNELS: "channels", TIME: "steps", ROWS: "rows", COLUMNS: "columns", LENGTH: "samples",
             "tokens": "tokens"}  # fmt: skip
    return " of ".join(_state(part) + names[part.kind] for part in axis) or "1"


def _state(part: Part) -> str:
    """Return a word for positions that are not all there, or not in order."""
    if part.shift or part.flipped:
        return "rolled " if part.shift else "flipped "
    return "parts of " if part.kind in PLACES and not part.covers else ""
