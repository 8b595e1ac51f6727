"""Targets: the scores whose causes are looked for, from classes and functions to single units of inner layers.

281, "281", "tabby"     a class, by its index or its name
"top", "top5"           the class, or the 5 classes, with the highest scores, of each image by itself
function                of the output: a pixel of a segmentation, a box of a detection, a similarity; it returns a
                        score, (N,), or T scores, (N, T), for each row of the output, however many these are
("layer3", 12)          a channel of an inner layer, averaged over its map; as text "layer3@12"
("layer3", 12, "max")   the unit of it that is strongest in an image; as text "layer3@12,max"
("layer3", 12, 4, 5)    one unit of it, at row 4 and column 5; as text "layer3@12,4,5"
("layer3", "0-63")      several channels, each a target; as text "layer3@0-63", "layer3@0-63,max", "layer3@all,max"
[281, "top", ...]       several targets
[[281, 282], [5, 6]]    several classes for each image: a row for each; also an array of integers, (N,) or (N, T)
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..activations.tensors import tensors_in
from ..errors import InputError, OptionError, ShapeError, closest, repr_of

if TYPE_CHECKING:
    import torch

SHOWN_CLASSES = 8
"""Names in the line that refuses a class: so many show what names there look like."""

_TOP = re.compile(r"top([1-9]\d{0,5})?")
_UNIT = re.compile(r"(.+)@(all|\d{1,9}(?:-\d{1,9})?)(?:,(max)|,(\d{1,9}),(\d{1,9}))?", re.DOTALL)


@dataclass(frozen=True)
class Classes:
    """Classes by index: `rows` holds one row for every image, or one for each, of the same length."""

    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Top:
    """The classes with the highest scores, of each image by itself."""

    count: int


@dataclass(frozen=True)
class Function:
    """A function of the output of the model."""

    call: Callable[[Any], Any]


@dataclass(frozen=True)
class Unit:
    """Channels of the layer that a pattern names, each a target: averaged, or one unit of each.

    Attributes:
        layer: the pattern.
        channels: of the layer; None for all.
        at: None for the average of the map, "max" for its strongest unit, or the row and the column of one.
    """

    layer: str
    channels: range | None
    at: tuple[int, int] | str | None = None

    def label(self, channel: int) -> str:
        """Return how the unit of a channel is written as text."""
        at = () if self.at is None else (self.at,) if isinstance(self.at, str) else self.at
        return ",".join(map(str, (f"{self.layer}@{channel}", *at)))


Wanted = Classes | Top | Function | Unit


@dataclass(frozen=True)
class Scores:
    """The scores of some images.

    Attributes:
        columns: of each target (N,) float32, to be differentiated one after the other.
        labels: of each image, T names.
        targets: those with which other passes get the same scores: the classes that were highest in this one.
        single: whether there is one target, not a list of them.
    """

    columns: tuple[torch.Tensor, ...]
    labels: tuple[tuple[str, ...], ...]
    targets: Targets
    single: bool

    @property
    def values(self) -> torch.Tensor:
        """Return the scores as (N, T) float32."""
        import torch

        return torch.stack(self.columns, 1)

    def detached(self) -> Scores:
        """Return the scores without what they were computed from."""
        return dataclasses.replace(self, columns=tuple(column.detach() for column in self.columns))

    def part(self, first: int, last: int) -> Scores:
        """Return the scores of images first..last-1, of the same targets."""
        columns = tuple(column[first:last] for column in self.columns)
        return dataclasses.replace(self, columns=columns, labels=self.labels[first:last])


@dataclass(frozen=True)
class Targets:
    """What was asked for.

    Attributes:
        wanted: one after the other.
        single: whether it was one target, not a list of them. A function shows it by what it returns.
        categories: names of the classes, where they are known.
    """

    wanted: tuple[Wanted, ...]
    single: bool
    categories: tuple[str, ...] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the inner layers whose units are among the targets."""
        return tuple(dict.fromkeys(each.layer for each in self.wanted if isinstance(each, Unit)))

    @property
    def need_output(self) -> bool:
        """Return whether any target is a score of what the model itself puts out."""
        return not all(isinstance(each, Unit) for each in self.wanted)

    def at(self, image: int) -> Targets:
        """Return the targets of one image, for a batch of variants of it."""
        wanted = tuple(
            Classes((each.rows[image],)) if isinstance(each, Classes) and len(each.rows) > 1 else each
            for each in self.wanted
        )
        return dataclasses.replace(self, wanted=wanted)

    def scores(self, output: Any, maps: Mapping[str, torch.Tensor], images: int) -> Scores:
        """Return the scores of a pass.

        Args:
            output: what the model put out; None where no target needs it.
            maps: of each of `layers`, its maps (N, C, H, W).
            images: N.

        Returns:
            The scores, linked to the output and the maps by gradients.

        Raises:
            InputError: the output has no classes, not these, or a function returns no scores.
        """
        import torch

        columns: list[torch.Tensor] = []
        labels: list[list[str]] = [[] for _ in range(images)]
        found: list[Wanted] = []
        single = self.single
        for each in self.wanted:
            fixed = each
            if isinstance(each, Function):
                values = _returned(each.call, output, images)
                single = single and values.ndim == 1
                values = values.reshape(images, -1)
                name = getattr(each.call, "__name__", type(each.call).__name__).strip("<>")
                names = [[name if values.shape[1] == 1 else f"{name} {t}" for t in range(values.shape[1])]] * images
            elif isinstance(each, Unit):
                values, channels = _of_unit(each, maps[each.layer])
                names = [[each.label(channel) for channel in channels]] * images
            else:
                classes = class_scores(output, images)
                fixed = _fixed(each, classes)
                rows = torch.tensor(fixed.rows, device=classes.device).expand(images, -1)
                values, names = classes.gather(1, rows), [[self.label(c) for c in row] for row in rows.tolist()]
            columns += values.float().unbind(1)
            for row, more in zip(labels, names, strict=True):
                row += more
            found.append(fixed)
        same = dataclasses.replace(self, wanted=tuple(found))
        return Scores(tuple(columns), tuple(map(tuple, labels)), same, single)

    def label(self, index: int) -> str:
        """Return what a class is called: its index, and its name where that is known."""
        named = self.categories is not None and index < len(self.categories)
        return f"{index} {self.categories[index]}" if named and self.categories else str(index)


