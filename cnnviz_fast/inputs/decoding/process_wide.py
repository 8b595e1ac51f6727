"""Settings that libraries have only for a whole process, changed while images are read and put back after the last."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Undo = Callable[[], None]


class WhileReading:
    """A setting that is changed when the first of any number of threads enters, and put back when the last leaves."""

    def __init__(self, change: Callable[[], Undo]) -> None:
        """Prepare it.

        Args:
            change: makes the change, and returns what takes it back.
        """
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: Undo | None = None

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Hold the setting changed inside."""
        with self._lock:
            if not self._inside:
                self._undo = self._change()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._undo is not None:
                    self._undo()


def _lift_pillows_limit() -> Undo:
    """Pillow 13 has no argument for its limit on pixels, which TIFF checks while it loads and WebP while it opens."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None

    def undo() -> None:
        Image.MAX_IMAGE_PIXELS = limit

    return undo


def _silence_libraries() -> Undo:
    """Keep warnings, log records and libtiff's own lines off the terminal: what matters becomes this package's error.

    Warnings of other modules are shown as before.
    """
    for name in ("PIL", "tifffile"):
        logger = logging.getLogger(name)
        if not logger.handlers:  # without any, Python prints records on stderr
            logger.addHandler(logging.NullHandler())
    caught = warnings.catch_warnings()
    caught.__enter__()
    warnings.filterwarnings("ignore", module=r"(PIL|tifffile)(\.|$)")
    loud_again = _silence_libtiff()

    def undo() -> None:
        loud_again()
        caught.__exit__(None, None, None)

    return undo


def _silence_libtiff() -> Undo:
    """Take the handlers off which print on stderr; where Pillow holds libtiff without its names, they stay."""
    handlers = [(setter, setter(None)) for setter in _setters_of_libtiff()]

    def undo() -> None:
        for setter, handler in handlers:
            setter(handler)

    return undo


@functools.cache
def _setters_of_libtiff() -> tuple[Any, ...]:
    """Return the functions that set libtiff's handlers, each of which returns the one before."""
    try:
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        setters = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (OSError, AttributeError):
        return ()
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return setters


class _PillowLimit(WhileReading):
    """Pillow's limit, which is lifted for huge images only."""

    @contextlib.contextmanager
    def for_pixels(self, pixels: int) -> Iterator[None]:
        """Lift it if `pixels` are over it."""
        from PIL import Image

        limit = Image.MAX_IMAGE_PIXELS
        with contextlib.nullcontext() if limit is not None and pixels <= limit else self.changed():
            yield


pillow_limit_lifted = _PillowLimit(_lift_pillows_limit)
libraries_silenced = WhileReading(_silence_libraries)
