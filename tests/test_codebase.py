"""The rules of the house that matter, as tests: what may import what, what is loaded when, what is documented."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnnviz_fast

PACKAGE = Path(cnnviz_fast.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the command line down to what everybody may use: a module imports only modules that stand below it.
ORDER = [
    "cli", "commands.demo", "commands.render", "commands.many", "commands.atlas", "commands.drawing",
    "commands.compare", "commands.layers", "commands.weights", "commands.doctor", "commands.bench",
    "commands.arguments", "commands.terminal", "commands", "bench", "bench_cases", "stopwatch", "doctor",
    "ray_engine", "ray_cluster", "run", "run_account", "job", "ray_actor", "run_pictures", "run_statistics",
    "passes", "work", "ahead", "products", "interrupts", "tar_writer", "visualize", "look", "journal", "folder_lock",
    "fingerprint", "reading", "sources", "index_files", "digest_map", "ranks", "shards", "tables", "file_names",
    "catalogue", "progress", "kernel_sheets",
    "weight_sheets", "weights", "histograms", "layouts", "capture", "patterns", "forward", "operations", "outputs",
    "memory", "images", "models", "read_workers", "batch", "tiles", "compare", "render", "drawing", "bands",
    "atlas", "raw_maps", "encode.tensors", "operators", "plan", "sheet", "overlay", "statistics_files",
    "dataset_statistics", "encode.formats", "encode.device_jpeg", "encode.png", "encode.files", "timm_zoo",
    "hf_zoo", "extras", "zoo", "detectors", "checkpoints", "layers", "preprocess", "factories", "pictures",
    "decode", "manifest", "selection", "vectors", "report", "moments", "quantile_sketch", "channels", "backends",
    "kernels.numba_sketch", "kernels.torch_sketch", "kernels.numba_values", "kernels.torch_values",
    "kernels.triton_gpu", "kernels.triton_programs", "kernels.numba_cpu", "kernels.numba_blend",
    "kernels.numba_statistics", "kernels.numba_jit", "kernels.torch_ops", "kernels.reference", "annotate",
    "lettering", "palette", "layout", "options", "parsers", "chart", "strips", "stages", "device", "kernels",
    "encode", "errors",
]  # fmt: skip

# Foreign packages that cost time, and the only modules that may import them while they are being loaded.
HEAVY = {
    "torch": {
        "atlas", "batch", "bench", "bench_cases", "channels", "compare", "dataset_statistics", "device",
        "drawing", "fingerprint", "kernel_sheets", "kernels.torch_ops", "kernels.torch_sketch",
        "kernels.torch_values", "kernels.triton_gpu", "manifest", "moments", "operators", "plan",
        "quantile_sketch", "read_workers", "reading", "selection", "work",
    },
    "triton": {"kernels.triton_programs"},
    "torchvision": set(),
    "numba": {
        "kernels.numba_blend", "kernels.numba_cpu", "kernels.numba_jit", "kernels.numba_sketch",
        "kernels.numba_statistics", "kernels.numba_values",
    },
    "PIL": set(),
    "cmap": set(),
    "tqdm": set(),
    "safetensors": set(),
    "timm": set(),
    "transformers": set(),
    "huggingface_hub": set(),
    "torchcodec": set(),
    "pyarrow": set(),
    "ray": set(),
}  # fmt: skip


def name_of(path: Path) -> str:
    """Return a module's name below the package; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path, *, at_load: bool = False) -> set[str]:
    """Return what a module imports: 'torch', or '.layout' for a module of this package."""
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        type_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if at_load and (type_checking or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        pending.extend(ast.iter_child_nodes(node))
    here = ("cnnviz_fast." + name_of(path)).rstrip(".").split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            modules = {f"{target}.{alias.name}" for alias in node.names}
            known = {"cnnviz_fast." + name_of(p) for p in MODULES if name_of(p)}
            found |= (modules & known) or {target}
    return {n.replace("cnnviz_fast", "", 1) if n.split(".")[0] == "cnnviz_fast" else n for n in found}


def test_order_names_every_module() -> None:
    assert sorted(ORDER) == sorted(filter(None, map(name_of, MODULES)))


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p)], ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    own = ORDER.index(name_of(path))
    # What stands under TYPE_CHECKING or in a function is not loaded with the module: it names types or defers work.
    for imported in imports_of(path, at_load=True):
        if imported.startswith(".") and imported[1:] in ORDER:
            assert ORDER.index(imported[1:]) > own, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_imports_only_where_used(path: Path) -> None:
    loaded = {imported.split(".")[0] for imported in imports_of(path, at_load=True)}
    for package, allowed in HEAVY.items():
        assert package not in loaded or name_of(path) in allowed, f"{name_of(path)} loads {package}"


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import cnnviz_fast", ["torch", "numba", "triton", "torchvision", "numpy", "PIL"]),
        ("import cnnviz_fast.cli.main; cnnviz_fast.cli.main._parser()", ["torch", "numba", "torchvision", "PIL"]),
        ("import cnnviz_fast as cf; cf.render, cf.save_sheet", ["numba", "triton", "torchvision"]),
        ("import cnnviz_fast as cf; cf.load_model, cf.load_images, cf.capture", ["torchvision", "numba"]),
        ("import cnnviz_fast as cf; cf.load_model('resnet18', weights='none')", ["timm", "transformers", "numba"]),
    ],
)
def test_import_loads_nothing_heavy(code: str, forbidden: list[str]) -> None:
    listing = "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code + listing], capture_output=True, check=True).stdout)
    assert not set(forbidden) & set(loaded)


