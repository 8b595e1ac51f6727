"""The error tree. Every error this package raises on purpose is one of these.

    CnnvizError
      InputError(ValueError)       an argument is wrong
        ShapeError                 the shape of an array
        DTypeError                 the dtype of an array
        OptionError                the value of an option
        LayerNotFoundError         a layer pattern that matches nothing (also a LookupError)
        ImageError                 a picture that cannot be read
        AtlasError                 an atlas that cannot be read
      ModelError                   a model spec, its weights or a checkpoint
      CaptureError(RuntimeError)   the model ran, a hook saw nothing usable
      BackendError(RuntimeError)
        BackendUnavailableError    a named backend cannot work here; the message says why
        KernelError                a kernel failed while it ran
      PicturesFailedError          with strict, a picture of a run
      WriteError                   a file cannot be written
      EncodeError                  a picture cannot be put into the format asked for

Messages are one line: `<argument> must be <expected>, got <actual>. <what to do>.`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CnnvizError(Exception):
    """Base of all errors of this package."""


class InputError(CnnvizError, ValueError):
    """An argument is wrong."""


class ShapeError(InputError):
    """An array has the wrong shape."""


class DTypeError(InputError):
    """An array has the wrong dtype."""


class OptionError(InputError):
    """An option has a value that it cannot have."""


class LayerNotFoundError(InputError, LookupError):
    """A layer pattern matches nothing in the model."""


class ImageError(InputError):
    """A picture cannot be found or read."""


class AtlasError(InputError):
    """An atlas cannot be found or read."""


class ModelError(CnnvizError):
    """A model spec, its weights or a checkpoint cannot be used."""


class CaptureError(CnnvizError, RuntimeError):
    """The model ran and a hook saw nothing usable, or the model failed in its own forward pass."""


class BackendError(CnnvizError, RuntimeError):
    """A backend cannot do what was asked of it."""


class BackendUnavailableError(BackendError):
    """A backend that was asked for by name cannot work here."""


class KernelError(BackendError):
    """A kernel failed while it ran."""


class ImagesFailedError(CnnvizError):
    """A picture of a run failed, and the run was told not to go on then."""


class WriteError(CnnvizError):
    """A file cannot be written."""


class EncodeError(CnnvizError):
    """A picture cannot be put into the format asked for."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).partition("\n")[0]


def worded(error: BaseException) -> str:
    """Word somebody else's error in one line: its name, and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(error)}"


def closest(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """Word the nearest candidates for an error message.

    Args:
        name: what was asked for.
        candidates: what there is.
        count: how many to name at most.

    Returns:
        `" Closest: 'layer4', 'layer3'."`, with its leading blank, or "" where nothing is near.
    """
    near = difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)
    return f" Closest: {', '.join(repr(n) for n in near)}." if near else ""
