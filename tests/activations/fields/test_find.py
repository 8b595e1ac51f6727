"""Receptive fields: known values, and small networks of each operation against brute force."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.nan_fields import judged, strays
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError, LayerNotFoundError, OptionError


class Does(nn.Module):
    """A convolution, a function of its output, and another convolution."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], channels: int = 4, after: int = 4) -> None:
        super().__init__()
        self.before = nn.Conv2d(2, channels, 3, stride=2, padding=1)
        self.function = Step(function)
        self.after = nn.Conv2d(after, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.function(self.before(x)))


class Step(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def field_of(model: nn.Module, layer: str, size: int | tuple[int, int] = 64) -> cf.ReceptiveField:
    """Find the field of one layer."""
    found = cf.receptive_field(model.eval(), layer, size)
    assert isinstance(found, cf.ReceptiveField)
    return found


def test_vgg16_has_the_known_field() -> None:
    with torch.device("meta"):
        model = torchvision.models.vgg16()
    field = field_of(model, "features.28", 224)
    assert (field.size, field.stride, field.whole) == ((196, 196), (16.0, 16.0), False)
    assert field.offset == (7.5, 7.5)


KNOWN = {"layer1": (35, 4), "layer2": (91, 8), "layer3": (267, 16), "layer4": (427, 32)}
"""Fields of ResNet-50 in px, and their strides."""


def test_resnet50_has_the_known_fields() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50().eval()
    fields = cf.receptive_field(model, list(KNOWN), 224)
    assert isinstance(fields, dict)
    for layer, (px, stride) in KNOWN.items():
        field = fields[layer]
        assert field == cf.ReceptiveField((px, px), (stride, stride), (0.0, 0.0), input_size=(224, 224))
        half = (px - 1) // 2
        assert field.box(1, 2) == (stride - half, 2 * stride - half, stride + half + 1, 2 * stride + half + 1)


def test_dilation_in_place_of_stride_widens_the_field() -> None:
    with torch.device("meta"):
        dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    field = field_of(dilated, "layer4", 224)
    assert field.stride == (8.0, 8.0)
    assert field.size == (KNOWN["layer4"][0],) * 2


def _concatenated(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 7, 1, 3)], 1)


