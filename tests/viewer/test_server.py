"""The server: what it answers, to whom, and that nothing else ever leaves the run."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import socket
import string
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest
import torch
import uvicorn
from anyio import sleep_forever
from anyio.from_thread import start_blocking_portal
from PIL import Image
from support.runs import make_images, small_model

import cnnviz_fast as cf
from cnnviz_fast.errors import AtlasError, CnnvizError, OptionError
from cnnviz_fast.models.preprocess import Preprocessing
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.runtime import extras
from cnnviz_fast.viewer.collection import Collection
from cnnviz_fast.viewer.commands import Recipe
from cnnviz_fast.viewer.opening import open_collection
from cnnviz_fast.viewer.photos import Photos
from cnnviz_fast.viewer.server import apart
from cnnviz_fast.viewer.server import app as answers
from cnnviz_fast.viewer.server.app import application
from cnnviz_fast.viewer.server.live import LiveRun
from cnnviz_fast.viewer.server.safety import Access
from cnnviz_fast.viewer.server.serving import bound_socket, refuse_without_extra, serve

SECRET = b"what no answer may hold"


class Answer:
    """The answer of an application to a request."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


_portal: list[Any] = []


@pytest.fixture(scope="module", autouse=True)
def _event_loop() -> Iterator[None]:
    """Run an event loop in a thread: this one may have that of a browser."""
    with start_blocking_portal() as portal:
        _portal[:] = [portal]
        yield


