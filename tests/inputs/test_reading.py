"""Images read ahead in readers: in order, whatever fails, crashes or hangs, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.shards import png, write_tar
from support.waiting import hang, wait_until
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

from cnnviz_fast.errors import DTypeError, ImageError, ShapeError
from cnnviz_fast.inputs import reader_process, readers, unnamed_memory
from cnnviz_fast.inputs.images import InputSpec, load_images
from cnnviz_fast.inputs.reading import DatasetReader, ImageBatch, ImageReader, read_batches, read_loader
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.models.preprocess import imagenet_preset

BATCHES = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def image(position: int, h: int = 4, w: int = 5) -> torch.Tensor:
    return torch.full((3, h, w), float(position))


class Scripted:
    """Reads `image(position)`, after it has done what is planned for the position."""

    def __init__(self, plan: dict[int, Callable[[], object]] | None = None) -> None:
        self.plan = plan or {}

    def __call__(self, position: int) -> torch.Tensor:
        self.plan.get(position, int)()
        return image(position)


def read_all(
    read: object, batches: object = BATCHES, workers: int = 2, timeout_s: float = 60, **more: int
) -> list[ImageBatch]:
    with contextlib.closing(read_batches(read, batches, workers=workers, timeout_s=timeout_s, **more)) as reads:
        return list(reads)


def check(reads: list[ImageBatch], failed: dict[int, str], batches: list[list[int]] = BATCHES) -> None:
    """Check that exactly `failed` failed, with reasons that match, and all else is in its batch, in order."""
    assert len(reads) == len(batches)
    for read, batch in zip(reads, batches, strict=True):
        good = [position for position in batch if position not in failed]
        assert [positions for positions, _ in read.parts] == ([good] if good else [])
        for _, part in read.parts:
            assert part.dtype == torch.float32
            assert torch.equal(part, torch.stack([image(position) for position in good]))
        assert [position for position, _ in read.failures] == [position for position in batch if position in failed]
        for position, why in read.failures:
            assert re.fullmatch(failed[position], why), why


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    threads, memory = set(threading.enumerate()), shared_memory()
    yield
    assert multiprocessing.active_children() == []
    assert {thread for thread in threading.enumerate() if "cnnviz" in thread.name} - threads == set()
    assert {name for name in shared_memory() - memory if f"_{os.getpid()}_" in name} == set()


@pytest.mark.parametrize("killed", [True, False])
def test_read_batches_readers_leave_no_files(killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A reader inherits the folder of multiprocessing where this process has made one.
    monkeypatch.delitem(multiprocessing.process.current_process()._config, "tempdir", raising=False)
    before = shared_memory()

    def end() -> None:
        assert list(tmp_path.iterdir()) == []
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)

    # Its first reader has sent batches by then.
    check(read_all(Scripted({9: end}), workers=1), {9: r".*died \(SIGKILL\)"} if killed else {})
    assert list(tmp_path.iterdir()) == []
    assert shared_memory() == before


# What comes out where nothing is wrong.


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_read_batches_order_is_that_of_the_batches(workers: int) -> None:
    behind, waited_s = (torch.zeros((), dtype=torch.float64).share_memory_() for _ in range(2))

    def read_behind_the_second_batch() -> None:
        started = time.perf_counter()
        wait_until(lambda: behind or workers < 2)
        waited_s.fill_(time.perf_counter() - started)

    reads = read_all(Scripted({0: read_behind_the_second_batch, 5: lambda: behind.fill_(1)}), workers=workers)
    check(reads, {})
    assert sum(each.seconds for each in reads) >= waited_s


def test_read_batches_positions_may_come_in_any_order_and_batches_be_empty() -> None:
    batches = [[7, 2], [], [5, 0, 9]]
    check(read_all(Scripted(), batches), {}, batches)
    assert read_all(Scripted(), []) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_read_batches_one_part_for_each_size(workers: int) -> None:
    (read,) = read_all(lambda i: image(i, 4 if i % 3 else 6), [[1, 3, 2, 4, 0]], workers=workers)
    assert [positions for positions, _ in read.parts] == [[1, 2, 4], [3, 0]]
    assert [part.shape for _, part in read.parts] == [(3, 3, 4, 5), (2, 3, 6, 5)]
    assert [part[:, 0, 0, 0].tolist() for _, part in read.parts] == [[1, 2, 4], [3, 0]]


def test_read_batches_clips_halves_and_gradients() -> None:
    made = [
        torch.ones(3, 1, 2, 2).expand(-1, 4, -1, -1),
        torch.ones(3, 2, 2).half(),
        torch.ones(3, 2, 2).requires_grad_(),
    ]
    (read,) = read_all(lambda i: made[i], [[0, 1, 2]])
    assert [(positions, part.shape) for positions, part in read.parts] == [
        ([0], (1, 3, 4, 2, 2)),
        ([1, 2], (2, 3, 2, 2)),
    ]
    assert all(part.dtype == torch.float32 and not part.requires_grad for _, part in read.parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_read_batches_of_a_catalogue_equal_load_images(workers: int, photo: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {f"{i}.png": png(40 * i) for i in range(3)})
    (tmp_path / "bad.png").write_bytes(b"no image")
    floats = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    own = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    catalogue = list_images([tmp_path / "s.tar", photo, tmp_path / "bad.png", own, floats])
    assert len(catalogue) == 8
    reads = read_all(
        ImageReader(catalogue, InputSpec(imagenet_preset(), max_pixels=10**7)),
        [[0, 1, 2, 3], [4, 5, 6, 7]],
        workers=workers,
    )
    expected = load_images([*(Image.new("RGB", (4, 4), (40 * i,) * 3) for i in range(3)), photo, own, *floats])
    assert [positions for read in reads for positions, _ in read.parts] == [[0, 1, 2, 3], [5, 6, 7]]
    assert torch.equal(torch.cat([part for read in reads for _, part in read.parts]), expected)
    assert [len(read.failures) for read in reads] == [0, 1]
    position, why = reads[1].failures[0]
    assert position == 4
    assert "bad.png" in why


def test_image_reader_refuses_more_pixels_than_allowed(photo: Path) -> None:
    with pytest.raises(ImageError, match="pixels"):
        ImageReader(list_images(photo), InputSpec(imagenet_preset(), max_pixels=1000))(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_read_batches_is_bounded(workers: int) -> None:
    seen = torch.zeros(40, dtype=torch.int64).share_memory_()
    read = Scripted({i: partial(seen.__setitem__, i, 1) for i in range(40)})
    batches = [[i] for i in range(40)]
    with contextlib.closing(read_batches(read, batches, workers=workers, timeout_s=60, ahead=3)) as reads:
        for taken in (1, 2):
            next(reads)
            wait_until(lambda taken=taken: seen.sum() == taken + 3 + 2 * workers)
    assert seen.sum() == 2 + 3 + 2 * workers


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("workers", [0, 1])
def test_read_batches_from_readers_come_through_shared_memory(workers: int) -> None:
    mapped = Path("/proc/self/maps")
    if not mapped.exists():
        pytest.skip("needs /proc/self/maps")
    reads = read_all(Scripted(), workers=workers)
    shared = "memfd:cnnviz batch" in mapped.read_text()
    assert shared == bool(workers)
    del reads
    gc.collect()
    assert "memfd:cnnviz batch" not in mapped.read_text()


def test_read_batches_leaves_the_random_numbers_of_the_caller() -> None:
    before = torch.get_rng_state()
    read_all(Scripted())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_read_batches_pinned_where_there_is_cuda(workers: int) -> None:
    reads = read_all(Scripted(), workers=workers, pin=True)
    check(reads, {})
    assert all(part.is_pinned() for read in reads for _, part in read.parts)


# What fails.


class Unsendable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{two}")
        self.lock = threading.Lock()


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def throw(error: BaseException) -> Callable[[], object]:
    def action() -> object:
        raise error

    return action


@pytest.mark.parametrize("workers", [0, 2])
def test_read_batches_failure_costs_its_image(workers: int) -> None:
    read = Scripted(
        {
            0: throw(ImageError("image 'a.png' is damaged: cut off.")),
            1: throw(ValueError("first line\nsecond line")),
            2: throw(KeyError()),
            3: throw(Unsendable(1, "lock inside")),
            5: throw(Wordless()),
            6: throw(SystemExit(3)),
            7: throw(KeyboardInterrupt()),
            9: throw(StopIteration()),
        }
    )
    check(read_all(read, workers=workers), {
        0: "image 'a.png' is damaged: cut off", 1: "ValueError: first line", 2: "KeyError",
        3: "Unsendable: lock inside", 5: "Wordless", 6: "SystemExit: 3", 7: "KeyboardInterrupt", 9: "StopIteration",
    })  # fmt: skip


def test_read_batches_what_is_no_tensor_is_a_failure() -> None:
    (read,) = read_all(lambda i: "text" if i else image(0), [[0, 1]])
    assert read.parts[0][0] == [0]
    assert read.failures == [(1, "AttributeError: 'str' object has no attribute 'detach'")]


# Readers that crash.

CRASHES = {
    r"exit code 3": lambda: os._exit(3),
    r"exit code 0": lambda: os._exit(0),
    r"SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    r"SIGSEGV": lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)),
}


def died(how: str) -> str:
    return rf"the reader that decoded it died \({how}\)"


def test_read_batches_crash_costs_its_image() -> None:
    positions = (0, 4, 8, 9)  # the first of a batch, one between, the last, and the only one
    crashes = dict(zip(positions, CRASHES, strict=True))
    read = Scripted({position: CRASHES[how] for position, how in crashes.items()})
    check(read_all(read), {position: died(how) for position, how in crashes.items()})


def test_read_batches_crashes_in_one_batch_and_in_the_last() -> None:
    crash = CRASHES["SIGKILL"]
    failed = {3: died("SIGKILL"), 5: died("SIGKILL"), 4: "ValueError: x", 9: died("SIGKILL")}
    check(read_all(Scripted({3: crash, 4: throw(ValueError("x")), 5: crash, 9: crash})), failed)


def test_read_batches_crash_is_tried_once_more(tmp_path: Path) -> None:
    def crash() -> None:
        with open(tmp_path / "tries", "a") as file:
            file.write("x")
        os._exit(1)

    check(
        read_all(Scripted({4: crash, 7: CRASHES["SIGKILL"]}), workers=1), {4: died("exit code 1"), 7: died("SIGKILL")}
    )
    assert (tmp_path / "tries").read_text() == "xx"


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), hang], ids=["killed", "hung"])
def test_read_batches_one_death_costs_no_image(end: Callable[[], object], tmp_path: Path) -> None:
    """The system kills what takes too much memory; and a reader hangs that was forked while a lock was held."""
    positions = (0, 4, 8)

    def once(position: int) -> None:
        if not (seen := tmp_path / f"{position}").exists():
            seen.touch()
            end()

    read = Scripted({position: partial(once, position) for position in positions})
    check(read_all(read, timeout_s=0.6), {})
    assert len(list(tmp_path.iterdir())) == len(positions)


def test_read_batches_death_while_another_dataloader_watches() -> None:
    """After a DataLoader in the main thread, torch raises the death of any worker it knows of there, at any line."""
    assert len(list(DataLoader(TensorDataset(torch.ones(2, 1)), num_workers=1))) == 2
    check(read_all(Scripted({4: CRASHES["SIGKILL"]})), {4: died("SIGKILL")})


def test_read_batches_death_leaves_the_other_readers() -> None:
    read = Scripted({4: CRASHES["SIGKILL"]})
    reads = read_all(lambda i: read(i) * 0 + os.getpid(), [[i] for i in range(10)])
    assert [position for each in reads for position, _ in each.failures] == [4]
    readers_seen = {float(part.max()) for each in reads for _, part in each.parts}
    assert 2 <= len(readers_seen) <= 4


def test_read_batches_death_between_images_is_made_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stacked(images: list[torch.Tensor], shared: bool) -> torch.Tensor:
        with contextlib.suppress(FileExistsError):
            (tmp_path / f"{float(images[0].max())}").mkdir()
            os._exit(7)
        return torch.stack(images)

    monkeypatch.setattr("cnnviz_fast.inputs.reading._stacked", stacked)
    check(read_all(Scripted()), {})
    assert len(os.listdir(tmp_path)) == len(BATCHES)


def test_read_batches_death_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz_fast.inputs.reading._stacked", lambda images, shared: os._exit(7))
    with pytest.raises(
        ImageError, match=r"failed 5 times in a row, the last time: one died \(exit code 7\)\. Set readers"
    ):
        read_all(Scripted(), workers=1)


def test_read_batches_batch_that_cannot_be_stacked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cnnviz_fast.inputs.reading._stacked", lambda images, shared: throw(RuntimeError("unable to map"))()
    )
    with pytest.raises(ImageError, match=r"5 times in a row, the last time: RuntimeError: unable to map\. Set readers"):
        read_all(Scripted(), workers=1)
    with pytest.raises(RuntimeError, match="unable to map"):
        read_all(Scripted(), workers=0)


def test_read_batches_reader_that_never_begins_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def begin(reader: int) -> None:
        if reader == 0:
            with contextlib.suppress(FileExistsError):
                (tmp_path / "slept").mkdir()
                hang()

    monkeypatch.setattr(reader_process, "begin", begin)
    monkeypatch.setattr(readers, "STALL_S", 0.5)
    check(read_all(Scripted()), {})


# Readers that hang.

HANGS = {
    "asleep": hang,
    "in C, with the lock of Python": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def test_read_batches_hang_costs_its_image() -> None:
    hangs = dict(zip((1, 4, 9), HANGS.values(), strict=True))
    check(read_all(Scripted(hangs), timeout_s=0.6), dict.fromkeys(hangs, r"took longer than 0\.6 s"))


def test_read_batches_hang_right_behind_a_batch_that_is_done() -> None:
    """A reader hands out its memory itself: while it hangs, nobody gets what it has read before."""
    batches = [[i] for i in range(6)]
    failed = {3: r"took longer than 0\.5 s"}
    hang = HANGS["in C, with the lock of Python"]
    check(read_all(Scripted({3: hang}), batches, workers=1, timeout_s=0.5), failed, batches)


def test_read_batches_slow_is_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that of each image: three of a batch take longer together."""
    clock_ns = torch.zeros((), dtype=torch.int64).share_memory_()
    monkeypatch.setattr(reader_process, "time", SimpleNamespace(monotonic_ns=clock_ns.item))
    slow = dict.fromkeys((0, 1, 2), lambda: clock_ns.add_(350_000_000))
    check(read_all(Scripted(slow), workers=1, timeout_s=0.8), {})
    assert clock_ns == 1_050_000_000


