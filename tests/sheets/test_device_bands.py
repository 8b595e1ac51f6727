"""Pixels on their way from a device: their order, what waits for what, and what happens where something fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.fake_device import DEVICE_ERROR, POISON, FakeDevice
from support.looping import over
from support.waiting import PATIENCE_S, watch_waiting

from cnnviz_fast.geometry import Strip, cut_rows
from cnnviz_fast.runtime.workers import in_order
from cnnviz_fast.sheets import device_bands as bands
from cnnviz_fast.sheets.device_bands import Bands, Painter

WIDTH = 10


def row_value(y: int) -> int:
    return y % 160  # below POISON


def draw(strip: Strip, out: torch.Tensor) -> None:
    """Draw rows whose pixels all hold the number of the row."""
    assert out.shape[0] == strip.stop - strip.start
    for y in range(strip.start, strip.stop):
        out[y - strip.start] = row_value(y)


def painter_of(device: FakeDevice, shape: tuple[int, ...] = (WIDTH,), rows_at_once: int = 1000) -> Painter:
    def noted(strip: Strip, out: torch.Tensor) -> None:
        device.active_stream()
        device.log.append(("draw", strip.start, strip.stop))
        draw(strip, out)

    return Painter(device, noted, shape, rows_at_once)


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a band of eight rows."""
    monkeypatch.setattr(bands, "BAND_BYTES", 8 * WIDTH)


def drawn(device: FakeDevice) -> list[tuple[int, int]]:
    """Return the rows of each call that drew."""
    return [entry[1:] for entry in device.log if entry[0] == "draw"]


def take_all(given: Bands, strips: Sequence[Strip], threads: int) -> np.ndarray:
    """Take every strip in workers, as an encoder does, and return the pixels."""
    pixels = np.zeros((strips[-1].stop, *given._painter.row_shape), np.uint8)

    def work(strip: Strip) -> None:
        pixels[strip.start : strip.stop] = given.pixels(strip)
        given.give_back(strip)

    for _ in in_order(work, strips, threads):
        pass
    return pixels


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("shape", [(WIDTH,), (WIDTH, 3)])
@over(("height", "rows"), [(1, 1), (8, 8), (9, 3), (64, 4), (65, 3), (30, 1), (50, 20)])
def test_every_pixel_arrives_once(height: int, rows: int, shape: tuple[int, ...], threads: int) -> None:
    device, strips = FakeDevice(), cut_rows(height, rows)
    pixels = take_all(Bands(painter_of(device, shape), strips), strips, threads)
    expected = np.array([row_value(y) for y in range(height)])
    assert (pixels == expected.reshape(-1, *[1] * len(shape))).all()
    assert [y for start, stop in drawn(device) for y in range(start, stop)] == list(range(height))


def test_the_device_is_two_bands_ahead_and_then_waits() -> None:
    device, strips = FakeDevice(), cut_rows(40, 4)  # two strips a band, five bands
    given = Bands(painter_of(device), strips)
    assert drawn(device) == [(0, 8), (8, 16)]
    for strip in strips[:2]:
        given.pixels(strip)
    given.give_back(strips[0])
    assert len(drawn(device)) == 2
    given.give_back(strips[1])
    assert drawn(device)[2:] == [(16, 24)]


def test_a_staging_buffer_in_use_is_not_written_when_the_next_one_is_free() -> None:
    device, strips = FakeDevice(), cut_rows(40, 8)
    given = Bands(painter_of(device), strips)
    slow, fast = given.pixels(strips[0]), given.pixels(strips[1])
    given.give_back(strips[1])
    assert len(drawn(device)) == 2
    assert (slow[0] == row_value(0)).all()
    del fast
    given.give_back(strips[0])
    assert drawn(device)[2:] == [(16, 24), (24, 32)]


def test_pixels_are_seen_only_once_they_have_arrived() -> None:
    device, strips = FakeDevice(), cut_rows(16, 8)
    given = Bands(painter_of(device), strips)
    assert all(bool((staging == POISON).all()) for staging in given._stagings)
    assert (given.pixels(strips[0]) != POISON).all()
    assert bool((given._stagings[1] == POISON).all())


def test_a_worker_waits_for_a_band_that_is_not_queued_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = watch_waiting(monkeypatch, bands)
    device, strips = FakeDevice(), cut_rows(24, 8)
    given = Bands(painter_of(device), strips)
    seen: list[np.ndarray] = []
    worker = threading.Thread(target=lambda: seen.append(given.pixels(strips[2]).copy()))
    worker.start()
    assert waiting.acquire(timeout=PATIENCE_S)
    assert not seen
    given.pixels(strips[0])
    given.give_back(strips[0])
    worker.join(PATIENCE_S)
    assert (seen[0][:, 0] == [row_value(y) for y in range(16, 24)]).all()


# What runs out.


