"""Axes of networks in which names, numbers and the last dimension mislead: what a pass without values shows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.token_models import (
    SS2D,
    Attention,
    ChannelsLast,
    LooksAtValues,
    LSTM2d,
    Mixer,
    PatchMerging2D,
    PooledKeys,
    Seen,
    Tokens,
    TokensFirst,
    Unfolded,
    Windows,
)
from torch import nn
from torch.nn import functional

from cnnviz_fast.activations.axes import proven
from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes, to_maps
from cnnviz_fast.activations.axes.proven import out_of_place
from cnnviz_fast.activations.axes.record import Axes
from cnnviz_fast.activations.capture import capture
from cnnviz_fast.activations.maps import read_activations
from cnnviz_fast.activations.tracing import trace
from cnnviz_fast.activations.tracing.trace import traced_grids, traced_roles
from cnnviz_fast.errors import ShapeError
from cnnviz_fast.models.load import load_model
from cnnviz_fast.options.reading import AxesOptions

INPUT = (2, 3, 32, 32)


def told(model: nn.Module, layer: str, shape: tuple[int, ...], given: tuple[int, ...] = INPUT) -> Axes:
    """Return the axes that are found for an output of a layer."""
    module = dict(model.named_modules(remove_duplicate=False)).get(layer.partition(":")[0])
    return find_axes(shape, Evidence(layer, module, model, given))


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize(("width", "patch", "pixels"), [(64, 4, 32), (196, 4, 56), (256, 2, 32)])
def test_find_axes_vit_as_wide_as_it_has_tokens_is_told(width: int, patch: int, pixels: int, images: int) -> None:
    model, side = Tokens(width, patch, prefix=0), pixels // patch
    for layer in ("norm", "act", "seen"):
        found = told(model, layer, (images, side * side, width), (images, 3, pixels, pixels))
        assert found == Axes("tokens", 1, 0, (side, side))


@pytest.mark.parametrize(("prefix", "suffix"), [(1, 0), (5, 0), (1, 5), (0, 100), (5, 4)])
def test_find_axes_prefix_and_suffix_are_counted(prefix: int, suffix: int) -> None:
    model = Tokens(16, 4, prefix, suffix)
    assert told(model, "seen", (2, prefix + 64 + suffix, 16)) == Axes("tokens", 1, prefix, (8, 8))


def test_find_axes_stride_decides_where_patches_overlap() -> None:
    assert told(Tokens(16, 7, 0, 0, stride=4), "seen", (2, 49, 16)) == Axes("tokens", 1, 0, (7, 7))
    assert traced_grids(Tokens(16, 7, 0, 0, stride=4), INPUT) == {(7, 7)}


def test_find_axes_two_sizes_of_input_are_told_apart() -> None:
    class TwoSizes(nn.Module):
        """As CrossViT: the image at two sizes."""

        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList([Tokens(16, 4), Tokens(16, 4)])

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            small = functional.interpolate(x, (24, 24), mode="bicubic")
            return [self.branches[0](x), self.branches[1](small)]

    model = TwoSizes()
    assert told(model, "branches.0.seen", (2, 65, 16)) == Axes("tokens", 1, 1, (8, 8))
    assert told(model, "branches.1.seen", (2, 37, 16)) == Axes("tokens", 1, 1, (6, 6))


@pytest.mark.parametrize(("block", "after"), [
    (LSTM2d(8), (2, 8, 8, 8)), (SS2D(8), (2, 8, 8, 8)), (PatchMerging2D(8), (2, 4, 4, 16)),
], ids=lambda each: type(each).__name__)  # fmt: skip
def test_find_axes_name_that_ends_in_2d_is_no_evidence(block: nn.Module, after: tuple[int, ...]) -> None:
    model = ChannelsLast(block)
    assert told(model, "cut", (2, 8, 8, 8)) == Axes("nchw")
    assert told(model, "block", after) == told(model, "act", after) == Axes("nhwc")
    assert told(model, "back", (2, after[3], after[1], after[2])) == Axes("nchw")


def test_find_axes_container_inherits_from_its_last_leaf() -> None:
    class ToLast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 2, 3, 1)

    inner = nn.Sequential(nn.LayerNorm(8), nn.Sequential(nn.Dropout(), nn.GELU()))
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Sequential(ToLast(), inner))
    for layer in ("1", "1.0", "1.1", "1.1.1", "1.1.1.0"):
        assert told(model, layer, (2, 8, 8, 8)) == Axes("nhwc")


def test_find_axes_attention_matrix_is_read_as_matrix() -> None:
    model = Attention()
    found = told(model, "matrix", (2, 2, 64, 64))
    assert found == Axes("matrix")
    matrix = torch.rand(2, 2, 64, 64)
    assert to_maps(matrix, found) is matrix
    with pytest.raises(ShapeError, match="its axes hold images, channels, tokens, channels"):
        told(model, "queries", (2, 2, 64, 8))
    assert told(model, "keys", (2, 16, 4, 4)) == Axes("nchw")


class ForOneImage(nn.Module):
    """A model that takes one image, as examples and exported models do, and whose matrices are maps in no way."""

    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.cut, self.weights, self.norm, self.tokens = nn.Conv2d(3, 16, 4, 4), nn.Softmax(-1), nn.Identity(), tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).view(1, 2, 8, 64)
        tokens = tokens.transpose(2, 3) if self.tokens else tokens
        return self.norm(((self.weights(tokens @ tokens.transpose(2, 3))) @ tokens).view(1, 64, 16))


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens by tokens", "channels by channels"])
def test_out_of_place_model_that_takes_one_image_is_followed_with_one(tokens: bool) -> None:
    model, given = ForOneImage(tokens), (1, 3, 32, 32)
    side = 64 if tokens else 8  # as many as the grid has rows
    shape = (1, 2, side, side)
    found = told(model, "weights", shape, given)
    assert (found.name == "matrix") is tokens
    assert out_of_place(found, shape, Evidence("weights", model.weights, model, given)) == "has no place in it"
    if tokens:
        assert traced_roles(model, "cut", (1, 16, 8, 8), given) == traced_roles(
            nn.Sequential(model.cut), "0", (1, 16, 8, 8), given
        )


def test_out_of_place_inputs_for_all_images_of_a_batch_do_not_hide_what_a_layer_holds() -> None:
    class Conditioned(ForOneImage):
        def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
            tokens = self.cut(x).flatten(2)[:, None] * others[0].view(3, 1, 1, 1)
            return self.weights(tokens.transpose(2, 3) @ tokens)

    model, given, shape = Conditioned(True), (3, 3, 32, 32), (3, 1, 64, 64)
    evidence = Evidence("weights", model.weights, model, given, ((torch.rand(3),), None))
    assert out_of_place(find_axes(shape, evidence), shape, evidence) == "has no place in it"


def test_find_axes_matrix_of_one_window_that_is_the_whole_image_is_no_map() -> None:
    class OneWindow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.inside = nn.Conv2d(3, 8, 4, 4), Seen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            last = self.cut(x)[:, :, ::2, ::2].permute(0, 2, 3, 1)
            windows = last.reshape(-1, 1, 4, 1, 4, 8).transpose(2, 3).reshape(-1, 16, 8)
            matrix: torch.Tensor = self.inside((windows @ windows.transpose(1, 2)).unsqueeze(1).softmax(-1))
            return matrix

    assert told(OneWindow(), "inside", (2, 1, 16, 16)) == Axes("matrix")


def test_find_axes_unfolded_and_pooled_tokens_are_refused() -> None:
    assert told(Unfolded(), "fold", (2, 4, 8, 8)) == Axes("nchw")
    for model, layer, shape in [
        (Unfolded(), "unfold", (2, 36, 64)),
        (PooledKeys(), "along", (2, 8, 16)),    # 16 is 4 x 4, and no grid
        (PooledKeys(), "pyramid", (2, 25, 8)),  # 25 is 5 x 5, and 4 x 4 beside 3 x 3
    ]:  # fmt: skip
        reason = r"which has no maps: it was unfolded, reordered, pooled .* or joined"
        with pytest.raises(ShapeError, match=reason) as caught:
            told(model, layer, shape)
        assert "\n" not in str(caught.value)


def test_find_axes_tokens_first_and_last_are_told() -> None:
    for layer in ("encoder.layers.0", "encoder.layers.1.linear1", "encoder"):
        width = 32 if layer.endswith("linear1") else 16
        assert told(TokensFirst(), layer, (65, 2, width)) == Axes("tnc", 1, 1, (8, 8))
        assert told(TokensFirst(), layer, (65, 1, width), (1, 3, 32, 32)) == Axes("tnc", 1, 1, (8, 8))
    assert told(Mixer(), "last", (2, 16, 64)) == Axes("nct", 1, 0, (8, 8))
    assert told(Mixer(), "norm", (2, 64, 16)) == Axes("tokens", 1, 0, (8, 8))
    with pytest.raises(ShapeError, match="none of its axes holds positions in the image"):
        told(Mixer(), "hidden", (2, 16, 64))


def test_find_axes_class_token_alone_is_drawn_as_a_vector_is() -> None:
    class ClassToken(Tokens):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            token: torch.Tensor = self.norm(super().forward(x)[:, :1])
            return token

    assert told(ClassToken(16, 4), "norm:1", (2, 1, 16)) == Axes("tokens", 1, 0, (1, 1))


def test_find_axes_cells_of_a_patch_that_a_layer_worked_on_are_channels() -> None:
    class Inner(nn.Module):
        """As TNT: the pixels of each patch are tokens, and together the channels of the patch."""

        def __init__(self) -> None:
            super().__init__()
            self.cut, self.unfold = nn.Conv2d(3, 4, 1), nn.Unfold(4, stride=4)
            self.pixels, self.patches = nn.Linear(4, 6), nn.LayerNorm(96)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pixels = self.unfold(self.cut(x)).transpose(1, 2).reshape(-1, 4, 16).transpose(1, 2)
            patches: torch.Tensor = self.patches(self.pixels(pixels).reshape(len(x), 64, 96))
            return patches

    assert told(Inner(), "patches", (2, 64, 96)) == Axes("tokens", 1, 0, (8, 8))
    with pytest.raises(ShapeError, match="which has no maps: it was unfolded"):
        told(Inner(), "unfold", (2, 64, 64))


def test_find_axes_windows_are_refused_and_whole_again_behind_them() -> None:
    model = Windows()
    with pytest.raises(ShapeError, match="its axes hold images, rolled rows, rolled columns, channels"):
        told(model, "rolled", (2, 8, 8, 8))
    with pytest.raises(ShapeError, match=r"8 entries \(windows or regions\) of the 2 images"):
        told(model, "inside", (8, 16, 8))
    assert told(model, "outside", (2, 8, 8, 8)) == Axes("nhwc")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_find_axes_recurrent_layer_keeps_images_and_steps(kind: Callable[..., nn.Module]) -> None:
    class Recurrent(nn.Module):
        """Without a residual: tokens of the whole image, rows of it, and as CRNN its columns."""

        def __init__(self) -> None:
            super().__init__()
            self.cut, self.tokens = nn.Conv2d(3, 8, 4, 4), kind(8, 12, batch_first=True)
            self.rows, self.back = kind(12, 5, batch_first=True, bidirectional=True), Seen()
            self.columns, self.fc = kind(10 * 8, 6), nn.Linear(6, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.tokens(self.cut(x).flatten(2).transpose(1, 2))[0]
            maps = self.back(self.rows(tokens.reshape(-1, 8, 12))[0].reshape(-1, 8, 8, 10))
            columns: torch.Tensor = self.fc(self.columns(maps.permute(2, 0, 1, 3).flatten(2))[0])
            return columns

    model = Recurrent()
    assert told(model, "tokens[0]", (2, 64, 12)) == Axes("tokens", 1, 0, (8, 8))
    assert told(model, "back", (2, 8, 8, 10)) == Axes("nhwc")
    with pytest.raises(ShapeError, match="which has no maps: its axes hold columns, images, channels"):
        told(model, "fc", (8, 2, 7))


def test_find_axes_signals_are_followed_along_their_length() -> None:
    class Sounds(nn.Module):
        """Channels last behind a convolution, as wav2vec, with nothing in the modules that says so."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv1d(2, 16, 5, 4, 2), nn.LayerNorm(16), nn.GELU()
            self.rnn, self.seen, self.matrix = nn.LSTM(16, 8, batch_first=True), Seen(), Seen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steps = self.act(self.norm(self.conv(x).transpose(1, 2)))
            weights = self.matrix((steps @ steps.transpose(1, 2)).unsqueeze(1).softmax(-1))
            seen: torch.Tensor = self.seen(self.rnn(weights[:, 0] @ steps)[0].transpose(1, 2))
            return seen

    model, given = Sounds(), (2, 2, 128)
    assert told(model, "conv", (2, 16, 32), given) == Axes("ncl")
    assert told(model, "act", (2, 32, 16), given) == told(model, "rnn[0]", (2, 32, 8), given) == Axes("nlc")
    assert told(model, "seen", (2, 8, 32), given) == Axes("ncl")
    assert told(model, "matrix", (2, 1, 32, 32), given) == Axes("matrix")