# The end, whichever it is.


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 3])
def test_read_batches_closed_early_is_quick(workers: int, taken: int) -> None:
    reads = read_batches(lambda i: image(i, 100), [[i, i + 1] for i in range(1000)], workers=workers, timeout_s=60)
    for _ in range(taken):
        next(reads)
    started = time.monotonic()
    reads.close()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("how", HANGS)
def test_read_batches_closed_while_a_reader_hangs_is_quick(how: str) -> None:
    hanging = torch.zeros(()).share_memory_()
    reads = read_batches(Scripted({3: lambda: (hanging.fill_(1), HANGS[how]())}), BATCHES, workers=2, timeout_s=60)
    next(reads)
    wait_until(hanging.item)
    started = time.monotonic()
    reads.close()
    assert time.monotonic() - started < 2


def test_read_batches_interrupted_while_readers_begin_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = torch.zeros(2).share_memory_()
    interrupted_at: list[float] = []

    def interrupted(*_: object) -> None:
        wait_until(lambda: begun.all())
        monkeypatch.undo()
        interrupted_at.append(time.monotonic())
        raise KeyboardInterrupt

    monkeypatch.setattr(reader_process, "begin", lambda reader: (begun[reader].fill_(1), hang()))
    monkeypatch.setattr(readers, "wait", interrupted)
    reads = read_batches(Scripted(), BATCHES, workers=2, timeout_s=60)
    with pytest.raises(KeyboardInterrupt):
        next(reads)
    assert time.monotonic() - interrupted_at[0] < 2