def test_a_band_that_does_not_fit_is_halved_and_work_goes_on() -> None:
    device, strips = FakeDevice(most_bytes=2 * WIDTH), cut_rows(20, 1)
    given = Bands(painter_of(device), strips)
    assert [entry for entry in device.log if entry[0] in ("memory", "give back")] == [
        ("memory", 80), ("give back",), ("memory", 40), ("give back",), ("memory", 20),
    ]  # fmt: skip
    assert (take_all(given, strips, 2)[:, 0] == [row_value(y) for y in range(20)]).all()
    assert drawn(device)[:3] == [(0, 2), (2, 4), (4, 6)]


@pytest.mark.parametrize("room", [5, 6, 7])
def test_a_band_that_does_not_fit_is_never_made_smaller_than_a_strip(room: int) -> None:
    device, strips = FakeDevice(most_bytes=room * WIDTH), cut_rows(20, 5)  # half of 8 rows are too few
    assert (take_all(Bands(painter_of(device), strips), strips, 2)[:, 0] == [row_value(y) for y in range(20)]).all()
    assert [entry for entry in device.log if entry[0] == "memory"] == [("memory", 80), ("memory", 50)]


def test_too_little_memory_for_a_strip_is_reported() -> None:
    device, strips = FakeDevice(most_bytes=4 * WIDTH - 1), cut_rows(20, 4)
    with pytest.raises(MemoryError, match=r"^cpu has too little memory: CUDA out of memory\. Tried to allocate 40 byt"):
        Bands(painter_of(device), strips)
    assert [entry for entry in device.log if entry[0] == "memory"] == [("memory", 80), ("memory", 40)]


def test_drawing_that_runs_out_of_memory_is_halved_for_this_band_and_all_later_ones() -> None:
    device, strips = FakeDevice(), cut_rows(24, 8)

    def hungry(strip: Strip, out: torch.Tensor) -> None:
        device.log.append(("draw", *strip))
        if strip.stop - strip.start > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        draw(strip, out)

    given = Bands(Painter(device, hungry, (WIDTH,), 1000), strips)
    assert (take_all(given, strips, 2)[:, 0] == [row_value(y) for y in range(24)]).all()
    tries = [stop - start for start, stop in drawn(device)]
    assert tries == [8, 4, *[2] * 12]


def test_drawing_is_cut_into_as_many_rows_as_the_backend_takes() -> None:
    device, strips = FakeDevice(), cut_rows(16, 8)
    take_all(Bands(painter_of(device, rows_at_once=3), strips), strips, 1)
    assert drawn(device) == [(0, 3), (3, 6), (6, 8), (8, 11), (11, 14), (14, 16)]


# Errors. Every worker has to get them: one that waits for a later band would wait for ever.


@over("threads", [1, 2, 5])
@over("copy", [0, 1, 3])
def test_a_lost_device_ends_every_worker(copy: int, threads: int) -> None:
    strips = cut_rows(48, 2)
    given = Bands(painter_of(FakeDevice(lost_at_copy=copy)), strips)
    with pytest.raises(DEVICE_ERROR, match=r"^CUDA error: an illegal memory access"):
        take_all(given, strips, threads)


@over("threads", [1, 3])
@over("at", [0, 9, 40])
def test_an_error_while_drawing_ends_every_worker(at: int, threads: int) -> None:
    def broken(strip: Strip, out: torch.Tensor) -> None:
        if strip.start <= at < strip.stop:
            raise ZeroDivisionError("in the kernel")
        draw(strip, out)

    strips = cut_rows(48, 2)
    given = Bands(Painter(FakeDevice(), broken, (WIDTH,), 1000), strips)
    with pytest.raises(ZeroDivisionError, match=r"^in the kernel$"):
        take_all(given, strips, threads)


@pytest.mark.parametrize("threads", [2, 5])
def test_an_error_of_a_worker_ends_the_others(threads: int) -> None:
    device, strips = FakeDevice(), cut_rows(48, 2)
    given = Bands(painter_of(device), strips)

    def work(strip: Strip) -> None:
        given.pixels(strip)
        try:
            if strip.start == 20:
                raise OSError("disk full")
        finally:
            given.give_back(strip)

    with pytest.raises(OSError, match="disk full"), given:
        for _ in in_order(work, strips, threads):
            pass
    assert not device.pending


def test_the_end_of_the_block_waits_for_queued_bands() -> None:
    device, strips = FakeDevice(), cut_rows(32, 8)
    with Bands(painter_of(device), strips):
        pass
    assert [entry for entry in device.log if entry[0] == "arrived"] == [("arrived", 0), ("arrived", 1)]


def test_the_end_of_the_block_does_not_wait_for_the_next_sheet() -> None:
    device, strips = FakeDevice(), cut_rows(16, 8)
    with Bands(painter_of(device), strips):
        after = Bands(painter_of(device), strips)
    assert sorted(device.pending) == [2, 3]
    with after:
        pass
    assert not device.pending


def test_a_lost_device_is_reported_at_the_end_of_the_block_unless_another_error_is() -> None:
    strips = cut_rows(16, 8)
    with pytest.raises(DEVICE_ERROR, match="illegal"), Bands(painter_of(FakeDevice(lost_at_copy=0)), strips):
        pass
    with pytest.raises(OSError, match="disk full"), Bands(painter_of(FakeDevice(lost_at_copy=0)), strips):
        raise OSError("disk full")
