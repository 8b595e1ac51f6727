"""`run`: sheets, atlases, maps, heat maps, statistics and lists of the strongest images, for any number of images.

RunSpec        what is asked for                                      spec.py
images_of      the images                                             images.py
statistics_of  with normalize dataset, a run that measures first      local.py
Runner         this process's share, with an engine that does it      runner.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import OptionError
from ..formats.output_folders import refuse_mixing
from ..inputs.images import usual_spec
from ..inputs.main_guard import leave_if_run_again
from ..models.loaded import LoadedModel, called_with
from ..models.no_images import words_for
from ..options.attribution import AttributionOptions
from ..options.declared import takes
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS, AxesOptions, ImageOptions
from ..options.runs import RunOptions
from ..runtime.extras import import_extra
from ..sheets.overlay import Backdrop, read_overlay
from .attributed import heat_of_run
from .images import images_of
from .labels import read_labels
from .local import LocalEngine, run_here
from .outputs import outputs_of
from .ranks import ranks_in
from .spec import RunSpec, RunSummary, loaded_model, split_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import RunKeywords


@takes(RunOptions, AttributionOptions, RenderOptions)
def run(
    model: LoadedModel | nn.Module | str,
    images: Any,
    layers: str | int | Sequence[str | int] | None,
    out: str | os.PathLike[str],
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
    method: str | None = None,
    target: Any = None,
    on_file: Callable[[Path], object] | None = None,
    **options: Unpack[RunKeywords],
) -> RunSummary:
    """Make sheets, atlases, maps, statistics, heat maps or lists of the strongest images, for any number of images.

    Memory does not grow with their number.

    An image that cannot be read or run is noted in failed.jsonl, and the others are done. A run that was stopped or
    killed is taken up by calling it again: finished images are skipped, and no file under its final name is ever half
    written. Processes that torchrun or srun start share the images among them; with `array`, tasks of a job array do.

    Lists of the strongest images are the same for any order, number of processes and resume. With batches of another
    size a network of floats may put out values that differ in their last bits, and images that are so close may change
    places; to compare lists bit by bit, keep the size of the batch.

    Args:
        model: from load_model, a module of one's own, or a spec for load_model.
        images: files, folders with all folders below them, globs, lists of paths (.txt, .lst, "-" for stdin), tar
            shards, Parquet tables, images in memory. Or a data set that takes positions, of torch, of Hugging Face or
            of your own; a DataLoader; or any iterable of samples or batches, such as a generator. A sample is an image,
            a tuple that begins with one, or a mapping that has one. Files are known by their paths as they are given,
            in any order; samples and images in memory by their position. A file that is given by two spellings of its
            path, such as a relative and an absolute one, is two images: it is drawn, counted and listed twice.
        layers: layer patterns; see capture. None with save "attribution" alone, for the last stage or for methods that
            are of the input.
        out: folder of the run, made where it is missing. Nothing is written anywhere else.
        format: of sheets and tiles: png, jpg, webp or npy.
        max_pixels: largest image to read, in px.
        truncated: "allow" to draw damaged images as far as they go.
        input_range: values that become black and white, such as (0, 4095) for 12 bits in files of 16.
        axes: axes of what the layers put out; see visualize.
        planes: of volumes and clips, the planes or time steps to draw; see visualize.
        inputs: what the model takes beside the images; see capture. A tensor has a row for each image, in their order,
            or one row for all; each batch gets the rows of its images. A function of the batch makes anything else, and
            of images whose number is not known, such as a generator's, what differs from one to the next.
        forward: method of the model to run instead of `forward`; see capture.
        overlay: True to lay maps over the image as the model saw it, or another image, as in render.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        show_input: True to show the image as the model saw it above the grid, in 64 colours of the palette.
        method: with save "attribution", the name of the method (default gradcam); see attribute. Methods of layers
            share a pass with what else is made of the layers; guided-gradcam and methods of the input take their own.
        target: what is explained (default: the class with the highest score of each image); see attribute. The rows of
            the index say which class that was. A list of lists, or an array of integers, has a row for each image.
        on_file: called with the path of each file, or of each tar, once it is complete.
        **options: see below.

    Returns:
        What was done.

    Raises:
        OptionError: an option cannot be used; or the folder holds a run with other settings or one that is going on, or
            sheets of another command.
        ImagesFailedError: with `strict`, an image failed.
        WriteError: for example, the disk is full; what was finished stays.
        KeyboardInterrupt: the first Ctrl-C, once what was under way is finished; the second one, at once.
        CnnvizError: an error of every image; see load_model, load_images, capture and render.
    """
    leave_if_run_again()
    wanted, drawing, attribution, look = split_options(options)
    folder = Path(out)
    refuse_mixing(folder, of_run=True)
    patterns = None if layers is None else [layers] if isinstance(layers, str | int) else list(layers)
    read = AxesOptions(axes=axes, planes=planes)
    backdrop = _backdrop(overlay, alpha, show_input, max_pixels)
    spec = RunSpec(
        layers=patterns,
        folder=folder,
        format=format,
        max_pixels=max_pixels,
        axes=read,
        backdrop=backdrop,
        run=wanted,
        drawing=drawing,
        ranks=ranks_in(array=wanted.array),
        decoding=ImageOptions(truncated=truncated, input_range=input_range),  # type: ignore[arg-type]
        labels=None if wanted.labels is None else read_labels(wanted.labels),
        heat=heat_of_run(
            wanted.save,
            patterns,
            method=method,
            target=target,
            options=attribution,
            axes=read,
            look=look,
            backdrop=backdrop,
        ),
    )
    for kind in spec.collects:
        kind.record(0)  # refuses options that do not go together
    outputs_of(wanted.save, format)
    if wanted.parquet:
        import_extra("pyarrow", "parquet", "Parquet tables", OptionError)
    on_ray = wanted.engine == "ray"
    loaded = called_with(loaded_model(model, "cpu" if on_ray else spec.ranks.device("auto")), inputs, forward)
    if on_ray:
        from .ray.engine import run_on_ray

        return run_on_ray(loaded, images, spec, on_file)
    with words_for(loaded.module, images):
        found = images_of(images, usual_spec(loaded, max_pixels, spec.decoding), spec.folder, spec.ranks.world_size)
    return run_here(LocalEngine(), loaded, found, spec, on_file)


def _backdrop(overlay: Any, alpha: float | None, show_input: Any, max_pixels: int) -> Backdrop | None:
    """Return the image of all sheets; the command line has read it already."""
    return overlay if isinstance(overlay, Backdrop) else read_overlay(overlay, alpha, show_input, max_pixels=max_pixels)
