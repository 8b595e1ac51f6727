"""The backend for other libraries: the same pixels as `render`, as tensors, in code of theirs, compiled or not."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import (
    FLOAT32_SUMS,
    assert_close,
    assert_equal_planes,
    assert_equal_tensors,
    assert_same_plane,
    assert_same_range,
)
from support.cases import CASES, INF, NAN, mixed, noise
from support.plain import compare, render
from torch._dynamo.testing import CompileCounter

import cnnviz_fast as cf
from cnnviz_fast import operators
from cnnviz_fast.errors import BackendError, DTypeError, InputError, OptionError, ShapeError
from cnnviz_fast.geometry import NO_ROOM
from cnnviz_fast.kernels import backends, torch_ops
from cnnviz_fast.options.drawing import NORMALIZATIONS, RANKS

OWN = [name for name in NORMALIZATIONS if name != "dataset"]  # which needs statistics
OPERATORS = torch.ops.cnnviz_fast
FIXED = {"vmin": -1.0, "vmax": 1.5}


def options_of(normalize: str) -> dict[str, Any]:
    return {"normalize": normalize, **(FIXED if normalize == "fixed" else {})}


def rendered(maps: Any, **options: Any) -> tuple[np.ndarray, dict[str, int]]:
    """Return the plane that `render` draws, and the entries of its palette."""
    sheet = render(maps, **options)
    colors = sheet.colors
    return sheet.index, {"levels": colors.levels, "background": colors.background, "bad": colors.bad}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget compiled code, so that each test compiles its own."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# ---------------------------------------------------------------------------------------------------------------------
# render_index


TENSORS = [name for name, case in CASES.items() if isinstance(case.maps, torch.Tensor) and case.room == NO_ROOM]


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "one_pixel"])
def test_render_index_draws_what_render_draws(name: str) -> None:
    case = CASES[name]
    where = {"tile": case.tile, "grid": case.grid, "gap": case.gap, "margin": case.margin}
    expected, entries = rendered(case.maps, **where)
    before = case.maps.detach().clone()
    assert_equal_planes(cf.render_index(case.maps, **where, **entries), expected)
    assert_equal_tensors(case.maps.detach(), before)


@pytest.mark.parametrize(
    "changed",
    [
        {"tile": 12},
        {"tile": (6, 13)},
        {"tile": (3, 4)},
        {"scale": 2.5},
        {"grid": "2x3", "tile": 12},
        {"grid": "x1", "tile": 12},
        {"gap": 2, "tile": 12},
        {"margin": 3, "tile": 12},
        {"normalize": "percentile", "percentile": (10, 80), "tile": 12},
        {"align": "left", "tile": 12},
        {"align": "corners", "tile": 12},
        {"upsampling": "nearest", "tile": 12},
        {"upsampling": "nearest", "tile": 3},
        *({**options_of(normalize), "tile": 12} for normalize in OWN),
    ],
    ids=str,
)
def test_render_index_options_do_what_they_do_for_render(changed: dict[str, Any], maps: torch.Tensor) -> None:
    expected, entries = rendered(maps, **changed)
    assert_equal_planes(cf.render_index(maps, **changed, **entries), expected)


def test_render_index_defaults_leave_all_levels_to_values_by_hand() -> None:
    maps = torch.stack([noise(4, 5), noise(5, 4).T, torch.full((4, 5), 3.0)])
    maps[1, 2, 2], maps[1, 0, 0] = NAN, INF
    index = cf.render_index(maps, tile=(4, 5), grid=(2, 2), gap=1).numpy()
    assert index.shape == (9, 11)
    low, high = maps[0].min(), maps[0].max()
    assert_equal_planes(index[:4, :5], np.floor(((maps[0] - low) / (high - low) * 255 + 0.5).numpy()).astype(np.uint8))
    assert index[:4, :5].max() == 255
    assert index[2, 6 + 2] == index[0, 6] == 0  # not finite
    assert not index[5:, :5].any()  # flat
    assert not index[4].any()  # background
    assert not index[5:, 5:].any()


def test_render_index_maps_of_single_cells_are_maps_like_any_other() -> None:
    maps = torch.tensor([3.0, -1.0, 1.0])[:, None, None]
    index = cf.render_index(maps, tile=2, grid="1x")
    assert (index.shape, int(index.max())) == ((2, 6), 0)  # flat, each of them
    index = cf.render_index(maps, tile=2, grid="1x", normalize="layer")
    assert index.tolist() == [[255, 255, 0, 0, 128, 128]] * 2


def test_render_index_shows_entries_where_they_are_told_apart(maps: torch.Tensor) -> None:
    maps[2, 1, 3] = NAN
    index = cf.render_index(maps, tile=(5, 7), grid="2x", gap=1, levels=100, background=200, bad=130).numpy()
    assert (index[5] == 200).all()
    assert (index[:, [7, 15]] == 200).all()
    assert index[1, 2 * 8 + 3] == 130
    assert (index == 130).sum() == 1
    assert index[index < 130].max() == 99


@pytest.mark.parametrize("normalize", OWN)
@pytest.mark.parametrize("tile", [9, 3])
def test_render_index_of_a_batch_is_that_of_each_sample(normalize: str, tile: int) -> None:
    batch = torch.stack([noise(8, 3, 4), mixed(), 5 * noise(8, 3, 4) - 2])
    options = {**options_of(normalize), "tile": tile, "gap": 1, "levels": 254, "background": 254, "bad": 255}
    index = cf.render_index(batch, **options)
    assert index.shape[0] == 3
    for sample, plane in zip(batch, index, strict=True):
        assert_equal_planes(plane, cf.render_index(sample, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
@pytest.mark.parametrize("normalize", ["channel", "percentile", "sigmoid"])
def test_render_index_widens_every_dtype(dtype: torch.dtype, normalize: str) -> None:
    batch = (20 * noise(2, 3, 4, 5)).to(dtype).to(memory_format=torch.channels_last)
    index = cf.render_index(batch, tile=8, normalize=normalize)
    assert index.is_contiguous()
    assert_equal_planes(index[1], cf.render_index(batch[1].float(), tile=8, normalize=normalize))


def test_render_index_shows_its_options_and_keeps_its_promise() -> None:
    assert list(inspect.signature(cf.render_index).parameters) == [
        "maps", "levels", "background", "bad", "axes", "planes", "tile", "scale", "grid", "gap", "margin", "align",
        "upsampling", "normalize", "vmin", "vmax", "percentile",
    ]  # fmt: skip
    assert [str(getattr(OPERATORS, name).default._schema) for name in ("channel_range", "render_index")] == [
        "cnnviz_fast::channel_range(Tensor maps) -> (Tensor, Tensor)",
        "cnnviz_fast::render_index(Tensor maps, Tensor vmin, Tensor vmax, SymInt tile_h, SymInt tile_w, *, "
        'SymInt rows=0, SymInt cols=0, SymInt gap=0, SymInt margin=0, str align="center", '
        'str upsampling="bilinear", SymInt levels=256, float flat=0., SymInt background=0, SymInt bad=0) -> Tensor',
    ]


def test_render_index_refuses_the_range_of_a_data_set(maps: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=r"^normalize 'dataset' needs statistics, which render_index does not take"):
        cf.render_index(maps, normalize="dataset")


@pytest.mark.parametrize("name", operators.REFUSED)
def test_render_index_refuses_what_belongs_to_render(name: str, maps: torch.Tensor) -> None:
    if name in ("background", "bad"):
        with pytest.raises(OptionError, match=f"^{name} must be a whole number of at least 0, got 'red'"):
            cf.render_index(maps, **{name: "red"})
        return
    with pytest.raises(OptionError) as caught:
        cf.render_index(maps, **{name: 1})
    assert str(caught.value) == (
        f"{name} belongs to render; render_index draws every map it is given and leaves colours to its caller. "
        f"Leave it out."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": 257}, "levels must be a whole number from 2 to 256, got 257."),
        ({"levels": 1}, "levels must be a whole number of at least 2, got 1."),
        ({"bad": 256}, "bad must be a whole number from 0 to 255, got 256."),
        ({"background": -1}, "background must be a whole number of at least 0, got -1."),
        ({"gap": -1}, "gap must be a whole number of at least 0, got -1."),
        ({"upsampling": "auto"}, "upsampling must be one of bilinear, nearest, got 'auto'."),
        ({"tile": 9, "scale": 2}, "tile and scale both set the tile size. Give one of them."),
        (
            {"grid": "2x2"},
            "grid must hold all 6 channels, got 2x2 = 4 cells. Take grid 'auto' or 'x2', or choose fewer channels.",
        ),
    ],
)
def test_render_index_wrong_options_are_refused(given: dict[str, Any], message: str, maps: torch.Tensor) -> None:
    with pytest.raises(OptionError) as caught:
        cf.render_index(maps, **given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (noise(4, 5), ShapeError, "maps must have shape (C, H, W), or (N, C, H, W) for a batch, got (4, 5)."),
        (
            torch.zeros(0, 3, 4, 5),
            ShapeError,
            "maps must have at least one channel and one pixel, got shape (0, 3, 4, 5).",
        ),
        (
            noise(2, 3, 4, 5).to_sparse(),
            DTypeError,
            "maps must hold their values densely, got torch.sparse_coo. Pass maps.to_dense() or a real tensor.",
        ),
        (
            noise(3, 4, 5).to(torch.complex64),
            DTypeError,
            "maps must be of a real dtype, got torch.complex64. Pass maps.abs() or maps.real.",
        ),
        (
            noise(3, 4, 5).numpy(),
            DTypeError,
            "maps must be a tensor, got ndarray. Pass torch.as_tensor(maps), or use render.",
        ),
    ],
    ids=["2 axes", "empty", "sparse", "complex", "numpy"],
)
def test_render_index_wrong_maps_are_refused(maps: Any, error: type[InputError], message: str) -> None:
    with pytest.raises(error) as caught:
        cf.render_index(maps)
    assert str(caught.value) == message


# ---------------------------------------------------------------------------------------------------------------------
# The operators


def test_channel_range_of_a_batch_is_that_of_each_sample() -> None:
    batch = torch.stack([noise(8, 3, 4), mixed()]).requires_grad_()
    vmin, vmax = OPERATORS.channel_range(batch)
    for sample, low, high in zip(batch.detach().numpy(), vmin, vmax, strict=True):
        finite = [channel[np.isfinite(channel)] for channel in sample]
        expected = [[np.float32(end(c) if len(c) else NAN) for c in finite] for end in (np.min, np.max)]
        assert_same_range((low, high), expected)


def test_render_index_operator_draws_on_the_ranges_given() -> None:
    maps = noise(2, 3, 4, 5)
    vmin, vmax = torch.full((2, 3), -2.0), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    index = OPERATORS.render_index(maps, vmin, vmax, 4, 5, rows=1, levels=101)
    values = ((maps + 2) / (vmax + 2)[:, :, None, None]).clamp(0, 1).numpy()
    expected = np.floor(values * np.float32(100) + np.float32(0.5)).astype(np.uint8)
    assert_equal_planes(index[1], np.concatenate(expected[1], axis=1))
    assert_equal_planes(index[0], np.concatenate(expected[0], axis=1))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"vmin": torch.zeros(2)},
            ShapeError,
            r"^vmin must have shape \(3,\) on cpu, one entry for each channel, got",
        ),
        ({"vmax": torch.zeros(1, 3)}, ShapeError, r"^vmax must have shape \(3,\) on cpu, .*, got \(1, 3\) on cpu\.$"),
        ({"maps": noise(4, 5)}, ShapeError, r"^maps must have shape \(C, H, W\), or \(N, C, H, W\)"),
        ({"tile_h": 0}, OptionError, "^tile must be a whole number of at least 1, got 0"),
        ({"gap": -1}, OptionError, "^gap must be a whole number of at least 0, got -1"),
        (
            {"align": "centre"},
            OptionError,
            r"^align must be one of left, center, corners, field, got 'centre'\. Closest",
        ),
        ({"upsampling": "cubic"}, OptionError, "^upsampling must be one of bilinear, nearest, got 'cubic'"),
        ({"upsampling": "auto"}, OptionError, "^upsampling must be one of bilinear, nearest, got 'auto'"),
        ({"levels": 300}, OptionError, "^levels must be a whole number from 2 to 256, got 300"),
        ({"flat": 2.0}, OptionError, "^flat must be a number from 0 to 1, got 2.0"),
    ],
    ids=str,
)
def test_render_index_operator_checks_its_arguments(
    changed: dict[str, Any], error: type[InputError], message: str
) -> None:
    arguments = {"maps": noise(3, 4, 5), "vmin": torch.zeros(3), "vmax": torch.ones(3), "tile_h": 8, "tile_w": 8}
    with pytest.raises(error, match=message):
        OPERATORS.render_index(**arguments | changed)


@pytest.mark.parametrize(
    "maps",
    [
        noise(2, 3, 4, 5).requires_grad_(),
        noise(2, 3, 4, 5).half().to(memory_format=torch.channels_last),
        CASES["nan_in_a_corner"].maps.permute(0, 2, 1)[::2],
    ],
    ids=["batch with gradients", "half, channels last", "one sample, strided, with NaN"],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of copies that opcheck makes
def test_operators_pass_opcheck(maps: torch.Tensor) -> None:
    torch.library.opcheck(OPERATORS.channel_range.default, (maps,))
    ranges = [end.detach() for end in OPERATORS.channel_range(maps)]
    torch.library.opcheck(OPERATORS.render_index.default, (maps, *ranges, 9, 7), {"gap": 1, "bad": 255})
    torch.library.opcheck(OPERATORS.render_index.default, (maps, *ranges, 2, 7), {"rows": 1, "upsampling": "nearest"})


@pytest.mark.parametrize(
    "options", [{}, {"tile": 9}, {"scale": 0.5}, {"grid": "x2", "gap": 3, "margin": 2}, {"tile": (3, 8)}], ids=str
)
@pytest.mark.parametrize("shape", [(5, 6, 8), (2, 5, 8, 6)])
def test_render_index_on_the_meta_device_has_the_right_shape(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    index, real = (cf.render_index(maps, **options) for maps in (noise(*shape).to("meta"), noise(*shape)))
    assert (index.shape, index.dtype, index.stride()) == (real.shape, torch.uint8, real.stride())
    assert index.is_meta


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_operators_give_the_same_by_every_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.stack([noise(8, 3, 4), mixed()])
    options = {"tile": 9, "gap": 1, "levels": 254, "background": 254, "bad": 255}
    expected = cf.render_index(batch, **options)
    chosen: list[tuple[str, str]] = []
    monkeypatch.setattr(
        backends, "choose", lambda name, device: chosen.append((name, device)) or backends.BACKENDS[backend]
    )
    index = cf.render_index(batch, **options)
    assert chosen == [("auto", "cpu")] * 2  # range and render
    for ours, theirs in zip(index, expected, strict=True):
        assert_same_plane(ours, theirs, levels=254)


class HalfReader(types.ModuleType):
    """Kernels that read halves and batches as Triton's do, and note what they are given; torch's draw it."""

    def __init__(self) -> None:
        super().__init__("half_reader")
        self.given: list[tuple[str, torch.dtype, int]] = []

    def _wide(self, name: str, maps: torch.Tensor) -> torch.Tensor:
        self.given.append((name, maps.dtype, maps.ndim))
        return maps.float()

    def channel_range(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vmin, vmax = torch_ops.channel_range(self._wide("range", maps).flatten(0, -3))
        return vmin.view(maps.shape[:-2]), vmax.view(maps.shape[:-2])

    def channel_moments(self, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch_ops.channel_moments(self._wide("moments", maps))

    def render_strip(self, maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, *where: Any) -> None:
        wide, (*where, out) = self._wide("render", maps), where
        samples = zip(wide, vmin, vmax, out, strict=True) if wide.ndim == 4 else [(wide, vmin, vmax, out)]
        for one, low, high, plane in samples:
            torch_ops.render_strip(one, low, high, *where, plane)


@pytest.fixture
def half_reader(monkeypatch: pytest.MonkeyPatch) -> HalfReader:
    """Put such kernels in the place of torch's."""
    reader = HalfReader()
    monkeypatch.setitem(sys.modules, "cnnviz_fast.kernels.half_reader", reader)
    like_triton = dataclasses.replace(backends.BACKENDS["triton"], name="torch", module="half_reader", devices=())
    monkeypatch.setattr(backends, "choose", lambda name, device: like_triton)
    return reader


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize("normalize", OWN)
@pytest.mark.parametrize("tile", [9, 3])
def test_render_index_gives_halves_and_batches_as_they_are_to_kernels_that_read_them(
    dtype: torch.dtype, normalize: str, tile: int, half_reader: HalfReader
) -> None:
    batch = torch.stack([noise(8, 3, 4), mixed().nan_to_num(0)]).mul(9).clamp(-999, 999).to(dtype)
    options = {**options_of(normalize), "tile": tile, "gap": 1, "levels": 254, "background": 254, "bad": 255}
    index = cf.render_index(batch, **options)
    read = dtype if dtype in HALVES else torch.float32
    drawn = torch.float32 if normalize == "sigmoid" else read
    assert half_reader.given == [("range", read, 4), ("render", torch.float32 if tile == 3 else drawn, 4)]
    assert torch.equal(index, cf.render_index(batch.float(), **options))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "options",
    [
        *map(options_of, OWN),
        {"tile": 3},
        {"report": True},
        {"reduce": ("sum", "mean", "max", "strongest"), "beside": True},
        {"reduce": "max"},
        {"channels": [5, 1, 1]},
        *({"topk": 5, "rank": rank} for rank in RANKS),
    ],
    ids=str,
)
def test_render_gives_halves_as_they_are_to_kernels_that_read_them(
    dtype: torch.dtype, options: dict[str, Any], half_reader: HalfReader
) -> None:
    maps = (30 * mixed().nan_to_num(1)).clamp(-999, 999).to(dtype)
    maps[3, 1, 2], maps[4, 0, 0] = NAN, INF
    options = {"tile": 9, "gap": 1, **options}
    sheet = render(maps, **options)
    reduced_only = "reduce" in options and "beside" not in options
    assert (dtype in {read for _, read, _ in half_reader.given}) == (not reduced_only)
    wide = render(maps.float(), **options)
    assert_equal_planes(sheet.index, wide.index)
    for manifest in (sheet.manifest, wide.manifest):
        del manifest["maps"]["dtype"]
    assert sheet.manifest == wide.manifest


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("normalize", OWN)
@pytest.mark.usefixtures("half_reader")
def test_render_halves_of_a_vector_as_widened_ones(dtype: torch.dtype, normalize: str) -> None:
    vector = (noise(70) * 3).to(dtype)
    sheet, wide = (render(given, **options_of(normalize)) for given in (vector, vector.float()))
    assert_equal_planes(sheet.index, wide.index)
    assert sheet.manifest["strongest"] == wide.manifest["strongest"]
    assert sheet.manifest["tiles"] == wide.manifest["tiles"]


