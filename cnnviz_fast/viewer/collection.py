"""All that a page or a server shows: several runs, as the catalogue of `source/catalogue.ts`, and payloads by key.

a-RUN-LAYER-IMAGE       an atlas                      p-RUN-IMAGE[-FRAME]   the view that the model saw
s-RUN-LAYER             statistics over a data set    k-RUN-LAYER           kernels of a first layer
o-RUN-LAYER             an order by similarity        x-RUN-LAYER-CHANNEL   the strongest patches of a channel
t-RUN-IMAGE-NUMBER      what a score depends on
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import AtlasError, one_line
from ..palette import make_palette
from ..provenance import package_version
from .shown import Content, ShownImage, ShownLayer, ShownRun
from .told import told, told_in, told_model

PALETTES = ("viridis", "magma", "inferno", "cividis", "turbo", "gray", "coolwarm")
"""Colormaps that a page has, 1 kB each; the first is drawn unless another is chosen."""

PAGE = 100
"""Images in the catalogue of a server, and in each part that follows."""

MOST_NOTES = 20
"""Sentences on what could not be used that a page shows."""

_KEY = re.compile(r"([apskoxt])-(\d{1,9})-(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_LETTERS = {"statistics": "s", "kernels": "k", "similarity": "o", "patches": "x"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


@dataclass
class Collection:
    """What is shown.

    title: of the page.
    runs: the runs.
    notes: what could not be used, a sentence each.
    """

    title: str
    runs: Sequence[ShownRun]
    notes: list[str] = field(default_factory=list)

    def catalogue(self, store: str, most_images: int | None = None) -> dict[str, Any]:
        """Return the catalogue. That of a page, which is sent to others, names no folders of this machine.

        Args:
            store: where payloads lie: inline, scripts or server.
            most_images: of each run; None for all.
        """
        is_sent = store != "server"
        notes = [one_line(told_in(note) if is_sent else note) for note in self.notes[:MOST_NOTES]]
        if (more := len(self.notes) - MOST_NOTES) > 0:
            notes.append(f"And {more} more.")
        return {
            "version": 1,
            "package": package_version(),
            "title": told_in(told_model(self.title)) if is_sent else self.title,
            "store": store,
            "palettes": {name: _palette(name) for name in PALETTES},
            "notes": notes,
            "runs": [
                self._run(number, range(min(run.image_count, most_images or run.image_count)), is_sent)
                for number, run in enumerate(self.runs)
            ],
            **({} if is_sent else {"images_at_once": PAGE}),
        }

    def _run(self, number: int, images: Iterable[int], is_sent: bool) -> dict[str, Any]:
        """Return the entry of a run with some of its images."""
        run = self.runs[number]
        recipe = run.recipe.told() if run.recipe and is_sent else run.recipe
        of_model, of_image = (told_model, told) if is_sent else (str, str)
        shown = ((n, run.image(n)) for n in images)
        return {
            "id": number,
            "name": of_model(run.name),
            "model": of_model(run.model),
            "layers": [layer_entry(number, n, layer) for n, layer in enumerate(run.layers)],
            "images": [image_entry(number, n, replace(image, name=of_image(image.name))) for n, image in shown],
            "image_count": run.image_count,
            "command": recipe and recipe.lines(),
        }

    def images(self, number: int, first: int) -> list[dict[str, Any]]:
        """Return the entries of a PAGE of images of a run."""
        run = self.runs[number]
        return [image_entry(number, n, run.image(n)) for n in range(first, min(first + PAGE, run.image_count))]

    def content(self, key: str) -> Content | None:
        """Return what lies under a key, which may be any text; None where there is nothing.

        Raises:
            AtlasError: it cannot be read.
        """
        found = _KEY.fullmatch(key)
        if found is None or int(found[2]) >= len(self.runs):
            return None
        run, letter, second = self.runs[int(found[2])], found[1], int(found[3])
        third = None if found[4] is None else int(found[4])
        if letter != "p" and (third is not None) != (letter in "axt"):
            return None
        if letter in "pt":
            if second >= run.image_count:
                return None
            if letter == "p":
                return run.photo(second, third)
            return None if third is None else run.attribution(second, third)
        if second >= len(run.layers):
            return None
        if letter == "a":
            return run.atlas(second, third) if third is not None and third < run.image_count else None
        if third is not None and third >= run.layers[second].shape[0]:
            return None
        kind = _KINDS[letter]
        return run.payload(kind, second, third) if kind in run.layers[second].kinds else None


def keys_of(run: Mapping[str, Any]) -> list[str]:
    """Return the keys of all payloads of the entry of a run."""
    layers, images = run["layers"], run["images"]
    keys = [layer[kind] for layer in layers for kind in ("statistics", "kernels", "similarity") if layer[kind]]
    for layer in filter(lambda layer: layer["patches"], layers):
        keys += [f"{layer['patches']}-{channel}" for channel in range(layer["channels"])]
    for image in images:
        keys += [f"a-{run['id']}-{layer['id']}-{image['id']}" for layer in layers if layer["id"] not in image["absent"]]
        keys += filter(None, [image["photo"], *image.get("frames", {}).values()])
        keys += [each["key"] for each in image["attribution"]]
    return list(dict.fromkeys(keys))


def without(run: dict[str, Any], key: str) -> None:
    """Take a payload that cannot be used out of the entry of a run."""
    letter, _, second, *third = key.split("-")
    if letter in "at":
        image = run["images"][int(third[0] if letter == "a" else second)]
        image["attribution"] = [each for each in image["attribution"] if each["key"] != key]
        image["absent"] += [int(second)] if letter == "a" else []
    elif letter == "p":
        image = run["images"][int(second)]
        image["photo"] = None if image["photo"] == key else image["photo"]
        image["frames"] = {layer: frame for layer, frame in image.get("frames", {}).items() if frame != key}
    else:
        run["layers"][int(second)][_KINDS[letter]] = None


def bytes_of(content: Content) -> bytes:
    """Return the bytes of a payload; raise AtlasError where they cannot be read, or are no atlas."""
    if isinstance(content, bytes):
        return content
    packed = content.content()
    if content.size is not None and len(packed) != content.size:
        raise AtlasError(f"atlas {content.name!r} is cut off.")
    return packed


def image_entry(run: int, number: int, image: ShownImage) -> dict[str, Any]:
    """Return the entry of an image."""
    photo = f"p-{run}-{number}"
    return {
        "id": number,
        "name": image.name,
        "width": image.size[1],
        "height": image.size[0],
        "photo": photo if image.has_photo else None,
        **({"frames": {layer: f"{photo}-{n}" for layer, n in image.frames.items()}} if image.frames else {}),
        "absent": list(image.absent),
        "attribution": [
            {
                "layer": score.layer,
                "name": score.name,
                "key": f"t-{run}-{number}-{n}" if score.maps is None else f"a-{run}-{score.maps}-{number}",
                "channel": score.channel,
            }
            for n, score in enumerate(image.attribution)
        ],
    }


def layer_entry(run: int, number: int, layer: ShownLayer) -> dict[str, Any]:
    """Return the entry of a layer."""
    found, (channels, height, width) = layer.field, layer.shape
    placed = found is not None and not found.whole and min(found.stride) > 0
    return {
        "id": number,
        "name": layer.name,
        "channels": channels,
        "height": height,
        "width": width,
        "axes": layer.axes,
        "align": "field" if placed else "center",
        "field": {name: list(getattr(found, name)) for name in ("size", "stride", "offset")} if placed else None,
        **{kind: f"{letter}-{run}-{number}" if kind in layer.kinds else None for kind, letter in _LETTERS.items()},
    }


def _palette(name: str) -> str:
    """Return the colours of a colormap, 256 of RGB, in base64."""
    colors = make_palette(name, shows_background=False, shows_bad=False).colors
    return base64.b64encode(colors.tobytes()).decode()
