"""The public surface: its names, its types as a user's program meets them, and what its docstrings say."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, UnionType
from typing import Any

import pytest
from support.rules_of_words import VAGUE

import cnnviz_fast
from cnnviz_fast.options import attribution, drawing, keywords, optimize, patches, reading, runs, weights
from cnnviz_fast.options.drawing import SINGLE_SHEETS

PACKAGE = Path(cnnviz_fast.__file__).parent
ARRAYS = ("maps", "a", "b", "batch", "index", "out", "shared_with")
"""Arguments that are arrays of several libraries, and so of type Any."""

PROGRAM = Path(__file__).with_name("support") / "user_program.py"


def test_public_names_are_exact() -> None:
    assert cnnviz_fast.__all__ == [
        "Atlas", "CnnvizError", "Comparison", "Inverted", "LayerInfo", "LayerReport", "LayerStatistics", "LoadedModel",
        "Maximized", "PageView", "ParameterInfo", "PatchSheet", "PreprocessOptions", "Provenance", "ReceptiveField",
        "RenderOptions", "RunSummary", "Sheet", "TopResponses", "__version__", "attribute", "capture",
        "capture_stream", "compare", "invert", "layer_report", "list_layers", "load_images", "load_model", "maximize",
        "parameter_statistics", "patch_sheet", "read_atlas", "read_statistics", "read_top", "receptive_field",
        "render", "render_batch",
        "render_index", "run", "save_atlas", "save_page", "save_sheet", "save_tiles", "view", "visualize",
    ]  # fmt: skip
    for name in cnnviz_fast.__all__:
        assert getattr(cnnviz_fast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnnviz_fast.nothing


def test_public_names_are_seen_by_type_checkers_too() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    shown = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == {name: (module, name) for name, module in cnnviz_fast._HOMES.items()}


def test_users_program_calls_every_public_function() -> None:
    used = {node.attr for node in ast.walk(ast.parse(PROGRAM.read_text())) if isinstance(node, ast.Attribute)}
    assert set(cnnviz_fast.__all__) <= used


def test_users_program_passes_mypy_strict() -> None:
    # In the checkout: what mypy learns of torch, in a minute, serves the check of the package's own types too.
    command = [sys.executable, "-m", "mypy", "--strict", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROGRAM.parents[2])
    assert "1 source file" in done.stdout, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if PROGRAM.name in line] == []
    # What the stubs of numpy 1 find in the package itself is not told to users, who have it installed.
    assert done.returncode == 0 or version("numpy").startswith("1."), done.stdout


@pytest.mark.parametrize(
    ("function", "records", "record"),
    [
        ("render", [drawing.RenderOptions], keywords.RenderKeywords),
        ("save_sheet", [drawing.RenderOptions], keywords.RenderKeywords),
        ("save_tiles", [drawing.RenderOptions], keywords.RenderKeywords),
        ("render_batch", [drawing.RenderOptions], keywords.RenderKeywords),
        ("visualize", [drawing.RenderOptions], keywords.RenderKeywords),
        ("compare", [drawing.RenderOptions], keywords.SheetKeywords),
        ("run", [runs.RunOptions, attribution.AttributionOptions, drawing.RenderOptions], keywords.RunKeywords),
        ("patch_sheet", [patches.PatchOptions], keywords.PatchKeywords),
        ("invert", [optimize.InvertOptions], keywords.InvertKeywords),
        ("maximize", [optimize.MaximizeOptions], keywords.MaximizeKeywords),
    ],
)
def test_options_are_named_in_signatures(function: str, records: list[type], record: type) -> None:
    left_out = SINGLE_SHEETS if function == "compare" else ()
    fields = {field.name: field for each in records for field in dataclasses.fields(each) if field.name not in left_out}
    signature = inspect.signature(getattr(cnnviz_fast, function))
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    taken = typing.get_type_hints(record)
    assert set(taken) == set(fields)
    for name, annotation in taken.items():
        parameter = signature.parameters[name]
        assert (parameter.default, parameter.annotation) == (fields[name].default, annotation)
    shown = typing.get_type_hints(getattr(cnnviz_fast, function))
    assert set(shown) == {*signature.parameters, "return"}
    assert taken.items() <= shown.items()


@pytest.mark.parametrize(
    ("record", "taken"),
    [
        (drawing.RenderOptions, keywords.RenderKeywords),
        (drawing.EntryOptions, keywords.EntryKeywords),
        (runs.RunOptions, keywords.OwnRunKeywords),
        (attribution.AttributionOptions, keywords.AttributionKeywords),
        (reading.AxesOptions, keywords.AxesKeywords),
        (reading.PreprocessOptions, keywords.PreprocessKeywords),
        (weights.KernelOptions, keywords.KernelKeywords),
        (patches.PatchOptions, keywords.PatchKeywords),
        (optimize.InvertOptions, keywords.InvertKeywords),
        (optimize.MaximizeOptions, keywords.MaximizeKeywords),
    ],
)
def test_option_records_show_what_they_take_and_type_what_they_hold(record: type, taken: type) -> None:
    parameters = inspect.signature(record).parameters
    assert typing.get_type_hints(record.__init__) == {**typing.get_type_hints(taken), "return": type(None)}
    for field in dataclasses.fields(record):
        assert parameters[field.name].annotation == typing.get_type_hints(taken)[field.name]
        assert parameters[field.name].default == field.default
    # What a field holds is taken too, or the record could not be made again of its own values.
    for name, held in typing.get_type_hints(record).items():
        assert parts(held) <= parts(parameters[name].annotation), name


def parts(annotation: Any) -> set[type]:
    """Return the classes that a union of types is made of: their literals' for literals, all ordered for sequences."""
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return set().union(*(parts(each) for each in typing.get_args(annotation)))
    if typing.get_origin(annotation) is typing.Literal:
        return {type(each) for each in typing.get_args(annotation)}
    kind = typing.get_origin(annotation) or annotation
    is_class = isinstance(kind, type)  # Any is none before Python 3.11
    return {Sequence if is_class and issubclass(kind, Sequence) and kind is not str else kind}


