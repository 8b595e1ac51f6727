"""What the page reads: atlases and other payloads, whole, damaged, and as no package would write them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.assertions import FLOAT32, assert_close, assert_equal_planes, assert_within_half_a_level
from support.cases import CASES, noise
from support.looping import over
from support.viewer_walls import open_tab

from cnnviz_fast.formats.atlas import atlas_bytes, parse_atlas
from cnnviz_fast.provenance import Provenance

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GOOD = atlas_bytes(CASES["mixed"].maps, Provenance(layer="layer4"))


@pytest.fixture(scope="module")
def reader(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Return a tab that reads what tests hand to it."""
    tab = browser.new_page()
    yield open_tab(tab, tmp_path_factory.mktemp("reader"))
    tab.close()


def read(reader: Page, *packed: bytes, show: str = "atlas") -> Any:
    """Read atlases in the browser, and return what an expression makes of them, or the error."""
    program = f"""async (all) => {{
      try {{
        const [atlas, second] = await Promise.all(all.map((text) => cnnviz.decodeAtlas(bytesOf(text), "atlas 'a'")));
        return {show};
      }} catch (error) {{
        return `${{error.name}}: ${{error.message}}`;
      }}
    }}"""
    return reader.evaluate(program, [base64.b64encode(each).decode() for each in packed])


def lists(name: str) -> str:
    columns = ("index", "vmin", "vmax", "mean", "std", "zeros")
    return "{" + ", ".join(f"{column}: Array.from({name}.{column})" for column in columns) + "}"


def test_atlas_is_what_the_package_reads(reader: Page) -> None:
    atlas = parse_atlas(GOOD, "a")
    found = read(reader, GOOD, show=f"[{lists('atlas')}, atlas.channels, atlas.height, atlas.width, atlas.provenance]")
    columns, *shape, provenance = found
    assert shape == [8, 3, 4]
    assert provenance["layer"] == "layer4"
    assert_equal_planes(np.array(columns["index"], np.uint8), atlas.index.flatten().numpy())
    expected = {"mean": atlas.statistics.mean, "std": atlas.statistics.std, "vmin": atlas.vmin, "vmax": atlas.vmax}
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(columns[name], np.float32), values.float().numpy())
    assert columns["zeros"] == (atlas.statistics.zeros * 12).int().tolist()


def test_maps_that_an_atlas_keeps_in_float16_are_left_out(reader: Page) -> None:
    maps = CASES["plain"].maps.half()
    packed = atlas_bytes(maps, Provenance(), unrounded=True)  # as runs keep heat maps
    assert read(reader, packed, show="Array.from(atlas.index)") == parse_atlas(packed, "a").index.flatten().tolist()


def test_values_are_those_that_the_package_restores(reader: Page) -> None:
    atlas = parse_atlas(GOOD, "a")
    cells = "Array.from(atlas.index, (_, i) => cnnviz.value(atlas, Math.floor(i / 12), Math.floor(i / 4) % 3, i % 4))"
    np.testing.assert_array_equal(np.array(read(reader, GOOD, show=cells), np.float32), atlas.maps.flatten().numpy())


def test_difference_keeps_half_a_level_and_the_extremes(reader: Page) -> None:
    a, b = noise(4, 5, 6), noise(4, 5, 6).exp()
    a[0, 0, 0], b[1] = torch.inf, a[1] + 1
    packed = [atlas_bytes(maps, Provenance()) for maps in (a, b)]
    change = parse_atlas(packed[1], "b").maps - parse_atlas(packed[0], "a").maps
    found = read(reader, *packed, show=lists("cnnviz.difference(atlas, second)"))
    finite = change.double().numpy()
    finite[~np.isfinite(finite)] = np.nan
    index = np.array(found["index"]).reshape(4, 5, 6)
    low, high = (np.array(found[name], np.float64) for name in ("vmin", "vmax"))
    restored = low[:, None, None] + (high - low)[:, None, None] * index / 252
    assert_within_half_a_level(restored.astype(np.float32), finite, (low, high), 253)
    assert index[0, 0, 0] == 254  # minus infinity
    np.testing.assert_array_equal(low, np.nanmin(finite, axis=(1, 2)))
    np.testing.assert_array_equal(high, np.nanmax(finite, axis=(1, 2)))
    assert_close(np.array(found["mean"]), np.nanmean(finite, axis=(1, 2)), FLOAT32)
    assert_close(np.array(found["std"]), np.nanstd(finite, axis=(1, 2)), FLOAT32)


def unpacked() -> tuple[dict[str, Any], bytes]:
    """Return the header of an atlas and the bytes of its tensors."""
    plain = zlib.decompress(GOOD)
    end = 8 + int.from_bytes(plain[:8], "little")
    return json.loads(plain[8:end]), plain[end:]


def packed_with(change: Callable[[dict[str, Any]], None], more: bytes = b"") -> bytes:
    """Return an atlas of another header, with bytes behind its tensors."""
    header, body = unpacked()
    change(header)
    text = json.dumps(header).encode()
    return zlib.compress(len(text).to_bytes(8, "little") + text + body + more)


