"""The application in a browser: what is clicked and typed, and what is then shown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.assertions import A_LEVEL, TWO_LEVELS, close_to
from support.looping import over
from support.viewer_pages import CHANNELS, NO_WEBGL, demo, empty, page_of, tab_of, without_faults

import cnnviz_fast as cf
from cnnviz_fast.activations.fields.record import ReceptiveField

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    Open = Callable[..., Page]

FRAMES = "new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)))"
WALL = "document.querySelector('.wall canvas')"
COPIED = (
    "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => void (window.copied = text)}})"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of two runs with everything in it."""
    folder = tmp_path_factory.mktemp("page")
    page = folder / "page.html"
    page.write_text(page_of(*demo(folder)))
    return page


@pytest.fixture(scope="module")
def kept(browser: Browser) -> Iterator[Page]:
    """Return a tab that tests share, whose clipboard is a variable."""
    for tab in tab_of(browser):
        tab.add_init_script(NO_WEBGL + COPIED)
        yield tab


@pytest.fixture(scope="module")
def standing(browser: Browser) -> Iterator[Page]:
    """Return a tab that shows the page of all tests and no other: to load it takes ten times what an address takes."""
    for tab in tab_of(browser):
        tab.set_viewport_size({"width": 1400, "height": 900})
        tab.add_init_script(NO_WEBGL + COPIED)
        yield tab


@pytest.fixture
def opened(standing: Page, path: Path) -> Iterator[Open]:
    """Return what shows the page from disk at an address, in the tab as the test before has left it."""
    with without_faults(standing):
        yield lambda address="#1": drawn(standing, path, address)


@pytest.fixture
def anew(tab: Page, path: Path) -> Open:
    """Return what loads a page, that of all tests unless another is given, in the tab as new."""
    return lambda address="", file=path: drawn(tab, file, address)


@pytest.fixture
def own(browser: Browser) -> Iterator[Page]:
    """Return a tab that no other test has, for scripts that run before those of a page."""
    for tab in tab_of(browser):
        empty(tab)
        tab.add_init_script(NO_WEBGL)
        with without_faults(tab):
            yield tab


def drawn(tab: Page, file: Path, address: str) -> Page:
    """Open a page from disk at an address, and return its tab once the wall is drawn."""
    tab.goto(file.as_uri() + address)
    tab.wait_for_function("() => document.querySelector('.wall canvas')?.width > 300")
    tab.evaluate(FRAMES)
    return tab


def letters(tab: Page) -> dict[str, str]:
    """Return what the address holds."""
    return dict(part.split("=", 1) for part in tab.evaluate("location.hash").split(";")[1:])


def order(tab: Page) -> list[int]:
    """Return the channels on the wall in their order, as the table that is saved has them."""
    return [int(row["channel"]) for row in table(tab)]


def table(tab: Page) -> list[dict[str, str]]:
    """Return the rows of the table that is saved."""
    tab.get_by_text("Take along").click()
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save CSV").click()
    return list(csv.DictReader(io.StringIO(saved.value.path().read_text())))


def pixels(tab: Page, canvas: str = WALL) -> str:
    """Return what a canvas shows once what was asked for is drawn."""
    tab.evaluate(FRAMES)
    return str(tab.evaluate(f"{canvas}.toDataURL()"))


def press_at(tab: Page, channel: int, columns: int = 3) -> tuple[float, float]:
    """Return the middle of a tile of the wall of six channels, which fills its canvas, in px of the tab."""
    box = tab.locator(".wall canvas").bounding_box()
    assert box is not None
    side = min(box["width"] / columns, box["height"] / 2)
    row, column = divmod(channel, columns)
    x = box["x"] + box["width"] / 2 + (column - (columns - 1) / 2) * side
    return x, box["y"] + box["height"] / 2 + (row - 0.5) * side


def test_page_needs_nothing_but_its_file(tab: Page, anew: Open) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    anew()
    assert [url for url in asked if not url.startswith("blob:")] == [tab.url]
    assert tab.get_by_role("heading", level=1).inner_text() == tab.title() == "net"
    assert tab.get_by_text("6 channels of 4 × 4", exact=True).is_visible()


def test_tree_chooses_layers_and_closes_groups(opened: Open) -> None:
    tab = opened()
    tree = tab.get_by_role("tree")
    assert tree.get_by_role("treeitem").all_inner_texts()[0].split() == ["stem", "6"]
    tree.get_by_title("body.0.norm").click()
    assert letters(tab)["l"] == "body.0.norm"
    tree.get_by_title("body.0.norm").press("ArrowUp")
    tab.keyboard.press("Enter")
    assert letters(tab)["l"] == "body.0.conv"
    tree.get_by_title("body", exact=True).click()
    assert tree.get_by_title("body", exact=True).get_attribute("aria-expanded") == "false"
    assert tree.get_by_title("body.0.norm").count() == 0
    tab.keyboard.press("ArrowRight")
    assert tree.get_by_title("body.0.norm").is_visible()


