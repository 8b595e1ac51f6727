"""Score-CAM and Ablation-CAM: channels weighted by the target's score where they alone are seen, or are missing.

A (C, h, w) are the activations of an image X, s the score of the target:

    scorecam     relu(sum_c w_c A_c), w = softmax over c of s(X * M_c), M_c being A_c resized to the image and
                 brought to 0..1; 0 for a flat channel                         Wang et al., arXiv 1910.01279
    ablationcam  relu(sum_c (s - s_c) / s A_c), s_c being the score where channel c of the layer is 0
                                                              Ramaswamy and Desai, 10.1109/WACV45572.2020.9093360

The article on Score-CAM subtracts the score of a black image from each score, which the softmax undoes. Channels go
through the network a few at a time; those of Ablation-CAM only through the part behind the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..activations.axes.record import Axes
from .cam import Attribution, quotient, weighted_sum
from .chunks import AT_ONCE, in_chunks
from .head import Request, forward_only, located, record
from .layer_maps import CHANNELS_LAST, all_maps, as_steps, axes_of_maps

if TYPE_CHECKING:
    import torch

    from .tail import Tail
    from .targets import Scores


@dataclass(frozen=True)
class _Asked:
    """One layer of a request, after the first pass.

    Attributes:
        request: with targets by index.
        layer: name of the layer.
        axes: of its output.
        maps: (N, C, steps * h, w) float32.
        scores: of the images as they are.
    """

    request: Request
    layer: str
    axes: Axes
    maps: torch.Tensor
    scores: Scores

    def in_chunks(self, scores: Callable[[int, int], torch.Tensor], chunk: int | None) -> torch.Tensor:
        """Return the scores of all channels, (C, T), as many at once as were asked for, and as fit into memory.

        Args:
            scores: returns those of channels first..last-1, (last - first, T).
            chunk: how many at once; None for the usual number.
        """
        import torch

        found: dict[int, torch.Tensor] = {}

        def work(first: int, last: int) -> None:
            found[first] = scores(first, last)

        most = max(AT_ONCE, len(self.maps)) if chunk is None else chunk
        in_chunks(work, self.maps.shape[1], self.maps.device, most)
        return torch.cat([found[first] for first in sorted(found)])


def scorecam(request: Request, chunk: int | None = None) -> Attribution:
    """Return Score-CAM."""

    def weights(asked: _Asked, image: int) -> torch.Tensor:
        x = asked.request.batch[image : image + 1].to(asked.maps.device)
        maps = as_steps(asked.maps[image, :, None], asked.axes)

        def scores(first: int, last: int) -> torch.Tensor:
            masked = x * _masks(maps[first:last], x.shape[2:]).to(x.dtype)
            return forward_only(asked.request.variants(image, masked))[1].values

        return asked.in_chunks(scores, chunk).softmax(0)

    return _weighted(request, weights)


def ablationcam(request: Request, chunk: int | None = None) -> Attribution:
    """Return Ablation-CAM."""

    def weights(asked: _Asked, image: int) -> torch.Tensor:
        score = asked.scores.values[image]
        missing = asked.in_chunks(_Ablation(asked, image), chunk)
        return quotient(score - missing, score.expand_as(missing))

    return _weighted(request, weights)


def _weighted(request: Request, weights: Callable[[_Asked, int], torch.Tensor]) -> Attribution:
    """Return the sums of the channels with the weights (C, T) that are found for each layer and image."""
    import torch

    request = replace(request, inner=located(request))
    activations, scores = forward_only(request)
    fixed = replace(request, targets=scores.targets)
    found = {}
    for layer, axes in axes_of_maps(request.model, activations, tuple(request.batch.shape), request.axes).items():
        asked = _Asked(fixed, layer, axes, all_maps(activations[layer], axes).float(), scores)
        each = torch.stack([weights(asked, image) for image in range(len(request.batch))])
        found[layer] = as_steps(weighted_sum(asked.maps, each.mT).relu(), axes)
    return Attribution(found, scores, activations=activations)


def _masks(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return maps (K, 1, [steps,] h, w) resized to the axes of an image, each from 0 to 1; 0 where one is flat."""
    from torch.nn.functional import interpolate

    if len(size) == 1:  # a signal's maps have one row
        maps = maps.squeeze(2)
    flat_volume = len(size) == 3 and maps.ndim == 4
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[maps.ndim - 2]
    resized = interpolate(maps, tuple(size)[flat_volume:], mode=mode, align_corners=False)
    least, most = (extreme.view(-1, *[1] * (maps.ndim - 1)) for extreme in resized.flatten(1).aminmax(dim=1))
    masks = quotient(resized - least, (most - least).expand_as(resized))
    return masks.unsqueeze(2) if flat_volume else masks


class _Ablation:
    """The scores of an image where channels of a layer are 0, from the part of the network behind the layer.

    The pass of the first chunk is recorded, and its tail is played for the others.

    Args:
        asked: the layer.
        image: position of the image.
    """

    def __init__(self, asked: _Asked, image: int) -> None:
        self.asked = asked
        self.image = image
        self.whole: torch.Tensor | None = None  # (K, ...): the layer's output, K times
        self.tail: Tail | None = None

    def __call__(self, first: int, last: int) -> torch.Tensor:
        """Return the scores, (last - first, T), without each of channels first..last-1."""
        tail, whole, self.tail, self.whole = self.tail, self.whole, None, None  # none, if memory runs out
        rows = last - first
        if tail is None or whole is None or tail.rows < rows:
            return self._record(first, last)
        scores = tail.play(self._without(whole, [*range(first, last)] + [first] * (tail.rows - rows)))
        self.tail, self.whole = tail, whole
        return scores[:rows]

    def _record(self, first: int, last: int) -> torch.Tensor:
        """Run the whole network for some channels; note what comes behind the layer."""
        from .tail import Tail

        asked, rows = self.asked, last - first
        x = asked.request.batch[self.image : self.image + 1].expand(rows, *asked.request.batch.shape[1:])
        tail = Tail(rows)
        found: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
            self.whole = tensor.clone()
            start = self._without(self.whole, range(first, last))
            tail.begin(start)
            return tensor, start

        def finish(places: object, scores: Scores) -> None:
            found.append(scores.values)
            tail.end(found[0])

        with tail:
            record(asked.request.variants(self.image, x, [asked.layer]), finish, keep)
        self.tail = tail if tail.is_whole else None
        return found[0]

    def _without(self, whole: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
        """Return the layer's output with one channel of each row set to 0."""
        import torch

        start, name = whole.clone(), self.asked.axes.name
        if name == "nhw":
            return start.zero_()
        rows = start.movedim((int(name == "tnc"), -1 if name in CHANNELS_LAST else 1), (0, 1))
        rows[torch.arange(len(channels)), torch.tensor(channels)] = 0
        return start