def _written(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    out[:, :2] = F.max_pool2d(x, 5, 1, 2)[:, :2]
    out[:, 2:] = x[:, 2:]
    return out


def _written_in_parts(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, h + 3, w + 2)
    out[:, :, 1 : h - 8, 2:] = x[:, :, : h - 9]
    out[:, :, h - 8 : -2, 2:] = x[:, :, h - 9 :].relu()
    return out


def _middle_pooled(x: torch.Tensor) -> torch.Tensor:
    out = x.clone()
    out[:, :, 1:-1, 1:-1] = F.max_pool2d(x, 3, 1)
    return out


def _moved_by_a_row(x: torch.Tensor) -> torch.Tensor:
    out = x.clone()
    out[:, :, 1:] = x[:, :, :-1]
    return out


def _seen_through_another_part(x: torch.Tensor) -> torch.Tensor:
    out = x.new_zeros(*x.shape[:2], x.shape[2] + 4, x.shape[3])
    part = out[:, :, :-4]
    out[:, :, 4:] = x
    return part


def _written_through_another_view(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out.unsqueeze(0)[..., 1:].copy_(x[None, ..., 1:])
    return out


def _every_second_written(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[:, :, ::2] = x[:, :, ::2]
    return out


def _space_to_depth(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def _shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _tokens(x: torch.Tensor) -> torch.Tensor:
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (x.shape[1],))
    return tokens.transpose(1, 2).reshape(x.shape)


FUNCTIONS = {
    "nothing": lambda x: x,
    "max pooling of odd size, ceil_mode": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "dilated max pooling": lambda x: F.max_pool2d(x, 4, 1, 2, dilation=2),
    "average pooling of two sizes": lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 0)),
    "adaptive pooling to a size that does not divide": lambda x: F.adaptive_avg_pool2d(x, (5, 7)),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, 3),
    "padding of one side": lambda x: F.pad(x, (2, 0, 0, 1)),
    "negative padding": lambda x: F.pad(x, (-1, 0, -2, 0)),
    "replicated padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, size=(21, 13)),
    "nearest-exact": lambda x: F.interpolate(x, size=(21, 13), mode="nearest-exact"),
    "cut": lambda x: x[:, :, 3:, 1:-2],
    "every second": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1),
    "flip": lambda x: x.flip(-1),
    "branches": _concatenated,
    "branches cut apart again": lambda x: _concatenated(x).relu()[:, :4],
    "branches split again": lambda x: torch.cat(_concatenated(x).chunk(2, 1)[::-1], 1),
    "a branch of each, in part": lambda x: _concatenated(x)[:, 2:6],
    "sum with a wider branch": lambda x: x + F.avg_pool2d(x, 5, 1, 2),
    "in place": lambda x: x.add_(F.avg_pool2d(x, 5, 1, 2)).relu_(),
    "written into": _written,
    "space to depth": _space_to_depth,
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "channel shuffle": _shuffled,
    "tokens": _tokens,
    "channels last": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2),
    "halves of rows joined again": lambda x: torch.cat([x[:, :, :9].relu(), x[:, :, 9:].neg()], 2),
    "columns joined again, with others around": lambda x: torch.cat(
        [torch.zeros(len(x), 4, 20, 2), *x.split(7, 3), torch.zeros(len(x), 4, 20, 1)], 3
    ),
    "written in parts": _written_in_parts,
    "another part than that written": _seen_through_another_part,
    "middle written": _middle_pooled,
    "repeated": lambda x: x.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3),
    "data": lambda x: x.data * 2,
    "gate of one position": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "no gradient": lambda x: x.detach() + x.argmax(1, keepdim=True),
}
BORDER = {
    "middle written": 3,
    "another part than that written": 1,
    "replicated padding": 1,
    "negative padding": 1,
    "cut": 1,
}
"""Units at the ends of the maps of which padding leaves less than a field: as much of the image is cut off there."""
CHANNELS = {
    "branches": 8, "branches split again": 8, "every second": 8, "space to depth": 16, "pixel_unshuffle": 16,
    "pixel_shuffle": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_field_of_a_function_is_what_nan_shows(name: str) -> None:
    model = Does(FUNCTIONS[name], after=CHANNELS.get(name, 4)).eval()
    verdict = judged(model, (2, 40, 56), ["before", "function", "after"], cuts=12, border=BORDER.get(name, 0))
    assert (verdict.wrong, verdict.exact + verdict.inside, verdict.whole) == ([], 3, [])


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 4, (3, 5), (2, 1), (0, 2), dilation=(2, 1)),
    nn.Conv2d(4, 4, 4, padding="same"),
    nn.Conv2d(4, 4, 2, padding="same", dilation=3),
    nn.Conv2d(4, 4, 1, stride=3),
    nn.Conv2d(4, 4, 3, groups=4),
    nn.ConvTranspose2d(4, 4, 4, 2, 1),
    nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1),
    nn.ConvTranspose2d(4, 4, (5, 3), 1, 1, dilation=(1, 2)),
    nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), nn.MaxPool2d(3, 2, 1)),
    nn.Sequential(nn.BatchNorm2d(4), nn.Hardswish(), nn.Dropout(), nn.PReLU(4)),
])  # fmt: skip
def test_field_of_a_layer_is_what_nan_shows(layer: nn.Module) -> None:
    model = Does(layer).eval()
    verdict = judged(model, (2, 40, 56), ["before", "function", "after"], cuts=12)
    assert (verdict.wrong, verdict.exact + verdict.inside, verdict.whole) == ([], 3, [])