def test_search_finds_layers_by_text(opened: Open) -> None:
    tab = opened()
    tab.keyboard.press("/")
    tab.keyboard.type("NORM")
    assert [item.get_attribute("title") for item in tab.get_by_role("treeitem").all()] == ["body.0.norm"]
    tab.keyboard.press("Enter")
    assert letters(tab)["l"] == "body.0.norm"
    tab.keyboard.type("x")
    assert tab.get_by_text("no layer has").is_visible()
    tree = tab.get_by_role("tree", include_hidden=True)
    tree.evaluate("tree => (tree.style.maxHeight = '50px')")  # as if it had many
    tab.keyboard.press("Escape")
    assert tab.get_by_role("treeitem").count() == 6
    seen, chosen = tree.bounding_box(), tree.get_by_title("body.0.norm").bounding_box()
    assert seen is not None
    assert chosen is not None
    assert seen["y"] < chosen["y"] + chosen["height"] / 2 < seen["y"] + seen["height"]


@pytest.mark.parametrize(
    ("sort", "greatest_first"),
    [
        ("mean", [4, 0, 3, 2, 1, 5]),
        ("max", [4, 0, 3, 2, 1, 5]),
        ("variance", [4, 3, 0, 5, 1, 2]),
        ("sparsity", [1, 0, 3, 4, 5, 2]),
        ("norm", [4, 0, 5, 3, 2, 1]),
        ("set.selectivity", [0, 1, 2, 3, 4, 5]),
        ("similarity", [0, 4, 3, 5, 1, 2]),
    ],
)
def test_sort_puts_the_greatest_first(opened: Open, sort: str, greatest_first: list[int]) -> None:
    tab = opened()
    tab.get_by_label("Sort", exact=True).select_option(sort)
    assert order(tab) == greatest_first
    tab.get_by_role("button", name="Greatest first").click()
    assert letters(tab) == {"s": sort}
    if sort != "similarity":
        column = [float(row[sort.replace(".", " ")]) for row in table(tab)]
        assert column == sorted(column)
    else:  # correlations with what is flat are none, and stay at the end
        assert order(tab) == [5, 3, 0, 4, 1, 2]


def test_sort_by_likeness_to_the_chosen_channel_and_its_map(opened: Open) -> None:
    tab = opened("#1;c=5")
    tab.get_by_role("button", name="Sort by likeness").click()
    assert order(tab)[0] == 5
    assert order(tab)[-1] == 2
    tab.get_by_label("Sort", exact=True).select_option("layout")
    assert order(tab) == [5, 3, 1, 0, 2, 4]
    assert tab.get_by_role("grid").get_attribute("aria-colcount") == "2"


@pytest.mark.parametrize(
    ("kind", "left"),
    [("alive", [0, 2, 3, 4, 5]), ("dead", [1]), ("flat", [1, 2]), ("saturated", []), ("nonfinite", [3])],
)
def test_filter_leaves_channels_of_a_kind(opened: Open, kind: str, left: list[int]) -> None:
    tab = opened()
    tab.get_by_label("Show", exact=True).select_option(kind)
    assert order(tab) == left
    assert tab.get_by_text("No channel is left by the filter.").is_visible() == (left == [])


def test_layer_is_summed_up_where_the_address_leaves_no_channel(tab: Page, path: Path) -> None:
    tab.goto(f"{path.as_uri()}#1;f=saturated")
    tab.get_by_role("button", name="0 saturated").click()
    assert letters(tab) == {}


def test_list_of_channels_is_typed(opened: Open) -> None:
    tab = opened()
    field = tab.get_by_role("textbox", name="Channels")
    field.fill("4,0-1,99")
    assert order(tab) == [4, 0, 1]
    field.fill("4,0-")
    assert field.evaluate("field => field.validationMessage") == "a list such as 0-63,128"
    assert order(tab) == [4, 0, 1]


@pytest.mark.parametrize(
    ("label", "option", "letter"),
    [
        ("Colours", "gray", "m"),
        *(("Range", name, "n") for name in ("layer", "symmetric", "sigmoid", "percentile", "dataset")),
        *(("Align", name, "a") for name in ("left", "corners", "field")),
        ("Pixels", "nearest", "u"),
    ],
)
def test_choice_redraws_the_wall_and_is_in_the_address(opened: Open, label: str, option: str, letter: str) -> None:
    tab = opened()
    before = pixels(tab)
    tab.get_by_label(label, exact=True).select_option(option)
    assert letters(tab) == {letter: option}
    if option not in ("percentile", "field"):  # which are as they were where there are 16 values, and no lattice
        assert pixels(tab) != before


def test_percentiles_and_ends_of_a_fixed_range_are_set(opened: Open) -> None:
    tab = opened("#1;n=percentile")
    before = pixels(tab)
    tab.get_by_label("Upper percentile").fill("60")
    tab.get_by_label("Upper percentile").press("Tab")
    assert letters(tab)["e"] == "1,60"
    assert pixels(tab) != before
    tab.get_by_label("Range", exact=True).select_option("fixed")
    before = pixels(tab)
    tab.get_by_label("Upper end").press("PageDown")
    low, high = map(float, letters(tab)["e"].split(","))
    assert low == -15
    assert -15 < high < 30
    assert pixels(tab) != before