def test_a_reader_that_nobody_knows_of_ends_with_the_others() -> None:
    """Its parent was interrupted between its start and the next line, so that nothing comes through its pipe."""
    context = multiprocessing.get_context("fork")
    notes, (_ours, theirs) = reader_process.Notes(1), context.Pipe()
    reader = context.Process(target=reader_process.serve, args=(hang, notes.of(0), theirs), daemon=True)
    reader.start()
    wait_until(lambda: notes.at(0)[0] == reader_process.WAITING)
    notes.stop()
    reader.join(30)
    assert reader.exitcode == 0


def test_read_batches_never_begun_starts_nothing() -> None:
    read_batches(Scripted(), BATCHES, workers=2, timeout_s=60)
    assert multiprocessing.active_children() == []


# How Python ends, the code of its process, and the last line of what it prints. None leaves a process behind.
ENDS = {
    "next(reads)": (0, ""),
    "next(reads); raise ValueError('mine')": (1, "ValueError: mine"),
    "for _ in reads: os.kill(0, signal.SIGINT)": (-signal.SIGINT, "KeyboardInterrupt"),
    "next(reads); os.kill(0, signal.SIGINT)": (-signal.SIGINT, "KeyboardInterrupt"),
    # Readers that have just been forked do not print that they were interrupted.
    "os.register_at_fork(after_in_child=lambda: signal.raise_signal(signal.SIGINT)); next(reads)": (0, ""),
    "next(reads); os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, ""),
    # One of its readers begins when it is gone.
    "reader_process.begin = late; next(reads); os.read(begun, 1); os.kill(os.getpid(), signal.SIGKILL)": (
        -signal.SIGKILL, "",
    ),
}  # fmt: skip