def record_with(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        record = json.loads(header["__metadata__"]["cnnviz_fast"]) | fields
        header["__metadata__"]["cnnviz_fast"] = json.dumps(record)

    return change


def entry_with(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(fields)


DAMAGED = {
    "empty": (b"", "is empty (0 bytes)"),
    "text": (b"<html>not found</html>", "does not inflate"),
    "cut_in_the_header": (GOOD[:40], "cut off"),
    "cut_at_the_end": (GOOD[:-1], "cut off"),
    "followed": (GOOD + b"more", "does not inflate"),
    "changed": (GOOD[:200] + bytes([GOOD[200] ^ 0xFF]) + GOOD[201:], "damaged"),
    "a_few_bytes": (zlib.compress(b"abc"), "holds less than its header says"),
    "no_header": (zlib.compress(b"\xff" * 64), "it has no header"),
    "header_is_no_json": (zlib.compress((8).to_bytes(8, "little") + b"[1, 2, x"), "its header is not JSON"),
    "header_is_a_list": (zlib.compress((8).to_bytes(8, "little") + b"[1, 2]  "), "its header is not JSON"),
    "no_record": (packed_with(lambda header: header.pop("__metadata__")), "is not an atlas: it holds other tensors"),
    "record_is_no_json": (
        packed_with(lambda header: header["__metadata__"].update(cnnviz_fast="{")),
        "its record is not JSON",
    ),
    "statistics": (packed_with(record_with(format="statistics")), "is not an atlas: it holds other tensors"),
    "newer": (packed_with(record_with(version=2)), "must be of version 1 at most, got 2. Install a newer cnnviz_fast."),
    "holds_more": (packed_with(lambda header: None, b"0" * 100_000), "holds more than its header says"),
    "holds_less": (packed_with(entry_with("index", data_offsets=[160, 2000])), "holds less than its header says"),
    "claims_a_terabyte": (
        packed_with(entry_with("index", data_offsets=[160, 2**40])),
        "must hold at most 1073741824 bytes",
    ),
    "claims_more_than_a_number_holds": (packed_with(entry_with("index", data_offsets=[0, 1e300])), "where tensors lie"),
    "shape_of_another_size": (packed_with(entry_with("index", shape=[8, 3, 5])), "does not say what index is"),
    "negative_shape": (packed_with(entry_with("index", shape=[-8, -3, 4])), "does not say what index is"),
    "shape_is_text": (packed_with(entry_with("index", shape="834")), "does not say what index is"),
    "dtype_of_others": (packed_with(entry_with("index", dtype="BOOL")), "index must be (C, H, W) uint8"),
    "flat_index": (packed_with(entry_with("index", shape=[96])), "index must be (C, H, W) uint8"),
    "column_of_another_dtype": (packed_with(entry_with("vmin", dtype="I32")), "vmin must have one entry for each"),
    "column_of_another_shape": (
        packed_with(entry_with("mean", shape=[2, 4])),
        "mean must have one entry for each",
    ),
    "no_column": (packed_with(lambda header: header.pop("std")), "std must have one entry for each"),
    "entry_is_null": (packed_with(lambda header: header.update(vmax=None)), "where tensors lie"),
}


@over("name", DAMAGED)
def test_damaged_atlases_are_refused_by_name(reader: Page, name: str) -> None:
    packed, reason = DAMAGED[name]
    error = read(reader, packed)
    assert error.startswith("DamagedError: atlas 'a' ")
    assert reason in error


def test_payloads_of_a_folder_come_from_its_scripts(tab: Page, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 3
    first, *others = (base64.b64encode(payload[at : at + 300]).decode() for at in (0, 300, 600))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a-0-0-0.js").write_text(f'cnnviz.put("a-0-0-0", "{first}", 0, 3); cnnviz.put("b", "AAAA")')
    for part, text in enumerate(others, 1):
        (tmp_path / "data" / f"a-0-0-0.{part}.js").write_text(f'cnnviz.put("a-0-0-0", "{text}", {part}, 3)')
    (tmp_path / "data" / "wrong.js").write_text('cnnviz.put("right", "AAAA")')
    open_tab(tab, tmp_path, store="scripts")
    tab.evaluate(
        """() => {
          const payloads = new cnnviz.Payloads("scripts");
          globalThis.read = (key) => payloads.bytes(key).then((bytes) => [...bytes], (error) => error.message);
        }"""
    )
    assert tab.evaluate("read('a-0-0-0')") == list(payload)
    assert tab.evaluate("Promise.all(['a-0-0-0', 'a-0-0-0'].map(read))") == [list(payload)] * 2  # again, and together
    assert tab.evaluate("read('b')") == [0, 0, 0]
    assert tab.evaluate("read('wrong')") == "data/wrong.js does not hold wrong."
    assert tab.evaluate("read('none')") == "data/none.js is missing. The folder has to be copied as a whole."


def test_payloads_of_a_page_lie_in_it(reader: Page) -> None:
    shown = reader.evaluate(
        """async () => {
          const block = document.createElement("script");
          [block.type, block.id, block.textContent] = ["text/plain", "p-0-0", "AAEC\\n/w=="];
          document.body.append(block);
          const payloads = new cnnviz.Payloads("inline");
          const bytes = async () => [...await payloads.bytes("p-0-0")];
          const said = (key) => payloads.bytes(key).catch((error) => error.message);
          const found = [await bytes(), await said("p-0-1")];
          block.textContent = "AAE%";
          return [...found, await said("p-0-0")];
        }"""
    )
    damaged = "this page is damaged: a part of it is no base64."
    assert shown == [[0, 1, 2, 255], "the page holds no p-0-1.", damaged]