def test_choices_of_options_are_those_that_type_checkers_know() -> None:
    for record, choices in {
        keywords.RunKeywords: {
            "normalize": drawing.NORMALIZATIONS, "align": drawing.ALIGNMENTS, "upsampling": drawing.UPSAMPLINGS,
            "backend": drawing.BACKENDS, "rank": drawing.RANKS, "progress": runs.PROGRESS, "engine": runs.ENGINES,
        },
        keywords.PreprocessKeywords: {"interpolation": reading.RESIZE_FILTERS},
        keywords.KernelKeywords: {"kernels": weights.KERNEL_SHEETS},
        keywords.PatchKeywords: {"draw": patches.DRAWS},
    }.items():  # fmt: skip
        hints = typing.get_type_hints(record)
        for name, known in choices.items():
            either = (hints[name], *typing.get_args(hints[name]))
            (literal,) = (each for each in either if typing.get_origin(each) is typing.Literal)
            assert typing.get_args(literal) == known, name


@functools.cache
def public_functions() -> list[object]:
    """Return every function and method that users or other modules see; not those that Python itself names."""
    found: list[object] = []
    for module in pkgutil.walk_packages([str(PACKAGE)], "cnnviz_fast."):
        if module.name.endswith("._native"):
            continue
        if ".triton_" in module.name and importlib.util.find_spec("triton") is None:
            continue
        loaded = sys.modules.get(module.name) or __import__(module.name, fromlist=["_"])
        for name, member in vars(loaded).items():
            if name.startswith("_") or getattr(member, "__module__", None) != module.name:
                continue
            if inspect.isfunction(member):
                found.append(member)
            elif inspect.isclass(member):
                found += [
                    method.__func__ if isinstance(method, (classmethod, staticmethod)) else method
                    for own, method in vars(member).items()
                    if not own.startswith("_") and isinstance(method, (FunctionType, classmethod, staticmethod))
                ]
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


