"""Which share of a run is this process's: torchrun and Slurm tell it in variables of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import OptionError

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script by itself has no such step
)


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


def ranks_in(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read the rank of this process.

    Args:
        environment: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of srun (SLURM_PROCID, ...).

    Returns:
        The rank; without these variables that of a process that is alone.

    Raises:
        OptionError: the variables are not a rank and a larger number of ranks.
    """
    for names in _LAUNCHERS:
        if names[0] in environment and names[1] in environment:
            values = [environment.get(name, "0") for name in names]
            if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
                shown = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
                raise OptionError(f"the launcher's variables must be a rank and a larger number of ranks, got {shown}.")
            return Ranks(*map(int, values))
    return Ranks()
