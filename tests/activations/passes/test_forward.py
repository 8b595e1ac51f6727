"""One pass of a foreign model: what goes in, and what is changed for the time of the pass."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision
from torch import nn

from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.listing import list_layers
from cnnviz_fast.activations.passes import forward
from cnnviz_fast.activations.passes.arguments import dtypes_for
from cnnviz_fast.errors import CaptureError, InputError


class Two(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.out = nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.out(self.conv(x) * mask * scale)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x)) + 1


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None]


@pytest.mark.parametrize(
    "inputs",
    [
        {"mask": MASK, "scale": 2.0},
        (MASK, 2.0),
        lambda batch: (batch, MASK, 2.0),
        lambda batch: {"x": batch, "scale": 2.0, "mask": MASK},
    ],
    ids=["mapping", "sequence", "function, positional", "function, named"],
)
def test_inputs_reach_a_model_that_takes_several(inputs: Any, batch: torch.Tensor) -> None:
    net = Two()
    acts = capture(net, batch, ["conv", "out"], inputs=inputs)
    assert torch.equal(acts["out"], acts["conv"] * MASK * 2)
    assert list_layers(net, batch, inputs=inputs)[1].shape == (4, 4, 6, 5)


def test_capture_model_that_takes_more_says_how_to_give_it(batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match=r"missing 1 required positional argument: .* Give the others: inputs="):
        capture(Two(), batch, "output")


def test_inputs_function_may_return_the_one_tensor(batch: torch.Tensor) -> None:
    net = Plain()
    flipped = capture(net, batch, "stem", inputs=lambda x: x.flip(3))["stem"]
    assert torch.equal(flipped, capture(net, batch.flip(3), "stem")["stem"])


class Writes(Two):
    """Writes into its second input, and notes the dtypes of both."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        vars(self)["dtypes"] = (x.dtype, mask.dtype)
        mask.mul_(0)
        return self.out(self.conv(x) * mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32])
def test_inputs_keep_their_dtype_and_are_not_written(dtype: torch.dtype, batch: torch.Tensor) -> None:
    mask = MASK.to(dtype)
    for inputs in ({"mask": mask}, (mask,), lambda x: (x, mask)):
        model = Writes().half()
        capture(model, batch, "out", inputs=inputs)
        assert model.dtypes == (torch.float16, dtype)
        assert torch.equal(mask, MASK.to(dtype))


class Pair(NamedTuple):
    first: torch.Tensor
    second: list[torch.Tensor]


def test_inputs_keep_the_types_of_what_holds_them(batch: torch.Tensor) -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor, more: Any) -> torch.Tensor:
            given.append(more)
            return self.conv(x)

    given: list[Any] = []
    mask = MASK.clone()
    model = Takes()
    for more in (Pair(mask, [mask]), collections.OrderedDict(mask=mask), (mask, 3), [mask, "text"], {"a": [mask]}):
        capture(model, batch, "conv", inputs=[more])
        assert type(given[-1]) is type(more)
        assert str(given[-1]) == str(more)
    assert given[-1]["a"][0] is not mask


class HalfTower(nn.Module):
    """Half-precision convolutions between float32 embeddings, as in CLIP."""

    def __init__(self, casts: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.ones(4, 1, 1))
        self.conv = nn.Conv2d(3, 4, 1).half()
        self.norm = nn.Conv2d(4, 4, 1)
        self.casts = casts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vars(self)["dtype"] = x.dtype
        return self.norm(self.conv(x.half() if self.casts else x).float() + self.embedding)


def test_capture_batch_keeps_a_dtype_that_a_weight_has(batch: torch.Tensor) -> None:
    model = HalfTower()
    expected = model.conv(batch.half())
    assert torch.equal(capture(model, batch.half(), "conv")["conv"], expected)
    assert model.dtype == torch.float16
    casting = HalfTower(casts=True)
    for dtype in (torch.float16, torch.float32):
        capture(casting, batch.to(dtype), "norm")
        assert casting.dtype == dtype
    # No weight has these: the first weight's is taken, and the other one where the model cannot run on that.
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert torch.equal(capture(model, batch.to(dtype), "conv")["conv"], model.conv(batch.to(dtype).half()))


def test_list_layers_model_of_two_dtypes_is_listed(batch: torch.Tensor) -> None:
    assert [info.calls for info in list_layers(HalfTower(), batch)] == [1, 1]


def test_capture_model_of_two_dtypes_that_fails_says_why(batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match=r"^the model failed on an input of shape \(4, 2, 6, 5\): RuntimeError: "):
        capture(HalfTower(), batch[:, :2], "conv")


@pytest.mark.parametrize("inputs", [3, "text", lambda batch: None, lambda batch: 5])
def test_inputs_that_are_none_are_refused(inputs: Any, batch: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"^inputs must (be|return) a tensor, a sequence of arguments or a mapping"):
        capture(Two(), batch, "conv", inputs=inputs)


