"""What a layer put out: parts by their names, the tensor that is meant, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import pytest
import torch

from cnnviz_fast.activations.tensors import Kept, only_tensor, part_of, tensors_in
from cnnviz_fast.errors import CaptureError, OptionError

MAPS = torch.arange(24.0).reshape(1, 4, 2, 3)


@dataclasses.dataclass
class Record:
    maps: Any
    note: str = "text"

    @property
    def pooled(self) -> torch.Tensor:
        return self.maps.mean((2, 3))


Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    ("output", "paths"),
    [
        (MAPS, [""]),
        ((MAPS, None, [MAPS]), ["[0]", "[2][0]"]),
        ({"out": MAPS, 3: (MAPS,)}, ["[out]", "[3][0]"]),
        (Record((MAPS, MAPS)), ["[maps][0]", "[maps][1]"]),
        (Pair(MAPS, 1), ["[0]"]),
        ("text", []),
        (None, []),
    ],
    ids=["tensor", "tuple", "dict", "dataclass", "namedtuple", "text", "none"],
)
def test_tensors_in_names_every_tensor_by_its_path(output: Any, paths: list[str]) -> None:
    assert list(tensors_in(output)) == paths


def test_tensors_in_container_that_holds_itself_ends() -> None:
    loop: list[Any] = [MAPS]
    loop.append(loop)
    assert list(tensors_in(loop)) == ["[0]"]


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ((None, MAPS), ("1",)),
        ((None, MAPS), ("-1",)),
        ({"out": [MAPS]}, ("out", "0")),
        ({5: MAPS}, ("5",)),
        (Record(MAPS), ("maps",)),
        (Pair(None, MAPS), ("right",)),
        (MAPS, ()),
    ],
)
def test_part_of_follows_a_path(output: Any, path: tuple[str, ...]) -> None:
    assert part_of(output, path, "layer") is MAPS


def test_part_of_reads_attributes_that_are_no_fields() -> None:
    assert torch.equal(part_of(Record(MAPS), ("pooled",), "layer"), MAPS.mean((2, 3)))


@pytest.mark.parametrize("step", ["2", "-3", "other", "_fields", "__class__", "count", ""])
def test_part_of_missing_part_says_what_there_is(step: str) -> None:
    with pytest.raises(
        CaptureError, match=r"^layer 'body\[x\]' has no part \[.*\] in its tuple: it has \[0\], \[1\]\.$"
    ):
        part_of({"x": (MAPS, MAPS)}, ("x", step), "body")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (MAPS.to_sparse(), r"^layer 'a' put out a sparse or nested tensor; "),
        (MAPS.to(torch.complex64), r"^layer 'a' put out complex numbers"),
        (MAPS[:0], r"^layer 'a' put out an empty tensor of shape \(0, 4, 2, 3\)\.$"),
        (MAPS.to("meta"), r"^layer 'a' put out a meta tensor"),
    ],
    ids=["sparse", "complex", "empty", "meta"],
)
def test_only_tensor_without_values_to_draw_is_refused(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(CaptureError, match=message) as caught:
        only_tensor((tensor,), "a")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # of torch 2.15, on the way out there
def test_only_tensor_quantised_is_dequantised() -> None:
    quantised = torch.quantize_per_tensor(MAPS, 0.5, 3, torch.quint8)
    tensor = only_tensor(quantised, "a")
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, MAPS)


def test_kept_channels_in_the_order_asked_for() -> None:
    assert torch.equal(Kept(channels="3,0-1").copy(MAPS, "a"), MAPS[:, [3, 0, 1]])


@pytest.mark.parametrize(
    ("reduce", "expected"), [("sum", MAPS.sum(1, True)), ("mean", MAPS.mean(1, True)), ("max", MAPS.amax(1, True))]
)
def test_kept_reduction_gives_one_channel(reduce: str, expected: torch.Tensor) -> None:
    assert torch.equal(Kept(reduce=reduce).copy(MAPS, "a"), expected)
    assert torch.equal(Kept(reduce=reduce, channels=[2]).copy(MAPS, "a"), MAPS[:, 2:3])


def test_kept_sum_of_halves_does_not_overflow() -> None:
    maps = torch.full((1, 3, 2, 2), 60_000.0, dtype=torch.float16)
    assert Kept(reduce="sum").copy(maps, "a").eq(180_000).all()
    assert Kept(reduce="sum").copy(maps, "a").dtype == torch.float32


@pytest.mark.parametrize("kept", [Kept(), Kept(keep="cpu"), Kept(channels=[1]), Kept(reduce="max", channels=[1])])
def test_kept_copy_is_never_the_layers_own_memory(kept: Kept) -> None:
    maps = MAPS.clone()
    copied = kept.copy(maps, "a")
    before = copied.clone()
    maps.zero_()
    assert torch.equal(copied, before)


def test_kept_channels_that_are_not_there_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"^channels must be 0 to 3 for layer 'a', got 4\.$"):
        Kept(channels=[4]).copy(MAPS, "a")
    with pytest.raises(CaptureError, match=r"^layer 'a' put out \(7,\), which has no axis of channels\.$"):
        Kept(reduce="sum").copy(torch.ones(7), "a")


@pytest.mark.parametrize("option", [{"keep": "disk"}, {"reduce": "median"}, {"channels": "-3"}, {"channels": []}])
def test_kept_options_that_cannot_be_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{next(iter(option))} must be "):
        Kept(**option)