# Imports once and forks once for each end. A child runs it in a process group of its own and leaves the script there.
SCRIPT = """
import os, signal, sys, time, torch
from cnnviz_fast.inputs import reader_process
from cnnviz_fast.inputs.reading import read_batches
begin, (begun, begins) = reader_process.begin, os.pipe()
def late(reader):
    parent = os.getppid()
    os.write(1, b"%d\\n" % os.getpid())
    begin(reader)
    if reader == 1:
        os.write(begins, b".")
        while os.getppid() == parent:
            time.sleep(0.01)
def read(i):
    os.write(1, b"%d\\n" % os.getpid())
    if i == 9: signal.alarm(100), signal.pause()
    return torch.zeros(3, 2, 2)
children = []
for number, end in enumerate(sys.argv[1:]):
    children.append(os.fork())
    if not children[-1]:
        break
else:
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    sys.exit()
os.setsid()
signal.alarm(50)
os.dup2(os.open(f"{number}.out", os.O_CREAT | os.O_WRONLY), 1)
os.dup2(os.open(f"{number}.err", os.O_CREAT | os.O_WRONLY), 2)
reads = read_batches(read, [[i] for i in range(1000)], workers=2, timeout_s=60)
exec(end)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[int]]]:
    """Return for each of ENDS the code that Python ended with, what it printed, and its readers."""
    folder = tmp_path_factory.mktemp("ends")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *ENDS], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return {
        end: (
            int(code),
            (folder / f"{number}.err").read_text(),
            sorted({int(line) for line in (folder / f"{number}.out").read_text().split()}),
        )
        for number, (end, code) in enumerate(zip(ENDS, done.stdout.split(), strict=True))
    }


def is_running(process: int) -> bool:
    """Check whether a process runs: it is there, and not a zombie that waits for a parent of its own to notice."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")


