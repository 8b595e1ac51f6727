"""Whose a folder of outputs is. A run has a folder of its own: sheets of other commands are never mixed with it.

A run knows its files by its index: a sheet that another command wrote over one of them would pass for the run's own.
And a run writes no manifest beside a sheet: where it replaced the sheet of another command, the manifest beside that
would describe a sheet that is gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import OptionError, advice
from ..provenance import MANIFEST_NAME
from ..runtime.disk import HeldFolder
from ..runtime.files import make_folder
from ..runtime.run_files import RUN
from ..runtime.untrusted import MOST_JSON_BYTES, read_regular
from .manifest_files import manifest_at, manifests_in
from .names import folded_stem, output_path
from .older_names import refuse_older_names
from .picture import format_of

INDEX_NAME = re.compile(r"(index|failed)(?:-(\d+)-of-(\d+))?\.jsonl", re.ASCII)
"""Names of the lists of a run: what is finished, what failed; of several processes, with rank and number of ranks."""


def holds_a_run(folder: str | os.PathLike[str]) -> bool:
    """Check whether a folder is that of a run."""
    if not os.path.exists(os.path.join(folder, RUN)):
        return False
    return any(match[1] == "index" for match in map(INDEX_NAME.fullmatch, os.listdir(folder)) if match)


class OutputFolder:
    """The folder of a command's outputs: it stays the one that it is, and holds no sheet twice.

    path: of the folder.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, file_is_named: bool = False) -> None:
        """Take hold of a folder.

        Args:
            path: of the folder, which is there.
            overwrite: whether sheets of other models are replaced.
            file_is_named: whether the user has named the file, which then is not named after a layer and an image.

        Raises:
            WriteError: it is not there.
        """
        self.path = path
        self._held = HeldFolder(path)
        self._overwrite = overwrite
        self._file_is_named = file_is_named

    def place(
        self, layer: str, image: str, ending: str, describe: Callable[[], Mapping[str, Any]], kind: str = ""
    ) -> Path:
        """Return the path of an output; the folder that it lies in is made.

        Args:
            layer: folder of the layer.
            image: stem of the image.
            ending: of the file, such as .png; "" for a folder of single files.
            describe: returns the manifest of the output; called where one is there already.
            kind: a folder between them.

        Returns:
            FOLDER/LAYER/IMAGE.png; see output_path.

        Raises:
            OptionError: an output of another model is there, or one whose name differs in case alone.
            WriteError: the folder was removed, renamed or replaced meanwhile, or one in it cannot be made.
        """
        path = self.path_of(layer, image, ending, kind)
        self.check(path, describe, is_folder=not ending)
        return path

    def path_of(self, layer: str, image: str, ending: str, kind: str = "") -> Path:
        """Return the path of an output, as `place` does, whatever is there already.

        Args:
            layer: folder of the layer.
            image: stem of the image.
            ending: of the file; "" for a folder of single files.
            kind: a folder between them.

        Returns:
            FOLDER/LAYER/IMAGE.png; see output_path.

        Raises:
            WriteError: the folder was removed, renamed or replaced meanwhile, or one in it cannot be made.
        """
        self._held.check()
        path = self.path / output_path(layer, image, ending, kind)
        make_folder(path.parent)
        return path

    def check(self, path: Path, describe: Callable[[], Mapping[str, Any]], *, is_folder: bool = False) -> None:
        """Refuse to replace what another model made, or what a file system without case takes for this output.

        Args:
            path: of an output.
            describe: returns its manifest; called where one is there already.
            is_folder: whether it is a folder of single files.

        Raises:
            OptionError: such an output is there.
        """
        there = manifest_at(path / MANIFEST_NAME if is_folder else path.with_suffix(".json"))
        if there is None or self._overwrite:
            return
        described = describe()
        others, these = _models_of(there), _models_of(described)
        if len(others) == len(these) and all(map(_may_be_one, others, these)):
            if not self._file_is_named:
                _refuse_other_case(path, _names_in(there), _names_in(described))
            return
        shown = "; ".join(f"{model}, {weights}" for model, weights, _ in others)
        if [model[:2] for model in others] == [model[:2] for model in these]:
            shown += ", whose weights have other values"
        raise OptionError(
            f"out must not hold what another model made where this one's goes, got {str(path)!r} of {shown}. "
            f"{_advice()}"
        )


_Model = tuple[Any, Any, Any]
"""Of a manifest: the model, the name of its weights and their digest."""


def _models_of(manifest: Mapping[str, Any]) -> list[_Model]:
    """Return the models that a sheet shows; a comparison shows two."""
    return [(side.get("model"), side.get("weights"), side.get("weights_digest")) for side in _sides(manifest)]


def _names_in(manifest: Mapping[str, Any]) -> list[str]:
    """Return what an output is named after: of each of its models a layer, a parameter and an image."""
    return [
        name
        for side in _sides(manifest)
        for name in (str(side.get("layer")), str(side.get("parameter")), Path(str(side.get("image"))).stem)
    ]


def _sides(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sides = [manifest.get("a"), manifest.get("b")] if "a" in manifest else [manifest]
    return [side for side in sides if isinstance(side, Mapping)]


def _may_be_one(a: _Model, b: _Model) -> bool:
    """Return whether two models may be the same: digests count where both have one, as older manifests have none."""
    return a[:2] == b[:2] and (a[2] == b[2] or None in (a[2], b[2]))


def _refuse_other_case(path: Path, others: Sequence[str], these: Sequence[str]) -> None:
    """Refuse an output whose names differ in case alone from those of what is there: some systems take both for one.

    Raises:
        OptionError: it is such a one.
    """
    for other, this in zip(others, these, strict=True):
        if other != this and folded_stem(other) == folded_stem(this):
            raise OptionError(
                f"out must not hold what has the same path where case does not count, got {str(path)!r} of {other!r} "
                f"for {this!r}. {_advice()}"
            )


def _advice() -> str:
    return f"Give another folder, or {advice('pass overwrite=True', 'add --overwrite')}."


def output_folder(
    out: str | os.PathLike[str], format: str = "png", *, of_run: bool = False, overwrite: bool = False
) -> OutputFolder:
    """Check format and folder of the outputs before anything slow starts, and make the folder.

    Args:
        out: the folder.
        format: of the files: png, jpg, webp or npy.
        of_run: whether a run writes them; see refuse_mixing.
        overwrite: whether sheets of other models are replaced.

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
    return OutputFolder(folder, overwrite=overwrite)


def refuse_mixing(folder: Path, *, of_run: bool = False) -> None:
    """Refuse a folder with which outputs would be mixed that are none of theirs.

    Args:
        folder: where files are to go; it need not be there.
        of_run: whether a run writes them. A run that is there already may then be the same one, which `agree` of
            `runs.folder` checks.

    Raises:
        OptionError: the folder holds files as drafts named them; or sheets of other commands for a run, and otherwise a
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
        return b'"cnnviz_fast":' in read_regular(manifest, MOST_JSON_BYTES)
    except OSError:  # a folder without one
        return False
