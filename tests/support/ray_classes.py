"""Models and data sets that Ray's actors unpickle: their processes find this file, not those of the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset


class Dangerous(Dataset[Any]):
    """Images of which one cannot be read, and one ends the process that reads it."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, position: int) -> Any:
        if position == 2:
            raise ValueError("torn")
        if position == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.new("RGB", (32, 32), (20 * position, 0, 0))


class Deadly(nn.Module):
    """A model that ends the process it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return batch


class Counted(nn.Sequential):
    """A model that adds a byte to a file for each batch."""

    def __init__(self, layers: nn.Module, count: Path) -> None:
        super().__init__(*layers.children())
        self.count = count

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        with open(self.count, "ab") as file:
            file.write(b".")
        for layer in self:
            batch = layer(batch)
        return batch