@pytest.mark.usefixtures("half_reader")
@pytest.mark.parametrize("normalize", OWN)
def test_compare_halves_as_widened_ones(normalize: str) -> None:
    a, b = noise(4, 5, 6).half(), (noise(6, 5, 4).mT.reshape(4, 5, 6)).half()
    ours, wide = (compare(*given, **options_of(normalize)) for given in ((a, b), (a.float(), b.float())))
    assert_equal_planes(ours.pair.index, wide.pair.index)
    assert_equal_planes(ours.difference.index, wide.difference.index)
    assert ours.manifest["channels"] == wide.manifest["channels"]


def test_render_index_is_left_out_of_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(torch.Tag, "cudagraph_unsafe"):
        assert torch.Tag.cudagraph_unsafe in OPERATORS.render_index.default.tags
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    cf.render_index(noise(3, 4, 5), tile=9)
    with pytest.raises(BackendError, match=r"^render_index must not be captured into a CUDA graph: .* puts out\.$"):
        operators._refuse_capture(torch.device("cuda", 0))


@pytest.mark.gpu
def test_render_index_refuses_to_be_captured() -> None:
    maps = noise(3, 4, 5).cuda()
    cf.render_index(maps, tile=9)
    with pytest.raises(BackendError, match="must not be captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        cf.render_index(maps, tile=9)


@pytest.mark.gpu
@pytest.mark.usefixtures("fresh_compiler")
def test_render_index_compiles_around_cuda_graphs() -> None:
    compiled = torch.compile(lambda maps: cf.render_index(maps.relu(), tile=9), mode="reduce-overhead")
    for seed in range(4):
        maps = noise(3, 4, 5).roll(seed).cuda()
        assert torch.equal(compiled(maps), cf.render_index(maps.relu(), tile=9))


@pytest.mark.gpu
def test_render_index_stays_on_the_gpu() -> None:
    batch = torch.stack([noise(8, 3, 4), mixed()])
    expected = cf.render_index(batch, tile=9)
    index = cf.render_index(batch.cuda(), tile=9)
    assert index.is_cuda
    for ours, theirs in zip(index.cpu(), expected, strict=True):
        assert_same_plane(ours, theirs)


def test_operators_use_as_many_threads_as_torch_may(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[int] = []
    in_order = operators.in_order
    monkeypatch.setattr(
        operators, "in_order", lambda work, items, threads: wanted.append(threads) or in_order(work, items, threads)
    )
    before = torch.get_num_threads()
    planes = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            planes.append(cf.render_index(noise(3, 6, 4, 5), tile=200))
    finally:
        torch.set_num_threads(before)
    assert wanted == [1, 3]
    assert torch.equal(*planes)


# ---------------------------------------------------------------------------------------------------------------------
# Gradients


def test_results_require_no_gradients_and_leave_those_of_others_alone(maps: torch.Tensor) -> None:
    maps.requires_grad_()
    vmin, vmax = OPERATORS.channel_range(maps)
    planes = [cf.render_index(maps, tile=9), OPERATORS.render_index(maps, vmin, maps[:, 0, 0], 9, 9)]
    assert not any(result.requires_grad for result in (vmin, vmax, *planes))
    with pytest.raises(RuntimeError, match="does not require grad"):
        vmin.sum().backward()
    (maps.sum() + vmin.sum() + planes[0].sum()).backward()
    assert maps.grad is not None
    assert (maps.grad == 1).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_render_index_without_gradients_is_the_same(mode: Callable[[], Any], maps: torch.Tensor) -> None:
    expected = cf.render_index(maps, tile=9)
    with mode():
        assert_equal_planes(cf.render_index(maps * 1, tile=9), expected)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_training_step_that_draws_has_the_same_gradients(maps: torch.Tensor) -> None:
    weight = torch.tensor(1.5, requires_grad=True)

    def step(maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled = maps * weight
        return scaled.square().sum(), OPERATORS.channel_range(scaled)[1], cf.render_index(scaled, tile=9)

    expected = step(maps)
    results = torch.compile(step, fullgraph=True, backend="aot_eager")(maps)
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, FLOAT32_SUMS)
    assert [result.requires_grad for result in results] == [True, False, False]
    results[0].backward()
    assert_close(weight.grad, 2 * 1.5 * maps.square().sum(), FLOAT32_SUMS)


# ---------------------------------------------------------------------------------------------------------------------
# Compiled code


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("normalize", OWN)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("eager", marks=pytest.mark.long)])
def test_render_index_compiles_whole(backend: str, normalize: str) -> None:
    def draw(maps: torch.Tensor) -> torch.Tensor:
        return cf.render_index(maps.relu(), tile=9, gap=1, **options_of(normalize))

    compiled = torch.compile(draw, fullgraph=True, backend=backend)
    every = [noise(2, 3, 5, 4).mT.requires_grad_(), noise(3, 4, 5).half()]
    for maps in every if normalize == "channel" or backend == "eager" else every[:1]:
        assert torch.equal(compiled(maps), draw(maps))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("shape", "how"), [((2, 9, 7, 3), {"axes": "hwc"}), ((2, 3, 40), {"axes": "ncl"}), ((3, 2, 4, 5), {"planes": 1})]
)
def test_render_index_compiles_whole_where_axes_are_named(shape: tuple[int, ...], how: dict[str, Any]) -> None:
    def draw(maps: torch.Tensor) -> torch.Tensor:
        return cf.render_index(maps.relu(), **how)

    assert torch.equal(torch.compile(draw, fullgraph=True, backend="aot_eager")(noise(*shape)), draw(noise(*shape)))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles:UserWarning")  # of torch 2.6
