"""Maps that were cut, joined or moved are drawn and never laid over the image; those that are whole again are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from support.token_models import Seen
from torch import nn
from torch.nn import functional

from cnnviz_fast import visualize
from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes
from cnnviz_fast.activations.axes.proven import out_of_place
from cnnviz_fast.errors import OptionError, ShapeError

INPUT = (2, 3, 64, 64)
Change = Callable[[torch.Tensor], torch.Tensor]


class Changed(nn.Module):
    """Maps of 16x16 cells that a change is made to, in front of a convolution and of a layer of another order."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change
        self.cut, self.changed = nn.Conv2d(3, 8, 4, 4), Seen()
        self.behind, self.last = nn.LazyConv2d(6, 3, padding=1), nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = self.behind(self.changed(self.change(self.cut(x))))
        last: torch.Tensor = self.last(changed.permute(0, 2, 3, 1))
        return last


def states(change: Change) -> list[str]:
    """Return how each layer's maps are drawn: placed, drawn (at no place) or refused."""
    model, found = Changed(change), list[str]()
    shapes: dict[str, tuple[int, ...]] = {}
    layers = ("changed", "behind", "last")
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: shapes.__setitem__(name, tuple(output.shape))
        )
        for name in layers
    ]
    with torch.no_grad():
        model(torch.rand(INPUT))
    for handle in handles:
        handle.remove()
    for name in layers:
        evidence = Evidence(name, model.get_submodule(name), model, INPUT)
        try:
            axes = find_axes(shapes[name], evidence)
        except ShapeError:
            found.append("refused")
        else:
            assert axes.name == ("nhwc" if name == "last" else "nchw")
            found.append("drawn" if out_of_place(axes, shapes[name], evidence) else "placed")
    return found


