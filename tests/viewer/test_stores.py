"""The application where data lie beside the page or behind a server, and with a model behind it that takes images."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

import pytest
from support.viewer_pages import demo, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Route

    Serve = Callable[..., list[Request]]

SITE = "http://localhost:8999/"
"""Of a server that is not there: its answers are made here."""

IMAGES, AT_ONCE = 2500, 50


@pytest.fixture
def serve(tab: Page, tmp_path: Path) -> Serve:
    """Return what answers the tab's requests, and lists them."""

    def answer(
        catalogue: dict[str, Any], payloads: dict[str, bytes], live: Callable[[Request], Any] = str
    ) -> list[Request]:
        asked: list[Request] = []

        def reply(route: Route) -> None:
            request = route.request
            asked.append(request)
            url = urlparse(request.url)
            kind, _, rest = url.path[1:].partition("/")
            if kind == "":
                route.fulfill(body=page_of(catalogue, {}), content_type="text/html")
            elif kind == "data" and rest in payloads:
                route.fulfill(body=payloads[rest])
            elif kind == "images":
                first = int(parse_qs(url.query)["first"][0])
                route.fulfill(json={"images": [image_of(n) for n in range(first, min(first + AT_ONCE, IMAGES))]})
            elif kind == "sheet":
                route.fulfill(body=b"png of the package")
            elif kind == "live":
                body = live(request)
                route.fulfill(
                    status=200 if isinstance(body, dict) else 400,
                    body=json.dumps(body) if isinstance(body, dict) else body,
                )
            else:
                route.fulfill(status=404, body="There is nothing under that key.")

        tab.route(f"{SITE}**", reply)
        return asked

    return answer


def image_of(number: int) -> dict[str, Any]:
    """Return an image of a long list, whose maps are those of one of two images."""
    return {
        "id": number % 2,
        "name": f"image {number}",
        "width": 16,
        "height": 16,
        "photo": None,
        "absent": [],
        "attribution": [],
    }


def paths(asked: list[Request], kind: str) -> list[str]:
    """Return what of a kind was asked for, each once."""
    return sorted({request.url.removeprefix(SITE) for request in asked if request.url.startswith(SITE + kind)})


def test_folder_loads_what_is_looked_at(tab: Page, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path, store="scripts")
    (tmp_path / "data").mkdir()
    for key, payload in payloads.items():
        (tmp_path / "data" / f"{key}.js").write_text(f'cnnviz.put("{key}","{base64.b64encode(payload).decode()}")')
    (tmp_path / "index.html").write_text(page_of(catalogue, {}))
    loaded: list[str] = []
    tab.on("request", lambda request: loaded.append(Path(request.url).name))
    tab.goto((tmp_path / "index.html").as_uri())
    tab.get_by_text("6 channels of 4 × 4", exact=True).wait_for()
    assert {name for name in loaded if name.startswith("a-")} == {"a-0-0-0.js"}
    tab.keyboard.press("]")
    tab.get_by_role("grid", name="6 channels of body.0.conv").wait_for()
    assert {name for name in loaded if name.startswith("a-")} == {"a-0-0-0.js", "a-0-1-0.js"}


def test_server_is_asked_for_what_is_looked_at(tab: Page, serve: Serve, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path, store="server")
    run = catalogue["runs"][0]
    catalogue["runs"] = [run | {"images": [image_of(n) for n in range(AT_ONCE)], "image_count": IMAGES}]
    asked = serve(catalogue | {"has_token": True}, payloads)
    tab.goto(SITE)
    tab.get_by_text("6 channels of 4 × 4", exact=True).wait_for()
    tab.get_by_role("button", name="Copy link").click()
    tab.get_by_text("link copied. It opens where the address with the token").wait_for()
    assert paths(asked, "data/a") == ["data/a-0-0-0"]
    tab.get_by_label("Image number").fill("2376")
    tab.get_by_label("Image number").press("Enter")
    tab.get_by_text("image 2375", exact=True).wait_for()
    assert paths(asked, "images") == ["images/0?first=2350"]
    tab.get_by_text("Take along").click()
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save PNG").click()
    assert saved.value.path().read_bytes() == b"png of the package"
    assert paths(asked, "sheet") == ["sheet/a-0-0-1?colormap=viridis&upsampling=bilinear"]


def test_what_failed_is_asked_for_again(tab: Page, serve: Serve, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path, store="server")
    missing = payloads.pop("a-0-1-0")
    serve(catalogue, payloads)
    tab.goto(SITE)
    tab.get_by_role("grid").wait_for()
    tab.keyboard.press("]")
    tab.get_by_role("alert").get_by_text("nothing under that key").wait_for()
    payloads["a-0-1-0"] = missing
    tab.get_by_title("body.0.conv").click()
    tab.get_by_role("grid", name="6 channels of body.0.conv").wait_for()