NO_TARGETS = Targets((), single=True)
"""For methods that go without."""


def parse_targets(target: Any, categories: Sequence[str] | None, images: int) -> Targets:
    """Read what a user writes for targets.

    Args:
        target: see the head of this file.
        categories: names of the classes, where they are known.
        images: number of images.

    Returns:
        The targets.

    Raises:
        OptionError: it is no target, no class has this name, or several have.
        ShapeError: rows for another number of images.
    """
    names = None if categories is None else tuple(categories)
    if hasattr(target, "tolist") and not callable(target):  # a tensor or an array
        target = target.tolist()
        if isinstance(target, list) and target and not isinstance(target[0], list):
            return Targets((_rows([[each] for each in target], names, images),), True, names)
    if isinstance(target, list):
        if not target:
            raise OptionError("target must name at least one, got an empty list. Leave it out for the highest class.")
        if all(isinstance(each, list) for each in target):
            return Targets((_rows(target, names, images),), False, names)
        return Targets(tuple(_one(each, names) for each in target), False, names)
    one = _one(target, names)
    if isinstance(one, Unit):
        return Targets((one,), one.channels is not None and len(one.channels) == 1, names)
    return Targets((one,), not isinstance(one, Top) or str(target) == "top", names)


def class_scores(output: Any, images: int) -> torch.Tensor:
    """Return the scores of the classes in the output of a model.

    Args:
        output: a tensor, or anything that holds one, called `logits` if there are several.
        images: number of images that went in.

    Returns:
        (N, K) real dtype.

    Raises:
        ShapeError: there are none.
    """
    found = tensors_in(output)
    tensor = found.get("[logits]") if len(found) > 1 else next(iter(found.values()), None)
    if tensor is None or tensor.ndim != 2 or len(tensor) != images:
        puts = f"{len(found)} tensors" if tensor is None else str(tuple(tensor.shape))
        raise ShapeError(
            f"target must be a function of the output for this model, which puts out {puts} and not (N, classes). "
            f"Pass one that returns (N,) scores: target=lambda output: output[:, 0, 4, 5]; or a unit of a layer."
        )
    return tensor


def _one(target: Any, categories: tuple[str, ...] | None) -> Wanted:
    """Read one target."""
    if isinstance(target, str):
        return _of_text(target, categories)
    if isinstance(target, tuple):
        return _unit(target)
    if callable(target):
        return Function(target)
    return Classes(((_index(target),),))


def _of_text(text: str, categories: tuple[str, ...] | None) -> Wanted:
    if top := _TOP.fullmatch(text):
        return Top(int(top[1] or 1))
    if text.isascii() and text.isdigit():
        return Classes(((_index(int(text)),),))
    if unit := _UNIT.fullmatch(text):
        return Unit(unit[1], _channels(unit[2]), (int(unit[4]), int(unit[5])) if unit[4] else unit[3])
    return Classes(((_named(text, categories),),))


def _named(name: str, categories: tuple[str, ...] | None) -> int:
    """Return the index of the class with a name, or with it among several that a comma parts."""
    if categories is None:
        raise OptionError(
            f"target must be the index of a class, as this model's classes have no names, got {repr_of(name)}. "
            f"Others: top, top5, LAYER@CHANNEL."
        )
    wanted = name.casefold().strip()
    found = [index for index, each in enumerate(categories) if each.casefold() == wanted] or [
        index for index, each in enumerate(categories) if wanted in each.casefold().split(", ")
    ]
    if len(found) > 1:
        raise OptionError(
            f"target must name one class, and {repr_of(name)} names {len(found)}: {', '.join(map(str, found[:8]))}. "
            f"Give the index."
        )
    if not found:
        raise OptionError(
            f"no class {repr_of(name)} in the model.{closest(name, categories)} "
            f"Its {len(categories)} classes begin with: {', '.join(categories[:SHOWN_CLASSES])}."
        )
    return found[0]


