"""Maps made smaller by the native module: torch's antialiased interpolation, at every level of instructions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import FLOAT32, assert_close, assert_equal_tensors
from support.cases import INF, LARGEST, NAN, noise
from support.native_module import load_native

from cnnviz_fast.channels import values
from cnnviz_fast.channels.values import shrink
from cnnviz_fast.kernels.torch_ops import channel_range

native = load_native()
LEVELS = native.vector_levels()


@pytest.fixture(autouse=True)
def level_as_before() -> Iterator[None]:
    before = native.vector_level()
    yield
    native.set_vector_level(before)


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(values, "native", lambda: (None, "it is missing"))


def by_torch(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, height: int, width: int) -> torch.Tensor:
    low, high = (end.nan_to_num(0)[:, None, None] for end in (vmin, vmax))
    clamped = maps.float().clamp(low, high).where(maps.float().isfinite(), math.nan)
    if width > 1:
        return interpolated(clamped, height, width)
    # Of a single column torch averages the wrong values.
    return interpolated(interpolated(clamped.mT.contiguous(), maps.shape[2], height).mT.contiguous(), height, 1)


def interpolated(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps[None], size=(height, width), mode="bilinear", antialias=True)[0]


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int]:
    side = draw(st.integers(1, 40) | st.sampled_from([56, 64, 97, 112, 129, 230]))
    return side, draw(st.integers(1, side) | st.just(side))


@given(sides(), sides(), st.integers(0, 2**32 - 1), st.sampled_from(["finite", "odd", "clamped"]))
def test_shrink_equals_torch_at_every_level(rows: tuple[int, int], cols: tuple[int, int], seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.normal(size=(3, rows[0], cols[0])).astype(np.float32))
    if kind == "odd":
        maps.view(-1)[rng.integers(0, maps.numel(), 3)] = torch.tensor([NAN, INF, -INF])
    ends = (
        channel_range(maps) if kind != "clamped" else (torch.tensor([-0.1, 0.0, -9.0]), torch.tensor([0.1, 0.0, 9.0]))
    )
    size = rows[1], cols[1]
    expected, results = by_torch(maps, *ends, *size), []
    for level in LEVELS:
        native.set_vector_level(level)
        out = torch.full((3, *size), 7.0)
        native.shrink(maps, *ends, out)
        assert_equal_tensors(out.isnan(), expected.isnan())
        assert_close(out.nan_to_num(0), expected.nan_to_num(0), FLOAT32)
        results.append(out)
    assert all(torch.equal(out.nan_to_num(8), results[0].nan_to_num(8)) for out in results)


@pytest.mark.parametrize("full", [2, 7, 64, 67, 100])
def test_shrink_every_window_is_that_of_torch(full: int) -> None:
    # Each column has a NaN in another row: it shows which values of the result look there.
    maps = torch.zeros(1, full, full)
    maps[0, range(full), range(full)] = NAN
    zero = torch.zeros(1)
    for size in range(1, full):
        found = shrink(maps, zero, zero, size, full).isnan()
        assert_equal_tensors(found, by_torch(maps, zero, zero, size, full).isnan())


@pytest.mark.parametrize("size", [(5, 1), (1, 1), (5, 6), (8, 1), (1, 6)])
@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.usefixtures("both_ways")
def test_shrink_to_single_columns_averages_them(size: tuple[int, int], width: int) -> None:
    rows = noise(4, 8, 6)[..., :width]
    ends = channel_range(rows)
    assert_close(shrink(rows, *ends, *size), shrink(rows.mT, *ends, *size[::-1]).mT, FLOAT32)


@pytest.mark.usefixtures("both_ways")
def test_shrink_of_ramps_by_hand() -> None:
    # 4 -> 2: windows of rows 0 to 2 and 1 to 3, of weights 1/4 + 3/4 + 3/4 + 1/4 where all are there.
    ramp = torch.arange(4.0)
    expected = torch.tensor([(0 * 0.75 + 1 * 0.75 + 2 * 0.25) / 1.75, (1 * 0.25 + 2 * 0.75 + 3 * 0.75) / 1.75])
    ends = torch.tensor([0.0]), torch.tensor([3.0])
    assert_close(shrink(ramp[None, :, None], *ends, 2, 1)[0, :, 0], expected, FLOAT32)
    assert_close(shrink(ramp[None, None], *ends, 1, 2)[0, 0], expected, FLOAT32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int16, torch.bool, torch.float64])
@pytest.mark.parametrize("order", ["first", "last", "flipped", "expanded"])
def test_shrink_reads_maps_as_they_are(dtype: torch.dtype, order: str) -> None:
    plain = (noise(19, 13, 21) * 30).abs().to(dtype)
    maps = {
        "first": plain,
        "last": plain.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "flipped": plain.transpose(1, 2),
        "expanded": plain[:1].expand(19, -1, -1),
    }[order]
    ends = channel_range(maps.float())
    size = maps.shape[1] - 4, maps.shape[2] - 5
    assert_close(shrink(maps, *ends, *size), by_torch(maps.contiguous(), *ends, *size), FLOAT32)


def test_shrink_of_the_widest_range_does_not_overflow() -> None:
    maps = torch.tensor([[[LARGEST, -LARGEST, LARGEST, LARGEST]], [[LARGEST] * 4]])
    assert shrink(maps, *channel_range(maps), 1, 2).isfinite().all()


def test_shrink_without_the_native_module_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise(2, 5, 17, 23)
    batch[0, 0, 3, 3], batch[1, 4] = NAN, NAN
    ends = torch.full((2, 5), -1.0), torch.full((2, 5), NAN)
    with_native = shrink(batch, *ends, 6, 23)
    monkeypatch.setattr(values, "native", lambda: (None, "it is missing"))
    without = shrink(batch, *ends, 6, 23)
    assert_equal_tensors(with_native.isnan(), without.isnan())
    assert_close(with_native.nan_to_num(0), without.nan_to_num(0), FLOAT32)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vmin", torch.zeros(4), "vmin must have length 3"),
        ("vmax", torch.zeros(2), "vmax must have length 3"),
        ("out", torch.zeros(2, 4, 5), "out must have length 3"),
        ("out", torch.zeros(3, 9, 5), "out must have sides of at least 1 and at most 8 x 6, got 9 x 5"),
        ("out", torch.zeros(3, 4, 7), "got 4 x 7"),
        ("out", torch.zeros(3, 0, 5), "got 0 x 5"),
        ("maps", torch.zeros(3, 0, 6), "maps must have no axis of length 0"),
    ],
)
def test_shrink_refuses_sizes_that_do_not_fit(name: str, value: torch.Tensor, message: str) -> None:
    sound = {"maps": noise(3, 8, 6), "vmin": torch.zeros(3), "vmax": torch.ones(3), "out": torch.zeros(3, 4, 5)}
    with pytest.raises(ValueError, match=message):
        native.shrink(**sound | {name: value})


def test_shrink_refuses_an_output_that_it_would_have_to_copy() -> None:
    out = torch.zeros(3, 5, 4).transpose(1, 2)
    with pytest.raises(TypeError):
        native.shrink(noise(3, 8, 6), torch.zeros(3), torch.ones(3), out)
