"""What goes into a model: how many channels, on how many axes, and inputs of zeros to try it on.

A model's own preprocessing says it best. Where there is none, the convolutions say it: not the first that is listed,
since a head may be registered before the stem, but the first whose number of channels a pass runs on. Where that one is
lazy, it says the number of axes alone: the channels are a guess, until an input has others.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..runtime.generators import generators_kept
from .layers import has_lazy, meta_copy

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZES = {1: (1024,), 2: (224, 224), 3: (32, 32, 32)}
"""Size of a signal, an image and a volume where nothing says it, by the number of their axes behind the channels."""


@dataclass(frozen=True)
class ExpectedInput:
    """What one sample of a model's input looks like.

    Attributes:
        channels: number of its channels.
        spatial_axes: number of axes behind the channels: 1 of a signal, 2 of an image, 3 of a volume or a clip.
        channel_axis: whether the channels have an axis; that of a depth map (H, W) or a sound (L) has none.
        is_known: whether a convolution or the model's own preprocessing says so; else it is the usual guess.
    """

    channels: int = 3
    spatial_axes: int = 2
    channel_axis: bool = True
    is_known: bool = True

    @property
    def is_photo(self) -> bool:
        """Whether it is an image in colour or in grey, as files of images hold it."""
        return self.spatial_axes == 2 and self.channels in (1, 3)

    def looks_like_colours(self, shape: Sequence[int]) -> bool:
        """Check whether a shape without an axis of channels rather has one, of colours, at its end.

        Args:
            shape: of an array or a tensor that may be one sample, or samples, of one channel.

        Returns:
            True for a photo (H, W, 3) in place of a volume (D, H, W), and for an image (H, W, 1) in place of H images.
        """
        colours = (1,) if self.spatial_axes == 1 else (1, 3, 4)
        return len(shape) > 1 and shape[-1] in colours and shape[-1] < min(shape[:-1])

    @property
    def axes(self) -> str:
        """Return the axes of a sample, for messages: "3, H, W"."""
        spatial = {1: "L", 2: "HW", 3: "DHW"}[self.spatial_axes]
        return ", ".join((str(self.channels), *spatial) if self.channel_axis else spatial)


IMAGE = ExpectedInput()
GUESS = ExpectedInput(is_known=False)
_GUESSES = {1: ExpectedInput(1, 1, is_known=False), 2: GUESS, 3: ExpectedInput(1, 3, is_known=False)}
_RANKS = tuple((f"{kind}{rank}d", rank) for kind in ("Conv", "ConvTranspose") for rank in (1, 2, 3))
# What modules expect never changes, and a pass may be needed to find it.
_found: weakref.WeakKeyDictionary[nn.Module, ExpectedInput] = weakref.WeakKeyDictionary()


def expected_of(module: nn.Module) -> ExpectedInput:
    """Return what a module takes, as its convolutions tell.

    Args:
        module: any module. It is left as it was.

    Returns:
        The first of `candidates` that the first convolution of a pass without values takes; where none fits, the first
        of all.
    """
    if (known := _found.get(module)) is not None:
        return known
    listed = candidates(module)
    fitting = (each for each in listed if _fits(module, each)) if len(listed) > 1 else iter(())
    found = next(fitting, listed[0])
    if not has_lazy(module):
        _found[module] = found
    return found


def keep_guess(module: nn.Module) -> None:
    """Keep what a lazy module is expected to take: an example on which it is initialised makes that no surer."""
    _found[module] = expected_of(module)


def is_guessed(module: nn.Module) -> bool:
    """Check whether the channels of a module are a guess, since its first convolution is lazy, or was when loaded."""
    return next(_convolutions(module), None) is not None and not expected_of(module).is_known


def candidates(module: nn.Module) -> list[ExpectedInput]:
    """List what a module may take.

    Args:
        module: any module.

    Returns:
        What each convolution takes, in the order of the modules, and an image of three channels: first where a
        convolution takes one, behind them where only others are there. Last, what those of one channel take where the
        model itself adds the axis of the channels. Before all others, guesses for convolutions that are lazy. `GUESS`
        alone without any convolution.
    """
    convolutions = list(_convolutions(module))
    guesses = [_GUESSES[rank] for part, rank in convolutions if not _channels(part)]
    found = [ExpectedInput(channels, rank) for part, rank in convolutions if (channels := _channels(part))]
    if not found:
        return list(dict.fromkeys(guesses)) or [GUESS]
    bare = [replace(each, channel_axis=False) for each in found if each.channels == 1]
    known = [IMAGE, *found, *bare] if IMAGE in found else [*found, IMAGE, *bare]
    return list(dict.fromkeys([*guesses, *known]))


def zeros(expected: ExpectedInput, size: int | Sequence[int] | None = None) -> torch.Tensor:
    """Make a batch of one sample of zeros, stored as one number.

    Args:
        expected: what the sample looks like.
        size: of its axes behind the channels, one number for all; None for the usual one.

    Returns:
        (1, C, L), (1, C, H, W) or (1, C, D, H, W) float32, without C where the sample has no axis for it.
    """
    import torch

    rank = expected.spatial_axes
    sides = SIZES[rank] if size is None else (size,) * rank if isinstance(size, int) else tuple(size)
    return torch.zeros(()).expand(1, *(expected.channels,) * expected.channel_axis, *sides)


def example_inputs(
    module: nn.Module, sample: torch.Tensor | None, size: int | Sequence[int] | None = None
) -> Iterator[torch.Tensor]:
    """List inputs on which a model may run, the most likely first.

    Args:
        module: any module.
        sample: (C, ...) float, as the model's own preprocessing makes it; None where it has none.
        size: of the axes behind the channels, one number for all; None leaves it to the sample.

    Yields:
        (1, C, ...) float32 zeros, each stored as one number.
    """
    import torch

    if sample is not None:
        shape = tuple(sample.shape)
        sides = (size, size) if isinstance(size, int) else tuple(size or ())
        yield torch.zeros(()).expand(1, *shape[: len(shape) - len(sides)], *sides)
    for expected in dict.fromkeys((expected_of(module), *candidates(module))):
        fits = size is None or isinstance(size, int) or len(size) == expected.spatial_axes
        if fits and (sample is None or sample.shape[0] != expected.channels):
            yield zeros(expected, size)


class _Reached(Exception):
    """Raised by the first convolution that has run: whether it was lazy."""


def _fits(module: nn.Module, expected: ExpectedInput) -> bool:
    return reaches(module, zeros(expected), is_known=expected.is_known)


def reaches(module: nn.Module, batch: torch.Tensor, *, is_known: bool = True) -> bool:
    """Check whether the first convolution of a pass runs, on a copy of a module without values.

    What fails behind it says nothing: a linear layer there may take one size of image only. One that is lazy takes any
    number of channels, so it fits a guess alone.

    Args:
        module: any module. It is left as it was.
        batch: (N, C, ...) float; its values do not count.
        is_known: whether its channels are those of a convolution, and not a guess.

    Returns:
        Whether it runs; False for a module without convolutions.
    """
    import torch

    def reached(part: nn.Module, *_: object) -> None:
        raise _Reached(part in lazy)

    try:
        twin = meta_copy(module).eval()
        lazy = {part for part, _ in _convolutions(twin) if not _channels(part)}
        for part, _ in _convolutions(twin):
            part.register_forward_hook(reached)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), generators_kept():
            twin(batch.to("meta"))
    except _Reached as first:
        is_lazy: bool = first.args[0]
        return is_lazy != is_known
    except Exception:  # a user's module may raise anything, also because it looks at values
        return False
    return False


def _channels(convolution: Any) -> int:
    """Return the channels that a convolution takes; 0 for one that is lazy still."""
    from torch.nn.parameter import is_lazy

    if convolution.in_channels or is_lazy(convolution.weight):
        return int(convolution.in_channels)
    return int(convolution.weight.shape[1] * convolution.groups)  # a checkpoint has given it its shape


def _convolutions(module: nn.Module) -> Iterator[tuple[Any, int]]:
    """List the convolutions of a module with the number of their spatial axes."""
    from torch import nn

    kinds = [(getattr(nn, name), rank) for name, rank in _RANKS]
    for part in module.modules():
        for kind, rank in kinds:
            if isinstance(part, kind):
                yield part, rank
