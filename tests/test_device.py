"""What the engine knows of devices: how they fail, and how much of some work fits into their memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from fake_device import FakeDevice

from cnnviz_fast.device import CudaDevice, Device, Fitting, device_at
from cnnviz_fast.errors import KernelError

CPU = Device(torch.device("cpu"))


def test_devices_are_told_apart_by_their_type() -> None:
    assert isinstance(device_at(torch.device("cuda:1")), CudaDevice)
    assert type(device_at(torch.device("mps"))) is Device
    assert device_at(torch.device("cpu")).is_host
    assert not device_at(torch.device("mps")).is_host
    assert not device_at(torch.device("cuda")).is_host


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_full_knows_what_torch_says(error: Exception, full: bool) -> None:
    assert CPU.is_full(error) is full


def test_torch_refuses_too_much_in_words_that_is_full_knows() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert CPU.is_full(caught.value)


def test_a_lost_device_is_an_error_of_this_package_in_one_line() -> None:
    with pytest.raises(KernelError, match=r"^cpu was lost while it worked: CUDA error: gone\. Files .*=1\.$"):  # noqa: SIM117
        with CPU.faults():
            raise torch.AcceleratorError("CUDA error: gone\nCUDA kernel errors might be asynchronously reported")


# Fitting.


class Memory:
    """Work that needs a unit of memory for each of its own, where there are only so many."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.done: list[tuple[int, int]] = []
        self.tried: list[int] = []

    def __call__(self, first: int, last: int) -> None:
        self.tried.append(last - first)
        if last - first > self.units:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.done.append((first, last))


def test_fitting_halves_until_it_fits_and_remembers() -> None:
    memory, device = Memory(3), FakeDevice()
    fitting = Fitting(device, 16)
    fitting.run(memory, 0, 7)
    assert memory.tried == [7, 3, 3, 1]
    assert memory.done == [(0, 3), (3, 6), (6, 7)]
    assert device.log == [("give back",)]
    fitting.run(memory, 10, 15)
    assert memory.done[3:] == [(10, 13), (13, 15)]
    assert fitting.most == 3


def test_fitting_that_fits_does_everything_at_once() -> None:
    memory = Memory(100)
    Fitting(CPU, 16).run(memory, 0, 16)
    assert memory.done == [(0, 16)]


def test_fitting_of_nothing_does_nothing() -> None:
    memory = Memory(0)
    Fitting(CPU, 16).run(memory, 5, 5)
    assert memory.tried == []


def test_fitting_ends_where_not_even_one_unit_fits() -> None:
    memory = Memory(0)
    with pytest.raises(MemoryError, match=r"^cpu has too little memory: CUDA out of memory\.$"):
        Fitting(CPU, 5).run(memory, 0, 5)
    assert memory.tried == [5, 2, 1]


def test_fitting_lets_other_errors_through() -> None:
    def broken(units: int) -> None:
        raise RuntimeError("a fault of its own")

    with pytest.raises(RuntimeError, match=r"^a fault of its own$"):
        Fitting(CPU, 5).fit(broken, 5)


def test_fitting_tries_again_only_once_nothing_of_the_first_try_is_held() -> None:
    class Block:
        pass

    held: list[weakref.ref[Block]] = []
    alive: list[int] = []
    gc.disable()  # the frames must go by themselves, not by a collection that happens to come
    try:

        def work(units: int) -> None:
            alive.append(sum(ref() is not None for ref in held))
            block = Block()
            held.append(weakref.ref(block))
            if units > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        Fitting(CPU, 8).fit(work, 8)
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]


@pytest.mark.gpu
def test_a_stream_begins_behind_the_callers_and_is_not_waited_for() -> None:
    device = device_at(torch.device("cuda"))
    assert isinstance(device, CudaDevice)
    source = torch.zeros(1 << 24, dtype=torch.uint8, device="cuda")
    torch.cuda._sleep(50_000_000)
    source.fill_(7)
    stream = device.stream()
    landing = device.landing(1 << 24)
    assert landing.is_pinned()
    arrived = stream.fetch(source, landing)
    assert not torch.cuda.current_stream().query()
    arrived()
    assert bool((landing == 7).all())
    with stream.active():
        torch.cuda._sleep(500_000_000)
    torch.cuda.current_stream().synchronize()
    assert device.stream()._stream == stream._stream
    assert not stream._stream.query()
    stream.wait()
