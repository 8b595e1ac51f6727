"""The images to which each channel of a layer answers most strongly, for any number of images and processes.

    top = TopResponses(512, k=9)
    top.update(activations["layer4"], names)   # once for each batch
    top.merge(others)                          # the record of another process
    top.values, top.images, top.positions      # (512, 9) each, the strongest first

The result depends on the set of images alone, not on the order of updates and merges, nor on the size of batches: equal
responses are in the order of the digests of their images' keys, and then of their positions. An image that comes twice
has its entries once. What is counted, `seen` and `nonfinite`, counts it twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, OptionError, ShapeError
from ..options.parsers import LARGEST_CHANNEL, choice, refuse, whole, whole_within
from ..options.runs import MOST_BANDS, MOST_ENTRIES, MOST_REPEATS, SAMPLE_OF_A_BAND, TOP_BY, most_drawn
from ..runtime.array_files import check_arrays, part_of, prefixed
from .entries import Entries, EntryLists
from .lists import LARGEST_SIDE
from .responses import MapPlaces, Responses, checked, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..activations.fields.record import ReceptiveField

SAMPLE_AT_LEAST = 64
"""Bands are those of a sample of SAMPLE_OF_A_BAND images for each that is drawn, and of so many in all: a band then
holds some 8 R images, of which R are drawn."""

_ARRAYS = {"settings": ("int64", 1), "nonfinite": ("int64", 1), "alive": ("uint8", 1)}
_SETTINGS = ("channels", "k", "by", "repeat", "random", "bands", "seed")


class TopResponses:
    """The entries of each channel of one layer. Only one thread at a time may update a record.

    It takes k x C x 16 bytes on the device of the maps for the strongest, as much again for k images drawn (with bands,
    for k images of the sample), and the keys of the images in the lists.

    Attributes:
        channels: number of channels of the layer.
        k: most entries of a channel among the strongest.
        by: what of a map is its response: 'max', 'mean' or 'min' of its finite values. By 'mean' the position is where
            the maximum is.
        repeat: most entries of an image in a channel, at different positions.
        random: images drawn for each channel, from those whose response is above 0; by 'min' below 0.
        bands: bands of equal share of the responses of a sample of images, from each of which as many are drawn.
        seed: of the draws.
        seen: number of images given, those given twice counted twice.
        field: receptive field of the layer, where it is known: a run's file has it, or set it. Not pickled.
    """

    def __init__(
        self,
        channels: int,
        k: int = 16,
        by: str = "max",
        *,
        repeat: int = 1,
        random: int = 0,
        bands: int = 0,
        seed: int = 0,
    ) -> None:
        """Start without images.

        Args:
            channels: number of channels of the layer.
            k: entries that are kept of each channel.
            by: 'max', 'mean' or 'min' of a map.
            repeat: entries that an image may have in a channel.
            random: images drawn for each channel beside the strongest.
            bands: number of bands that are drawn from too.
            seed: of the draws.

        Raises:
            OptionError: one of them is out of bounds, or they do not go together.
        """
        self.channels = whole_within(0, LARGEST_CHANNEL + 1)("channels", channels)
        self.k = whole_within(1, MOST_ENTRIES)("k", k)
        self.by = choice(*TOP_BY)("by", by)
        self.repeat = whole_within(1, MOST_REPEATS)("repeat", repeat)
        self.random = whole_within(0, MOST_ENTRIES)("random", random)
        self.bands = whole_within(0, MOST_BANDS)("bands", bands)
        self.seed = whole(0)("seed", seed)
        if self.by == "mean" and self.repeat > 1:
            raise OptionError("repeat must be 1 by 'mean', since a map has one mean. Choose by='max'.")
        if self.bands and not self.random:
            raise OptionError("random must be at least 1 with bands: it is what is drawn from each. Pass random=4.")
        sample = max(SAMPLE_AT_LEAST, SAMPLE_OF_A_BAND * self.bands * self.random) if self.bands else self.random
        if self.random > (most := most_drawn(self.bands)):
            raise OptionError(f"random must be at most {most:,} with {self.bands} bands, got {self.random:,}.")
        self.seen = 0
        self._strongest = EntryLists(self.channels, self.k, self.repeat)
        self._sample = EntryLists(self.channels, sample, seed=self.seed)
        self._nonfinite = torch.zeros(self.channels, dtype=torch.int64)
        self._alive = torch.zeros(self.channels, dtype=torch.bool)
        self._map_size = (0, 0)
        self.field: ReceptiveField | None = None

    def __repr__(self) -> str:
        """Return what is kept, in one line; and that there are fewer images than entries, if so."""
        kept = f"the {self.k:,} strongest by {self.by}"
        if self.seen < self.k:
            kept += ", fewer so far"
        return f"TopResponses({self.channels:,} channels, {self.seen:,} images, {kept}, {int(self.dead.sum()):,} dead)"

    def blank(self) -> TopResponses:
        """Return a record of the same layer and settings without images."""
        other = TopResponses(**{name: getattr(self, name) for name in _SETTINGS})
        other.field = self.field
        return other

    @property
    def values(self) -> NDArray[np.float32]:
        """Return the strongest responses, (C, k) float32, the strongest first; NaN where there are fewer images."""
        return self.draws("top").values

    @property
    def images(self) -> NDArray[Any]:
        """Return the keys of the images of the strongest responses, (C, k) object; "" where there are fewer."""
        return self.draws("top").images

    @property
    def positions(self) -> NDArray[np.int32]:
        """Return where on its map each strongest response lies, (C, k, 2) int32, y and x; -1 where there are fewer."""
        return self.draws("top").positions

    @property
    def boxes(self) -> NDArray[np.int32]:
        """Return what units at these positions see of the model's input.

        Returns:
            (C, k, 4) int32, px. y0, x0, y1, x1, the ends exclusive, beyond the input where a field is; -1 where there
            are fewer images.

        Raises:
            InputError: the receptive field of the layer is not known.
        """
        if self.field is None:
            raise InputError(
                "boxes need the receptive field of the layer. Set it: top.field = cf.receptive_field(model, layer)."
            )
        positions = self.positions
        places, place = np.unique(positions.reshape(-1, 2), axis=0, return_inverse=True)
        boxes = np.array([self.field.box(y, x) if y >= 0 else (-1,) * 4 for y, x in places.tolist()], np.int32)
        return boxes.reshape(-1, 4)[place.reshape(-1)].reshape(*positions.shape[:2], 4)

    @property
    def map_size(self) -> tuple[int, int]:
        """Return height and width of the maps, the greatest of each where they vary; (0, 0) for vectors."""
        return self._map_size

    @property
    def keys(self) -> set[str]:
        """Return the keys of all images in the lists, and of some that have left them: no list is looked at."""
        return {*self._strongest.keys, *self._sample.keys}

    @property
    def nonfinite(self) -> NDArray[np.int64]:
        """Return the number of NaN and infinities, (C,) int64. They are never a response."""
        count: NDArray[np.int64] = self._nonfinite.cpu().numpy()
        return count

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Return which channels were zero in all images, (C,) bool. They have no entries."""
        alive: NDArray[np.bool_] = self._alive.cpu().numpy()
        return ~alive & (self.seen > 0)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of draws that there are: 'top', and where they are drawn 'random', 'band:0', 'band:1' ..."""
        bands = [f"band:{band}" for band in range(self.bands)]
        return ("top", *(["random"] if self.random else []), *bands)

    def draws(self, kind: str) -> Entries:
        """Return the entries of one kind.

        Args:
            kind: 'top' for the strongest; 'random' for a draw among all images whose response is above 0, in the order
                of their hash; 'band:I' for one among band I of such a sample, from 0 for the weakest.

        Returns:
            The entries of each channel, none for those that are dead.

        Raises:
            OptionError: there is no such kind.
        """
        kind = choice(*self.kinds)("kind", kind)
        entries = (self._strongest if kind == "top" else self._sample).entries()
        sign = np.float32(-1 if self.by == "min" else 1)
        entries = Entries(entries.values * sign + np.float32(0), entries.images, entries.positions)
        shown = ~np.isnan(entries.values) & ~self.dead[:, None]
        if kind == "top":
            return entries.taken(np.broadcast_to(np.arange(self.k), shown.shape), shown)
        if kind.startswith("band:"):
            shown &= self._bands_of(entries.values) == int(kind.removeprefix("band:"))
        order = np.argsort(~shown, axis=1, kind="stable")[:, : self.random]
        return entries.taken(order, np.take_along_axis(shown, order, 1))

    def _bands_of(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the band of each entry of the sample, (C, n): equal shares of the sorted responses; -1 for NaN."""
        count = (~np.isnan(values)).sum(axis=1, keepdims=True)
        rank = np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1)
        return np.where(rank < count, rank * self.bands // np.maximum(count, 1), -1)

    def update(self, maps: torch.Tensor, images: Sequence[str], measured: Responses | None = None) -> torch.Tensor:
        """Take in the maps of a batch of images. Their size may differ from batch to batch.

        Args:
            maps: (N, C, H, W) real dtype, or (N, C) for vectors; any strides, any device, finite or not; compared as
                float32. N may be 0. Not modified.
            images: the N keys by which images are told apart. An image of the same key is taken for the same.
            measured: what `measure` returns of these maps, where it is known without a look at them.

        Returns:
            (N, C) float32. The response of each channel to each image, on the device of `maps`; NaN where no value is
            finite.

        Raises:
            ShapeError: `maps` has another number of channels, of dimensions or of images, no pixels, or a side of
                more than 32,767.
            DTypeError: `maps` is not a tensor, or complex, sparse, nested, quantised or on the meta device.
            InputError: `images` holds something else than strings.
        """
        values = checked(maps, self.channels)
        keys = _keys(images, len(values))
        if not len(values):
            return torch.empty(0, self.channels, device=values.device)
        found = measure(values, self.by) if measured is None else measured
        places = MapPlaces(values, self.by, found)
        self._strongest.offer(places, keys)
        if self.random:
            self._sample.offer(places, keys)
        self._nonfinite = self._nonfinite.to(values.device) + found.nonfinite
        self._alive = self._alive.to(values.device) | found.alive
        if maps.ndim == 4:
            self._grow(values.shape[2], values.shape[3])
        self.seen += len(values)
        return found.response

    def merge(self, other: TopResponses) -> None:
        """Take in what another record of the same layer has kept, of other images or the same.

        Args:
            other: of the same number of channels, and the same settings. Not modified.

        Raises:
            ShapeError: `other` has another number of channels.
            InputError: `other` is something else, or of other settings.
        """
        if not isinstance(other, TopResponses):
            raise InputError(f"other must be TopResponses, got {type(other).__name__}.")
        if other.channels != self.channels:
            raise ShapeError(f"other must have {self.channels} channels, got {other.channels}.")
        for name in _SETTINGS:
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise InputError(f"other must have the same settings, {name}={mine!r}, got {name}={its!r}.")
        self._strongest.merge(other._strongest)
        self._sample.merge(other._sample)
        self._nonfinite = self._nonfinite + other._nonfinite.to(self._nonfinite.device)
        self._alive = self._alive.to(self._nonfinite.device) | other._alive.to(self._nonfinite.device)
        self._grow(*other._map_size)
        self.seen += other.seen

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, to store or to send. The same set of images gives the same entries and keys."""
        settings = [self.channels, self.k, TOP_BY.index(self.by), self.repeat, self.random, self.bands, self.seed]
        return {
            "settings": np.array([*settings, self.seen, *self._map_size], np.int64),
            "nonfinite": self.nonfinite.copy(),
            "alive": self._alive.cpu().numpy().astype(np.uint8),
            **prefixed(self._strongest.to_arrays(), "top."),
            **prefixed(self._sample.to_arrays(), "sample."),
        }

    def __reduce__(self) -> tuple[Callable[..., TopResponses], tuple[Any, ...]]:
        """Pickle what `to_arrays` returns: on the host, without empty room."""
        return TopResponses.from_arrays, (self.to_arrays(),)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TopResponses:
        """Rebuild a record from what `to_arrays` returned.

        Args:
            arrays: name -> array.

        Returns:
            The record.

        Raises:
            InputError: `to_arrays` cannot have returned these arrays.
        """
        check_arrays(arrays, _ARRAYS)
        settings = arrays["settings"].tolist()
        counts = settings[len(_SETTINGS) :]
        if len(counts) != 3 or min(counts) < 0 or max(counts[1:]) > LARGEST_SIDE or not 0 <= settings[2] < len(TOP_BY):
            raise InputError("arrays must be those that to_arrays returned, got other settings.")
        channels, k, by, *rest = settings[: len(_SETTINGS)]
        top = cls(channels, k, TOP_BY[by], **dict(zip(_SETTINGS[3:], rest, strict=True)))
        if len(arrays["nonfinite"]) != channels or len(arrays["alive"]) != channels or (arrays["nonfinite"] < 0).any():
            raise InputError("arrays must be those that to_arrays returned, got arrays of other lengths.")
        top.seen, *size = counts
        top._map_size = (size[0], size[1])
        top._nonfinite = torch.from_numpy(arrays["nonfinite"].copy())
        top._alive = torch.from_numpy(arrays["alive"] != 0)
        top._strongest.fill(part_of(arrays, "top."))
        top._sample.fill(part_of(arrays, "sample."))
        return top

    def _grow(self, height: int, width: int) -> None:
        self._map_size = (max(self._map_size[0], height), max(self._map_size[1], width))


def _keys(images: Sequence[str], count: int) -> list[str]:
    """Return the keys of a batch, checked."""
    if isinstance(images, str | bytes) or not hasattr(images, "__iter__"):
        raise refuse("images", "a list of keys, one for each image", images)
    keys = list(images)
    if len(keys) != count:
        raise ShapeError(f"images must hold {count} keys, one for each image of maps, got {len(keys)}.")
    for key in keys:
        if not isinstance(key, str) or not key:
            raise refuse("images", "keys of text", key)
    return keys