def test_channel_is_clicked_and_read(opened: Open) -> None:
    tab = opened()
    tab.mouse.click(*press_at(tab, 4))
    panel = tab.get_by_role("complementary", name="Channel 4")
    assert letters(tab)["c"] == "4"
    row = panel.get_by_role("row").filter(has=tab.get_by_role("rowheader", name="mean", exact=True))
    assert row.inner_text().split() == ["mean", "15", "1"]
    assert panel.get_by_role("row").filter(has_text="set: selectivity").inner_text().split()[-2:] == ["1", "5"]
    large = panel.get_by_label("map of channel 4")
    box = large.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] * 0.625, box["y"] + box["height"] * 0.375)
    assert "(1, 2) = 12" in panel.locator(".value").inner_text()
    assert "sees 8 × 8 px about (6, 10)" in panel.locator(".value").inner_text()
    seen = panel.locator(".small .seen").evaluate("seen => [seen.style.left, seen.style.top, seen.style.width]")
    field = ReceptiveField((8, 8), (4.0, 4.0), (2.0, 2.0), False, ())
    top, left, _, right = (100 * px / 16 for px in field.box(1, 2))
    assert seen == [f"{left:g}%", f"{top:g}%", f"{right - left:g}%"]
    assert panel.get_by_alt_text("strongest patches of channel 4").evaluate("image => image.naturalWidth") == 24
    kernel = panel.get_by_label("kernel of channel 4")
    assert kernel.evaluate("c => [...c.getContext('2d').getImageData(1, 1, 1, 1).data]") == [200, 200, 200, 255]


def test_values_of_a_channel_are_walked_by_keys(opened: Open) -> None:
    tab = opened("#1;c=4")
    tab.mouse.move(0, 0)
    large = tab.get_by_role("application", name="values of channel 4")
    tab.get_by_role("button", name="Close the channel").focus()
    tab.keyboard.press("Tab")
    heard = tab.locator(".value[aria-live=polite]")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    assert re.match(r"\(1, 2\) = 12.* sees 8 × 8 px about \(6, 10\)$", heard.inner_text())
    box, cell = (found.bounding_box() for found in (large, tab.locator(".large > .frame .cell")))
    assert box is not None
    assert cell is not None
    marked = [cell["x"] - box["x"], cell["y"] - box["y"], cell["width"], cell["height"]]
    assert marked == close_to([box["width"] / 4 * cells for cells in (2, 1, 1, 1)], A_LEVEL)
    for key, text in (("]", r"\(1, 2\) = 24"), ("ArrowUp", r"\(0, 2\) = 8")):
        tab.keyboard.press(key)
        heard.get_by_text(re.compile(text)).wait_for()
    assert letters(tab) == {"c": "4", "l": "body.0.conv"}
    tab.keyboard.press("Tab")
    tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 5)
    tab.get_by_text(re.compile(r"\(0, 2\) = 8")).wait_for()
    assert heard.count() == 0  # of each move of a pointer


def test_pointer_on_the_wall_reads_values(opened: Open) -> None:
    tab = opened()
    x, y = press_at(tab, 4)
    tab.mouse.move(x + 5, y + 5)
    assert tab.locator(".readout").inner_text().startswith("4 (2, 2) = 20 sees 8 × 8 px")


def test_kinds_of_a_layer_are_filters_and_of_a_channel_badges(opened: Open) -> None:
    tab = opened()
    tab.get_by_role("button", name="1 dead").click()
    assert order(tab) == [1]
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".badge").all_inner_texts() == ["dead", "flat"]


def test_attribution_and_opacity_over_the_photo(anew: Open) -> None:
    tab = anew("#1;c=0")
    tab.get_by_label("Attribution", exact=True).select_option("score y")
    attribution = "document.querySelector('.attribution canvas')"
    before = pixels(tab, attribution)
    tab.get_by_label("Map over photo").fill("0.2")
    assert letters(tab)["t"] == "0.2"
    assert pixels(tab, attribution) != before
    before = pixels(tab)
    tab.get_by_label("over the photo", exact=True).check()
    assert pixels(tab) != before


def test_pins_are_kept_and_chosen(opened: Open) -> None:
    tab = opened("#1;c=4")
    tab.get_by_role("button", name="Pin", exact=True).click()
    tab.get_by_role("button", name="Channel after").click()
    tab.keyboard.press("p")
    assert letters(tab)["p"] == "4,5"
    tab.get_by_label("Pinned channel 4").click()
    assert letters(tab)["c"] == "4"
    tab.get_by_role("button", name="Unpin").click()
    assert letters(tab)["p"] == "5"


def test_channel_across_images(anew: Open) -> None:
    tab = anew("#1;c=0")
    tab.get_by_text("In other images").click()
    tab.get_by_label("Channel 0 in dog.jpg").click()
    assert letters(tab)["i"] == "1"
    assert tab.locator(".name").inner_text() == "dog.jpg"


def test_two_images_side_by_side_and_their_difference(opened: Open) -> None:
    tab = opened("#1;c=0")
    tab.get_by_label("Compare with dog.jpg").click()
    assert letters(tab) == {"c": "0", "b": "0,1", "d": "pair"}
    seen = {pixels(tab)}
    for mode in ("a", "b", "difference"):
        tab.get_by_label("Compare", exact=True).select_option(mode)
        seen.add(pixels(tab))
    assert len(seen) == 4
    assert tab.get_by_label("Colours", exact=True).input_value() == "coolwarm"
    assert [tile.get_attribute("aria-label") for tile in tab.locator(".trio canvas").all()] == [
        "this, channel 0", "other, channel 0", "difference, channel 0",
    ]  # fmt: skip
    tab.get_by_label("Sort", exact=True).select_option("difference")
    assert order(tab) == [0, 4, 5, 1, 2, 3]  # 1 in those three, 0 in the others
    tab.get_by_label("End the comparison").click()
    assert "b" not in letters(tab)


