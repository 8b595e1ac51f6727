"""`patch_sheet`: what the channels of a layer look for, cut from the photos of a run.

read_top     entries of each channel, the photos, the receptive field    top_files.py
place        entry -> box of the photo                                   cut.py
cut_all      photos -> tiles                                             cut.py
ModelAgain   maps over tiles, causes beside them       again.py, overlay.py, deconvolved.py
PatchSheet   tiles -> sheet, files, table                                sheet.py
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..activations.fields.record import ReceptiveField
from ..errors import ImageError, OptionError
from ..geometry import tile_size
from ..models.loaded import LoadedModel
from ..options.declared import takes
from ..options.drawing import DEFAULT_ALPHA
from ..options.parsers import choice, share
from ..options.parsers import path as path_of
from ..options.patches import PatchOptions
from ..options.reading import MAX_PIXELS, ImageOptions
from ..provenance import package_version
from ..runtime.run_files import run_of
from ..runtime.workers import default_threads
from ..sheets.lettering import text_px
from .again import ModelAgain, Unit, refuse_other_weights
from .chosen import channels_of, drawn_of, layer_in
from .cut import Cut, Place, cut_all, input_box, place
from .deconvolved import RULES, Deconvolved
from .entries import Entries
from .kernels import kernels_of
from .look import Colours, Row, look_of
from .overlay import MapsAgain
from .photos import Photo, moved
from .sheet import PatchSheet, empty_tiles
from .table import records_of
from .top_files import TopFile, read_top
from .wording import draw_text, field_text, label_of, lines_beside, title_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

    from ..options.keywords import PatchKeywords
    from .classes import ClassResponses

_UNKNOWN = ReceptiveField((1, 1), (0.0, 0.0), (0.0, 0.0), whole=True, reasons=("it was not recorded",))


@takes(PatchOptions)
def patch_sheet(
    top: TopFile | str | os.PathLike[str],
    layer: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    truncated: str = "refuse",
    input_range: Any = None,
    photos: str | os.PathLike[str] | None = None,
    overlay: LoadedModel | nn.Module | None = None,
    alpha: float | None = None,
    deconvolve: LoadedModel | nn.Module | None = None,
    method: str | None = None,
    **options: Unpack[PatchKeywords],
) -> PatchSheet:
    """Cut the image patches that excite the channels of a layer from the photos of a run, for a sheet of them.

    A patch is the receptive field of a unit. It is cut from the file of the photo, at its full resolution, through the
    geometry of the model's own preprocessing: resizing, cropping and EXIF rotation are undone. What lies beyond the
    photo, or beyond what the model saw of it, has the colour of the background. Where the field covers the whole input
    along an axis, so does the patch; where preprocessing did more than resize, crop and pad, the whole photo is shown.

    Each photo is read once. One that is gone or has changed is named in `missing`, and the others are drawn.

    Args:
        top: folder of a run that kept `top`, the file of it, or what `read_top` returned.
        layer: name of the layer; None where there is one alone.
        max_pixels: largest photo to read, in px.
        truncated: "allow" to take damaged photos as far as they go, as the run did.
        input_range: values that become black and white, as for the run.
        photos: folder where the photos, tars or tables of the run lie now, where they have been moved. They are found
            by the ends of their paths, and must be of the same content.
        overlay: the model of the run, to lay the map of a channel over its patches. It runs once more on each photo of
            the sheet, since a run keeps no maps.
        alpha: weight of the map's colours over the patch, 0 to 1 (default 0.5).
        deconvolve: the model of the run, to draw beside each patch which of its pixels the unit answers to, signed,
            with grey for 0. It runs once more on each photo, and back once for each patch. Where the layer is a
            convolution of the image, its kernels come first, in their colours; deeper kernels have no colours, and are
            left out.
        method: of attribute, by which they are made: "guided" (default), or "deconvolution", which in networks without
            max pooling shows the weights alone.
        **options: see below.

    Returns:
        The sheet, to be saved.

    Raises:
        LayerNotFoundError: there is no such layer.
        OptionError: an option cannot be used, or asks for channels or draws that there are not.
        InputError: the run kept no responses, or their file is damaged; or the model has other weights than the run's.
        ImageError: none of the photos was a file, or none is where it was in the run.
        CaptureError: the model or its preprocessing is another than that of the run, or has no rectifiers.
    """
    wanted = PatchOptions.of(options)
    decoding = ImageOptions(truncated=truncated, input_range=input_range)  # type: ignore[arg-type]
    colours = Colours.named(wanted.background)
    if alpha is not None and overlay is None:
        raise OptionError(f"alpha goes with overlay, got alpha {alpha!r} alone.")
    if method is not None and deconvolve is None:
        raise OptionError(f"method goes with deconvolve, got method {method!r} alone.")
    rule = choice(*RULES)("method", RULES[0] if method is None else method)
    weight = share("alpha", DEFAULT_ALPHA if alpha is None else alpha)
    file = top if isinstance(top, TopFile) else open_top(top)
    name = layer_in(file, layer)
    responses = file[name]
    channels = channels_of(wanted, responses)
    entries = drawn_of(wanted, responses, channels)
    there = {key: Photo.from_json(record) for key, record in file.photos.items()}
    if photos is not None:
        folder = path_of("photos", photos)
        there = {key: moved(photo, folder) for key, photo in there.items()}
    field = ReceptiveField.from_json(dict(file.fields[name])) if name in file.fields else _UNKNOWN
    shape = _shape_of(field, there.values(), wanted.tile)
    places = _places(entries, there, field, shape, responses.map_size)
    cuts = _cuts(entries, places, there)
    _refuse_none([cut.photo for cut in cuts])

    columns = entries.values.shape[1]
    flat = np.repeat(channels, columns).tolist(), entries.positions.reshape(-1, 2).tolist(), entries.values.flat
    units = [Unit(channel, (y, x), float(value)) for channel, (y, x), value in zip(*flat, strict=True)]

    def again(option: str, model: LoadedModel | nn.Module) -> ModelAgain:
        refuse_other_weights(option, file.facts.get("weights_digest"), model)
        return ModelAgain(model, name, units, responses.by)

    tiles = empty_tiles(entries.values.size, *shape)
    over: list[Callable[[Image, Cut], None]] = []
    deconvolved = kernels = None
    if overlay is not None:
        over.append(MapsAgain(again("overlay", overlay), field, weight, tiles).paint)
    if deconvolve is not None:
        model_again = again("deconvolve", deconvolve)
        deconvolved = empty_tiles(entries.values.size, *shape)
        over.append(Deconvolved(model_again, rule, colours.background, deconvolved).paint)
        kernels = kernels_of(model_again.model, name, field, channels, shape)
    missing = cut_all(
        cuts, tiles, colours.background, max_pixels=max_pixels, options=decoding,
        threads=wanted.threads or default_threads(), over=over,
    )  # fmt: skip
    drawn = np.array([[each is not None for each in row] for row in places], bool)
    drawn.reshape(-1)[[number for each in missing for number in each.tiles]] = False

    classes = file.classes.get(name)
    told = lines_beside(responses, channels, classes)
    rows = [
        Row(
            channel,
            told[row],
            tuple(_label(entries, drawn, there, row, rank, shape) if wanted.label else "" for rank in range(columns)),
            tuple(places[row]),
            np.abs(np.nan_to_num(entries.values[row].astype(np.float64))),
        )
        for row, channel in enumerate(channels)
    ]
    facts = {
        "model": file.facts.get("model"),
        "layer": name,
        "field": field_text(field),
        "draw": draw_text(wanted, responses),
    }
    look = look_of(
        rows, shape, gap=wanted.gap, margin=wanted.margin, title=title_of(wanted, facts), label=wanted.label,
        cols=columns * (1 if deconvolved is None else 2) + wanted.mean_patch + (kernels is not None),
        mean=wanted.mean_patch, marks=wanted.marks, colours=colours,
        threads=wanted.threads,
    )  # fmt: skip
    table = records_of(channels, entries, places, there)
    manifest = {
        "cnnviz_fast": package_version(),
        "model": facts["model"],
        "layer": name,
        "maps": {"shape": [responses.channels, *responses.map_size]},
        "sheet": {"height": look.height, "width": look.width, "rows": len(rows), "cols": len(rows[0].labels)},
        "tile": list(shape),
        "field": field.to_json(),
        "by": responses.by,
        "draw": wanted.draw,
        "deconvolved": None if deconvolve is None else {"method": rule, "kernels": kernels is not None},
        "images": responses.seen,
        "dead": [channel for channel in channels if responses.dead[channel]],
        "classes": [] if classes is None else _class_records(classes, channels, table),
        "missing": [{"image": each.name, "reason": each.reason} for each in missing],
        "patches": table,
    }
    return PatchSheet(name, table, missing, manifest, rows, tiles, drawn, look, kernels, deconvolved)


def open_top(path: str | os.PathLike[str]) -> TopFile:
    """Read the strongest responses of a run, and from run.json beside them its model, weights and preprocessing.

    Args:
        path: folder of the run, or the file.

    Returns:
        The content of the file, with `model`, `weights_digest` and `preprocess` among its facts as far as they are
        known.

    Raises:
        InputError: the run kept none, or the file is damaged.
    """
    file, place = read_top(path), Path(path)
    run = run_of(place if place.is_dir() else place.parent)
    named = {"model": "model", "weights_digest": "weights", "preprocess": "preprocess"}
    known = {fact: run[name] for fact, name in named.items() if name in run}
    return replace(file, facts={**known, **file.facts})


def _shape_of(field: ReceptiveField, photos: Any, tile: int) -> tuple[int, int]:
    """Return height and width of a patch, px: that of the field in the input; square where no photo has geometry."""
    inputs = (photo.input for photo in photos if photo.input is not None)
    if (size := next(inputs, None)) is None:
        return tile, tile
    y0, x0, y1, x1 = input_box(field, size, 0, 0)
    return tile_size(y1 - y0, x1 - x0, tile, None)


def _places(
    entries: Entries, photos: Mapping[str, Photo], field: ReceptiveField, shape: tuple[int, int], maps: tuple[int, int]
) -> list[list[Place | None]]:
    """Return where each patch lies; None for entries that there are not, and for photos that are not known."""
    nobody = Photo("")
    return [
        [
            place(field, photos.get(key, nobody), (y, x), shape, maps) if key else None
            for key, (y, x) in zip(keys, positions, strict=True)
        ]
        for keys, positions in zip(entries.images.tolist(), entries.positions.tolist(), strict=True)
    ]


def _cuts(entries: Entries, places: Sequence[Sequence[Place | None]], photos: Mapping[str, Photo]) -> list[Cut]:
    """Return what is to be cut from each photo."""
    wanted: dict[str, list[tuple[int, Place | None]]] = {}
    flat = (each for row in places for each in row)
    for number, (key, there) in enumerate(zip(entries.images.reshape(-1).tolist(), flat, strict=True)):
        if key:
            wanted.setdefault(key, []).append((number, there))
    return [Cut(photos.get(key, Photo(key)), found) for key, found in wanted.items()]


def _refuse_none(photos: Sequence[Photo]) -> None:
    """Raise ImageError where none of the photos of a sheet was a file, or is where it was."""
    paths = {photo.path for photo in photos if photo.path is not None}
    if photos and not paths:
        raise ImageError(
            "no image of this run was a file, so that there is nothing to cut patches from. Run over files, or look at "
            "read_top(run)[layer].images, the positions of the samples."
        )
    if paths and not any(map(os.path.exists, paths)):
        raise ImageError(
            f"none of the {len(photos):,} photos is where it was in the run, such as {min(paths)!r}. "
            f"Say where they lie now: --photos FOLDER, photos=FOLDER in Python."
        )


def _class_records(
    classes: ClassResponses, channels: Sequence[int], table: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return for each channel the class that it tells apart best, how well (d'), and the classes of its patches."""
    best, apart = classes.best_class, classes.selectivity()
    shown: dict[int, Counter[str]] = {channel: Counter() for channel in channels}
    for record in table:
        if record["class"]:
            shown[record["channel"]][record["class"]] += 1
    return [
        {
            "channel": channel,
            "best": best[channel] or None,
            "selectivity": float(apart[channel]),
            "shown": shown[channel],
        }
        for channel in channels
    ]


def _label(
    entries: Entries, drawn: Any, photos: Mapping[str, Photo], row: int, rank: int, shape: tuple[int, int]
) -> str:
    """Return what stands over a patch."""
    key = str(entries.images[row, rank])
    if not key:
        return ""
    if not drawn[row, rank]:
        return "missing"
    photo = photos[key]
    name = os.path.splitext(os.path.basename(photo.name))[0]
    return label_of(float(entries.values[row, rank]), name, photo.label, shape[1], text_px(*shape))
