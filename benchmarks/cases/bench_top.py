"""What keeping the strongest images of every channel adds to the forward pass: five stages of ResNet-18, 64 images.

So few images are the worst case: of the first ones nearly all enter the lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch

import cnnviz_fast as cf
from benchmarks.cases.bench_run import STAGES
from benchmarks.harness.drawing import anything
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases
from benchmarks.harness.photo_runs import model

BATCH, BATCHES = 16, 4
ENTRIES = 16
THREADS = 2

Top = dict[str, cf.TopResponses]
Kept = dict[str, tuple[torch.Tensor, torch.Tensor]]


@cache
def batches() -> list[torch.Tensor]:
    """Make the input: noise of 4 batches, (16, 3, 224, 224) float32 each."""
    random = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, 3, 224, 224, generator=random) for _ in range(BATCHES)]


def passes() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Run the model on each batch; yield its number and the maps of the stages."""
    for number, batch in enumerate(batches()):
        yield number, cf.capture(model(), batch, STAGES)


def forward() -> None:
    """Run the model, and capture what the others look at."""
    for _ in passes():
        pass


def ours() -> Top:
    """Keep the strongest images of every channel, with their positions."""
    kept: Top = {}
    for number, stages in passes():
        keys = [f"{number * BATCH + n}" for n in range(BATCH)]
        for layer, maps in stages.items():
            kept.setdefault(layer, cf.TopResponses(maps.shape[1], ENTRIES)).update(maps, keys)
    return kept


def topk() -> Kept:
    """Keep the greatest values and the numbers of their images, as a loop of ten lines does: no positions, any tie."""
    kept: Kept = {}
    for number, stages in passes():
        for layer, maps in stages.items():
            values = maps.amax(dim=(2, 3)).T
            images = torch.arange(number * BATCH, (number + 1) * BATCH).expand_as(values)
            if layer in kept:
                values, images = (torch.cat(both, dim=1) for both in zip(kept[layer], (values, images), strict=True))
            values, order = values.topk(ENTRIES, dim=1)
            kept[layer] = values, images.gather(1, order)
    return kept


@cache
def expected() -> dict[str, torch.Tensor]:
    """Make the greatest values of each channel from all of them."""
    peaks: dict[str, list[torch.Tensor]] = {layer: [] for layer in STAGES}
    for _, stages in passes():
        for layer, maps in stages.items():
            peaks[layer].append(maps.amax(dim=(2, 3)))
    return {layer: torch.cat(each).T.topk(ENTRIES, dim=1).values for layer, each in peaks.items()}


def check_ours(kept: Top) -> None:
    """Assert that the values are the greatest there are."""
    assert {layer: top.map_size[0] for layer, top in kept.items()} == dict(
        zip(STAGES, (112, 56, 28, 14, 7), strict=True)
    )
    values = {
        layer: torch.from_numpy(top.values).nan_to_num() for layer, top in kept.items()
    }  # a dead channel has none
    check_topk({layer: (each, torch.empty(0)) for layer, each in values.items()})


def check_topk(kept: Kept) -> None:
    """Assert that the values are the greatest there are."""
    for layer, values in expected().items():
        torch.testing.assert_close(kept[layer][0], values)


TABLES = [
    Table(
        "the strongest images of five stages of ResNet-18",
        [
            Contender("forward pass and capture alone", forward, anything, FLOOR, 0, threads=THREADS),
            Contender("TopResponses", ours, check_ours, OURS, 0, threads=THREADS),
            Contender("amax and torch.topk, without positions", topk, check_topk, PEER, 0, threads=THREADS),
        ],
        full_only=True,
    )
]


@cases(TABLES)
def bench_top(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
