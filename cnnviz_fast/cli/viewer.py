"""`--open`: what was drawn, in the viewer that the desktop has for it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import reason_of
from .terminal import note


def open_drawn(paths: Sequence[Path], folder: Path) -> None:
    """Open the file that was drawn, or the folder of several; nothing where nothing was drawn.

    Args:
        paths: of the files.
        folder: that holds all of them.
    """
    if paths:
        open_path(paths[0] if len(paths) == 1 else folder)


def open_path(path: Path) -> None:
    """Open a file or a folder, without waiting for the viewer; print a line where there is none."""
    shown = str(path.absolute())
    try:
        if sys.platform == "win32":
            os.startfile(shown)
            return
        viewer = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
        if viewer is None:
            raise FileNotFoundError(errno.ENOENT, "xdg-open is not installed")
        quiet = subprocess.DEVNULL
        subprocess.Popen([viewer, shown], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError as error:
        note(f"no viewer opens {shown}: {reason_of(error)}")
