"""The error tree. Every error this package raises on purpose is one of these.

    CnnvizError
      InputError(ValueError)       an argument is wrong
        ShapeError                 the shape of an array
        DTypeError                 the dtype of an array
        OptionError                the value of an option
        LayerNotFoundError         a layer pattern that matches nothing (also a LookupError)
        ImageError                 an image that cannot be read
        AtlasError                 an atlas that cannot be read
      ModelError                   a model spec, its weights or a checkpoint
      CaptureError(RuntimeError)   the model ran, but a hook saw nothing usable
        ModelFailedError           the model raised in its own forward pass
      BackendError(RuntimeError)
        BackendUnavailableError    a named backend does not work here; the message says why
        KernelError                a kernel failed while it ran
      ImagesFailedError            an image of a strict run failed
      WriteError                   a file cannot be written
      EncodeError                  a sheet, a tile or an atlas does not fit its format

Messages are one line: `<argument> must be <expected>, got <actual>. <what to do>.`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 120  # characters of a name from a file that messages show
_SENTENCES = 120  # characters: sentences of a foreign message that stay within them are kept


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
    """An image cannot be found or read."""


class AtlasError(InputError):
    """An atlas cannot be found or read."""


class ModelError(CnnvizError):
    """A model spec, its weights or a checkpoint cannot be used."""


class CaptureError(CnnvizError, RuntimeError):
    """The model ran, but a hook saw nothing usable."""


class ModelFailedError(CaptureError):
    """The model raised in its own forward pass. `__cause__` is what it raised."""


class BackendError(CnnvizError, RuntimeError):
    """A backend cannot do what was asked of it."""


class BackendUnavailableError(BackendError):
    """A backend that was asked for by name does not work here."""


class KernelError(BackendError):
    """A kernel failed while it ran."""


class ImagesFailedError(CnnvizError):
    """An image of a run failed, and `strict` ends the run at the first one that does."""


class WriteError(CnnvizError):
    """A file cannot be written."""


class EncodeError(CnnvizError):
    """A sheet, a tile or an atlas does not fit the format asked for."""


def reason_of(error: BaseException, *, named: bool = False) -> str:
    """Return the reason in a foreign exception, in one line and without a full stop, for the end of a message.

    Args:
        error: any exception, even one whose text cannot be made.
        named: put the name of its class first, which says more than the text if code failed: KeyError: 'width'.

    Returns:
        The text of the system for an OSError; otherwise the first line, without headings that end in a colon, and of
        a long line the first sentences; the name of the class if there is no text.
    """
    name = type(error).__name__
    try:
        text = getattr(error, "strerror", None) or str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.rstrip().endswith(":")]
    except Exception:  # raised by a user's own __str__
        lines = []
    if not lines:
        return name
    said, *more = lines[0].split(". ")
    for sentence in more:
        if len(said) + len(sentence) > _SENTENCES:
            break
        said = f"{said}. {sentence}"
    said = said.rstrip(".?")
    return f"{name}: {said}" if named else said


def shown(name: str) -> str:
    """Return a name from a file as messages show it: in one line of bounded length that moves no cursor.

    Args:
        name: any text.

    Returns:
        The text with control characters, marks of direction and whatever else is not printed escaped, and cut where it
        is long.
    """
    text = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in name[:_SHOWN]
    )
    return text if len(name) <= _SHOWN and len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}..."


def closest(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """Return the nearest candidates, for an error message.

    Args:
        name: the name that was asked for.
        candidates: the names that exist.
        count: how many to list at most.

    Returns:
        `" Closest: 'layer4', 'layer3'."`, with a leading space, or "" if nothing is near.
    """
    near = difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)
    return f" Closest: {', '.join(repr(n) for n in near)}." if near else ""
