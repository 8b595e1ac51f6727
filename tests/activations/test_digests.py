"""Digests of weights: the same for the same values, another for any other, and quick where sheets are made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnviz_fast.activations.digests import sample_digest, weights_digest
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.loaded import as_given


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_weights_digest_is_that_of_the_values() -> None:
    first = weights_digest(small())
    assert len(first) == 64
    assert weights_digest(small()) == first
    assert weights_digest(small(1)) != first
    assert weights_digest(small().to(memory_format=torch.channels_last)) == first
    assert weights_digest(small().requires_grad_(False)) == first
    assert weights_digest(nn.Sequential(*small())) == first


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked"])
def test_weights_digest_of_one_value_changed_is_another(name: str) -> None:
    module = small()
    state = module.state_dict()
    before = weights_digest(module)
    state[name].view(-1)[-1] += 1
    assert weights_digest(module) != before


def test_weights_digest_counts_dtype_shape_and_name() -> None:
    def of(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor, persistent=False)
        return weights_digest(module)

    zeros = torch.zeros(4)
    tried = [
        of(), of(a=zeros), of(b=zeros), of(a=zeros.view(2, 2)), of(a=zeros.int()), of(a=zeros, b=zeros),
        of(a=torch.zeros(8)), of(a=zeros.bfloat16()), of(a=zeros.half()), of(a=-zeros), of(a=torch.zeros(())),
        of(a=torch.zeros(0, 4)), of(a=torch.full((4,), torch.nan)), of(a=torch.zeros(4, dtype=torch.complex64)),
    ]  # fmt: skip
    assert len(set(tried)) == len(tried)
    grid = torch.arange(6.0).view(2, 3)
    assert of(a=grid.T) == of(a=grid.T.contiguous()) != of(a=grid)
    assert of(a=grid, b=zeros) == of(b=zeros, a=grid)
    assert of(a=grid.to_sparse()) == of(a=grid)
    complex_grid = grid + 1j
    assert of(a=complex_grid.conj()) == of(a=complex_grid.conj().resolve_conj()) != of(a=complex_grid)


def test_weights_digest_of_shared_weights_is_that_of_copies() -> None:
    torch.manual_seed(0)
    shared, apart = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    shared[1].weight = shared[0].weight
    apart.load_state_dict(shared.state_dict())
    assert weights_digest(shared) == weights_digest(apart)
    with torch.no_grad():
        apart[1].weight[3, 3] += 1
    assert weights_digest(shared) != weights_digest(apart)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")
def test_weights_digest_sees_packed_weights_of_quantised_layers() -> None:
    def quantised(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})

    assert not list(quantised(0).parameters())
    assert weights_digest(quantised(0)) == weights_digest(quantised(0)) != weights_digest(quantised(1))


@pytest.mark.parametrize("module", [small().to("meta"), nn.Sequential(nn.LazyConv2d(4, 3))], ids=["meta", "lazy"])
def test_weights_digest_without_values_is_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"weights must have values, but '.+' has none yet\. Load the model"):
        weights_digest(module)


@pytest.mark.gpu
def test_weights_digest_is_the_same_on_the_gpu() -> None:
    assert weights_digest(small().cuda()) == weights_digest(small())


def test_sample_digest_tells_models_of_one_class_apart() -> None:
    def of(module: nn.Module) -> str:
        return sample_digest(as_given(module))

    assert len(of(small())) == 16
    assert of(small()) == of(small()) == of(small().to(memory_format=torch.channels_last))
    assert of(small()) != of(small(1))
    assert of(small()) != of(nn.Sequential(*small(), nn.Conv2d(4, 4, 1)))
    trained = small()
    trained[1].running_mean[-1] += 1e-6
    assert of(trained) != of(small())


def test_sample_digest_sees_every_kernel_of_a_large_layer() -> None:
    layer = nn.Conv2d(32, 64, 32)  # 2 million values
    before = sample_digest(as_given(layer))
    for kernel in ((0, 0), (31, 17), (63, 31)):
        with torch.no_grad():
            layer.weight[kernel].zero_()
        assert sample_digest(as_given(layer)) != before
        before = sample_digest(as_given(layer))


def test_sample_digest_is_kept_with_the_record() -> None:
    given, again = as_given(small()), as_given(small())
    before = sample_digest(given)
    with torch.no_grad():
        given.module[0].weight.zero_()
        again.module[0].weight.zero_()
    assert sample_digest(given) == before != sample_digest(again)


@pytest.mark.parametrize("module", [small().to("meta"), nn.Sequential(nn.LazyConv2d(4, 3)), nn.ReLU()])
def test_sample_digest_of_a_model_without_values_is_that_of_its_names(module: nn.Module) -> None:
    assert len(sample_digest(as_given(module))) == 16
