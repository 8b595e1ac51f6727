"""How many instructions a 64-bit ARM processor executes, counted without one: `python -m benchmarks.arm_instructions`.

csrc is compiled for it by Debian's g++-aarch64-linux-gnu, twice: as it is, and with the compiler's own vectors off.
Each inner loop then runs in qemu-user once and twice; the difference is what it executes. Instructions are no times: a
vector instruction may take longer than one of a single number.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks import ROOT

PAGE = ROOT / "benchmarks" / "ARM.md"
HARNESS = ROOT / "benchmarks" / "harness"
TOOLCHAIN = ROOT / "csrc" / "toolchains" / "aarch64-linux-gnu.cmake"
COMPILER = "aarch64-linux-gnu-g++"


class Loops(NamedTuple):
    """The innermost loops of a function that have vector instructions.

    instructions: of all of them.
    vector: those of NEON, or for CRC-32.
    """

    function: str
    instructions: int
    vector: int


def run(*command: str | Path) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def build(folder: Path, flags: str) -> Path:
    """Compile the library and the program that runs its loops; return the program."""
    options = f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}", f"-DCMAKE_CXX_FLAGS={flags}", "-DCNNVIZ_FUZZ=ON"
    run("cmake", "-S", ROOT / "csrc", "-B", folder, *options)
    run("cmake", "--build", folder, "--target", "cnnviz_core")
    program, library = folder / "loops", folder / "core" / "libcnnviz_core.a"
    run(COMPILER, "-std=c++17", "-O2", "-I", ROOT / "csrc", HARNESS / "loops.cpp", library, "-o", program)
    return program


def executed(plugin: Path, program: Path, loop: str, level: str) -> int:
    """Count the instructions that a loop executes."""
    once, twice = (
        subprocess.run(
            ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-plugin", plugin, program, loop, level, times],
            check=True,
            stderr=subprocess.PIPE,
        ).stderr
        for times in "12"
    )
    return int(twice) - int(once)


def loops_of(listing: str) -> list[Loops]:
    """Find the innermost loops of each function in what objdump prints."""
    found = []
    for name, body in re.findall(r"^[0-9a-f]+ <(.+)>:\n((?: +[0-9a-f]+:.*\n)*)", listing, re.M):
        lines = [(int(at, 16), text) for at, text in re.findall(r"^ +([0-9a-f]+):\t(.*)$", body, re.M)]
        jumps = [(at, re.match(r"(?:b\.?\w*|cbn?z|tbn?z)\t(?:.*, )?([0-9a-f]+) <", text)) for at, text in lines]
        loops = [(int(to[1], 16), at) for at, to in jumps if to and lines[0][0] <= int(to[1], 16) <= at]
        inner = [(a, b) for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
        bodies = [[text for at, text in lines if a <= at <= b] for a, b in inner]
        hot = [text for body in bodies if any(map(is_vector, body)) for text in body]
        if hot:
            found.append(Loops(plain_name(name), len(hot), sum(map(is_vector, hot))))
    return found


def plain_name(name: str) -> str:
    """Return the name of a function without its namespaces, its result and its arguments."""
    return re.sub(r"\(.*", "", re.sub(r"\(anonymous namespace\)::|cnnviz::|^void |^bool ", "", name))


def is_vector(instruction: str) -> bool:
    """Return whether an instruction is one of NEON or for CRC-32."""
    return bool(re.search(r"\bv\d+\.|\bq\d+\b|^crc32", instruction))


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Format a table whose first column is text."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---", *["---:"] * (len(heads) - 1)], *rows])


def page() -> str:
    """Write the page: what each loop executes, and of what its loops consist."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plugin = folder / "count.so"
        run("cc", "-O2", "-shared", "-fPIC", HARNESS / "count_instructions.c", "-o", plugin)
        program, plain = build(folder / "whole", ""), build(folder / "plain", "-fno-tree-vectorize")
        rows = []
        for line in run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program).splitlines():
            loop, units = line.split("\t")
            counts = [executed(plugin, *which) for which in ((plain, loop, "scalar"), (program, loop, "scalar"))]
            neon = executed(plugin, program, loop, "neon")
            each = [f"{count / int(units):.2f}" for count in (*counts, neon)]
            rows.append([loop, *each, *(f"{count / neon:.1f} x" for count in counts)])
        objects = sorted((folder / "whole" / "core").rglob("*_neon.cpp.o"))
        listing = run("aarch64-linux-gnu-objdump", "-dC", "--no-show-raw-insn", *objects)
    parts = [[loops.function, str(loops.instructions), str(loops.vector)] for loops in loops_of(listing)]
    executed_table = table(
        ["loop", "scalar", "scalar with the compiler's vectors", "neon", "fewer", "fewer than with those"], rows
    )
    compiler, emulator = (run(name, "--version").splitlines()[0] for name in (COMPILER, "qemu-aarch64"))
    return f"""# What the loops of csrc take on 64-bit ARM

Made by `python -m benchmarks.arm_instructions`, do not edit. {compiler}, {emulator}. **Nothing here is a time**: no ARM
processor was at hand, and these are the instructions that an emulator executed.

Instructions for a unit, which is a byte, a value or a pixel of the result. The compiler makes NEON of plain loops by
itself; "scalar" is without that, the next column is the level `scalar` as it is built.

{executed_table}

Two are not three times fewer. `squares` adds float64, of which a vector holds two. `put_literals` hands its codes to
the writer of bits in eights, one after the other, which takes a third of its instructions; where residuals reach to
60, its tables do not stay in registers.

Instructions in the innermost loops of each function, and how many of them are NEON's or for CRC-32:

{table(["function", "instructions", "of vectors"], parts)}
"""


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
