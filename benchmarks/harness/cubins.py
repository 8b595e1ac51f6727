"""Triton's programs on a GPU that need not be there: launches recorded, compiled for it, and taken apart."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel, make_backend
from triton.runtime import jit

from cnnviz_fast.kernels import triton_programs

HOPPER = GPUTarget("cuda", 90, 32)
LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z0-9_.]+)(.*?);")
CAN_COMPILE = hasattr(jit, "create_function_from_signature") and hasattr(jit.JITFunction, "_pack_args")
"""What turns a launch into a source is Triton's own affair: 3.8 and 3.9 do it as `Source` follows it."""


class Launch(NamedTuple):
    """A program and what it was launched with."""

    program: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Recorder:
    """Stands where a program does and notes its launches."""

    def __init__(self, name: str, launches: list[Launch]) -> None:
        self.name, self.launches = name, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert grid[0] < 2**31
        return lambda *arguments, **options: self.launches.append(Launch(self.name, arguments, options))


def launches_of(work: Callable[[], object], programs: Iterable[str]) -> list[Launch]:
    """Do work whose programs are only noted, and return their launches."""
    found: list[Launch] = []
    with patch.multiple(triton_programs, **{name: Recorder(name, found) for name in programs}):
        work()
    return found


class Source(NamedTuple):
    """What Triton compiles for a launch (JITFunction.run); launches with the same `key` share it."""

    key: tuple[str, str]
    compile: Callable[[], CompiledKernel]


def source_of(launch: Launch, target: GPUTarget) -> Source:
    """Return what Triton compiles for a launch, as far as it goes without compiling."""
    backend, program = make_backend(target), getattr(triton_programs, launch.program)
    bind = jit.create_function_from_signature(program.signature, program.params, backend)
    options = {**launch.options, "debug": False}
    bound, specialization, rest = bind(*launch.arguments, **options)

    def compile_it() -> CompiledKernel:
        parsed, signature, constants, attributes = program._pack_args(backend, options, bound, specialization, rest)
        source = ASTSource(program, signature, constants, attributes)
        return triton.compile(source, target=target, options=parsed.__dict__)

    return Source((launch.program, str(specialization)), compile_it)


class Instruction(NamedTuple):
    """An instruction of a GPU: where it lies in bytes, its name, and where it branches to, if it does."""

    at: int
    name: str
    target: int | None


class Listing(NamedTuple):
    """A program for a GPU, taken apart by the tools that come with Triton."""

    instructions: list[Instruction]
    registers: int
    stack_bytes: int


def listing_of(kernel: CompiledKernel) -> Listing:
    """Take a compiled program apart."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "program.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        said = [
            subprocess.run([tool, switch, cubin], capture_output=True, text=True, check=True).stdout
            for switch in ("-sass", "-res-usage")
        ]
    instructions = []
    for at, _, name, operands in LINE.findall(said[0]):
        target = re.search(r"\b0x([0-9a-f]+) *$", operands) if name == "BRA" else None
        instructions.append(Instruction(int(at, 16), name, int(target[1], 16) if target else None))
    used = {name: int(re.search(rf"{name}:(\d+)", said[1])[1]) for name in ("REG", "STACK")}  # type: ignore[index]
    return Listing(instructions, used["REG"], used["STACK"])