def _unit(target: tuple[Any, ...]) -> Unit:
    layer, *unit = target or (None,)
    if len(unit) not in (1, 2, 3) or not isinstance(layer, str) or (len(unit) == 2 and unit[1] != "max"):
        raise OptionError(
            f"target must be (layer, channel), (layer, channel, y, x) or (layer, channel, 'max') where it is a tuple, "
            f"got {repr_of(target)}. Several targets are a list."
        )
    if len(unit) == 3:
        return Unit(layer, _channels(unit[0]), (_index(unit[1]), _index(unit[2])))
    return Unit(layer, _channels(unit[0]), *unit[1:])


def _channels(value: Any) -> range | None:
    """Return channels: of 12, "12", "0-63", range(64) or "all", which is None."""
    if isinstance(value, str) and value == "all":
        return None
    found = value if isinstance(value, range) else range(0)
    if isinstance(value, str) and (ends := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", value)):
        found = range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    elif not isinstance(value, str | range):
        found = range(_index(value), _index(value) + 1)
    if not found or found.step != 1 or found.start < 0:
        raise OptionError(f"target must have channels such as 12, '0-63' or 'all', got {repr_of(value)}.")
    return found


def _index(value: Any) -> int:
    """Return an index, 0 or more."""
    try:
        index = operator.index(value)
    except TypeError:
        index = -1
    if not 0 <= index < 2**31:
        raise OptionError(
            f"target must be a class (index or name), top, top5, a function of the output or (layer, channel), "
            f"got {repr_of(value)}."
        )
    return index


def _rows(target: list[list[Any]], categories: tuple[str, ...] | None, images: int) -> Classes:
    """Read a row of classes for each image."""
    if len(target) != images or len({len(row) for row in target}) != 1 or not target[0]:
        lengths = ", ".join(map(str, sorted({len(row) for row in target})))
        raise ShapeError(
            f"target must have a row of as many classes for each of {images} images, got {len(target)} rows of "
            f"{lengths}. One list of classes goes for all images."
        )
    rows = []
    for row in target:
        read = [_one(each, categories) for each in row]
        if not all(isinstance(each, Classes) for each in read):
            raise OptionError(f"target must be classes where each image has its own, got {repr_of(row)}.")
        rows.append(tuple(each.rows[0][0] for each in read if isinstance(each, Classes)))
    return Classes(tuple(rows))


def _fixed(wanted: Classes | Top, scores: torch.Tensor) -> Classes:
    """Return classes by index, the highest where these are wanted."""
    count = scores.shape[1]
    if isinstance(wanted, Top):
        if wanted.count > count:
            raise OptionError(f"target must be at most top{count} for this model, got top{wanted.count}.")
        return Classes(tuple(map(tuple, scores.detach().float().topk(wanted.count, 1).indices.tolist())))
    last = max(max(row) for row in wanted.rows)
    if last >= count:
        raise OptionError(f"target must be a class from 0 to {count - 1} for this model, got {last}.")
    return wanted


def _of_unit(unit: Unit, maps: torch.Tensor) -> tuple[torch.Tensor, range]:
    """Return the values of a unit in each image, (N, K), from the maps (N, C, H, W) of its layer; and its channels."""
    count, rows, cols = maps.shape[1:]
    channels = range(count) if unit.channels is None else unit.channels
    y, x = unit.at if isinstance(unit.at, tuple) else (0, 0)
    if channels[-1] >= count or y >= rows or x >= cols:
        raise OptionError(
            f"target must be a unit of layer {unit.layer!r}, which has {count} channels of {rows}x{cols}, "
            f"got {unit.label(channels[-1])}."
        )
    chosen = maps[:, channels.start : channels.stop]
    if unit.at is None:
        return chosen.float().mean((2, 3)), channels
    if isinstance(unit.at, tuple):
        return chosen[:, :, y, x], channels
    # No unit of a dead channel is the strongest: its score is cut off, so that no rule makes up a cause of it.
    places = chosen.flatten(2)
    return places.max(2).values * places.any(2), channels


def _returned(function: Callable[[Any], Any], output: Any, images: int) -> torch.Tensor:
    """Return the scores that a user's function makes of the output, (N,) or (N, T)."""
    import torch

    values = function(output)
    if not isinstance(values, torch.Tensor):
        raise InputError(f"target must return a tensor of scores, (N,) or (N, T), got {type(values).__name__}.")
    if values.ndim not in (1, 2) or len(values) != images or not values.numel() or not values.is_floating_point():
        raise ShapeError(
            f"target must return a float score for each row of the output, ({images},) or ({images}, T), "
            f"got {tuple(values.shape)} {values.dtype}."
        )
    return values
