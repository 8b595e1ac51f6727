"""Options: the only home of defaults. Frozen records that check themselves; the command line is generated from them."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import OptionError, closest

DEFAULT_TILE_PX = 224
"""Longer side of a tile where neither `tile` nor `scale` is given: the input size of most classification models."""

MAX_PIXELS = 178_000_000
"""Pictures of more pixels are refused: where Pillow refuses them too, at twice 89,478,485 (half a GiB as RGB)."""

LARGEST_CHANNEL = 2**20 - 1
"""No layer has so many; a range that ends beyond is a typing error, refused before it is spelled out in memory."""

NORMALIZATIONS = ("channel", "layer", "percentile", "symmetric", "sigmoid", "fixed")
ALIGNMENTS = ("left", "center", "corners")
UPSAMPLINGS = ("bilinear", "nearest")
BACKENDS = ("auto", "reference", "torch", "numba")
LAYOUTS = ("auto", "nchw", "nhwc", "tokens", "ncthw", "nthwc")
RESIZE_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")

Parser = Callable[[str, Any], Any]
T = TypeVar("T")


def refuse(name: str, expected: str, got: object, advice: str = "") -> OptionError:
    """Word the error for an option that has the wrong value.

    Args:
        name: of the option.
        expected: what it takes.
        got: what it was given.
        advice: a sentence on what to do, if that is not plain.

    Returns:
        The error, to be raised.
    """
    return OptionError(f"{name} must be {expected}, got {got!r}.{' ' + advice if advice else ''}")


def _whole(name: str, value: Any, least: int) -> int:
    expected = f"a whole number of at least {least}"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise refuse(name, expected, value)
    if value < least:
        raise refuse(name, expected, int(value))
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise refuse(name, "a number", value) from None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refuse(name, "a number", value)
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise refuse(name, "a finite number", number)
    return number


def float32(name: str, value: Any) -> float:
    """Take numbers that float32, in which maps are drawn, can hold."""
    number = _number(name, value)
    try:
        as_float32(number)
    except OverflowError:
        raise refuse(name, "a number that float32 can hold", number) from None
    return number


def as_float32(number: float) -> float:
    """Round a number to the nearest that float32 has; OverflowError where there is none."""
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]  # the native "f" would overflow to infinity
    return rounded


def _sequence(name: str, value: Any, expected: str) -> list[Any]:
    """Split '1,2' and take any sequence, so that both worlds may write lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, Iterable):
        return list(value)
    raise refuse(name, expected, value)


def whole(least: int) -> Parser:
    """Take whole numbers from `least` on."""
    return lambda name, value: _whole(name, value, least)


def positive(name: str, value: Any) -> float:
    """Take numbers above 0."""
    number = _number(name, value)
    if number <= 0:
        raise refuse(name, "a number above 0", value)
    return number


def choice(*choices: str) -> Parser:
    """Take one of `choices`, and name the nearest for a typing error."""

    def parse(name: str, value: Any) -> str:
        if value not in choices:
            hint = closest(value, choices).strip() if isinstance(value, str) else ""
            raise refuse(name, "one of " + ", ".join(choices), value, hint)
        return str(value)

    return parse


