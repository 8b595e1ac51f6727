"""The cases that every backend has to draw as the reference does. What is odd about each stands in its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cnnviz_fast.geometry import NO_ROOM, Room

NAN, INF = float("nan"), float("inf")
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True, eq=False)
class Case:
    """Maps as a user may pass them, and the sheet they are drawn into.

    maps: (C, H, W), a tensor or a numpy array.
    tile: (tile_h, tile_w) in px.
    grid: (rows, cols), 0 for as many as needed.
    gap: px between tiles.
    margin: px around the grid.
    room: px for what is written around the tiles; kernels leave it background.
    """

    maps: Any
    tile: tuple[int, int] = (9, 11)
    grid: tuple[int, int] = (0, 0)
    gap: int = 0
    margin: int = 0
    room: Room = NO_ROOM


def noise(*shape: int) -> torch.Tensor:
    """Return seeded normal noise, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def with_values(values: dict[tuple[Any, ...], float]) -> torch.Tensor:
    """Return noise, (3, 4, 5) float32, with other values at some places."""
    maps = noise(3, 4, 5)
    for place, value in values.items():
        maps[place] = value
    return maps


def mixed() -> torch.Tensor:
    """Return one channel of every kind, (8, 3, 4) float32."""
    maps = noise(8, 3, 4)
    maps[1] = 0
    maps[2] = -3.5
    maps[3, 1, 2] = NAN
    maps[4, 0, 0], maps[4, 2, 3] = INF, -INF
    maps[5] = NAN
    maps[6] = 2
    maps[6, 1, 1] = NAN
    maps[7] *= 1e30
    return maps


def ends(low: float, high: float) -> torch.Tensor:
    """Return maps between two values, (2, 3, 3) float32."""
    return torch.linspace(0, 1, 18, dtype=torch.float64).mul(high - low).add(low).reshape(2, 3, 3).float()


