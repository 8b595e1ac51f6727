"""Where maps change when a patch of the image does: a check of axes that needs nothing but values.

A batch holds an image, and the same image with one patch changed, in each of its quarters. Read rightly, the maps of a
layer change most where the patch is, so the centre of what changes goes down with a patch further down and to the right
with one further to the right, and neither otherwise. Rows and columns are looked at apart: a transposed reading moves
them the wrong way round, a shuffled or wrongly cut one hardly at all, although the changes differ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Rows and columns of the quarters whose patches are changed, in the order of the batch."""

TOLD_APART = 0.25
"""Share of a change that has to lie elsewhere than that of another patch: below it a layer mixes the whole image."""

LEAST_MOVE = 0.05
"""By how much of the image the centre of a change has to move, for every whole that the changes differ by."""

MOST_ASIDE = 0.75
"""How far it may move along the other axis, for every whole that it moves along the right one."""


MOST_OFF_CELLS = 0.9
"""How far the centre of all four changes may lie from that of the image in a grid of tokens. A token too many or too
few before the grid moves it by a whole cell."""

SHARP = 0.95
"""From this share of changes that lie apart on, their centre is known to a part of a cell."""

FEWEST_CHANNELS = 4
"""A single map may show little of a change by chance."""


class Change(NamedTuple):
    """How the changes of maps for four patches differ.

    apart: share of a change that lies elsewhere than that of another patch, 0 to 1.
    down: move of its centre in rows when the patch moves down, as a share of the maps' height.
    right: move in columns when the patch moves right.
    down_aside: move in columns when it moves down.
    right_aside: move in rows when it moves right.
    off_cells: how far the centre of all changes lies from the middle, in cells, along rows or columns.
    """

    apart: float
    down: float
    right: float
    down_aside: float
    right_aside: float
    off_cells: float

    @property
    def decides(self) -> bool:
        """Whether the maps say anything of places."""
        return self.apart >= TOLD_APART

    @property
    def is_right(self) -> bool:
        """Whether the centre moves with the patch, along rows and columns."""
        least = LEAST_MOVE * self.apart
        aside = max(abs(self.down_aside), abs(self.right_aside))
        shorter = min(self.down, self.right)
        return shorter > least and aside < MOST_ASIDE * shorter

    @property
    def is_centred(self) -> bool:
        """Whether changes that are sharp lie around the middle of the maps, to within a cell."""
        return self.apart < SHARP or self.off_cells < MOST_OFF_CELLS


def patched(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Return an image of noise, and the same with a patch changed in each quarter: (5, C, H, W) float32."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.rand(shape, generator=generator).repeat(1 + len(QUARTERS), *(1 for _ in shape[1:]))
    height, width = shape[-2:]
    for image, (down, right) in zip(batch[1:], QUARTERS, strict=True):
        y, x = round(height * (0.25 + 0.5 * down)), round(width * (0.25 + 0.5 * right))
        patch = image[..., y - height // 16 : y + height // 16, x - width // 16 : x + width // 16]
        patch.copy_(torch.rand(patch.shape, generator=generator) * 3 - 1)
    return batch


def change_of(maps: torch.Tensor) -> Change | None:
    """Measure how maps change.

    Args:
        maps: (5, C, H, W) float, of the batch that `patched` makes.

    Returns:
        The change; None for maps of one row or column or few channels, and where a patch changes nothing or what is
        not finite.
    """
    if min(maps.shape[-2:]) < 2 or maps.shape[1] < FEWEST_CHANNELS:
        return None
    changed = (maps[1:] - maps[:1]).abs_().sum(1).double()
    total = changed.sum((1, 2), keepdim=True)
    if not total.isfinite().all() or not (total > 0).all():
        return None
    shares = changed / total
    rows = (shares.sum(2) * _positions(maps.shape[-2])).sum(1).reshape(2, 2)
    columns = (shares.sum(1) * _positions(maps.shape[-1])).sum(1).reshape(2, 2)
    pairs = [(a, b) for a in range(4) for b in range(a)]
    apart = sum(float((shares[a] - shares[b]).abs().sum()) / 2 for a, b in pairs) / len(pairs)
    return Change(
        apart,
        down=float((rows[1] - rows[0]).mean()),
        right=float((columns[:, 1] - columns[:, 0]).mean()),
        down_aside=float((columns[1] - columns[0]).mean()),
        right_aside=float((rows[:, 1] - rows[:, 0]).mean()),
        off_cells=max(
            abs(float(centres.mean()) - 0.5) * cells
            for centres, cells in ((rows, maps.shape[-2]), (columns, maps.shape[-1]))
        ),
    )


def keeps_aspect(maps: torch.Tensor, batch: torch.Tensor) -> bool:
    """Check whether maps have the aspect of the images, to within a cell: a grid cut to other rows has not."""
    (rows, columns), (height, width) = maps.shape[-2:], batch.shape[-2:]
    cells = max(height, width)  # of cross-multiplied sides, what one row or column more makes
    return rows * width in range(columns * height - cells, columns * height + cells + 1)


def _positions(cells: int) -> torch.Tensor:
    """Return the middles of cells along an axis, from 0 to 1."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells


def enlivened(model: torch.nn.Module) -> torch.nn.Module:
    """Return a model in eval mode whose weights that begin as zeros, which silence a branch, are small and random."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.is_floating_point() and not name.endswith("bias") and not bool(weight.any()):
                spread = 0.5 if weight.ndim < 2 else 0.04
                weight.copy_(torch.rand(weight.shape, generator=generator) * spread + spread / 2)
    return model.eval()
