"""A loaded model: the record of it, the module that runs, and an input of the right shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import InputError
from .layers import uncompiled
from .preprocess import Preprocess, imagenet_preset

if TYPE_CHECKING:
    import torch
    from torch import nn

_SAMPLE_PX = 224  # side of the image whose preprocessing gives the shape of an input


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        module: the module, in eval mode, on its device.
        preprocess: PIL image of mode RGB -> (3, H, W) float32.
        spec: what it was loaded from, such as "torchvision:resnet50".
        weights: name of its weights, such as "IMAGENET1K_V2", "random, seed 0" or a file's name.
        categories: names of the classes, where the weights come with them.
    """

    module: nn.Module = field(repr=False)
    preprocess: Preprocess = field(repr=False)
    spec: str
    weights: str
    categories: tuple[str, ...] | None = field(default=None, repr=False)


def module_of(model: LoadedModel | nn.Module) -> nn.Module:
    """Return the module of a model.

    Args:
        model: a record of `load_model`, or any module.

    Returns:
        The module itself.

    Raises:
        InputError: `model` is neither, or a module that runs no hooks.
    """
    import torch
    from torch import nn

    module = model.module if isinstance(model, LoadedModel) else model
    if not isinstance(module, nn.Module):
        kind = type(model).__name__
        advice = f" Load it first: load_model({model!r})." if isinstance(model, str) else ""
        raise InputError(f"model must be a torch.nn.Module or a record of load_model, got {kind}.{advice}")
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            "model must be a module that runs in Python, got TorchScript, which runs no hooks inside. "
            "Pass the module that it was made of."
        )
    return module


def root_of(model: LoadedModel | nn.Module) -> nn.Module:
    """Return the module to run: that of a model, without the wrapper of torch.compile.

    Args:
        model: a record of `load_model`, or any module.

    Returns:
        The module.

    Raises:
        InputError: `model` is neither, or a program of torch.export.
    """
    if type(model).__name__ == "ExportedProgram":
        raise InputError("model must be a module, got an exported program. Pass torch.export.unflatten(program).")
    return uncompiled(module_of(model))


def example_input(model: LoadedModel, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Make an input of zeros, of the shape that a model's own preprocessing gives.

    Args:
        model: the record of the model.
        size: height and width in px, one number for both; None leaves them to the preprocessing.

    Returns:
        (1, C, H, W) float32 zeros, stored as one number; (1, C, T, H, W) for a video model.
    """
    import torch
    from PIL import Image
    from torch import nn

    try:
        shape = tuple(model.preprocess(Image.new("RGB", (_SAMPLE_PX, _SAMPLE_PX))).shape)
    except Exception:  # a user's own preprocessing, or optical flow's, which takes two images
        shape = (3, _SAMPLE_PX, _SAMPLE_PX)
    # A lazy convolution does not know its channels yet.
    convolutions = (m for m in model.module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)) and m.in_channels)
    first = next(convolutions, None)
    channels = shape[0] if first is None else first.in_channels
    height, width = (size, size) if isinstance(size, int) else size or shape[-2:]
    return torch.zeros(()).expand(1, channels, *shape[1:-2], height, width)


def as_given(module: nn.Module) -> LoadedModel:
    """Make the record of a module that the caller has loaded; the module does not change."""
    return LoadedModel(module, imagenet_preset(), type(module).__name__, "as given")
