"""What `cnnviz demo` shows: a model's way through a test chart and two photos, its filters, and two pages of it all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..attribution.drawing import HeatMaps, planned_heat_maps
from ..channels.values import as_tensor
from ..channels.vectors import is_vector
from ..errors import CaptureError, InputError
from ..formats.output_folders import OutputFolder
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS
from ..options.weights import KernelOptions
from ..patches.api import patch_sheet
from ..pipeline import Drawing, NamedImage, PlannedLayer, planned_layers
from ..provenance import Provenance
from ..runs.api import run
from ..sheets.comparison import compare
from ..sheets.overlay import read_overlay
from ..sheets.render import write_sheet
from ..viewer.collection import Collection
from ..viewer.looking import look
from ..viewer.memory import MemoryRun
from ..viewer.page import write_page
from ..weights.kernel_sheets import plan_kernels, write_kernels
from .demo_chart import draw_chart
from .demo_page import Figure, Section

if TYPE_CHECKING:
    import torch

    from ..models.loaded import LoadedModel

PHOTOS = Path(__file__).parent / "photos"

STRONGEST = 12
"""Channels that are laid over a photo: those of the greatest variance."""

PATCHES = 5
"""Patches of each channel."""

TARGETS = "top2"
"""What heat maps are of: of the small network, what the photo shows, and what else it might be."""

COMPARED = 24
"""Channels that are compared: those whose maps of the two photos differ most."""


class Made(NamedTuple):
    """A file of the demo, and the section of the page that it begins, if it begins one."""

    path: Path
    figure: Figure
    section: Section | None = None


def demo_images() -> list[NamedImage]:
    """Return the images: the test chart, and the photos of the package."""
    photos = [NamedImage(path, path.name, path.stem) for path in sorted(PHOTOS.glob("*.jpg"))]
    return [NamedImage(draw_chart(), "test chart", "chart"), *photos]


def make_demo(model: LoadedModel, layers: Sequence[str], folder: OutputFolder) -> Iterator[Made]:
    """Draw everything, file by file.

    Args:
        model: to look into.
        layers: names of its layers, from the first to the last.
        folder: where the files go: FOLDER/LAYER/IMAGE.png and so on.

    Yields:
        Each file once it is written.

    Raises:
        CnnvizError: the model cannot be run or drawn, or a file cannot be written.
    """
    images = demo_images()
    yield from _filters(model, folder)
    drawing = Drawing(RenderOptions(), backdrop=read_overlay(None, None, True))
    drawn = list(planned_layers(model, images, list(layers), MAX_PIXELS, drawing))
    by_layer = [drawn[n :: len(drawn) // len(images)] for n in range(len(drawn) // len(images))]
    for of_images in by_layer:
        yield from _sheets(of_images, folder)
    with_places = [of_images for of_images in by_layer if not is_vector(_maps(of_images[0]))]
    if with_places:
        photos = with_places[-1][1:]
        yield from _patches(model, with_places[len(with_places) // 2][1:], folder)
        yield from _overlays(model, photos, folder)
        yield from _heat_maps(model, photos, folder)
        yield from _comparison(photos, folder)


def write_viewer(model: LoadedModel, layers: Sequence[str], path: Path) -> Path:
    """Write a page of the viewer, of every channel of the layers for all images.

    Args:
        model: to look into.
        layers: names of its layers.
        path: of the page.

    Returns:
        The path.

    Raises:
        CnnvizError: the model cannot be run, or the file cannot be written.
    """
    chart, *photos = demo_images()
    looked = [look(model, image, list(layers), MAX_PIXELS) for image in (*photos, chart)]
    return write_page(Collection(f"What {model.spec} sees", [MemoryRun.of(looked)]), path)


def _filters(model: LoadedModel, folder: OutputFolder) -> Iterator[Made]:
    """Draw the kernels of the first convolution; none of a model that has none."""
    from torch import nn

    found = ((name, each) for name, each in model.module.named_modules() if isinstance(each, nn.Conv2d))
    if (first := next(found, None)) is None:
        return
    name, convolution = first
    provenance = Provenance(model=model.spec, weights=model.weights)
    plan = plan_kernels(convolution.weight.detach(), KernelOptions(), name=f"{name}.weight", provenance=provenance)
    path = write_kernels(plan, folder.path / "filters.png")
    yield Made(path, Figure(path, f"{name}.weight"), Section(
        "What the first layer looks for",
        "Each tile is a filter: the pattern it answers to, in its colours. Trained ones are edges, bars and spots of "
        "colour; random ones are noise.",
    ))  # fmt: skip


def _sheets(of_images: Sequence[PlannedLayer], folder: OutputFolder) -> Iterator[Made]:
    """Draw every channel of a layer for each image."""
    section: Section | None = Section(
        f"Every channel of {of_images[0].name}",
        "A tile shows where one channel answers: yellow where most, purple where least. A cross stands where "
        "it does not answer at all.",
    )  # fmt: skip
    for drawn in of_images:
        path = folder.place(drawn.folder, drawn.image.stem, ".png", drawn.plan.describe)
        yield Made(write_sheet(drawn.plan, path), Figure(path, drawn.image.name), section)
        section = None


def _patches(model: LoadedModel, photos: Sequence[PlannedLayer], folder: OutputFolder) -> Iterator[Made]:
    """Cut out what the channels of a layer that vary most look for in the photos."""
    layer = photos[0].plan.facts.provenance.layer or photos[0].name  # of a clip, `name` is one of its time steps
    first, second = (_maps(photo).float().var(dim=(1, 2)) for photo in photos)
    channels = (first + second).nan_to_num().topk(min(STRONGEST, len(first))).indices
    with tempfile.TemporaryDirectory() as kept:
        run(
            model, [photo.image.origin for photo in photos], [layer], kept,
            save="top", top_k=PATCHES, top_repeat=PATCHES, progress="none", readers=0,
        )  # fmt: skip
        chosen = sorted(channels.tolist())
        try:
            drawn, back = patch_sheet(kept, layer, channels=chosen, deconvolve=model), True
        except CaptureError:  # a network without rectifiers
            drawn, back = patch_sheet(kept, layer, channels=chosen), False
    path = drawn.save(folder.path / "patches.png")
    yield Made(path, Figure(path, "what excites a channel most"), Section(
        f"What channels of {photos[0].name} look for",
        f"The {len(channels)} channels that vary most, each with the {PATCHES} parts of the two photos that excite it "
        f"most: what a unit of that layer sees, cut from the photo."
        + " Beside it, by guided backpropagation, what the unit answers to in it: red for more, blue for less." * back,
    ))  # fmt: skip


def _overlays(model: LoadedModel, photos: Sequence[PlannedLayer], folder: OutputFolder) -> Iterator[Made]:
    """Lay the channels of a layer that vary most over each photo."""
    layer, most = photos[0].name, min(STRONGEST, len(_maps(photos[0])))
    options = RenderOptions(topk=most, rank="variance", tile=224, grid=(0, 4))
    over = Drawing(options, backdrop=read_overlay(True, None))
    section: Section | None = Section(
        f"Where {layer} answers in the photo",
        f"The {most} channels that vary most, over what the model saw.",
    )  # fmt: skip
    whole = photos[0].plan.facts.provenance.layer  # of a clip, `layer` is one of its time steps
    for drawn in planned_layers(model, [photo.image for photo in photos], [whole], MAX_PIXELS, over):
        if drawn.name != layer:
            continue
        path = folder.place("overlay", drawn.image.stem, ".png", drawn.plan.describe)
        yield Made(write_sheet(drawn.plan, path), Figure(path, drawn.image.name), section)
        section = None


def _heat_maps(model: LoadedModel, photos: Sequence[PlannedLayer], folder: OutputFolder) -> Iterator[Made]:
    """Draw what the highest classes depend on in each photo; nothing of a model without classes."""
    layer = photos[0].plan.facts.provenance.layer
    asked = HeatMaps("gradcam", layer, TARGETS, look={"tile": 336}, backdrop=read_overlay(True, None))
    section: Section | None = Section(
        "What a class depends on",
        f"Grad-CAM: the places of {layer} that speak for each of the highest classes, brightest where most.",
    )
    try:
        drawn = list(planned_heat_maps(model, [photo.image for photo in photos], asked))
    except (CaptureError, InputError):  # without classes, or the layer matters to none
        return
    for each in drawn:
        path = folder.place("gradcam", each.image.stem, ".png", each.plan.describe)
        yield Made(write_sheet(each.plan, path), Figure(path, each.image.name), section)
        section = None


def _comparison(photos: Sequence[PlannedLayer], folder: OutputFolder) -> Iterator[Made]:
    """Compare the maps of the two photos, in the channels in which they differ most."""
    (a, b), (first, second) = map(_maps, photos), (photo.image for photo in photos)
    differ = (a.float() - b.float()).abs().mean(dim=(1, 2)).topk(min(COMPARED, len(a))).indices
    compared = compare(
        a, b, provenance_a=photos[0].plan.facts.provenance, provenance_b=photos[1].plan.facts.provenance,
        channels=sorted(differ.tolist()), tile=112, grid=(0, min(6, len(differ))),
    )  # fmt: skip
    pair, difference = compared.save(folder.path / f"{first.stem}_{second.stem}.png")
    section = Section(
        f"{first.name} beside {second.name}",
        f"The {len(differ)} channels of {photos[0].name} that tell them apart, each on one scale for both; then the "
        f"difference.",
    )  # fmt: skip
    yield Made(pair, Figure(pair, f"{first.name} | {second.name}"), section)
    yield Made(difference, Figure(difference, f"{second.name} - {first.name}"))


def _maps(drawn: PlannedLayer) -> torch.Tensor:
    """Return the maps of a layer, (C, H, W) real dtype, on the CPU."""
    return as_tensor(drawn.plan.facts.maps).cpu()
