"""How weights are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from .declared import SelfChecking, option
from .parsers import (
    choice,
    text,
    whole,
)

KERNEL_PICTURES = ("auto", "grid", "norm", "mean", "none")


@dataclass(frozen=True, kw_only=True)
class KernelOptions(SelfChecking):
    """Say how weights are drawn; `kernel_sheets.py` says what each picture shows."""

    kernels: str = option(
        "auto",
        choice(*KERNEL_PICTURES),
        "pictures of weights: a grid of output channels by input channels (grid), a tile for each output channel with "
        "the norm or mean over its inputs (norm, mean), what suits the shape, with 3 inputs in colour (auto), or none",
        "|".join(KERNEL_PICTURES),
    )
    scale: int | None = option(None, whole(1), "px a side of each weight (default: as many as fit the screen)", "PX")
    colormap: str | None = option(
        None, text, "name of a colormap (default: coolwarm with 0 in the middle, for norms viridis)", "NAME"
    )
    threads: int | None = option(None, whole(1), "workers that measure, draw and encode (default: one a core)", "N")
