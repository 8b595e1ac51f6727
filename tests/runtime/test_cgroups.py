"""The cores that groups of processes are allowed, in folders as containers and clusters have them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cnnviz_fast.runtime.cgroups import allowed_cores

CASES = {
    "none in a container of version 2": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "docker --cpus 1.5": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "a group above allows less": (
        "0::/kubepods.slice/pod1.slice/c\n",
        {
            "kubepods.slice/cpu.max": "max 100000\n",
            "kubepods.slice/pod1.slice/cpu.max": "50000 100000\n",
            "kubepods.slice/pod1.slice/c/cpu.max": "200000 100000\n",
        },
        0.5,
    ),
    "version 1": (
        "3:cpuset:/a\n2:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/\n",
        {
            "cpu/slurm/job_7/cpu.cfs_quota_us": "300000\n",
            "cpu/slurm/job_7/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        3.0,
    ),
    "version 1, whose container sees its group at the top": (
        "2:cpu,cpuacct:/docker/0123\n",
        {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        2.0,
    ),
    "of others alone": ("3:cpuset:/a\n0::/\n", {"other/cpu.max": "100000 100000\n"}, math.inf),
    "a path that goes up, from a namespace of its own": ("0::/../other\n", {"cpu.max": "100000 100000\n"}, 1.0),
    "what nobody has written": ("0::/\n", {"cpu.max": "many\n"}, math.inf),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_allowed_cores_are_the_least_of_all_limits(case: str, tmp_path: Path) -> None:
    memberships, limits, allowed = CASES[case]
    for name, text in {"proc/self/cgroup": memberships, **{f"sys/fs/cgroup/{n}": t for n, t in limits.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert allowed_cores(tmp_path) == allowed


def test_allowed_cores_of_a_system_without_groups_are_all(tmp_path: Path) -> None:
    assert allowed_cores(tmp_path) == math.inf
