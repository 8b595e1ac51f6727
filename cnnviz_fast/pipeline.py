"""The job for a few images: a model and images go in, sheets come out.

    name_images      which images there are, and the stems of their files
    planned_layers   of one image after the other, each layer as it is to be drawn:
        look_at          the image goes through the model; of each layer come its maps and how they are drawn
        plan_layers      everything about the sheets but their pixels

A run over many images (`runs`) makes the same `LayerInput`s of its batches, by the same `Drawing`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from .activations.capture import capture
from .activations.maps import LayerMaps, frame_of, read_activations
from .activations.passes.rows import inputs_at, with_rows
from .channels.dataset import LayerStatistics, ranges_of, ranges_of_layer
from .channels.entrance import as_rows
from .errors import CaptureError, CnnvizError, ImageError, InputError, OptionError, advice
from .formats.names import layer_parts, output_stems
from .formats.output_folders import output_folder
from .formats.picture import format_of
from .inputs.arrays import is_array_file
from .inputs.catalogue import normalised
from .inputs.find import find_images
from .inputs.images import InputSpec, load_images, usual_spec
from .inputs.samples import samples_in
from .models.load import load_model
from .models.loaded import LoadedModel, as_given, called_with, expected_input, module_of
from .models.no_images import words_for
from .models.preprocess import as_image
from .options.declared import takes
from .options.drawing import RenderOptions
from .options.reading import AS_USUAL, MAX_PIXELS, AxesOptions, ImageOptions
from .provenance import Provenance
from .runtime.progress import with_bar
from .sheets.notebook import Sheets
from .sheets.overlay import Backdrop, read_overlay
from .sheets.plan import Plan, plan_sheet
from .sheets.render import draw_sheet
from .sheets.sheet import Sheet

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from .channels.dataset import Ranges
    from .channels.statistics import ChannelStatistics
    from .options.keywords import RenderKeywords


@takes(RenderOptions)
def visualize(
    model: LoadedModel | nn.Module | str,
    images: Any,
    layers: str | int | Sequence[str | int],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str = "png",
    max_pixels: int = MAX_PIXELS,
    truncated: str = "refuse",
    input_range: Any = None,
    axes: str = "auto",
    planes: Any = None,
    inputs: Any = None,
    forward: Any = None,
    overlay: Any = None,
    alpha: float | None = None,
    show_input: Any = None,
    statistics: Mapping[str, LayerStatistics] | None = None,
    overwrite: bool = False,
    **options: Unpack[RenderKeywords],
) -> list[Sheet]:
    """Draw sheets of the layers of a model for images.

    Where there are several images, a progress bar counts them in a notebook and on a terminal.

    Args:
        model: from load_model, a module of one's own, or a spec for load_model.
        images: files, folders, globs, PIL images, arrays or tensors, one or a list; see load_images.
        layers: layer patterns; see capture.
        out: folder to write the sheets to, as LAYER/IMAGE.png; made where it is missing. None writes nothing.
        format: of the files: png, jpg, webp or npy.
        max_pixels: largest image to read, in px.
        truncated: "allow" to draw damaged images as far as they go.
        input_range: values that become black and white, such as (0, 4095) for 12 bits in files of 16.
        axes: axes of the layers' outputs: auto, or one that `activations/axes/find.py` lists, such as nhwc or ncl.
        planes: of volumes and clips, the planes or time steps to draw, such as "0,8-15"; None for all.
        inputs: what the model takes beside the images; see capture. A tensor has a row for each image, or one row for
            all; a function of the batch makes anything else.
        forward: method of the model to run instead of `forward`; see capture.
        overlay: True to lay the maps over the image as the model saw it, resized and cropped (of a clip, its first
            frame); or another image, as in render.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        show_input: True to show the image as the model saw it above the grid, in 64 colours of the palette.
        statistics: layer name -> statistics over a data set, with normalize dataset; see read_statistics.
        overwrite: True replaces sheets of other models that `out` holds, and of other weights. Those of the same model
            with the same weights are always replaced.
        **options: see below.

    Returns:
        The sheets, image by image and layer by layer in the order asked for; of a clip, one a time step, of a volume
        one a plane. Each sample of a batch in memory is an image. A notebook shows the list as images.

    Raises:
        OptionError: an option cannot be used, or `out` holds a run, files in the older layout, or a sheet of another
            model where one of this model goes.
        CnnvizError: anything else that went wrong; see load_model, load_images, capture and render.
    """
    checked = RenderOptions.of(options)
    decoding = ImageOptions(truncated=truncated, input_range=input_range)  # type: ignore[arg-type]
    format_of(Path(f"sheet.{format}"))
    ranges = None
    if statistics is not None:
        ranges = {layer: found for layer, each in statistics.items() if (found := ranges_of(each, checked))}
    backdrop = read_overlay(overlay, alpha, show_input, max_pixels=max_pixels)
    drawing = Drawing(checked, AxesOptions(axes=axes, planes=planes), backdrop, ranges)
    loaded = load_model(model) if isinstance(model, str) else model
    loaded = called_with(loaded if isinstance(loaded, LoadedModel) else as_given(module_of(loaded)), inputs, forward)
    folder = output_folder(out, format, overwrite=overwrite) if out is not None else None
    with words_for(loaded.module, images):
        named = name_images(images, usual_spec(loaded, max_pixels, decoding))
    sheets = Sheets()
    for layer in planned_layers(loaded, named, layers, max_pixels, drawing, decoding=decoding):
        sheets.append(draw_sheet(layer.plan))
        if folder is not None:
            sheets[-1].save(folder.place(layer.folder, layer.image.stem, f".{format}", layer.plan.describe))
    return sheets


@dataclass(frozen=True)
class NamedImage:
    """One image: where it comes from, what messages call it, and the stem of its output files."""

    origin: Any
    name: str
    stem: str


def name_images(images: Any, spec: InputSpec | None = None) -> list[NamedImage]:
    """Find images and give each a stem of its own.

    Args:
        images: what `load_images` takes. Each sample of a batch is an image.
        spec: how they become the model's input; None for photos.

    Returns:
        The images. Those of the same name, from different folders, get stems that end in digits of their paths.

    Raises:
        ImageError: a file is missing, or a folder holds no image.
    """
    known = spec or usual_spec()
    origins: list[Any] = []
    names: list[str] = []
    for origin in find_images(samples_in(images, known.expected), known.takes_arrays):
        is_path = isinstance(origin, str | os.PathLike)
        batch = known.read(origin) if spec is not None and is_array_file(origin) else ()
        if len(batch) > 1:  # a file of several samples
            origins += [batch[n : n + 1] for n in range(len(batch))]
            names += [f"{normalised(os.fspath(origin))}#{n}" for n in range(len(batch))]  # type: ignore[arg-type]
        else:
            names.append(normalised(os.fspath(origin)) if is_path else f"image{len(origins)}")  # type: ignore[arg-type]
            origins.append(origin)
    before: Counter[str] = Counter()
    keys = []
    for name in names:
        # A file that is named twice is drawn twice.
        keys.append(f"{name}#{before[name]}" if before[name] else name)
        before[name] += 1
    return [NamedImage(*image) for image in zip(origins, names, output_stems(keys), strict=True)]


@dataclass(frozen=True)
class Drawing:
    """How the layers of every image are read and drawn.

    Attributes:
        options: how maps are drawn.
        axes: how to read the layers' outputs.
        backdrop: the image to lay maps over.
        ranges: layer -> range of each channel, with normalize dataset.
        tells_fields: whether provenances tell the layers' receptive fields, for what is drawn later. With align "field"
            they do.
    """

    options: RenderOptions
    axes: AxesOptions = field(default_factory=AxesOptions)
    backdrop: Backdrop | None = None
    ranges: Mapping[str, Ranges] | None = None
    tells_fields: bool = False

    def layer_input(
        self,
        model: LoadedModel,
        read: LayerMaps,
        n: int,
        image: str,
        sample: torch.Tensor | None,
        measured: ChannelStatistics | None = None,
    ) -> LayerInput:
        """Return one layer of one image of a batch, and everything that decides how it is drawn.

        Args:
            model: the model that ran.
            read: the layer's maps, for every image of the batch.
            n: position of the image in the batch.
            image: its name, for the manifest.
            sample: (C, H, W) float32, or of a volume or a clip (C, D, H, W). What went into the model; None where
                nothing is laid under the maps.
            measured: statistics of the channels that `options` picks, where they are known already.

        Returns:
            The maps of image n, with options, provenance, backdrop and ranges.

        Raises:
            OptionError: maps that have no place in the image are to be laid over it.
        """
        under = self.backdrop
        if under is not None and under.lies_under and (reason := read.out_of_place()):
            raise OptionError(
                f"overlay must go with maps of the image, got layer {read.layer!r} read as {read.axes.name}, which "
                f"{reason}. Leave overlay out."
            )
        if under is not None and sample is not None:
            if expected_input(model).spatial_axes == 1:
                option = advice("show_input", "input")
                raise OptionError(f"overlay and {option} go with images and volumes; this model takes signals.")
            frame = frame_of(sample, read.step, read.axes.steps)
            under = under.filled_with(partial(as_image, frame, model.preprocess))
        ranges = ranges_of_layer(read.layer, self.ranges)
        signal = read.axes.name in ("ncl", "nlc")
        options = as_rows(self.options, read.maps.shape[-1]) if signal else self.options
        origin = read.provenance(model, image, self.tells_fields or options.align == "field")
        return LayerInput(read.name, read.maps[n], origin, options, under, ranges, measured)


@dataclass(frozen=True)
class LayerInput:
    """One layer of one image: its maps, and everything that decides how they are drawn.

    Attributes:
        name: of the layer; of a clip, with the time step.
        maps: (C, H, W) real dtype, on any device.
        provenance: where they come from, for the manifest.
        options: how they are drawn.
        backdrop: the image to lay them over.
        ranges: range of each channel, with normalize dataset.
        measured: statistics of the channels that `options` picks, on the CPU, where they are known already.
        names: of the tiles, where they show something else than channels.
    """

    name: str
    maps: torch.Tensor
    provenance: Provenance
    options: RenderOptions
    backdrop: Backdrop | None
    ranges: Ranges | None
    measured: ChannelStatistics | None = None
    names: Sequence[str] | None = None

    def plan(self, plan: Callable[..., Plan] = plan_sheet) -> Plan:
        """Plan a sheet of the maps, or with `plan_tiles` a file for each channel."""
        given = (self.maps, self.options, self.provenance, self.backdrop)
        named = {} if self.names is None else {"names": self.names}
        return plan(*given, measured=self.measured, ranges=self.ranges, **named)


def look_at(
    model: LoadedModel,
    image: NamedImage,
    layers: Any,
    max_pixels: int,
    drawing: Drawing,
    decoding: ImageOptions = AS_USUAL,
    position: int = 0,
) -> list[LayerInput]:
    """Run the model on one image and read the maps out of each layer's output.

    Args:
        model: to run.
        image: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest image to read, in px.
        drawing: how to read and draw them.
        decoding: what is done with damage, and with values of another range.
        position: of the image among those that the model's `inputs` have rows for.

    Returns:
        The layers in the order asked for. A clip has one for each time step: `layer@t0`, `layer@t1`, ...

    Raises:
        ShapeError: a layer whose output cannot be drawn, or whose axes cannot be told.
        CnnvizError: anything else that is wrong; see load_images and capture.
    """
    batch = load_images(image.origin, model, max_pixels=max_pixels, **vars(decoding))
    if len(batch) != 1:
        raise ImageError(
            f"{image.name} must be one image, got a batch of {len(batch)}. Save each sample in a file of its own."
        )
    outputs = capture(model, batch, layers, inputs=inputs_at(model, [position]))
    return [
        drawing.layer_input(model, read, 0, image.name, batch[0])
        for read in read_activations(model, outputs, tuple(batch.shape), drawing.axes)
    ]


class PlannedLayer(NamedTuple):
    """The plan of a layer of an image: its name, the folder of its files, and everything about them but the pixels."""

    image: NamedImage
    name: str
    folder: str
    plan: Plan


def planned_layers(
    model: LoadedModel,
    images: Sequence[NamedImage],
    layers: Any,
    max_pixels: int,
    drawing: Drawing,
    plan: Callable[..., Plan] = plan_sheet,
    failed: Callable[[NamedImage, CnnvizError], None] | None = None,
    decoding: ImageOptions = AS_USUAL,
) -> Iterator[PlannedLayer]:
    """Look at images one by one, and plan their layers; a bar counts them.

    Args:
        model: to run.
        images: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest image to read, in px.
        drawing: how to read and draw the layers.
        plan: `plan_sheet`, or `plan_tiles` for a file for each channel.
        failed: called with an image that cannot be read or run, and why; then the others are done. None: it is raised.
        decoding: what is done with damage, and with values of another range.

    Yields:
        The layers of each image, to be drawn before the next one is looked at.

    Raises:
        CnnvizError: see look_at and plan_layers.
    """
    model = with_rows(model, len(images))
    for position, image in enumerate(with_bar(images, "image")):
        try:
            found = look_at(model, image, layers, max_pixels, drawing, decoding, position)
            planned = plan_layers(image, found, plan)
        except (ImageError, CaptureError) as error:
            if failed is None:
                raise
            failed(image, error)
            continue
        yield from planned


def plan_layers(
    image: NamedImage, found: list[LayerInput], plan: Callable[..., Plan] = plan_sheet
) -> Iterator[PlannedLayer]:
    """Plan all layers of an image at once, so that what is wrong with one shows before a file of another is written.

    Args:
        image: of the layers.
        found: what `look_at` returned. It is emptied: a layer's maps are let go of once it is drawn.
        plan: `plan_sheet`, or `plan_tiles` for a file for each channel.

    Returns:
        The layers, to be drawn one by one.

    Raises:
        InputError: an option does not suit a layer; see plan_sheet.
    """
    several = len(found) > 1
    plans = []
    folders = layer_parts([layer.name for layer in found])
    for folder in folders:
        layer = found.pop(0)
        try:
            plans.append(PlannedLayer(image, layer.name, folder, layer.plan(plan)))
        except InputError as error:
            raise type(error)(f"{layer.name}: {error}" if several else str(error)) from error
    return _popped(plans)


def _popped(plans: list[PlannedLayer]) -> Iterator[PlannedLayer]:
    while plans:
        yield plans.pop(0)