def same_kernel(docstring: str) -> object | None:
    """Return the kernel that the first paragraph of a docstring calls the same, and that documents the arguments."""
    said = re.search(r"Same as `(\w+)\.(\w+)`", docstring.split("\n\n")[0])
    return getattr(importlib.import_module(f"cnnviz_fast.kernels.{said[1]}"), said[2]) if said else None


def check_docstring(function: object) -> None:
    """Check that a docstring begins with what is done, and that arguments are documented as the signature has them."""
    docstring = function.__doc__
    assert docstring, "no docstring"
    assert re.match(r"[A-Z][a-z]+\b.*[.:]", docstring), "the first line is an imperative sentence"
    assert docstring.split(maxsplit=1)[0] not in VAGUE, f"say what is done, not {docstring.split(maxsplit=1)[0]!r}"
    arguments = documented_arguments(docstring)
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    if arguments:
        assert [name.lstrip("*") for name in arguments] == parameters
    elif (same := same_kernel(docstring)) is not None:
        assert list(inspect.signature(same).parameters) == parameters
    elif len(parameters) > 3 and (shown := re.match(r".*; see (\w+)\.$", docstring)):  # of a class that documents them
        same = getattr(getattr(importlib.import_module(function.__module__), shown[1]), function.__name__)
        assert len(documented_arguments(same.__doc__)) == len(parameters)
    elif len(parameters) > 3:
        pytest.fail("a function with more than three arguments documents them")


def test_docstring_says_what_the_signature_says() -> None:
    faults = []
    for function in public_functions():
        try:
            check_docstring(function)
        except (AssertionError, AttributeError, pytest.fail.Exception) as fault:
            faults.append(f"{function.__module__}.{function.__qualname__}: {fault}")
    assert faults == []


def test_docstring_of_a_kernel_that_is_the_same_as_another_is_held_to_the_arguments_of_that() -> None:
    def normalize(value: Any, vmin: Any, vmax: Any, flat: float) -> None:
        """Bring a value into [0, 1]. Same as `reference.normalize`; NaN stays NaN."""

    def without_flat(value: Any, vmin: Any, vmax: Any) -> None:
        """Bring a value into [0, 1]. Same as `reference.normalize`."""

    def said_too_late(value: Any, vmin: Any, vmax: Any, flat: float) -> None:
        """Bring a value into [0, 1].

        Same as `reference.normalize`.
        """

    def of_nothing(value: Any, vmin: Any, vmax: Any, flat: float) -> None:
        """Bring a value into [0, 1]. Same as `reference.normalise`."""

    def undocumented(before: Any, after: Any, fraction: Any) -> None:
        """Interpolate between neighbours. Same as `reference.blend`."""

    check_docstring(normalize)
    for function, error in [
        (without_flat, AssertionError), (said_too_late, pytest.fail.Exception), (of_nothing, AttributeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            check_docstring(function)
    check_docstring(undocumented)


def test_docstring_gives_shape_and_dtype_of_arrays() -> None:
    begin = re.compile(r"\([^)]*\) (float\d*|u?int\d*|bool|real dtype|complex)")
    for function in public_functions():
        arguments = documented_arguments(function.__doc__ or "")
        for name, parameter in inspect.signature(function).parameters.items():
            # Callables that take arrays describe those in their sentence.
            typed = re.match(r"(NDArray|Floats|torch\.Tensor|Plane)", str(parameter.annotation))
            if name in arguments and (typed or (str(parameter.annotation) == "Any" and name in ARRAYS)):
                assert begin.match(arguments[name]), f"{function.__qualname__}: {name}: {arguments[name]}"
