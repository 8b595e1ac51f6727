"""Stage 7 of 7: atlases. All channels of a layer in one small file, drawn later at any size and in any colours.

    cf.save_atlas(maps, "cat_layer4.atlas")                        2048x7x7 of a ResNet-50: about 100 kB
    atlas = cf.read_atlas("cat_layer4.atlas")
    cf.render(atlas.maps, tile=224, source=atlas.source)

The file is a safetensors file in one zlib stream, so it is read without this package too:

    t = safetensors.numpy.load(zlib.decompress(open("cat_layer4.atlas", "rb").read()))
    low, high = (t[end].astype("float64")[:, None, None] for end in ("vmin", "vmax"))
    maps = low * (1 - t["index"] / 252) + high * (t["index"] / 252)      # where index <= 252

    index        (C, H, W) uint8. Where a value lies from vmin to vmax, in levels 0 .. 252; 253 NaN, 254 -inf, 255 inf.
    vmin, vmax   (C,) float32. Least and greatest finite value of each channel, exact; NaN where there is none.
    mean, std    (C,) float32. Of the finite values, divisor n; rounded from float64.
    zeros        (C,) int32. How many values are 0. The index cannot tell, as it rounds small ones to it.

Its metadata hold, under "cnnviz_fast", a JSON record: format "atlas", version, package (the version that wrote it),
dtype (of the maps as they were) and source (the fields of `Provenance`).

A value comes back within half a level of itself, (vmax - vmin) / 504, and the extremes come back exactly. So ranges,
flat and dead channels are what they were, and at any size a tile that is drawn on a range no narrower than its
channel's, as with `normalize` channel, layer and symmetric, is within one entry of the palette of a direct one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.values import as_maps
from ..errors import AtlasError, reason_of
from ..geometry import Grid, cut_rows, sampling_positions
from ..kernels import Paint, backends
from ..provenance import Provenance, package_version
from ..runtime.files import whole_file
from .safetensors import pack, unpack

if TYPE_CHECKING:
    from ..kernels.backends import Backend

SUFFIX = ".atlas"
VERSION = 1

LEVELS = 253
NAN, MINUS_INF, PLUS_INF = 253, 254, 255
"""Entries of what is not finite, behind the levels."""

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

    index: (C, H, W) uint8. See the head of this module.
    statistics: of the maps as they were: extremes, zeros and what is not finite exact, mean and std to float32.
    provenance: where they came from, this file among it.
    dtype: of the maps as they were, such as "float16".
    """

    index: torch.Tensor
    statistics: ChannelStatistics
    provenance: Provenance
    dtype: str

    @property
    def vmin(self) -> torch.Tensor:
        """Return the least finite value of each channel, (C,) float32, exact; NaN where there is none."""
        return self.statistics.vmin

    @property
    def vmax(self) -> torch.Tensor:
        """Return the greatest finite value of each channel, (C,) float32, exact; NaN where there is none."""
        return self.statistics.vmax

    @cached_property
    def maps(self) -> torch.Tensor:
        """Rebuild the maps, (C, H, W) float32, on first use: within half a level, extremes exact."""
        entries = torch.empty(len(self.index), 256)
        fraction = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
        # In float64 no range overflows; and of these products one is 0 at each end, which leaves the other exact.
        low, high = (end.double()[:, None] for end in (self.vmin, self.vmax))
        entries[:, :LEVELS] = low * (1 - fraction) + high * fraction
        entries[:, NAN], entries[:, MINUS_INF], entries[:, PLUS_INF] = torch.nan, -torch.inf, torch.inf
        return entries.gather(1, self.index.flatten(1).long()).view(self.index.shape)


def save_atlas(maps: Any, path: str | os.PathLike[str], *, provenance: Provenance | None = None) -> Path:
    """Write every channel of a layer at its own resolution into one small file, to be drawn later.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; (C,) for a vector. Not
            modified.
        path: the file. With the suffix .atlas it is found where a folder is named.
        provenance: where the maps came from.

    Returns:
        The path.

    Raises:
        InputError: `maps` cannot be used.
        EncodeError: they are more than 2^30 values.
        WriteError: the file cannot be written; nothing is left of it, and an older file of that name stays.
    """
    path = Path(path)
    packed = atlas_bytes(maps, provenance or Provenance())
    with whole_file(path) as file:
        file.write(packed)
    return path


