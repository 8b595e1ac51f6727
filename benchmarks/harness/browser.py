"""A browser whose pages time themselves: from what a user does to the moment at which the wall has been drawn."""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache
from typing import Any

import pytest

VIEW_PX = {"width": 1400, "height": 900}

# Frames come at once, since the wait for the screen's next is no work of the page. The first thing that a page does is
# to decode its program; the last of a frame is that pixels are put on the canvas of the wall.
_CLOCK = """
const clock = (window.clock = { begun: 0, drawn: null, first: 0 });
const decode = window.atob;
window.atob = (text) => ((clock.begun ||= performance.now()), decode(text));
const { port1, port2 } = new MessageChannel();
const waiting = new Map();
let frames = 0;
port1.onmessage = ({ data }) => {
    const draw = waiting.get(data);
    waiting.delete(data);
    draw?.(performance.now());
};
window.requestAnimationFrame = (draw) => (waiting.set(++frames, draw), port2.postMessage(frames), frames);
window.cancelAnimationFrame = (frame) => waiting.delete(frame);
for (const name of ["putImageData", "drawImage"]) {
    const put = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...given) {
        put.apply(this, given);
        if (!this.canvas.closest(".wall")) return;
        clock.first ||= performance.now();
        clock.drawn?.(performance.now());
    };
}
window.timed = (act) => new Promise((then) => {
    const begun = performance.now();
    clock.drawn = (drawn) => ((clock.drawn = null), then(drawn - begun));
    act();
});
window.choose = (label, value) => {
    const field = document.querySelector(`[aria-label="${label}"]`);
    if (field.value === value) return 0; // nothing is drawn
    return timed(() => {
        field.value = value;
        for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
    });
};
"""
_SETTLED = "() => document.querySelector('.method')"
"""The page has chosen how it draws."""


def skip_without() -> None:
    """Skip the case, with the reason, where there is no browser or nothing that drives it."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    if _path() is None:
        pytest.skip("no Chromium is installed")


def _path() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@cache
def _driver() -> Any:
    from playwright.sync_api import sync_playwright

    return sync_playwright().start()


@cache
def _chromium() -> Any:
    return _driver().chromium.launch(executable_path=_path(), args=["--no-sandbox"])


def close() -> None:
    """Close the browser, if it was opened, with its event loop."""
    if _chromium.cache_info().currsize:
        _chromium().close()
    if _driver.cache_info().currsize:
        _driver().stop()
    _chromium.cache_clear()
    _driver.cache_clear()


def opened(address: str) -> Any:
    """Open a page in a tab of its own, and return the tab once its first frame is there, or for a model its button."""
    tab = _chromium().new_page(viewport=VIEW_PX)
    tab.add_init_script(_CLOCK)
    tab.goto(address)
    tab.wait_for_function("() => clock.first || document.querySelector('.drop')")
    return tab


def first_wall(address: str) -> float:
    """Open a page, and return the seconds from the start of its script to its first wall."""
    tab = opened(address)
    seconds = tab.evaluate("clock.first - clock.begun") / 1e3
    tab.close()
    return float(seconds)


def settled(address: str) -> Any:
    """Open a page, and return the tab once it has chosen how it draws."""
    tab = opened(address)
    tab.wait_for_function(_SETTLED)
    return tab


def timed(tab: Any, script: str, argument: Any = None) -> float:
    """Return the seconds that a script in a tab tells, which returns what `timed` or `choose` do."""
    return float(tab.evaluate(script, argument)) / 1e3