def test_public_names_are_exact() -> None:
    assert cnnviz_fast.__all__ == [
        "Atlas", "CnnvizError", "Comparison", "LayerInfo", "LayerReport", "LayerStatistics", "LoadedModel",
        "ParameterInfo", "PreprocessOptions", "RenderOptions", "RunSummary", "Sheet", "Provenance", "__version__",
        "capture", "capture_stream", "compare", "layer_report", "list_layers", "load_images", "load_model",
        "parameter_statistics", "read_atlas", "read_statistics", "render", "render_batch", "render_index",
        "run", "save_atlas", "save_sheet", "save_tiles", "visualize",
    ]  # fmt: skip
    for name in cnnviz_fast.__all__:
        assert getattr(cnnviz_fast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnnviz_fast.nothing


def test_public_names_stay_functions_after_their_module_is_imported() -> None:
    modules = "cnnviz_fast.sheets.render, cnnviz_fast.activations.capture"
    code = f"import {modules}, cnnviz_fast as cf; assert callable(cf.render), cf.render"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_print_only_on_the_command_line() -> None:
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        prints = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not prints or name_of(path).partition(".")[0] in ("cli", "commands"), f"{name_of(path)} prints"


def public_functions() -> list[object]:
    """Return every function and method that users or other modules see, with kernels and dataclasses left in."""
    found = []
    for module in pkgutil.walk_packages([str(PACKAGE)], "cnnviz_fast."):
        if module.name.endswith("._native"):
            continue
        if ".triton_" in module.name and importlib.util.find_spec("triton") is None:
            continue
        loaded = sys.modules.get(module.name) or __import__(module.name, fromlist=["_"])
        for name, member in vars(loaded).items():
            if not name.startswith("_") and inspect.isfunction(member) and member.__module__ == module.name:
                found.append(member)
    return found


def documented_arguments(docstring: str) -> dict[str, str]:
    """Return the arguments of a Google docstring and what is said of each."""
    following = "Returns|Raises|Yields|Source|Formula|Assumes"
    section = re.search(rf"^\s*Args:\n(.*?)(?=^\s*({following}):|\Z)", docstring, re.M | re.S)
    if not section:
        return {}
    # Whatever the docstring is indented by, arguments stand at the least indentation of the section.
    body = inspect.cleandoc("\n" + section[1])
    return {m[1]: m[2] for m in re.finditer(r"^(\*{0,2}\w+): (.*(?:\n +.*)*)", body, re.M)}


@pytest.mark.parametrize("function", public_functions(), ids=lambda f: f"{f.__module__}.{f.__qualname__}")
def test_docstring_says_what_the_signature_says(function: object) -> None:
    docstring = function.__doc__
    assert docstring, "no docstring"
    assert re.match(r"[A-Z][a-z]+\b.*[.:]", docstring), "the first line is an imperative sentence"
    arguments = documented_arguments(docstring)
    if arguments:
        assert list(arguments) == list(inspect.signature(function).parameters)
    elif len(inspect.signature(function).parameters) > 3:
        pytest.fail("a function with more than three arguments documents them")


@pytest.mark.parametrize("function", public_functions(), ids=lambda f: f"{f.__module__}.{f.__qualname__}")
def test_docstring_gives_shape_and_dtype_of_arrays(function: object) -> None:
    dtype = r"(float\d*|u?int\d*|bool|real dtype|complex)"
    arguments = documented_arguments(function.__doc__ or "")
    for name, parameter in inspect.signature(function).parameters.items():
        # Callables that take arrays describe those in their sentence.
        if name in arguments and re.match(r"(NDArray|Floats|torch\.Tensor|Plane)", str(parameter.annotation)):
            assert re.match(r"\([^)]*\) " + dtype, arguments[name]), f"{name}: {arguments[name]}"


def test_sources_hold_no_unfinished_business() -> None:
    for path in MODULES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", line), f"{path.name}:{number}: {line}"
