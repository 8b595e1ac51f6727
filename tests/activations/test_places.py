"""Maps lie where they say: a patch of the image is changed, and the maps of every layer change in its place.

Nothing here knows how axes are told. A few networks are quick; `-m zoo` takes one of each of timm's modules and models
of transformers, and prints what each gave (with -s). timm's own `forward_intermediates` is a second witness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.architectures import SHALLOWER, STEMS, TIMM, TRANSFORMERS, small_transformer
from support.patches import change_of, enlivened, keeps_aspect, patched
from support.token_models import (
    SS2D,
    ChannelsLast,
    LSTM2d,
    Mixer,
    PatchMerging2D,
    PooledKeys,
    Tokens,
    TokensFirst,
    Windows,
)
from torch import nn

from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes, to_maps
from cnnviz_fast.activations.axes.record import Axes
from cnnviz_fast.activations.tensors import tensors_in
from cnnviz_fast.errors import ShapeError
from cnnviz_fast.models.layers import every_module

QUICK_TIMM = {"pvt_v2_b0"}
IN_ORDER_FOR_FEATURES_ALONE = {"hiera_tiny_224"}
"""No layer of these puts out its tokens row by row."""

LARGEST_PX = 256
"""Larger inputs are made smaller where a model allows it."""

_rows: list[tuple[str, Counter[str]]] = []


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    """Print what each model gave, after the last."""
    yield
    columns = ("right", "wrong", "not decided", "no map", "refused")
    print(f"\n{'model':45} {' '.join(columns)}")  # noqa: T201
    for name, counts in [*_rows, ("all", sum((counts for _, counts in _rows), Counter()))]:
        print(f"{name:45} {' '.join(f'{counts[column]:{len(column)}}' for column in columns)}")  # noqa: T201


def each_output(model: nn.Module, batch: torch.Tensor, see: Callable[[str, nn.Module, torch.Tensor], None]) -> None:
    """Run a model and show what the first two calls of each module put out, with the name that it is asked for by."""
    names = {module: name for name, module in model.named_modules() if name}
    calls: Counter[nn.Module] = Counter()

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        call, calls[module] = calls[module], calls[module] + 1
        for path, tensor in tensors_in(output).items() if call < 2 else ():
            if tensor.is_floating_point() and 2 < tensor.ndim < 6:
                see(names[module] + (f":{call}" if call else "") + path, module, tensor)

    handles = [module.register_forward_hook(hook) for module in names]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()


def axes_in(model: nn.Module, batch: torch.Tensor) -> Callable[[str, nn.Module, torch.Tensor], Axes | None]:
    """Return what finds the axes of an output of a layer, None where they are refused."""
    layers = tuple(map(id, every_module(model).values()))

    def axes_of(layer: str, module: nn.Module, output: torch.Tensor) -> Axes | None:
        evidence = Evidence(layer, module, model, tuple(batch.shape), layers=layers)
        try:
            return find_axes(tuple(output.shape), evidence)
        except ShapeError:
            return None

    return axes_of


def check_places(name: str, model: nn.Module, batch: torch.Tensor) -> Counter[str]:
    """Check the places of the maps of every layer whose axes are told, and count them."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    axes_of = axes_in(model, batch)

    def see(layer: str, module: nn.Module, output: torch.Tensor) -> None:
        axes = axes_of(layer, module, output)
        if axes is None or axes.name in ("matrix", "nc"):
            counts["refused" if axes is None else "no map"] += 1
            return
        maps = to_maps(output, axes)
        change = change_of(maps)
        if change is None or not change.decides:
            counts["not decided"] += 1
        elif change.is_right and keeps_aspect(maps, batch) and (axes.grid is None or change.is_centred):
            counts["right"] += 1
        else:
            counts["wrong"] += 1
            wrong.append(f"{layer} {tuple(output.shape)} {axes} {change}")

    each_output(model, batch, see)
    _rows.append((name, counts))
    assert not wrong, wrong
    return counts


