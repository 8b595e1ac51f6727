"""How weights are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .declared import SelfChecking, option, takes_keywords
from .keywords import KernelKeywords
from .parsers import choice, text, whole

if TYPE_CHECKING:
    from typing_extensions import Unpack

KERNEL_SHEETS = ("auto", "grid", "norm", "mean", "none")


@takes_keywords(KernelKeywords)
@dataclass(frozen=True, kw_only=True)
class KernelOptions(SelfChecking):
    """How weights are drawn; `weights/kernel_sheets.py` says what each kind shows."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[KernelKeywords]) -> None: ...

    kernels: str = option(
        "auto",
        choice(*KERNEL_SHEETS),
        "grid (output by input channels), norm or mean (over the inputs), auto (what suits the shape, 3 inputs as "
        "colours) or none",
        "KIND", "kernels",
    )  # fmt: skip
    scale: int | None = option(None, whole(1), "px of a weight's side (default: what fits the screen)", "PX", "kernels")
    colormap: str | None = option(None, text, "name (default: coolwarm about 0, for norms viridis)", "NAME", "kernels")
    threads: int | None = option(
        None, whole(1), "workers that measure, draw and encode (default: one a core)", "N", "running"
    )