@pytest.mark.parametrize("end", ENDS)
def test_read_batches_end_of_python_leaves_no_process(end: str, ended: dict[str, tuple[int, str, list[int]]]) -> None:
    code, printed, processes = ended[end]
    expected, said = ENDS[end]
    assert code == expected, printed
    assert printed.count("Traceback") == bool(said), printed
    assert said in printed
    assert processes
    if code == -signal.SIGKILL:  # the readers notice it within a second
        wait_until(lambda: not any(map(is_running, processes)))
    for process in processes:
        assert not is_running(process)


# Processes that are not forked.


@pytest.mark.parametrize("strategy", sorted(torch.multiprocessing.get_all_sharing_strategies()))
def test_read_batches_without_unnamed_files_do_the_same(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unnamed_memory, "_has_files", lambda: False)
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(strategy)
    try:
        check(read_all(Scripted()), {})
    finally:
        torch.multiprocessing.set_sharing_strategy(before)


def refused(_: str) -> int:
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.mark.skipif(sys.platform != "linux", reason="unnamed files are Linux's")
def test_unnamed_files_are_missed_where_python_or_the_container_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    has_files = unnamed_memory._has_files.__wrapped__
    assert has_files()
    monkeypatch.setattr(os, "memfd_create", refused)
    assert not has_files()
    monkeypatch.delattr(os, "memfd_create")
    assert not has_files()


