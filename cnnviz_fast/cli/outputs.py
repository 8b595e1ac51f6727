"""Where the files of a command go: a folder, or with --out sheet.png that one file."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError, WriteError

if TYPE_CHECKING:
    from ..formats.output_folders import OutputFolder

_PICTURE = re.compile(r"\.(png|jpe?g|webp|npy|gif|bmp|tiff?|avif|pdf|svg|eps)", re.IGNORECASE)
"""Endings by which a path is that of a file; those that cannot be written are refused by name."""


def single_file(out: str) -> Path | None:
    """Return the file that --out names; None where it names a folder, as one that is there does by any name.

    Raises:
        OptionError: the file's format cannot be written.
    """
    path = Path(out)
    if not _PICTURE.fullmatch(path.suffix) or out.endswith(("/", os.sep)) or path.is_dir():
        return None
    from ..formats.picture import format_of

    format_of(path)
    return path


def format_name(arguments: argparse.Namespace) -> str:
    """Return the format of the files: that of --format, or of the file that --out names, or png.

    Raises:
        OptionError: there is no such format, or both are given and differ.
    """
    from ..formats.picture import format_of

    file = single_file(arguments.out) if arguments.out else None
    chosen = arguments.format or (file.suffix[1:] if file else "png")
    if format_of(Path(f"sheet.{chosen}")) != format_of(file or Path(f"sheet.{chosen}")):
        raise OptionError(f"out must end as format {chosen!r} does, got {str(file)!r}. Leave format out.")
    return str(chosen)


def output_folder(arguments: argparse.Namespace, *, of_run: bool = False) -> OutputFolder:
    """Check format and folder of the output before anything slow starts, and make the folder; see `formats`.

    Args:
        arguments: of the command.
        of_run: whether a run writes there.

    Returns:
        The folder that --out names, or that holds the file that it names.

    Raises:
        OptionError: the format is unknown, the folder holds other things, or a run is to write one file.
        WriteError: the folder cannot be made, or the file is one of those that are read.
    """
    from ..formats import output_folders
    from ..runtime.files import make_folder

    name, file = format_name(arguments), single_file(arguments.out)
    overwrite = getattr(arguments, "overwrite", True)  # where it is no option, one model alone writes there
    if file is None:
        return output_folders.output_folder(arguments.out, name, of_run=of_run, overwrite=overwrite)
    if os.path.realpath(file) in map(os.path.realpath, _read_by(arguments)):
        raise WriteError(f"cannot write {file}: it is one of the files that are read. Give another file, or a folder.")
    if of_run:
        raise OptionError(f"out must be a folder for a run, got {str(file)!r}. Draw one image with: cnnviz render")
    output_folders.refuse_run(file.parent)
    make_folder(file.parent)
    return output_folders.OutputFolder(file.parent, overwrite=overwrite, file_is_named=True)


def _read_by(arguments: argparse.Namespace) -> list[str]:
    """Return the files that a command reads, as far as they are named one by one."""
    given = vars(arguments)
    several = [*given.get("images", ()), *given.get("atlases", ())]
    return [*several, *(given[name] for name in ("overlay", "weights") if isinstance(given.get(name), str))]


def refuse_several(file: Path | None, count: int) -> None:
    """Refuse to write more than one sheet into one file.

    Args:
        file: that --out names; None for a folder.
        count: number of sheets.

    Raises:
        OptionError: there are several for one file.
    """
    if file is not None and count > 1:
        raise OptionError(
            f"out must be a folder for {count} sheets, got {str(file)!r}. Give a folder, or name one image "
            f"and one layer."
        )
