"""A notebook, made and executed here: what a user of Jupyter sees."""

from __future__ import annotations

import base64
import io
import pickle
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from support.assertions import assert_similar_image
from support.cases import noise
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.sheets.notebook import MOST_SHOWN, Sheets
from cnnviz_fast.sheets.sheet import NOTEBOOK_PX

MODEL = """
import torch
import cnnviz_fast as cf
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 7, stride=8), torch.nn.Conv2d(32, 128, 3, stride=2)).eval()
"""
CELLS = [
    MODEL,
    "sheets = cf.visualize(model, ['{photo}', '{photo}'], ['0', '1'], tile=160)\nlen(sheets)",
    "sheets[0]",
    "sheets[1]",
    "sheets",
]


@pytest.fixture(scope="module")
def executed(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the notebook after its cells ran in a kernel of their own."""
    cells = [new_code_cell(cell.replace("{photo}", str(photo))) for cell in CELLS]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    folder = str(tmp_path_factory.mktemp("notebook"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # nothing is left in the home folder
            patch.setenv(variable, folder)
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    nbformat.validate(notebook)
    return notebook


def shown_by(cell: Any) -> Image.Image:
    (output,) = cell.outputs
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))


@pytest.mark.long
@pytest.mark.parametrize(("cell", "layer"), [(2, "0"), (3, "1")])
def test_notebook_shows_a_sheet_of_at_most_2_megapixels(cell: int, layer: str, executed: Any, photo: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(MODEL, namespace)
    (sheet,) = cf.visualize(namespace["model"], photo, layer, tile=160)
    image = shown_by(executed.cells[cell])
    assert image.format == "PNG"
    assert image.width * image.height <= 2_000_000
    large = sheet.index.size > 2_000_000
    assert large == (layer == "1")
    expected = Image.fromarray(sheet.rgb()).resize(image.size, Image.Resampling.BOX) if large else sheet.pil()
    assert_similar_image(np.asarray(image.convert("RGB")), np.asarray(expected.convert("RGB")))


@pytest.mark.long
def test_notebook_visualize_returns_sheets_and_warns_of_nothing(executed: Any) -> None:
    (output,) = executed.cells[1].outputs
    assert output.output_type == "execute_result"
    assert output.data["text/plain"] == "4"
    (output,) = executed.cells[4].outputs
    assert output.data["text/html"].count("<img src=") == 4


def test_ipython_shows_sheets_as_images_and_their_list_as_html() -> None:
    """Its formatters are what a kernel asks what to show."""
    formats = DisplayFormatter(active_types=["text/plain", "image/png", "text/html"])
    for side, large in ((64, False), (1500, True)):
        sheet = cf.render(noise(1, 6, 6), tile=side, plain=True)
        shown, _ = formats.format(sheet)
        assert set(shown) == {"text/plain", "image/png"}
        with Image.open(io.BytesIO(shown["image/png"])) as image:
            assert image.width * image.height <= NOTEBOOK_PX == 2_000_000
            expected = Image.fromarray(sheet.rgb()).resize(image.size, Image.Resampling.BOX) if large else sheet.pil()
            assert_similar_image(np.asarray(image.convert("RGB")), np.asarray(expected.convert("RGB")))
    shown, _ = formats.format(Sheets([sheet, sheet]))
    assert set(shown) == {"text/plain", "text/html"}
    assert shown["text/html"].count("<img src=") == 2


def test_visualize_returns_a_list_that_shows_its_sheets() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    sheets = cf.visualize(net, [torch.zeros(3, 8, 8)] * 3, "0", tile=8)
    assert sheets == list(sheets)
    assert isinstance(sheets, list)
    html = sheets._repr_html_()
    assert (html.count("<img src="), html.count("<figcaption>0, image")) == (3, 3)
    assert sheets[1:]._repr_html_().count("<img src=") == 2
    assert sheets[1] is list(sheets)[1]
    assert pickle.loads(pickle.dumps(sheets[:0])) == []


def test_sheets_show_the_first_of_many_small_and_count_the_rest() -> None:
    sheet = cf.render(noise(4, 64, 64), scale=8, provenance=cf.Provenance(layer="<b>"))
    html = Sheets([sheet] * (MOST_SHOWN + 5))._repr_html_()
    images = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall(r"base64,([^\"]*)", html)]
    assert len(images) == MOST_SHOWN
    assert sum(image.width * image.height for image in images) <= NOTEBOOK_PX
    assert ("and 5 more" in html, "<b>" in html) == (True, False)
    assert Sheets()._repr_html_() == "no sheets"
