"""The rules of the house that matter, as tests: what may import what, what is loaded when, what is documented."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from support import rules, rules_of_tests, rules_of_words
from support.rules import MODULES, ORDER, PACKAGE, faults_of_imports, full_name_of, name_of, package_of

import cnnviz_fast

BY_NAME = {"", "kernels.backends"}
"""Modules that import others of this package by a string: the public surface, and the table of backends."""

MOST_ENTRIES = 26
"""Of the package's own folder: more than these a newcomer does not take in at a glance."""

# Foreign packages that cost time, and the only modules that may import them while they are being loaded.
HEAVY = {
    "torch": {
         "attribution.attending", "attribution.bends", "attribution.descent", "attribution.inversion",
         "attribution.maximization", "attribution.rectifiers", "attribution.tail",
        "channels.dataset", "channels.entrance", "channels.moments", "channels.quantile_sketch", "channels.ranges",
        "channels.selection",
        "channels.statistics", "channels.tile_ranges", "channels.values", "diagnostics.bench",
        "diagnostics.bench_cases", "formats.atlas", "inputs.reader_process", "inputs.readers", "inputs.reading",
        "inputs.unnamed_memory", "models.small_networks",
        "kernels.torch_ops", "kernels.torch_sketch", "kernels.torch_values", "kernels.triton_gpu", "operators",
         "patches.api", "patches.classes", "patches.entries", "patches.lists", "patches.overlay", "patches.responses",
         "patches.top", "pipeline", "runs.api", "runs.attributed", "runs.batches", "runs.folder.fingerprint",
         "runs.top", "runtime.device", "sheets.comparison", "sheets.manifest",
        "sheets.pixels", "sheets.plan", "sheets.rgb", "sheets.samples", "weights.kernel_sheets",
    },
    "triton": {"kernels.triton_programs"},
    "numba": {
        "kernels.numba_blend", "kernels.numba_cpu", "kernels.numba_jit", "kernels.numba_sketch",
        "kernels.numba_statistics", "kernels.numba_values",
    },
    **{
        name: set[str]()
        for name in (
            "torchvision", "PIL", "cmap", "tqdm", "safetensors", "timm", "transformers", "huggingface_hub",
            "torchcodec", "pyarrow", "ray", "tifffile", "h5py",
        )
    },
}  # fmt: skip


RULES_OF_MODULES = (rules.imports_by_name_of, rules.prints_of)
RULES_OF_TESTS = (rules_of_tests.tolerances_of, rules_of_tests.fixed_waits_of, rules_of_words.vague_docstrings_of)


class Source(NamedTuple):
    """What is found in a source, which is read once for all rules.

    imports, at_load: of a module, anywhere or while it is loaded: 'torch', or '.layout' for a module of this package.
    faults: what each rule finds, as `line: what stands there`.
    """

    imports: set[str]
    at_load: set[str]
    faults: dict[Callable[[str], list[str]], list[str]]


@functools.cache
def read(path: Path) -> Source:
    """Return what is found in a module of the package, a test or a benchmark."""
    text = path.read_text()
    if not path.is_relative_to(PACKAGE):
        return Source(set(), set(), {rule: rule(text) for rule in RULES_OF_TESTS})
    imports, at_load = (
        {name.removeprefix("cnnviz_fast") if name.split(".")[0] == "cnnviz_fast" else name for name in found}
        for found in (rules.imports_of(text, full_name_of(path), at_load=only) for only in (False, True))
    )
    return Source(imports, at_load, {rule: rule(text) for rule in RULES_OF_MODULES})


def own_imports_of(path: Path) -> set[str]:
    """Return the modules of this package that a module imports anywhere: deferred and under TYPE_CHECKING too."""
    return {imported[1:] for imported in read(path).imports if imported.startswith(".")}


def faults_in(paths: Iterable[Path], rule: Callable[[str], list[str]]) -> list[str]:
    """Return what a rule finds in sources, as `path:line: what stands there`."""
    return [f"{path}:{fault}" for path in paths for fault in read(path).faults[rule]]


