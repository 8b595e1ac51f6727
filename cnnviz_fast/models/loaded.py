"""A loaded model: the record of it, the module that runs, and an input of the right shape."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, InputError
from ..options.reading import PreprocessOptions
from . import expected
from .expected import ExpectedInput, expected_of, is_guessed
from .layers import uncompiled
from .no_images import taken_instead
from .own_preprocess import ArrayPreprocess, OwnPreprocess
from .preprocess import Bare, Preprocess, grey_preset, imagenet_preset, with_options

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
        inputs: what the module takes beside the batch, or a function that makes everything it takes; see capture.
        forward: what runs instead of the module's forward, such as its method "encode_image"; see capture.
    """

    module: nn.Module = field(repr=False)
    preprocess: Preprocess = field(repr=False)
    spec: str
    weights: str
    categories: tuple[str, ...] | None = field(default=None, repr=False)
    inputs: Any = field(default=None, repr=False)
    forward: Any = field(default=None, repr=False)


# It takes a run of the preprocessing to know it.
_expected: weakref.WeakKeyDictionary[LoadedModel, ExpectedInput] = weakref.WeakKeyDictionary()


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


def expected_input(model: LoadedModel) -> ExpectedInput:
    """Return what a model takes: as its own preprocessing makes it, or else as its convolutions tell.

    The usual preprocessing of a model whose first convolution is lazy is a guess itself.

    Args:
        model: the record of the model.

    Returns:
        The channels and axes of one sample.

    Raises:
        ImageError: the user's own preprocessing makes a stack of crops where the model takes one image.
    """
    if model not in _expected:
        sample = _sample(model.preprocess)
        if isinstance(model.preprocess, OwnPreprocess) and sample is not None and sample.ndim == 4:
            _refuse_crops(model, sample)
        found = expected_of(model.module)
        if sample is not None and sample.ndim > 2:
            is_known = isinstance(model.preprocess, OwnPreprocess) or not is_guessed(model.module)
            found = ExpectedInput(sample.shape[0], sample.ndim - 1, is_known=is_known)
        _expected[model] = found
    return _expected[model]


def _refuse_crops(model: LoadedModel, sample: torch.Tensor) -> None:
    """Refuse a stack of images, (K, C, H, W), that the model does not take as a clip, though it takes its images."""
    if not expected.reaches(model.module, sample[None]) and expected.reaches(model.module, sample):
        raise ImageError(
            f"preprocess must return one image {tuple(sample.shape[1:])} for this model, got {tuple(sample.shape)}. "
            f"Return one of these crops, or give each crop as an image of its own."
        )


def example_inputs(model: LoadedModel, size: int | Sequence[int] | None = None) -> Iterator[torch.Tensor]:
    """List inputs of zeros on which a model may run, the most likely first.

    Args:
        model: the record of the model.
        size: of the axes behind the channels, one number for all; None leaves it to the preprocessing.

    Returns:
        (1, C, ...) float32 zeros, each stored as one number: first one as the model's own preprocessing makes it, then
        those that its convolutions take.
    """
    if size is None and isinstance(model.preprocess, ArrayPreprocess):
        size = model.preprocess.size
    return expected.example_inputs(model.module, _sample(model.preprocess), size)


def example_input(model: LoadedModel, size: int | Sequence[int] | None = None) -> torch.Tensor:
    """Return the first of `example_inputs`, on which most models run."""
    return next(example_inputs(model, size))


def _sample(preprocess: Preprocess) -> torch.Tensor | None:
    """Return what a preprocessing makes of an image; None where it takes no image."""
    from PIL import Image

    if isinstance(preprocess, ArrayPreprocess):
        return None
    try:
        return preprocess(Image.new("RGB", (_SAMPLE_PX, _SAMPLE_PX)))
    except Exception:  # a user's own preprocessing, or optical flow's, which takes two images
        return None


def as_given(module: nn.Module) -> LoadedModel:
    """Make the record of a module that the caller has loaded; the module does not change."""
    return LoadedModel(module, usual_preprocess(module), type(module).__name__, "as given")


def called_with(model: LoadedModel, inputs: Any = None, forward: Any = None) -> LoadedModel:
    """Return the record of a model with what it takes beside the batch, and the method that runs, where given.

    Where a function makes all that a model takes, and that is no image, any image will do to call it with.
    """
    given = {"inputs": inputs, "forward": forward}
    called = replace(model, **{name: value for name, value in given.items() if value is not None})
    if callable(inputs) and isinstance(model.preprocess, ArrayPreprocess) and taken_instead(model.module):
        return replace(called, preprocess=imagenet_preset())
    return called


def calling(model: LoadedModel | nn.Module, inputs: Any, forward: Any) -> tuple[Any, Any]:
    """Return how a model is called, `inputs` and `forward` of capture: as given, or else as its record says."""
    if not isinstance(model, LoadedModel):
        return inputs, forward
    return model.inputs if inputs is None else inputs, model.forward if forward is None else forward


def untrained(model: LoadedModel) -> str | None:
    """Return what to say of a model with weights that nobody trained; None for other models.

    Args:
        model: the record of the model.

    Returns:
        Such as "random weights (seed 0), 224x224", with the size of its input, and for how many channels lazy layers
        are made where that is a guess; None where a checkpoint or a hub gave the weights, and for a model without
        values.
    """
    kind, comma, seed = model.weights.partition(", seed ")
    if not comma or any(parameter.is_meta for parameter in model.module.parameters()):
        return None
    sample = _sample(model.preprocess)
    if sample is None:  # arrays come in any size
        size = _channels(model)
    else:
        size = "x".join(map(str, sample.shape[1:] if sample.shape[0] == 3 else sample.shape))
    lazy = f"; lazy layers are made for {_channels(model)}, until the input has others"
    said = f"{'random weights' if kind == 'random' else 'weights ' + kind} (seed {seed}), {size}"
    return said + lazy if is_guessed(model.module) else said


def _channels(model: LoadedModel) -> str:
    """Return in words how many channels a model takes."""
    count = expected_input(model).channels
    return f"{count} channel{'s' * (count != 1)}"


def fitting_preprocess(model: LoadedModel, arguments: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing of a model that arguments have built for other channels or another size.

    Args:
        model: the record of the model, with the preprocessing of the one that it is a variant of.
        arguments: that built it.

    Returns:
        The usual preprocessing for its channels where they are others; with the size that an argument names.
    """
    sample, takes, preprocess = _sample(model.preprocess), expected_of(model.module), model.preprocess
    size = next((arguments[name] for name in ("img_size", "image_size", "input_size") if name in arguments), None)
    if sample is not None and takes.is_known and takes.channels != sample.shape[0]:
        preprocess = usual_preprocess(model.module)
        size = tuple(sample.shape[1:]) if size is None else size
    return preprocess if size is None else with_options(preprocess, PreprocessOptions(size=size))


def usual_preprocess(module: nn.Module) -> Preprocess:
    """Return the preprocessing of a model that comes without one of its own.

    Args:
        module: any module.

    Returns:
        ImageNet's, where the module takes three channels; the same in grey for one channel; for anything else one that
        takes arrays.
    """
    takes = expected_of(module)
    if not takes.is_photo:
        return ArrayPreprocess(takes)
    if takes.channels == 3:
        return imagenet_preset()
    return grey_preset() if takes.channel_axis else Bare(grey_preset())