def text(name: str, value: Any) -> str:
    """Take a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise refuse(name, "a name", value)
    return value.strip()


def pixels(name: str, value: Any) -> int | tuple[int, int]:
    """Take N, 'HxW' or (H, W), each at least 1."""
    if isinstance(value, str) and "x" in value:
        value = value.split("x")
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise refuse(name, "pixels: N, HEIGHTxWIDTH or (height, width)", value)
        return _whole(name, value[0], 1), _whole(name, value[1], 1)
    return _whole(name, value, 1)


def grid(name: str, value: Any) -> tuple[int, int]:
    """Take 'auto', 'ROWSxCOLS', 'ROWSx', 'xCOLS' or (rows, cols); 0 stands for "as many as needed"."""
    expected = "'auto', 'ROWSxCOLS', 'ROWSx', 'xCOLS' or (rows, cols)"
    if value in ("auto", None):
        return (0, 0)
    if isinstance(value, str):
        found = re.fullmatch(r"(\d*)x(\d*)", value.strip())
        if not found or value.strip() == "x":
            raise refuse(name, expected, value)
        if "0" in (found[1].lstrip("0") or found[1][:1], found[2].lstrip("0") or found[2][:1]):
            raise refuse(name, expected + " with numbers from 1 on", value)
        return int(found[1] or 0), int(found[2] or 0)
    if not isinstance(value, Sequence) or len(value) != 2:
        raise refuse(name, expected, value)
    rows, cols = (0 if side is None else _whole(name, side, 0) for side in value)
    return rows, cols


def channel_list(name: str, value: Any) -> tuple[int, ...]:
    """Take '0-63,128' or whole numbers; a range includes both ends."""
    chosen: list[int] = []
    for part in _sequence(name, [value] if isinstance(value, int) else value, "channels such as '0-63,128'"):
        ends = re.fullmatch(r"(\d+)-(\d+)", part) if isinstance(part, str) else None
        first, last = (int(ends[1]), int(ends[2])) if ends else (_whole(name, part, 0),) * 2
        if last < first:
            raise refuse(name, "ranges that go upwards", part)
        if last > LARGEST_CHANNEL:
            raise refuse(name, f"channel numbers of at most {LARGEST_CHANNEL}", part)
        chosen.extend(range(first, last + 1))
    if not chosen:
        raise refuse(name, "at least one channel", value)
    return tuple(chosen)


def percentiles(name: str, value: Any) -> tuple[float, float]:
    """Take (low, high) with 0 <= low < high <= 100."""
    expected = "two percentages LOW,HIGH with 0 <= LOW < HIGH <= 100"
    ends = [_number(name, end) for end in _sequence(name, value, expected)]
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 100:
        raise refuse(name, expected, value)
    return ends[0], ends[1]


def three(name: str, value: Any) -> tuple[float, float, float]:
    """Take one number for each of red, green and blue."""
    numbers_ = [_number(name, part) for part in _sequence(name, value, "three numbers R,G,B")]
    if len(numbers_) != 3:
        raise refuse(name, "three numbers R,G,B", value)
    return numbers_[0], numbers_[1], numbers_[2]


def three_positive(name: str, value: Any) -> tuple[float, float, float]:
    """Take one number above 0 for each of red, green and blue."""
    values = three(name, value)
    if min(values) <= 0:
        raise refuse(name, "three numbers above 0", value)
    return values


def layout(name: str, value: Any) -> str:
    """Take the name of an activation layout; tokens may say more: tokens:PREFIX or tokens:PREFIX:[Tx]HxW."""
    shown = str(value).strip().lower()
    if re.fullmatch(r"tokens:\d+(:([1-9]\d*x){1,2}[1-9]\d*)?", shown):
        return shown
    return str(choice(*LAYOUTS)(name, shown if isinstance(value, str) else value))


def option(default: Any, parse: Parser, description: str, metavar: str | None = None) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: its value when left out. None is a state of its own; any other default is parsed like a given value.
        parse: checks a value and brings it into the form that the field holds.
        description: its sentence, for docstrings and the help of the command line.
        metavar: how the help shows its value.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"parse": parse, "description": description, "metavar": metavar})


class SelfChecking:
    """Base of the option records: every field goes through its parser, so a record that exists is valid."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["parse"](field.name, value))


