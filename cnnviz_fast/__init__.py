"""Draw every channel of any layer of a convolutional network, as fast as the machine can write pixels.

The public names are loaded when they are first used: importing the package imports neither torch nor numba.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .atlas import Atlas as Atlas
    from .atlas import read_atlas as read_atlas
    from .atlas import save_atlas as save_atlas
    from .batch import render_batch as render_batch
    from .capture import capture as capture
    from .capture import capture_stream as capture_stream
    from .capture import list_layers as list_layers
    from .compare import Comparison as Comparison
    from .compare import compare as compare
    from .dataset_statistics import LayerStatistics as LayerStatistics
    from .errors import CnnvizError as CnnvizError
    from .images import load_images as load_images
    from .layers import LayerInfo as LayerInfo
    from .manifest import Source as Source
    from .models import LoadedModel as LoadedModel
    from .models import load_model as load_model
    from .operators import render_index as render_index
    from .options import PreprocessOptions as PreprocessOptions
    from .options import RenderOptions as RenderOptions
    from .render import render as render
    from .render import save_sheet as save_sheet
    from .report import LayerReport as LayerReport
    from .report import layer_report as layer_report
    from .run import run as run
    from .sheet import Sheet as Sheet
    from .statistics_files import read_statistics as read_statistics
    from .tiles import save_tiles as save_tiles
    from .visualize import visualize as visualize
    from .weights import ParameterInfo as ParameterInfo
    from .weights import parameter_statistics as parameter_statistics

_HOMES = {
    "Atlas": "atlas",
    "read_atlas": "atlas",
    "save_atlas": "atlas",
    "capture": "capture",
    "capture_stream": "capture",
    "list_layers": "capture",
    "Comparison": "compare",
    "compare": "compare",
    "LayerStatistics": "dataset_statistics",
    "CnnvizError": "errors",
    "load_images": "images",
    "LayerInfo": "layers",
    "Source": "manifest",
    "LoadedModel": "models",
    "load_model": "models",
    "render_index": "operators",
    "PreprocessOptions": "options",
    "RenderOptions": "options",
    "render": "render",
    "render_batch": "batch",
    "save_sheet": "render",
    "save_tiles": "tiles",
    "read_statistics": "statistics_files",
    "LayerReport": "report",
    "layer_report": "report",
    "RunSummary": "job",
    "run": "run",
    "Sheet": "sheet",
    "visualize": "visualize",
    "ParameterInfo": "weights",
    "parameter_statistics": "weights",
}

__all__ = sorted([*_HOMES, "__version__"])


class _Package(ModuleType):
    """This package as a module that loads its public names on first use."""

    def __getattr__(self, name: str) -> object:
        if name == "__version__":
            from .manifest import package_version

            return package_version()
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds each submodule here once it is loaded. Some share their name with the function they
        # hold (`render`, `capture`, `visualize`), and `cf.render` has to be the function whatever was imported before.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return __all__


sys.modules[__name__].__class__ = _Package