def blocks(x: torch.Tensor) -> torch.Tensor:
    """Cut maps into 4x4 windows of 4x4 cells, as images of a larger batch."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)


def unblocks(windows: torch.Tensor) -> torch.Tensor:
    """Put windows together again."""
    return windows.reshape(-1, 4, 4, 8, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(-1, 8, 16, 16)


def padded_windows(x: torch.Tensor) -> torch.Tensor:
    """Pad to whole windows of 6x6 cells, work in these, put them together and crop, as Swin does."""
    padded = functional.pad(x, (0, 2, 0, 2))
    windows = padded.reshape(-1, 8, 3, 6, 3, 6).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8, 6, 6).relu()
    back: torch.Tensor = windows.reshape(-1, 3, 3, 8, 6, 6).permute(0, 3, 1, 4, 2, 5).reshape(-1, 8, 18, 18)
    return back[:, :, :16, :16]


def written(*places: tuple[slice, slice], channels: int = 8) -> Change:
    """Make a change that writes slices of the rows of maps into slices of the rows of a new buffer."""

    def change(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(x.shape, device=x.device)
        for into, source in places:
            out[:, :channels, into] = x[:, :channels, source]
        return out

    return change


def written_over(x: torch.Tensor) -> torch.Tensor:
    out = x.clone()
    out[..., :8] = x[..., 8:]
    return out


def masked(x: torch.Tensor) -> torch.Tensor:
    out, mask = x.clone(), torch.zeros(16, 16, dtype=torch.bool, device=x.device)
    out[:, :, mask] = 0
    return out


def swapped_by_tokens(x: torch.Tensor) -> torch.Tensor:
    return torch.cat(x.flatten(2).chunk(2, 2)[::-1], 2).reshape(x.shape)


def row_by_row(x: torch.Tensor, backwards: bool = False) -> torch.Tensor:
    out = torch.zeros(x.shape, device=x.device)
    for at in range(16):
        out[:, :, at] = x[:, :, 15 - at if backwards else at].relu()
    return out


def channel_by_channel(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape, device=x.device)
    for at in range(8):
        out[:, at] = x[:, 7 - at]
    return out


def into_every_other(x: torch.Tensor) -> torch.Tensor:
    out = x.new_zeros(*x.shape[:2], 32, 32)
    out[..., ::2, ::2] = x
    return out


def changed_in_views(x: torch.Tensor) -> torch.Tensor:
    x.flatten(2).relu_()
    x[:, :, :8].mul_(2)
    x.chunk(2, 3)[0].add_(1)
    return x


def part_of_a_view_written(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out.chunk(2, 2)[0].copy_(x[:, :, 8:])
    return out


HALF, REST = slice(0, 8), slice(8, 16)
DRAWN: dict[str, Change] = {
    "slice": lambda x: x[:, :, :8],
    "quarter": lambda x: x[:, :, 8:, 8:],
    "centre": lambda x: x[:, :, 4:12, 4:12],
    "rows of a half": lambda x: x[..., 8::2, ::2],
    "chunk": lambda x: x.chunk(2, 3)[0],
    "split": lambda x: x.split(4, 2)[1],
    "narrow": lambda x: x.narrow(2, 4, 8),
    "stack of some rows": lambda x: torch.stack(x.unbind(2)[:8], 2),
    "stack upside down": lambda x: torch.stack(x.unbind(2)[::-1], 2),
    "twice": lambda x: torch.cat([x, x], 2),
    "with its mirror": lambda x: torch.cat([x, x.flip(3)], 3),
    "halves swapped": lambda x: torch.cat([x[:, :, 8:], x[:, :, :8]], 2),
    "halves added": lambda x: x[:, :, :8] + x[:, :, 8:],
    "halves one behind another": lambda x: torch.cat(x.chunk(2, 2), 1),
    "some channels rolled": lambda x: torch.cat([x[:, :4].roll(4, 2), x[:, 4:]], 1),
    "repeated": lambda x: x.repeat(1, 1, 1, 2),
    "zeros above": lambda x: torch.cat([x.new_zeros(*x.shape[:2], 4, 16), x], 2),
    "padded on one side": lambda x: functional.pad(x, (4, 0, 0, 0)),
    "padded by reflection": lambda x: functional.pad(x, (0, 6, 0, 6), mode="reflect"),
    "wrapped on one side": lambda x: functional.pad(x, (4, 0, 4, 0), mode="circular"),
    "padded and cropped elsewhere": lambda x: functional.pad(x, (4, 0))[..., :16],
    "moved by padding": lambda x: functional.pad(x[..., 4:], (0, 4)),
    "cropped by padding": lambda x: functional.pad(x, (-8, 0)),
    "other half of a buffer": written((HALF, REST)),
    "halves of a buffer swapped": written((HALF, REST), (REST, HALF)),
    "some channels shifted in a buffer": written((slice(2, 16), slice(0, 14)), channels=4),
    "written over": written_over,
    "written upside down": partial(row_by_row, backwards=True),
    "written into a chunk": part_of_a_view_written,
    "half unfolded and folded": lambda x: functional.fold(
        functional.unfold(x[:, :, :8], 3, padding=1), (8, 16), 3, 1, 1
    ),
    "half enlarged": lambda x: functional.interpolate(x[:, :, :8, :8], size=(16, 16)),
}
PLACED: dict[str, Change] = {
    "every other": lambda x: x[..., ::2, ::2],
    "every other, from the second": lambda x: x[..., 1::2, 1::2],
    "a rim": lambda x: x[..., 1:-1, 1:-1],
    "chunks joined": lambda x: torch.cat([torch.cat(part.chunk(2, 3), 3) for part in x.chunk(4, 2)], 2),
    "chunks joined, pooled": lambda x: torch.cat([functional.avg_pool2d(part, 2) for part in x.chunk(2, 2)], 2),
    "chunks of tokens joined": lambda x: torch.cat(x.flatten(2).chunk(2, 2), 2).reshape(x.shape),
    "rows stacked": lambda x: torch.stack([row.relu() for row in x.unbind(2)], 2),
    "rows joined": lambda x: torch.cat([x[:, :, at].unsqueeze(2) for at in range(16)], 2),
    "zeros around": lambda x: torch.cat([x.new_zeros(*x.shape[:2], 1, 16), x, x.new_zeros(*x.shape[:2], 1, 16)], 2),
    "padded as TensorFlow does": lambda x: functional.pad(x, (0, 1, 0, 1)),
    "padded alike": lambda x: functional.pad(x, (3, 3, 3, 3)),
    "wrapped": lambda x: functional.pad(x, (2, 2, 2, 2), mode="circular"),
    "padded and cropped": lambda x: functional.pad(x, (0, 4, 8, 0))[:, :, 8:, :16],
    "padded to windows": padded_windows,
    "windows put together": lambda x: unblocks(blocks(x)),
    "a buffer": written((HALF, HALF), (REST, REST)),
    "a buffer in another order": written((REST, REST), (HALF, HALF)),
    "a whole buffer": written((slice(None), slice(None))),
    "masked": masked,
    "written row by row": row_by_row,
    "written channel by channel": channel_by_channel,
    "written into every other": into_every_other,
    "changed in views": changed_in_views,
    "pixels shuffled": lambda x: functional.pixel_shuffle(x, 2),
    "rolled back": lambda x: x.roll(4, 2).relu().roll(-4, 2),
    "beside what was moved": lambda x: x + functional.pad(x, (4, 0))[..., :16],
    "data": lambda x: x.data * 2,
    "numbers made in memory": lambda x: x + torch.arange(16.0),
}
REFUSED: dict[str, Change] = {
    "windows": blocks,
    "rolled": lambda x: x.roll(4, 2),
    "taken along": lambda x: x.take_along_dim(torch.arange(15, -1, -1).reshape(1, 1, 16, 1).to(x.device), 2),
    "selected backwards": lambda x: x.index_select(2, torch.arange(15, -1, -1)),
    "listed": lambda x: x[:, :, [3, 1, 2, 0]],
    "listed both ways": lambda x: x[:, :, torch.arange(8)[:, None], torch.arange(8)],
    "tokens swapped": swapped_by_tokens,
}
ELSE: dict[str, tuple[Change, list[str]]] = {
    "shuffled by unequal factors": (
        lambda x: x.reshape(-1, 4, 2, 16, 16).permute(0, 1, 3, 2, 4).reshape(-1, 4, 32, 16),
        ["refused", "drawn", "drawn"],
    ),
    "rows among channels": (lambda x: x.reshape(-1, 16, 8, 16), ["refused", "drawn", "drawn"]),
    "parts of windows": (lambda x: x.unfold(2, 4, 4)[:, :, 0].transpose(2, 3), ["refused", "drawn", "drawn"]),
    "through numpy": (lambda x: torch.from_numpy(x.numpy() * 2), ["drawn", "drawn", "drawn"]),
    "tokens joined off rows": (
        lambda x: torch.cat(x.flatten(2).split(100, 2), 2).reshape(x.shape), ["drawn", "drawn", "drawn"]
    ),
}  # fmt: skip
CASES = [
    *((change, [state] * 3, name) for kinds, state in ((DRAWN, "drawn"), (PLACED, "placed"), (REFUSED, "refused"))
      for name, change in kinds.items()),
    *((change, expected, name) for name, (change, expected) in ELSE.items()),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [case[:2] for case in CASES], ids=[case[2] for case in CASES])
def test_maps_are_laid_over_the_image_only_where_they_are_whole(change: Change, expected: list[str]) -> None:
    assert states(change) == expected


def test_visualize_maps_that_were_cut_are_drawn_and_an_overlay_is_refused_in_one_line() -> None:
    model, batch = Changed(DRAWN["quarter"]), torch.rand(1, 3, 64, 64)
    assert visualize(model, batch, ["behind"], tile=16)
    said = r"^overlay must .* got layer 'behind' read as nchw, which was cut, joined or moved, so that it is"
    with pytest.raises(OptionError, match=said) as caught:
        visualize(model, batch, ["behind"], tile=16, overlay=True)
    assert "\n" not in str(caught.value)
    assert visualize(Changed(PLACED["padded to windows"]), batch, ["behind"], tile=16, overlay=True)


def test_visualize_maps_of_which_sight_was_lost_are_not_laid_over_the_image() -> None:
    through_numpy, batch = Changed(ELSE["through numpy"][0]), torch.rand(1, 3, 64, 64)
    with pytest.raises(OptionError, match="which holds nothing that a pass of the model could follow from the input"):
        visualize(through_numpy, batch, ["behind"], tile=16, overlay=True)
    assert visualize(through_numpy, batch, ["cut"], tile=16, overlay=True)
    off_rows = Changed(ELSE["tokens joined off rows"][0])
    with pytest.raises(
        OptionError, match="which a pass of the model lost sight of, so that nothing shows where it lies"
    ):
        visualize(off_rows, batch, ["changed"], tile=16, axes="nchw", overlay=True)


def test_visualize_padding_that_depends_on_the_size_is_judged_for_each_size() -> None:
    def to_whole_windows(x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x, (0, -x.shape[3] % 8, 0, -x.shape[2] % 8))

    model = Changed(to_whole_windows)
    assert visualize(model, torch.rand(1, 3, 64, 64), ["behind"], tile=16, overlay=True)
    with pytest.raises(OptionError, match="which was cut, joined or moved"):
        visualize(model, torch.rand(1, 3, 76, 76), ["behind"], tile=16, overlay=True)
