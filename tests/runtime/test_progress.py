"""The bar over images: it shows on a terminal, and writes nothing elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
import torch

import cnnviz_fast as cf
from cnnviz_fast.runtime.progress import with_bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("items", [[], [1], [1, 2, 3]])
def test_with_bar_gives_the_items_and_is_silent_without_a_terminal(
    items: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(with_bar(items, "image")) == items
    assert capsys.readouterr() == ("", "")


def test_with_bar_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(with_bar("abc", "image")) == ["a", "b", "c"]
    assert "/3 [" in terminal.getvalue()
    assert "image" in terminal.getvalue()


def test_with_bar_one_item_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(with_bar(["a"], "image")) == ["a"]
    assert sys.stderr.getvalue() == ""


def test_visualize_several_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2
    assert len(cf.visualize(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), images, "0", tile=9)) == 2
    assert "/2 [" in sys.stderr.getvalue()
