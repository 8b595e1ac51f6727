"""What the server answers. Nothing in a request is ever a path: numbers and keys are looked up in what is shown.

GET  /                             the page, with the catalogue inside
GET  images/RUN?first=N            the next images of a run
GET  data/KEY                      a payload, or with a Range header a part of it
GET  sheet/KEY?...                 a sheet as PNG, by the package's renderer; the names are those of RenderOptions
POST live?layer=L&size=S&crop=C&name=N    an image for the model, with the header X-Cnnviz-Token
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ...errors import CnnvizError, OptionError
from ...formats.atlas_files import AtlasFile
from ...options.drawing import RenderOptions
from ...runtime.untrusted import open_regular
from .. import html
from ..collection import PAGE, Collection, bytes_of
from ..computed import Compute, directly, sheet
from ..shown import Content
from .safety import Access, App, Guard

if TYPE_CHECKING:
    from .live import LiveRun

GONE = "That is not there: the run has changed, or later images have taken its place. Load the page again."
"""Shown in place of maps, since the page asks for what was there when it was loaded."""

LIMIT_BYTES = 32_000_000
"""Of an upload."""

MOST_NAME = 255
"""Letters of the name of an upload."""

PART_BYTES = 1 << 20
"""Of a file are read and sent at once."""

_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_NOT_DRAWN = ("backend", "threads", "report")
"""Options of a sheet that a request may not set."""


def application(shown: Collection, access: Access, live: LiveRun | None = None, compute: Compute = directly) -> App:
    """Return the application behind its guard.

    Args:
        shown: what it shows; of a live model the last run is what it makes.
        access: who may ask.
        live: the model; None for none.
        compute: calls what takes torch.
    """
    served = _Served(shown, access, live, compute)
    routes = [
        Route("/", served.page),
        Route("/images/{run}", served.images),
        Route("/data/{key}", served.data),
        Route("/sheet/{key}", served.sheet),
    ]
    if live is not None:
        routes.append(Route("/live", served.upload, methods=["POST"]))
    app = Starlette(routes=routes, exception_handlers=_ANSWERS)
    app.router.redirect_slashes = False
    return Guard(app, access, html.policy("server"))


class _Served:
    """The answers. What takes time runs beside the event loop: plain functions do, in starlette."""

    def __init__(self, shown: Collection, access: Access, live: LiveRun | None, compute: Compute) -> None:
        self._shown, self._access, self._live, self._compute = shown, access, live, compute

    def page(self, request: Request) -> Response:
        """Answer with the page."""
        catalogue = self._shown.catalogue("server", PAGE)
        catalogue["has_token"] = self._access.token is not None
        if self._live is not None:
            catalogue["runs"].pop()  # which the page gets when there is an image
            catalogue["live"] = self._live.facts(self._access.upload_token, LIMIT_BYTES)
        return Response(b"".join(html.page(catalogue)), media_type="text/html")

    def images(self, request: Request) -> Response:
        """Answer with a part of the images of a run."""
        run = self._number(request.path_params["run"], len(self._shown.runs))
        first = self._number(request.query_params.get("first", "0"), self._shown.runs[run].image_count)
        return Response(html.as_data({"images": self._shown.images(run, first)}), media_type="application/json")

    def data(self, request: Request) -> Response:
        """Answer with a payload, straight out of the file that holds it."""
        content = self._shown.content(request.path_params["key"])
        if content is None:
            raise HTTPException(404, GONE)
        return _sent(content, request.headers.get("range"))

    def sheet(self, request: Request) -> Response:
        """Answer with a sheet."""
        key, options = request.path_params["key"], _options_of(request.query_params.multi_items())
        content = self._shown.content(key) if key.startswith("a-") else None
        if content is None:
            raise HTTPException(404, GONE)
        name = content.name if isinstance(content, AtlasFile) else key
        return Response(self._compute(sheet, bytes_of(content), name, options), media_type="image/png")

    async def upload(self, request: Request) -> Response:
        """Answer with what the model makes of an image."""
        assert self._live is not None
        if not self._access.is_upload_token(request.headers.get("x-cnnviz-token")):
            raise HTTPException(403, "Only the page of this server may send images.")
        asked = request.query_params
        size = self._number(asked["size"], 1 << 16) if "size" in asked else None
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > LIMIT_BYTES:
                raise HTTPException(413, f"An image may have at most {LIMIT_BYTES // 1_000_000} MB.")
        number, layers, crop = len(self._shown.runs) - 1, asked.getlist("layer"), asked.get("crop", "center")
        name = html.printable(asked.get("name", "image"))[:MOST_NAME]
        return JSONResponse(await run_in_threadpool(self._live.look, number, bytes(content), layers, size, crop, name))

    def _number(self, text: str, below: int) -> int:
        """Return a number of a request; answer that there is nothing where it is not a number, or too large."""
        if _NUMBER.fullmatch(text) is None or int(text) >= max(below, 1):
            raise HTTPException(404, "There is nothing of that number.")
        return int(text)


def _options_of(given: list[tuple[str, str]]) -> RenderOptions:
    """Return the options of a sheet that a request names."""
    known = {field.name for field in dataclasses.fields(RenderOptions)} - set(_NOT_DRAWN)
    options: dict[str, Any] = {}
    for name, value in given:
        if name not in known or name in options:
            raise OptionError(f"option {name!r} is not one of sheets, or is given twice.")
        options[name] = {"true": True, "false": False}.get(value, value)
    return RenderOptions(**options)


def _sent(content: Content, wanted: str | None) -> Response:
    """Answer with bytes, or with the part of them that a Range header wants."""
    size = _size_of(content)
    first, last = 0, size - 1
    found = None if wanted is None else _RANGE.fullmatch(wanted)
    if found is not None and (found[1] or found[2]):
        first = int(found[1]) if found[1] else max(0, size - int(found[2]))
        last = min(last, int(found[2])) if found[1] and found[2] else last
        if first > last:
            return PlainTextResponse("That range is not in it.", 416, {"content-range": f"bytes */{size}"})
    headers = {"accept-ranges": "bytes", "content-length": str(last - first + 1)}
    if found is not None:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    status = 200 if found is None else 206
    if isinstance(content, bytes):
        kind = _TYPES.get(content[:2], "application/octet-stream")
        return Response(content[first : last + 1], status, headers, kind)
    return StreamingResponse(_parts(content, first, last), status, headers, "application/octet-stream")


def _size_of(content: Content) -> int:
    """Return the size of a payload; answer that there is nothing where its file is gone or cut off."""
    if isinstance(content, bytes):
        return len(content)
    try:
        with open_regular(content.path) as file:
            there = file.seek(0, io.SEEK_END) - content.start
    except OSError as error:
        raise HTTPException(404, f"Atlas {content.name!r} cannot be read.") from error
    if content.damage is not None or there < (content.size or 0):
        raise HTTPException(404, f"Atlas {content.name!r} is cut off.")
    return there if content.size is None else content.size


def _parts(file: AtlasFile, first: int, last: int) -> Iterator[bytes]:
    """Yield the bytes of an atlas from the first to the last, both included."""
    with open_regular(file.path) as opened:
        opened.seek(file.start + first)
        left = last - first + 1
        while left > 0 and (part := opened.read(min(left, PART_BYTES))):
            left -= len(part)
            yield part


def _said(request: Request, error: Exception) -> Response:
    """Answer with what is wrong with what was asked for, in one sentence."""
    return PlainTextResponse(str(error), 400)


_Handler = Callable[[Request, Exception], Response]


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


def _gone(request: Request, error: Exception) -> Response:
    """Answer nobody: the page was closed while it sent an image."""
    return Response(status_code=400)


_ANSWERS: dict[Any, _Handler] = {CnnvizError: _said, HTTPException: _refused, ClientDisconnect: _gone}
