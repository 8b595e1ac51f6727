"""How many cores a container, or a job of a cluster, may keep busy: the cgroups of Linux, of either version.

A limit that is given in time, such as `docker run --cpus 2`, shows neither in the number of cores nor in those that a
process may run on: with a thread for each of 64 cores, all of them would be stopped for most of every period.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path, PurePosixPath

_LIMITS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""Files of a group, of version 2 and of version 1, that hold microseconds of all cores together and their period."""


def allowed_cores(root: Path = Path("/")) -> float:
    """Return how many cores the groups of this process allow it.

    Args:
        root: the folder that proc and sys lie in.

    Returns:
        The least of all limits, such as 1.5; infinity where there is none.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:  # another system
        return math.inf
    allowed = [math.inf]
    for line in memberships:  # such as 4:cpu,cpuacct:/docker/12, or of version 2 0::/
        controllers, path = line.split(":", 2)[1:]
        if not controllers or "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            group = PurePosixPath(path.lstrip("/"))
            # In a container its own group may lie at the top, whatever its path is outside.
            allowed += [_limit_of(top / place) for place in (group, *group.parents)]
    return min(allowed)


def _limit_of(group: Path) -> float:
    for names in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
            quota_us, period_us = map(int, " ".join((group / name).read_text() for name in names).split())
            if quota_us > 0:  # not -1, which is version 1's word for no limit
                return quota_us / period_us
    return math.inf