def test_bilinear_reads_two_neighbours_but_where_it_hits_one() -> None:
    # Brute force by the gradient: NaN goes through weights of 0.
    for size, corners in (((25, 25), True), ((26, 39), False), (13, False), (7, False)):
        model = Does(lambda x, size=size, corners=corners: F.interpolate(  # type: ignore[misc]
            x, size=size, mode="bilinear", align_corners=corners
        )).eval()  # fmt: skip
        field = field_of(model, "function", 26)
        x = torch.rand(1, 2, 26, 26, requires_grad=True)
        model.before.weight.data.abs_()
        output = model.function(model.before(x))
        for at in range(1, output.shape[-1] - 1):
            (gradient,) = torch.autograd.grad(output[..., at].sum(), x, retain_graph=True)
            touched = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
            _, start, _, stop = field.box(0, at)
            assert max(start, 0) <= int(touched.min())
            assert int(touched.max()) < stop


def test_transposed_convolution_has_phases_and_gives_the_box_that_holds_them() -> None:
    field = field_of(nn.Sequential(nn.ConvTranspose2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 1)), "1", 32)
    # Unit 2i reads row i, unit 2i+1 rows i and i+1: centred at half of their number, a box of two rows holds either.
    assert field.uneven
    assert (field.size, field.stride, field.offset) == ((2, 2), (0.5, 0.5), (0.0, 0.0))
    assert [field.box(y, 0)[::2] for y in (4, 5, 6)] == [(2, 4), (2, 4), (3, 5)]


