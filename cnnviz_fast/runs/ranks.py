"""Which share of a run is this process's: what starts it tells that in variables of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import OptionError

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script by itself has no such step
)

_ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"),
    ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),  # "undefined" outside an array
)
"""Variables of a task of a job array: its number, the first, the last, and the step between them."""


class Ranks(NamedTuple):
    """The number of this process among those that share a run, how many there are, and its number on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def file(self, stem: str, suffix: str) -> str:
        """Name a file of this process's own: STEM.SUFFIX where it is alone, else STEM-RANK-of-WORLD_SIZE.SUFFIX."""
        return f"{stem}{suffix}" if self.world_size == 1 else f"{stem}-{self.rank}-of-{self.world_size}{suffix}"

    def files(self, stem: str, suffix: str) -> list[str]:
        """Name the files of all processes."""
        return [self._replace(rank=rank).file(stem, suffix) for rank in range(self.world_size)]

    def device(self, wanted: str) -> str:
        """Name the device of this process; with "auto", the processes of a machine take its GPUs in turns."""
        if wanted != "auto" or self.world_size == 1:
            return wanted
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local_rank % count}" if count else "auto"


def ranks_in(environment: Mapping[str, str] = os.environ, *, array: bool = False) -> Ranks:
    """Read the rank of this process.

    Args:
        environment: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of srun (SLURM_PROCID, ...).
        array: whether the tasks of a job array share the run, each of which may have several processes.

    Returns:
        The rank; without these variables that of a process that is alone.

    Raises:
        OptionError: the variables are not a rank and a larger number of ranks; or there is no array, or one of another
            kind.
    """
    own = _ranks_of_launcher(environment)
    if not array:
        return own
    task, count = _task_in(environment)
    return Ranks(task * own.world_size + own.rank, count * own.world_size, own.local_rank)


def _task_in(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of this task in its job array, from 0, and how many there are."""
    for names in _ARRAYS:
        values = [environment.get(name, "") for name in names]
        if not values[0].isdecimal():
            continue
        task, first, last, step = (int(value) if value.isdecimal() else 0 for value in values)
        tasks = range(first, last + 1, step or 1)
        count = environment.get("SLURM_ARRAY_TASK_COUNT", str(len(tasks)))
        if task not in tasks or count != str(len(tasks)):  # such as 1,3,7
            raise OptionError(
                f"array must be of tasks with one step between them, such as 0-9 or 1-9:2, got "
                f"{_shown(names, values)}, {count} tasks. Submit all tasks: those that are finished end at once."
            )
        return tasks.index(task), len(tasks)
    raise OptionError(
        f"array must be in a task of a job array of Slurm or Grid Engine, got neither {_ARRAYS[0][0]} nor "
        f"{_ARRAYS[1][0]}. Elsewhere set RANK, from 0, and WORLD_SIZE."
    )


def _shown(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def _ranks_of_launcher(environment: Mapping[str, str]) -> Ranks:
    for names in _LAUNCHERS:
        if names[0] in environment and names[1] in environment:
            values = [environment.get(name, "0") for name in names]
            if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
                raise OptionError(
                    f"the launcher's variables must be a rank and a larger number of ranks, got "
                    f"{_shown(names, values)}."
                )
            return Ranks(*map(int, values))
    return Ranks()
