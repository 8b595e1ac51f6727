"""Every parameter of ResNet-152: moments, histograms of 50 bins, and all of them drawn into one file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cnnviz_fast as cf
from benchmarks.harness import old_ways, outputs
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases
from cnnviz_fast.sheets.render import write_sheet
from cnnviz_fast.weights.histogram_sheet import plan_histograms
from cnnviz_fast.weights.histograms import BINS
from cnnviz_fast.weights.parameters import held_tensors

THREADS = 2
FIGURES = 8  # that article 004's way runs on, spread over all
CHECKED = 40
TENSORS, VALUES = 777, 60_344_232  # parameters and running statistics of ResNet-152; `tensors` asserts it


@cache
def resnet152() -> torch.nn.Module:
    """Make the model with seeded random weights: the time does not depend on them."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet152(weights=None).eval()


@cache
def tensors() -> list[torch.Tensor]:
    """List what all contenders measure."""
    found = [held.values for held in held_tensors(resnet152())]
    assert (len(found), sum(tensor.numel() for tensor in found)) == (TENSORS, VALUES)
    return found


def some() -> list[torch.Tensor]:
    """Take FIGURES tensors, spread over all: small and large ones as they come."""
    return tensors()[:: TENSORS // FIGURES][:FIGURES]


def everything(path: Callable[[], Path], threads: int) -> list[cf.ParameterInfo]:
    """Do what `cnnviz weights` does, but for printing and kernels."""
    infos = cf.parameter_statistics(resnet152(), threads=threads)
    write_sheet(plan_histograms(infos, threads=threads), path())
    return infos


def histc() -> list[torch.Tensor]:
    """Count into 50 bins with torch, which finds each tensor's range first; no moments, no sheet."""
    return [torch.histc(tensor, bins=BINS) for tensor in tensors()]


def is_right(infos: list[cf.ParameterInfo]) -> None:
    """Assert that moments and counts are numpy's."""
    assert len(infos) == TENSORS
    for info, tensor in list(zip(infos, tensors(), strict=True))[:: TENSORS // CHECKED]:
        values = tensor.double().numpy().ravel()
        assert np.isclose(info.std, values.std(ddof=1), rtol=1e-9)
        assert (info.min, info.max) == (values.min(), values.max())
        assert info.histogram == tuple(np.histogram(values, BINS)[0])


def is_near(counts: list[torch.Tensor]) -> None:
    """Assert that torch's counts are numpy's but for a few values on edges, which it finds in float32."""
    for found, tensor in list(zip(counts, tensors(), strict=True))[:: TENSORS // CHECKED]:
        if tensor.min() < tensor.max():
            exact = np.histogram(tensor.double().numpy(), BINS)[0]
            assert abs(found.numpy() - exact).sum() <= 4 + tensor.numel() / 1000


def are_sheets(folder: Path) -> None:
    """Assert that there is a sheet of each tensor."""
    assert len(list(folder.iterdir())) == FIGURES


def anything(result: Any) -> None:
    """Assert nothing: a floor that only reads."""


def table() -> Table:
    """Ours, everything; torch's histograms alone; article 004's way; and reading the values once."""
    sheet, folder = partial(outputs.path, "histograms.png"), partial(outputs.path, "histograms")
    size = 4 * VALUES

    def ours(threads: int) -> Contender:
        name = f"statistics, histograms, file, {threads} thread{'s' * (threads > 1)}"
        return Contender(name, lambda: everything(sheet, threads), is_right, OURS, size, threads=threads, output=sheet)

    return Table(
        "weights of ResNet-152",
        [
            ours(1),
            ours(2),
            Contender("torch.histc alone", histc, is_near, PEER, size, threads=THREADS),
            Contender(
                "numpy + matplotlib (article 004)", lambda: old_ways.article_004_files(some(), folder()), are_sheets,
                PEER, size, output=folder, ran=FIGURES, of=TENSORS, slow=True,
            ),
            Contender(
                "torch.aminmax alone", lambda: [t.aminmax() for t in tensors()], anything, FLOOR, size, threads=THREADS
            ),
        ],
        prepare=lambda: (tensors(), old_ways.pyplot()),
        full_only=True,
    )  # fmt: skip


TABLES = [table()]


@cases(TABLES)
def bench_weights(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
