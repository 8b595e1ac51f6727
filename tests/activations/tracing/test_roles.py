"""What axes hold, followed through chains of moves of a tensor whose values say where each entry came from."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torchvision
from support.looping import case
from torch import nn

from cnnviz_fast.activations.axes.find import to_maps
from cnnviz_fast.activations.axes.record import Axes
from cnnviz_fast.activations.tracing.moves import roles_of, set_roles
from cnnviz_fast.activations.tracing.proof import Proof, possible, prove, why_out_of_place
from cnnviz_fast.activations.tracing.roles import CHANNELS, COLUMNS, MOST_LOST, ROWS, UNKNOWN, Part, regrouped, whole
from cnnviz_fast.activations.tracing.sums import combined
from cnnviz_fast.activations.tracing.trace import following

SHAPE = (2, 6, 8, 12)
NOT_OF_THE_IMAGE = -1

Move = Callable[[torch.Tensor], torch.Tensor]


def start() -> torch.Tensor:
    """Return (N, C, H, W) int64 whose values count its entries, with its roles."""
    tensor = torch.arange(torch.Size(SHAPE).numel()).reshape(SHAPE)
    set_roles(tensor, tuple(whole(kind, size) for kind, size in zip("nchw", SHAPE, strict=True)))
    return tensor


def proof_of(tensor: torch.Tensor) -> Proof | None:
    roles = roles_of(tensor)
    assert roles is not None
    return prove(roles)


def assert_in_place(tensor: torch.Tensor, proof: Proof) -> None:
    """Check that every entry of the maps lies where it came from; of a coarser grid, within its cell."""
    maps = to_maps(tensor, Axes(proof.name, proof.steps, proof.prefix, proof.grid))
    n, _, h, w = (
        torch.arange(size).reshape([-1 if i == at else 1 for i in range(4)]) for at, size in enumerate(maps.shape)
    )
    assert (maps != NOT_OF_THE_IMAGE).all()
    rows, columns = maps.shape[2:]
    assert (maps // (SHAPE[1] * SHAPE[2] * SHAPE[3]) == n).all()
    assert (maps // SHAPE[3] % SHAPE[2] // (SHAPE[2] // rows) == h).all()
    assert (maps % SHAPE[3] // (SHAPE[3] // columns) == w).all()


def random_move(tensor: torch.Tensor, rng: random.Random) -> tuple[Move, Move]:
    """Return a move that a tensor can make, and the one that undoes it."""
    shape, ndim = tuple(tensor.shape), tensor.ndim
    at = rng.randrange(ndim)
    kind = rng.choice(["view", "view", "permute", "permute", "roll", "flip", "pad", "ends"])
    if kind == "roll":
        amount = rng.randrange(1, 5)
        return lambda x: x.roll(amount, at), lambda x: x.roll(-amount, at)
    if kind == "flip":
        return lambda x: x.flip(at), lambda x: x.flip(at)
    if kind in ("pad", "ends"):
        before, after = rng.randrange(2), rng.randrange(1, 3)
        kept = slice(before, before + shape[at])
        index = tuple(kept if i == at else slice(None) for i in range(ndim))
        pads = [0, 0] * (ndim - 1 - at) + [before, after]
        ends = [torch.full((*shape[:at], k, *shape[at + 1 :]), NOT_OF_THE_IMAGE) for k in (before, after)]
        pad = lambda x: torch.nn.functional.pad(x, pads, value=NOT_OF_THE_IMAGE)  # noqa: E731
        join = lambda x: torch.cat([ends[0], x, ends[1]], at)  # noqa: E731
        return pad if kind == "pad" else join, lambda x: x[index]
    return reordering(shape, at, rng) if kind == "view" else permutation(ndim, rng)


def reordering(shape: tuple[int, ...], at: int, rng: random.Random) -> tuple[Move, Move]:
    """Return a view that splits an axis, or merges it with the next."""
    factors = [f for f in range(2, shape[at]) if shape[at] % f == 0]
    seen = (*shape[:at], shape[at], *shape[at + 1 :])
    if factors and len(shape) < 7 and rng.random() < 0.6:
        outer = rng.choice(factors)
        seen = (*shape[:at], outer, shape[at] // outer, *shape[at + 1 :])
    elif len(shape) > 2 and at + 1 < len(shape):
        seen = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])

    def reorder(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(seen)

    return reorder, lambda x: x.reshape(shape)


def permutation(ndim: int, rng: random.Random) -> tuple[Move, Move]:
    """Return a permutation of axes."""
    order = rng.sample(range(ndim), ndim)

    def reorder(x: torch.Tensor) -> torch.Tensor:
        return x.permute(order)

    return reorder, lambda x: x.permute([order.index(i) for i in range(ndim)])


def test_prove_chain_of_random_moves_is_never_wrong() -> None:
    for seed in range(300):
        with case(seed):
            check_random_moves(seed)


def check_random_moves(seed: int) -> None:
    """Follow a chain of random moves, and back: what is proven of the places has to be so."""
    rng, tensor = random.Random(seed), start()
    undo: list[Move] = []
    reordered = True
    with following():
        for _ in range(rng.randrange(1, 8)):
            move, back = random_move(tensor, rng)
            tensor = move(tensor)
            undo.insert(0, back)
            proof = proof_of(tensor)
            padded = bool((tensor == NOT_OF_THE_IMAGE).any())
            reordered = reordered and not padded and move.__name__ == "reorder"
            if proof is not None and proof.name not in ("", "matrix") and not padded:
                assert_in_place(tensor, proof)
        for back in undo:
            tensor = back(tensor)
    proof = proof_of(tensor)
    assert proof is None or proof.name == "nchw"
    if reordered:
        assert proof == Proof("nchw")
    assert torch.equal(tensor, start())


def piece_move(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Cut, join, pad, move or write rows or columns of (N, C, H, W), in a way that may leave them as they were."""
    at, count = rng.choice([2, 3]), rng.randrange(1, 4)
    size = tensor.shape[at]
    pads = [0, 0, count, 0] if at == 2 else [count, 0]
    pieces = list(tensor.split(max(1, size // rng.randrange(1, 4)), at))
    kind = rng.choice(["cut", "join", "swap", "some", "pad", "crop", "write", "stack", "strided", "channels"])
    if kind == "swap":
        rng.shuffle(pieces)
    if kind in ("join", "swap"):
        return torch.cat(pieces, at)
    if kind == "some":
        return torch.cat(rng.choices(pieces, k=2), at)
    if kind == "pad":
        return torch.nn.functional.pad(tensor, pads, value=NOT_OF_THE_IMAGE)
    if kind == "stack":
        rows = list(tensor.unbind(at))
        return torch.stack(rows[count:] if rng.random() < 0.3 and size > 4 else rows, at)
    if kind == "strided":
        return tensor[:, :, ::2, ::2] if min(tensor.shape[2:]) > 3 else tensor
    if kind == "write":
        out, start = torch.full_like(tensor, NOT_OF_THE_IMAGE), rng.randrange(2) * (size // 2)
        out.narrow(at, start, size // 2).copy_(tensor.narrow(at, rng.randrange(2) * (size // 2), size // 2))
        return out
    if kind == "channels":
        return torch.cat([tensor[:, :3], tensor[:, 3:].roll(rng.randrange(size), at)], 1)
    return tensor.narrow(at, count if kind == "crop" and size > 4 else 0, size - count if size > 4 else size)


def test_why_out_of_place_chain_of_cuts_and_joins_is_placed_only_where_all_lies_within_a_cell() -> None:
    for seed in range(150):
        with case(seed):
            check_cuts_and_joins(seed)


def check_cuts_and_joins(seed: int) -> None:
    """Follow a chain of cuts and joins: where it is placed, each value lies within its cell."""
    rng, tensor = random.Random(seed), start()
    with following():
        for _ in range(rng.randrange(1, 6)):
            tensor = piece_move(tensor, rng)
    roles = roles_of(tensor)
    assert roles is not None
    if prove(roles) is None or why_out_of_place(roles, "nchw"):
        return
    for at, cells_of in ((2, lambda value: value // SHAPE[3] % SHAPE[2]), (3, lambda value: value % SHAPE[3])):
        cell = SHAPE[at] / tensor.shape[at]
        drawn = (torch.arange(tensor.shape[at]) + 0.5).reshape([-1 if i == at else 1 for i in range(4)]) * cell
        off = (cells_of(tensor) + 0.5 - drawn).abs()[tensor != NOT_OF_THE_IMAGE]
        # A rim of a quarter may be cut off or added, which moves the ends by as much.
        assert int(off.max()) in range(int(MOST_LOST * SHAPE[at]) + 2)


def test_prove_tokens_with_ends_are_found_in_every_order() -> None:
    with following():
        for order, name in [((0, 1, 2), "tokens"), ((1, 0, 2), "tnc"), ((0, 2, 1), "nct")]:
            tokens = start().flatten(2).transpose(1, 2)
            ends = [torch.full((2, count, 6), NOT_OF_THE_IMAGE) for count in (3, 2)]
            tensor = torch.cat([ends[0], tokens, ends[1]], 1).permute(order)
            proof = proof_of(tensor)
            assert proof == Proof(name, prefix=3, grid=(8, 12))
            assert_in_place(tensor, proof)


def test_prove_space_to_depth_and_back_keeps_places() -> None:
    with following():
        n, c, h, w = SHAPE
        last = start().reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(3)
        proof = proof_of(last)
        assert proof == Proof("nhwc")
        assert_in_place(last, proof)
        back = last.reshape(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(SHAPE)
        assert proof_of(back) == Proof("nchw")
        larger = torch.pixel_shuffle(torch.cat([start()] * 2, 1)[:, :8], 2)
        assert proof_of(larger) == Proof("nchw")


def test_prove_entries_in_another_order_are_no_maps() -> None:
    with following():
        tokens, maps = start().flatten(2).transpose(1, 2), start()
        order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
        for shuffled in (
            tokens[:, order], tokens.index_select(1, order), tokens.gather(1, order[None, :, None].expand(2, 96, 6)),
            tokens.sort(1).values, tokens.topk(96, 1).values, maps[..., order[order < 12]], maps.sort(-2).values,
            torch.fft.rfft2(maps).abs(), torch.fft.fft2(maps).real, torch.fft.fft(maps, dim=2).abs(),
        ):  # fmt: skip
            proof = proof_of(shuffled)
            assert proof is not None
            assert proof.name == ""
            assert "reordered" in proof.reason
        assert proof_of(tokens.index_select(2, torch.tensor([0, 3]))) == Proof("tokens", grid=(8, 12))


def test_prove_maps_that_are_turned_or_sampled_elsewhere_are_no_maps_behind_a_convolution_either() -> None:
    with following():
        maps, weight = start().float(), torch.randn(4, 6, 3, 3)
        theta = torch.eye(2, 3).expand(2, 2, 3)
        grid = nn.functional.affine_grid(theta, list(maps.shape), align_corners=False)
        for moved in (
            torch.rot90(maps, 1, (2, 3)), nn.functional.grid_sample(maps, grid, align_corners=False),
            torchvision.ops.roi_align(maps, [torch.tensor([[0.0, 0, 4, 4]])] * 2, 5),
            torch.fft.fft2(maps).real,
        ):  # fmt: skip
            for output in (moved, nn.functional.conv2d(moved, weight, padding=1), nn.functional.conv2d(moved, weight)):
                proof = proof_of(output)
                assert proof is not None
                assert proof.name == ""


def test_prove_entries_that_may_be_in_order_again_are_not_told() -> None:
    with following():
        tokens, maps = start().flatten(2).transpose(1, 2), start()
        order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
        restored = tokens[:, order][:, order.argsort()]
        assert proof_of(restored) is None
        assert "tokens" in (possible(roles_of(restored) or ()) or ())
        for filtered in (
            torch.fft.irfft2(torch.fft.rfft2(maps), s=maps.shape[-2:]), torch.fft.ifft2(torch.fft.fft2(maps)).real,
        ):  # fmt: skip
            assert proof_of(filtered) is None
            assert "nchw" in (possible(roles_of(filtered) or ()) or ())


def test_regrouped_split_and_merged_parts_are_whole_again() -> None:
    rows, columns = whole(ROWS, 8), whole(COLUMNS, 12)
    windows = regrouped((rows, columns), (2, 4, 3, 4))
    assert windows[0] == (Part(ROWS, 2, 4, 8),)
    assert windows[1] == (Part(ROWS, 4, 1, 8),)
    assert [axis[0].covers for axis in windows] == [True, False, True, False]
    assert regrouped(windows, (8, 12)) == (rows, columns)
    assert regrouped((rows, columns), (96,)) == ((*rows, *columns),)
    assert regrouped((rows, columns), (5, 20)) == (whole(UNKNOWN, 5), whole(UNKNOWN, 20))


def test_combined_positions_count_before_channels_and_what_contradicts_is_unknown() -> None:
    rows, columns, channels = whole(ROWS, 8), whole(COLUMNS, 8), whole(CHANNELS, 8)
    assert combined(rows, channels) == combined(channels, rows) == combined(rows, ()) == combined((), rows) == rows
    assert combined(rows, columns) == whole(UNKNOWN, 8)
    assert combined(rows, whole(UNKNOWN, 8)) == rows
    cut = regrouped((whole(ROWS, 64),), (8, 8))[0]
    assert combined(rows, cut) == combined(cut, rows) == cut