@pytest.mark.usefixtures("_not_forked")
def test_read_batches_readers_that_are_not_forked_do_the_same(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {f"{i}.png": png(40 * i) for i in range(3)})
    reader = ImageReader(list_images(tmp_path / "s.tar"), InputSpec(imagenet_preset(), max_pixels=10**7))
    reads = read_all(reader, [[0, 1], [2]], workers=1)
    expected = load_images([Image.new("RGB", (4, 4), (40 * i,) * 3) for i in range(3)])
    assert torch.equal(torch.cat([part for read in reads for _, part in read.parts]), expected)


@pytest.mark.usefixtures("_not_forked")
def test_read_batches_reader_that_cannot_be_sent_is_an_error() -> None:
    with pytest.raises(
        ImageError, match=r"processes that read images cannot be started: .*lambda.*\. Set readers to 0\."
    ):
        read_all(lambda i: image(i))


# A user's own Dataset and DataLoader.

BYTES = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
FLOATS = torch.linspace(-1, 1, 60).reshape(3, 4, 5)


def tenth(image: Image.Image) -> torch.Tensor:
    return pil_to_tensor(image).float() / 10


@pytest.mark.parametrize("sample", [
    BYTES, Image.fromarray(BYTES), torch.from_numpy(BYTES).permute(2, 0, 1), (BYTES, 3), [BYTES], (BYTES, BYTES + 1),
    {"label": 2, "image": BYTES}, {"pixel_values": BYTES, "a": 1}, {"x": BYTES, "y": 1}, UserDict({"image": BYTES}),
], ids=lambda sample: type(sample).__name__)  # fmt: skip
def test_dataset_reader_decodes_what_is_no_float_tensor(sample: object) -> None:
    expected = torch.from_numpy(BYTES / np.float32(10)).permute(2, 0, 1)
    assert torch.equal(DatasetReader([None, sample], InputSpec(tenth))(1), expected)


def test_dataset_reader_decodes_paths(tmp_path: Path) -> None:
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    reader = DatasetReader([(tmp_path / "a.png", 0), {"image": str(tmp_path / "a.png")}], InputSpec(tenth))
    assert torch.equal(reader(0), tenth(Image.fromarray(BYTES)))
    assert torch.equal(reader(1), reader(0))


@pytest.mark.parametrize(
    "sample", [FLOATS, FLOATS[None], (FLOATS, 1), {"image": FLOATS.double()}, [FLOATS.clone().requires_grad_()]]
)
def test_dataset_reader_float_tensor_counts_as_preprocessed(sample: object) -> None:
    read = DatasetReader([sample], InputSpec(tenth))(0)
    assert read.dtype == torch.float32
    assert torch.equal(read, FLOATS)


