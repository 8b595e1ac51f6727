"""L-BFGS and Adam on functions whose least value is known."""

from __future__ import annotations

import itertools

import torch
from support.assertions import FLOAT32_SUMS, OPTIMIZED, assert_close, assert_equal_tensors

from cnnviz_fast.attribution.descent import Adam, lbfgs


def rosenbrock(x: torch.Tensor) -> tuple[float, torch.Tensor]:
    x = x.detach().requires_grad_()
    value = ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()
    return value.item(), torch.autograd.grad(value, x)[0]


def test_lbfgs_follows_a_curved_valley_to_its_end() -> None:
    points = list(lbfgs(rosenbrock, torch.full((6,), -1.0), 120))
    values = [rosenbrock(point)[0] for point in points]
    assert len(points) == 120
    assert all(after <= before for before, after in itertools.pairwise(values))
    assert values[-1] < 1e-6


def test_lbfgs_stays_where_nothing_is_lower() -> None:
    at = torch.ones(3)
    for point in lbfgs(rosenbrock, at, 3):
        assert_equal_tensors(point, at)


def test_lbfgs_takes_a_function_that_is_flat_or_not_finite_elsewhere() -> None:
    def root(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        return float(x - x.log()), 1 - 1 / x  # least at 1, NaN below 0

    *_, last = lbfgs(root, torch.tensor([30.0]), 20)
    assert_close(last, torch.ones(1), OPTIMIZED)


def test_adam_is_torchs_adam() -> None:
    ours, theirs = torch.tensor([3.0, -2.0, 0.0]), torch.tensor([3.0, -2.0, 0.0], requires_grad=True)
    mine, reference = Adam(ours, 0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(20):
        mine.step(2 * ours)
        theirs.grad = 2 * theirs.detach()
        reference.step()
    assert_close(ours, theirs, FLOAT32_SUMS)
