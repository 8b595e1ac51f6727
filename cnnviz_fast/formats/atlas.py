"""Atlases: all channels of a layer in one small file, to draw later at any size and in any colours.

    cf.save_atlas(maps, "cat_layer4.atlas")                        2048x7x7 of a ResNet-50: about 100 kB
    atlas = cf.read_atlas("cat_layer4.atlas")
    cf.render(atlas.maps, tile=224, provenance=atlas.provenance)

The file is a safetensors file in one zlib stream, so it can be read without this package:

    t = safetensors.numpy.load(zlib.decompress(open("cat_layer4.atlas", "rb").read()))
    low, high = (t[end].astype("float64")[:, None, None] for end in ("vmin", "vmax"))
    maps = low * (1 - t["index"] / 252) + high * (t["index"] / 252)      # where index <= 252

    index        (C, H, W) uint8. Position of a value between vmin and vmax, in levels 0 .. 252; 253 for NaN, 254 for
                 -inf, 255 for inf.
    vmin, vmax   (C,) float32. Least and greatest finite value of each channel, exact; NaN if there is none.
    mean, std    (C,) float32. Of the finite values, divisor n; rounded from float64.
    zeros        (C,) int32. Number of values that are 0. The index does not show them: it rounds small values.
    maps         (C, H, W) real dtype. The maps themselves, unrounded, in atlases of heat maps; others are without.

Its metadata hold, under "cnnviz_fast", a JSON record: format "atlas", version, package (the version that wrote it),
dtype (of the original maps) and source (the fields of `Provenance`).

A value is restored to within half a level, (vmax - vmin) / 504, and the extremes exactly. So ranges, flat and dead
channels do not change. A tile of any size that is drawn on a range no narrower than its channel's, as with `normalize`
channel, layer and symmetric, is within one palette entry of a tile drawn from the original maps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..channels.entrance import enter
from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.values import as_maps
from ..errors import AtlasError, reason_of
from ..geometry import Grid, cut_rows, sampling_positions
from ..kernels import Paint, backends
from ..options.parsers import path as path_of
from ..provenance import Provenance, package_version
from ..runtime.files import whole_file
from ..runtime.untrusted import open_regular
from .atlas_head import VERSION, provenance_of
from .safetensors import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..kernels.backends import Backend

LEVELS = 253
NAN, MINUS_INF, PLUS_INF = 253, 254, 255
"""Entries of values that are not finite, behind the levels."""

_BAND_VALUES = 1 << 20
"""Values of an index that are looked up at once: torch takes 8 bytes for the place of each."""

_COLUMNS = {
    "vmin": torch.float32,
    "vmax": torch.float32,
    "mean": torch.float32,
    "std": torch.float32,
    "zeros": torch.int32,
}


@dataclass(frozen=True, eq=False)
class Atlas:
    """The maps of a layer as an atlas holds them, on the CPU.

    index: (C, H, W) uint8. Position of each value between vmin and vmax of its channel, 0 to 252; 253 for NaN, 254 for
        -inf, 255 for inf.
    statistics: statistics of the original maps: exact, but for mean and std, which are rounded to float32.
    provenance: where the maps came from, with the name of this file.
    dtype: dtype of the original maps, such as "float16".
    unrounded: (C, H, W) real dtype. The original maps, where the atlas has kept them.
    """

    index: torch.Tensor
    statistics: ChannelStatistics
    provenance: Provenance
    dtype: str
    unrounded: torch.Tensor | None = None

    @property
    def vmin(self) -> torch.Tensor:
        """Return the least finite value of each channel, (C,) float32, exact; NaN if there is none."""
        return self.statistics.vmin

    @property
    def vmax(self) -> torch.Tensor:
        """Return the greatest finite value of each channel, (C,) float32, exact; NaN if there is none."""
        return self.statistics.vmax

    @cached_property
    def maps(self) -> torch.Tensor:
        """Return the maps, (C, H, W) float32, rebuilt on first use: within half a level, extremes exact.

        Where the atlas has kept the maps themselves, they are these.
        """
        if self.unrounded is not None:
            return self.unrounded.float()
        entries = torch.empty(len(self.index), 256)
        fraction = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
        # In float64 no range overflows. At each end one of the products is 0, so the other is exact.
        low, high = (end.double()[:, None] for end in (self.vmin, self.vmax))
        entries[:, :LEVELS] = low * (1 - fraction) + high * fraction
        entries[:, NAN], entries[:, MINUS_INF], entries[:, PLUS_INF] = torch.nan, -torch.inf, torch.inf
        index = self.index.flatten(1)
        maps = torch.empty(index.shape)
        step = max(1, _BAND_VALUES // index.shape[1])
        for first in range(0, len(index), step):
            band = slice(first, first + step)
            maps[band] = entries[band].gather(1, index[band].long())
        return maps.view(self.index.shape)


def save_atlas(
    maps: Any,
    path: str | os.PathLike[str],
    *,
    axes: str = "auto",
    planes: Any = None,
    provenance: Provenance | None = None,
) -> Path:
    """Write every channel of a layer at its own resolution into one small file, to draw later.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; (C,) for a vector; or what
            else render takes. Not modified.
        path: the file. With the suffix .atlas it is found in a folder of atlases.
        axes: of `maps` where its channels are not first; see render.
        planes: of a volume, the plane to keep; see render.
        provenance: where the maps came from.

    Returns:
        The path.

    Raises:
        InputError: `maps` cannot be used.
        EncodeError: `maps` holds more than 2^30 values.
        WriteError: the file cannot be written. Nothing of it is left, and an older file of that name stays.
    """
    path = path_of("path", path)
    handed = enter(maps, axes, planes)
    write_atlas(handed.maps, path, handed.placed(provenance or Provenance()))
    return path


def write_atlas(
    maps: Any,
    path: Path,
    provenance: Provenance,
    measured: ChannelStatistics | None = None,
    *,
    unrounded: bool = False,
) -> None:
    """Write an atlas of maps that are in the form that is drawn.

    Args:
        maps: (C, H, W) real dtype, an array or a tensor, or (C,) for a vector. See save_atlas. Not modified.
        path: the file.
        provenance: where the maps came from; see atlas_bytes.
        measured: statistics of all channels; see atlas_bytes.
        unrounded: whether the maps are kept as they are too; see atlas_bytes.

    Raises:
        CnnvizError: see save_atlas.
    """
    packed = atlas_bytes(maps, provenance, measured, unrounded=unrounded)
    with whole_file(path) as file:
        file.write(packed)


def atlas_bytes(
    maps: Any, provenance: Provenance, measured: ChannelStatistics | None = None, *, unrounded: bool = False
) -> bytes:
    """Make the bytes of an atlas. Kernels measure and quantise the maps on their device.

    Args:
        maps: (C, H, W) real dtype, an array or a tensor, or (C,) for a vector. See save_atlas. Not modified.
        provenance: where the maps came from. Names of classes are kept only if they name the entries of a vector.
        measured: statistics of all channels by the backend "auto", on any device, where they are known already.
        unrounded: whether the maps, a tensor then, are kept as they are beside their index.

    Returns:
        The bytes: the same for the same maps and the same provenance.

    Raises:
        InputError: `maps` cannot be used.
        EncodeError: `maps` holds more than 2^30 values.
    """
    values = as_maps(maps)
    backend = backends.choose("auto", str(values.device))
    statistics = measured or channel_statistics(backend, values)
    cells = values[0].numel()
    tensors = {
        "index": _quantized(values, statistics, backend),
        "vmin": statistics.vmin,
        "vmax": statistics.vmax,
        "mean": statistics.mean.to(torch.float32),
        "std": statistics.std.to(torch.float32),
        "zeros": (statistics.zeros * cells).round().to(torch.int32),
    }
    if unrounded:
        tensors["maps"] = maps.detach().clone(memory_format=torch.contiguous_format)
    facts = provenance.facts()
    if cells == 1 and provenance.categories is not None and len(provenance.categories) == len(values):
        facts["categories"] = list(provenance.categories)
    record = {
        "format": "atlas",
        "version": VERSION,
        "package": package_version(),
        "dtype": str(maps.dtype).removeprefix("torch."),
        "source": facts,
    }
    return pack(tensors, record)


def _quantized(maps: torch.Tensor, statistics: ChannelStatistics, backend: Backend) -> torch.Tensor:
    """Return the index plane of (C, H, W) float32 `maps`, of the same shape, on their device.

    It is a sheet of one column at native size. Kernels get each map as a single row of cells: 4 times as fast for 7x7,
    with the same result, since nothing is interpolated.
    """
    count, cells = len(maps), maps[0].numel()
    grid = Grid(count, rows=count, cols=1, tile_h=1, tile_w=cells)
    index = torch.empty((count, cells), dtype=torch.uint8, device=maps.device)
    ends = (end.to(maps.device) for end in (statistics.vmin, statistics.vmax))
    arrays = [backend.to_array(tensor) for tensor in (maps.reshape(count, 1, cells), *ends)]
    out = backend.to_array(index)  # shares the memory of `index`
    down, across = (sampling_positions(size, size, "left", "nearest") for size in (1, cells))
    paint = Paint(LEVELS, flat=0.0, background=0, bad=NAN)
    for strip in cut_rows(count, max(1, backend.strip_px // cells)):
        backend.kernels.render_strip(*arrays, down, across, grid, paint, strip, out[strip.start : strip.stop])
    index = index.view(maps.shape)
    if not statistics.all_finite:
        index[maps == -torch.inf] = MINUS_INF
        index[maps == torch.inf] = PLUS_INF
    return index


def read_atlas(path: str | os.PathLike[str]) -> Atlas:
    """Read an atlas.

    Args:
        path: the file.

    Returns:
        The atlas.

    Raises:
        AtlasError: the file is missing, damaged or not an atlas, or a newer version of this package wrote it.
    """
    path = path_of("path", path)  # a number would be an open file's, which would be closed
    try:
        with open_regular(path) as file:
            packed = file.read()
    except OSError as error:
        raise AtlasError(f"atlas {os.fspath(path)!r} cannot be read: {reason_of(error)}.") from error
    return parse_atlas(packed, os.fspath(path))


def parse_atlas(packed: bytes, name: str) -> Atlas:
    """Read the bytes of an atlas, such as an entry of a tar file.

    Args:
        packed: bytes of an atlas; they need not be trusted.
        name: name of the file, for `provenance` and messages.

    Returns:
        The atlas.

    Raises:
        AtlasError: the bytes are damaged or not an atlas, or a newer version of this package wrote them.
    """
    label = f"atlas {name!r}"
    tensors, record = unpack(packed, label)
    version, facts = record.get("version"), record.get("source")
    if record.get("format") != "atlas" or not isinstance(version, int) or not isinstance(facts, dict):
        raise AtlasError(f"{label} is not an atlas: it holds other tensors.")
    if version > VERSION:
        raise AtlasError(f"{label} must be of version {VERSION} at most, got {version}. Install a newer cnnviz_fast.")
    _check(tensors, label)
    index = tensors["index"]
    statistics = ChannelStatistics(
        tensors["vmin"],
        tensors["vmax"],
        tensors["mean"].double(),
        tensors["std"].double(),
        zeros=tensors["zeros"].double() / index[0].numel(),
        nan=_counts(index == NAN),
        inf=_counts(index > NAN),
    )
    provenance = replace(provenance_of(facts, label), atlas=name and name.replace(os.sep, "/"))
    return Atlas(index, statistics, provenance, str(record.get("dtype")), tensors.get("maps"))


def with_provenance(packed: bytes, name: str, changes: Mapping[str, Any]) -> bytes:
    """Return an atlas with other fields of its provenance.

    Args:
        packed: bytes of an atlas that `parse_atlas` takes.
        name: name of the file, for messages.
        changes: name of a field -> its new value.

    Returns:
        The bytes of an atlas that is otherwise the same.
    """
    tensors, record = unpack(packed, f"atlas {name!r}")
    return pack(tensors, {**record, "source": {**record["source"], **changes}})


def _counts(mask: torch.Tensor) -> torch.Tensor:
    """Count what is True in each channel of (C, H, W) bool; by numpy, as torch takes 8 bytes for each value."""
    return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=(1, 2)))


def _check(tensors: dict[str, torch.Tensor], label: str) -> None:
    """Check that tensors are those of an atlas."""
    index = tensors.get("index")
    if index is None or index.ndim != 3 or index.dtype != torch.uint8 or index.numel() == 0:
        raise AtlasError(f"{label} is damaged: index must be (C, H, W) uint8.")
    maps = tensors.get("maps")
    if maps is not None and (maps.shape != index.shape or maps.is_complex()):
        raise AtlasError(f"{label} is damaged: maps must have the shape of index, {tuple(index.shape)}.")
    for name, dtype in _COLUMNS.items():
        column = tensors.get(name)
        if column is None or column.shape != index.shape[:1] or column.dtype != dtype:
            kind = str(dtype).removeprefix("torch.")
            raise AtlasError(f"{label} is damaged: {name} must be ({len(index)},) {kind}, one entry for each channel.")
