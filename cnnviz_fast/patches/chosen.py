"""Which layer, channels and entries of a run are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LayerNotFoundError, OptionError, closest
from .entries import Entries

if TYPE_CHECKING:
    from ..options.patches import PatchOptions
    from .top import TopResponses
    from .top_files import TopFile


def layer_in(file: TopFile, layer: str | None) -> str:
    """Return the name of the layer; raise LayerNotFoundError where the file has none of that name."""
    if layer is None:
        if len(file) == 1:
            return next(iter(file))
        raise OptionError(f"layer must be one of {', '.join(file)}, got none.")
    if layer not in file.layers:
        raise LayerNotFoundError(f"no layer {layer!r} in this run.{closest(layer, file)} It kept {', '.join(file)}.")
    return layer


def channels_of(wanted: PatchOptions, responses: TopResponses) -> list[int]:
    """Return the channels to draw; raise OptionError for those that there are not."""
    chosen = list(range(responses.channels)) if wanted.channels is None else list(wanted.channels)
    if not chosen:
        raise OptionError("the layer has no channels, so there is nothing to draw.")
    if max(chosen) >= responses.channels:
        raise OptionError(f"channels must be below {responses.channels} for this layer, got {max(chosen)}.")
    return chosen


def drawn_of(wanted: PatchOptions, responses: TopResponses, channels: Sequence[int]) -> Entries:
    """Return the entries to draw, (rows, columns), without columns that are empty in all rows."""
    kinds = {"top": ["top"], "random": ["random"]}.get(
        wanted.draw, [kind for kind in responses.kinds if kind.startswith("band:")]
    )
    if not set(kinds) <= set(responses.kinds) or not kinds:
        options = "--top-random 9" + " --top-bands 4" * (wanted.draw == "bands")
        raise OptionError(
            f"draw {wanted.draw!r} needs a run that kept it. Keep it in another folder: "
            f"cnnviz run MODEL SOURCE --layer L --save top {options} --out DIR"
        )
    rows = np.asarray(channels)
    kept = [responses.draws(kind) for kind in kinds]
    parts = [Entries(*(part[rows, : wanted.per_channel] for part in vars(each).values())) for each in kept]
    joined = [np.concatenate(columns, axis=1) for columns in zip(*(vars(part).values() for part in parts), strict=True)]
    held = np.isfinite(joined[0]).any(axis=0)
    held[0] = True
    return Entries(*(column[:, held] for column in joined))
