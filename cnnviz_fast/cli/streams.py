"""Standard streams that may be closed, or whose reader has left: a command goes on, since what it makes are files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Lasting:
    """A stream that drops what is written once that fails, or from the start if there is none.

    Attributes:
        muted: whether everything is dropped, as --quiet asks.
        lost: why writing failed; None as long as it has not.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.muted = False
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write text. What the encoding of the stream cannot hold, such as some file names, is written as it can be."""
        if self._stream is None or self.muted or self.lost is not None:
            return len(text)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._write_otherwise(self._stream, text)
        except (OSError, ValueError) as error:  # ValueError: it was closed by Python
            self._lose(error)
        return len(text)

    def _write_otherwise(self, stream: TextIO, text: str) -> None:
        """Write names of files as the bytes that they are; on Windows, and where those cannot be, write escapes."""
        if sys.platform == "win32":  # whose names are no bytes, and whose pages of 256 letters differ
            stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
            return
        stream.flush()
        try:
            stream.buffer.write(os.fsencode(text))
        except UnicodeEncodeError:
            stream.buffer.write(text.encode(sys.getfilesystemencoding(), "backslashreplace"))

    def flush(self) -> None:
        """Write what waits to be written."""
        if self._stream is not None and self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def isatty(self) -> bool:
        """Check whether a terminal shows it."""
        return self._stream is not None and not self.muted and not self._stream.closed and self._stream.isatty()

    def _lose(self, error: Exception) -> None:
        """Drop everything from now on. Python, which flushes at its end what still waits, must not fail there again."""
        self.lost = error
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, cast(TextIO, self._stream).fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_streams() -> Iterator[Lasting]:
    """Put streams that last in the place of stdout and stderr; yield the one for stdout."""
    out, err = Lasting(sys.stdout), Lasting(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        try:
            yield out
        finally:
            out.flush()
            err.flush()


def fill_closed_descriptors() -> None:
    """Open descriptors 0 to 2 where they are closed: a sheet would get one of them, and with it what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the least that is free, which is this one
            os.set_inheritable(null, True)
