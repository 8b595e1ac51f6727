"""How many instructions a GPU issues to draw, counted without one: `python -m benchmarks.instructions`.

`render_block` is compiled for the H100 and H200 (sm_90) for each workload and taken apart. Its loops are told by what
is in them; how often each runs follows from how the sheet is cut. Subroutines for rare cases of a division are left
out. The times are estimates, by the slowest of what a multiprocessor issues, converts and stores.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import torch
import triton

from benchmarks import ROOT
from benchmarks.harness.cubins import HOPPER, Launch, Listing, launches_of, listing_of, source_of
from benchmarks.harness.workloads import WORKLOADS, Workload
from cnnviz_fast.geometry import Grid, Positions, Strip, plan_grid, sampling_positions
from cnnviz_fast.kernels import Paint, triton_gpu
from cnnviz_fast.kernels.triton_programs import Cut

PAGE = ROOT / "benchmarks" / "INSTRUCTIONS.md"

# An H100: 132 multiprocessors of 4 schedulers at 1.7 GHz, each of which issues an instruction for 32 lanes a cycle.
MULTIPROCESSORS, CLOCK_HZ, FILL_BYTES_PER_S = 132, 1.7e9, 3.35e12
ISSUED_PER_S = MULTIPROCESSORS * 4 * 32 * CLOCK_HZ
CONVERTED_PER_S = MULTIPROCESSORS * 16 * CLOCK_HZ
"""Conversions of float to integer: 16 a cycle are certain for GPUs before it; this one may do more."""

REGISTERS, MOST_WARPS = 65_536, 32
"""Of a multiprocessor; warps are limited by the number of programs, which are one warp each."""

CLASSES = {
    "FP32": ("FADD", "FMUL", "FFMA", "FMNMX", "FSEL", "FSETP", "FCHK", "MUFU"),
    "conversion": ("F2I", "I2F", "I2I"),
    "load": ("LDG",),
    "store": ("STG",),
    "control": ("BRA", "BSSY", "BSYNC", "CALL", "EXIT", "ISETP", "PLOP3", "P2R", "R2P", "UISETP", "UPLOP3"),
}
"""Instructions by what they do; all others are integers, addresses, moves and constants."""


WIDTHS = {"U8": 1, "U16": 2, "64": 8, "128": 16}
"""Bytes of a load or a store, by the end of its name; without one they are 4."""


def is_of(name: str, kind: str) -> bool:
    """Return whether an instruction is one of a kind of CLASSES."""
    return name.split(".")[0] in CLASSES[kind]


class Loops(NamedTuple):
    """Instructions of a lane, by name, in each part of render_block.

    once: before the first row.
    line: a row of the maps normalised and enlarged.
    stretch: what comes before the rows of the sheet between the same two rows of the maps.
    rows: `unrolled` rows of the sheet.
    row: a single one, where one is left.
    """

    once: Counter[str]
    line: Counter[str]
    stretch: Counter[str]
    rows: Counter[str]
    row: Counter[str]
    unrolled: int


class Drawing(NamedTuple):
    """How a workload is drawn: its launch, its grid, how it is cut, and where rows lie."""

    launch: Launch
    grid: Grid
    cut: Cut
    rows: Positions


class Count(NamedTuple):
    """What a lane does for a byte of the sheet.

    loops: the parts of the program.
    issued: instructions by name.
    registers: of a lane.
    map_bytes: bytes of the maps, read once.
    """

    loops: Loops
    issued: dict[str, float]
    registers: int
    map_bytes: float

    @property
    def total(self) -> float:
        """Instructions for a byte."""
        return sum(self.issued.values())

    def of(self, kind: str) -> float:
        """Instructions for a byte of one of CLASSES."""
        return sum(n for name, n in self.issued.items() if is_of(name, kind))

    def bytes_of(self, kind: str) -> float:
        """Bytes that an instruction loads or stores, on average."""
        widths = {name: WIDTHS.get(name.split(".")[-1], 4) for name in self.issued}
        return sum(n * widths[name] for name, n in self.issued.items() if is_of(name, kind)) / self.of(kind)

    @property
    def warps(self) -> int:
        """Warps that a multiprocessor holds; registers are given out by 8 a lane."""
        return min(MOST_WARPS, REGISTERS // (-(-self.registers // 8) * 8 * 32))

    @property
    def fills(self) -> float:
        """Estimate the time, in that of a fill of the sheet."""
        seconds = self.total / ISSUED_PER_S, self.of("conversion") / CONVERTED_PER_S
        return max(*(s * FILL_BYTES_PER_S for s in seconds), 1 + self.map_bytes)


def drawing_of(workload: Workload) -> Drawing:
    """Record how the backend draws a workload; nothing is computed."""
    size, tile = workload.map_px, workload.tile_px
    maps, ends = torch.empty(workload.channels, size, size), torch.empty(workload.channels)
    grid, positions = plan_grid(workload.channels, tile, tile), sampling_positions(size, tile, "center")
    out, whole = torch.empty(grid.height, grid.width, dtype=torch.uint8), Strip(0, grid.height)
    paint = Paint(256, 0.0, 0, 255)
    (launch,) = launches_of(
        lambda: triton_gpu.render_strip(maps, ends, ends, positions, positions, grid, paint, whole, out),
        ["render_block"],
    )
    (cut,) = (argument for argument in launch.arguments if isinstance(argument, Cut))
    return Drawing(launch, grid, cut, positions)


def loops_of(listing: Listing) -> Loops:
    """Find the loops of render_block, and count what is in each."""
    instructions = listing.instructions
    calls = [i.at for i in instructions if i.name.startswith("CALL")]
    branches = [(i.at, i.target) for i in instructions if i.target is not None]
    rare = [max((at, to) for at, to in branches if at < call < to) for call in calls]
    common = [i for i in instructions if not any(at < i.at < to for at, to in rare)]

    def inside(*spans: tuple[int, int]) -> Counter[str]:
        return Counter(i.name for i in common if any(first <= i.at <= last for first, last in spans))

    def has(span: tuple[int, int], name: str) -> int:
        return sum(n for found, n in inside(span).items() if found.startswith(name))

    loops = sorted(((to, at) for at, to in branches if to < at), key=lambda span: span[1] - span[0])
    line = next(span for span in loops if has(span, "FCHK"))
    stretch = next(span for span in loops if has(span, "FCHK") and has(span, "STG"))
    rows = [span for span in loops if has(span, "STG") and has(span, "F2I") and not has(span, "FCHK")]
    row, *more = sorted(rows, key=lambda span: has(span, "STG"))
    many = more[-1] if more else row
    return Loops(
        once=inside((0, stretch[0] - 1)),
        line=inside(line),
        stretch=inside(stretch) - inside(line) - inside(row, many),
        rows=inside(many),
        row=inside(row),
        unrolled=has(many, "STG") // has(row, "STG"),
    )


def times_of(drawing: Drawing, unrolled: int) -> dict[str, int]:
    """Count how often each part runs in all programs that draw a block of columns of a tile; `unrolled` as in Loops."""
    cut, index, fraction = drawing.cut, drawing.rows.index, drawing.rows.fraction
    times = dict.fromkeys(("once", "line", "stretch", "rows", "row"), 0)
    for first in range(0, cut.tile_h, cut.rows):
        times["once"] += 1
        stretches = Counter((int(index[y]), bool(fraction[y])) for y in range(first, min(first + cut.rows, cut.tile_h)))
        held = -2
        for (row, _), count in stretches.items():
            times["line"] += row + 1 - max(held, row - 1)
            held = row + 1
            times["stretch"] += 1
            times["rows"] += count // unrolled
            times["row"] += count % unrolled
    return times


def count_of(workload: Workload) -> Count:
    """Compile what draws a workload, and count."""
    drawing = drawing_of(workload)
    listing = listing_of(source_of(drawing.launch, HOPPER).compile())
    loops = loops_of(listing)
    lane_bytes = triton_gpu.BLOCK_PX // 32 * drawing.cut.tile_h
    issued: Counter[str] = Counter()
    for part, times in times_of(drawing, loops.unrolled).items():
        issued.update({name: n * times for name, n in getattr(loops, part).items()})
    blocks = drawing.cut.blocks * triton_gpu.BLOCK_PX / drawing.grid.width  # lanes behind the last column draw nothing
    map_bytes = 4 * workload.channels * workload.map_px**2 / (drawing.grid.height * drawing.grid.width)
    return Count(loops, {name: n * blocks / lane_bytes for name, n in issued.items()}, listing.registers, map_bytes)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Format a table whose first column is text."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---", *["---:"] * (len(heads) - 1)], *rows])


def for_a_byte(workload: Workload, count: Count) -> list[str]:
    """Format a row of the first table."""
    kinds = {kind: f"{count.of(kind):.2f}" for kind in CLASSES}
    for kind in ("load", "store"):
        kinds[kind] += f" of {count.bytes_of(kind):.1f} B"
    others = str(count.registers), str(count.warps), f"{count.fills:.2f}"
    return [workload.name, f"{count.total:.1f}", *kinds.values(), f"{count.map_bytes:.2f}", *others]


def of_a_program(workload: Workload, count: Count) -> list[str]:
    """Format a row of the second table."""
    once, line, stretch, rows, _ = (sum(part.values()) for part in count.loops[:-1])
    return [workload.name, *map(str, (once, line, stretch)), f"{rows / count.loops.unrolled:.0f}"]


def page() -> str:
    """Write the page: what each workload takes for a byte, and in each part of a program."""
    counts = {workload: count_of(workload) for workload in WORKLOADS}
    bytes_table = table(
        ["sheet", "instructions", *CLASSES, "of the maps", "registers", "warps", "estimate"],
        [for_a_byte(*each) for each in counts.items()],
    )
    parts_table = table(
        ["sheet", "once", "a row of the maps", "each change of the rows between", "a row of the sheet"],
        [of_a_program(*each) for each in counts.items()],
    )
    issued, converted = (rate / FILL_BYTES_PER_S for rate in (ISSUED_PER_S, CONVERTED_PER_S))
    return f"""# What drawing takes on a GPU

Made by `python -m benchmarks.instructions` with Triton {triton.__version__}, do not edit. **Nothing here is measured.**
The program `render_block` is compiled for the H100 and H200 (sm_90); an instruction counts as often as it runs.

For a byte of the sheet, which is one pixel: the instructions that a lane issues, some kinds of them, and bytes of the
maps. Loads and stores say how many bytes each has on average. Registers are those of a lane, and warps those that a
multiprocessor holds with them. The estimate is the time on an H100 in that of filling the same memory: in the time of a
filled byte it issues {issued:.1f} instructions and converts {converted:.2f} numbers at least. What takes longest
counts, and waiting for memory does not.

{bytes_table}

Of these, the instructions of a lane, which has {triton_gpu.BLOCK_PX // 32} columns of a program:

{parts_table}
"""


def recorded() -> tuple[str, dict[str, float]]:
    """Read the page: the version of Triton, and how many instructions a byte of each workload takes."""
    text = PAGE.read_text()
    found = re.findall(r"^\| (\d[^|]+) \| (\d+\.\d) \|", text, re.M)
    return re.search(r"Triton ([\d.]+\d)", text)[1], {name: float(total) for name, total in found}  # type: ignore[index]


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
