"""A script without a main guard is told of it in one line, whatever way processes begin."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shards import png

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.main_guard import leave_if_run_again
from cnnviz_fast.inputs.reading import read_batches

LINE = (
    "a process that reads images has run the whole script again, which has no main guard. Put what it does under if "
    "__name__ == '__main__': or pass readers=0."
)


class Script:
    """Reads images, and does on its way to a reader what a script without a guard does."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return leave_if_run_again, ()


def read_one(read: object) -> None:
    list(read_batches(read, [[0]], workers=1, timeout_s=60))


@pytest.mark.usefixtures("_not_forked")
def test_readers_that_run_the_script_again_are_one_error_that_names_the_guard(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ImageError) as caught:
        read_one(Script())
    assert str(caught.value) == LINE
    assert capfd.readouterr() == ("", "")


def test_readers_whose_server_of_forks_ran_the_script_again_name_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(process: object) -> None:
        raise EOFError

    monkeypatch.setattr(multiprocessing.get_context().Process, "start", start)
    with pytest.raises(ImageError) as caught:
        read_one(Script())
    assert str(caught.value) == LINE


def test_leave_if_run_again_goes_on_anywhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_if_run_again()
    # A process of the user's own, say of a Pool, which imports the script.
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: process)
    with pytest.raises(ImageError, match="main guard"):
        leave_if_run_again()


SCRIPT = """
import multiprocessing, sys
import torch
import cnnviz_fast as cf

multiprocessing.set_start_method(sys.argv[1], force=True)

def draw():
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    print(cf.run(conv, "photos", ["0"], sys.argv[1], readers=2, tile=4).finished)

"""


@pytest.mark.long
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("is_guarded", [True, False])
def test_run_in_a_script_needs_a_guard_and_says_so(tmp_path: Path, method: str, is_guarded: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png(9))
    call = "if __name__ == '__main__':\n    draw()" if is_guarded else "draw()"
    (tmp_path / "script.py").write_text(SCRIPT + call)
    done = subprocess.run(
        [sys.executable, "script.py", method], cwd=tmp_path, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    if is_guarded:
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
        return
    assert done.returncode == 1
    assert done.stderr.endswith(f"cnnviz_fast.errors.ImageError: {LINE}\n")
    assert done.stderr.count("Traceback") == 1
    assert done.stdout == ""
