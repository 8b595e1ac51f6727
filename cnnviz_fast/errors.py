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
        ModelFailedError           the model raised in its own forward pass
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
    """The model ran and a hook saw nothing usable."""


class ModelFailedError(CaptureError):
    """The model raised in its own forward pass. `__cause__` is what it raised."""


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


def reason_of(error: BaseException, *, named: bool = False) -> str:
    """Return what somebody else's exception says, in one line and without a full stop, for the end of a message.

    Args:
        error: any exception; what its own message raises does not matter.
        named: put the exception's class before it, which says more than the text where code failed: KeyError: 'width'.

    Returns:
        What the system says of an OSError; else the first sentence, but for headings that end in a colon; the name of
        the class where there is none.
    """
    name = type(error).__name__
    try:
        text = getattr(error, "strerror", None) or str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.rstrip().endswith(":")]
    except Exception:  # raised by a user's own __str__
        lines = []
    if not lines:
        return name
    said = lines[0].split(". ")[0].rstrip(".?")
    return f"{name}: {said}" if named else said


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
