"""Axes that a pass of the model proves."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import ShapeError
from ...models.layers import every_module
from ..tracing.proof import NAMES, Proof, possible, prove, why_out_of_place
from ..tracing.trace import lost_sight, traced_roles
from .evidence import Evidence, channels_position, known_grids, may_be_last
from .record import Axes

if TYPE_CHECKING:
    from torch import nn

    from ..tracing.roles import Roles

_CHANNELS_AT = {"nchw": 1, "nhwc": -1}


class _Known(NamedTuple):
    """A proof of maps, which holds for other sizes of input too: a run over images of many sizes traces one of them.

    proof: names the axes.
    channels: how many there are. If the order depended on the size, another number would stand in their place.
    called: kept alive, so that the ids by which the proof is found stand for nothing else.
    """

    proof: Proof
    channels: int
    called: tuple[Any, Any]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Check whether an output has the channels where the proof says, and only there."""
        here = _CHANNELS_AT[self.proof.name]
        return shape[here] == self.channels and self.channels not in (shape[2], shape[-1 if here == 1 else 1])


_Orders = dict[tuple[str, int, int, int], _Known]
_orders: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], _Orders]] = weakref.WeakKeyDictionary()


def as_proven(shape: tuple[int, ...], evidence: Evidence) -> Axes | None:
    """Return the axes that a pass of the model proves, or refuse; None where it proves nothing."""
    proof = proof_of(shape, evidence)
    if proof is None:
        return None
    if proof.name:
        # The tokens of a clip must be named: a sheet for each of its steps is more than anyone expects.
        if proof.grid and proof.steps > 1:
            return None
        name = depth_first(evidence) if proof.name == "ncthw" else proof.name
        return Axes(name, proof.steps, proof.prefix, proof.grid)
    of_signals = evidence.input_shape is not None and len(evidence.input_shape) < 4
    if _begins_inside(shape, evidence, proof) or (of_signals and not proof.places):
        return None
    raise ShapeError(
        f"layer {evidence.layer!r} puts out {shape}, which has no maps: {proof.reason}. "
        f"`cnnviz layers` shows the layers."
    )


def proof_of(shape: tuple[int, ...], evidence: Evidence) -> Proof | None:
    """Return what a pass of the model proves of an output.

    Args:
        shape: shape of the output.
        evidence: its layer, the model and the input; the pass needs all three.

    Returns:
        The proof; None where the pass did not come that far, or lost sight of an axis.
    """
    if len(shape) not in (3, 4, 5):
        return None
    known = _orders_of(evidence)
    at = (evidence.layer, len(shape), id(evidence.called[0]), id(evidence.called[1]))
    if at in known and known[at].fits(shape):
        return known[at].proof
    roles = _roles(shape, evidence)
    proof = None if roles is None else prove(roles)
    if proof is not None and proof.name in _CHANNELS_AT:
        known[at] = _Known(proof, shape[_CHANNELS_AT[proof.name]], evidence.called)
    return proof


def out_of_place(axes: Axes, shape: tuple[int, ...], evidence: Evidence) -> str:
    """Find why maps read by these axes do not lie in the image as they are drawn.

    Args:
        axes: how the output is read.
        shape: its shape.
        evidence: what is known of it. Where a pass without values does not come to its layer, the model itself runs.

    Returns:
        The reason, which follows on "which"; "" where none is known.
    """
    if axes.name == "matrix":
        return "has no place in it"
    roles = _roles(shape, evidence, values=True)
    name = "ncthw" if axes.name == "ncdhw" else axes.name  # which of the two it is no pass can tell
    if roles is not None:
        return why_out_of_place(roles, name) if name in NAMES else ""
    if evidence.model is None or evidence.input_shape is None:
        return ""
    lost = lost_sight(evidence.model, evidence.layer, evidence.input_shape, evidence.called, evidence.layers)
    return "holds nothing that a pass of the model could follow from the input" if lost else ""


def not_ruled_out(shape: tuple[int, ...], evidence: Evidence, sides: tuple[int, ...], name: str) -> bool:
    """Check whether what a pass saw allows maps of these sides: if it lost sight of them, others had this size.

    Args:
        shape: shape of the output.
        evidence: what is known of it.
        sides: rows and columns of the maps.
        name: of the axes that would make them so.

    Returns:
        True too where no pass saw the output.
    """
    roles = _roles(shape, evidence)
    allowed = None if roles is None else possible(roles)
    return allowed is None or (name in allowed and sides in known_grids(evidence))


def _orders_of(evidence: Evidence) -> _Orders:
    """Return the proofs of maps that are known of a model; none once it has got other layers."""
    model, layers = evidence.model, evidence.layers
    if model is None:
        return {}
    if layers is None:
        layers = tuple(map(id, every_module(model).values()))
    if model not in _orders or _orders[model][0] != layers:
        _orders[model] = (layers, {})
    return _orders[model][1]


def _roles(shape: tuple[int, ...], evidence: Evidence, values: bool = False) -> Roles | None:
    """Return what the axes of an output hold, None where no pass shows it."""
    if evidence.model is None or evidence.input_shape is None:
        return None
    # A pass with values takes as long as the user's own: not for the order of axes that the class of a layer says.
    values = values or channels_position(evidence.module, shape) != "first"
    return traced_roles(
        evidence.model, evidence.layer, shape, evidence.input_shape, values, evidence.called, evidence.layers
    )


def _begins_inside(shape: tuple[int, ...], evidence: Evidence, proof: Proof) -> bool:
    """Check whether maps may have begun inside a model, as a generator's: they hold no positions of its input."""
    if proof.places or len(shape) < 4:
        return False
    return channels_position(evidence.module, shape) == "first" or not may_be_last(evidence)


def depth_first(evidence: Evidence) -> str:
    """Return what the third of five axes is: time, where clips in colour went in, else the depth of a volume."""
    clip = evidence.input_shape is None or evidence.input_shape[1] == 3
    return "ncthw" if clip else "ncdhw"