def test_find_axes_depth_maps_are_followed_along_rows_and_columns() -> None:
    class OfDepth(nn.Module):
        """Takes (N, H, W) and puts out the same, and a part of it."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.LayerNorm(8)
            self.depth, self.part = Seen(), Seen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            last = self.norm(self.conv(x.unsqueeze(1)).permute(0, 2, 3, 1))
            part: torch.Tensor = self.part(self.depth(last.mean(-1))[:, :8])
            return part

    model, given = OfDepth(), (2, 16, 24)
    assert told(model, "norm", (2, 16, 24, 8), given) == Axes("nhwc")
    for layer, shape, placed in (("depth", (2, 16, 24), True), ("part", (2, 8, 24), False)):
        axes = told(model, layer, shape, given)
        assert axes == Axes("nhw")
        assert (out_of_place(axes, shape, Evidence(layer, None, model, given)) == "") == placed


def test_find_axes_frequencies_of_a_signal_are_channels() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.conv = Seen(), nn.Conv2d(1, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            frames = self.seen(torch.fft.rfft(x.reshape(len(x), 16, 32)).abs())
            maps: torch.Tensor = self.conv(frames.unsqueeze(1))
            return maps

    assert told(Spectrum(), "seen", (2, 16, 17), (2, 512)) == Axes("nlc")
    assert told(Spectrum(), "conv", (2, 4, 14, 15), (2, 512)) == Axes("nchw")


@pytest.mark.parametrize(("before", "expected"), [((2, 0), ""), ((0, 2), "cut"), ((1, 1), "")])
def test_out_of_place_steps_of_a_causal_convolution_are_at_their_places(before: tuple[int, int], expected: str) -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 4, (3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(functional.pad(x, (0, 0, 0, 0, *before)))
            return y

    model, given = Causal(), (2, 3, 6, 8, 8)
    reason = out_of_place(Axes("ncthw", 6), (2, 4, 6, 8, 8), Evidence("conv", model.conv, model, given))
    assert expected in reason
    assert bool(reason) == bool(expected)


def test_find_axes_steps_that_a_cell_goes_through_are_at_no_place() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.cell, self.seen = nn.Conv2d(3, 8, 4, 4), nn.GRUCell(8, 8), Seen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, state, states = self.cut(x).mean(3), None, []
            for row in rows.unbind(2):
                state = self.cell(row, state)
                states.append(state)
            seen: torch.Tensor = self.seen(torch.stack(states, 2))
            return seen

    with pytest.raises(ShapeError, match="which has no maps: its axes hold images, channels, parts of rows"):
        told(Steps(), "seen", (2, 8, 8))


def test_find_axes_model_that_looks_at_values_is_told() -> None:
    model = LooksAtValues()
    assert told(model, "norm", (2, 8, 8, 8)) == Axes("nhwc")


def test_find_axes_maps_that_begin_inside_a_model_stay_maps() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(256, 128))
            self.unflatten, self.decode = nn.Unflatten(1, (8, 4, 4)), nn.ConvTranspose2d(8, 3, 4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            decoded: torch.Tensor = self.decode(self.unflatten(self.encode(x)))
            return decoded

    assert told(Decoder(), "unflatten", (2, 8, 4, 4)) == told(Decoder(), "decode", (2, 3, 16, 16)) == Axes("nchw")


def test_traced_roles_every_name_call_and_part_of_a_layer_is_known() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.act = nn.Conv2d(3, 8, 4, 4), nn.GELU()
            self.same, self.pair = self.act, Seen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.act(self.cut(x))
            tokens: torch.Tensor = self.act(maps.flatten(2).transpose(1, 2))
            self.pair((maps, tokens))
            return tokens

    model = Twice()
    for layer, shape, expected in [
        ("act", (2, 8, 8, 8), "nchw"), ("same:0", (2, 8, 8, 8), "nchw"), ("act:1", (2, 64, 8), "tokens"),
        ("pair[0]", (2, 8, 8, 8), "nchw"), ("pair[1]", (2, 64, 8), "tokens"), ("input:pair[1]", (2, 64, 8), "tokens"),
        ("output", (2, 64, 8), "tokens"), ("input:act:1", (2, 64, 8), "tokens"), ("transpose", (2, 64, 8), "tokens"),
    ]:  # fmt: skip
        assert told(model, layer, shape).name == expected, layer
    assert traced_roles(model, "act", (2, 9, 9, 9), INPUT) is None
    assert traced_roles(model, "nothing", (2, 8, 8, 8), INPUT) is None
    assert traced_roles(model, "act", (2, 8, 8, 8), (2, 3, 32)) is None


def test_find_axes_of_maps_traces_one_size_of_each_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, ...]] = []
    run_pass = trace.run_pass
    monkeypatch.setattr(
        trace, "run_pass", lambda *args, **more: (passes.append(args[1].shape), run_pass(*args, **more))
    )
    model = ChannelsLast(nn.Identity())
    for _ in range(3):
        assert told(model, "block", (2, 8, 8, 8)) == Axes("nhwc")
        assert told(model, "block", (2, 16, 16, 8), (2, 3, 64, 64)) == Axes("nhwc")
        assert told(model, "block", (7, 8, 8, 8), (7, 3, 32, 32)) == Axes("nhwc")
    assert len(passes) == 1  # the order of the axes of maps is that of every size
    model.block = PatchMerging2D(8)
    assert told(model, "block", (2, 4, 4, 16)) == Axes("nhwc")
    assert len(passes) == 2


def test_traced_roles_model_itself_runs_once_and_only_where_the_class_of_a_layer_says_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, devices, run_pass = LooksAtValues(), list[str](), trace.run_pass
    model.norm, model.behind = nn.Identity(), nn.Conv2d(8, 8, 1)  # type: ignore[assignment]

    def counted(model: nn.Module, batch: torch.Tensor, *args: Any, **more: Any) -> None:
        devices.append(batch.device.type)
        run_pass(model, batch, *args, **more)

    monkeypatch.setattr(trace, "run_pass", counted)
    assert told(model, "cut", (2, 8, 8, 8)) == told(model, "behind", (2, 8, 8, 8)) == Axes("nchw")
    assert devices == ["meta"]
    for _ in range(2):
        assert told(model, "norm", (2, 8, 8, 8)) == Axes("nhwc")
    assert devices == ["meta", "cpu"]


def test_read_activations_looks_up_the_modules_of_a_model_once_not_for_every_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_model(Tokens(16, 4))
    batch = torch.zeros(INPUT)
    activations = capture(model, batch, "*")
    assert len(list(read_activations(model, activations, INPUT, AxesOptions()))) > 3  # the pass is made here
    looked: list[nn.Module] = []
    for module in (trace, proven):
        monkeypatch.setattr(module, "every_module", looked.append)
    for maps in read_activations(model, activations, INPUT, AxesOptions()):
        maps.out_of_place()
    assert looked == []


def test_traced_roles_model_is_left_as_it_was() -> None:
    model = Tokens(16, 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told(model, "seen", (2, 65, 16))
    assert model.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
