"""The home folder, in which other packages keep what they compile and download. A container may have none."""

from __future__ import annotations

import os


def has_folder(*variables: str) -> bool:
    """Check whether there is a home folder, or a variable names another folder for what would go there.

    There is none where HOME is not set and the system does not know the user, who is a number alone. Other packages
    then make a folder of the name ~ in the working folder.

    Args:
        variables: names of the environment; XDG_CACHE_HOME is looked at too.

    Returns:
        Whether there is one. It may be missing all the same, or read-only.
    """
    return os.path.isabs(os.path.expanduser("~")) or any(map(os.environ.get, (*variables, "XDG_CACHE_HOME")))
