"""Sheets of many samples and layers: the same as one by one, measured together, begun one ahead, released in time."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import A_LEVEL, assert_close
from support.fake_device import FakeDevice, device_copies
from support.looping import over
from support.plain import render, render_batch, save_tiles

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, InputError, KernelError, OptionError, ShapeError
from cnnviz_fast.geometry import Strip
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.sheets import pixels as drawing
from cnnviz_fast.sheets import samples as batch
from cnnviz_fast.sheets.overlay import read_overlay
from cnnviz_fast.sheets.plan import Plan
from cnnviz_fast.sheets.samples import plan_batch
from cnnviz_fast.sheets.tiles import plan_tiles, tile_names, write_tiles

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer": {"normalize": "layer", "gap": 1},
    "percentile": {"normalize": "percentile", "percentile": "5,90"},
    "picked": {"channels": "4,0,2", "normalize": "symmetric"},
    "ranked": {"topk": 3, "rank": "abs-mean"},
    "reduced": {"reduce": "sum,strongest", "beside": True, "sort": True, "rank": "variance"},
    "reported": {"report": True, "label": True},
    "shrunk": {"tile": 3},
    "torch": {"backend": "torch"},
}


@pytest.fixture
def samples() -> torch.Tensor:
    """Return maps: (5, 6, 5, 7) float32, each sample on a range of its own, one channel with a NaN."""
    maps = torch.randn(5, 6, 5, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 6.0).view(5, 1, 1, 1)
    maps[3, 2, 1, 1] = torch.nan
    return maps


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Make tensors of the CPU look as if they lay on a device that works late."""
    fake = FakeDevice()

    def on_a_stream(work: Any) -> Any:
        def noted(*given: Any) -> Any:
            fake.active_stream()
            return work(*given)

        return noted

    monkeypatch.setattr(batch, "channel_statistics", on_a_stream(batch.channel_statistics))
    monkeypatch.setattr(Plan, "draw_tiles", on_a_stream(Plan.draw_tiles))
    monkeypatch.setattr(drawing, "device_at", lambda _: fake)
    monkeypatch.setattr(batch, "device_at", lambda _: fake)
    return fake


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_sheet_is_the_one_that_render_draws(name: str, dtype: torch.dtype, samples: torch.Tensor) -> None:
    options = {"tile": 20, **OPTIONS[name]}
    maps = samples.to(dtype)
    sheets = list(render_batch(maps, **options))
    assert len(sheets) == 5
    for sheet, sample in zip(sheets, maps, strict=True):
        expected = render(sample, **options)
        assert np.array_equal(sheet.index, expected.index)
        assert sheet.manifest == expected.manifest


def test_maps_that_are_not_contiguous_are_drawn_as_they_are(samples: torch.Tensor) -> None:
    channels_last = samples.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for maps in (channels_last, samples[::2], samples[:, ::2], samples.flip(3)):
        for sheet, sample in zip(render_batch(maps, tile=20), maps, strict=True):
            assert np.array_equal(sheet.index, render(sample, tile=20).index)


def test_vectors_are_drawn_as_bars(samples: torch.Tensor) -> None:
    vectors = samples.flatten(1)[:, :, None, None]
    for sheet, sample in zip(render_batch(vectors), vectors, strict=True):
        assert np.array_equal(sheet.index, render(sample).index)


@pytest.mark.parametrize("as_pairs", [False, True])
def test_layers_come_one_after_the_other_with_their_provenance(as_pairs: bool, samples: torch.Tensor) -> None:
    layers = {"a": samples, "b": samples[:, :2, :3, :3] + 1}
    provenances = [cf.Provenance(model="net", image=f"{n}.jpg") for n in range(5)]
    sheets = list(render_batch(iter(layers.items()) if as_pairs else layers, provenances=provenances, tile=20))
    named = [(sheet.manifest["layer"], sheet.manifest["image"], sheet.manifest["model"]) for sheet in sheets]
    assert named == [(layer, f"{n}.jpg", "net") for layer in "ab" for n in range(5)]
    assert np.array_equal(sheets[7].index, render(layers["b"][2], tile=20).index)
    assert list(layers) == ["a", "b"]