CASES = {
    "plain": Case(noise(4, 4, 6)),
    "flat": Case(torch.tensor([-2.0, 0.0, 7.5])[:, None, None].expand(3, 4, 5)),
    "dead": Case(torch.zeros(3, 4, 5)),
    "negative_zero": Case(torch.tensor([[[0.0, -0.0], [-0.0, 0.0]], [[-0.0, 1.0], [0.0, 0.5]]])),
    "constant_but_one": Case(with_values({(0,): 1.0, (0, 2, 2): 1.5})),
    "one_nan": Case(with_values({(1, 2, 2): NAN})),
    "nan_in_a_corner": Case(with_values({(0, 0, 0): NAN, (1, 3, 4): NAN, (2, 0, 4): NAN})),
    "nan_row_and_column": Case(with_values({(0, 1): NAN, (1, ..., 2): NAN})),
    "all_nan": Case(torch.full((2, 3, 4), NAN)),
    "one_channel_nan": Case(with_values({(1,): NAN})),
    "one_finite_value": Case(with_values({(0,): NAN, (0, 1, 1): 3.0})),
    "infinities": Case(with_values({(0, 0, 0): INF, (1, 2, 2): -INF, (2, 3, 4): INF, (2, 3, 3): -INF})),
    "all_infinite": Case(torch.full((2, 3, 4), -INF)),
    "mixed": Case(mixed(), gap=1, margin=2),
    "subnormal": Case(noise(3, 4, 5) * 1e-40),
    "subnormal_range": Case(ends(0, 40 * SMALLEST)),
    "least_range": Case(torch.tensor([[[0, SMALLEST], [SMALLEST, 0]]])),
    "range_of_one_step": Case(torch.tensor([[[1e8, 1e8 + 8], [1e8 + 8, 1e8]]])),
    "range_overflows_float32": Case(ends(-3e38, 3e38)),
    "largest_range": Case(ends(-LARGEST, LARGEST)),
    "overflow_with_infinities": Case(with_values({(0, 0, 0): LARGEST, (0, 1, 1): -LARGEST, (0, 2, 2): INF})),
    "one_pixel": Case(noise(3, 1, 1)),
    "one_row": Case(noise(3, 1, 7)),
    "one_column": Case(noise(3, 7, 1)),
    "one_pixel_tile": Case(noise(3, 4, 5), tile=(1, 1)),
    "odd_sizes": Case(noise(3, 5, 3), tile=(13, 7)),
    "unequal_sizes": Case(noise(2, 2, 9), tile=(17, 12)),
    "single_channel": Case(noise(1, 5, 6)),
    "last_row_not_full": Case(noise(7, 3, 4), grid=(0, 4)),
    "last_rows_empty": Case(noise(3, 3, 4), grid=(4, 2), gap=2),
    "one_row_of_tiles": Case(noise(5, 3, 4), grid=(1, 0), gap=3),
    "one_column_of_tiles": Case(noise(5, 3, 4), grid=(0, 1), margin=1),
    "gap_and_margin": Case(noise(5, 3, 4), gap=2, margin=3),
    "labels": Case(noise(5, 3, 4), room=Room(label_h=7, label_w=5)),
    "labels_wider_than_tiles": Case(noise(5, 3, 4), tile=(2, 3), gap=1, margin=2, room=Room(label_h=1, label_w=9)),
    "labels_and_rows_without_tiles": Case(noise(3, 3, 4), grid=(4, 2), room=Room(label_h=3, label_w=12)),
    "head_and_foot": Case(noise(5, 3, 4), margin=1, room=Room(head=8, foot=13)),
    "wider_than_its_grid": Case(noise(4, 3, 4), grid=(2, 2), gap=2, room=Room(head=3, foot=5, least_w=70)),
    "all_that_is_written": Case(mixed(), gap=3, margin=4, room=Room(5, 13, 6, 7, 99)),
    "tile_equals_map": Case(noise(3, 6, 7), tile=(6, 7)),
    "tile_smaller": Case(noise(3, 12, 14), tile=(5, 6)),
    "tile_smaller_with_nan": Case(mixed().repeat(1, 4, 4), tile=(5, 7)),
    "tile_smaller_one_way": Case(noise(2, 12, 3), tile=(5, 8)),
    "whole_factor": Case(noise(2, 4, 4), tile=(16, 16)),
    "not_contiguous": Case(noise(5, 6, 4).permute(2, 0, 1)),
    "every_other": Case(noise(4, 8, 10)[::2, 1::2, ::2]),
    "expanded": Case(noise(1, 1, 6).expand(3, 4, 6)),
    "channels_last": Case(noise(2, 5, 4, 3).contiguous(memory_format=torch.channels_last)[1]),
    "needs_gradient": Case(noise(3, 4, 5).requires_grad_()),
    "half": Case((noise(3, 4, 5) * 100).half()),
    "half_largest": Case(ends(-65504, 65504).half()),
    "bfloat16": Case(noise(3, 4, 5).bfloat16()),
    "float64": Case(noise(3, 4, 5).double() + 1e-12),
    "float64_beyond_float32": Case(noise(3, 4, 5).double() * 1e38 * 5),
    "int64": Case((noise(3, 4, 5) * 1e6).long()),
    "int8": Case((noise(3, 4, 5) * 40).to(torch.int8)),
    "uint8": Case((noise(3, 4, 5) * 10 + 100).to(torch.uint8)),
    "bool": Case(noise(3, 4, 5) > 0),
    "numpy": Case(noise(3, 4, 5).numpy()),
    "numpy_half": Case(noise(3, 4, 5).numpy().astype(np.float16)),
    "numpy_float64_beyond_float32": Case(noise(3, 4, 5).numpy().astype(np.float64) * 5e38),
    "numpy_uint16": Case((noise(3, 4, 5).numpy() * 1000 + 30000).astype(np.uint16)),
    "numpy_big_endian": Case(noise(3, 4, 5).numpy().astype(">f4")),
    "numpy_backwards": Case(noise(3, 4, 5).numpy()[::-1, ::-1, ::-1]),
    "numpy_fortran_order": Case(np.asfortranarray(noise(3, 4, 5).numpy())),
    "numpy_read_only": Case(np.broadcast_to(noise(1, 4, 5).numpy(), (3, 4, 5))),
    "huge": Case(noise(2048, 7, 7), tile=(8, 8)),
}