def ask(
    app: Any, target: str, method: str = "GET", body: bytes = b"", *, leaves: bool = False, **headers: str
) -> Answer:
    """Ask an application as uvicorn does; `_` in names of headers stands for `-`. `leaves`: before all is sent."""
    raw, _, query = target.partition("?")
    named = {"host": "localhost:8720", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(raw), "raw_path": raw.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8720),
    }  # fmt: skip
    sent: list[Any] = []
    pending: list[dict[str, Any]] = [{"type": "http.disconnect"}] if leaves else []
    pending.append({"type": "http.request", "body": body, "more_body": leaves})

    async def receive() -> dict[str, Any]:
        return pending.pop() if pending else await sleep_forever()  # nobody hangs up

    async def send(message: Any) -> None:
        sent.append(message)

    _portal[0].call(app, scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(part.get("body", b"") for part in sent[1:]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a secret beside it, photos, and runs over them: in files, and with all else in tars."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.atlas").write_bytes(SECRET)
    (folder / "secret.txt").write_bytes(SECRET)
    make_images(folder / "photos", 5)
    for name, more in (("loose", {}), ("tars", {"shards": 1})):
        save = "atlases,statistics,top" if more else "atlases"
        photos = str(folder / "photos")
        cf.run(small_model(), photos, ["0", "2"], folder / name, save=save, readers=0, progress="none", **more)
    return folder


@pytest.fixture(scope="module")
def app(folder: Path) -> Any:
    shown = open_collection([folder / "loose", folder / "tars"], Photos(folder / "photos"))
    return application(shown, Access("127.0.0.1", 8720))


def catalogue_in(answer: Answer) -> dict[str, Any]:
    found = re.search(rb'id="catalogue">(.*?)</script>', answer.body, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_page_has_the_runs_and_answers_carry_what_they_forbid(app: Any) -> None:
    answer = ask(app, "/")
    assert answer.status == 200
    catalogue = catalogue_in(answer)
    assert catalogue["store"] == "server"
    assert [(run["name"], run["image_count"]) for run in catalogue["runs"]] == [("loose", 5), ("tars", 5)]
    for each in (answer, ask(app, "/nothing"), ask(app, "/", host="evil.example")):
        assert each.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in each.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in each.headers["content-security-policy"]
        assert not [name for name in each.headers if name.startswith("access-control-")]


def test_data_is_what_lies_in_files_and_tars(app: Any, folder: Path) -> None:
    for run in (0, 1):
        for layer, name in enumerate(("0", "2")):
            for image in range(5):
                answer = ask(app, f"/data/a-{run}-{layer}-{image}")
                assert answer.body == (folder / "loose" / name / f"p{image:04d}.atlas").read_bytes()
                assert answer.headers["content-length"] == str(len(answer.body))
    assert ask(app, "/data/p-1-3").headers["content-type"] == "image/jpeg"
    assert ask(app, "/data/s-1-0").status == 200
    assert ask(app, "/data/o-0-1").status == 200
    assert ask(app, "/data/x-1-1-9").body.startswith(b"\xff\xd8")
    gone = ask(app, "/data/x-0-1-9")  # of a run that kept no strongest images
    assert (gone.status, gone.body.decode()) == (404, answers.GONE)


def test_range_of_data_is_that_part_of_it(app: Any) -> None:
    whole = ask(app, "/data/a-1-0-2").body
    for wanted, part in [
        ("bytes=0-4", whole[:5]), ("bytes=7-", whole[7:]), ("bytes=-3", whole[-3:]), ("bytes=5-99999", whole[5:]),
    ]:  # fmt: skip
        answer = ask(app, "/data/a-1-0-2", range=wanted)
        assert (answer.status, answer.body) == (206, part)
        assert answer.headers["content-range"].endswith(f"/{len(whole)}")
    assert ask(app, "/data/a-1-0-2", range="bytes=999999-").status == 416
    for wanted in ("bytes=", "bytes=-", "lines=1-2", "bytes=1-2,4-5", "bytes=a-b"):  # which a server may pass over
        assert ask(app, "/data/a-1-0-2", range=wanted).body == whole


def test_head_is_answered_and_other_methods_are_refused(app: Any) -> None:
    answer = ask(app, "/data/a-0-0-0", "HEAD")  # whose body uvicorn leaves out
    assert (answer.status, answer.headers) == (200, ask(app, "/data/a-0-0-0").headers)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"):
        for path in ("/", "/data/a-0-0-0", "/images/0"):
            assert ask(app, path, method).status == 405
    assert ask(app, "/live", "POST").status == 404


def test_images_come_page_by_page(app: Any) -> None:
    images = json.loads(ask(app, "/images/0?first=3").body)["images"]
    assert [image["id"] for image in images] == [3, 4]
    for target in ("/images/2", "/images/0?first=5", "/images/-1", "/images/0?first=x", "/images/9999999999"):
        assert ask(app, target).status == 404


def test_sheet_is_that_of_the_renderer(app: Any, folder: Path, tmp_path: Path) -> None:
    answer = ask(app, "/sheet/a-0-1-2?colormap=magma&normalize=layer&channels=5,3&tile=20")
    assert answer.headers["content-type"] == "image/png"
    atlas = cf.read_atlas(folder / "loose" / "2" / "p0002.atlas")
    sheet = cf.render(
        atlas.maps, provenance=atlas.provenance, colormap="magma", normalize="layer", channels="5,3", tile=20
    )
    (tmp_path / "a.png").write_bytes(answer.body)
    with Image.open(tmp_path / "a.png") as drawn:
        assert (drawn.convert("RGB").tobytes(), drawn.size) == (sheet.rgb().tobytes(), sheet.pil().size)
    for wrong in ("tile=0", "nothing=1", "colormap=no", "channels=99", "tile=2&tile=3", "backend=torch", "tile=20000"):
        assert ask(app, f"/sheet/a-0-1-2?{wrong}").status == 400
    assert ask(app, "/sheet/p-0-0").status == 404


def test_sheet_of_huge_tiles_is_refused_before_it_is_planned(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz_fast.sheets.plan.plan_sheet", None)
    for huge in ("tile=99999999", "tile=20000x9000", "scale=50000"):
        assert ask(app, f"/sheet/a-0-1-2?{huge}").status == 400


TRAVERSALS = [
    f"{start}{step * 4}{name}"
    for start in ("/", "/data/", "/sheet/", "/images/")
    for step, name in [
        ("../", "secret.txt"), ("%2e%2e/", "secret.txt"), ("..%2f", "secret.txt"), ("%2e%2e%2f", "secret.txt"),
        ("..\\", "secret.txt"), ("..%5c", "secret.txt"), ("%252e%252e%252f", "secret.txt"), ("....//", "secret.txt"),
        ("..%c0%af", "secret.txt"), ("..%u2215", "secret.txt"), ("..;/", "secret.txt"), ("..%00/", "secret.txt"),
    ]
]  # fmt: skip


def test_traversals_find_nothing(app: Any, folder: Path) -> None:
    assert len(TRAVERSALS) >= 40
    whole = [f"/data/{quote(str(folder / 'secret.txt'), safe='')}", f"/data/{folder}/secret.txt", "//etc/passwd"]
    for target in (*TRAVERSALS, *whole, "/data/file:%2f%2f%2fetc%2fpasswd", "/static/viewer.js", "/run.json"):
        answer = ask(app, target)
        assert answer.status == 404, target
        assert SECRET not in answer.body


HOSTS = {
    "localhost:8720": True, "127.0.0.1:8720": True, "[::1]:8720": True, "LOCALHOST:8720": True,
    "localhost": False, "127.0.0.1": False, "localhost:80": False, "localhost:8721": False, "evil.example": False,
    "evil.example:8720": False, "localhost.evil.example:8720": False, "127.0.0.1.nip.io:8720": False, "": False,
    ":8720": False, "localhost:8720:8720": False, "localhost:8720@evil.example": False, "evil@localhost:8720": False,
    "0.0.0.0:8720": False, "[::]:8720": False, "127.1:8720": False, "2130706433:8720": False, "localhost.:8720": False,
    "localhost :8720": False, "192.168.0.1:8720": False, "[::1]": False, "[::1:8720": False, "localhost:+8720": False,
    "localhost:08720": False, "xn--lcalhost-9db:8720": False, "localhost:8720/": False,
}  # fmt: skip
ORIGINS = {
    "http://localhost:8720": 200, "https://localhost:8720": 403, "http://localhost": 403, "null": 403, "": 403,
    "http://evil.example": 403, "http://localhost:8720.evil.example": 403, "http://127.0.0.1:8720": 403,
    "file://": 403, "http://localhost:8721": 403, "chrome-extension://abc": 403,
}  # fmt: skip


def test_only_the_servers_own_names_and_pages_are_answered(app: Any) -> None:
    assert len(HOSTS) >= 30
    for host, answered in HOSTS.items():
        assert (ask(app, "/data/a-0-0-0", host=host).status == 200) is answered, host
    for origin, status in ORIGINS.items():
        assert ask(app, "/data/a-0-0-0", origin=origin).status == status, origin
    for site, mode, path, status in [
        ("same-origin", "cors", "/data/a-0-0-0", 200), ("none", "navigate", "/", 200),
        ("cross-site", "navigate", "/", 200), ("cross-site", "no-cors", "/", 403),
        ("cross-site", "navigate", "/data/a-0-0-0", 403), ("same-site", "cors", "/images/0", 403),
    ]:  # fmt: skip
        assert ask(app, path, sec_fetch_site=site, sec_fetch_mode=mode).status == status


def test_another_host_needs_the_token(folder: Path) -> None:
    app = application(open_collection([folder / "loose"]), Access("192.168.0.7", 8720, "the token"))
    own = {"host": "192.168.0.7:8720"}
    for target in ("/", "/data/a-0-0-0", "/images/0", "/?token=", "/?token=the", "/data/a-0-0-0?token=the%20token"):
        assert ask(app, target, **own).status == 401
    first = ask(app, "/?token=the%20token", **own)
    assert (first.status, first.headers["location"]) == (303, "/")
    kept = first.headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=Lax" in kept
    cookie = 'cnnviz-8720="the token"'
    assert catalogue_in(ask(app, "/", cookie=cookie, **own))["has_token"] is True
    assert ask(app, "/data/a-0-0-0", cookie=cookie, **own).status == 200
    assert ask(app, "/data/a-0-0-0", cookie="cnnviz-8721=the", **own).status == 401
    assert ask(app, "/data/a-0-0-0", cookie=cookie, host="evil.example:8720").status == 421


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.long)])
def test_random_requests_find_no_secret_and_no_fault(app: Any, count: int) -> None:
    randomly = random.Random(0)
    parts = ["data", "images", "sheet", "live", "..", "a-0-0-0", "p-0-0", "a-1-1-4", "x-1-0-0", "0", "%2e%2e", "?", "="]
    parts += ["first", "tile", "channels", "&", "-", "%00", "%ff", "\\", "a-0-0-99", "s-1-0", "1e9", "NaN", ";"]
    seen = set()
    for _ in range(count):
        some = [
            randomly.choice(parts) if randomly.random() < 0.8 else "".join(randomly.choices(string.printable, k=3))
            for _ in range(randomly.randrange(1, 6))
        ]
        target = quote("/" + randomly.choice(["/", "", "-"]).join(some), safe="/?%=&-.;\\")
        answer = ask(app, target, randomly.choice(["GET", "GET", "GET", "HEAD", "POST", "PUT"]))
        assert answer.status < 500, target
        assert SECRET not in answer.body
        seen.add(answer.status)
    assert {200, 404, 405} <= seen


