"""The pool: copies that are equal, memory that is used again, and never while anybody can still see it."""

from __future__ import annotations

import gc

import pytest
import torch

from cnnviz_fast.activations.buffers import LEAST_BYTES, Pool

LARGE = LEAST_BYTES // 4  # float32


def test_copy_is_equal_and_independent() -> None:
    source = torch.randn(3, LARGE)
    copied = Pool().copy(source)
    assert torch.equal(copied, source)
    source.zero_()
    assert copied.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_copy_keeps_dtype_and_order_in_memory(dtype: torch.dtype) -> None:
    source = torch.randn(2, 8, 128, 128).to(dtype).to(memory_format=torch.channels_last)
    copied = Pool().copy(source)
    assert copied.dtype == dtype
    assert copied.stride() == source.clone().stride() == source.stride()
    assert torch.equal(copied, source)
    assert copied.data_ptr() % 64 == 0
    assert copied.untyped_storage().nbytes() == source.untyped_storage().nbytes()


@pytest.mark.parametrize("view", [lambda t: t[:, ::2], lambda t: t.expand(4, -1, -1), lambda t: t.transpose(1, 2)])
def test_copy_of_a_view_takes_no_more_than_the_view(view: object) -> None:
    source = view(torch.randn(1, 300, LARGE // 100))  # type: ignore[operator]
    copied = Pool().copy(source)
    assert torch.equal(copied, source)
    assert copied.untyped_storage().nbytes() == source.numel() * 4


def test_small_copies_take_no_block() -> None:
    pool = Pool()
    del_me = pool.copy(torch.ones(LARGE - 1))
    del del_me
    assert pool.idle_bytes == 0


def test_memory_is_used_again_once_the_copy_is_gone() -> None:
    pool, source = Pool(), torch.randn(LARGE)
    first = pool.copy(source)
    address = first.data_ptr()
    second = pool.copy(source)
    assert second.data_ptr() != address
    del first
    assert pool.idle_bytes >= LEAST_BYTES
    assert pool.copy(source).data_ptr() == address


@pytest.mark.parametrize(
    "hold",
    [
        lambda t: t[10:20],
        lambda t: t.numpy(),
        lambda t: t.detach().view(torch.int32),
        lambda t: t.untyped_storage(),
        lambda t: torch.from_dlpack(t),
        lambda t: memoryview(t.numpy())[5:],
        lambda t: t.requires_grad_() * t,
    ],
    ids=["slice", "numpy", "view", "storage", "dlpack", "memoryview", "graph"],
)
@pytest.mark.usefixtures("quick_collections")
def test_memory_stays_while_anything_sees_it(hold: object) -> None:
    pool, source = Pool(), torch.randn(LARGE)
    copied = pool.copy(source)
    address = copied.data_ptr()
    held = hold(copied)  # type: ignore[operator]
    del copied
    gc.collect()
    others = [pool.copy(source) for _ in range(3)]
    assert address not in [other.data_ptr() for other in others]
    del held
    gc.collect()
    assert address in [pool.copy(source).data_ptr(), *(pool.copy(source).data_ptr() for _ in range(3))]


def test_idle_memory_has_an_end() -> None:
    pool = Pool(most_idle_bytes=3 * LEAST_BYTES)
    copies = [pool.copy(torch.ones(LARGE)) for _ in range(8)]
    copies.clear()
    assert 0 < pool.idle_bytes <= 3 * LEAST_BYTES
    pool.clear()
    assert pool.idle_bytes == 0
