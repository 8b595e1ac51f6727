"""Attention and rollout beside the weights that the libraries themselves return, and beside their definitions."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import BFLOAT16, FLOAT32_SUMS, assert_apart, assert_close
from support.attention import FORMS, rolled_out, transformer, weights_and_gradients
from support.heat import Residual, images, made
from support.quick import quick
from torch import nn
from torch.nn import functional

import cnnviz_fast as cf
from cnnviz_fast.attribution import attention
from cnnviz_fast.attribution.attending import Attending, Matrix, weights_of
from cnnviz_fast.attribution.head import Request
from cnnviz_fast.attribution.targets import NO_TARGETS
from cnnviz_fast.errors import CaptureError, LayerNotFoundError, OptionError, ShapeError
from cnnviz_fast.models.loaded import as_given

MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "flags": {"attn_mask": torch.ones(7, 5, dtype=torch.bool).tril(1)},
    "numbers": {"attn_mask": torch.linspace(-2, 2, 35).reshape(7, 5)},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("case", MASKS)
def test_weights_of_times_values_are_what_torch_returns(case: str) -> None:
    random = torch.Generator().manual_seed(0)
    heads = 2 if case == "grouped" else 4
    query, key, value = (
        torch.randn(3, *shape, generator=random) for shape in ((4, 7, 8), (heads, 5, 8), (heads, 5, 6))
    )
    weights, values = weights_of(query, key, value, **MASKS[case])
    assert weights.shape == (3, 4, 7, 5)
    assert_close(weights.sum(-1), torch.ones(3, 4, 7), FLOAT32_SUMS)
    expected = functional.scaled_dot_product_attention(query, key, value, **MASKS[case])
    assert_close(weights @ values, expected, FLOAT32_SUMS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("linked", [False, True])
def test_attending_leaves_what_the_model_computes(form: str, linked: bool) -> None:
    model, batch, seen = transformer(form), images(), dict[int, Matrix]()
    expected = model(batch).detach()
    with torch.no_grad(), Attending(lambda number: number > 0, seen.__setitem__, linked=linked):
        output = model(batch)
    assert list(seen) == [1, 2]
    assert_close(output.detach(), expected, FLOAT32_SUMS)
    assert output.requires_grad == linked
    assert all((matrix.at is not None) == linked for matrix in seen.values())


@pytest.mark.parametrize("form", FORMS)
def test_attribute_attention_is_the_row_of_the_class_token_in_every_form(form: str) -> None:
    written, batch = transformer("written out"), images()
    weights, gradients = weights_and_gradients(written, batch, 2)
    rows = [each[:, :, 0, 1:].reshape(3, 2, 4, 4) for each in weights]
    model = transformer(form)
    maps = cf.attribute(model, batch, "attention", "blocks.*")
    assert list(maps) == [f"blocks.{k}.attn{'.own' if form == FORMS[2] else ''}" for k in range(3)]
    for heat, expected in zip(maps.values(), rows, strict=True):
        assert_close(heat, expected, FLOAT32_SUMS)
    assert_close(cf.attribute(model, batch, "attention"), rows[2], FLOAT32_SUMS)
    assert_close(cf.attribute(model, batch, "attention", "blocks.1.attn"), rows[1], FLOAT32_SUMS)
    if form != FORMS[2]:  # whose function is called by a layer inside
        called = {"fused": "scaled_dot_product_attention", "written out": "softmax"}[form]
        assert_close(cf.attribute(model, batch, "attention", f"blocks.0.attn.{called}"), rows[0], FLOAT32_SUMS)
    weighted = [(each * of.clamp(min=0)).mean(1)[:, 0, 1:] for each, of in zip(weights, gradients, strict=True)]
    heat = cf.attribute(model, batch, "attention", "blocks.1", [5, 2])
    assert_close(heat[:, 1], weighted[1].reshape(3, 4, 4), FLOAT32_SUMS)
    assert_apart(heat[:, 1] * 100, rows[1].mean(1) * 100)


@pytest.mark.parametrize("form", FORMS)
def test_attribute_rollout_is_the_definition(form: str) -> None:
    batch = images()
    weights, gradients = weights_and_gradients(transformer("written out"), batch, 2)
    whole = [rolled_out([each[n].double().numpy() for each in weights]) for n in range(3)]
    heat = cf.attribute(transformer(form), batch, "rollout")
    assert heat.shape == (3, 4, 4)
    assert_close(heat, torch.from_numpy(np.stack(whole))[:, 0, 1:].reshape(3, 4, 4).float(), FLOAT32_SUMS)
    steps = [(each * of.clamp(min=0)).mean(1) for each, of in zip(weights, gradients, strict=True)]
    rows = torch.eye(17)
    for step in steps:
        rows = rows + step @ rows
    assert_close(
        cf.attribute(transformer(form), batch, "rollout", target=2), rows[:, 0, 1:].reshape(3, 4, 4), FLOAT32_SUMS
    )
    part = cf.attribute(transformer(form), batch, "rollout", ["blocks.0", "blocks.1"])
    half = rolled_out([each[1].double().numpy() for each in weights[:2]])[0, 1:].reshape(4, 4)
    assert_close(next(iter(part.values()))[1], torch.from_numpy(half).float(), FLOAT32_SUMS)


def test_attribute_query_is_the_row_of_a_patch() -> None:
    batch = images()
    for with_class in (True, False):
        weights, _ = weights_and_gradients(transformer("written out", with_class), batch, 2)
        first = int(with_class)
        model = transformer("fused", with_class)
        row = weights[2][:, :, first + 2 * 4 + 3, first:].reshape(3, 2, 4, 4)
        assert_close(cf.attribute(model, batch, "attention", query=(2, 3)), row, FLOAT32_SUMS)
    # Without a class token the mean over all patches is shown.
    expected = weights[2].mean(2).reshape(3, 2, 4, 4)
    assert_close(cf.attribute(model, batch, "attention"), expected, FLOAT32_SUMS)
    with pytest.raises(OptionError, match=r"query must be the row and column of a patch.* has 4 x 4 patches, got 4,0"):
        cf.attribute(model, batch, "attention", query=(4, 0))


def test_attribute_attention_of_torchvision_is_what_it_returns_itself() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=10).eval()
    batch, layer = images(2, 64), model.encoder.layers[1].self_attention
    given: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    model(batch)
    handle.remove()
    weights = layer(given[0], given[0], given[0], need_weights=True, average_attn_weights=False)[1]
    heat = cf.attribute(model, batch, "attention", "encoder.layers.encoder_layer_1")
    assert_close(heat, weights[:, :, 0, 1:].reshape(2, 2, 4, 4), FLOAT32_SUMS)


@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
        pytest.param("beit_base_patch16_224", marks=pytest.mark.zoo),
        pytest.param("vit_medium_patch16_reg4_gap_256", marks=pytest.mark.zoo),
    ],
)  # fmt: skip
def test_attribute_attention_of_timm_is_what_its_unfused_form_drops_out(name: str) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, img_size=56 if "14" in name else 64, depth=2, num_classes=10).eval()
    batch, layer = images(2, 56 if "14" in name else 64), model.blocks[1].attn
    heat = cf.attribute(model, batch, "attention", "blocks.1")
    assert layer.fused_attn
    layer.fused_attn = False
    dropped: list[torch.Tensor] = []
    layer.attn_drop.register_forward_hook(lambda module, args, output: dropped.append(output))
    model(batch)
    prefix = model.num_prefix_tokens
    row = dropped[0][:, :, prefix:].mean(2) if "reg4_gap" in name else dropped[0][:, :, 0]
    assert_close(heat, row[:, :, prefix:].reshape(2, -1, 4, 4), FLOAT32_SUMS)


def test_attribute_attention_of_transformers_is_what_it_returns_itself() -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, num_register_tokens=3
    )
    model = Dinov2WithRegistersForImageClassification(config).eval()
    batch = images(2, 64)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(batch, output_attentions=True).attentions
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        maps = cf.attribute(model, batch, "attention", "*.attention")
        assert len(maps) == 2
        for heat, each in zip(maps.values(), weights, strict=True):
            assert_close(heat, each[:, :, 0, 4:].reshape(2, 2, 4, 4), FLOAT32_SUMS)
        rows = [rolled_out([each[n].double().numpy() for each in weights])[0, 4:] for n in range(2)]
        expected = torch.from_numpy(np.stack(rows)).reshape(2, 4, 4).float()
        assert_close(cf.attribute(model, batch, "rollout"), expected, FLOAT32_SUMS)


def test_attribute_attention_of_a_pooling_query_is_its_only_row() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_siglip_224", img_size=64, depth=1, num_classes=10).eval()
    heat = cf.attribute(model, images(2, 64), "attention")
    assert heat.shape == (2, 12, 4, 4)
    assert_close(heat.sum((2, 3)), torch.ones(2, 12), FLOAT32_SUMS)
    rolled = cf.attribute(model, images(2, 64), "rollout")
    rows = cf.attribute(model, images(2, 64), "attention", ["blocks.0", "attn_pool"])
    assert list(rows) == ["blocks.0.attn", "attn_pool"]
    assert_close(rolled.sum((1, 2)), torch.ones(2), FLOAT32_SUMS)
    with pytest.raises(OptionError, match="'attn_pool' has no queries that are patches"):
        cf.attribute(model, images(2, 64), "attention", query=(0, 0))


class Linear(nn.Module):
    """A linear attention: no query meets a key."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 8, 8)
        self.head = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).mT
        return self.head((tokens.relu() @ (tokens.relu().mT @ tokens)).mean(1))