def test_names_in_the_index_lead_nowhere_else(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "loose", run)
    lines = (run / "index.jsonl").read_text().splitlines(keepends=True)
    secret = os.path.relpath(folder / "secret.atlas", run)
    for position, name in ((2, secret), (4, str(folder / "secret.atlas")), (6, "0/link.atlas")):
        row = json.loads(lines[position])
        row["files"] = [name]
        lines[position] = json.dumps(row) + "\n"
    (run / "index.jsonl").write_text("".join(lines))
    (run / "0" / "link.atlas").symlink_to(folder / "secret.atlas")
    app = application(open_collection([run], Photos(tmp_path)), Access("127.0.0.1", 8720))
    found = [ask(app, f"/data/a-0-0-{image}") for image in range(5)]
    assert [answer.status for answer in found] == [200, 400, 400, 400, 200]
    assert not [answer for answer in found if SECRET in answer.body]
    assert "leads out of the folder" in found[1].body.decode()
    assert ask(app, "/data/p-0-0").status == 404  # a photo that is not in the folder of photos


def test_photos_that_are_links_out_of_their_folder_are_not_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p0000.png").symlink_to(folder / "photos" / "p0000.png")
    photos = Photos(tmp_path)
    assert photos.find(str(folder / "photos" / "p0000.png")) is None
    assert photos.find("../" * 9 + "etc/passwd") is None
    assert Photos(folder / "photos").find("/elsewhere/photos/p0000.png") == (folder / "photos" / "p0000.png")
    with pytest.raises(cf.CnnvizError, match="must be a folder"):
        Photos(tmp_path / "nothing")


