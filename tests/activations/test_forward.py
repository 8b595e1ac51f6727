"""One pass of a foreign model: what goes in, and what is changed for the time of the pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnviz_fast.activations import forward
from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.listing import list_layers
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


def test_inputs_function_may_return_the_one_tensor(batch: torch.Tensor) -> None:
    net = Plain()
    flipped = capture(net, batch, "stem", inputs=lambda x: x.flip(3))["stem"]
    assert torch.equal(flipped, capture(net, batch.flip(3), "stem")["stem"])


def test_inputs_come_to_the_dtype_of_the_model_and_are_not_written(batch: torch.Tensor) -> None:
    class Writes(Two):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            mask.mul_(0)
            return self.out(self.conv(x) * mask)

    mask = MASK.clone()
    assert capture(Writes().half(), batch, "out", inputs={"mask": mask})["out"].dtype == torch.float16
    assert torch.equal(mask, MASK)


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
