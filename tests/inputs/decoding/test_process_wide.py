"""Settings of whole processes are put back, whatever the threads that changed them did."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_file
from cnnviz_fast.inputs.decoding.process_wide import WhileReading, libraries_silenced
from cnnviz_fast.options.reading import MAX_PIXELS


def test_while_reading_changes_once_and_puts_back_after_the_last() -> None:
    log: list[str] = []

    def change() -> object:
        log.append("changed")
        return lambda: log.append("back")

    setting = WhileReading(change)  # type: ignore[arg-type]
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with setting.changed():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=read)
    other.start()
    assert inside.wait(10)
    with pytest.raises(KeyError), setting.changed():
        raise KeyError
    assert log == ["changed"]
    leave.set()
    other.join()
    assert log == ["changed", "back"]


def test_libraries_silenced_hides_theirs_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(warnings.filters)
    with libraries_silenced.changed():
        warnings.warn_explicit("of a library", UserWarning, "Tiff.py", 1, module="PIL.TiffImagePlugin")
        with pytest.raises(UserWarning, match="of another"):
            warnings.warn_explicit("of another", UserWarning, "own.py", 1, module="pillbox")
    assert list(warnings.filters) == before
    logging.getLogger("tifffile").warning("a record")
    assert "a record" not in capsys.readouterr().err


def test_decode_file_damaged_tiff_of_several_threads_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    paths = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        paths.append(tmp_path / f"{compression}.tif")
        Image.fromarray(noise).save(paths[-1], compression=compression)
        content = bytearray(paths[-1].read_bytes())
        content[40:400] = bytes(360)
        paths[-1].write_bytes(content)

    def read() -> None:
        for path in paths:
            with contextlib.suppress(ImageError):  # where the damage shows
                decode_file(path, MAX_PIXELS)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == ""