@pytest.mark.parametrize("model", [
    Tokens(64, 4), Tokens(196, 4, prefix=0), Tokens(16, 4, 1, 5), Tokens(16, 7, 0, 0, stride=4), TokensFirst(), Mixer(),
    ChannelsLast(LSTM2d(8)), ChannelsLast(SS2D(8)), ChannelsLast(PatchMerging2D(8)), Windows(), PooledKeys(),
], ids=lambda model: type(getattr(model, "block", model)).__name__)  # fmt: skip
def test_places_of_layers_of_small_networks_are_right(model: nn.Module) -> None:
    pixels = 56 if isinstance(model, Tokens) and model.cut.out_channels == 196 else 32
    torch.manual_seed(0)
    assert check_places(type(model).__name__, enlivened(model), patched((1, 3, pixels, pixels)))["right"] > 0


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=() if n in QUICK_TIMM else pytest.mark.zoo) for n in (*TIMM, *STEMS.split())],
)
def of_timm(request: pytest.FixtureRequest) -> tuple[str, nn.Module, torch.Tensor]:
    """Return the name of a model of timm, the model with random weights, and the batch that it is checked with.

    Of this scope, so that pytest runs the tests of one model after another, and makes it once.
    """
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(request.param, **SHALLOWER.get(request.param, {}))
    channels, *size = model.default_cfg["input_size"]
    if max(size) > LARGEST_PX and not model.default_cfg.get("fixed_input_size"):
        size = [224, 224]
    return request.param, enlivened(model), patched((1, channels, *size))


def test_places_of_layers_of_timm_are_right(of_timm: tuple[str, nn.Module, torch.Tensor]) -> None:
    assert check_places(*of_timm)["right"] > 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.zoo) for name in TRANSFORMERS.split()])
def test_places_of_layers_of_transformers_are_right(name: str) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model, pixels = small_transformer(name)
    counts = check_places(name, enlivened(model), patched((1, 3, pixels, pixels)))
    assert counts["right"] > 0


def test_maps_equal_what_timm_calls_intermediate_features(of_timm: tuple[str, nn.Module, torch.Tensor]) -> None:
    name, model, batch = of_timm
    if not hasattr(model, "forward_intermediates"):
        pytest.skip("timm has no intermediate features of it")
    with torch.no_grad():
        features = model.forward_intermediates(batch[:1], output_fmt="NCHW", intermediates_only=True)
    lacking = dict(enumerate(features))
    axes_of = axes_in(model, batch[:1])

    def see(layer: str, module: nn.Module, output: torch.Tensor) -> None:
        axes = axes_of(layer, module, output)
        maps = None if axes is None else to_maps(output, axes)
        for index in [index for index, wanted in lacking.items() if maps is not None and torch.equal(maps, wanted)]:
            del lacking[index]

    each_output(model, batch[:1], see)
    assert bool(lacking) == (name in IN_ORDER_FOR_FEATURES_ALONE), list(lacking)


def test_change_of_faults_that_are_planted_are_found() -> None:
    torch.manual_seed(0)
    model, batch = enlivened(Tokens(16, 4, 1)), patched((1, 3, 64, 64))
    with torch.no_grad():
        tokens = model(batch)
    right = to_maps(tokens, Axes("tokens", 1, 1, (16, 16)))
    wrong = {
        "transposed": right.transpose(2, 3),
        "upside down": right.flip(2),
        "channels for rows": right.permute(0, 2, 1, 3),
        "shuffled": right.flatten(2)[..., torch.randperm(256)].reshape(right.shape),
        "cut to other rows": right.reshape(5, 16, 8, 32),
        "the prefix left in": to_maps(tokens, Axes("tokens", 1, 0, (16, 16))),
    }
    for fault, maps in {"none": right, **wrong}.items():
        change = change_of(maps)
        assert change is not None, fault
        assert change.decides, fault
        assert (change.is_right and change.is_centred and keeps_aspect(maps, batch)) == (fault == "none"), fault


def test_check_places_reading_by_the_last_dimension_alone_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = enlivened(ChannelsLast(LSTM2d(8)))
    monkeypatch.setitem(
        check_places.__globals__, "find_axes", lambda shape, evidence: Axes("nchw" if len(shape) == 4 else "nc")
    )
    with pytest.raises(AssertionError, match="block"):
        check_places("planted", model, patched((1, 3, 32, 32)))


def test_change_of_maps_without_places_is_none() -> None:
    assert change_of(torch.rand(5, 8, 1, 1)) is None
    assert change_of(torch.ones(5, 8, 4, 4)) is None
    assert change_of(torch.full((5, 8, 4, 4), torch.nan)) is None
    mixed = change_of(torch.arange(5.0)[:, None, None, None].expand(5, 8, 4, 4))
    assert mixed is not None
    assert not mixed.decides
