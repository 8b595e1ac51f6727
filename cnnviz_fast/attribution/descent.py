"""Two ways downhill: L-BFGS, for one smooth function, and Adam, for many images at once under random shifts.

They are short, and torch.optim takes seconds to be loaded: it brings the compiler.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import torch

Slope = Callable[[torch.Tensor], tuple[float, torch.Tensor]]
"""Called with a point; returns the value there and the gradient."""

HISTORY = 20
"""Pairs of steps and changes of the gradient that L-BFGS remembers: two images each, 25 MB for one of 224 px."""

_ENOUGH, _LEVELLED = 1e-4, 0.9
"""Of the search along a direction: a step must gain this share of what the slope promises, and the slope at its end be
at most this share of that (Wolfe's conditions, with the usual numbers)."""

_TRIES = 12


class Adam:
    """Adam: steps as long as the gradient is reliable, in each coefficient by itself.

    Args:
        x: (any shape) float32. Written.
        rate: length of the longest step.
    """

    def __init__(self, x: torch.Tensor, rate: float) -> None:
        self._x, self._rate, self._count = x, rate, 0
        self._mean, self._square = torch.zeros_like(x), torch.zeros_like(x)

    def step(self, gradient: torch.Tensor) -> None:
        """Make one step against a gradient of the shape of `x`.

        Source:
            Kingma and Ba, 2015, with their 0.9, 0.999 and 1e-8.
        """
        self._count += 1
        self._mean.lerp_(gradient, 0.1)
        self._square.lerp_(gradient.square(), 0.001)
        mean = self._mean / (1 - 0.9**self._count)
        deviation = (self._square / (1 - 0.999**self._count)).sqrt_().add_(1e-8)
        with torch.no_grad():
            self._x.sub_(self._rate * mean / deviation)


def lbfgs(slope: Slope, x: torch.Tensor, steps: int) -> Iterator[torch.Tensor]:
    """Go downhill, with a model of the curvature made of the last steps.

    Args:
        slope: of the function.
        x: (any shape) float32. Where to begin. Not modified.
        steps: of the descent. A step takes one evaluation, or a few where the first is too long.

    Yields:
        The point after each step. Where no step gets any lower, the last one again.

    Source:
        Nocedal and Wright, Numerical Optimization, algorithm 7.4.
    """
    pairs: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=HISTORY)
    value, gradient = slope(x)
    for _ in range(steps):
        direction = _direction(gradient, pairs)
        descent = float((direction * gradient).sum())
        if descent >= 0:  # rounding
            pairs.clear()
            direction, descent = -gradient, -float(gradient.square().sum())
        # The first step: as long as the gradient is, if that is less than 1 in all.
        length = 1.0 if pairs else min(1.0, 1.0 / max(float(gradient.abs().sum()), 1e-30))
        found = _along(slope, x, direction, length, value, descent)
        if found is None:
            pairs.clear()
            yield x
            continue
        there, after, slope_there = found
        moved, turned = there - x, slope_there - gradient
        curvature = float((moved * turned).sum())
        if curvature > 1e-10 * float(turned.square().sum()):
            pairs.append((moved, turned, curvature))
        x, value, gradient = there, after, slope_there
        yield x


def _along(
    slope: Slope, x: torch.Tensor, direction: torch.Tensor, length: float, value: float, descent: float
) -> tuple[torch.Tensor, float, torch.Tensor] | None:
    """Return the end of a step along a direction, with the value and the gradient there; None where none gains.

    Steps that gain too little are shortened, those after which it goes on downhill as steeply are lengthened.

    Source:
        Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, 2013, algorithm 4.6.
    """
    found, shortest, longest = None, 0.0, math.inf
    for _ in range(_TRIES):
        there = x + length * direction
        after, gradient = slope(there)
        if not after <= value + _ENOUGH * length * descent:
            longest = length
        else:
            found, shortest = (there, after, gradient), length
            if float((gradient * direction).sum()) >= _LEVELLED * descent:
                break
        length = 2 * shortest if longest == math.inf else (shortest + longest) / 2
    return found


def _direction(gradient: torch.Tensor, pairs: deque[tuple[torch.Tensor, torch.Tensor, float]]) -> torch.Tensor:
    """Return where L-BFGS goes: the gradient, times the inverse of the curvature that pairs tell."""
    direction, shares = -gradient, []
    for moved, turned, curvature in reversed(pairs):
        share = float((moved * direction).sum()) / curvature
        shares.append(share)
        direction = direction - share * turned
    if pairs:
        _, turned, curvature = pairs[-1]
        direction = direction * (curvature / float(turned.square().sum()))
    for (moved, turned, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - float((turned * direction).sum()) / curvature) * moved
    return direction