@dataclass(frozen=True, kw_only=True)
class RenderOptions(SelfChecking):
    """Say how maps are drawn. The types are what a field holds; each takes what its sentence says, also as text."""

    tile: int | tuple[int, int] | None = option(
        None,
        pixels,
        f"tile size in px: the longer side, the map's shape is kept; HxW for an exact size "
        f"(default {DEFAULT_TILE_PX} unless scale is given)",
        "PX",
    )
    scale: float | None = option(None, positive, "tile size as a factor of the map's own size", "FACTOR")
    grid: tuple[int, int] = option("auto", grid, "rows and columns of tiles: auto, ROWSxCOLS, ROWSx or xCOLS", "GRID")
    gap: int = option(0, whole(0), "px between tiles", "PX")
    margin: int = option(0, whole(0), "px around the grid", "PX")
    normalize: str = option(
        "channel",
        choice(*NORMALIZATIONS),
        "range of values that the colormap spans: each channel's own (channel), one for all (layer), each channel's "
        "percentiles (percentile), plus/minus the largest magnitude (symmetric), a sigmoid's 0 to 1 (sigmoid), or "
        "vmin to vmax (fixed)",
        "|".join(NORMALIZATIONS),
    )
    vmin: float | None = option(None, float32, "lower end of the range, with normalize fixed", "VALUE")
    vmax: float | None = option(None, float32, "upper end of the range, with normalize fixed", "VALUE")
    percentile: tuple[float, float] | None = option(
        None, percentiles, "LOW,HIGH, with normalize percentile (default 1,99)", "LOW,HIGH"
    )
    align: str = option("center", choice(*ALIGNMENTS), "where samples lie when maps are enlarged", "|".join(ALIGNMENTS))
    upsampling: str = option(
        "bilinear",
        choice(*UPSAMPLINGS),
        "between samples: bilinear, or nearest to see the map's own cells",
        "|".join(UPSAMPLINGS),
    )
    colormap: str = option("viridis", text, "name of a colormap, such as viridis, gray, magma or coolwarm", "NAME")
    background: str = option("black", text, "colour of gaps, margins and empty cells: a name or #rrggbb", "COLOUR")
    bad: str = option("magenta", text, "colour of NaN and infinities: a name or #rrggbb", "COLOUR")
    channels: tuple[int, ...] | None = option(
        None, channel_list, "channels to draw, such as 0-63,128 (default: all)", "LIST"
    )
    backend: str = option("auto", choice(*BACKENDS), "implementation of the kernels", "|".join(BACKENDS))
    threads: int | None = option(None, whole(1), "workers that draw and encode (default: one a core)", "N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is not None and self.scale is not None:
            raise OptionError("tile and scale both set the tile size. Give one of them.")
        if self.normalize == "fixed":
            if self.vmin is None or self.vmax is None:
                raise OptionError("normalize 'fixed' needs vmin and vmax. Give both.")
            if not as_float32(self.vmin) < as_float32(self.vmax):
                raise OptionError(f"vmin must be less than vmax in float32, got {self.vmin:.9g} and {self.vmax:.9g}.")
        elif self.vmin is not None or self.vmax is not None:
            raise OptionError(f"vmin and vmax go with normalize 'fixed', got normalize {self.normalize!r}.")
        if self.normalize == "percentile":
            object.__setattr__(self, "percentile", self.percentile or (1.0, 99.0))
        elif self.percentile is not None:
            raise OptionError(f"percentile goes with normalize 'percentile', got normalize {self.normalize!r}.")


@dataclass(frozen=True, kw_only=True)
class LayoutOptions(SelfChecking):
    """Say how a layer's output is to be read; `layouts.py` says what each name means."""

    layout: str = option(
        "auto",
        layout,
        "axes of a layer's output: nchw, nhwc, tokens (or tokens:PREFIX:HxW, such as tokens:1:14x14; of a video, "
        "tokens:PREFIX:TxHxW), ncthw or nthwc for video, or auto: told from the model and the shapes",
        "|".join(LAYOUTS),
    )

    @property
    def parts(self) -> tuple[str, int | None, tuple[int, ...] | None]:
        """The name, the number of prefix tokens and the grid, its time steps first; None for what is not given."""
        name, *rest = self.layout.split(":")
        return name, int(rest[0]) if rest else None, tuple(map(int, rest[1].split("x"))) if len(rest) > 1 else None


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(SelfChecking):
    """Say how a picture becomes a model's input; None leaves a step as the model's weights define it."""

    size: int | tuple[int, int] | None = option(
        None, pixels, "resize the whole picture to this many px, N or HxW, nothing cropped", "PX"
    )
    interpolation: str | None = option(None, choice(*RESIZE_FILTERS), "filter of that resize", "|".join(RESIZE_FILTERS))
    mean: tuple[float, float, float] | None = option(
        None, three, "subtracted from the picture's R,G,B in [0, 1]; 0,0,0 with std 1,1,1 turns it off", "R,G,B"
    )
    std: tuple[float, float, float] | None = option(
        None, three_positive, "divisor of the picture's R,G,B in [0, 1] after that", "R,G,B"
    )


def takes(record: type) -> Callable[[T], T]:
    """Show the fields of an option record in the signature and docstring of a function that takes them as **options.

    So `help(render)` and editors see every option, and each is written down once, in its record.
    """

    def decorate(function: T) -> T:
        own = inspect.signature(function)  # type: ignore[arg-type]
        kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = dataclasses.fields(record)
        shown = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in fields
        ]
        function.__signature__ = own.replace(parameters=kept + shown)  # type: ignore[attr-defined]
        lines = "".join(f"        {f.name}: {f.metadata['description']}.\n" for f in fields)
        function.__doc__ = (function.__doc__ or "").replace("        **options: see below.\n", lines)
        return function

    return decorate
