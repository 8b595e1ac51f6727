"""Small networks in which names of classes, numbers and the last dimension all mislead about the axes of outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Seen(nn.Identity):
    """A place in a forward at which a test looks."""


class Tokens(nn.Module):
    """A ViT of any width and patch, with prefix and suffix tokens: (N, P + H*W + S, C)."""

    def __init__(self, width: int, patch: int, prefix: int = 1, suffix: int = 0, stride: int | None = None) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, patch, stride or patch, padding=(patch - (stride or patch)) // 2)
        self.before = nn.Parameter(torch.zeros(1, prefix, width))
        self.behind = nn.Parameter(torch.zeros(1, suffix, width))
        self.norm = nn.LayerNorm(width)
        self.act = nn.GELU()
        self.seen = Seen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        ends = (part.expand(len(x), -1, -1) for part in (self.before, self.behind))
        tokens = torch.cat([next(ends), tokens, next(ends)], 1)
        seen: torch.Tensor = self.seen(self.act(self.norm(tokens)))
        return seen


class LSTM2d(nn.Module):
    """As Sequencer's: a name that ends in 2d, channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.LSTM(width, width, batch_first=True)
        self.columns = nn.LSTM(width, width, batch_first=True)
        self.fc = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        rows = self.rows(x.reshape(n * h, w, c))[0].reshape(n, h, w, c)
        columns = self.columns(x.permute(0, 2, 1, 3).reshape(n * w, h, c))[0].reshape(n, w, h, c).permute(0, 2, 1, 3)
        mixed: torch.Tensor = self.fc(torch.cat([rows, columns], -1))
        return x + mixed


class SS2D(nn.Module):
    """As VMamba's: sequences along rows and columns, both ways, put together again; channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        first = x.permute(0, 3, 1, 2)
        ways = torch.stack([first.flatten(2), first.transpose(2, 3).flatten(2)], 1)
        ways = torch.cat([ways, ways.flip(-1)], 1)
        run = self.conv(ways.reshape(n * 4, c, h * w)).reshape(n, 4, c, h * w)
        both = run[:, :2] + run[:, 2:].flip(-1)
        down = both[:, 1].reshape(n, c, w, h).transpose(2, 3)
        return (both[:, 0].reshape(n, c, h, w) + down).permute(0, 2, 3, 1)


class PatchMerging2D(nn.Module):
    """As VMamba's and Swin's: four neighbours become channels; channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        merged: torch.Tensor = self.reduction(torch.cat(parts, -1))
        return merged


class ChannelsLast(nn.Module):
    """A network of channels last, as many as rows and columns, through a block that is called ...2d."""

    def __init__(self, block: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.block = block
        self.act = nn.GELU()
        self.back = Seen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.act(self.block(self.cut(x).permute(0, 2, 3, 1)))
        back: torch.Tensor = self.back(last.permute(0, 3, 1, 2))
        return back


class Attention(nn.Module):
    """Attention written out, so that its matrix passes through a module: (N, heads, T, T)."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.qkv = nn.Linear(width, 3 * width)
        self.keys = nn.AvgPool2d(2)
        self.queries = Seen()
        self.matrix = nn.Dropout()
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.cut(x)
        tokens = maps.flatten(2).transpose(1, 2)
        n, t, c = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        self.keys(maps)
        weights = self.matrix((self.queries(q) @ k.transpose(-2, -1)).softmax(-1))
        mixed: torch.Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, t, c))
        return tokens + mixed


class Unfolded(nn.Module):
    """A convolution by hand: (N, C*kh*kw, L), folded to maps again."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 4, 4, 4)
        self.norm = nn.LayerNorm(4)
        self.unfold = nn.Unfold(3, padding=1)
        self.fold = Seen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.cut(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        folded: torch.Tensor = self.fold(functional.fold(self.unfold(maps), maps.shape[-2:], 3, padding=1))
        return folded


class PooledKeys(nn.Module):
    """Keys pooled to grids of several sizes, side by side, and along rows of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)
        self.pyramid = nn.LayerNorm(8)
        self.along = nn.AvgPool1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.cut(x)
        sizes = [functional.adaptive_avg_pool2d(maps, size).flatten(2).transpose(1, 2) for size in (4, 3)]
        self.along(maps.flatten(2))
        keys: torch.Tensor = self.pyramid(torch.cat(sizes, 1))
        return keys


class TokensFirst(nn.Module):
    """torch's own encoder without batch_first: (T, N, C)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).permute(2, 0, 1)
        out: torch.Tensor = self.encoder(torch.cat([self.cls.expand(-1, len(x), -1), tokens]))
        return out


class Mixer(nn.Module):
    """Layers that mix tokens, which stand last: (N, C, T)."""

    def __init__(self, width: int = 16, tokens: int = 64) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.last = Seen()
        self.hidden = nn.Linear(tokens, 64)
        self.mix = nn.Linear(64, tokens)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2)
        tokens = self.last(tokens) + self.mix(self.hidden(tokens).relu())
        mixed: torch.Tensor = self.norm(tokens.transpose(1, 2))
        return mixed


class Windows(nn.Module):
    """Swin's way: rolled, cut into windows, normalised, put together and rolled back."""

    def __init__(self, width: int = 8, size: int = 4, shift: int = 2) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.size, self.shift = size, shift
        self.rolled = Seen()
        self.inside = nn.LayerNorm(width)
        self.outside = Seen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.cut(x).permute(0, 2, 3, 1)
        (n, h, w, c), s = last.shape, self.size
        rolled = self.rolled(last.roll((-self.shift, -self.shift), (1, 2)))
        windows = rolled.reshape(n, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        windows = self.inside(windows).reshape(n, h // s, w // s, s, s, c).transpose(2, 3).reshape(n, h, w, c)
        out: torch.Tensor = self.outside(windows.roll((self.shift, self.shift), (1, 2)))
        return out


class LooksAtValues(nn.Module):
    """A forward that no pass without values gets through."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.cut(x).permute(0, 2, 3, 1)
        if float(maps.sum()) == 12.5:
            maps = maps * 2
        out: torch.Tensor = self.norm(maps)
        return out


def outputs_of(model: nn.Module, batch: torch.Tensor) -> dict[str, Any]:
    """Run a model and return what each module put out first."""
    seen: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.setdefault(name, output))
        for name, module in model.named_modules()
        if name
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return seen