def test_live_image_is_chosen_and_followed(tab: Page, serve: Serve, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path, store="server")
    (run, _), catalogue["runs"] = catalogue["runs"], []
    names = [layer["name"] for layer in run["layers"]]
    catalogue["live"] = {
        "token": "secret",
        "layers": names,
        "chosen": names[:1],
        "size": 224,
        "most_px": 512,
        "crop": "center",
        "limit_bytes": 9000,
    }

    def look(request: Request) -> Any:
        asked_for = parse_qs(urlparse(request.url).query)["layer"]
        if request.post_data_buffer == b"damaged":
            return "the image cannot be read."
        layers = [layer for layer in run["layers"] if layer["name"] in asked_for]
        return run | {"layers": layers, "images": run["images"][:1], "image_count": 1}

    asked = serve(catalogue, payloads, look)
    tab.goto(SITE)
    assert tab.get_by_text("Drop or paste an image anywhere").is_visible()
    photo = {"name": "cat.png", "mimeType": "image/png", "buffer": payloads["p-0-0"]}
    tab.locator("#file").set_input_files(photo)
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    sent = [request for request in asked if request.method == "POST"]
    assert sent[0].headers["x-cnnviz-token"] == "secret"
    assert sent[0].post_data_buffer == payloads["p-0-0"]
    tab.get_by_title("body.0.norm").click()  # another layer of the same image
    tab.get_by_role("grid", name="6 channels of body.0.norm").wait_for()
    tab.get_by_label("Size").fill("96")
    tab.get_by_label("Size").press("Enter")
    tab.get_by_label("Crop").select_option("pad")
    tab.get_by_role("grid", name="6 channels of body.0.norm").wait_for()
    tab.wait_for_function(
        "() => performance.getEntriesByType('resource').filter(({name}) => name.includes('/live')).length >= 4"
    )
    assert paths(asked, "live")[-1] == "live?crop=pad&size=96&name=cat.png&layer=stem&layer=body.0.norm"
    tab.locator("#file").set_input_files(photo | {"buffer": b"damaged"})
    tab.get_by_text("the image cannot be read.").wait_for()
    tab.locator("#file").set_input_files(photo | {"buffer": bytes(9001)})
    tab.get_by_text("at most 9,000 bytes").wait_for()
    tab.get_by_title("body.1").click()  # of the image that is shown
    tab.get_by_role("grid", name="6 channels of body.1").wait_for()
    assert [request for request in asked if request.method == "POST"][-1].post_data_buffer == payloads["p-0-0"]


def test_size_that_a_live_model_fails_on_is_taken_back(tab: Page, serve: Serve, tmp_path: Path) -> None:
    open_live(tab, serve, tmp_path)
    tab.locator("#file").set_input_files({"name": "a", "mimeType": "image/png", "buffer": b"bytes"})
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    tab.route(f"{SITE}live**", lambda route: route.fulfill(status=400, body="the model failed."))
    tab.get_by_label("Size").fill("7")
    tab.get_by_label("Size").press("Enter")
    tab.get_by_text("the model failed.").wait_for()
    assert tab.get_by_label("Size").input_value() == "224"


def test_server_that_was_stopped_is_told_of(tab: Page, serve: Serve, tmp_path: Path) -> None:
    catalogue, payloads = demo(tmp_path, store="server")
    run = catalogue["runs"][0]
    catalogue["runs"] = [run | {"images": [image_of(n) for n in range(AT_ONCE)], "image_count": IMAGES}]
    serve(catalogue, payloads)
    tab.goto(SITE)
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    tab.route(f"{SITE}**", lambda route: route.abort("connectionrefused"))
    tab.get_by_text("Take along").click()
    tab.get_by_role("button", name="Save PNG").click()
    said = "The server does not answer. It may have been stopped."
    tab.locator(".notice", has_text=said).wait_for()
    for address in ("#1;l=body.1", "#1;i=2345"):
        tab.evaluate("address => { location.hash = address }", address)
        tab.get_by_role("alert").filter(has_text=said).wait_for()
        tab.evaluate("location.hash = '#1'")
        tab.get_by_role("grid", name="6 channels of stem").wait_for()


def test_live_layout_is_that_of_the_latest_image(tab: Page, serve: Serve, tmp_path: Path) -> None:
    open_live(tab, serve, tmp_path)
    for name in ("first", "second"):
        tab.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": name.encode()})
        tab.get_by_role("grid", name="6 channels of stem").wait_for()
        tab.get_by_label("Sort", exact=True).select_option("layout")
        tab.wait_for_function("() => document.querySelector('[role=grid]').ariaColCount === '2'")
    tab.wait_for_function(
        "() => performance.getEntriesByType('resource').filter(({name}) => name.endsWith('/data/y')).length === 2"
    )


def test_page_of_another_machine_says_that_it_has_no_camera(tab: Page, serve: Serve, tmp_path: Path) -> None:
    open_live(tab, serve, tmp_path)
    tab.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")  # as browsers do
    tab.get_by_role("button", name="Camera").click()
    tab.get_by_text("No camera").wait_for()


def test_live_model_of_clips_is_asked_for_no_size(tab: Page, serve: Serve, tmp_path: Path) -> None:
    asked = open_live(tab, serve, tmp_path, size=0)
    tab.locator("#file").set_input_files({"name": "a", "mimeType": "image/png", "buffer": b"bytes"})
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    assert paths(asked, "live") == ["live?crop=center&name=a&layer=stem"]
    assert not tab.get_by_label("Size").is_visible()


