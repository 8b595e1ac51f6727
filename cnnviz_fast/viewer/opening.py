"""What a user names becomes what is shown: folders of runs, atlases, and tars of atlases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import AtlasError, OptionError
from ..formats.atlas_files import find_atlases, is_tar
from ..formats.atlas_head import SUFFIX
from ..runtime.run_files import RUN
from .collection import Collection
from .computed import Compute, directly
from .files import runs_of_files
from .folders import RunFolder
from .photos import Photos
from .shown import ShownRun


def is_shown(name: str) -> bool:
    """Check whether a name is that of a folder, of an atlas or of a tar that is there, and not that of a model."""
    return os.path.isdir(name) or (os.path.exists(name) and (name.endswith(SUFFIX) or is_tar(name)))


def open_collection(
    names: Sequence[str | os.PathLike[str]],
    photos: Photos | None = None,
    cut_at_once: int = 1,
    compute: Compute = directly,
) -> Collection:
    """Find what is shown; nothing is read before it is looked at but indexes and heads of atlases.

    Args:
        names: folders of runs; atlases, folders and tars of them.
        photos: where the photos of the runs lie now.
        cut_at_once: channels whose patches are cut together; see RunFolder.
        compute: calls what takes torch.

    Returns:
        The collection. Its notes name what cannot be used, and photos that are not where they should.

    Raises:
        InputError: there is nothing to show, or a run is of an older version.
        OptionError: there are photos, and no run.
    """
    runs: list[ShownRun] = []
    notes: list[str] = []
    loose: list[str | os.PathLike[str]] = []
    for name in names:
        if os.path.lexists(os.path.join(name, RUN)):
            run = RunFolder(Path(name), notes, photos, cut_at_once, compute)
            runs.append(run)
            if photos is not None and run.image_count and not (first := run.image(0)).has_photo:
                notes.append(f"photo {first.name!r} of run {run.name!r} is not in {str(photos.folder)!r}.")
        else:
            loose.append(name)
    if photos is not None and not runs:
        raise OptionError("photos go with the folder of a run, whose index says which image is which. Leave them out.")
    if loose:
        runs.extend(runs_of_files(find_atlases(loose), notes, compute))
    if not any(run.image_count for run in runs):
        raise AtlasError(notes[0] if notes else f"{os.fspath(names[0])!r} holds no atlases.")
    return Collection(" + ".join(dict.fromkeys(run.name for run in runs)), runs, notes)
