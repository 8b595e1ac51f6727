"""Atlases: what comes back of the maps, how small the files are, and files that are not what they should be."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from support.assertions import (
    assert_equal_planes,
    assert_plane_within_a_level,
    assert_same_floats,
    assert_same_plane,
    assert_same_range,
    assert_within_half_a_level,
)
from support.cases import CASES, INF, NAN, noise
from support.looping import over
from support.plain import render
from support.processes import Python

import cnnviz_fast as cf
from cnnviz_fast.errors import AtlasError, CnnvizError, DTypeError, EncodeError, OptionError, ShapeError, WriteError
from cnnviz_fast.formats import safetensors as container
from cnnviz_fast.formats.atlas import LEVELS, atlas_bytes, parse_atlas
from cnnviz_fast.formats.atlas_head import VERSION, read_head
from cnnviz_fast.kernels import backends

SOURCE = cf.Provenance("resnet50", "none", "layer4.2", 'tab\t"quoted" \udcff/Straße.jpg', "tokens", 1, 3)


def widened(maps: Any) -> NDArray[np.float32]:
    """Return maps as a case has them, as (C, H, W) float32."""
    with np.errstate(over="ignore"):
        return np.asarray(maps.detach().float() if isinstance(maps, torch.Tensor) else maps).astype(np.float32)


def there_and_back(maps: Any, provenance: cf.Provenance = SOURCE) -> cf.Atlas:
    return parse_atlas(atlas_bytes(maps, provenance), "x.atlas")


def as_documented(packed: bytes) -> NDArray[np.float32]:
    """Rebuild maps as the head of the module says that a foreign program does."""
    t = safetensors.numpy.load(zlib.decompress(packed))
    low, high = (t[end].astype("float64")[:, None, None] for end in ("vmin", "vmax"))
    with np.errstate(over="ignore"):  # of what is not finite, which is not looked at
        maps = (low * (1 - t["index"] / 252) + high * (t["index"] / 252)).astype(np.float32)
    return np.select([t["index"] == 253, t["index"] == 254, t["index"] == 255], [NAN, -INF, INF], maps).astype("f4")


def packed_with(record: Any = None, **changed: Any) -> bytes:
    """Return the bytes of an atlas with other tensors (None for one left out) or another record."""
    maps = atlas_bytes(noise(2, 3, 4), cf.Provenance())
    tensors, own = container.unpack(maps, "")
    kept = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    return container.pack(kept, own if record is None else own | record)


@over("name", CASES)
def test_read_atlas_values_come_back_within_half_a_level(name: str, tmp_path: Path) -> None:
    expected = widened(CASES[name].maps)
    path = cf.save_atlas(CASES[name].maps, tmp_path / "x.atlas", provenance=SOURCE)
    atlas = cf.read_atlas(path)
    actual = atlas.maps.numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, as_documented(path.read_bytes()))

    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])  # NaN, and infinities of either sign
    wide = np.where(finite, expected, np.nan).astype(np.float64)
    low, high = (np.full(len(wide), nothing) for nothing in (np.nan, np.nan))
    for c in np.flatnonzero(finite.any(axis=(1, 2))):
        low[c], high[c] = np.nanmin(wide[c]), np.nanmax(wide[c])
        assert actual[c][finite[c]].min() == low[c]
        assert actual[c][finite[c]].max() == high[c]
    assert_same_range((atlas.vmin, atlas.vmax), (low.astype(np.float32), high.astype(np.float32)))
    assert_within_half_a_level(actual, wide, (low, high), LEVELS)


@over("name", [name for name in CASES if name != "huge"])  # whose channels numpy takes one by one
def test_read_atlas_statistics_are_those_of_the_maps(name: str) -> None:
    maps = widened(CASES[name].maps)
    statistics = there_and_back(CASES[name].maps).statistics
    values = maps.reshape(len(maps), -1).astype(np.float64)
    for c, channel in enumerate(values):
        finite = channel[np.isfinite(channel)]
        if len(finite):
            found = torch.stack([statistics.mean[c], statistics.std[c]]) / max(1.0, np.abs(finite).max())
            expected = np.array([finite.mean(), finite.std()]) / max(1.0, np.abs(finite).max())
            assert_same_floats(found.float(), expected)
        else:
            assert statistics.mean[c].isnan()
            assert statistics.std[c].isnan()
    np.testing.assert_array_equal(statistics.zeros, (values == 0).mean(axis=1))
    np.testing.assert_array_equal(statistics.nan, np.isnan(values).sum(axis=1))
    np.testing.assert_array_equal(statistics.inf, np.isinf(values).sum(axis=1))
    for field in dataclasses.fields(statistics):
        assert getattr(statistics, field.name).dtype == {"v": torch.float32, "n": torch.int64, "i": torch.int64}.get(
            field.name[0], torch.float64
        )


@over("name", CASES)
def test_atlas_of_an_atlas_is_the_same(name: str) -> None:
    first = there_and_back(CASES[name].maps)
    second = there_and_back(first.maps)
    assert_equal_planes(second.index.flatten(1), first.index.flatten(1))
    assert_same_range((second.vmin, second.vmax), (first.vmin, first.vmax))


@over("name", CASES)
def test_atlas_that_keeps_its_maps_gives_them_back_to_the_last_bit(name: str) -> None:
    maps = torch.from_numpy(widened(CASES[name].maps))
    packed = atlas_bytes(maps, SOURCE, unrounded=True)
    atlas = parse_atlas(packed, "x.atlas")
    np.testing.assert_array_equal(atlas.maps.numpy(), maps.numpy())
    plain = there_and_back(maps)
    assert_equal_planes(atlas.index.flatten(1), plain.index.flatten(1))
    np.testing.assert_array_equal(plain.maps.numpy(), as_documented(packed))  # as those read it who know nothing of it


@pytest.mark.parametrize("backend", ["reference", "torch", "numba", "native"])
def test_atlas_index_is_the_same_of_every_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = CASES["mixed"].maps
    v = (maps[0].double() - maps[0].min()) / (maps[0].max() - maps[0].min()).double()
    small = dataclasses.replace(backends.BACKENDS[backend], strip_px=20)  # one map and a bit: several strips
    monkeypatch.setattr(backends, "choose", lambda name, device: small)
    index = there_and_back(maps).index
    monkeypatch.undo()
    assert_same_plane(index.flatten(1), there_and_back(maps).index.flatten(1), levels=LEVELS)
    assert_same_plane(index[0], (v * 252 + 0.5).floor().to(torch.uint8), levels=LEVELS)


@pytest.mark.gpu
def test_atlas_of_maps_on_cuda_is_the_same() -> None:
    for name in ("mixed", "huge", "plain"):
        maps = CASES[name].maps
        there, here = there_and_back(maps.cuda()), there_and_back(maps)
        assert_same_plane(there.index.flatten(1), here.index.flatten(1), levels=LEVELS)
        assert_same_range((there.vmin, there.vmax), (here.vmin, here.vmax))


DRAWINGS = {
    "native size": {"scale": 1},
    "enlarged": {"tile": (37, 53)},
    "corners": {"tile": 224, "align": "corners"},
    "nearest": {"tile": 19, "upsampling": "nearest"},
    "smaller": {"tile": (3, 4)},
    "on the layer's range": {"normalize": "layer", "tile": 40},
    "around zero": {"normalize": "symmetric", "tile": 40},
    "some of them": {"channels": "1,0", "tile": 40, "gap": 2},
}


@over("name", ["plain", "mixed", "infinities", "half", "largest_range", "subnormal", "one_row"])
@pytest.mark.parametrize("drawing", DRAWINGS)
def test_render_from_an_atlas_is_within_a_level_of_the_direct_sheet(name: str, drawing: str) -> None:
    options: dict[str, Any] = {"colormap": "gray", **DRAWINGS[drawing]}
    maps = CASES[name].maps
    direct = render(maps, **options)
    again = render(there_and_back(maps).maps, **options)
    assert again.colors.levels == direct.colors.levels
    assert_plane_within_a_level(again.index, direct.index, levels=direct.colors.levels)
    for ours, theirs in zip(again.manifest["tiles"], direct.manifest["tiles"], strict=True):
        exact = ("channel", "box", "vmin", "vmax", "min", "max", "nan", "inf", "flags")
        assert [ours[key] for key in exact] == [theirs[key] for key in exact]


@over("name", ["plain", "mixed", "half", "flat", "one_pixel", "single_channel", "largest_range"])
def test_render_from_an_atlas_at_its_own_levels_and_size_is_the_direct_sheet(name: str) -> None:
    maps = CASES[name].maps
    options: dict[str, Any] = {"scale": 1, "levels": LEVELS, "background": 255, "bad": 254}
    assert_equal_planes(cf.render_index(there_and_back(maps).maps, **options), cf.render_index(maps, **options))


def test_render_from_an_atlas_ranks_and_reports_as_the_direct_sheet() -> None:
    maps = noise(20, 7, 7).relu() * torch.arange(20.0)[:, None, None]
    options: dict[str, Any] = {"tile": 9, "topk": 5, "rank": "max", "report": True}
    direct, again = render(maps, **options).manifest, render(there_and_back(maps).maps, **options).manifest
    assert [tile["channel"] for tile in again["tiles"]] == [tile["channel"] for tile in direct["tiles"]]
    for kind in ("dead", "flat", "nonfinite", "min", "max", "ranges"):
        assert again["report"][kind] == direct["report"][kind]


def test_save_atlas_takes_about_100_kb_for_2048_maps() -> None:
    assert len(atlas_bytes(noise(2048, 7, 7).relu(), SOURCE)) < 100_000
    assert len(atlas_bytes(noise(2048, 7, 7), SOURCE)) < 132_000  # noise cannot be deflated: 2048 * (49 + 16) = 133,120
    assert len(atlas_bytes(torch.zeros(2048, 7, 7), SOURCE)) < 3_000


@pytest.mark.parametrize(("channels", "side"), [(16, 112), (64, 28), (512, 7)])
def test_atlas_by_the_native_module_is_hardly_larger_than_by_zlib(channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.avg_pool2d(torch.randn(1, 3, side + 6, side + 6, generator=generator), 3, 1)
    kernels = torch.randn(channels, 3, 5, 5, generator=generator)
    packed = atlas_bytes(torch.nn.functional.conv2d(image, kernels).relu()[0], cf.Provenance())
    deflater = zlib.compressobj(1, strategy=zlib.Z_RLE)
    assert len(packed) < 1.05 * len(deflater.compress(zlib.decompress(packed)) + deflater.flush())


def test_save_atlas_gives_the_same_bytes_every_time() -> None:
    maps = noise(5, 4, 3)
    assert len({atlas_bytes(maps.clone(), dataclasses.replace(SOURCE)) for _ in range(20)}) == 1


def test_save_atlas_vector_keeps_values_and_names_of_classes(tmp_path: Path) -> None:
    vector, names = noise(12), tuple(f"class {i}" for i in range(12))
    path = cf.save_atlas(vector, tmp_path / "x.atlas", provenance=cf.Provenance(layer="fc", categories=names))
    atlas = cf.read_atlas(path)
    assert torch.equal(atlas.maps[:, 0, 0], vector)
    direct = render(vector, provenance=cf.Provenance(categories=names))
    assert render(atlas.maps, provenance=atlas.provenance).manifest["strongest"] == direct.manifest["strongest"]
    assert there_and_back(noise(12, 2, 2), cf.Provenance(categories=names)).provenance.categories is None


def test_read_atlas_says_where_the_maps_came_from(tmp_path: Path) -> None:
    path = cf.save_atlas(noise(2, 3, 4).half(), tmp_path / "x.atlas", provenance=SOURCE)
    atlas = cf.read_atlas(str(path))
    assert atlas.provenance == dataclasses.replace(SOURCE, atlas=str(path))
    assert atlas.dtype == "float16"
    plain = cf.Provenance(layer="conv1", atlas=str(path))
    assert render(atlas.maps, tile=9, provenance=plain).manifest["atlas"] == str(path)
    assert cf.read_atlas(cf.save_atlas(noise(1, 1, 1), path)).provenance == cf.Provenance(atlas=str(path))


def test_save_atlas_refuses_what_is_no_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match=r"maps must have shape \(C, H, W\), got \(2, 2, 3, 4\)"):
        cf.save_atlas(noise(2, 2, 3, 4), tmp_path / "x.atlas")
    with pytest.raises(DTypeError, match="complex64"):
        cf.save_atlas(torch.zeros(2, 3, 4, dtype=torch.complex64), tmp_path / "x.atlas")
    with pytest.raises(WriteError, match=r"cannot write .*No such file"):
        cf.save_atlas(noise(2, 3, 4), tmp_path / "nowhere" / "x.atlas")
    monkeypatch.setattr(container, "MOST_BYTES", 500)
    with pytest.raises(EncodeError, match=r"an atlas holds at most 500 bytes, got .* Choose fewer channels"):
        cf.save_atlas(noise(2, 3, 4), tmp_path / "x.atlas")
    monkeypatch.setattr(container, "MOST_BYTES", 2**30)
    monkeypatch.setattr(container, "MOST_HEADER_BYTES", 2**10)
    with pytest.raises(EncodeError):
        cf.save_atlas(noise(2, 3, 4), tmp_path / "x.atlas", provenance=cf.Provenance(image="x" * 2000))
    assert list(tmp_path.iterdir()) == []


def test_read_atlas_older_record_with_a_layout_has_it_as_axes() -> None:
    old = {"model": "torchvision:vit_b_16", "layer": "encoder.ln", "layout": "tokens", "prefix_tokens": 1}
    read = parse_atlas(packed_with({"source": old}), "a.atlas").provenance
    assert (read.layer, read.axes, read.prefix_tokens) == ("encoder.ln", "tokens", 1)
    both = {"layout": "nhwc", "axes": "nchw"}
    assert parse_atlas(packed_with({"source": both}), "a.atlas").provenance.axes == "nchw"
    assert "axes of its source must be of type str" in refused(packed_with({"source": {"layout": 5}}))


def refused(packed: bytes) -> str:
    """Return the message for bytes that are not an atlas: one line that names the file."""
    with pytest.raises(CnnvizError) as caught:
        parse_atlas(packed, "a.atlas")
    assert type(caught.value) is AtlasError
    message = str(caught.value)
    assert message.startswith("atlas 'a.atlas' ")
    assert "\n" not in message
    return message


def test_read_atlas_cut_off_anywhere_is_refused() -> None:
    whole = atlas_bytes(noise(2, 3, 4), SOURCE)
    for size in range(len(whole)):
        refused(whole[:size])
    assert "cut off" in refused(whole[:-1])
    assert "something follows" in refused(whole + b"\0")
    assert "empty" in refused(b"")


def test_read_atlas_with_any_bit_changed_is_refused() -> None:
    whole = atlas_bytes(noise(2, 3, 4), SOURCE)
    plain, unused = zlib.decompress(whole), 0
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert zlib.decompress(damaged) == plain  # one of those that fill a byte
            unused += 1
        except zlib.error:
            refused(bytes(damaged))
    assert unused < 16  # before what is stored, and before the checksum


def test_read_atlas_of_a_damaged_plain_file_is_refused_or_an_atlas() -> None:
    plain = zlib.decompress(atlas_bytes(noise(2, 3, 4), SOURCE))
    generator, taken = random.Random(0), 0
    for _ in range(3000):
        damaged = bytearray(plain)
        for _ in range(generator.choice((1, 1, 2, 8))):
            damaged[generator.randrange(len(plain))] = generator.randrange(256)
        try:
            atlas = parse_atlas(zlib.compress(bytes(damaged)), "a.atlas")
        except AtlasError:
            continue
        taken += 1  # a value that is another one, or a letter of the source
        assert atlas.maps.shape == (2, 3, 4)
    assert 0 < taken < 3000


def header(text: str, rest: bytes = b"") -> bytes:
    return zlib.compress(len(text).to_bytes(8, "little") + text.encode() + rest)


RECORD = json.dumps({"cnnviz_fast": "{}"})
COLUMN = torch.zeros(2)

FOREIGN = {
    "text": (b"no atlas", "is not an atlas, or damaged: it does not inflate"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "it does not inflate"),
    "deflated text": (zlib.compress(b"no atlas at all"), "in its header"),
    "deflated zeros": (zlib.compress(bytes(99)), "in its header"),
    "no header": (header("[]"), "in its header"),
    "deep header": (header("[" * 100_000), "ValueError in its header"),
    "no record": (header('{"__metadata__": {}}'), "KeyError in its header"),
    "no tensors": (header(f'{{"__metadata__": {RECORD}}}'), "in its header"),
    "odd offsets": (header(f'{{"__metadata__": {RECORD}, "x": {{"data_offsets": [0, "9"]}}}}'), "TypeError"),
    "negative offset": (header(f'{{"__metadata__": {RECORD}, "x": {{"data_offsets": [0, -9]}}}}'), "cut off"),
    "endless": (header(f'{{"__metadata__": {RECORD}, "x": {{"data_offsets": [0, 1e400]}}}}'), "at most 1,073,741,824"),
    "claims a terabyte": (
        header(f'{{"__metadata__": {RECORD}, "x": {{"data_offsets": [0, {10**12}]}}}}'),
        "must hold at most 1,073,741,824 bytes, got 1,000,000,000,",
    ),
    "other tensors": (container.pack({"index": COLUMN}, {}), "is not an atlas: it holds other tensors"),
    "maps": (container.pack({"index": COLUMN}, {"format": "maps"}), "is not an atlas: it holds other tensors"),
    "odd version": (packed_with({"version": "1"}), "is not an atlas: it holds other tensors"),
    "newer": (
        packed_with({"version": VERSION + 1}),
        f"must be of version {VERSION} at most, got {VERSION + 1}. Install a newer cnnviz_fast.",
    ),
    "no index": (packed_with(index=None), "index must be (C, H, W) uint8"),
    "index of floats": (packed_with(index=torch.zeros(2, 3, 4)), "index must be (C, H, W) uint8"),
    "flat index": (packed_with(index=torch.zeros(2, 12, dtype=torch.uint8)), "index must be (C, H, W) uint8"),
    "empty index": (packed_with(index=torch.zeros(2, 0, 4, dtype=torch.uint8)), "index must be (C, H, W) uint8"),
    "maps of another shape": (packed_with(maps=torch.zeros(2, 3, 5)), "maps must have the shape of index, (2, 3, 4)"),
    "no mean": (packed_with(mean=None), "mean must be (2,) float32"),
    "short range": (packed_with(vmax=COLUMN[:1]), "vmax must be (2,) float32"),
    "zeros as shares": (packed_with(zeros=COLUMN), "zeros must be (2,) int32"),
    "source a text": (packed_with({"source": "cat.jpg"}), "is not an atlas: it holds other tensors"),
    "source of lists": (packed_with({"source": {"layer": ["conv1"]}}), "layer of its source must be of type str"),
    "source of texts": (packed_with({"source": {"time_step": "2"}}), "time_step of its source must be of type int"),
}  # fmt: skip


@over("name", FOREIGN)
def test_read_atlas_of_another_file_says_what_is_wrong(name: str) -> None:
    packed, said = FOREIGN[name]
    assert said in refused(packed)


def test_read_atlas_missing_or_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"atlas '.*absent\.atlas' cannot be read: No such file"):
        cf.read_atlas(tmp_path / "absent.atlas")
    with pytest.raises(AtlasError, match="cannot be read: Is a directory"):
        cf.read_atlas(tmp_path)


def test_read_atlas_of_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.atlas")
    for path, kind in ((tmp_path / "pipe.atlas", "pipe"), ("/dev/zero", "device")):
        with pytest.raises(AtlasError, match=rf"cannot be read: it must be a regular file, but is a {kind}\.$"):
            cf.read_atlas(path)


def test_read_atlas_takes_little_more_memory_than_the_atlas_holds(tmp_path: Path) -> None:
    """Dead layers deflate a thousandfold, so a small file may truly hold much."""
    maps = torch.zeros(256, 256, 256)
    path = cf.save_atlas(maps, tmp_path / "dead.atlas")
    assert path.stat().st_size < maps.numel() / 900
    code = f"""