def test_live_planes_of_a_layer_are_chosen(tab: Page, serve: Serve, tmp_path: Path) -> None:
    planes = ("stem@t0", "stem@t1", "body@t0", "body@t1")
    asked = open_live(tab, serve, tmp_path, size=0, layers=["stem", "body"], made=planes)
    tab.locator("#file").set_input_files({"name": "a", "mimeType": "image/png", "buffer": b"bytes"})
    tab.get_by_role("grid", name="6 channels of stem@t0").wait_for()
    tab.get_by_title("stem@t1").click()
    tab.get_by_role("grid", name="6 channels of stem@t1").wait_for()
    tab.get_by_title("body", exact=True).click()  # which has not been asked for yet
    tab.get_by_role("grid", name="6 channels of body@t0").wait_for()
    assert [path for path in paths(asked, "live") if path.endswith("layer=stem&layer=body")]
    tab.get_by_title("stem", exact=True).click()
    tab.get_by_role("grid", name="6 channels of stem@t0").wait_for()
    assert len([request for request in asked if request.method == "POST"]) == 2


def test_live_size_is_at_most_what_the_server_takes(tab: Page, serve: Serve, tmp_path: Path) -> None:
    open_live(tab, serve, tmp_path)
    tab.get_by_label("Size").fill("513")
    tab.get_by_label("Size").press("Enter")
    tab.get_by_text("The size must be 1 to 512 px.").wait_for()


def test_live_drop_of_what_is_no_file_is_said(tab: Page, serve: Serve, tmp_path: Path) -> None:
    open_live(tab, serve, tmp_path)
    tab.get_by_role("button", name="Drop or paste").wait_for()
    drop = """is_folder => {
        const items = is_folder ? [{ webkitGetAsEntry: () => ({ isDirectory: true }) }] : [];
        const dataTransfer = { files: [], items };
        window.dispatchEvent(Object.assign(new Event("drop", { cancelable: true }), { dataTransfer }));
    }"""
    tab.evaluate(drop, True)
    tab.get_by_text("That is a folder.").wait_for()
    tab.evaluate(drop, False)
    tab.get_by_text("That is no file.").wait_for()


def open_live(
    tab: Page,
    serve: Serve,
    tmp_path: Path,
    size: int = 224,
    layers: Sequence[str] = ("stem",),
    made: Sequence[str] | None = None,
) -> list[Request]:
    """Open the page of a model that shows layers of any image, and return what is asked of its server.

    Args:
        tab: to open it in.
        serve: the fixture.
        tmp_path: for files on the way.
        size: of the view in px; 0 for clips.
        layers: of the model; the first one is looked at unless others are chosen.
        made: names of what they give, of those that are asked for; None for the layers that the catalogue has.
    """
    catalogue, payloads = demo(tmp_path, store="server")
    (run, _), catalogue["runs"] = catalogue["runs"], []
    if made is not None:
        run["layers"] = [layer | {"name": name} for layer, name in zip(run["layers"], made, strict=True)]
    catalogue["live"] = {
        "token": "t",
        "layers": list(layers),
        "chosen": list(layers[:1]),
        "size": size,
        "most_px": 512,
        "crop": "center",
        "limit_bytes": 9_000_000,
    }

    def look(request: Request) -> Any:
        wanted = parse_qs(urlparse(request.url).query)["layer"]
        shown = [layer for layer in run["layers"] if made is None or layer["name"].partition("@")[0] in wanted]
        return run | {"layers": shown, "images": [run["images"][0] | {"absent": []}], "image_count": 1}

    asked = serve(catalogue, payloads, look)
    tab.goto(SITE)
    return asked


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_live_image_is_dropped_and_pasted(tab: Page, serve: Serve, tmp_path: Path, kind: str) -> None:
    asked = open_live(tab, serve, tmp_path)
    tab.get_by_role("button", name="Drop or paste").wait_for()
    tab.evaluate(
        """kind => {
            const files = new DataTransfer();
            files.items.add(new File(["bytes"], "cat.png", { type: "image/png" }));
            const event = kind === "drop"
                ? new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true })
                : new ClipboardEvent(kind, { clipboardData: files, bubbles: true });
            document.body.dispatchEvent(event);
        }""",
        kind,
    )
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    assert [request.post_data for request in asked if request.method == "POST"] == ["bytes"]


def test_live_image_is_taken_by_the_camera(tab: Page, serve: Serve, tmp_path: Path) -> None:
    tab.context.grant_permissions(["camera"])
    asked = open_live(tab, serve, tmp_path)
    tab.get_by_role("button", name="Camera").click()
    tab.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")
    tab.get_by_role("button", name="Take").click()
    tab.get_by_role("grid", name="6 channels of stem").wait_for()
    (sent,) = [request for request in asked if request.method == "POST"]
    assert sent.post_data_buffer is not None
    assert sent.post_data_buffer[1:4] == b"PNG"
    tab.get_by_role("button", name="Close").click()
    assert tab.locator("video").count() == 0