def atlas_bytes(maps: Any, provenance: Provenance) -> bytes:
    """Make the bytes of an atlas. Measured and quantised on the device of the maps, by the kernels.

    Args:
        maps: as in save_atlas.
        provenance: where they came from. The names of classes are kept only where they name the entries of a vector.

    Returns:
        The bytes: the same for the same maps and the same source.

    Raises:
        InputError: `maps` cannot be used.
        EncodeError: they are more than 2^30 values.
    """
    values = as_maps(maps)
    backend = backends.choose("auto", str(values.device))
    statistics = channel_statistics(backend, values)
    cells = values[0].numel()
    tensors = {
        "index": _quantized(values, statistics, backend),
        "vmin": statistics.vmin,
        "vmax": statistics.vmax,
        "mean": statistics.mean.to(torch.float32),
        "std": statistics.std.to(torch.float32),
        "zeros": (statistics.zeros * cells).round().to(torch.int32),
    }
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

    It is a sheet of one column at native size. To kernels a map is a single row of cells: 4 times as fast for 7x7, and
    the same, since nothing is interpolated.
    """
    count, cells = len(maps), maps[0].numel()
    axes = Grid(count, rows=count, cols=1, tile_h=1, tile_w=cells)
    index = torch.empty((count, cells), dtype=torch.uint8, device=maps.device)
    arrays = [backend.to_array(tensor) for tensor in (maps.reshape(count, 1, cells), statistics.vmin, statistics.vmax)]
    out = backend.to_array(index)  # shares the memory of `index`
    down, across = (sampling_positions(size, size, "left", "nearest") for size in (1, cells))
    paint = Paint(LEVELS, flat=0.0, background=0, bad=NAN)
    for strip in cut_rows(count, max(1, backend.strip_px // cells)):
        backend.kernels.render_strip(*arrays, down, across, axes, paint, strip, out[strip.start : strip.stop])
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
        Its maps, statistics and where they came from.

    Raises:
        AtlasError: the file is missing, damaged, no atlas, or one that a newer version of this package wrote.
    """
    try:
        packed = Path(path).read_bytes()
    except OSError as error:
        raise AtlasError(f"atlas {os.fspath(path)!r} cannot be read: {reason_of(error)}.") from error
    return parse_atlas(packed, os.fspath(path))


def parse_atlas(packed: bytes, name: str) -> Atlas:
    """Read the bytes of an atlas, such as an entry of a tar file.

    Args:
        packed: of atlas_bytes, or from whatever source.
        name: of the file, for `provenance` and messages.

    Returns:
        The atlas.

    Raises:
        AtlasError: the bytes are damaged, no atlas, or one that a newer version of this package wrote.
    """
    label = f"atlas {name!r}"
    tensors, record = unpack(packed, label)
    version, facts = record.get("version"), record.get("source")
    if record.get("format") != "atlas" or not isinstance(version, int) or not isinstance(facts, dict):
        raise AtlasError(f"{label} is no atlas: it holds other tensors.")
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
        nan=(index == NAN).sum(dim=(1, 2)),
        inf=(index > NAN).sum(dim=(1, 2)),
    )
    provenance = replace(_provenance_of(facts, label), atlas=name)
    return Atlas(index, statistics, provenance, str(record.get("dtype")))


def _check(tensors: dict[str, torch.Tensor], label: str) -> None:
    """Refuse tensors that are not those of an atlas."""
    index = tensors.get("index")
    if index is None or index.ndim != 3 or index.dtype != torch.uint8 or index.numel() == 0:
        raise AtlasError(f"{label} is damaged: index must be (C, H, W) uint8.")
    for name, dtype in _COLUMNS.items():
        column = tensors.get(name)
        if column is None or column.shape != index.shape[:1] or column.dtype != dtype:
            kind = str(dtype).removeprefix("torch.")
            raise AtlasError(f"{label} is damaged: {name} must be ({len(index)},) {kind}, an entry a channel.")


def _provenance_of(facts: dict[str, Any], label: str) -> Provenance:
    """Take the source from a record; what only a later version knows is left out."""
    kinds = {"prefix_tokens": int, "time_step": int, "categories": list}
    known = {name: facts[name] for name in vars(Provenance()) if facts.get(name) is not None}
    for name, value in known.items():
        kind = kinds.get(name, str)
        if not isinstance(value, kind):
            raise AtlasError(f"{label} is damaged: {name} of its source must be of type {kind.__name__}.")
    return Provenance(**known)