class MixedChannels(nn.Module):
    """Attention of the channels of tokens (N, T, C) to each other."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        channels = tokens.mT[:, None]
        return ((channels @ channels.mT).softmax(-1) @ channels)[:, 0].mT


class OverChannels(nn.Module):
    """A network of such attention, with as many patches as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 16, 8, 8)
        self.mixed = MixedChannels()
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(self.cut(x).flatten(2).mT).mean(1))


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 32, [2, 2], [2, 4], [4, 4], num_classes=10).eval()


REFUSED: dict[str, tuple[Any, int, dict[str, Any], type[Exception], str]] = {
    "convolutions": (lambda: made(Residual), 32, {}, CaptureError, "must have attention for this method, got Residual"),
    "a linear attention": (lambda: made(Linear), 32, {}, CaptureError, "shows no softmax over keys"),
    "a layer without": (transformer, 32, {"layer": "blocks.1.mlp"}, CaptureError,
                        r"must have an attention matrix inside, got none. Layers with one: 'blocks.0.attn', "),
    "no such layer": (transformer, 32, {"layer": "blocks.7"}, LayerNotFoundError, "blocks.7"),
    "windows": (swin, 64, {}, ShapeError, r"'features.1.0.attn' has 16 x 2 x 16 x 16 weights, over windows, "),
    "channels": (lambda: made(OverChannels), 32, {}, ShapeError, "'mixed' has 1 x 1 x 16 x 16 weights, over windows, "),
    "windows by name": (swin, 64, {"layer": "features.1.1"}, ShapeError, "over windows"),
    "a unit before": (transformer, 32, {"layer": "blocks.2", "target": ("blocks.1", 3)}, CaptureError,
                      "'blocks.2.attn' must run before that of the target, 'blocks.1', got one that does not"),
    "a target of something else": (transformer, 32, {"target": lambda output: output.detach()[:, 0]}, CaptureError,
                                   "is not computed from the attention of layer 'blocks.2.attn'"),
    "an option of others": (transformer, 32, {"steps": 3}, OptionError, "steps goes with integrated-gradients"),
    "no patch": (transformer, 32, {"query": (1, 2, 3)}, OptionError, "query must be the row and column of a patch"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_attribute_attention_that_is_not_there_is_refused(case: str) -> None:
    model, px, options, kind, message = REFUSED[case]
    for method in ("attention", *(["rollout"] if case == "convolutions" else [])):
        with pytest.raises(kind, match=message):
            cf.attribute(model(), images(2, px), method, **options)


def test_attribute_rollout_over_other_tokens_is_refused() -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = transformer(with_class=False), transformer(with_class=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x) + self.second(functional.avg_pool2d(x, 2))

    with pytest.raises(CaptureError, match=r"got 16 out of 'first\.blocks\.2\.attn' and 4 into 'second"):
        cf.attribute(Pooling(), images(2), "rollout")
    assert cf.attribute(Pooling(), images(2), "rollout", "second").shape == (2, 2, 2)


def test_attribute_attention_of_a_unit_ends_with_its_layer() -> None:
    model = transformer()
    heat = cf.attribute(model, images(), "attention", "blocks.1", ("blocks.2", 3, 1, 2))
    model.head = nn.Identity()  # it never runs
    assert torch.equal(cf.attribute(model, images(), "attention", "blocks.1", ("blocks.2", 3, 1, 2)), heat)
    assert heat.any()


def test_attribute_attention_without_gradient_is_a_note() -> None:
    model = transformer()
    nn.init.zeros_(model.head.weight)
    with pytest.warns(UserWarning, match="gradient of target '2' is nowhere positive in the attention"):
        assert not cf.attribute(model, images(), "attention", target=2).any()


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_attribute_attention_is_that_of_each_image_and_every_caller_gets_it(method: str) -> None:
    for form in FORMS:
        model, batch = transformer(form), images()
        expected = cf.attribute(model, batch, method, target=2)
        plain = cf.attribute(model, batch, method)
        assert plain.dtype == torch.float32
        assert not plain.requires_grad
        for n in range(3):
            assert_close(cf.attribute(model, batch[n : n + 1], method)[0], plain[n], FLOAT32_SUMS)
        with torch.inference_mode():
            assert torch.equal(cf.attribute(model, batch, method, target=2), expected)
        assert torch.equal(cf.attribute(nn.DataParallel(model), batch, method, target=2), expected)
        frozen = model.train().requires_grad_(False)  # whose layers torch computes in another order
        assert_close(cf.attribute(frozen, batch, method, target=2), expected, FLOAT32_SUMS)


@pytest.mark.parametrize("method", ["attention", pytest.param("rollout", marks=pytest.mark.long)])
def test_attribute_attention_of_a_compiled_model_is_that_of_the_plain_one(method: str) -> None:
    compiled = torch.compile(transformer("torch's own"))
    expected = cf.attribute(transformer("torch's own"), images(), method, target=2)
    assert torch.equal(cf.attribute(compiled, images(), method, target=2), expected)


@pytest.mark.parametrize("form", quick(FORMS, FORMS[:1]))
def test_attribute_attention_of_halves(form: str) -> None:
    batch, model = images(), transformer(form, spread=0.3)
    halves = transformer(form, spread=0.3).bfloat16()
    for method in ("attention", "rollout"):
        for target in (None, 2):
            expected = cf.attribute(model, batch, method, target=target)
            with torch.autocast("cpu", torch.bfloat16):
                cast = cf.attribute(model, batch, method, target=target)
            for heat in (cf.attribute(halves, batch, method, target=target), cast):
                assert heat.dtype == torch.float32
                assert_close(heat, expected, BFLOAT16)


def test_attribute_rollout_holds_one_matrix_at_a_time() -> None:
    request = Request(as_given(transformer()), images(), None, NO_TARGETS)
    alive: list[weakref.ref[torch.Tensor]] = []
    most: list[int] = []

    def see(place: Any, matrix: torch.Tensor) -> None:
        most.append(sum(each() is not None for each in alive))
        alive.append(weakref.ref(matrix))

    attention._see_each(request, attention.places_of(request, all_of_them=True), see)
    assert most == [0, 0, 0]


@pytest.mark.usefixtures("quick_collections")
def test_attribute_attention_many_calls_do_not_grow() -> None:
    model, batch = transformer("torch's own"), images(1)

    def objects_after(calls: int) -> int:
        for _ in range(calls):
            cf.attribute(model, batch, "attention", target=[1, ("blocks.2", 2)])
            cf.attribute(model, batch, "rollout")
        gc.collect()
        return len(gc.get_objects())

    first = objects_after(3)
    assert objects_after(10) <= first + 10