def test_two_runs_side_by_side(opened: Open) -> None:
    tab = opened()
    tab.get_by_label("Compare with a run").select_option("run 1")
    assert letters(tab) == {"b": "1,0", "d": "pair"}
    assert tab.get_by_text("with run 1, cat.jpg").is_visible()
    tab.get_by_label("Run", exact=True).select_option("run 1")
    assert letters(tab)["r"] == "1"


def test_runs_are_compared_by_the_image_of_a_name(anew: Open, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path)
    catalogue["runs"][1]["images"] = catalogue["runs"][1]["images"][::-1]
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    tab = anew("", page)
    tab.get_by_label("Compare with a run").select_option("run 1")
    assert letters(tab)["b"] == "1,1"
    assert tab.get_by_text("with run 1, cat.jpg").is_visible()


def test_what_cannot_be_compared_says_so(opened: Open) -> None:
    tab = opened("#1;l=body.1;b=0,1;d=pair")
    assert tab.get_by_text("dog.jpg has no maps of body.1").is_visible()
    assert order(tab) == [0, 1, 2, 3, 4, 5]


def test_address_brings_everything_back(opened: Open) -> None:
    address = "#1;r=1;i=1;l=body.0.conv;c=3;b=1,0;d=difference;s=-variance;k=2;f=alive;h=0-4;m=gray;n=layer;a=corners"
    address += ";u=nearest;o=true;t=0.3;p=1,2;z=1.5,2,3"
    tab = opened(address)
    tab.keyboard.press("p")  # which writes it anew
    tab.keyboard.press("p")
    assert tab.evaluate("location.hash") == address
    assert tab.get_by_label("Sort", exact=True).input_value() == "variance"
    assert tab.get_by_label("Range", exact=True).input_value() == "layer"


def test_address_holds_large_ends(opened: Open) -> None:
    tab = opened(address := "#1;c=0;n=fixed;e=-12340000000,5600000000000")
    tab.keyboard.press("p")
    tab.keyboard.press("p")
    assert tab.evaluate("location.hash") == address


def test_address_holds_small_ends(opened: Open) -> None:
    tab = opened(address := "#1;c=0;n=fixed;e=-0.0000066532,0.0000012345")
    tab.keyboard.press("p")
    tab.keyboard.press("p")
    assert tab.evaluate("location.hash") == address


def test_list_of_channels_is_no_longer_than_an_address_takes(opened: Open) -> None:
    tab = opened()
    field = tab.get_by_role("textbox", name="Channels")
    field.focus()
    tab.keyboard.insert_text("5,1," * 100)
    assert len(field.input_value()) == 300
    assert tab.evaluate("location.hash.length") < 400


def test_what_a_layer_has_not_is_neither_shown_nor_copied(tab: Page, anew: Open, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path)
    for layer in catalogue["runs"][0]["layers"]:
        layer |= {"field": None, "statistics": None}
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    anew("#1;a=field;n=dataset;m=none;s=-set.mean", page)
    chosen = {
        label: tab.get_by_label(label, exact=True).input_value() for label in ("Align", "Range", "Colours", "Sort")
    }
    assert chosen == {"Align": "center", "Range": "channel", "Colours": "viridis", "Sort": "index"}
    tab.get_by_text("Take along").click()
    tab.get_by_role("button", name="Copy Python").click()
    assert tab.evaluate("window.copied") == 'render("cat.jpg", "stem", colormap="viridis", upsampling="bilinear")'


def with_maps(folder: Path, maps: torch.Tensor, **changes: Any) -> Path:
    """Return the page with other maps of the first layer and image, and with changes to that image's entry."""
    catalogue, payloads = demo(folder)
    payloads["a-0-0-0"] = cf.save_atlas(maps, folder / "other.atlas").read_bytes()
    catalogue["runs"][0]["images"][0] |= changes
    page = folder / "page.html"
    page.write_text(page_of(catalogue, payloads))
    return page


def numbers(tab: Page) -> list[int]:
    """Return the numbers of channels that stand on the wall."""
    tab.evaluate(FRAMES)
    return [int(text) for text in tab.locator(".wall .number").all_inner_texts()]


def test_large_tiles_have_the_numbers_of_their_channels(opened: Open) -> None:
    tab = opened()
    assert numbers(tab) == [0, 1, 2, 3, 4, 5]
    tab.get_by_label("Sort", exact=True).select_option("mean")
    assert numbers(tab) == [4, 0, 3, 2, 1, 5]
    left = tab.locator(".wall .number").evaluate_all("all => all.map(({ offsetLeft }) => offsetLeft)")
    assert left[:3] == sorted(set(left))
    tab.mouse.dblclick(*press_at(tab, 4))  # which fills the view, but for the ends of those beside it
    assert numbers(tab) == [2, 1, 5]


def test_small_tile_has_its_number_when_it_is_pointed_at_or_chosen(anew: Open, tmp_path: Path) -> None:
    tab = anew("#1;c=1199", with_maps(tmp_path, torch.rand(1200, 2, 2)))
    before = pixels(tab)
    assert numbers(tab) == [1199]
    box = tab.locator(".wall canvas").bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2 + 5)
    hover = int(tab.locator(".readout b").first.inner_text())
    assert sorted(numbers(tab)) == sorted([hover, 1199])
    assert pixels(tab) == before  # as in a PNG


