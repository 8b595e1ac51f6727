"""Draw every channel of any layer of a vision network, as fast as the machine can write pixels.

The public names are loaded when they are first used: importing the package imports neither torch nor numba.
"""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from .activations.capture import capture as capture
    from .activations.capture import capture_stream as capture_stream
    from .activations.fields.find import receptive_field as receptive_field
    from .activations.fields.record import ReceptiveField as ReceptiveField
    from .activations.listing import list_layers as list_layers
    from .attribution.api import attribute as attribute
    from .attribution.inversion import Inverted as Inverted
    from .attribution.inversion import invert as invert
    from .attribution.maximization import Maximized as Maximized
    from .attribution.maximization import maximize as maximize
    from .channels.dataset import LayerStatistics as LayerStatistics
    from .channels.dataset_files import read_statistics as read_statistics
    from .channels.report import LayerReport as LayerReport
    from .channels.report import layer_report as layer_report
    from .errors import CnnvizError as CnnvizError
    from .formats.atlas import Atlas as Atlas
    from .formats.atlas import read_atlas as read_atlas
    from .formats.atlas import save_atlas as save_atlas
    from .inputs.images import load_images as load_images
    from .models.layers import LayerInfo as LayerInfo
    from .models.load import load_model as load_model
    from .models.loaded import LoadedModel as LoadedModel
    from .operators import render_index as render_index
    from .options.drawing import RenderOptions as RenderOptions
    from .options.reading import PreprocessOptions as PreprocessOptions
    from .patches.api import patch_sheet as patch_sheet
    from .patches.sheet import PatchSheet as PatchSheet
    from .patches.top import TopResponses as TopResponses
    from .patches.top_files import read_top as read_top
    from .pipeline import visualize as visualize
    from .provenance import Provenance as Provenance
    from .runs.api import run as run
    from .runs.spec import RunSummary as RunSummary
    from .sheets.comparison import Comparison as Comparison
    from .sheets.comparison import compare as compare
    from .sheets.render import render as render
    from .sheets.render import save_sheet as save_sheet
    from .sheets.samples import render_batch as render_batch
    from .sheets.sheet import Sheet as Sheet
    from .sheets.tiles import save_tiles as save_tiles
    from .viewer.notebook import PageView as PageView
    from .viewer.notebook import view as view
    from .viewer.page import save_page as save_page
    from .weights.parameters import ParameterInfo as ParameterInfo
    from .weights.parameters import parameter_statistics as parameter_statistics

_HOMES = {
    "Atlas": "formats.atlas",
    "read_atlas": "formats.atlas",
    "save_atlas": "formats.atlas",
    "capture": "activations.capture",
    "capture_stream": "activations.capture",
    "receptive_field": "activations.fields.find",
    "ReceptiveField": "activations.fields.record",
    "list_layers": "activations.listing",
    "attribute": "attribution.api",
    "Inverted": "attribution.inversion",
    "invert": "attribution.inversion",
    "Maximized": "attribution.maximization",
    "maximize": "attribution.maximization",
    "Comparison": "sheets.comparison",
    "compare": "sheets.comparison",
    "LayerStatistics": "channels.dataset",
    "CnnvizError": "errors",
    "load_images": "inputs.images",
    "LayerInfo": "models.layers",
    "Provenance": "provenance",
    "LoadedModel": "models.loaded",
    "load_model": "models.load",
    "render_index": "operators",
    "PreprocessOptions": "options.reading",
    "RenderOptions": "options.drawing",
    "render": "sheets.render",
    "render_batch": "sheets.samples",
    "save_sheet": "sheets.render",
    "save_tiles": "sheets.tiles",
    "read_statistics": "channels.dataset_files",
    "LayerReport": "channels.report",
    "layer_report": "channels.report",
    "TopResponses": "patches.top",
    "read_top": "patches.top_files",
    "RunSummary": "runs.spec",
    "run": "runs.api",
    "Sheet": "sheets.sheet",
    "visualize": "pipeline",
    "PatchSheet": "patches.sheet",
    "patch_sheet": "patches.api",
    "PageView": "viewer.notebook",
    "view": "viewer.notebook",
    "save_page": "viewer.page",
    "ParameterInfo": "weights.parameters",
    "parameter_statistics": "weights.parameters",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> object:
    """Load a public name on first use; see PEP 562."""
    if name == "__version__":
        from .provenance import package_version

        return package_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if isinstance(value, types.FunctionType):
        from .runtime.surface import public

        value = public(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
