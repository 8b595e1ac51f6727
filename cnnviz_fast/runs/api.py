"""A run over any number of pictures: read, captured, drawn and written side by side, and taken up where it stopped.

Job           what is asked for                            job.py
list_items    what the pictures are                        sources.py
statistics_of with normalize dataset, a run over them that measures first
Run           does this process's share of them            run_account.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..models.loaded import LoadedModel
from ..options.declared import takes
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS, AxesOptions
from ..options.runs import RunOptions
from ..runtime.extras import import_extra
from ..sheets.overlay import Backdrop, read_overlay
from .images import images_of
from .local import run_here
from .outputs import outputs_of
from .ranks import ranks_in
from .spec import RunSpec, RunSummary, loaded_model, split_options

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from ..options.keywords import RunKeywords


@takes(RunOptions, RenderOptions)
def run(
    model: LoadedModel | nn.Module | str,
    images: Any,
    layers: str | int | Sequence[str | int],
    out: str | os.PathLike[str],
    *,
    format: str = "png",
    max_pixels: int = MAX_PIXELS,
    axes: str = "auto",
    overlay: Any = None,
    alpha: float | None = None,
    on_file: Callable[[Path], object] | None = None,
    **options: Unpack[RunKeywords],
) -> RunSummary:
    """Make sheets, atlases, maps or statistics of any number of pictures, in memory that does not grow with them.

    A picture that cannot be read or run is noted in failed.jsonl and stops nothing. A run that was stopped, killed too,
    is taken up by calling it again: finished pictures are skipped, and nothing that is visible is ever half written.
    Processes that torchrun or srun start share the pictures among them.

    Args:
        model: from load_model, a module of one's own, or a spec for load_model.
        images: files, folders, globs, lists, "-", tar shards, Parquet tables, pictures in memory; see list_items. Or a
            torch Dataset, or a DataLoader.
        layers: layer patterns; see capture.
        out: folder of the run, made where it is missing. Nothing is written anywhere else.
        format: of sheets and tiles: png, jpg, webp or npy.
        max_pixels: largest picture to read, in px.
        axes: axes of what the layers put out; see visualize.
        overlay: True to lay maps over the picture as the model saw it, or another picture, as in render; or what
            read_overlay returned.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        on_file: called with the path of each file, or of each tar, once it is there.
        **options: see below.

    Returns:
        What was done.

    Raises:
        OptionError: an option cannot be used, or the folder holds a run with other settings, or one that is going on.
        ImagesFailedError: with `strict`, an image failed.
        WriteError: the disk is full, say; what was finished stays.
        KeyboardInterrupt: the first Ctrl-C, once what was under way is finished; the second one, at once.
        CnnvizError: what would go wrong with every picture; see load_model, list_items, capture and render.
    """
    wanted, drawing = split_options(options)
    job = RunSpec(
        layers=list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers],
        folder=Path(out),
        format=format,
        max_pixels=max_pixels,
        axes=AxesOptions(axes=axes),
        backdrop=overlay if isinstance(overlay, Backdrop) else read_overlay(overlay, alpha, max_pixels=max_pixels),
        run=wanted,
        drawing=drawing,
        place=ranks_in(),
    )
    outputs_of(wanted.save, format)
    if wanted.parquet:
        import_extra("pyarrow", "parquet", "Parquet tables", OptionError)
    if wanted.engine == "ray":
        from .ray.engine import run_on_ray

        return run_on_ray(model, images, job, on_file)
    loaded = loaded_model(model, job.place.device("auto"))
    return run_here(loaded, images_of(images, loaded.preprocess, max_pixels, job.folder), job, on_file)
