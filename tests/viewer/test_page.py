"""Pages: what is in them, what may not be, and what is refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.testing import assert_array_equal as assert_equal
from PIL import Image
from support.assertions import TWO_LEVELS, close_to
from support.runs import make_images, small_model
from support.viewer_pages import catalogue_in, payload_in

import cnnviz_fast as cf
from cnnviz_fast.errors import AtlasError, OptionError, ShapeError, WriteError
from cnnviz_fast.formats.atlas import parse_atlas
from cnnviz_fast.pipeline import name_images
from cnnviz_fast.viewer import html, page
from cnnviz_fast.viewer.collection import Collection
from cnnviz_fast.viewer.looking import look
from cnnviz_fast.viewer.memory import MemoryRun
from cnnviz_fast.viewer.opening import open_collection
from cnnviz_fast.viewer.page import write_page
from cnnviz_fast.viewer.payloads import kernels_payload, similarity_payload
from cnnviz_fast.viewer.photos import Photos

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 \u202e \x00 \ud800 &amp; '\"` ]]>"


def tensors_in(payload: bytes) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(zlib.decompress(payload))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five photos, and runs over them: atlases in files, and with all else in tars."""
    folder = tmp_path_factory.mktemp("viewer")
    make_images(folder / "photos", 5)
    model = small_model()
    for name, more in (("loose", {}), ("tars", {"shards": 1})):
        save = "atlases,statistics,top" if more else "atlases"
        cf.run(model, str(folder / "photos"), ["0", "2"], folder / name, save=save, readers=0, progress="none", **more)
    return folder


def test_page_of_maps_holds_their_atlases_byte_for_byte(tmp_path: Path, maps: torch.Tensor) -> None:
    origin = cf.Provenance(model="net", layer="conv", image="cat.png")
    path = cf.save_page(maps, tmp_path / "page.html", provenance=origin)
    atlas = cf.save_atlas(maps, tmp_path / "a.atlas", provenance=origin)
    assert payload_in(path, "a-0-0-0") == atlas.read_bytes()
    (run,) = catalogue_in(path)["runs"]
    assert [layer["name"] for layer in run["layers"]] == ["conv"]
    assert [run["layers"][0][name] for name in ("channels", "height", "width")] == [6, 5, 7]
    assert run["images"][0]["name"] == "cat.png"
    assert run["command"]["shell"] == "cnnviz render net {image} --layer {layer}{options}"


def test_page_of_captured_layers_has_every_image_and_its_photo(tmp_path: Path) -> None:
    batch = torch.rand(2, 3, 24, 24)
    captured = cf.capture(small_model(), batch, ["0", "2"])
    photos = [Image.new("RGB", (24, 20), color) for color in ("red", "blue")]
    path = cf.save_page(captured, tmp_path / "page.html", photos=photos, title="two", similarity=True)
    catalogue = catalogue_in(path)
    assert catalogue["title"] == "two"
    (run,) = catalogue["runs"]
    assert [layer["name"] for layer in run["layers"]] == ["0", "2"]
    assert [(image["width"], image["height"]) for image in run["images"]] == [(24, 20)] * 2
    assert payload_in(path, "p-0-1").startswith(b"\xff\xd8")
    for n in (0, 1):
        atlas = tmp_path / "one.atlas"
        atlas.write_bytes(payload_in(path, f"a-0-1-{n}"))
        assert_equal(cf.read_atlas(atlas).vmax, captured["2"][n].amax((1, 2)))
    order = tensors_in(payload_in(path, run["layers"][1]["similarity"]))
    assert sorted(order["order"]) == list(range(10))


def test_page_lets_no_name_out_of_its_data(tmp_path: Path, maps: torch.Tensor) -> None:
    origin = cf.Provenance(model=HOSTILE, layer=HOSTILE, image=HOSTILE)
    path = cf.save_page(maps, tmp_path / "page.html", provenance=origin)
    text = path.read_text("utf-8")
    (run,) = catalogue_in(path)["runs"]
    assert run["images"][0]["name"] == run["layers"][0]["name"] == HOSTILE
    # The catalogue, an atlas, the program as data, and what starts it.
    assert text.count("<script") == text.count("</script>") == 4
    for never in ("<!-- ", "\u2028", "\u202e", "alert(1)</script>", "\ud800"):
        assert never not in text


