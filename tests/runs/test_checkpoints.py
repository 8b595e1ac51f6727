"""Records of a run, statistics for one: however it ended, they are of each finished image, once."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.assertions import MERGED, assert_close
from support.cases import noise

from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.channels.dataset_files import read_statistics, write_statistics
from cnnviz_fast.runs import checkpoints as run_checkpoints
from cnnviz_fast.runs.checkpoints import Checkpoints, gathered
from cnnviz_fast.runs.collected import Statistics
from cnnviz_fast.runs.ranks import Ranks

BATCHES = 6
EACH = 4  # images in a batch
CHANNELS = 3


@pytest.fixture
def keeps_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow time for a part with every batch, and for the whole at the start alone."""
    monkeypatch.setattr(run_checkpoints, "PART_SHARE", 1e9)
    monkeypatch.setattr(run_checkpoints, "WHOLE_SHARE", 1e-9)


def maps_of(batch: int) -> torch.Tensor:
    return noise(EACH, CHANNELS, 5, 5 + batch) * 10.0 ** (batch - 3)  # each in octaves of its own


def measured(*batches: int) -> dict[str, LayerStatistics]:
    statistics = LayerStatistics(CHANNELS)
    for batch in batches:
        statistics.update(maps_of(batch))
    return {"layer": statistics}


def journal_of(batches: int) -> Any:
    """Stand for a journal with the images of so many batches, of two layers each."""
    keys = [f"{image:03d}" for image in range(EACH * batches) for _ in range(2)]
    return SimpleNamespace(rows=lambda: iter([{"key": key} for key in keys]))


def keys_of(*batches: int) -> list[str]:
    return [f"{EACH * batch + n:03d}" for batch in batches for n in range(EACH)]


def begun(folder: Path, batches: int) -> Checkpoints:
    """Return the checkpoints of a run that has added so many batches."""
    checkpoints = Checkpoints(Statistics(), folder, Ranks())
    assert checkpoints.restore(journal_of(0)) == set()
    for batch in range(batches):
        checkpoints.add(measured(batch), keys_of(batch))
    return checkpoints


def finished(folder: Path, journal: Any, missed: Collection[str]) -> LayerStatistics:
    """Take up what is in a folder, measure again what is missed, finish, and return the statistics."""
    checkpoints = Checkpoints(Statistics(), folder, Ranks())
    assert checkpoints.restore(journal) == set(missed)
    if missed:
        checkpoints.add(measured(*sorted({int(key) // EACH for key in missed})))
    return read_statistics(checkpoints.finish())["layer"]


def assert_of(found: LayerStatistics, batches: int) -> None:
    expected = measured(*range(batches))["layer"]
    assert found.images == EACH * batches
    for name, array in expected.to_arrays().items():
        assert_close(found.to_arrays()[name], array, MERGED, name)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("keeps_all")
def test_what_each_batch_adds_is_on_disk_with_it(tmp_path: Path) -> None:
    begun(tmp_path, 3)
    assert names(tmp_path) == [f".statistics.{first}-{first + EACH}.safetensors" for first in (0, EACH, 2 * EACH)]
    assert_of(finished(tmp_path, journal_of(3), set()), 3)
    assert names(tmp_path) == ["statistics.safetensors"]


@pytest.mark.usefixtures("keeps_all")
@pytest.mark.parametrize("index_has", [2, 3, 4])
def test_a_kill_before_or_after_the_index_was_written_counts_no_image_twice(index_has: int, tmp_path: Path) -> None:
    begun(tmp_path, 3)  # the index may be a batch behind, where it was cut, or ahead
    missed = keys_of(3) if index_has == 4 else set()
    assert_of(finished(tmp_path, journal_of(index_has), missed), index_has)


@pytest.mark.usefixtures("keeps_all")
def test_a_file_that_is_missing_or_damaged_costs_what_stands_behind_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    begun(tmp_path / "a", 4)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / ".statistics.4-8.safetensors").unlink()
    (tmp_path / "b" / ".statistics.4-8.safetensors").write_bytes(b"torn")
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert_of(finished(folder, journal_of(4), keys_of(1, 2, 3)), 4)


@pytest.mark.usefixtures("keeps_all")
@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_kill_while_the_others_are_removed_leaves_nothing_twice(left: int, tmp_path: Path) -> None:
    checkpoints = begun(tmp_path, 3)
    before = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())[left:]}
    checkpoints.keep()
    assert names(tmp_path) == [".statistics.0-12.safetensors"]
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    assert_of(finished(tmp_path, journal_of(3), set()), 3)


@pytest.mark.usefixtures("keeps_all")
def test_a_finished_run_goes_on_with_what_has_come_since(tmp_path: Path) -> None:
    assert_of(read_statistics(begun(tmp_path, 2).finish())["layer"], 2)
    checkpoints = Checkpoints(Statistics(), tmp_path, Ranks())
    assert checkpoints.restore(journal_of(2)) == set()
    assert names(tmp_path) == [".statistics.0-8.safetensors"]  # it is no longer of all images
    checkpoints.add(measured(2), keys_of(2))
    assert_of(finished(tmp_path, journal_of(3), set()), 3)


def test_the_whole_is_written_now_and_then_and_the_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_checkpoints, "PART_SHARE", 1e9)
    clock = slow_clock(monkeypatch)
    checkpoints = begun(tmp_path, 1)  # takes a second: the whole is due again after 50
    for batch in range(1, BATCHES):
        next(clock)
        checkpoints.add(measured(batch), keys_of(batch))
    assert names(tmp_path) == [f".statistics.{images}.safetensors" for images in ("0-16", "16-20", "20-24")]
    assert_of(finished(tmp_path, journal_of(BATCHES), set()), BATCHES)


