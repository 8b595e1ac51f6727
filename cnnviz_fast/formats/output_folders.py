"""Whose a folder of outputs is. A run has a folder of its own: sheets of other commands are never mixed with it.

A run knows its files by its index, and would take a sheet that another command wrote over one of them for its own. In
the other direction it would leave the manifest of the sheet that it replaces, which then says what is not true.
"""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path

from ..errors import OptionError
from ..runtime.files import make_folder
from .manifest_files import manifests_in
from .names import output_path
from .older_names import refuse_older_names
from .picture import format_of

RUN = "run.json"
"""File of a run's fingerprint: everything that the outputs in its folder depend on."""

INDEX_NAME = re.compile(r"(index|failed)(?:-(\d+)-of-(\d+))?\.jsonl", re.ASCII)
"""Names of the lists of a run: what is finished, what failed; of several processes, with rank and number of ranks."""


def holds_a_run(folder: str | os.PathLike[str]) -> bool:
    """Check whether a folder is that of a run."""
    if not os.path.exists(os.path.join(folder, RUN)):
        return False
    return any(match[1] == "index" for match in map(INDEX_NAME.fullmatch, os.listdir(folder)) if match)


def output_folder(out: str | os.PathLike[str], format: str = "png", *, of_run: bool = False) -> Path:
    """Check format and folder of the outputs before anything slow starts, and make the folder.

    Args:
        out: the folder.
        format: of the files: png, jpg, webp or npy.
        of_run: whether a run writes them; see refuse_mixing.

    Returns:
        The folder.

    Raises:
        OptionError: the format is unknown, or what the folder holds would be mixed with other things.
        WriteError: the folder cannot be made.
    """
    format_of(Path(f"sheet.{format}"))
    folder = Path(out)
    refuse_mixing(folder, of_run=of_run)
    make_folder(folder)
    return folder


def place_of(folder: Path, layer: str, image: str, ending: str, kind: str = "") -> Path:
    """Return the path of an output; the folder that it lies in is made. The arguments are those of `output_path`.

    Args:
        folder: of all outputs.
        layer: folder of the layer.
        image: stem of the image.
        ending: of the file, such as .png.
        kind: a folder between them.

    Returns:
        FOLDER/LAYER/IMAGE.png.

    Raises:
        WriteError: the folder cannot be made.
    """
    path = folder / output_path(layer, image, ending, kind)
    make_folder(path.parent)
    return path


def refuse_mixing(folder: Path, *, of_run: bool = False) -> None:
    """Refuse a folder with which outputs would be mixed that are none of theirs.

    Args:
        folder: where files are to go; it need not be there.
        of_run: whether a run writes them. A run that is there already may then be the same one, which `agree` of
            `runs.folder` checks.

    Raises:
        OptionError: the folder holds files as 0.1 named them; or sheets of other commands for a run, and otherwise a
            run.
    """
    if of_run and os.path.exists(folder / RUN):
        return
    if not of_run:
        refuse_run(folder)
    refuse_older_names(folder)
    # The run is looked for once more: another process of it may have begun meanwhile, and tiles have manifests too.
    if of_run and (sheet := _sheet_in(folder)) is not None and not os.path.exists(folder / RUN):
        raise OptionError(
            f"out must be a folder of its own for a run, got {str(folder)!r}, where another command wrote {sheet!r}. "
            f"Give another folder."
        )


def refuse_run(folder: Path) -> None:
    """Refuse the folder of a run.

    Raises:
        OptionError: it is one.
    """
    if holds_a_run(folder):
        raise OptionError(
            f"out must not be the folder of a run, which would take other files for its own, got {str(folder)!r}. "
            f"Give another folder."
        )


def _sheet_in(folder: Path) -> str | None:
    """Return the name of a sheet, or of a folder of single files, that another command than `run` has written here."""
    for layer, _ in sorted(manifests_in(folder)):
        beside = (path for _, path in manifests_in(folder / layer) if path.parent == folder / layer)
        inside = (path for _, path in manifests_in(folder / layer / "tiles"))
        for shown, manifest in chain(
            ((path.with_suffix(""), path) for path in beside), ((path.parent, path) for path in inside)
        ):
            if _is_ours(manifest):
                return shown.relative_to(folder).as_posix()
    return None


def _is_ours(manifest: Path) -> bool:
    try:
        return b'"cnnviz_fast":' in manifest.read_bytes()
    except OSError:  # a folder without one
        return False
