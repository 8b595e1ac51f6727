"""Arguments and options that do not exist: which one is meant, by the names of other tools or by spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import LONGEST_NAME, UnknownOptionError, closest, repr_of

ELSEWHERE = {
    "layout": "axes",  # of drafts
    "cmap": "colormap", "palette": "colormap", "lut": "colormap",
    "blocks": "layer", "module": "layer", "node": "layer",
    "output": "out", "dest": "out", "outdir": "out", "save-dir": "out", "save-path": "out", "o": "out",
    "ext": "format", "extension": "format", "filetype": "format",
    "ckpt": "weights", "pretrained": "weights", "state-dict": "weights", "checkpoint-path": "weights",
    "model-kwargs": "model-args", "kwargs": "model-args",
    "nrow": "grid", "ncol": "grid", "rows": "grid", "cols": "grid", "columns": "grid", "ncols": "grid", "nrows": "grid",
    "padding": "gap", "pad": "gap", "spacing": "gap", "border": "margin",
    "filters": "channels", "features": "channels", "units": "channels",
    "n": "topk", "top": "topk", "limit": "topk", "num-channels": "topk", "max-channels": "topk",
    "order": "sort", "sort-by": "rank", "rank-by": "rank",
    "zoom": "scale", "upscale": "scale", "tile-size": "tile", "cell": "tile",
    "norm": "normalize", "clip": "percentile", "quantile": "percentile", "min": "vmin", "max": "vmax",
    "opacity": "alpha", "blend": "overlay", "heatmap": "overlay", "superimpose": "overlay",
    "legend": "colorbar", "cbar": "colorbar", "caption": "title", "annotate": "label", "names": "label",
    "nan-color": "bad", "facecolor": "background", "bg": "background",
    "resize": "size", "image-size": "size", "img-size": "size", "imgsz": "size", "input-size": "size", "res": "size",
    "interpolation": "upsampling", "mode": "upsampling", "pad-value": "background", "k": "topk",
    "resample": "interpolation", "transform": "preprocess", "transforms": "preprocess",
    "gpu": "device", "cuda": "device", "jobs": "threads", "num-threads": "threads", "num-workers": "readers",
    "bs": "batch", "batch-size": "batch", "split": "each", "separate": "each", "individual": "each",
    "silent": "quiet", "show": "open", "view": "open", "traceback": "debug", "verbose": "debug", "random-seed": "seed",
}  # fmt: skip
"""Names that other tools, and 0.1, have for what an option does -> its name here."""

_SPELLINGS = {"ise": "ize", "isation": "ization", "colour": "color", "-": ""}


def known_as(option: str, known: Iterable[str]) -> str | None:
    """Return the option that one stands for beyond doubt.

    Args:
        option: that nobody has, such as --cmap, --Colour_Map, --layers or cmap.
        known: all options, spelt alike.

    Returns:
        The one of `known` that only has another name, spelling, number, or letters in another case; None without one.
    """
    names = {plain(name): name for name in known}
    asked = plain(option)
    meant = [plain(name) for other, name in ELSEWHERE.items() if asked in (plain(other), f"{plain(other)}s")]
    for spelt in (*meant, *(f"{name}s" for name in meant), asked, asked.removesuffix("s"), f"{asked}s"):
        if spelt in names:
            return names[spelt]
    return None


def unknown_option(where: str, name: str, known: Iterable[str]) -> UnknownOptionError:
    """Return the error for an argument that a function or a record of options does not have.

    Args:
        where: name of the function or the record.
        name: of the argument.
        known: names that it has.

    Returns:
        The error, to be raised.
    """
    names = list(known)
    other = known_as(name, names) if len(name) <= LONGEST_NAME else None
    hint = f" Closest: {other!r}." if other else closest(name, names, count=1)
    return UnknownOptionError(f"{where} has no option {repr_of(name)}.{hint or f' See help(cnnviz_fast.{where}).'}")


def nearest(option: str, known: Iterable[str]) -> list[str]:
    """Return the options that are spelt much like one, the nearest first."""
    names = [name.removeprefix("--") for name in known if name.startswith("--")]
    asked = option.lstrip("-").lower().replace("_", "-")
    found = [f"--{name}" for name in difflib.get_close_matches(asked, names)]
    return found or [f"--{name}" for name in names if len(asked) > 2 and name.startswith(asked)]


def plain(option: str) -> str:
    """Return an option without what spellings differ in: case, dashes, British or American."""
    plain = option.lstrip("-").lower().replace("_", "-")
    for theirs, ours in _SPELLINGS.items():
        plain = plain.replace(theirs, ours)
    return plain