def test_damaged_runs_are_answered_without_a_fault(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "tars", run)
    index = run / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    row = json.loads(lines[4])
    lines[4] = json.dumps({**row, "shape": "x", "files": 3}) + "\n"
    lines[6] = json.dumps({**json.loads(lines[6]), "end": "x", "shard": "../../secret.tar"}) + "\n"
    index.write_text("".join(lines) + '{"key": "cut off')
    for name in ("statistics.safetensors", "top.safetensors"):
        (run / name).write_bytes(b"damaged")
    app = application(open_collection([run]), Access("127.0.0.1", 8720))
    run_entry = catalogue_in(ask(app, "/"))["runs"][0]
    assert run_entry["image_count"] == 5
    assert run_entry["images"][2]["absent"] == [0]
    statuses = [ask(app, f"/data/{key}-0-{n}-{m}").status for key in "aosx" for n in range(2) for m in range(5)]
    assert max(statuses) < 500
    assert ask(app, "/data/a-0-0-0").status == 200


def test_arrangement_of_a_layer_without_atlases_names_it(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "loose", run)
    app = application(open_collection([run]), Access("127.0.0.1", 8720))
    for atlas in (run / "2").iterdir():
        atlas.write_bytes(b"damaged")
    answer = ask(app, "/data/o-0-1")
    assert (answer.status, answer.body) == (400, b"no atlas of 2 can be read.")


