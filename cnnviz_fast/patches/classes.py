"""What the classes of a data set say of a channel: how it responds to each class, and how well it tells one apart.

    classes = ClassResponses(512)
    classes.update(top.update(maps, keys), names)   # once for each batch
    classes.best_class, classes.selectivity()       # (512,) each

Counts are integers, and do not depend on the order of updates and merges. Means and variances are sums in float64: the
order changes a mean by less than 1e-12 of the mean magnitude, and a standard deviation by less than 1e-12 of the root
mean square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DTypeError, InputError, ShapeError
from ..options.parsers import LARGEST_CHANNEL, refuse, whole_within
from ..runtime.array_files import check_arrays, texts_from_arrays, texts_to_arrays
from ..runtime.plain import dense

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

LEAST_IMAGES = 2
"""Of a class that is compared with the others, and of the others: fewer have no variance."""

_SUMS = ("count", "mean", "squares")
_ARRAYS = {
    "class_lengths": ("int64", 1), "class_bytes": ("uint8", 1), "count": ("int64", 2), "mean": ("float64", 2),
    "squares": ("float64", 2),
}  # fmt: skip


class ClassResponses:
    """Count, mean and variance of each channel's responses to the images of each class.

    It takes 24 bytes for each channel of each class: 12 MB for 512 channels and 1,000 classes. Only one thread at a
    time may update a record.

    Attributes:
        channels: number of channels of the layer.
        classes: names of the classes, in the order in which they were met first.
    """

    def __init__(self, channels: int) -> None:
        """Start without images.

        Args:
            channels: number of channels of the layer.
        """
        self.channels = whole_within(0, LARGEST_CHANNEL + 1)("channels", channels)
        self.classes: list[str] = []
        self._row: dict[str, int] = {}
        self._count = np.zeros((0, channels), np.int64)
        self._mean, self._squares = np.zeros((2, 0, channels))

    def __repr__(self) -> str:
        """Return what was seen, in one line."""
        return f"ClassResponses({self.channels:,} channels, {len(self.classes):,} classes)"

    @property
    def count(self) -> Counts:
        """Return the number of finite responses, (K, C) int64: of each class and channel."""
        return self._count

    @property
    def mean(self) -> Doubles:
        """Return their mean, (K, C) float64, NaN without any."""
        return np.where(self._count > 0, self._mean, np.nan)

    @property
    def variance(self) -> Doubles:
        """Return their variance (divisor n), (K, C) float64, NaN without any."""
        return np.where(self._count > 0, self._squares / np.maximum(self._count, 1), np.nan)

    @property
    def best_class(self) -> list[str]:
        """Return the class that each channel tells apart best, of equals the first name; "" where there is none."""
        rows = sorted(range(len(self.classes)), key=lambda row: self.classes[row])
        apart = np.nan_to_num(self._discriminability()[rows], nan=-np.inf, posinf=np.inf)
        return [self.classes[rows[int(column.argmax())]] if (column > 0).any() else "" for column in apart.T]

    def selectivity(self) -> Doubles:
        """Return how well each channel tells its best class from all other images.

        Returns:
            (C,) float64. The greatest d' of a class; infinite where responses differ and never vary, NaN where no class
            and its rest have two images each.

        Formula:
            d' = (mean_class - mean_rest) / sqrt((variance_class + variance_rest) / 2)

        Source:
            Simpson, Fitter: What is the best index of detectability? Psychological Bulletin 80, 1973. It is their d_a,
            with the root mean square of both deviations.
        """
        best: Doubles = np.fmax.reduce(self._discriminability(), axis=0, initial=np.nan)
        return best

    def update(self, responses: torch.Tensor, classes: Sequence[str]) -> None:
        """Take in the responses to a batch of images.

        Args:
            responses: (N, C) real dtype, any device; what `TopResponses.update` returns. Those that are not finite do
                not count. Not modified.
            classes: names of the classes of the N images; "" for an image of none, which does not count.

        Raises:
            ShapeError: `responses` has another number of channels, or of images.
            DTypeError: `responses` is not a tensor, or complex, sparse, nested, quantised or on the meta device.
            InputError: `classes` holds something else than strings.
        """
        import torch  # which takes long to load, and reading what was counted needs none of it

        if not isinstance(responses, torch.Tensor):
            raise DTypeError(f"responses must be a tensor, got {type(responses).__name__}.")
        dense(responses, "responses", opened=False)
        if responses.ndim != 2 or responses.shape[1] != self.channels:
            raise ShapeError(f"responses must have shape (N, {self.channels}), got {tuple(responses.shape)}.")
        if isinstance(classes, str) or not isinstance(classes, Sequence):
            raise refuse("classes", "a list of names, one for each image", classes)
        if len(classes) != len(responses):
            raise ShapeError(f"classes must hold {len(responses)} names, one for each image, got {len(classes)}.")
        for name in classes:
            if not isinstance(name, str):
                raise refuse("classes", "names of text", name)
        labelled = [n for n, name in enumerate(classes) if name]
        values = responses.detach().cpu().to(torch.float64).numpy()[labelled]
        names = [classes[n] for n in labelled]
        known = {name: place for place, name in enumerate(dict.fromkeys(names))}
        place = np.array([known[name] for name in names], np.int64)
        finite = np.isfinite(values)
        values = np.where(finite, values, 0)
        count, total, squares = np.zeros((3, len(known), self.channels))
        np.add.at(count, place, finite)
        np.add.at(total, place, values)
        mean = total / np.maximum(count, 1)
        np.add.at(squares, place, np.where(finite, np.square(values - mean[place]), 0))
        self._join(list(known), count.astype(np.int64), mean, squares)

    def merge(self, other: ClassResponses) -> None:
        """Take in the responses to other images.

        Args:
            other: of the same layer. Not modified.

        Raises:
            ShapeError: `other` has another number of channels.
            InputError: `other` is something else.
        """
        if not isinstance(other, ClassResponses):
            raise InputError(f"other must be ClassResponses, got {type(other).__name__}.")
        if other.channels != self.channels:
            raise ShapeError(f"other must have {self.channels} channels, got {other.channels}.")
        self._join(other.classes, other._count, other._mean, other._squares)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, to store or to send, the classes in the order of their names."""
        order = sorted(range(len(self.classes)), key=lambda row: self.classes[row])
        lengths, names = texts_to_arrays([self.classes[row] for row in order])
        return {
            "class_lengths": lengths,
            "class_bytes": names,
            **{name: getattr(self, f"_{name}")[order] for name in _SUMS},
        }

    def __reduce__(self) -> tuple[Callable[..., ClassResponses], tuple[Any, ...]]:
        """Pickle what `to_arrays` returns."""
        return ClassResponses.from_arrays, (self.to_arrays(),)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ClassResponses:
        """Rebuild a record from what `to_arrays` returned.

        Args:
            arrays: name -> array.

        Returns:
            The record.

        Raises:
            InputError: `to_arrays` cannot have returned these arrays.
        """
        check_arrays(arrays, _ARRAYS)
        names = texts_from_arrays(arrays["class_lengths"], arrays["class_bytes"])
        count, mean, squares = (arrays[name] for name in _SUMS)
        sound = count.shape == mean.shape == squares.shape and len(count) == len(names) == len(set(names))
        if not sound or (count < 0).any() or not np.isfinite(mean).all() or not (squares >= 0).all():
            raise InputError("arrays must be those that to_arrays returned, got others.")
        record = cls(count.shape[1])
        record._join(names, count, mean, squares)
        return record

    def _join(self, classes: Sequence[str], count: Counts, mean: Doubles, squares: Doubles) -> None:
        """Take in counts, means and sums of squares, (K, C) each, of some classes."""
        for name in classes:
            if name not in self._row:
                self._row[name] = len(self.classes)
                self.classes.append(name)
        if more := len(self.classes) - len(self._count):
            self._count, self._mean, self._squares = (
                np.concatenate([each, np.zeros((more, self.channels), each.dtype)])
                for each in (self._count, self._mean, self._squares)
            )
        rows = [self._row[name] for name in classes]
        mine = self._count[rows], self._mean[rows], self._squares[rows]
        self._count[rows], self._mean[rows], self._squares[rows] = _joined(mine, (count, mean, squares))

    def _discriminability(self) -> Doubles:
        """Return d' of each class and channel, (K, C); NaN where the class or the rest has too few images."""
        total = self._count.sum(axis=0)
        rest = total - self._count
        with np.errstate(divide="ignore", invalid="ignore"):
            grand = (self._count * self._mean).sum(axis=0) / total
            between = self._count * np.square(self._mean - grand)
            mean_rest = grand + (grand - self._mean) * (self._count / rest)
            apart = self._mean - mean_rest
            squares_rest = (
                (self._squares + between).sum(axis=0)
                - self._squares
                - np.square(apart) * (self._count * (rest / total))
            )
            spread = np.sqrt((self._squares / self._count + np.maximum(squares_rest, 0) / rest) / 2)
            found = np.where((apart == 0) & (spread == 0), 0, apart / spread)
        return np.where((self._count >= LEAST_IMAGES) & (rest >= LEAST_IMAGES), found, np.nan)


def _joined(
    one: tuple[Counts, Doubles, Doubles], other: tuple[Counts, Doubles, Doubles]
) -> tuple[Counts, Doubles, Doubles]:
    """Return the moments of two sets of responses; see channels.moments.Moments.joined. What is constant stays so."""
    (n_a, mean_a, squares_a), (n_b, mean_b, squares_b) = one, other
    n = np.maximum(n_a + n_b, 1)
    mean = mean_a + (mean_b - mean_a) * (n_b / n)
    return n_a + n_b, mean, squares_a + squares_b + np.square(mean_b - mean_a) * (n_a * (n_b / n))