@pytest.mark.parametrize("before", [torch.Tensor.detach, pytest.param(torch.relu, marks=pytest.mark.long)])
def test_render_index_compiles_to_native_code(before: Any) -> None:
    # Else inductor compiles a program for each set of vector instructions first, headers for later ones, and begins
    # processes to compile in.
    config = torch._inductor.config
    quick = {"compile_threads": 1, "cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    compiled = torch.compile(lambda maps: cf.render_index(before(maps), tile=9, normalize="layer"), fullgraph=True)
    batch = noise(2, 3, 4, 5)
    with config.patch({name: value for name, value in quick.items() if name in config.get_config_copy()}):
        index = compiled(batch)
    expected = cf.render_index(before(batch), tile=9, normalize="layer")
    for ours, theirs in zip(index, expected, strict=True):
        assert_same_plane(ours, theirs)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"tile": 9}, [(n, 3, 4, 5) for n in range(2, 7)]),
        ({"tile": 9, "grid": "x2"}, [(2, c, 4, 5) for c in range(3, 8)]),
        ({"tile": (7, 9)}, [(2, 3, 3 + i, 12 - i) for i in range(5)]),
        ({"scale": 2, "grid": "x2"}, [(2, 3, 3 + i, 12 - i) for i in range(5)]),
    ],
    ids=["N", "C", "H and W", "H and W by a factor"],
)
def test_render_index_is_not_compiled_anew_for_every_size(
    options: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    counter = CompileCounter()
    compiled = torch.compile(lambda maps: cf.render_index(maps, **options), fullgraph=True, backend=counter)
    for shape in shapes:
        assert torch.equal(compiled(noise(*shape)), cf.render_index(noise(*shape), **options))
    assert counter.frame_count <= 3  # once for the first size, once for any, once more for more rows than columns


@pytest.mark.usefixtures("fresh_compiler")
def test_render_index_compiled_with_a_wrong_option_says_so(maps: torch.Tensor) -> None:
    compiled = torch.compile(lambda maps: cf.render_index(maps, gap=-1), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="gap must be a whole number of at least 0, got -1"):
        compiled(maps)


@pytest.mark.usefixtures("fresh_compiler")
def test_render_index_can_be_exported_for_any_number_of_samples() -> None:
    class Draw(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return cf.render_index(maps, tile=9, normalize="layer")

    program = torch.export.export(Draw(), (noise(2, 3, 4, 5),), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert torch.equal(program.module()(noise(5, 3, 4, 5)), Draw()(noise(5, 3, 4, 5)))


FOREIGN_LIBRARY = '''
import torch
import cnnviz_fast as cf

@torch.compile(fullgraph=True, backend="aot_eager")
def contact_sheets(features):
    """Draw what is above 0, with an entry for gaps, and everything on the range of the first."""
    above = cf.render_index(features.clamp(min=0), tile=8, gap=1, levels=255, background=255)
    vmin, vmax = torch.ops.cnnviz_fast.channel_range(features[:1])
    ends = [end.expand(len(features), -1) for end in (vmin, vmax)]
    return above, torch.ops.cnnviz_fast.render_index(features, *ends, 8, 10, cols=2)
'''

FOREIGN_PROGRAM = """
import sys
import cnnviz_fast
assert "torch" not in sys.modules
import torch, library
assert not hasattr(torch.ops.cnnviz_fast, "render_index")
features = torch.load(sys.argv[1])
sheets = library.contact_sheets(features)
assert torch.ops.cnnviz_fast.render_index
torch.save(sheets, sys.argv[1])
"""


def test_a_foreign_library_compiles_with_it(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(FOREIGN_LIBRARY)
    (tmp_path / "program.py").write_text(FOREIGN_PROGRAM)
    features = noise(2, 3, 4, 5)
    torch.save(features, tmp_path / "features.pt")
    subprocess.run([sys.executable, "-W", "error", tmp_path / "program.py", tmp_path / "features.pt"], check=True)
    sheets, on_the_first = torch.load(tmp_path / "features.pt")
    for sample, sheet in zip(features, sheets, strict=True):
        assert_equal_planes(sheet, render(sample.clamp(min=0), tile=8, gap=1).index)
    low, high = features[0].amin((1, 2), keepdim=True), features[0].amax((1, 2), keepdim=True)
    values = torch.nn.functional.interpolate(((features - low) / (high - low)).clamp(0, 1), (8, 10), mode="bilinear")
    tiles = (values * 255 + 0.5).byte()
    for sheet, (a, b, c) in zip(on_the_first, tiles, strict=True):
        assert_same_plane(sheet, torch.cat([torch.cat([a, b], dim=1), torch.cat([c, 0 * c], dim=1)]))
