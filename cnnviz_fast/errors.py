"""The error tree. Every error this package raises on purpose is one of these.

    CnnvizError
      InputError(ValueError)       an argument is wrong
        ShapeError                 the shape of an array
        DTypeError                 the dtype of an array
        OptionError                the value of an option
          UnknownOptionError       an argument that a function does not have (also a TypeError)
        LayerNotFoundError         a layer pattern that matches nothing (also a LookupError)
        ImageError                 an image that cannot be read
        AtlasError                 an atlas that cannot be read
      ModelError                   a model spec, its weights or a checkpoint
      CaptureError(RuntimeError)   the model ran, but a hook saw nothing usable
        ModelFailedError           the model raised in its own forward pass
        NoGradientError            what was asked for does not depend on a layer
      BackendError(RuntimeError)
        BackendUnavailableError    a named backend does not work here; the message says why
        KernelError                a kernel failed while it ran
      ImagesFailedError            an image of a strict run failed
      WriteError                   a file cannot be written
      EncodeError                  a sheet, a tile or an atlas does not fit its format
      CallError                    what else a public function raised; see runtime/surface.py

Messages are one line of bounded length: `<argument> must be <expected>, got <actual>. <what to do>.`
"""

from __future__ import annotations

import contextlib
import difflib
import reprlib
from collections.abc import Iterable, Iterator

MOST_CHARACTERS = 1000
"""Of a message: some ten lines on a terminal. What is longer holds a value of the caller's, and loses its middle."""

_SHOWN = 120  # characters of a name from a file that messages show
_SENTENCES = 120  # characters: sentences of a foreign message that stay within them are kept
LONGEST_NAME = 80  # characters: nothing longer is a typing error of a name, and difflib takes seconds for a megabyte


class CnnvizError(Exception):
    """Base of all errors of this package. Its message is brought into one line that any terminal can show."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class InputError(CnnvizError, ValueError):
    """An argument is wrong."""


class ShapeError(InputError):
    """An array has the wrong shape."""


class DTypeError(InputError):
    """An array has the wrong dtype."""


class OptionError(InputError):
    """An option has a value that it cannot have."""


class UnknownOptionError(OptionError, TypeError):
    """A function or a record of options has no argument of this name.

    It is a TypeError as well, because Python raises that for every other function, and programs catch it.
    """


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


class NoGradientError(CaptureError):
    """A score does not depend on the maps of a layer. `works` names one before it that it depends on, or is None."""

    def __init__(self, message: object = "", works: str | None = None) -> None:
        super().__init__(message)
        self.works = works


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


class CallError(CnnvizError):
    """A public function failed in a way that nothing foresaw. `__cause__` is the error, and where it was raised."""


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text in one line that any terminal can show.

    Args:
        text: any string.
        most: characters that it may have; a longer one loses its middle.

    Returns:
        The text, with escapes such as \\n in place of what cannot be shown.
    """
    if len(text) > most:
        kept = (most - 5) // 2
        text = f"{text[:kept]} ... {text[-kept:]}"
    if text.isprintable():
        return text
    # What moves the cursor, starts a line, turns the direction of writing, or cannot be encoded.
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return one_line(shown, most)


def repr_of(value: object) -> str:
    """Return how a message shows a value of the caller's, of any kind and size: as `repr` does, and in short.

    Args:
        value: any object, even one whose `repr` fails or would fill the memory.

    Returns:
        At most 80 characters; the name of the class where there is nothing better.
    """
    try:
        text = _SHORT.repr(value)
    except Exception:  # raised by the object's own __repr__; and Python writes out no int of more than 4300 digits
        text = f"a very long {type(value).__name__}" if isinstance(value, int) else type(value).__name__
    return one_line(text, LONGEST_NAME)


def _short_repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxtuple = short.maxlist = 8
    return short


_SHORT = _short_repr()

_flags_are_advised = False


@contextlib.contextmanager
def advising_flags() -> Iterator[None]:
    """Advise the flags of the command line, not arguments in Python, in the errors that are raised meanwhile."""
    global _flags_are_advised
    before, _flags_are_advised = _flags_are_advised, True
    try:
        yield
    finally:
        _flags_are_advised = before


def advice(python: str, flags: str) -> str:
    """Return what to do, in the words of the one who reads it.

    Args:
        python: for a caller in Python.
        flags: for a command line.

    Returns:
        One of the two.
    """
    return flags if _flags_are_advised else python


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
        As `one_line`; what is long loses its middle.
    """
    return one_line(name, _SHOWN)


def closest(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """Return the nearest candidates, for an error message.

    Args:
        name: the name that was asked for.
        candidates: the names that exist.
        count: how many to list at most.

    Returns:
        `" Closest: 'layer4', 'layer3'."`, with a leading space, or "" if nothing is near.
    """
    if len(name) > LONGEST_NAME:
        return ""
    near = difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)
    return f" Closest: {', '.join(repr(n) for n in near)}." if near else ""