def test_plans_of_single_tiles_and_overlays(samples: torch.Tensor, tmp_path: Path) -> None:
    photos = [np.full((50, 70, 3), 40 * n, dtype=np.uint8) for n in range(5)]
    backdrops = [read_overlay(photo, 0.5) for photo in photos]
    plans = plan_batch(samples, RenderOptions(plain=True, tile=70), [cf.Provenance()] * 5, backdrops, plan_tiles)
    for n, plan in enumerate(plans):
        files = write_tiles(plan, [tmp_path / str(n) / file for file in tile_names(plan, "{channel}.png", "")])
        expected = save_tiles(samples[n], tmp_path / "one" / str(n), tile=70, overlay=photos[n])
        assert [path.read_bytes() for path in files] == [path.read_bytes() for path in expected]


# Together, and as much as fits.


def counted(monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> list[int]:
    """Note how many channels each measurement is of, and let memory run out above `most`."""
    sizes: list[int] = []
    measure = batch.channel_statistics

    def noted(backend: Any, maps: torch.Tensor, threads: int | None) -> Any:
        sizes.append(len(maps))
        if len(maps) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return measure(backend, maps, threads)

    monkeypatch.setattr(batch, "channel_statistics", noted)
    for module in ("chosen", "selection", "tile_ranges"):
        monkeypatch.setattr(
            f"cnnviz_fast.channels.{module}.channel_statistics", lambda *_: pytest.fail("measured again")
        )
    return sizes


def test_all_samples_are_measured_at_once(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    list(render_batch(samples, tile=20, report=True, sort=True))
    assert sizes == [5 * 6]


def test_only_what_is_picked_is_measured(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    list(render_batch(samples, tile=20, channels="1,3"))
    assert sizes == [5 * 2]


def test_more_than_the_budget_is_measured_in_parts(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    monkeypatch.setattr(batch, "MEASURED_BYTES", 2 * 6 * 5 * 7 * 4)
    list(render_batch(samples, tile=20))
    assert sizes == [12, 12, 6]


def test_out_of_memory_halves_the_samples(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [sheet.index for sheet in render_batch(samples, tile=20)]
    sizes = counted(monkeypatch, most=6)
    sheets = list(render_batch(samples, tile=20))
    assert sizes == [30, 12, 6, 6, 6, 6, 6]
    assert all(np.array_equal(sheet.index, index) for sheet, index in zip(sheets, expected, strict=True))


def test_one_sample_that_does_not_fit_is_reported(samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, most=5)
    with pytest.raises(MemoryError, match=r"^cpu has too little memory: CUDA out of memory\.$"):
        next(render_batch(samples, tile=20))


# One ahead.


def test_the_next_sheet_is_begun_before_one_is_yielded(device: FakeDevice, samples: torch.Tensor) -> None:
    sheets = render_batch(samples, tile=20, backend="torch")
    copies = [len(device_copies(device)) for _ in sheets]
    assert copies == [2, 3, 4, 5, 5]
    assert not device.pending


def test_a_batch_on_a_late_device_is_the_same(device: FakeDevice, samples: torch.Tensor) -> None:
    sheets = list(render_batch(samples, tile=20, backend="torch", label=True))
    for sheet, sample in zip(sheets, samples, strict=True):
        assert np.array_equal(sheet.index, render(sample, tile=20, backend="torch", label=True).index)


def test_an_abandoned_batch_leaves_nothing_unfinished(
    device: FakeDevice, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending: list[Any] = []  # held, so that nothing ends only because its last reference goes
    begin_whole = batch.begin_whole
    monkeypatch.setattr(batch, "begin_whole", lambda plan: pending.append(begin_whole(plan)) or pending[-1])
    sheets = render_batch(samples, tile=20, backend="torch")
    next(sheets)
    assert device.pending
    sheets.close()  # type: ignore[attr-defined]
    assert not device.pending


def test_an_abandoned_batch_on_the_cpu_draws_nothing_more(
    samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Strip] = []
    draw = Plan.draw
    monkeypatch.setattr(Plan, "draw", lambda plan, strip, *given: drawn.append(strip) or draw(plan, strip, *given))
    sheets = render_batch(samples, tile=20)
    next(sheets)
    assert len(drawn) == 1
    sheets.close()  # type: ignore[attr-defined]
    assert len(drawn) == 1


@pytest.mark.parametrize("error", [ValueError("in the model"), torch.OutOfMemoryError("CUDA out of memory.")])
def test_a_batch_that_fails_yields_what_was_begun_before(
    error: Exception, device: FakeDevice, samples: torch.Tensor
) -> None:
    def layers() -> Iterator[tuple[str, torch.Tensor]]:
        yield "conv", samples[:2]
        raise error

    sheets = render_batch(layers(), tile=20, backend="torch")
    for sample in samples[:2]:
        expected = render(sample, tile=20, backend="torch")
        assert np.array_equal(next(sheets).index, expected.index)
    with pytest.raises(type(error), match=str(error)):
        next(sheets)
    assert not device.pending


def test_a_lost_device_ends_the_batch(device: FakeDevice, samples: torch.Tensor) -> None:
    device.lost_at_copy = 2
    sheets = render_batch(samples, tile=20, backend="torch")
    assert len(list(itertools.islice(sheets, 2))) == 2
    with pytest.raises(KernelError, match="was lost"):
        next(sheets)


def test_maps_are_released_once_their_sheets_are_drawn() -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def layers() -> Iterator[tuple[str, torch.Tensor]]:
        for n in range(4):
            alive.append(sum(ref() is not None for ref in made))
            maps = torch.rand(2, 3, 4, 4)
            made.append(weakref.ref(maps))
            yield f"layer{n}", maps
            del maps

    gc.disable()
    try:
        assert len([None for _ in render_batch(layers(), tile=8)]) == 8
    finally:
        gc.enable()
    # The last sheet of a layer is not finished yet while the maps of the next layer are made.
    assert alive == [0, 1, 1, 1]


@pytest.mark.parametrize("as_pairs", [False, True])
def test_maps_are_released_while_the_caller_has_their_last_sheet(as_pairs: bool, device: FakeDevice) -> None:
    def layers() -> Iterator[tuple[str, torch.Tensor]]:
        maps = torch.rand(1, 3, 4, 4)
        made.append(weakref.ref(maps))
        yield "conv", maps

    made: list[weakref.ref[torch.Tensor]] = []
    gc.disable()
    try:
        pairs = layers()
        sheets = render_batch(pairs if as_pairs else next(pairs)[1], tile=8, backend="torch")
        if not as_pairs:
            pairs.close()
        sheet = next(sheets)
        assert made[0]() is None
    finally:
        gc.enable()
    assert sheet.index.any()


# What is refused.


@over(
    ("maps", "error", "message"),
    [
        (
            torch.zeros(3, 4, 5),
            ShapeError,
            r"maps must have shape \(N, C, H, W\), got \(3, 4, 5\)\. For one .* render\.",
        ),
        (torch.zeros(0, 2, 4, 5), ShapeError, r"at least one channel and one pixel"),
        (torch.zeros(2, 2, 4, 5, dtype=torch.complex64), DTypeError, r"real dtype"),
        ({"conv": np.zeros((2, 3, 4, 5))}, DTypeError, r"^maps of conv must be a tensor, got ndarray\. Pass torch"),
        ({"conv": torch.zeros(4)}, ShapeError, r"^maps of conv must have shape"),
    ],
)
def test_what_is_not_maps_is_refused(maps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(render_batch(maps))


def test_provenances_of_another_number_are_refused(samples: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"^provenances must hold one per sample, 5, got 2\.$"):
        list(render_batch(samples, provenances=[cf.Provenance()] * 2))


def test_options_are_checked_before_anything_is_drawn(samples: torch.Tensor) -> None:
    with pytest.raises(OptionError, match="gap"):
        render_batch(samples, gap=-1)
    with pytest.raises(OptionError, match=r"^channels must lie in 0\.\.5, got 9"):
        list(render_batch(samples, channels="9"))


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_a_batch_on_cuda_is_that_of_the_cpu(name: str, samples: torch.Tensor) -> None:
    options = {"tile": 20, **OPTIONS[name]}
    for sheet, expected in zip(render_batch(samples.cuda(), **options), render_batch(samples, **options), strict=True):
        assert_close(sheet.index, expected.index, A_LEVEL)


@pytest.mark.gpu
def test_the_models_stream_never_waits_for_the_drawing_of_an_earlier_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(2, 64, 7, 7, device="cuda")
    assert len(list(render_batch(maps, tile=224))) == 2  # compiles
    draw_tiles, models, drawing_on = Plan.draw_tiles, torch.cuda.current_stream(), []

    def slowly(plan: Plan, strip: Strip, out: Any) -> None:
        drawing_on.append(torch.cuda.current_stream())
        torch.cuda._sleep(1_000_000_000)
        draw_tiles(plan, strip, out)

    monkeypatch.setattr(Plan, "draw_tiles", slowly)
    sheets = render_batch(maps, tile=224)
    next(sheets)  # the second one is being drawn now
    torch.mm(torch.rand(64, 64, device="cuda"), torch.rand(64, 64, device="cuda"))
    models.synchronize()
    assert models not in drawing_on
    assert not drawing_on[-1].query()
    assert len(list(sheets)) == 1