def test_index_that_is_damaged_is_noted(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "loose", run)
    index = run / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-9])  # as while it is written
    assert open_collection([run]).notes == []
    lines = whole.splitlines(keepends=True)
    index.write_bytes(b"".join([*lines[:5], b"damaged\n", *lines[6:]]))
    shown = open_collection([run])
    assert shown.runs[0].image_count == 2
    assert shown.notes == ["the index of run 'run' is damaged, and what is behind the damage is not shown."]


@pytest.mark.parametrize("junk", [[[1]], {}, "x", 10**30, 1e400, -1])
def test_any_field_of_a_line_may_be_damaged(folder: Path, tmp_path: Path, junk: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "tars", run)
    rows = list(map(json.loads, (run / "index.jsonl").read_text().splitlines()))
    for row, name in zip(rows, ("image", "layer", "shape", "end", "files", "shard"), strict=False):
        row[name] = junk
    (run / "index.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    app = application(open_collection([run]), Access("127.0.0.1", 8720))
    assert catalogue_in(ask(app, "/"))["runs"][0]["image_count"] == 5
    assert max(ask(app, f"/data/a-0-{n}-{m}").status for n in range(2) for m in range(5)) < 500


@pytest.mark.parametrize(
    ("name", "junk"), [("input_size", 5), ("input_size", [1]), ("input_size", [float("nan"), 1]), ("size", [1, 2, 3])]
)
def test_field_that_is_none_is_left_out(tmp_path: Path, name: str, junk: Any) -> None:
    field = {"size": [3, 3], "stride": [2, 2], "offset": [0, 0], "input_size": [8, 8], name: junk}
    path = cf.save_atlas(torch.rand(2, 4, 4), tmp_path / "a.atlas", provenance=Provenance(field=field))
    app = application(open_collection([path]), Access("127.0.0.1", 8720))
    (run,) = catalogue_in(ask(app, "/"))["runs"]
    assert run["layers"][0]["field"] is None
    assert (run["images"][0]["height"], run["images"][0]["width"]) == (4, 4)


def test_statistics_of_no_layers_are_left_out(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "tars", run)
    content = (run / "statistics.safetensors").read_bytes()
    damaged = re.sub(rb'(layers\\":\s*)(\[.*?\])', lambda found: found[1] + b"5".ljust(len(found[2])), content, count=1)
    assert damaged != content
    (run / "statistics.safetensors").write_bytes(damaged)
    assert open_collection([run]).runs[0].image_count == 5


@pytest.fixture(scope="module")
def live() -> LiveRun:
    return LiveRun(small_model(), ["2"], Recipe("net.py:make"))


@pytest.fixture
def live_app(folder: Path, live: LiveRun) -> tuple[Any, str]:
    shown = open_collection([folder / "loose"])
    shown.runs = [*shown.runs, live]
    access = Access("127.0.0.1", 8720)
    return application(shown, access, live), access.upload_token


def test_live_image_is_shown_as_the_page_of_the_same_image(
    live_app: tuple[Any, str], folder: Path, tmp_path: Path
) -> None:
    app, token = live_app
    photo = folder / "photos" / "p0001.png"
    answer = ask(app, "/live?layer=0&layer=2", "POST", photo.read_bytes(), x_cnnviz_token=token)
    run = json.loads(answer.body)
    assert [layer["name"] for layer in run["layers"]] == ["0", "2"]
    (image,) = run["images"]
    batch = cf.load_images(photo, small_model())
    expected = cf.capture(small_model(), batch, ["0", "2"])
    for layer in run["layers"]:
        (tmp_path / "a.atlas").write_bytes(ask(app, f"/data/a-1-{layer['id']}-{image['id']}").body)
        atlas = cf.read_atlas(tmp_path / "a.atlas")
        assert torch.equal(atlas.vmax, expected[layer["name"]][0].amax((1, 2)))
    assert ask(app, f"/data/{image['photo']}").body.startswith(b"\xff\xd8")
    assert ask(app, f"/data/{run['layers'][0]['kernels']}").status == 200
    assert ask(app, f"/data/{run['layers'][1]['similarity']}").status == 200
    catalogue = catalogue_in(ask(app, "/"))
    assert [each["name"] for each in catalogue["runs"]] == ["loose"]
    assert catalogue["live"]["chosen"] == ["2"]
    assert catalogue["live"]["token"] == token


def test_live_follows_size_and_crop(live_app: tuple[Any, str], folder: Path) -> None:
    app, token = live_app
    content = (folder / "photos" / "p0002.png").read_bytes()
    for asked, height in (("size=48", 12), ("crop=squash", 6), ("size=32&crop=pad", 8), ("", 6)):
        answer = ask(app, f"/live?{asked}", "POST", content, x_cnnviz_token=token)
        (layer,) = json.loads(answer.body)["layers"]
        assert (layer["name"], layer["height"]) == ("2", height)


def test_live_line_draws_what_was_looked_at_or_is_not_offered(live_app: tuple[Any, str], folder: Path) -> None:
    app, token = live_app
    content = (folder / "photos" / "p0002.png").read_bytes()
    for asked, size in (("name=a%20b.png", ""), ("crop=squash&size=48", " --size 48x48"), ("size=48", None)):
        run = json.loads(ask(app, f"/live?{asked}", "POST", content, x_cnnviz_token=token).body)
        line = None if size is None else f"cnnviz render net.py:make {{image}} --layer {{layer}}{size}{{options}}"
        assert (run["command"] and run["command"]["shell"]) == line
        assert run["images"][0]["name"] == ("a b.png" if "name" in asked else "image")


def test_upload_that_is_too_large_is_answered(live_app: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LIMIT_BYTES", 1000)
    listening = bound_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    shown = Collection("live", [LiveRun(small_model(), ["2"])])
    app = application(shown, access := Access("127.0.0.1", port), shown.runs[0])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with listening, start_blocking_portal() as portal:
        serving = portal.start_task_soon(server.serve, [listening])
        asking = http.client.HTTPConnection("127.0.0.1", port)
        asking.request("POST", "/live", bytes(20_000_000), {"x-cnnviz-token": access.upload_token})
        assert asking.getresponse().status == 413
        asking.close()
        server.should_exit = True
        serving.result()


def test_request_that_stops_being_http_is_cut_off_in_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made: list[uvicorn.Server] = []
    run = uvicorn.Server.run
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: (made.append(server), run(server, sockets)))
    listening = bound_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    thread = Thread(target=serve, args=(open_collection([folder]), listening, "127.0.0.1"))
    thread.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"GET /images/0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"no chunk\r\n\r\n")
        while connection.recv(1 << 16):
            pass
    made[0].should_exit = True
    thread.join()
    assert not capfd.readouterr().err
    assert not caplog.records


def test_live_keeps_the_latest_images_alone(live: LiveRun, live_app: tuple[Any, str], folder: Path) -> None:
    app, token = live_app
    content = (folder / "photos" / "p0003.png").read_bytes()
    ids = []
    for _ in range(8):
        run = json.loads(ask(app, "/live", "POST", content, x_cnnviz_token=token).body)
        ids.append((run["layers"][0]["id"], run["images"][0]["id"]))
    statuses = [ask(app, f"/data/a-1-{layer}-{image}").status for layer, image in ids]
    assert statuses == [404] * 2 + [200] * 6


def test_live_refuses_what_is_not_the_pages_or_no_image(
    live_app: tuple[Any, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, token = live_app
    content = (folder / "photos" / "p0000.png").read_bytes()
    for headers, status in [({}, 403), ({"x_cnnviz_token": "wrong"}, 403), ({"x_cnnviz_token": "\xff"}, 403)]:
        assert ask(app, "/live", "POST", content, **headers).status == status
    good = {"x_cnnviz_token": token}
    assert ask(app, "/live", "POST", content, origin="http://evil.example", **good).status == 403
    for target in ("/live?layer=nothing", "/live?size=0", "/live?crop=x", "/live?size=4000", "/live?layer=0*"):
        assert ask(app, target, "POST", content, **good).status == 400
    for wrong in (b"", b"no image", content[:60], SECRET):
        answer = ask(app, "/live", "POST", wrong, **good)
        assert answer.status == 400
        assert SECRET not in answer.body
    assert ask(app, "/live?size=x", "POST", content, **good).status == 404
    assert ask(app, "/live", "GET", **good).status == 405
    monkeypatch.setattr(answers, "LIMIT_BYTES", len(content) - 1)
    assert ask(app, "/live", "POST", content, **good).status == 413


def test_live_upload_that_is_broken_off_is_no_fault(live_app: tuple[Any, str]) -> None:
    app, token = live_app
    assert ask(app, "/live", "POST", b"some", leaves=True, x_cnnviz_token=token).status == 400


@pytest.mark.parametrize("where", ["module", "preprocess"])
def test_live_model_that_raises_anything_is_told_of_and_asked_again(folder: Path, where: str) -> None:
    failing: list[BaseException] = []

    class Failing(Preprocessing):
        def __call__(self, image: Any) -> Any:
            if where == "preprocess" and failing:
                raise failing.pop()
            return super().__call__(image)

    def fail(*given: Any) -> None:
        if where == "module" and failing:
            raise failing.pop()

    model = small_model()
    model.module[2].register_forward_pre_hook(fail)
    live = LiveRun(replace(model, preprocess=Failing(**vars(model.preprocess))), ["2"])
    app = application(Collection("live", [live]), access := Access("127.0.0.1", 8720), live)
    content, token = (folder / "photos" / "p0000.png").read_bytes(), {"x_cnnviz_token": access.upload_token}
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):
        failing.append(kind("no more"))
        answer = ask(app, "/live?name=cat.png", "POST", content, **token)
        assert answer.status == 400
        assert answer.body.decode() == f"the model failed on 'cat.png': {kind.__name__}: no more."
    assert ask(app, "/live", "POST", content, **token).status == 200


def test_what_needs_torch_is_made_in_a_process_that_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "sys", SimpleNamespace(modules={}))
    make = apart.Apart(idle_s=0.1)
    assert make(zlib.compress, b"ab") == zlib.compress(b"ab")
    with pytest.raises(CnnvizError, match="it cannot be made: error: Error -3"):
        make(zlib.decompress, b"ab")
    assert make._other is not None
    make._other[0].join()  # which has nothing to do
    assert make(zlib.compress, b"ab") == zlib.compress(b"ab")
    with pytest.raises(CnnvizError, match="has ended"):
        make(os._exit, 1)


def test_port_in_use_gives_the_next_one() -> None:
    with bound_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bound_socket("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 20
    with pytest.raises(OptionError, match="name or an address of this machine"):
        bound_socket("no such host.invalid", 0)


def test_port_is_shared_with_nobody_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)  # any that is there
    with bound_socket("127.0.0.1", 0) as listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0


def test_missing_extra_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(OptionError, match=r'pip install "cnnviz_fast\[view\]"'):
        refuse_without_extra()


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="holds no atlases"):
        open_collection([tmp_path])
