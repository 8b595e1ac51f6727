"""Closed streams and readers that left: never a traceback, and every sheet is whole."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import run

from cnnviz_fast.cli import main as cli
from cnnviz_fast.cli.streams import Lasting, lasting_streams


class Broken(io.StringIO):
    """A stream whose reader has left."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EBADF, "x"), ValueError("I/O on closed file")])
def test_lasting_drops_what_nobody_reads(error: Exception) -> None:
    stream = Lasting(Broken(error))
    assert stream.write("one") == 3
    assert stream.lost is error
    assert stream.write("two") == 3
    stream.flush()


def test_lasting_of_nothing_writes_nothing() -> None:
    stream = Lasting(None)
    assert stream.write("one") == 3
    stream.flush()
    assert not stream.isatty()
    assert stream.lost is None


def test_lasting_writes_names_that_are_no_text_as_their_bytes() -> None:
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding="utf-8"))
    stream.write("a\udcff.png\n")
    stream.flush()
    assert raw.getvalue() == b"a\xff.png\n"


@pytest.mark.parametrize(("platform", "encoding", "written"), [
    ("linux", "utf-8", "2 × 3 … \N{CJK UNIFIED IDEOGRAPH-6F22} café".encode()),
    ("linux", "ascii", "2 × 3 … \N{CJK UNIFIED IDEOGRAPH-6F22} café".encode()),  # as the names of its files are
    ("win32", "cp1252", b"2 \xd7 3 \x85 \\u6f22 caf\xe9"),
    ("win32", "ascii", b"2 \\xd7 3 \\u2026 \\u6f22 caf\\xe9"),
])  # fmt: skip
def test_lasting_writes_letters_that_the_stream_lacks(
    platform: str, encoding: str, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "platform", platform)
    text = "2 × 3 … \N{CJK UNIFIED IDEOGRAPH-6F22} café"
    assert stream.write(text) == len(text)
    stream.flush()
    assert stream.lost is None
    assert raw.getvalue() == written


def test_lasting_where_files_have_ascii_names_writes_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    stream.write("2 × 3")
    stream.flush()
    assert stream.lost is None
    assert raw.getvalue() == b"2 \\xd7 3"


def test_lasting_streams_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_streams():
        sys.stdout.write("dropped")
    assert sys.stdout is None


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_render_draws_all_sheets_for_a_reader_that_left(
    stream: str, model: str, cat: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cat.with_name("dog.png")
    second.write_bytes(cat.read_bytes())
    monkeypatch.setattr(sys, stream, Broken(BrokenPipeError()))
    code = run("render", model, cat, second, "--layer", "conv", "mean", "--out", out, "--tile", 9)
    assert code == (cli.FAILED if stream == "stdout" else cli.DONE)
    assert len(list(out.rglob("*.png"))) == 4


CLOSED = {
    "stdout": (">&-", 0), "stderr": ("2>&-", 0), "both": (">&- 2>&-", 0), "all": ("<&- >&- 2>&-", 0),
    "pipe": ("| true; exit ${PIPESTATUS[0]}", 1), "full": (">/dev/full", 1),
}  # fmt: skip


@pytest.mark.long
def test_render_with_closed_descriptors_writes_whole_sheets(model: str, cat: Path, out: Path) -> None:
    # All at once, since each takes a second to load torch.
    command = f"{sys.executable} -m cnnviz_fast render {model} {cat} --layer conv --tile 9 --out {out}"
    running = {
        name: subprocess.Popen(
            ["bash", "-c", f"{command}/{name} {end}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name, (end, _) in CLOSED.items()
    }
    for name, process in running.items():
        said, complained = (part.decode() for part in process.communicate())
        assert process.returncode == CLOSED[name][1], name
        assert "Traceback" not in complained, name
        assert "Exception ignored" not in complained, name
        with Image.open(out / name / "conv" / "cat.png") as sheet:
            sheet.load()
        assert json.loads((out / name / "conv" / "cat.json").read_text())["layer"] == "conv"
        if name == "full":
            assert complained.endswith("cnnviz: cannot write to stdout: No space left on device.\n")
        if name == "stderr":
            assert said == f"{out}/stderr/conv/cat.png\n"


def test_fill_closed_descriptors_keeps_them_from_files(tmp_path: Path) -> None:
    code = (
        "from cnnviz_fast.cli.streams import fill_closed_descriptors as fill; import os, sys; fill();"
        f"file = open({str(tmp_path / 'sheet')!r}, 'w'); print('said'); os.write(2, b'said');"
        "file.write(f'{file.fileno()} {os.get_inheritable(1)}')"
    )
    subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'], check=True)
    assert (tmp_path / "sheet").read_text() == "3 True"


@pytest.mark.parametrize("argv", [["--version"], ["render", "--help"], ["render", "--tlie"], ["doctor", "--json"]])
def test_commands_end_quietly_where_nobody_reads(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Broken(BrokenPipeError()))
    try:
        code = run(*argv)
    except SystemExit as exit_:
        code = exit_.code
    assert code in (cli.DONE, cli.USAGE, cli.FAILED)
