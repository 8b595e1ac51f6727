"""Attention as maps: what the tokens of a layer, or of all layers together, take from the patches of an image.

With A (heads, T, S) the attention weights of a layer, G the gradient of a target with respect to them:

    attention   the row of A that belongs to the class token, for each head; without such a token the mean over the
                rows of all patches. With a target: the same row of mean_heads(A relu(G))
    rollout     the same row of R_L ... R_2 R_1, R_l = (mean_heads(A_l) + I) / 2 with rows that sum to 1
                                                                         Abnar and Zuidema, arXiv 2005.00928
                With a target: R_l = mean_heads(A_l relu(G_l)) + I       Chefer et al., arXiv 2103.15679

Another row can be asked for: that of a patch. Where a layer has one query only, as a head that pools has, that is the
row, and R_l is the matrix itself. Each layer's matrix is dropped before that of the next is computed; with a target
they are kept until the way back, as autograd keeps them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..activations.passes.forward import Enough, Watched, run_pass
from ..errors import CaptureError, OptionError
from ..models.loaded import root_of
from ..runtime.caller import warn_caller
from .cam import Attribution
from .head import Request, copied, located, record
from .places import Place, places_of, with_mode

if TYPE_CHECKING:
    import torch

    from .attending import Attending, Matrix
    from .targets import Scores

    Patch = tuple[int, int]


def attention(request: Request, query: Patch | None = None) -> Attribution:
    """Return attention: a map for each head, or with targets one for each of these.

    Args:
        request: what is attributed; without targets for the attention itself.
        query: row and column of the patch whose row of the matrix is shown; None for the class token.

    Returns:
        Maps of each layer.
    """
    import torch

    places = places_of(request, all_of_them=False)
    found: dict[str, list[torch.Tensor]] = {place.name: [] for place in places}
    if not request.targets.wanted:
        rows: dict[str, torch.Tensor] = {}
        _see_each(request, places, lambda place, matrix: rows.update({place.name: _maps(place, place, matrix, query)}))
        return Attribution(rows, None, entries="head")

    def take(weighted: Mapping[Place, torch.Tensor]) -> None:
        for place, matrix in weighted.items():
            found[place.name].append(_maps(place, place, matrix[:, None], query))

    scores = _weigh(request, places, take)
    return Attribution({name: torch.cat(maps, 1) for name, maps in found.items()}, scores)


def rollout(request: Request, query: Patch | None = None) -> Attribution:
    """Return attention rollout, under the name of the last layer.

    Args:
        request: what is attributed; without targets for the attention itself.
        query: see attention.

    Returns:
        A map, or one for each target.
    """
    import torch

    places = places_of(request, all_of_them=True)
    _check_chain(places)
    last = places[-1]
    if not request.targets.wanted:
        rolled: dict[str, torch.Tensor] = {}

        def roll(place: Place, matrix: torch.Tensor) -> None:
            before = None if place is places[0] else rolled["rows"]
            rolled["rows"] = _rolled(before, matrix.mean(1), is_plain=True)

        _see_each(request, places, roll)
        return Attribution({last.name: _maps(places[0], last, rolled["rows"][:, None], query)}, None)
    found: list[torch.Tensor] = []

    def take(weighted: Mapping[Place, torch.Tensor]) -> None:
        rows = None
        for matrix in weighted.values():
            rows = _rolled(rows, matrix, is_plain=False)
        assert rows is not None
        found.append(_maps(places[0], last, rows[:, None], query))

    scores = _weigh(request, places, take)
    return Attribution({last.name: torch.cat(found, 1)}, scores)


def _see_each(request: Request, places: Sequence[Place], see: Callable[[Place, torch.Tensor], object]) -> None:
    """Run the model as far as the last place, and pass on the matrix of each as (N, heads, T, S) float32."""
    from .attending import Attending

    wanted = {place.number: place for place in places}
    images = len(request.batch)
    seen: set[Place] = set()

    def take(number: int, matrix: Matrix) -> None:
        place = wanted[number]
        seen.add(place)
        see(place, _of_images(matrix.values, place, images))
        if place is places[-1]:
            raise Enough

    model = with_mode(request.model, lambda: Attending(wanted.__contains__, take))
    run_pass(root_of(model), request.batch, Watched(), request.inputs(), model.forward)
    _check_seen(places, seen)


def _weigh(request: Request, places: Sequence[Place], take: Callable[[Mapping[Place, torch.Tensor]], object]) -> Scores:
    """Run the model, and pass on, for one target after the other, the matrix of each place under its gradient.

    Args:
        request: with targets.
        places: whose matrices are weighted.
        take: called with the mean over the heads of each matrix times its positive gradient, (N, T, S) float32.

    Returns:
        The scores of the targets.

    Raises:
        CaptureError: the model failed, or a target does not depend on a matrix.
    """
    import torch

    from .attending import Attending

    wanted = {place.number: place for place in places}
    images = len(request.batch)
    matrices: dict[Place, Matrix] = {}
    found: list[Scores] = []

    def mode() -> Attending:
        matrices.clear()
        return Attending(wanted.__contains__, lambda number, seen: matrices.update({wanted[number]: seen}), linked=True)

    def finish(_: Any, scores: Scores) -> None:
        _check_seen(places, matrices, request.targets.layers)
        for t, column in enumerate(scores.columns):
            label, more = scores.labels[0][t], t < len(scores.columns) - 1
            at = [edge for place in places if (edge := matrices[place].at) is not None]
            gradients: Sequence[torch.Tensor | None] = (None,) * len(places)
            if column.requires_grad and len(at) == len(places):
                gradients = torch.autograd.grad(column.sum(), at, retain_graph=more, allow_unused=True)
            weighted = {}
            for place, gradient in zip(places, gradients, strict=True):
                if gradient is None:
                    raise CaptureError(
                        f"target {label!r} is not computed from the attention of layer {place.name!r}. "
                        f"Name another one."
                    )
                values = _of_images(matrices[place].values.detach(), place, images)
                weighted[place] = (values * gradient.float().reshape(values.shape).clamp(min=0)).mean(1)
            if not any(matrix.any() for matrix in weighted.values()):
                warn_caller(f"the gradient of target {label!r} is nowhere positive in the attention")
            take(weighted)
        found.append(scores.detached())

    request = replace(request, layers=None, inner=located(request))
    record(replace(request, model=with_mode(request.model, mode)), finish, copied, linked=True)
    return found[0]


def _check_seen(places: Sequence[Place], seen: Container[Place], until: Sequence[str] = ()) -> None:
    """Refuse places that a pass did not come to; with units as targets it ends with the last of their layers."""
    for place in places:
        if place in seen:
            continue
        if until:
            raise CaptureError(
                f"layer {place.name!r} must run before that of the target, {until[-1]!r}, got one that does not. "
                f"Name an earlier layer."
            )
        raise CaptureError(
            f"layer {place.name!r} must run for the batch as for its first image, got one that does not."
        )


def _of_images(values: torch.Tensor, place: Place, images: int) -> torch.Tensor:
    """Return the values of a matrix as (N, heads, T, S) float32, the images of the batch being the outermost axis."""
    if values.shape[-2:] != (place.queries, place.keys):
        raise CaptureError(
            f"layer {place.name!r} must have the same attention for the batch as for its first image, "
            f"{place.queries} x {place.keys}, got {' x '.join(map(str, values.shape[-2:]))}. "
            f"Attribute one image at a time."
        )
    return values.float().reshape(images, -1, place.queries, place.keys)


def _check_chain(places: Sequence[Place]) -> None:
    """Refuse attention of which the tokens are not the same from layer to layer."""
    for before, place in itertools.pairwise(places):
        if place.keys != before.queries:
            raise CaptureError(
                f"rollout must be over layers with the same tokens, got {before.queries} out of {before.name!r} and "
                f"{place.keys} into {place.name!r}. Name those to roll out: layer=..."
            )


def _rolled(before: torch.Tensor | None, matrix: torch.Tensor, *, is_plain: bool) -> torch.Tensor:
    """Return the product of a layer's matrix, which skips part of its tokens' own way, and of those before it.

    Args:
        before: (N, T, S) float32; None for the first layer.
        matrix: (N, T, T) float32, or (N, 1, T) of a layer that pools.
        is_plain: whether the rows are shares, without gradients.

    Returns:
        (N, T, S) float32.
    """
    import torch

    if matrix.shape[1] == matrix.shape[2]:
        matrix = matrix + torch.eye(matrix.shape[1], device=matrix.device)
        if is_plain:
            matrix = matrix / matrix.sum(2, keepdim=True)
    with torch.autocast(matrix.device.type, enabled=False):
        return matrix if before is None else matrix @ before


def _maps(keys: Place, queries: Place, matrix: torch.Tensor, query: Patch | None) -> torch.Tensor:
    """Return the row of matrices that is shown as maps of the patches.

    Args:
        keys: where the keys are.
        queries: where the queries are.
        matrix: (N, K, T, S) float32.
        query: row and column of the patch; None for the class token, or without one the mean over all patches.

    Returns:
        (N, K, rows, columns) float32, of clips (N, K, steps, rows, columns).

    Raises:
        OptionError: there is no such patch among the queries.
    """
    of_patches = queries.queries == queries.keys
    if query is not None:
        rows, cols = queries.grid
        if not (of_patches and queries.steps == 1 and query[0] < rows and query[1] < cols):
            patches = f"{rows} x {cols} patches" if of_patches and queries.steps == 1 else "no queries that are patches"
            raise OptionError(
                f"query must be the row and column of a patch, counted from 0; layer {queries.name!r} has {patches}, "
                f"got {query[0]},{query[1]}."
            )
        row = matrix[:, :, queries.prefix + query[0] * cols + query[1]]
    elif queries.has_class_token:
        row = matrix[:, :, 0]
    else:
        row = (matrix[:, :, queries.patches] if of_patches else matrix).mean(2)
    steps = (keys.steps,) if keys.steps > 1 else ()
    return row[:, :, keys.patches].reshape(*row.shape[:2], *steps, *keys.grid)
