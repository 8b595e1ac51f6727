"""run.json: the fingerprint of the run in a folder, and the refusal of any other run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import OptionError, reason_of
from ...provenance import package_version
from ...runtime.files import whole_file
from ...runtime.run_files import RUN
from ...runtime.untrusted import read_json
from .differences import differences
from .index import files_of

OLD_KEYS = {"layout": "axes", "pictures": "images"}
"""Keys of the fingerprints of version 0.1, and what they are called since then."""


def agree(folder: Path, fingerprint: Mapping[str, Any], world_size: int | None) -> None:
    """Check that the run in a folder is this one; where there is none, write run.json.

    Args:
        folder: of the run.
        fingerprint: of this run.
        world_size: number of ranks, where the run can only be taken up by as many as began it.

    Raises:
        OptionError: it is another run.
    """
    there = fingerprint_in(folder)
    if there is None:
        if files_of(folder, "index"):
            raise OptionError(
                f"folder {str(folder)!r} holds the index of a run, but not what it depends on: run.json is missing. "
                f"Give another out."
            )
        document = {"cnnviz_fast": package_version(), "fingerprint": fingerprint}
        with whole_file(folder / RUN) as file:
            file.write(json.dumps(document, indent=2).encode())
        return
    refuse_others(folder, fingerprint, there)
    for path, _, of in files_of(folder, "index") if world_size is not None else ():
        if of != world_size and path.stat().st_size:
            raise OptionError(
                f"a run with statistics, top or tars must be taken up by as many processes as began it, {of}, got "
                f"{world_size}. Start all of them, also those that are finished, or give another out."
            )


def fingerprint_in(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the run in a folder; None where there is no run.

    Raises:
        OptionError: it is damaged.
    """
    try:
        return dict(read_json(folder / RUN)["fingerprint"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OptionError(
            f"folder {str(folder)!r} holds a damaged run.json: {reason_of(error)}. Give another folder."
        ) from error


def refuse_others(folder: Path, fingerprint: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raise OptionError where the fingerprint in a folder is of an older version, or differs, with what differs."""
    refuse_older(folder, there, "Give another out.")
    if found := differences(fingerprint, there):
        raise OptionError(
            f"folder {str(folder)!r} holds a run with other settings: {'; '.join(found)}. Give another out."
        )


def refuse_older(folder: Path, there: Mapping[str, Any], advice: str = "Run it again, into another folder.") -> None:
    """Raise OptionError where the fingerprint in a folder is of an older version.

    Args:
        folder: of the run.
        there: its fingerprint.
        advice: what to do instead.
    """
    if old := [name for name in OLD_KEYS if name in there]:
        raise OptionError(
            f"folder {str(folder)!r} holds a run of an older version, whose run.json has {old[0]!r} where runs now "
            f"have {OLD_KEYS[old[0]]!r}. {advice}"
        )
