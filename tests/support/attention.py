"""A small vision transformer whose attention is computed in three forms, and rollout as its article has it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

FORMS = ("fused", "written out", "torch's own")
WIDTH, HEADS = 16, 2


class Attention(nn.Module):
    """Attention of tokens (N, T, C). Keeps its weights, and their gradient, where it is written out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.weights = torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "torch's own":
            return self.own(x, x, x, need_weights=False)[0]
        n, t, c = x.shape
        projected = functional.linear(x, self.own.in_proj_weight, self.own.in_proj_bias)
        q, k, v = projected.reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if self.form == "fused":
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            self.weights = (q @ k.mT / math.sqrt(c // HEADS)).softmax(-1)
            if self.weights.requires_grad:
                self.weights.retain_grad()
            mixed = self.weights @ v
        return self.own.out_proj(mixed.transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn = Attention(form)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm(x))
        return x + self.mlp(x)


class Transformer(nn.Module):
    """Three blocks over patches of 8 px; the head reads the class token, or without one the mean."""

    def __init__(self, form: str = "fused", with_class: bool = True) -> None:
        super().__init__()
        self.with_class = with_class
        self.cut = nn.Conv2d(3, WIDTH, 8, 8)
        if with_class:
            self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.blocks = nn.Sequential(*(Block(form) for _ in range(3)))
        self.head = nn.Linear(WIDTH, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).mT
        if self.with_class:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        tokens = self.blocks(tokens)
        return self.head(tokens[:, 0] if self.with_class else tokens.mean(1))


def transformer(form: str = "fused", with_class: bool = True, spread: float = 0.6) -> Transformer:
    """Make the network with seeded weights, in eval mode; the more spread they have, the less even attention is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Transformer(form, with_class)
        for block in model.blocks:
            nn.init.normal_(block.attn.own.in_proj_weight, std=spread)
        return model.eval()


def weights_and_gradients(
    model: Transformer, batch: torch.Tensor, index: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the weights of each block of a network that writes them out, and the gradients of a class's score."""
    model.zero_grad()
    model(batch)[:, index].sum().backward()
    weights = [block.attn.weights for block in model.blocks]
    model.zero_grad()
    return [each.detach() for each in weights], [each.grad for each in weights]


def rolled_out(weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the rollout of one image's matrices (heads, T, T), entry by entry: (T, T)."""
    size = weights[0].shape[-1]
    before = np.eye(size)
    for heads in weights:
        step = np.zeros((size, size))
        for i, j in np.ndindex(size, size):
            step[i, j] = 0.5 * sum(head[i, j] for head in heads) / len(heads) + 0.5 * (i == j)
        step /= step.sum(1, keepdims=True)
        after = np.zeros((size, size))
        for i, j in np.ndindex(size, size):
            after[i, j] = sum(step[i, k] * before[k, j] for k in range(size))
        before = after
    return before
