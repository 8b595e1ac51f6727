"""Palettes: the colours against matplotlib, and which entries stand for levels, background and bad."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from support.assertions import TWO_LEVELS, assert_close, assert_equal_planes, assert_same_palette

from cnnviz_fast.errors import OptionError
from cnnviz_fast.palette import Palette, make_palette

GRAY = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
FORWARD = [name for name in sorted(matplotlib.colormaps) if not name.endswith("_r")]
# cmap 0.8 has another red in gist_stern than matplotlib, from entry 64 on.
RAMPS = [name for name in FORWARD if matplotlib.colormaps[name].N == 256 and name != "gist_stern"]
QUALITATIVE = [name for name in FORWARD if matplotlib.colormaps[name].N < 256]


def palette(colormap: str = "viridis", *, background: bool = False, bad: bool = False, **colors: str) -> Palette:
    return make_palette(colormap, shows_background=background, shows_bad=bad, **colors)


@pytest.mark.parametrize("name", [*RAMPS, "viridis_r", "coolwarm_r"])
def test_make_palette_every_map_of_matplotlib_has_its_colours(name: str) -> None:
    expected = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    assert_same_palette(palette(name).colors, expected)


def test_make_palette_matplotlib_has_maps_to_compare_with() -> None:
    assert {"viridis", "magma", "gray", "coolwarm", "RdBu", "jet", "turbo"} <= set(RAMPS)
    assert {"tab10", "Set1", "Paired"} <= set(QUALITATIVE)


@pytest.mark.parametrize("name", QUALITATIVE)
def test_make_palette_map_of_separate_colours_shows_no_others(name: str) -> None:
    colormap = matplotlib.colormaps[name]
    for bad, levels in ((False, 256), (True, 255)):
        expected = colormap(np.linspace(0, 1, levels), bytes=True)[:, :3]
        made = palette(name, bad=bad).colors[:levels]
        assert_same_palette(made, expected)
        assert len(np.unique(made, axis=0)) == len(np.unique(expected, axis=0)) <= colormap.N


def test_make_palette_values_only_has_all_256_levels() -> None:
    made = palette()
    assert made.colors.shape == (256, 3)
    assert made.colors.dtype == np.uint8
    assert made.levels == 256


@pytest.mark.parametrize(
    ("background", "bad", "levels"), [(False, False, 256), (True, False, 255), (False, True, 255), (True, True, 254)]
)
def test_make_palette_shown_colours_take_the_last_entries(background: bool, bad: bool, levels: int) -> None:
    made = palette(background=background, bad=bad)
    assert made.levels == levels
    assert made.colors.shape == (256, 3)
    if background:
        assert made.background == levels
        assert made.colors[made.background].tolist() == [0, 0, 0]
    if bad:
        assert made.bad == 255
        assert made.colors[made.bad].tolist() == [255, 0, 255]


@pytest.mark.parametrize(("background", "bad"), [(False, False), (True, False), (True, True)])
def test_make_palette_levels_span_the_whole_colormap(background: bool, bad: bool) -> None:
    whole, cut = palette(), palette(background=background, bad=bad)
    assert_equal_planes(cut.colors[[0, cut.levels - 1]], whole.colors[[0, 255]])
    # Entry i of n lies where entry 255 i / (n - 1) of 256 lies.
    nearest = np.round(np.arange(cut.levels) * 255 / (cut.levels - 1)).astype(int)
    assert_close(cut.colors[: cut.levels], whole.colors[nearest], TWO_LEVELS)


@pytest.mark.parametrize(("color", "entry"), [("black", 0), ("white", 255), ("#808080", 128), ("#404040", 64)])
def test_make_palette_gray_with_a_gray_background_keeps_all_levels(color: str, entry: int) -> None:
    made = make_palette("gray", background=color, shows_background=True, shows_bad=False)
    assert (made.levels, made.background) == (256, entry)
    assert made.is_gray


def test_make_palette_gray_is_the_identity() -> None:
    assert_equal_planes(palette("gray").colors, GRAY)
    assert palette("gray").is_gray


def test_make_palette_gray_with_bad_is_no_longer_gray() -> None:
    made = make_palette("gray", background="white", shows_background=True, shows_bad=True)
    assert not made.is_gray
    assert (made.levels, made.background, made.bad) == (255, 254, 255)
    assert made.colors[made.background].tolist() == [255, 255, 255]


def test_is_gray_other_maps_are_not() -> None:
    assert not palette("viridis").is_gray
    assert not palette("gray_r").is_gray


@pytest.mark.parametrize(("text", "rgb"), [("white", [255, 255, 255]), ("#0a141e", [10, 20, 30]), ("red", [255, 0, 0])])
def test_make_palette_colours_are_names_or_hex(text: str, rgb: list[int]) -> None:
    made = make_palette("viridis", background=text, bad=text, shows_background=True, shows_bad=True)
    assert made.colors[made.background].tolist() == rgb
    assert made.colors[made.bad].tolist() == rgb


@pytest.mark.parametrize("background", ["black", "white", "blue", "#808080"])
@pytest.mark.parametrize("bad", [True, False])
@pytest.mark.parametrize("colormap", ["viridis", "gray", "gray_r", "tab10", "hot"])
def test_make_palette_background_and_ink_have_entries(colormap: str, background: str, bad: bool) -> None:
    made = make_palette(colormap, background=background, shows_background=True, shows_bad=bad, shows_ink=True)
    without = make_palette(colormap, background=background, shows_background=True, shows_bad=bad)
    rgb = {"black": [0, 0, 0], "white": [255] * 3, "blue": [0, 0, 255], "#808080": [128] * 3}[background]
    assert made.colors.shape == (256, 3)
    assert made.colors[made.background].tolist() == rgb
    assert made.colors[made.ink].tolist() == ([255] * 3 if background in ("black", "blue") else [0, 0, 0])
    assert without.levels - 1 <= made.levels <= without.levels
    assert (made.colors[255].tolist() == [255, 0, 255]) == bad
    # The entries of values are the colormap, and no entry is lost between them and the others.
    ramp = make_palette(colormap, shows_background=False, shows_bad=False).colors
    assert_equal_planes(made.colors[[0, made.levels - 1]], ramp[[0, 255]])
    assert made.levels + len({made.background, made.ink} - set(range(made.levels))) + bad == 256


@pytest.mark.parametrize(
    ("colormap", "background", "levels", "ink"),
    [
        ("gray", "black", 256, 255),
        ("gray", "white", 256, 0),
        ("viridis", "black", 254, 255),
        ("hot", "black", 255, 254),
    ],
)
def test_make_palette_ink_takes_no_entry_that_the_colormap_has(
    colormap: str, background: str, levels: int, ink: int
) -> None:
    made = make_palette(colormap, background=background, shows_background=True, shows_bad=False, shows_ink=True)
    assert (made.levels, made.ink) == (levels, ink)
    assert made.is_gray == (colormap == "gray")


@pytest.mark.parametrize("gray", [0, 60, 117, 118, 128, 255])
def test_make_palette_ink_is_what_has_more_contrast(gray: int) -> None:
    made = make_palette("viridis", background=f"#{gray:02x}{gray:02x}{gray:02x}", shows_background=True,
                        shows_bad=False, shows_ink=True)  # fmt: skip
    # 117 is the last grey on which white has more: ((117 / 255 + 0.055) / 1.055) ** 2.4 = 0.178, and
    # 1.05 / (0.178 + 0.05) = 4.6 is more than (0.178 + 0.05) / 0.05 = 4.56.
    assert made.colors[made.ink].tolist() == [255 if gray <= 117 else 0] * 3


SHARED = ["coolwarm", "RdBu", "PRGn", "YlOrBr", "copper", "ocean", "rainbow"]


def test_make_palette_name_of_several_catalogues_gives_no_warning() -> None:
    # cmap logs one, once a process, where a name without its catalogue could mean several maps.
    code = f"""if True:
        from cnnviz_fast.palette import make_palette
        for name in {SHARED}:
            make_palette(name, shows_background=False, shows_bad=False)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert set(SHARED) <= set(RAMPS), "whose colours are compared with matplotlib's above"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("virdis", r"^no colormap 'virdis'\. Closest: 'viridis'.*\. Any name of the cmap catalogue works"),
        ("qqqqqq", r"^no colormap 'qqqqqq'\. Any name of the cmap catalogue works, such as 'viridis' or 'gray'\.$"),
        ("../../etc/passwd", r"^no colormap"),
        ("viridis:", r"^no colormap"),
    ],
)
def test_make_palette_unknown_colormap_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        palette(name)


@pytest.mark.parametrize("option", ["background", "bad"])
@pytest.mark.parametrize("color", ["blak", "#12345", "(1, 2, 3)", "1"])
def test_make_palette_unknown_colour_is_refused(option: str, color: str) -> None:
    with pytest.raises(OptionError, match=rf"^{option} must be the name of a colour or #rrggbb, got '.*'\.$"):
        make_palette("gray", **{option: color}, shows_background=False, shows_bad=False)