@pytest.mark.parametrize(("sample", "error", "message"), [
    ((), ImageError, "a sample must hold an image, got an empty tuple."),
    ({}, ImageError, "a sample must hold an image, got an empty dict."),
    (FLOATS.expand(2, 3, 4, 5), ShapeError, "a sample must be one image, got a batch (2, 3, 4, 5)."),
    (FLOATS[:2], ShapeError, "must have shape (3, H, W) or (N, 3, H, W) for this model, got (2, 4, 5)."),
    (BYTES + 1000.0, DTypeError, "image must be uint8, got float64."),
    (5, ImageError, "image must be a path, PIL image, uint8 array or uint8 tensor, got int."),
    ("gone.png", ImageError, "no file 'gone.png'."),
])  # fmt: skip
def test_dataset_reader_refuses(sample: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        DatasetReader([sample], InputSpec(tenth))(0)


class Holey:
    """A Dataset of ten with a hole that raises what its author chose."""

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        if position == 4:
            raise OSError("moved")
        return image(position), position


def test_read_batches_of_a_dataset() -> None:
    check(read_all(DatasetReader(Holey(), InputSpec(tenth))), {4: "OSError: moved"})


def stacked(*positions: int) -> torch.Tensor:
    return torch.stack([image(position) for position in positions])


@pytest.mark.parametrize("wrapped", [
    lambda batch: batch, lambda batch: (batch, [1, 2]), lambda batch: [batch, 1],
    lambda batch: {"y": 1, "image": batch}, lambda batch: {"pixel_values": batch, "y": 1},
    lambda batch: {"x": batch, "y": 1},
    lambda batch: batch.double(),
])  # fmt: skip
def test_read_loader_takes_batches_of_any_form(wrapped: Callable[[torch.Tensor], object]) -> None:
    loader = map(wrapped, [stacked(0, 1, 2), stacked(3, 4, 5), stacked(6, 7, 8), stacked(9)])
    check(list(read_loader(loader, lambda position: False)), {})


def test_read_loader_of_a_dataloader_with_workers_leaves_out_what_is_skipped() -> None:
    asked: list[int] = []

    def skip(position: int) -> bool:
        asked.append(position)
        return position in (1, 3, 4, 5)

    loader = DataLoader(TensorDataset(stacked(*range(10)), torch.arange(10)), batch_size=3, num_workers=2)
    reads = list(read_loader(loader, skip))
    assert [read.parts[0][0] if read.parts else [] for read in reads] == [[0, 2], [], [6, 7, 8], [9]]
    assert torch.equal(torch.cat([part for read in reads for _, part in read.parts]), stacked(0, 2, 6, 7, 8, 9))
    assert asked == list(range(10))
    assert all(read.failures == [] and read.seconds > 0 for read in reads)


def test_read_loader_single_samples_and_clips() -> None:
    reads = list(read_loader([image(0), stacked(1, 2), torch.zeros(2, 3, 4, 5, 5)], lambda position: False))
    assert [(positions, part.shape) for read in reads for positions, part in read.parts] == [
        ([0], (1, 3, 4, 5)), ([1, 2], (2, 3, 4, 5)), ([3, 4], (2, 3, 4, 5, 5)),
    ]  # fmt: skip


@pytest.mark.parametrize(("batch", "error", "message"), [
    (torch.zeros(2, 4, 4), ShapeError, r"must have shape \(3, H, W\) or \(N, 3, H, W\) .* got \(2, 4, 4\)"),
    ([], ImageError, "a sample must hold an image, got an empty list"),
])  # fmt: skip
def test_read_loader_refuses(batch: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(read_loader([batch], lambda position: False))


def test_read_loader_error_of_the_loader_is_the_callers() -> None:
    def loader() -> Iterator[torch.Tensor]:
        yield stacked(0)
        raise OSError("disk gone")

    reads = read_loader(loader(), lambda position: False)
    next(reads)
    with pytest.raises(OSError, match="disk gone"):
        next(reads)


def test_read_batches_needs_no_shared_memory_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "unable to open shared memory object </torch_1> in read-write mode: No such file or directory"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", none_left)
    check(read_all(Scripted(), workers=2), {})


def test_read_batches_says_what_helps_where_memory_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left)
    with pytest.raises(ImageError, match=r"cannot be started: .*Too many open files\. Set readers to 0\.$"):
        next(read_batches(lambda position: torch.zeros(3, 2, 2), [[0]], workers=1, timeout_s=9.0))
    (read,) = read_batches(lambda position: torch.zeros(3, 2, 2), [[0]], workers=0, timeout_s=9.0)
    assert read.parts[0][0] == [0]