def slow_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Move the clock on by a second with every look at it, and by 17 more with each step of this iterator."""
    now = [0.0]

    def look() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr("cnnviz_fast.runs.checkpoints.time.monotonic", look)

    def steps() -> Iterator[None]:
        while True:
            now[0] += 17
            yield

    return steps()


def test_parts_that_take_long_are_of_several_batches_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_checkpoints, "WHOLE_SHARE", 1e-9)
    clock = slow_clock(monkeypatch)
    checkpoints = begun(tmp_path, 1)
    for batch in range(1, BATCHES):
        next(clock)
        checkpoints.add(measured(batch), keys_of(batch))
    # The first ones show that each takes a second, so that the next one is due after 20.
    kept = names(tmp_path)
    assert len(kept) < BATCHES
    ends = [name.split(".")[2] for name in kept]
    assert any(int(last) - int(first) > EACH for first, last in (end.split("-") for end in ends))
    checkpoints.keep()
    assert_of(finished(tmp_path, journal_of(BATCHES), set()), BATCHES)


def test_an_image_that_was_lost_and_stands_elsewhere_in_the_index_counts_once(tmp_path: Path) -> None:
    begun(tmp_path, 3).finish()
    order = keys_of(0, 2, 1)  # batch 1 was lost and done again
    moved = SimpleNamespace(rows=lambda: iter([{"key": key} for key in order]))
    assert_of(finished(tmp_path, moved, order), 3)


def test_a_file_that_does_not_name_its_keys_is_taken_up_as_older_versions_wrote_it(tmp_path: Path) -> None:
    write_statistics(tmp_path / "statistics.safetensors", measured(0, 1), {"covers": 2 * EACH, "listed": None})
    assert_of(finished(tmp_path, journal_of(2), set()), 2)


@pytest.mark.parametrize("covers", [-5, 10**30, 2.5, "x" * 300, "../../x", None])
def test_a_whole_file_with_an_absurd_number_of_images_is_measured_anew(covers: Any, tmp_path: Path) -> None:
    write_statistics(tmp_path / "statistics.safetensors", measured(0), {"covers": covers})
    assert_of(finished(tmp_path, journal_of(1), keys_of(0)), 1)
    assert names(tmp_path) == ["statistics.safetensors"]


def test_images_that_failed_make_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_checkpoints, "WHOLE_SHARE", 1e-9)
    checkpoints = begun(tmp_path, 1)
    before = names(tmp_path)
    checkpoints.add({})
    assert names(tmp_path) == before


def test_ranks_keep_to_their_own_files(tmp_path: Path) -> None:
    for rank in range(2):
        checkpoints = Checkpoints(Statistics(), tmp_path, Ranks(rank, 2, rank))
        checkpoints.restore(journal_of(0))
        checkpoints.add(measured(rank), keys_of(0))
        checkpoints.keep()
    assert names(tmp_path) == [f".statistics-{rank}-of-2.0-4.safetensors" for rank in range(2)]
    first = Checkpoints(Statistics(), tmp_path, Ranks(0, 2, 0))
    assert first.restore(journal_of(1)) == set()
    first.finish()
    assert names(tmp_path) == [".statistics-1-of-2.0-4.safetensors", "statistics-0-of-2.safetensors"]


def test_statistics_of_other_images_are_waited_for_until_they_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(rank: int, listed: int) -> None:
        checkpoints = Checkpoints(Statistics(), tmp_path, Ranks(rank, 2, rank), listed)
        checkpoints.restore(journal_of(0))
        checkpoints.add(measured(rank), keys_of(0))
        checkpoints.finish()

    finish(0, 2 * EACH)
    finish(1, 99)  # in an earlier run, and killed since
    said: list[str] = []
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            finish(1, 2 * EACH)

    monkeypatch.setattr("cnnviz_fast.runs.checkpoints.time.sleep", sleep)
    monkeypatch.setattr(run_checkpoints, "PATIENCE_S", 0)
    path = gathered(Statistics(), tmp_path, Ranks(0, 2, 0), 2 * EACH, said.append)
    assert len(waited) == 3
    assert said == ["waiting for the statistics of process 1 of 2, counted from 0"]
    assert_of(read_statistics(path)["layer"], 2)


def test_a_whole_file_that_is_damaged_is_measured_anew(tmp_path: Path) -> None:
    begun(tmp_path, 2).finish()
    (tmp_path / "statistics.safetensors").write_bytes(b"torn")
    assert_of(finished(tmp_path, journal_of(2), keys_of(0, 1)), 2)