def test_signal_is_drawn_as_a_line_that_is_pointed_at(anew: Open, tmp_path: Path) -> None:
    maps = torch.stack([torch.linspace(c, 0, 800) for c in range(6)])[:, None]
    maps[4, 0, 700:] = torch.nan
    tab = anew("#1;c=4", with_maps(tmp_path, maps))
    line = tab.get_by_label("map of channel 4")
    box = line.bounding_box()
    assert box is not None
    assert box["height"] > 100
    tab.mouse.move(box["x"] + box["width"] * 400.5 / 800, box["y"] + 5)
    shown, value = tab.locator(".large .value").inner_text().split(" = ")
    assert shown == "(0, 400)"
    assert 252 / 4 * float(value.split()[0]) == close_to(252 * (1 - 400 / 799), A_LEVEL)
    drawn_to = line.locator("path").last.evaluate("path => path.getBBox().x + path.getBBox().width")
    assert 695 < drawn_to <= 700
    assert tab.locator(".mark.chosen").bounding_box()["height"] > 20


def test_plane_of_a_volume_lies_over_its_own_frame(tab: Page, anew: Open, tmp_path: Path) -> None:
    anew("#1;c=0", with_maps(tmp_path, torch.rand(6, 4, 4), frames={"1": "p-1-1"}))
    color = """async () => {
        const image = document.querySelector("[alt='the photo']");
        await image.decode();
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        context.drawImage(image, 0, 0);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    assert tab.evaluate(color) == [0, 128, 128]  # teal
    tab.keyboard.press("]")
    tab.get_by_role("grid", name="6 channels of body.0.conv").wait_for()
    tab.wait_for_function("() => document.querySelector('.over input')")
    assert tab.evaluate(color) == [255, 165, 0]  # orange


def test_zoomed_wall_keeps_its_channels_side_by_side(opened: Open) -> None:
    tab = opened("#1;c=4;b=0,1;z=70,60,8,3")
    place = "mark => [mark.offsetLeft, mark.offsetTop, mark.offsetWidth]"
    before = tab.locator(".mark.chosen").evaluate(place)
    tab.get_by_label("Compare", exact=True).select_option("pair")
    tab.evaluate(FRAMES)
    left, top, width = tab.locator(".mark.chosen").evaluate(place)
    assert (left, top) == (close_to(2 * before[0], TWO_LEVELS), before[1])  # and so is all that stands before it
    assert width > 2 * before[2]
    assert letters(tab)["z"] == "70,60,8,3"


def test_wall_is_drawn_anew_on_a_screen_of_another_density(own: Page, path: Path) -> None:
    # The emulated screens of Chromium change without a word to the page.
    own.add_init_script(
        """const match = window.matchMedia, queries = [];
        window.matchMedia = (query) => (queries.push(match.call(window, query)), queries.at(-1));
        window.move = (density) => {
            Object.defineProperty(window, "devicePixelRatio", { value: density, configurable: true });
            for (const query of queries.splice(0)) query.dispatchEvent(new Event("change"));
        };"""
    )
    drawn(own, path, "")
    width = own.evaluate(f"{WALL}.width")
    for density in (2, 1.5):
        own.evaluate("move", density)
        own.wait_for_function(f"width => {WALL}.width === width", arg=density * width)


def test_escape_closes_the_menu_and_keeps_the_channel(opened: Open) -> None:
    tab = opened("#1;c=4")
    tab.get_by_text("Take along").click()
    tab.keyboard.press("Escape")
    assert not tab.get_by_role("button", name="Save CSV").is_visible()
    assert letters(tab)["c"] == "4"
    tab.keyboard.press("Escape")
    assert "c" not in letters(tab)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("/a/x/cat.jpg", "/b/x/cat.jpg"), ["a/x/cat.jpg", "b/x/cat.jpg"]),
        (("cat.jpg", "cat.jpg"), ["cat.jpg (1)", "cat.jpg (2)"]),
        (("/a/cat.jpg", "/a/dog.jpg"), ["cat.jpg", "dog.jpg"]),
    ],
)
def test_images_of_one_name_are_told_apart(
    anew: Open, tmp_path: Path, names: tuple[str, str], shown: list[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_of(*demo(tmp_path, names=names)))
    tab = anew("#1;i=1", page)
    assert [tab.get_by_label(f"Show {name}", exact=True).count() for name in shown] == [1, 1]
    assert tab.locator(".name").inner_text() == shown[1]


@pytest.mark.parametrize("name", ["x" * 301, "a lone \ud800 surrogate"])
def test_layer_whose_name_no_address_holds_has_its_number_there(anew: Open, tmp_path: Path, name: str) -> None:
    catalogue, payloads = demo(tmp_path)
    catalogue["runs"][0]["layers"][1] |= {"name": name, "channels": 77}
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    tab = anew("", page)
    tab.keyboard.press("]")
    assert letters(tab) == {"l": "%231"}
    tab.reload()
    tab.get_by_role("treeitem", selected=True).get_by_text("77").wait_for()


def test_wall_that_is_zoomed_shows_the_same_in_a_window_of_another_size(anew: Open) -> None:
    tab = anew("#1;c=4")
    tab.keyboard.press("Enter")
    place = "mark => [mark.style.left, mark.style.top, mark.style.width]"
    before = tab.locator(".mark.chosen").evaluate(place)
    assert tab.get_by_role("grid").get_attribute("aria-colcount") == letters(tab)["z"].split(",")[3] == "3"
    tab.set_viewport_size({"width": 900, "height": 900})
    tab.wait_for_function("() => document.querySelector('.wall canvas').width < 600")
    assert tab.get_by_role("grid").get_attribute("aria-colcount") == "3"
    assert tab.locator(".mark.chosen").evaluate(place) == before


ROUNDED_DOWN = """window.ResizeObserver = class extends ResizeObserver {
    constructor(act) {
        super((entries, observer) => act(entries.map(({ target, devicePixelContentBoxSize: [box] = [] }) => ({
            target,
            devicePixelContentBoxSize: box && [{ blockSize: box.blockSize - 1, inlineSize: box.inlineSize }],
        })), observer));
    }
};"""
"""As a browser does where a CSS px is 1.5 px of the screen, and heights are odd."""


def test_wall_has_the_pixels_of_the_screen(own: Page, path: Path) -> None:
    own.add_init_script(ROUNDED_DOWN)
    drawn(own, path, "")
    own.wait_for_function(f"() => {WALL}.height === {WALL}.clientHeight - 1")
    assert own.evaluate(f"{WALL}.width === {WALL}.clientWidth")


def test_layer_without_finite_values_says_so(anew: Open, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path)
    atlas = cf.save_atlas(torch.full((CHANNELS, 4, 4), torch.nan), tmp_path / "nan.atlas")
    payloads["a-0-0-0"] = atlas.read_bytes()
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    tab = anew("#1;n=fixed", page)
    assert tab.get_by_text("no finite value").count() == 2  # beside the range, and of the layer
    assert "∞" not in tab.locator("body").inner_text()


def test_back_and_forward(opened: Open) -> None:
    tab = opened()
    tab.keyboard.press("]")
    tab.keyboard.press(".")
    assert letters(tab) == {"l": "body.0.conv", "i": "1"}
    tab.go_back()
    assert tab.locator(".name").inner_text() == "cat.jpg"
    tab.go_back()
    assert letters(tab) == {}
    assert tab.get_by_title("stem", exact=True).get_attribute("aria-selected") == "true"
    tab.go_forward()
    assert tab.locator(".here b").inner_text() == "body.0.conv"


@pytest.mark.parametrize(
    "address",
    [
        "#",
        "#2;c=1",
        "#1;;;=;c",
        "#1;c=-1;i=1e9;r=99",
        "#1;c=99999999;z=1,2,0;z=a,b,c",
        "#1;%;l=%E0%A4%A;c=%",
        "#1;l=__proto__;m=__proto__",
        "#1;constructor=1;__proto__=x;toString=1",
        "#1;s=set.nothing;n=dataset2;e=2,1;p=1,x",
        "#1;s=constructor;u=toString",
        "#1;h=" + "9" * 3000,
        "#1;i=4000000;r=7;b=9,9;d=pair",
        "#1;n=percentile;e=-5,700",
        "#1;l=<img src=x onerror=alert(1)>;m=<b>",
    ],
)
def test_hostile_address_is_left_out(opened: Open, address: str) -> None:
    tab = opened(address)
    assert tab.get_by_title("stem", exact=True).get_attribute("aria-selected") == "true"
    assert order(tab) == [0, 1, 2, 3, 4, 5]


def test_link_and_code_are_copied(opened: Open) -> None:
    tab = opened("#1;l=body.0.conv;h=0-2,5;n=layer;m=gray")
    tab.get_by_role("button", name="Copy link").click()
    assert tab.get_by_text("link copied").is_visible()
    assert tab.evaluate("window.copied") == tab.url
    tab.get_by_text("Take along").click()
    tab.get_by_role("button", name="Copy command").click()
    assert tab.evaluate("window.copied") == (
        "cnnviz render net 'cat.jpg' --layer 'body.0.conv' --colormap 'gray' --vmin='-30' --vmax '60' --upsampling "
        "'bilinear' --channels '0-2,5'"
    )
    tab.get_by_text("Take along").click()
    tab.get_by_role("button", name="Copy Python").click()
    assert tab.evaluate("window.copied") == (
        'render("cat.jpg", "body.0.conv", colormap="gray", vmin=-30, vmax=60, upsampling="bilinear", channels="0-2,5")'
    )


@over(
    ("address", "code"),
    [
        (
            "#1;o=true;t=0.3",
            'render("-.jpg", "stem", colormap="viridis", upsampling="bilinear", overlay=True, alpha=0.3)',
        ),
        ("#1;n=fixed", 'render("-.jpg", "stem", colormap="viridis", normalize="layer", upsampling="bilinear")'),
        (
            "#1;n=fixed;e=-1,1.5",
            'render("-.jpg", "stem", colormap="viridis", vmin=-1, vmax=1.5, upsampling="bilinear")',
        ),
        ("#1;l=stem%40d3", 'render("-.jpg", "stem", planes=3, colormap="viridis", upsampling="bilinear")'),
        ("#1;b=0,1;d=difference", None),
        ("#1;n=dataset", None),
    ],
)
def test_code_draws_what_is_shown_or_is_not_offered(tab: Page, tmp_path: Path, address: str, code: str | None) -> None:
    catalogue, payloads = demo(tmp_path, names=("-.jpg", "dog.jpg"))
    catalogue["runs"][0]["layers"][1]["name"] = "stem@d3"
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    drawn(tab, page, address)
    tab.get_by_text("Take along").click()
    assert tab.get_by_role("button", name="Save PNG").is_visible()
    for language in ("command", "Python"):
        assert tab.get_by_role("button", name=f"Copy {language}").is_visible() == (code is not None)
    if code is not None:
        tab.get_by_role("button", name="Copy Python").click()
        assert tab.evaluate("window.copied") == code.replace("-.jpg", "./-.jpg")
    tab.keyboard.press("Escape")  # which closes the menu


def test_table_has_measures_and_statistics(opened: Open) -> None:
    rows = table(opened())
    assert rows[4] | {"variance": "", "norm": ""} == {
        "channel": "4", "mean": "15", "max": "30", "min": "0", "variance": "", "sparsity": "0.0625", "norm": "",
        "set selectivity": "1", "kinds": "",
    } | ({"set min": "-1", "set max": "20"})  # fmt: skip
    assert rows[1]["kinds"] == "dead flat"


def test_png_is_what_the_canvas_shows(opened: Open) -> None:
    from PIL import Image

    tab = opened()
    tab.get_by_text("Take along").click()
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save PNG").click()
    assert saved.value.suggested_filename == "stem_cat.jpg.png"
    width, height = tab.evaluate(f"[{WALL}.width, {WALL}.height]")
    with Image.open(saved.value.path()) as image:
        assert image.size == (width, height)


def test_png_of_no_channel_is_not_saved(opened: Open) -> None:
    tab = opened()
    tab.get_by_role("textbox", name="Channels").fill("99")
    tab.get_by_text("Take along").click()
    tab.get_by_role("button", name="Save PNG").click()
    tab.locator(".notice", has_text="No channel is shown.").wait_for()


def test_wall_is_zoomed_and_moved(opened: Open) -> None:
    tab = opened()
    x, y = press_at(tab, 4)
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -300)
    tab.wait_for_function("() => location.hash.includes('z=')")
    zoom = [float(each) for each in letters(tab)["z"].split(",")]
    tab.mouse.down()
    tab.mouse.move(x - 60, y - 40, steps=3)
    tab.mouse.up()
    moved = [float(each) for each in letters(tab)["z"].split(",")]
    assert moved[2] == zoom[2]
    assert moved[0] > zoom[0]
    assert moved[1] > zoom[1]
    assert "c" not in letters(tab)  # a drag is no click
    tab.mouse.click(x, y, button="right")
    assert "c" not in letters(tab)
    tab.keyboard.press("0")
    assert "z" not in letters(tab)
    tab.mouse.dblclick(*press_at(tab, 4))
    tile = tab.locator(".mark.chosen").bounding_box()
    canvas = tab.locator(".wall canvas").bounding_box()
    assert tile is not None
    assert canvas is not None
    assert canvas["height"] / 2 < tile["height"] < canvas["height"]


def test_pinch_on_a_touchpad_zooms_as_far_as_the_fingers_move(opened: Open) -> None:
    tab = opened()
    whole, pinched = (
        tab.evaluate(
            f"{WALL}.dispatchEvent(new WheelEvent('wheel', {{deltaY: {delta}, ctrlKey: true, cancelable: true}}))"
            "; new Promise(then => setTimeout(() => then(location.hash.split(',').at(2)), 300))"
        )
        for delta in (-0.001, -69.3)  # as browsers tell of fingers that move to twice their distance
    )
    assert 1.98 < float(pinched) / float(whole) < 2.02


def test_keys_do_what_the_help_says(opened: Open) -> None:
    tab = opened()
    pressed = {}
    for key in (
        "ArrowRight",
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "c",
        "n",
        "o",
        "]",
        "[",
        ".",
        ",",
        "+",
        "-",
        "p",
        "Enter",
        "0",
    ):
        tab.keyboard.press(key)
        pressed[key] = letters(tab)
    assert pressed["ArrowRight"] == {"c": "1"}
    assert pressed["ArrowDown"] == {"c": "4"}
    assert pressed["ArrowLeft"] == {"c": "3"}
    assert pressed["ArrowUp"] == {"c": "0"}
    assert pressed["c"]["m"] == "gray"
    assert pressed["n"]["n"] == "layer"
    assert pressed["o"]["o"] == "true"
    assert pressed["]"]["l"] == "body.0.conv"
    assert pressed["["]["l"] == "stem"
    assert (pressed["."].get("i"), pressed[","].get("i")) == ("1", None)
    assert float(pressed["+"]["z"].split(",")[2]) > float(pressed["-"]["z"].split(",")[2])
    assert pressed["p"]["p"] == "0"
    assert "z" not in pressed["0"]
    tab.keyboard.press("?")
    tab.get_by_role("dialog").get_by_text("search layers").wait_for()
    tab.keyboard.press("Escape")
    tab.locator("dialog").wait_for(state="detached")
    tab.keyboard.press("Escape")
    assert "c" not in letters(tab)


def test_screen_reader_hears_the_chosen_channel(opened: Open) -> None:
    tab = opened("#1;c=1")
    grid = tab.get_by_role("grid")
    assert re.match("6 channels of stem", str(grid.get_attribute("aria-label")))
    assert grid.get_attribute("aria-activedescendant") == grid.get_by_role("gridcell").get_attribute("id")
    assert grid.get_by_role("gridcell").inner_text() == "channel 1, mean 0, dead, flat"


def test_image_is_chosen_by_number_and_thumbnail(opened: Open) -> None:
    tab = opened()
    tab.get_by_label("Image number").fill("2")
    tab.get_by_label("Image number").press("Enter")
    assert letters(tab)["i"] == "1"
    tab.get_by_label("Image number").fill("7")
    tab.get_by_label("Image number").press("Enter")
    assert tab.get_by_label("Image number").input_value() == "2"
    tab.get_by_label("Show cat.jpg").click()
    assert "i" not in letters(tab)


def test_hostile_names_are_text(anew: Open, tmp_path: Path) -> None:
    name = "</script><img src=x onerror=document.title='run'>\u2028<!--"
    catalogue, payloads = demo(tmp_path, names=(name, "dog.jpg"))
    catalogue["runs"][0]["layers"][0]["name"] = name
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue, payloads))
    tab = anew("", page)
    assert "onerror" in tab.locator(".name").inner_text()
    assert tab.locator("img[src=x]").count() == 0
    assert tab.title() == "net"


def test_damaged_atlas_is_named_and_the_rest_shown(anew: Open, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path)
    payloads["a-0-0-0"] = payloads["a-0-0-0"][:100]
    page = tmp_path / "page.html"
    page.write_text(page_of(catalogue | {"notes": ["One thing is missing."]}, payloads))
    tab = anew("#1;i=1", page)
    tab.get_by_text("1 note").click()
    assert tab.get_by_text("One thing is missing.").is_visible()
    tab.keyboard.press(",")
    assert "stem of cat.jpg" in tab.get_by_role("alert").inner_text()
    tab.keyboard.press("]")
    assert tab.get_by_role("grid").is_visible()


def test_colours_are_turned_dark_and_light(anew: Open) -> None:
    tab = anew()
    ground = "getComputedStyle(document.body.parentElement).backgroundColor"
    light = tab.evaluate(ground)
    tab.get_by_role("button", name="Dark colours").click()
    assert tab.evaluate(ground) != light
    tab.get_by_role("button", name="Light colours").click()
    assert tab.evaluate(ground) == light


def test_phone_has_one_column_and_nothing_beside_it(anew: Open) -> None:
    tab = anew("#1;c=0")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert not tab.get_by_role("tree").is_visible()
    tab.get_by_role("button", name="Layers and images").click()
    tab.get_by_title("body.0.norm").click()
    assert letters(tab)["l"] == "body.0.norm"
    assert not tab.get_by_role("tree").is_visible()
    assert tab.get_by_label("map of channel 0").bounding_box()["width"] > 300
    for height, stays in ((844, True), (400, False)):  # lower, it would take much of the window
        tab.set_viewport_size({"width": 390, "height": height})
        tab.get_by_label("map of channel 0").scroll_into_view_if_needed()
        assert tab.evaluate("scrollY") > 0
        assert (tab.locator("header").bounding_box()["y"] == 0) is stays


def test_phone_shows_the_ends_of_a_fixed_range(opened: Open) -> None:
    tab = opened("#1;n=fixed")
    tab.set_viewport_size({"width": 390, "height": 844})
    chart = tab.locator(".ends").bounding_box()
    tab.set_viewport_size({"width": 1400, "height": 900})
    assert chart is not None
    assert chart["x"] >= 0
    assert 300 < chart["x"] + chart["width"] <= 390


AXE = Path(__file__).parents[2] / "cnnviz_fast" / "viewer" / "source" / "node_modules" / "axe-core" / "axe.min.js"


def test_channel_fills_its_frame_at_every_width(anew: Open) -> None:
    tab = anew("#1;c=4")
    frame = tab.locator(".large > .frame")
    filled = "c => c.width > 400 && c.getContext('2d').getImageData(c.width - 9, 9, 1, 1).data[3] === 255"
    tab.set_viewport_size({"width": 600, "height": 844})
    large = tab.get_by_label("map of channel 4")
    tab.wait_for_function(filled, arg=large.element_handle())
    assert large.bounding_box() == frame.bounding_box()


@pytest.mark.skipif(not AXE.is_file(), reason="`npm ci` has not been run in cnnviz_fast/viewer/source")
def test_axe_finds_nothing_serious(anew: Open) -> None:
    address = "#1;c=1;b=0,1;d=pair;p=2;n=fixed;i=0"
    tab = anew(address)
    tab.get_by_text("In other images").click()
    tab.evaluate(AXE.read_text())
    faults = {}
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        faults[scheme] = serious(tab)
    tab.evaluate("location.hash = '#1'")
    faults["no channel"] = serious(tab)
    tab.get_by_text("Take along").click()
    faults["menu"] = serious(tab)
    tab.get_by_label("Search layers").fill("none of this name")
    faults["no layer"] = serious(tab)
    tab.get_by_label("Search layers").fill("")
    tab.get_by_label("Search layers").blur()
    tab.keyboard.press("?")
    faults["help"] = serious(tab)
    tab.keyboard.press("Escape")
    tab.locator("dialog").wait_for(state="detached")
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_role("button", name="Layers and images").click()
    faults["phone"] = serious(tab)
    assert not any(faults.values()), faults


def serious(tab: Page) -> list[str]:
    """Return what axe finds that is serious or worse, where."""
    tab.evaluate(FRAMES)
    found = tab.evaluate("axe.run().then(({ violations }) => violations)")
    return [
        f"{fault['id']}: {node['html'][:120]} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
