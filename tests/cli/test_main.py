"""The command line as a whole: its version, a closed pipe, the traceback, and what is left to collect at the end."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.command_line import error_of, run

import cnnviz_fast as cf
from cnnviz_fast.cli import doctor
from cnnviz_fast.cli import main as cli


def test_program_whose_pipe_is_closed_ends_quietly_and_leaves_nothing_to_collect() -> None:
    code = (
        "import atexit, gc, sys; from cnnviz_fast.cli import main as cli; sys.argv[1:] = ['doctor'];"
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000, gc.isenabled(), file=sys.stderr));"
        "sys.exit(cli.main())"
    )
    # `true` has ended long before anything is written.
    command = f"set -o pipefail; {shlex.join([sys.executable, '-c', code])} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.FAILED, "True False\n")


def test_debug_shows_the_traceback(model: str, cat: Path, out: Path) -> None:
    from cnnviz_fast.errors import LayerNotFoundError

    with pytest.raises(LayerNotFoundError):
        run("render", model, cat, "--layer", "convv", "--out", out, "--debug")


def test_errors_advise_flags_on_the_command_line_and_arguments_in_python(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", model, cat, "--layer", "qqqqq", "--out", out) == cli.USAGE
    assert capsys.readouterr().err.endswith("List them with: cnnviz layers MODEL\n")
    with pytest.raises(LookupError, match=r"List them with: cnnviz_fast\.list_layers\(model\)$"):
        cf.visualize(model, cat, "qqqqq")


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit) as exit_:
        run("--version")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"cnnviz {version('cnnviz_fast')}\n"


def test_main_leaves_the_garbage_collector_as_it_was(model: str, cat: Path, out: Path) -> None:
    import gc

    frozen = gc.get_freeze_count()
    for wanted in (True, False):
        (gc.enable if wanted else gc.disable)()
        try:
            assert run("render", model, cat, "--layer", "conv", "--out", out, "--tile", "9") == cli.DONE
            assert run("render", model, "nowhere.png", "--layer", "conv", "--out", out) == cli.FAILED
            assert gc.isenabled() is wanted
        finally:
            gc.enable()
    assert gc.get_freeze_count() <= frozen


def test_no_folder_for_temporary_files_is_one_line_that_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError("no usable one")

    monkeypatch.setattr(doctor, "run", refuse)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    for known, said in ((None, "Set TMPDIR to one that can."), ("/tmp", "FileNotFoundError: no usable one. Run again")):
        monkeypatch.setattr(tempfile, "tempdir", known)
        assert run("doctor") == cli.FAILED
        assert said in error_of(capsys)