WHOLE = {
    "mean": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), "mean over rows and columns"),
    "global pooling": (lambda x: x * F.adaptive_max_pool2d(x, 1), "global pooling over rows"),
    "rows alone": (lambda x: x * x.amax(2, keepdim=True), "amax over rows"),
    "group norm": (lambda x: F.group_norm(x, 2), "group normalisation over rows and columns"),
    "instance norm": (F.instance_norm, "normalisation by the map's own values over rows and columns"),
    "layer norm": (lambda x: F.layer_norm(x, x.shape[1:]), "layer normalisation over rows and columns"),
    "attention": (
        lambda x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3).transpose(1, 2).view(x.shape),
        "softmax (attention) over rows and columns",
    ),
    "roll": (lambda x: x.roll(1, 2), "a roll around the ends of rows"),
    "roll of all": (lambda x: x.roll(1), "a roll around the ends of rows and columns"),
    "equal": (lambda x: x * float(torch.equal(x, x * 2)), "values of a tensor that the model reads (equal)"),
    "means of a normalisation": (
        lambda x: x * torch.native_layer_norm(x, x.shape[-1:], None, None, 1e-5)[1], "layer normalisation over columns",
    ),
    "means of channels": (
        lambda x: x * torch.native_layer_norm(x.movedim(1, 3), x.shape[1:2], None, None, 1e-5)[1].movedim(3, 1),
        "a second output of native_layer_norm",
    ),
    "grid_sample": (
        lambda x: F.grid_sample(x, torch.zeros(1, 4, 4, 2), align_corners=False), "not followed (grid_sampler_2d)",
    ),
    "cumsum": (lambda x: x.cumsum(-1), "cumsum over columns"),
    "sorting": (lambda x: x.sort(dim=2).values, "sort over rows"),
    "dynamic weights": (lambda x: F.conv2d(x, x[:, :, :3, :3].detach()), "weights are made of positions"),
    "item": (lambda x: x * x.max().item(), "values of a tensor that the model reads"),
    "numpy": (lambda x: x + float(x.detach().numpy().sum()), "values of a tensor that the model reads (numpy)"),
    "moved by a row": (_moved_by_a_row, "maps that are written in parts"),
    "a view of more axes": (_written_through_another_view, "maps that are written in parts"),
    "every second row": (_every_second_written, "maps that are written in parts"),
    "maps one over another": (lambda x: torch.cat([x, x], 2), "rows of several maps joined"),
    "halves changed about": (lambda x: torch.cat([x[:, :, 8:], x[:, :, :8]], 2), "rows of several maps joined"),
    "class token": (
        lambda x: torch.cat([torch.zeros(1, 1, 4), x.flatten(2).transpose(1, 2)], 1), "such as a class token",
    ),
    "fft": (lambda x: torch.fft.rfft2(x).real, "not followed (fft_r2c)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_takes_all_positions_or_is_unknown_is_whole_and_says_why(name: str) -> None:
    function, reason = WHOLE[name]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Conv2d(1, 4, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(function(self.before(x)) + 0)

    model = Model()
    assert not field_of(model, "before", 16).whole
    field = field_of(model, "act", (16, 24))
    assert field.whole
    assert field.size == (16, 24)
    assert any(reason in said for said in field.reasons), field.reasons
    assert field.box(3, 5) == (0, 0, 16, 24)


CHOICES = {
    "bool": lambda y: y.mean() > 0,
    "item": lambda y: y.max().item() > 0,
    "tolist": lambda y: y.detach().flatten().tolist()[0] > 0,
    "numpy": lambda y: y.detach().numpy().sum() > 0,
    "asarray": lambda y: np.asarray(y.detach()).sum() > 0,
    "dlpack": lambda y: np.from_dlpack(y.detach()).sum() > 0,
    "copy": lambda y: copy.deepcopy(y.detach()).untyped_storage().tolist() == [],
    "mask": lambda y: len(y[y > 0]) == y.numel(),
    "nonzero": lambda y: len((y > 0).nonzero()) == y.numel(),
    "counts": lambda y: len(torch.bincount((y > 0).flatten().long())) > 1,
    "distinct": lambda y: len(torch.unique(y.isnan())) == 1,
}


@pytest.mark.parametrize("name", CHOICES)
def test_tensor_chosen_by_values_that_were_read_is_whole_though_it_was_made_before(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.layer = nn.Conv2d(1, 2, 3, padding=1), nn.Identity()
            nn.init.constant_(self.before.weight, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.before(x)
            other = -y
            return self.layer(y if CHOICES[name](y) else other)

    model = Model().eval()
    field = field_of(model, "layer", 12)
    assert strays(model, "layer", field, (1, 12, 12)) == []
    assert any("values of a tensor that the model reads" in reason for reason in field.reasons)
    assert not field_of(model.float(), "before", 12).whole


def test_values_from_tensors_in_a_list_are_followed_no_further() -> None:
    model = Does(lambda x: x * torch.tensor([x.max(), x.min()]).sum()).eval()
    assert "values of a tensor that the model reads (tensor)" in field_of(model, "after").reasons


MISPLACED = {
    "transposed": (lambda x: x.transpose(2, 3), "columns before rows"),
    "turned by 90 degrees": (lambda x: x.transpose(2, 3).flip(2), "columns before rows"),
    "columns as channels": (lambda x: x.permute(0, 3, 2, 1), "columns before rows"),
    "rows as channels": (lambda x: x.permute(0, 2, 1, 3), "do not lie side by side"),
    "windows as images": (
        lambda x: x.reshape(1, 2, 4, 4, 6, 4).permute(0, 2, 4, 1, 3, 5).reshape(24, 2, 4, 4),
        "along the axis of images",
    ),
    "rows packed side by side": (lambda x: x.reshape(1, 2, 8, 48), "columns that share an axis with others"),
    "halves of rows, one over another": (lambda x: x.reshape(1, 2, 32, 12), "rows and columns in one axis of a map"),
    "a map of one row": (lambda x: x.reshape(1, 2, 1, -1), "rows and columns in one axis of a map"),
    "channels one over another": (lambda x: x.reshape(1, 1, 32, 24), "rows and columns that share an axis"),
    "halves as channels": (lambda x: x.reshape(1, 4, 8, 24), "rows and columns that share an axis"),
    "halves of one channel as channels": (lambda x: x[:, :1].reshape(1, 2, 8, 24), "do not lie side by side"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISPLACED)
def test_map_whose_axes_are_not_rows_and_columns_of_the_input_is_whole(name: str) -> None:
    function, reason = MISPLACED[name]
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Step(function), nn.Identity()).eval()
    for layer in ("1", "2"):
        field = field_of(model, layer, (16, 24))
        assert strays(model, layer, field, (1, 16, 24)) == []
        assert field.whole
        assert any(reason in said for said in field.reasons), field.reasons
        model.float()


@pytest.mark.parametrize("function", [
    lambda x: x.mT.relu().mT, lambda x: x.mT.flip(2).mT.contiguous(), lambda x: x.flip(2, 3),
    lambda x: x.permute(0, 3, 1, 2).permute(0, 2, 3, 1),
])  # fmt: skip
def test_map_whose_axes_come_back_in_order_keeps_its_field(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Step(function)).eval()
    field = field_of(model, "1", (16, 24))
    assert (field.size, field.whole) == ((3, 3), False)
    assert strays(model, "1", field, (1, 16, 24)) == []


@pytest.mark.parametrize("function", [
    lambda x: x.permute(0, 2, 3, 1), lambda x: x.flatten(2), lambda x: x.flatten(2).permute(2, 0, 1),
])  # fmt: skip
def test_channels_last_and_tokens_keep_their_field(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    field = field_of(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Step(function)), "1", (16, 24))
    assert (field.size, field.stride, field.whole) == ((3, 3), (1.0, 1.0), False)


def test_squeeze_and_excitation_makes_what_follows_whole() -> None:
    with torch.device("meta"):
        model = torchvision.models.mobilenet_v3_small()
    fields = cf.receptive_field(
        model.eval(), ["features.0", "features.1.block.0", "features.1.block.1", "features.2"], 224
    )
    assert isinstance(fields, dict)
    assert [field.whole for field in fields.values()] == [False, False, True, True]
    assert fields["features.2"].reasons == ("mean over rows and columns",)


def test_names_are_those_of_capture() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet18().eval()
    found = cf.receptive_field(model, ["layer1.*.conv2", "layer1.0.relu:1", "layer2.0.add", "input:layer2", -1], 64)
    assert isinstance(found, dict)
    assert list(found) == [
        "layer1.0.conv2", "layer1.1.conv2", "layer1.0.relu:1", "layer2.0.add", "input:layer2", "fc",
    ]  # fmt: skip
    assert found["layer1.0.relu:1"].size == (27, 27)
    assert found["fc"].reasons == ("mean over rows and columns",)
    assert set(cf.receptive_field(model, "layer1.0.relu", 64)) == {"layer1.0.relu:0", "layer1.0.relu:1"}  # type: ignore[arg-type]
    assert isinstance(cf.receptive_field(model, model.layer1, 64), cf.ReceptiveField)
    assert isinstance(cf.receptive_field(model, "layer1.0.conv*", 64), dict)


def test_model_comes_back_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 3)).train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cf.receptive_field(model, "3", 16)
    cf.receptive_field(model, "3", 16, effective=0.9)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(parameter.grad is None for parameter in list(model.parameters())[1:])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_signal_is_one_row_high() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 5, stride=2, padding=2), nn.MaxPool1d(3))
    field = cf.receptive_field(model, "1", images=torch.zeros(1, 2, 64))
    assert field == cf.ReceptiveField((1, 9), (0.0, 6.0), (0.0, 2.0), input_size=(1, 64))


def test_record_survives_json() -> None:
    field = cf.ReceptiveField((3, 5), (1.0, 2.0), (0.5, 0.0), True, ("mean over rows",))
    assert cf.ReceptiveField.from_json(field.to_json() | {"later": 1}) == field


def test_bad_input_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    with pytest.raises(LayerNotFoundError, match="no layer 'conv1'"):
        cf.receptive_field(model, "conv1", 16)
    with pytest.raises(OptionError, match="input_size must be"):
        cf.receptive_field(model, "0", 0)
    with pytest.raises(OptionError, match=r"input_size must be N, or a length for each axis.*, got 'x'\."):
        cf.receptive_field(model, "0", "x")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="effective must be a number from 0 to 1"):
        cf.receptive_field(model, "0", 16, effective=95)
    with pytest.raises(CaptureError, match="the model failed"):
        cf.receptive_field(nn.Sequential(nn.Conv2d(3, 2, 9)), "0", 4)
