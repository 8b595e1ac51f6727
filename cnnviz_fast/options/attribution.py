"""The options of methods of attribution. The command line is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .declared import SelfChecking, option, takes_keywords
from .keywords import AttributionKeywords
from .parsers import float32, refuse, share, whole, whole_within

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_STEPS = 1000
"""Of integrated-gradients: they lie at the roots of a polynomial of this degree, which takes a second to find."""


def _number_or_image(name: str, value: Any) -> Any:
    """Take a number, or an array or tensor, whose shape shows later."""
    return value if getattr(value, "ndim", 0) else float32(name, value)


def _patch(name: str, value: Any) -> tuple[int, int]:
    """Take the row and column of a patch: 'Y,X' or (y, x)."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise refuse(name, "the row and column of a patch, such as '3,5'", value)
    return whole(0)(name, found[0]), whole(0)(name, found[1])


METHOD_NAMES = (
    "gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "cam", "scorecam", "ablationcam",
    "gradient", "input-x-gradient", "smoothgrad", "integrated-gradients", "guided", "deconvolution", "guided-gradcam",
    "rollout", "attention",
)  # fmt: skip
"""Names of the methods, the usual one first; `attribution.api` has what each is."""


@takes_keywords(AttributionKeywords)
@dataclass(frozen=True, kw_only=True)
class AttributionOptions(SelfChecking):
    """What methods take beside model, images, layers and targets; None leaves it to the method."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[AttributionKeywords]) -> None: ...

    steps: int | None = option(
        None, whole_within(1, MOST_STEPS), "steps of integrated-gradients (default: 50)", "N", "attribution"
    )
    baseline: Any = option(  # noqa: RUF009 (which exempts options of plain types)
        None, _number_or_image, "normalised value where these steps begin (default: 0)", "X", "attribution"
    )
    samples: int | None = option(
        None, whole(1), "noisy copies of an image, smoothgrad (default: 50)", "N", "attribution"
    )
    noise: float | None = option(
        None, share, "size of this noise: share of the range (default: 0.15)", "X", "attribution"
    )
    seed: int | None = option(None, whole(0), "seed of this noise (default: 0)", "N", "attribution")
    chunk: int | None = option(None, whole(1), "variants or channels at once (default: 8 variants)", "N", "attribution")
    query: tuple[int, int] | None = option(
        None, _patch, "patch whose attention is shown (default: class token)", "Y,X", "attribution"
    )
