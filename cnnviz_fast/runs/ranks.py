"""Which share of a run is this process's: told by torchrun or Slurm, and by nothing else."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..errors import OptionError

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script by itself has no such step
)


class Ranks(NamedTuple):
    """Number of this process among those that share a run, how many these are, and its number on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    def file(self, stem: str, suffix: str) -> str:
        """Name a file of this process's own: STEM.SUFFIX where it is alone, else STEM-RANK-of-WORLD.SUFFIX."""
        return f"{stem}{suffix}" if self.world == 1 else f"{stem}-{self.rank}-of-{self.world}{suffix}"

    def files(self, stem: str, suffix: str) -> list[str]:
        """Name the files of all processes."""
        return [self._replace(rank=rank).file(stem, suffix) for rank in range(self.world)]

    def device(self, wanted: str) -> str:
        """Name the device of this process: with "auto", each on a machine gets a GPU of its own, in turns."""
        if wanted != "auto" or self.world == 1:
            return wanted
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local % count}" if count else "auto"


def ranks_in(environment: os._Environ[str] | dict[str, str] = os.environ) -> Ranks:
    """Read this process's place.

    Args:
        environment: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of srun (SLURM_PROCID, ...).

    Returns:
        The place; that of a process that is alone where there are none.

    Raises:
        OptionError: the variables are no such numbers.
    """
    for names in _LAUNCHERS:
        if names[0] in environment and names[1] in environment:
            values = [environment.get(name, "0") for name in names]
            if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
                shown = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
                raise OptionError(f"the launcher's variables must be a rank and a larger number of ranks, got {shown}.")
            return Ranks(*map(int, values))
    return Ranks()
