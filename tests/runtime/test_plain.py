"""Tensors of every kind: those with values are read as what they stand for, the others refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError, DTypeError
from cnnviz_fast.runtime.plain import dense, plain, without_mask

VALUES = torch.arange(-16.0, 20.0).view(1, 6, 6).expand(3, 6, 6).contiguous()


def inside_vmap() -> torch.Tensor:
    """Return a tensor that escaped from vmap, as one kept by a hook does."""
    kept: list[torch.Tensor] = []
    torch.vmap(lambda each: kept.append(each) or each.sum())(VALUES[None])
    return kept[0]


REFUSED: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "fake": (lambda: FakeTensorMode().from_tensor(VALUES), "a fake tensor, which has none. Pass one that"),
    "lazy": (nn.parameter.UninitializedParameter, "a lazy parameter without a shape. Run its model once."),
    "vmap": (inside_vmap, "a tensor inside vmap, grad or jvp. Return it from the transform"),
    "packed bits": (lambda: torch.zeros(3, 6, 6, dtype=torch.uint8).view(torch.bits8), "torch.bits8, which converts"),
    "packed integers": (lambda: torch.zeros(3, 6, 6, dtype=torch.uint8).view(torch.uint4), "torch.uint4, which"),
    "meta": (lambda: VALUES.to("meta"), "the meta device. Pass"),
    "sparse": (VALUES.to_sparse, "torch.sparse_coo. Pass"),
    "hybrid": (lambda: VALUES.to_sparse(1), "torch.sparse_coo. Pass"),
    "csr": (VALUES.to_sparse_csr, "torch.sparse_csr. Pass"),
    "bsc": (lambda: VALUES.to_sparse_bsc((2, 2)), "torch.sparse_bsc. Pass"),
    "mkldnn": (VALUES.to_mkldnn, "torch._mkldnn. Pass"),
    "nested": (lambda: torch.nested.nested_tensor(list(VALUES)), "a nested tensor. Pass its parts"),
    "jagged": (lambda: torch.nested.nested_tensor(list(VALUES[0]), layout=torch.jagged), "a nested tensor. Pass its"),
    "complex": (lambda: VALUES + 1j, "torch.complex64. Pass"),
    "conjugate": (lambda: (VALUES + 1j).conj(), "torch.complex64. Pass"),
}  # fmt: skip
WITH_MAPS: dict[str, Callable[[Any], object]] = {
    "render": cf.render,
    "compare": lambda maps: cf.compare(VALUES, maps),
    "layer_report": cf.layer_report,
    "list": lambda maps: cf.render([VALUES, maps]),
    "load_images": cf.load_images,
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch's prototypes


def masked(values: torch.Tensor) -> torch.Tensor:
    from torch.masked import masked_tensor

    return masked_tensor(values, values > 0)


@pytest.mark.parametrize("kind", REFUSED)
def test_plain_refuses_what_cannot_be_read(kind: str) -> None:
    make, said = REFUSED[kind]
    with pytest.raises(DTypeError) as caught:
        plain(make(), "these")
    assert str(caught.value).startswith("these must ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", WITH_MAPS)
@pytest.mark.parametrize("kind", REFUSED)
def test_public_functions_say_what_to_do(kind: str, function: str) -> None:
    make, said = REFUSED[kind]
    with pytest.raises(DTypeError) as caught:
        WITH_MAPS[function](make())
    assert said in str(caught.value)


def test_plain_returns_plain_tensors_themselves() -> None:
    for tensor in (VALUES, VALUES.half(), VALUES.bool(), VALUES.T, VALUES[:0], nn.Parameter(VALUES)):
        assert plain(tensor) is dense(tensor) is without_mask(tensor) is tensor


def test_plain_opens_quantised_values_unless_told_otherwise() -> None:
    quantised = torch.quantize_per_tensor(VALUES, 0.5, 0, torch.qint8)
    assert torch.equal(plain(quantised), VALUES)
    with pytest.raises(DTypeError, match=r"these must hold plain numbers, got torch\.qint8\. Pass these\.dequantize"):
        plain(quantised, "these", opened=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_plain_masked_values_are_nan(dtype: torch.dtype) -> None:
    expected = VALUES.where(VALUES > 0, torch.nan)
    opened = plain(masked(VALUES.to(dtype)))
    assert opened.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert torch.equal(opened.float().nan_to_num(-1), expected.nan_to_num(-1))


def test_masked_maps_are_drawn_as_arrays_with_a_mask_are() -> None:
    import numpy as np

    array = np.ma.masked_array(VALUES.numpy(), VALUES.numpy() <= 0)
    expected, maps = cf.render(array, tile=12), masked(VALUES)
    for sheet in (cf.render(maps, tile=12), *cf.render_batch(maps.unsqueeze(0), tile=12)):
        assert np.array_equal(sheet.index, expected.index)
        assert [tile["nan"] for tile in sheet.manifest["tiles"]] == [17] * 3
    index = cf.render_index(maps, tile=12)
    assert torch.equal(index, cf.render_index(without_mask(maps), tile=12))
    assert torch.equal(cf.load_images(maps).isnan(), VALUES[None] <= 0)


def test_masked_inputs_outputs_and_weights_are_read_with_nan() -> None:
    class Masks(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return masked(batch)

    module = nn.Sequential(nn.Identity(), Masks())
    captured = cf.capture(module, masked(VALUES[None]), ["0", "1"])
    assert [int(maps.isnan().sum()) for maps in captured.values()] == [51, 51]
    module.register_buffer("weight", masked(VALUES))
    (info,) = cf.parameter_statistics(module)
    assert (info.nan, info.max) == (51, 19)


def test_fake_outputs_and_weights_are_refused() -> None:
    class Fakes(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return FakeTensorMode().from_tensor(batch)

    module = nn.Sequential(Fakes())
    with pytest.raises(CaptureError, match="layer '0' put out a fake tensor, which has no values"):
        cf.capture(module, VALUES[None], "0")
    module.register_buffer("weight", FakeTensorMode().from_tensor(VALUES))
    with pytest.raises(DTypeError, match="parameter 'weight' must hold values that can be read, got a fake tensor"):
        cf.parameter_statistics(module)


def test_images_with_pending_signs_are_read(tmp_path: Any) -> None:
    negative = (VALUES * 1j).conj().imag  # a view whose signs are still to be turned
    assert negative.is_neg()
    assert torch.equal(cf.load_images(negative)[0], -VALUES)
    summary = cf.run(nn.Sequential(nn.Conv2d(3, 4, 3)), negative, "0", tmp_path / "o", readers=0, progress="none")
    assert summary.finished == 1
