"""The options of methods of attribution. The command line is made from them."""

from __future__ import annotations

from dataclasses import dataclass

from .declared import SelfChecking, option
from .parsers import whole

METHOD_NAMES = (
    "gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "cam", "scorecam", "ablationcam",
)  # fmt: skip
"""Names of the methods, the usual one first; `attribution.api` has what each is."""


@dataclass(frozen=True, kw_only=True)
class AttributionOptions(SelfChecking):
    """What methods take beside model, images, layers and targets; None leaves it to the method."""

    chunk: int | None = option(
        None, whole(1), "variants in a pass of scorecam and ablationcam (default: 8, or the batch)", "N", "attribution"
    )