def test_inputs_function_that_fails_is_said_as_the_models_failure(batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match=r"^the model failed on an input of shape \(4, 3, 6, 5\): TypeError: .*mask"):
        capture(Two(), batch, "conv")


# Compiled


@pytest.fixture
def forget_compiled() -> Any:
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("forget_compiled")
@pytest.mark.parametrize("how", ["whole", "part", "in place", "part of compiled", "forward"])
def test_capture_compiled_model_gives_what_the_plain_one_gives(how: str, batch: torch.Tensor) -> None:
    torch.manual_seed(0)
    model: nn.Module = Plain().eval()
    layers = ["stem", "body", "body.0", "body.1", "add"]
    expected = capture(model, batch, layers)
    listed = list_layers(model, batch)
    body = model.body
    if how in ("part", "part of compiled"):
        model.body = torch.compile(model.body, backend="eager")
    if how == "in place":
        model.body.compile(backend="eager")
    if how == "forward":
        model.body.forward = torch.compile(model.body.forward, backend="eager")
    if how in ("whole", "part of compiled"):
        model = torch.compile(model, backend="eager")
    with torch.no_grad():
        model(batch)  # compiled before any hook is there
    acts = capture(model, batch, layers)
    assert list(acts) == list(expected)
    assert all(torch.equal(acts[name], maps) for name, maps in expected.items())
    assert capture_stream(model, batch, ["body.0"], lambda name, maps: None) == ["body.0"]
    assert [(info.name, info.calls, info.shape) for info in list_layers(model, batch)] == [
        (info.name, info.calls, info.shape) for info in listed
    ]
    assert list(capture(model, batch, body)) == ["body"]
    assert forward._eager.passes == 0
    assert torch._dynamo.eval_frame._stance.stance == "default"


# Replicas, distributed, scripted, exported


def test_capture_data_parallel_gives_the_whole_batch_in_order(batch: torch.Tensor) -> None:
    model = Plain().eval()
    expected = capture(model, batch, "body.1")["body.1"]
    for wrapped, name in [
        (nn.DataParallel(model), "module.body.1"),
        (nn.Sequential(nn.DataParallel(model)), "0.module.body.1"),
    ]:
        parallel = next(m for m in wrapped.modules() if isinstance(m, nn.DataParallel))
        # As on a machine with two GPUs; with two ids its own forward would ask for them.
        parallel.device_ids = [0, 1]
        assert torch.equal(capture(wrapped, batch, name)[name], expected)
        assert parallel.device_ids == [0, 1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_capture_distributed_data_parallel_needs_no_other_process(batch: torch.Tensor, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = Plain()
        wrapped = nn.parallel.DistributedDataParallel(model)
        # In training a forward of the wrapper prepares its reducer for a backward; capture must not.
        acts = capture(wrapped, batch, "module.body.1")
        assert torch.equal(acts["module.body.1"], capture(model, batch, "body.1")["body.1"])
        wrapped(batch).sum().backward()
        assert model.stem.weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_capture_torchscript_is_refused_and_layers_beside_it_are_not(batch: torch.Tensor) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.ReLU()))
    net = nn.Sequential(nn.Conv2d(3, 3, 1), scripted)
    for pattern in ("1", "1.0"):
        with pytest.raises(CaptureError, match=rf"^layer '{pattern}' is TorchScript, which takes no hooks\. Capture"):
            capture(net, batch, pattern)
    assert capture(net, batch, "0")["0"].shape == batch.shape
    assert [info.calls for info in list_layers(net, batch)][:2] == [1, 0]
    with pytest.raises(InputError, match="got TorchScript, which runs no hooks inside"):
        capture(scripted, batch, "0")


def test_capture_exported_program_is_refused_and_its_module_is_not(batch: torch.Tensor) -> None:
    model = Plain().eval()
    program = torch.export.export(model, (batch,))
    with pytest.raises(InputError, match=r"got an exported program\. Pass torch\.export\.unflatten\(program\)\.$"):
        capture(program, batch, "stem")
    acts = capture(torch.export.unflatten(program), batch, ["stem", "body.1"])
    expected = capture(model, batch, ["stem", "body.1"])
    assert all(torch.equal(acts[name], maps) for name, maps in expected.items())


