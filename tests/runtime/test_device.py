"""What the engine knows of devices: how they fail, and how much of some work fits into their memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.fake_device import DEVICE_ERROR, FakeDevice

from cnnviz_fast.errors import CaptureError, KernelError
from cnnviz_fast.runtime.device import CudaDevice, Device, Fitting, device_at

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
            raise DEVICE_ERROR("CUDA error: gone\nCUDA kernel errors might be asynchronously reported")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`\nmore"),
    ],
)
def test_faults_that_have_no_type_of_their_own_are_told_by_how_they_begin(error: Exception) -> None:
    with pytest.raises(KernelError, match=r"^cpu was lost while it worked: (Triton Error \[|CUDA error: CUBLAS)"):  # noqa: SIM117
        with CPU.faults(), CPU.faults():
            raise error


def test_faults_says_that_memory_ran_out() -> None:
    with pytest.raises(MemoryError, match=r"^cpu has too little memory: CUDA error: out of memory\.$"), CPU.faults():
        raise DEVICE_ERROR("CUDA error: out of memory\nCUDA kernel errors might be reported later")


@pytest.mark.parametrize(
    "error", [RuntimeError("sizes differ"), CaptureError("CUDA error: in the model"), ValueError("no")]
)
def test_faults_lets_other_errors_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, CPU.faults():
        raise error
    assert caught.value is error


# CUDA, by what stands in its place: what is asked of streams and events is noted.


class StandIn:
    """What stands for torch.cuda: its streams, and which of them each thread works on."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.numbers = itertools.count(1)
        self.current = self.Stream(self, "the model's")
        self.lost: Exception | None = None

    class Stream:
        def __init__(self, cuda: StandIn, name: object) -> None:
            self.cuda, self.name = cuda, name

        def wait_stream(self, other: StandIn.Stream) -> None:
            self.cuda.log.append((self.name, "waits for", other.name))

        def wait_event(self, event: object) -> None:
            self.cuda.log.append((self.name, "waits for", event))

        def record_event(self) -> str:
            return f"mark on {self.name}"

        def synchronize(self) -> None:
            self.cuda.log.append(("host waits for", self.name))

    class Event:
        def __init__(self, cuda: StandIn, blocking: bool) -> None:
            assert blocking, "the host would burn a core while it waits"
            self.cuda, self.behind = cuda, 0

        def record(self, stream: StandIn.Stream) -> None:
            self.behind = len(self.cuda.log)
            self.cuda.log.append((stream.name, "event"))

        def synchronize(self) -> None:
            self.cuda.log.append(("host waits for event", self.behind))

    @contextlib.contextmanager
    def stream(self, stream: StandIn.Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def synchronize(self, device: torch.device) -> None:
        self.log.append(("synchronize", str(device)))
        if self.lost:
            raise self.lost


class StagingBuffer:
    """Memory that notes how it is copied to."""

    def __init__(self, cuda: StandIn) -> None:
        self.cuda = cuda

    def copy_(self, pixels: object, *, non_blocking: bool = False) -> None:
        self.cuda.log.append((self.cuda.current.name, "copies" if non_blocking else "makes the host wait", pixels))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in where torch.cuda is."""
    there = StandIn()
    monkeypatch.setattr("torch.cuda.Stream", lambda device: there.Stream(there, next(there.numbers)))
    monkeypatch.setattr("torch.cuda.Event", lambda blocking: there.Event(there, blocking))
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: there.current)
    monkeypatch.setattr("torch.cuda.stream", there.stream)
    monkeypatch.setattr("torch.cuda.synchronize", there.synchronize)
    monkeypatch.setattr(CudaDevice, "_streams", {})
    return there


CUDA = CudaDevice(torch.device("cuda:1"))


def test_cuda_keeps_memory_of_another_stream_until_this_one_is_done_with_it(cuda: StandIn) -> None:
    kept: list[object] = []
    tensors: Any = [SimpleNamespace(record_stream=kept.append) for _ in range(2)]
    CUDA.uses(*tensors)
    assert kept == [cuda.current] * 2
    Device(torch.device("cpu")).uses(torch.zeros(1))  # nothing to be kept


def test_a_cuda_stream_begins_behind_the_callers_which_never_waits_for_it(cuda: StandIn) -> None:
    stream = CUDA.stream()
    assert cuda.log == [(1, "waits for", "the model's")]
    with stream.active():
        assert cuda.current.name == 1
        CUDA.stream()  # the caller's stream is this very one
    assert len(cuda.log) == 1
    CUDA.stream()
    assert cuda.log[1:] == [(1, "waits for", "the model's")]


def test_a_cuda_stream_begins_at_the_mark_it_is_given(cuda: StandIn) -> None:
    mark = CUDA.mark()
    CUDA.stream(mark)
    assert cuda.log == [(1, "waits for", "mark on the model's")]


def test_each_name_of_threads_and_each_device_has_a_stream_of_its_own(cuda: StandIn) -> None:
    def note(device: CudaDevice) -> None:
        with device.stream().active():
            names.append(cuda.current.name)

    names: list[object] = []
    for device in (CUDA, CUDA, CudaDevice(torch.device("cuda:0"))):
        note(device)
    for name in ("cnnviz-0", "cnnviz-1", "cnnviz-0"):  # the workers of one pool, and of the next
        thread = threading.Thread(target=note, args=[CUDA], name=name)
        thread.start()
        thread.join()
    assert names == [1, 1, 2, 3, 4, 3]


def test_a_cuda_stream_fetches_behind_what_it_holds_and_lets_the_host_wait_for_that_alone(cuda: StandIn) -> None:
    stream = CUDA.stream()
    cuda.log.clear()
    arrived = stream.fetch("pixels", StagingBuffer(cuda))  # type: ignore[arg-type]
    assert cuda.log == [(1, "copies", "pixels"), (1, "event")]
    arrived()
    assert cuda.log[2:] == [("host waits for event", 1)]
    stream.wait()
    assert cuda.log[3:] == [("host waits for", 1)]


@pytest.mark.parametrize(
    ("error", "lost"), [(DEVICE_ERROR("CUDA error: an illegal memory access was encountered"), True),
                        (DEVICE_ERROR("CUDA error: no kernel image is available for execution"), False)]
)  # fmt: skip
def test_a_cuda_device_that_still_answers_is_not_lost(error: Exception, lost: bool, cuda: StandIn) -> None:
    cuda.lost = error if lost else None
    refused = r"refused this work and can still be used: .* no k"
    expected = "was lost while it worked: CUDA error: an illegal" if lost else refused
    with pytest.raises(KernelError, match=f"^cuda:1 {expected}"), CUDA.faults():
        raise error
    assert cuda.log == [("synchronize", "cuda:1")]


@pytest.mark.usefixtures("cuda")
def test_a_cuda_staging_buffer_is_page_locked_or_else_ordinary_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    empty, error = torch.empty, DEVICE_ERROR("CUDA error: out of memory\nmore of it")

    def scarce(size: int, *, dtype: torch.dtype, pin_memory: bool = False) -> torch.Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise error
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", scarce)
    assert CUDA.staging_buffer(70).shape == (70,)
    assert asked == [True, False]
    error = DEVICE_ERROR("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DEVICE_ERROR):
        CUDA.staging_buffer(70)


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


def test_fitting_tries_the_least_that_has_to_fit() -> None:
    memory = Memory(5)
    assert Fitting(CPU, 8, least=5).fit(lambda units: memory(0, units), 8) == 5
    assert memory.tried == [8, 5]
    with pytest.raises(MemoryError, match="too little memory"):
        Fitting(CPU, 20, least=6).fit(lambda units: memory(0, units), 20)
    assert memory.tried[2:] == [20, 10, 6]


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
    staging = device.staging_buffer(1 << 24)
    assert staging.is_pinned()
    arrived = stream.fetch(source, staging)
    assert not torch.cuda.current_stream().query()
    arrived()
    assert bool((staging == 7).all())
    with stream.active():
        torch.cuda._sleep(500_000_000)
    torch.cuda.current_stream().synchronize()
    assert device.stream()._stream == stream._stream
    assert not stream._stream.query()
    stream.wait()
