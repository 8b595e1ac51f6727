"""What `cnnviz demo` shows: a model's way through a test chart and two photos, its filters, and one page of it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..activations.capture import capture
from ..formats.output_folders import OutputFolder
from ..inputs.images import load_images
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS
from ..options.weights import KernelOptions
from ..pipeline import Drawing, NamedImage, planned_layers
from ..provenance import Provenance
from ..sheets.comparison import compare
from ..sheets.overlay import read_overlay
from ..sheets.render import write_sheet
from ..weights.kernel_sheets import plan_kernels, write_kernels
from .demo_chart import draw_chart
from .demo_page import Figure, Section

if TYPE_CHECKING:
    import torch

    from ..models.loaded import LoadedModel

PHOTOS = Path(__file__).parent / "photos"

STRONGEST = 12
"""Channels that are laid over a photo: those of the greatest variance."""

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
    yield from _sheets(model, images, layers, folder)
    yield from _overlays(model, images[1:], layers[-1], folder)
    yield from _comparison(model, images[1:], layers[-1], folder)


def _filters(model: LoadedModel, folder: OutputFolder) -> Iterator[Made]:
    """Draw the kernels of the first convolution; none of a model that has none."""
    found = ((name, each.detach()) for name, each in model.module.named_parameters() if each.ndim == 4)
    if (first := next(found, None)) is None:
        return
    name, weight = first
    provenance = Provenance(model=model.spec, weights=model.weights)
    plan = plan_kernels(weight, KernelOptions(), name=name, provenance=provenance)
    path = write_kernels(plan, folder.path / "filters.png")
    yield Made(path, Figure(path, name), Section(
        "What the first layer looks for",
        "Each tile is a filter: the pattern it answers to, in its colours. Trained ones are edges, bars and spots of "
        "colour; random ones are noise.",
    ))  # fmt: skip


def _sheets(
    model: LoadedModel, images: Sequence[NamedImage], layers: Sequence[str], folder: OutputFolder
) -> Iterator[Made]:
    """Draw every channel of each layer for each image."""
    drawing = Drawing(RenderOptions(), backdrop=read_overlay(None, None, True))
    paths = {}
    for drawn in planned_layers(model, images, list(layers), MAX_PIXELS, drawing):
        path = folder.place(drawn.folder, drawn.image.stem, ".png", drawn.plan.describe)
        paths[drawn.name, drawn.image.name] = write_sheet(drawn.plan, path)
    for layer in layers:
        for place, image in enumerate(images):
            path = paths[layer, image.name]
            section = Section(
                f"Every channel of {layer}",
                "A tile shows where one channel answers: yellow where most, purple where least. A cross stands where "
                "it does not answer at all.",
            )  # fmt: skip
            yield Made(path, Figure(path, image.name), None if place else section)


def _overlays(model: LoadedModel, photos: Sequence[NamedImage], layer: str, folder: OutputFolder) -> Iterator[Made]:
    """Lay the channels that vary most over each photo."""
    options = RenderOptions(topk=STRONGEST, rank="variance", tile=224, grid=(0, 4))
    over = Drawing(options, backdrop=read_overlay(True, None))
    section: Section | None = Section(
        f"Where {layer} answers in the photo",
        f"The {STRONGEST} channels that vary most, over what the model saw.",
    )  # fmt: skip
    for drawn in planned_layers(model, photos, [layer], MAX_PIXELS, over):
        path = folder.place("overlay", drawn.image.stem, ".png", drawn.plan.describe)
        write_sheet(drawn.plan, path)
        yield Made(path, Figure(path, drawn.image.name), section)
        section = None


def _comparison(model: LoadedModel, photos: Sequence[NamedImage], layer: str, folder: OutputFolder) -> Iterator[Made]:
    """Compare the maps of the two photos, in the channels in which they differ most."""
    a, b = (_maps(model, photo, layer) for photo in photos)
    differ = (a.float() - b.float()).abs().mean(dim=(1, 2)).topk(min(COMPARED, len(a))).indices
    provenances = (Provenance(model=model.spec, layer=layer, image=photo.name) for photo in photos)
    first, second = provenances
    compared = compare(a, b, provenance_a=first, provenance_b=second, channels=sorted(differ.tolist()), tile=112)
    pair, difference = compared.save(folder.path / f"{photos[0].stem}_{photos[1].stem}.png")
    section = Section(
        f"{photos[0].name} beside {photos[1].name}",
        f"The {COMPARED} channels of {layer} that tell them apart, each on one scale for both; then the difference.",
    )  # fmt: skip
    yield Made(pair, Figure(pair, f"{photos[0].name} | {photos[1].name}"), section)
    yield Made(difference, Figure(difference, f"{photos[1].name} - {photos[0].name}"))


def _maps(model: LoadedModel, photo: NamedImage, layer: str) -> torch.Tensor:
    """Return the maps of a photo, (C, H, W) on the CPU."""
    return capture(model, load_images(photo.origin, model), [layer])[layer][0].cpu()