import resource, sys
import cnnviz_fast as cf
cf.render(cf.read_atlas(sys.argv[2]).maps, tile=4, plain=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cf.read_atlas(sys.argv[1]).maps
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / {maps.numel()})
"""
    small = cf.save_atlas(torch.rand(4, 8, 8), tmp_path / "small.atlas")
    with Python("-c", code, str(path), str(small)) as reading:
        assert reading.end() == 0, reading.said
    assert float(reading.printed) < 7  # 1 byte a value of the index and 4 of the maps; before, 12 at the least


def test_read_atlas_takes_a_source_of_a_later_version_of_its_form() -> None:
    atlas = parse_atlas(packed_with({"source": {"layer": "conv1", "weather": "fine"}, "mood": 7}), "a.atlas")
    assert atlas.provenance == cf.Provenance(layer="conv1", atlas="a.atlas")


def test_read_atlas_inflates_no_more_than_its_header_announces() -> None:
    plain = zlib.decompress(atlas_bytes(noise(2, 3, 4), SOURCE))
    deflater, file = zlib.compressobj(1), io.BytesIO()
    file.write(deflater.compress(plain))
    for _ in range(200):
        file.write(deflater.compress(bytes(2**20)))
    file.write(deflater.flush())
    tracemalloc.start()
    try:
        assert "something follows" in refused(file.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 4 * container.MOST_HEADER_BYTES < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_read_head_layer_is_the_layer_of_the_atlas() -> None:
    packed = atlas_bytes(noise(2, 3, 4), dataclasses.replace(SOURCE, time_step=None))
    assert read_head(packed, "a.atlas").layer == "layer4.2"
    assert read_head(atlas_bytes(noise(2, 3, 4), SOURCE), "a.atlas").layer == "layer4.2@t3"
    assert read_head(atlas_bytes(noise(2, 3, 4), cf.Provenance()), "a.atlas").layer is None
    names = [f"class {n}" for n in range(5000)]
    packed = atlas_bytes(noise(5000, 1, 1), cf.Provenance(layer="fc", categories=names))
    assert read_head(packed, "a.atlas").layer == "fc"


def test_read_head_of_another_file_is_none_or_refused() -> None:
    whole = atlas_bytes(noise(2, 3, 4), SOURCE)
    for packed in (*(packed for packed, _ in FOREIGN.values()), *(whole[:size] for size in range(len(whole)))):
        with contextlib.suppress(AtlasError):
            assert read_head(packed, "a.atlas").layer in (None, "layer4.2@t3")


def test_read_head_of_a_header_without_end_inflates_no_more_than_a_header_may_have() -> None:
    packed = zlib.compress((2**60).to_bytes(8, "little") + bytes(200 * 2**20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(AtlasError, match="in its header"):
            read_head(packed, "a.atlas")
        assert tracemalloc.get_traced_memory()[1] < 8 * container.MOST_HEADER_BYTES < 100 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", [0, True, None, b"a.atlas"])
def test_atlas_at_what_is_no_path_is_refused(path: Any, maps: torch.Tensor) -> None:
    # A number would be a file of the process, which reading would close.
    for call in (lambda: cf.read_atlas(path), lambda: cf.save_atlas(maps, path), lambda: cf.read_statistics(path)):
        with pytest.raises(OptionError, match=r"^path must be a path, got "):
            call()