def test_page_may_load_nothing(tmp_path: Path, maps: torch.Tensor) -> None:
    text = cf.save_page(maps, tmp_path / "page.html").read_text()
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    rules = dict(rule.split(" ", 1) for rule in found[1].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    starter, style = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style"))
    program = zlib.decompress(payload_in(tmp_path / "page.html", "program")).decode()
    assert rules["script-src"] == f"{digest_of(*starter)} {digest_of(program)}"
    assert rules["style-src"] == digest_of(*style)


def digest_of(text: str) -> str:
    """Return how a policy names a text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_page_of_2048_channels_is_small(tmp_path: Path) -> None:
    maps = torch.randn(2048, 7, 7, generator=torch.Generator().manual_seed(0)).relu()  # as many zeros as a ResNet has
    path = cf.save_page(maps, tmp_path / "page.html", provenance=cf.Provenance(model="resnet50", layer="layer4"))
    assert path.stat().st_size <= 220_000
    assert len(gzip.compress(path.read_bytes())) < path.stat().st_size


@pytest.mark.parametrize("name", ["loose", "tars"])
def test_page_of_a_run_holds_what_the_run_does(folder: Path, tmp_path: Path, name: str) -> None:
    path = cf.save_page(folder / name, tmp_path / "page.html", photos=folder / "photos")
    catalogue = catalogue_in(path)
    (run,) = catalogue["runs"]
    assert catalogue["notes"] == []
    assert run["image_count"] == len(run["images"]) == 5
    assert [layer["field"]["stride"] for layer in run["layers"]] == [[2, 2], [4, 4]]
    assert all((image["width"], image["height"]) == (24, 24) for image in run["images"])
    for n, image in enumerate(run["images"]):
        stem = Path(image["name"]).stem
        kept, shown = parse_atlas(payload_in(path, f"a-0-1-{n}"), ""), folder / "loose" / "2" / f"{stem}.atlas"
        assert torch.equal(kept.maps, cf.read_atlas(shown).maps)
        assert kept.provenance.image == image["name"] == f"{stem}.png"
        assert payload_in(path, image["photo"]).startswith(b"\xff\xd8")
    if name == "tars":
        statistics = tensors_in(payload_in(path, run["layers"][0]["statistics"]))
        expected = cf.read_statistics(folder / "tars" / "statistics.safetensors")["0"]
        assert_equal(statistics["mean"], expected.mean.astype(np.float32))
        assert_equal(statistics["std"], np.sqrt(expected.variance).astype(np.float32))
        assert_equal(statistics["sparsity"], expected.zeros.astype(np.float32))
        assert_equal(statistics["max"], expected.vmax)


def test_page_of_a_run_may_hold_patches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "CUT_AT_ONCE", 4)  # of 6 and of 10 channels
    photos = folder / "photos"
    path = cf.save_page(folder / "tars", tmp_path / "page.html", photos=photos, patches=True)
    one_by_one = open_collection([folder / "tars"], Photos(photos))
    (run,) = catalogue_in(path)["runs"]
    for layer in run["layers"]:
        for channel in (0, 3, 5, layer["channels"] - 1):
            key = f"{layer['patches']}-{channel}"
            assert payload_in(path, key) == one_by_one.content(key)
            with Image.open(io.BytesIO(payload_in(path, key))) as strip:
                assert strip.size == (5 * 64, 64)  # of five photos


def test_page_of_a_run_has_its_heat_maps_beside_channels(folder: Path, tmp_path: Path) -> None:
    cf.run(
        small_model(), str(folder / "photos"), ["2"], tmp_path / "run", save="atlases,attribution",
        target=["2@0", "2@1"], readers=0, progress="none",
    )  # fmt: skip
    path = cf.save_page(tmp_path / "run", tmp_path / "page.html")
    (run,) = catalogue_in(path)["runs"]
    heat = next(layer for layer in run["layers"] if layer["name"].startswith("gradcam/"))
    for image in run["images"]:
        key = f"a-0-{heat['id']}-{image['id']}"
        assert [(score["key"], score["channel"]) for score in image["attribution"]] == [(key, 0), (key, 1)]
        assert [score["name"].rpartition(": ")[0] for score in image["attribution"]] == ["gradcam"] * 2
        assert len(parse_atlas(payload_in(path, key), "").maps) == 2
    assert path.read_text().count(f'id="a-0-{heat["id"]}-0"') == 1


def test_planes_of_a_volume_lie_over_their_own_frames(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = cf.load_model(torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.Conv3d(2, 2, 3, 2, 1)))
    volume = np.zeros((1, 8, 12, 12), np.float32)
    volume[0] += np.arange(8).reshape(8, 1, 1) / 7  # each frame is brighter than the one before
    np.save(tmp_path / "volume.npy", volume)
    (image,) = name_images([str(tmp_path / "volume.npy")])
    looked = Collection("volume", [MemoryRun.of([look(model, image, ["0", "1"], 10**6)])])
    cf.run(model, str(tmp_path), ["0", "1"], tmp_path / "run", save="atlases", readers=0, progress="none")
    for source in (looked, open_collection([tmp_path / "run"], Photos(tmp_path))):
        path = write_page(source, tmp_path / "page.html")
        (entry,) = catalogue_in(path)["runs"]
        (shown,) = entry["images"]
        seen = {}
        for layer in entry["layers"]:
            with Image.open(io.BytesIO(payload_in(path, shown["frames"][str(layer["id"])]))) as frame:
                seen[layer["name"]] = frame.getpixel((6, 6))[0]
        brightness = [round(255 * frame / 7) for frame in range(8)]
        assert [seen[f"0@d{plane}"] for plane in range(8)] == close_to(brightness, TWO_LEVELS)
        assert [seen[f"1@d{plane}"] for plane in range(4)] == close_to(brightness[1::2], TWO_LEVELS)


def test_page_says_where_photos_and_patches_are_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = cf.save_page(folder / "loose", tmp_path / "page.html", photos=tmp_path / "elsewhere")
    (note,) = catalogue_in(path)["notes"]
    assert re.search(r"^photo '.*p0000.png' of run 'loose' is not in '.*elsewhere'\.$", note)
    for run, photos in (("loose", folder / "photos"), ("tars", None)):
        with pytest.raises(OptionError, match="patches need photos, and a run that kept the strongest images"):
            cf.save_page(folder / run, path, photos=photos, patches=True)


def test_folder_of_a_page_has_a_script_for_each_payload(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "SHARD_BYTES", 100)
    index = cf.save_page([folder / "loose", folder / "tars"], tmp_path / "pages")
    assert index == tmp_path / "pages" / "index.html"
    assert catalogue_in(index)["store"] == "scripts"
    assert [run["name"] for run in catalogue_in(index)["runs"]] == ["loose", "tars"]
    first = page.without_folders(sorted((folder / "loose" / "0").glob("*.atlas"))[0].read_bytes(), "")
    count = -(-len(first) // 100)
    parts = []
    for n in range(count):
        script = (index.parent / "data" / (f"a-0-0-0.{n}.js" if n else "a-0-0-0.js")).read_text()
        found = re.fullmatch(rf'cnnviz\.put\("a-0-0-0","([^"]*)",{n},{count}\)\n', script)
        assert found is not None
        parts.append(base64.b64decode(found[1], validate=True))
    assert b"".join(parts) == first


def test_folder_that_is_written_again_keeps_no_data_of_the_page_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maps: torch.Tensor
) -> None:
    with monkeypatch.context() as small:
        small.setattr(page, "SHARD_BYTES", 100)
        data = cf.save_page(folder / "loose", tmp_path / "pages").parent / "data"
    assert {"a-0-1-4.js", "a-0-0-0.1.js"} <= {path.name for path in data.iterdir()}
    others = {"a-0-0-77.js": "mine", "a-0-0-78.js.txt": 'cnnviz.put("a-0-0-78","")', "notes.txt": "mine"}
    for name, text in others.items():
        (data / name).write_text(text)
    cf.save_page(maps, tmp_path / "pages")
    assert {path.name for path in data.iterdir()} == {"a-0-0-0.js", *others}
    assert {name: (data / name).read_text() for name in others} == others


@pytest.mark.parametrize("name", ["statistics", "top"])
@pytest.mark.parametrize("place", [20, -9])  # in the record, which is read when a run is opened; and in what is behind
def test_page_names_a_damaged_file_of_a_run_once(folder: Path, tmp_path: Path, name: str, place: int) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "tars", run)
    content = bytearray((run / f"{name}.safetensors").read_bytes())
    content[place] ^= 255
    (run / f"{name}.safetensors").write_bytes(content)
    shown = open_collection([run], Photos(folder / "photos"), 256)
    patches = name == "statistics" or place < 0
    path = write_page(shown, tmp_path / "page.html", patches=patches)
    (note,) = catalogue_in(path)["notes"]
    assert re.search(rf"'{name}.safetensors' (is damaged|cannot be read)", note)
    layers = catalogue_in(path)["runs"][0]["layers"]
    assert [bool(layer["patches"]) for layer in layers] == [name == "statistics"] * 2
    assert [bool(layer["statistics"]) for layer in layers] == [name == "top" or place < 0] * 2


def test_page_names_a_damaged_atlas_and_shows_the_rest(folder: Path, tmp_path: Path) -> None:
    for n, atlas in enumerate(sorted((folder / "loose" / "0").glob("*.atlas"))):
        content = atlas.read_bytes()
        (tmp_path / atlas.name).write_bytes(content[: len(content) - 40 * (n == 1)])
    path = cf.save_page(tmp_path, tmp_path / "page.html")
    catalogue = catalogue_in(path)
    assert [image["absent"] for image in catalogue["runs"][0]["images"]] == [[], [0], [], [], []]
    (note,) = catalogue["notes"]
    assert "p0001.atlas" in note
    assert "damaged" in note


def test_page_of_an_atlas_of_a_later_version_says_so(tmp_path: Path, maps: torch.Tensor) -> None:
    path = cf.save_atlas(maps, tmp_path / "a.atlas")
    plain = zlib.decompress(path.read_bytes()).replace(b'\\"version\\": 1', b'\\"version\\": 9')
    path.write_bytes(zlib.compress(plain))
    cf.save_page(path, tmp_path / "page.html")
    (note,) = catalogue_in(tmp_path / "page.html")["notes"]
    assert "must be of version 1 at most, got 9" in note


def test_page_that_is_too_large_is_refused_and_a_folder_offered(
    tmp_path: Path, maps: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 400)
    with pytest.raises(OptionError, match="Give a folder in place of a file"):
        cf.save_page(maps, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert cf.save_page(maps, tmp_path / "pages").is_file()


def test_page_replaces_pages_and_nothing_else(tmp_path: Path, maps: torch.Tensor) -> None:
    path = tmp_path / "page.html"
    cf.save_page(maps, path, title="first")
    cf.save_page(maps, path, title="second")
    assert catalogue_in(path)["title"] == "second"
    path.write_text("<!doctype html><p>mine")
    with pytest.raises(WriteError, match="is no page of the viewer"):
        cf.save_page(maps, path)
    assert path.read_text() == "<!doctype html><p>mine"


def test_page_of_what_cannot_be_shown_is_refused(folder: Path, tmp_path: Path, maps: torch.Tensor) -> None:
    old = tmp_path / "old"
    old.mkdir()
    record = json.loads((folder / "loose" / "run.json").read_text())
    record["fingerprint"]["layout"] = "auto"
    (old / "run.json").write_text(json.dumps(record))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text('{"fingerprint":')
    (tmp_path / "empty").mkdir()
    sheets = tmp_path / "sheets"
    cf.run(small_model(), str(folder / "photos"), ["0"], sheets, save="sheets", readers=0, progress="none")
    for given, error, said in [
        (tmp_path / "empty", AtlasError, "holds no atlases"),
        (tmp_path / "nothing", AtlasError, "cannot be read"),
        (old, OptionError, "holds a run of an older version"),
        (damaged, OptionError, r"holds a damaged run.json: .*\. Give another folder\."),
        (sheets, cf.CnnvizError, "holds no atlases, which are what is shown"),
        ({}, OptionError, "at least one layer"),
        ({"a": maps, "b": maps.expand(2, *maps.shape)}, ShapeError, "same images in every layer"),
    ]:
        with pytest.raises(error, match=said):
            cf.save_page(given, tmp_path / "page.html")
    with pytest.raises(OptionError, match="one for each of 1 images, got 2"):
        cf.save_page(maps, tmp_path / "page.html", photos=["a.png", "b.png"])
    with pytest.raises(OptionError, match="go with maps in memory"):
        cf.save_page(folder / "loose", tmp_path / "page.html", axes="hwc")


def test_view_is_the_page_in_a_frame(maps: torch.Tensor, tmp_path: Path) -> None:
    shown = cf.view(maps, height_px=300, title='<"&')
    text = shown._repr_html_()
    found = re.fullmatch(r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts allow-downloads" ([^<>]*)></iframe>', text)
    assert found is not None
    assert 'height="300"' in found[2]
    assert repr(shown) == 'PageView(<"&: 1 layers of 1 images)'
    from html import unescape

    assert unescape(found[1]) == shown.save(tmp_path / "page.html").read_text()


def test_similar_channels_stand_near_each_other() -> None:
    a, b = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    maps = torch.stack([(a, b)[n % 2] * (n + 1) + n for n in range(16)])
    found = tensors_in(similarity_payload([maps]))
    grid = found["order"].reshape(-1, int(found["columns"][0]))
    assert sorted(grid.flat) == list(range(16))
    assert grid.shape == (4, 4)
    assert {len({int(c) % 2 for c in half.flat}) for half in (grid[:, :2], grid[:, 2:])} == {1}


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (2, 40, 40)])
def test_similarity_of_maps_of_any_size_is_an_order(shape: tuple[int, int, int]) -> None:
    for maps in (torch.zeros(shape), torch.randn(shape), torch.full(shape, torch.nan)):
        assert sorted(tensors_in(similarity_payload([maps]))["order"]) == list(range(shape[0]))


def test_kernels_are_those_of_layers_that_look_at_colours() -> None:
    weight = torch.linspace(-1, 1, 2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    payload = kernels_payload(weight)
    assert payload is not None
    kernels = tensors_in(payload)["kernel"]
    assert kernels.shape == (2, 3, 2, 2)
    assert [(int(each.min()), int(each.max())) for each in kernels] == [(0, 255)] * 2
    for other in (torch.zeros(2, 4, 2, 2), torch.zeros(2, 3, 1, 1), torch.zeros(2, 3)):
        assert kernels_payload(other) is None


def test_names_in_titles_turn_no_text() -> None:
    assert html.printable("a\u202eb\ud800") == "a\ufffdb\ufffd"


def test_page_shows_hostile_names_as_text(tab: Page, tmp_path: Path, maps: torch.Tensor) -> None:
    origin = cf.Provenance(model="net", layer=HOSTILE, image=HOSTILE)
    path = cf.save_page(maps, tmp_path / "page.html", provenance=origin)
    tab.on("request", lambda request: requests.append(request.url))
    requests: list[str] = []
    tab.goto(path.as_uri())
    tab.wait_for_selector("canvas")
    assert "alert(1)" in tab.inner_text("#app")
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []


def test_folder_of_a_page_opens_from_disk(tab: Page, folder: Path, tmp_path: Path) -> None:
    index = cf.save_page(folder / "loose", tmp_path / "pages")
    with tab.expect_event("requestfinished", lambda request: request.url.endswith("/data/a-0-0-0.js")):
        tab.goto(index.as_uri())
    tab.wait_for_selector("canvas")


def test_view_runs_in_a_notebooks_frame(tab: Page, maps: torch.Tensor) -> None:
    tab.set_content(f"<!doctype html><body>{cf.view(maps)._repr_html_()}</body>")
    tab.frame_locator("iframe").locator("canvas").first.wait_for()