# Transforms and threads


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # which torch's own jvp uses
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.vmap(f)(x),
        lambda f, x: torch.func.grad(f)(x),
        lambda f, x: torch.func.vjp(f, x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.jacrev(f)(x),
        lambda f, x: torch.vmap(lambda one: f(torch.zeros(1, 3, 6, 5)) + one)(x),
    ],
    ids=["vmap", "grad", "vjp", "jvp", "jacrev", "vmap over something else"],
)
def test_capture_inside_a_transform_of_torch_func_is_refused(
    transform: Callable[..., Any], batch: torch.Tensor
) -> None:
    class Captures(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return capture(model, x, "body.0")["body.0"].sum()

    model = Plain()
    call = functools.partial(torch.func.functional_call, Captures(), {})
    with pytest.raises(InputError, match=r"^a model must be captured from outside of torch\.func, got a call inside"):
        transform(call, batch)
    with pytest.raises(InputError, match=r"outside of torch\.func"):
        torch.vmap(lambda x: [list_layers(model, x[None]), x][1])(batch)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_capture_layer_that_runs_inside_the_models_own_transform_is_refused(batch: torch.Tensor) -> None:
    class Maps(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.vmap(self.stem)(x[:, None]).squeeze(1)

    assert capture(Maps(), batch, "squeeze")["squeeze"].shape == (4, 4, 6, 5)
    with pytest.raises(
        CaptureError, match=r"^layer 'stem' ran inside vmap, grad or jvp of torch\.func, where its output"
    ):
        capture(Maps(), batch, "stem")


def test_capture_layer_that_runs_in_a_thread_of_the_model_says_so(batch: torch.Tensor) -> None:
    class Threaded(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return self.body(pool.submit(self.stem, x).result())

    model = Threaded()
    assert list(capture(model, batch, "body.0")) == ["body.0"]
    with pytest.warns(UserWarning, match=r"^left out 1 layers that ran in another thread: 'stem'$"):
        assert list(capture(model, batch, "type:Conv2d")) == ["body.0"]
    assert [(info.name, info.calls, info.shape) for info in list_layers(model, batch)][:2] == [
        ("stem", 1, (4, 4, 6, 5)), ("body", 1, (4, 4, 6, 5)),
    ]  # fmt: skip
    for pattern in ("stem", "stem:0", ["body.0", "stem"], "input:stem"):
        with pytest.raises(
            CaptureError, match=r"^layer '(input:)?stem' ran in another thread than the one that called"
        ):
            capture(model, batch, pattern)


def test_capture_operations_inside_compiled_parts_have_their_plain_names(
    batch: torch.Tensor, forget_compiled: None
) -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1).relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), Adds())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) * 2

    model: nn.Module = Net().eval()
    layers = ["body.1.add", "body.1.relu", "mul", "body.0.conv2d"]
    expected = capture(model, batch, layers)
    model.body[1] = torch.compile(model.body[1], backend="eager")
    model.body = torch.compile(model.body, backend="eager")
    for each in (model, torch.compile(model, backend="eager")):
        with torch.no_grad():
            each(batch)
        acts = capture(each, batch, layers)
        assert list(acts) == layers
        assert all(torch.equal(acts[name], expected[name]) for name in layers)


@pytest.mark.parametrize(("make", "px"), [
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 4),
    (lambda: torchvision.models.VisionTransformer(224, 16, 1, 2, 32, 32), 64),
    (lambda: timm.create_model("vit_tiny_patch16_224"), 64),
])  # fmt: skip
def test_run_pass_wrong_size_names_the_option(make: Callable[[], nn.Module], px: int) -> None:
    with pytest.raises(CaptureError, match=r"failed on .*If it takes another size, give it: PreprocessOptions\(size"):
        capture(make(), torch.zeros(1, 3, px, px), -1)


class Nested(nn.Module):
    """Captures itself, or a part of itself, while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("layers", [["head"], ["conv", "head"], ["input:head", "output"]])
def test_capture_inside_a_capture_stays_out_of_it(layers: list[str], batch: torch.Tensor) -> None:
    model = Nested()
    expected = capture(model, batch, layers)
    other = batch.flip(0) + 1
    inner = capture(model, other, ["conv", "head"])
    inside: list[dict[str, torch.Tensor]] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not inside:
            inside.append({})
            inside.append(capture(model, other, ["conv", "head"]))

    model.conv.register_forward_hook(look)
    found = capture(model, batch, layers)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(inside[1][name], inner[name]) for name in inner)


def test_capture_of_a_part_by_the_forward_itself_is_no_call_of_it(batch: torch.Tensor) -> None:
    class Looks(Nested):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            capture(self.conv, x * 2, ["output"])
            return super().forward(x)

    model = Looks()
    found = capture(model, batch, ["conv"])
    assert list(found) == ["conv"]
    assert torch.equal(found["conv"], model.conv(batch))


def test_dtypes_are_those_of_weights_that_only_parameters_tells_of() -> None:
    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = [nn.Conv2d(3, 2, 1).half()]

        def named_parameters(self, *arguments: Any, **named: Any) -> Any:
            return self.held[0].named_parameters(*arguments, **named)

    batch = torch.zeros(1, 3, 4, 4)
    assert dtypes_for(Holding(), batch) == [torch.float16]
    assert dtypes_for(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1).half()), batch) == [
        torch.float32, torch.float16,
    ]  # fmt: skip
    assert dtypes_for(nn.BatchNorm2d(3, affine=False).double(), batch) == [torch.float64]
    assert dtypes_for(nn.ReLU(), batch) == [torch.float32]