def test_folder_holds_few_entries_and_each_has_its_place_in_the_order() -> None:
    entries = {
        path.name for path in PACKAGE.iterdir() if path.name != "__pycache__" and path.suffix not in (".so", ".pyd")
    }
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
    assert {package_of(name_of(path)) for path in MODULES} - {""} == set(ORDER) - {"_native"}


def test_imports_go_down() -> None:
    modules = [path for path in MODULES if name_of(path)]
    assert [fault for path in modules for fault in faults_of_imports(name_of(path), own_imports_of(path))] == []


def test_imports_by_name_stand_where_they_are_known() -> None:
    modules = [path for path in MODULES if name_of(path) not in BY_NAME]
    assert faults_in(modules, rules.imports_by_name_of) == []


def test_no_circle_of_imports() -> None:
    left = {name_of(path): own_imports_of(path) - {name_of(path)} for path in MODULES if name_of(path)}
    while free := [name for name, imported in left.items() if not imported & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"a circle among {sorted(left)}"


def test_packages_hold_one_docstring() -> None:
    for path in MODULES:
        # Not the public surface, nor the contract that every backend keeps.
        if path.name == "__init__.py" and name_of(path) not in ("", "kernels"):
            (docstring,) = ast.parse(path.read_text()).body
            assert isinstance(docstring, ast.Expr), name_of(path)


def test_no_module_has_the_name_of_a_public_function() -> None:
    assert not {package_of(name_of(path)) for path in MODULES} & set(cnnviz_fast.__all__)


def test_heavy_imports_only_where_used() -> None:
    for path in MODULES:
        loaded = {imported.split(".")[0] for imported in read(path).at_load}
        for package, allowed in HEAVY.items():
            assert package not in loaded or name_of(path) in allowed, f"{name_of(path)} loads {package}"


STEPS = [
    ("import cnnviz_fast as cf", ["torch", "numba", "triton", "torchvision", "numpy", "PIL"]),
    (
        "import cnnviz_fast.cli.main; cnnviz_fast.cli.main._parser()",
        ["torch", "numba", "torchvision", "PIL", "numpy", "orjson", "tqdm", "cmap"],
    ),
    ("cf.load_model, cf.load_images, cf.capture", ["torchvision", "numba"]),
    ("cf.render, cf.save_sheet", ["numba", "triton", "torchvision"]),
    ("cf.load_model('squeezenet1_1', weights='none')", ["timm", "transformers", "numba"]),
]
"""What a program does, one after another, and what must not have been loaded after each."""


def test_import_loads_nothing_heavy() -> None:
    listing = "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    program = "\n".join(code + listing for code, _ in STEPS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for (code, forbidden), loaded in zip(STEPS, done.stdout.splitlines(), strict=True):
        assert not set(forbidden) & set(json.loads(loaded)), code


def test_print_only_on_the_command_line() -> None:
    modules = [path for path in MODULES if package_of(name_of(path)) != "cli"]
    assert faults_in(modules, rules.prints_of) == []


def test_sources_hold_no_unfinished_business() -> None:
    for path in MODULES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", line), f"{path.name}:{number}: {line}"


HERE = Path(__file__).parent
TESTS = sorted(path for path in HERE.rglob("*.py") if path.name != "assertions.py")
PLANTING = ("test_rules.py", "rules_of_words.py")
"""Which hold what the rules are about."""

WORDED = [
    path
    for folder in (HERE, HERE.parent / "benchmarks")
    for path in sorted(folder.rglob("*.py"))
    if path.name not in PLANTING
]


def test_tolerances_stand_in_one_place() -> None:
    assert faults_in(TESTS, rules_of_tests.tolerances_of) == []  # name them in support/assertions.py


def test_nothing_waits_for_a_fixed_time() -> None:
    tests = [path for path in TESTS if path.name not in ("waiting.py", *PLANTING)]
    assert faults_in(tests, rules_of_tests.fixed_waits_of) == []  # wait for what is to happen; see support/waiting.py


def test_words_of_tests_and_benchmarks_are_those_of_the_package() -> None:
    assert faults_in(WORDED, rules_of_words.vague_docstrings_of) == []
    assert [f"{path}:{line}" for path in WORDED for line in rules_of_words.old_words_in(path.read_text())] == []
