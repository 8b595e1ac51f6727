"""What the rules of the code base look at, read from sources. `test_rules` plants faults that these must find."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import cnnviz_fast

PACKAGE = Path(cnnviz_fast.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the command line down to what everybody may use: a module imports only from packages that stand below its own.
ORDER = [
    "__main__", "cli", "diagnostics", "viewer", "runs", "patches", "attribution", "pipeline", "weights", "operators",
    "sheets", "formats", "channels", "activations", "inputs", "models", "kernels", "palette", "geometry", "provenance",
    "options", "runtime", "errors", "_native",
]  # fmt: skip

# What these packages never import, although it stands below them.
NEVER = {
    "sheets": {"models", "activations"},
    "formats": {"models", "activations"},
    "channels": {"models", "activations"},
    "kernels": {"palette", "provenance", "options"},
}

FACADE = f"{PACKAGE.name}.__init__"
"""The public surface, as what is imported: it stands above every module of the package."""

IMPORTERS = {"import_module", "__import__", "resolve_name", "find_spec", "run_module"}
"""Functions that import what a string names."""


def name_of(path: Path) -> str:
    """Return a module's name below the package; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def full_name_of(path: Path) -> str:
    """Return a module's full name; a package's own file ends in `.__init__`."""
    return ".".join(("cnnviz_fast", *path.relative_to(PACKAGE).with_suffix("").parts))


def package_of(module: str) -> str:
    """Return the entry of the package's folder that a module lies in."""
    return module.partition(".")[0]


KNOWN = {f"cnnviz_fast.{name_of(path)}" for path in MODULES if name_of(path)} | {"cnnviz_fast._native"}
"""Full names of the modules of the package."""


@functools.lru_cache(maxsize=1)
def nodes_of(source: str) -> list[ast.AST]:
    """Return all nodes of a source: once for all rules that look at it."""
    return nodes_under(ast.parse(source))


def nodes_under(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes as `ast.walk` has them, without contexts, in half the time."""
    nodes = [tree]
    for node in nodes:  # which grows meanwhile
        for name in node._fields:
            value = getattr(node, name)
            if isinstance(value, list):
                nodes += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST) and name != "ctx":
                nodes.append(value)
    return nodes


def imports_of(source: str, module: str, *, at_load: bool = False) -> set[str]:
    """Return what a module imports by statements.

    Args:
        source: of the module.
        module: its full name; a package's own file ends in `.__init__`.
        at_load: leave out what only type checkers import, or what is imported when a function is called.

    Returns:
        Full names of modules; FACADE where a name of the public surface is imported, or the package itself.
    """
    found = set()
    for node in _at_load(nodes_of(source)[0]) if at_load else nodes_of(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            # `import package.module` binds the package itself.
            found |= {alias.name.partition(".")[0] for alias in node.names if alias.asname is None}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{target}.{alias.name}" for alias in node.names}
            found |= {name if name in KNOWN else target for name in names}
    return {FACADE if name == PACKAGE.name else name for name in found}


def _at_load(tree: ast.AST) -> Iterator[ast.AST]:
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        type_checking = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if not (type_checking or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.expr))):
            pending.extend(ast.iter_child_nodes(node))


def imports_by_name_of(source: str) -> list[str]:
    """Return where a module imports another of this package by a string, as `line: string`.

    Args:
        source: of the module.

    Returns:
        The strings: those that name a module of this package, wherever they stand, and what a function that imports is
        given with this package's name in it, or relative to a package.
    """
    found = []
    for node in nodes_of(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in KNOWN:
            found.append(f"{node.lineno}: {node.value}")
        elif isinstance(node, ast.Call) and name_of_call(node) in IMPORTERS and _names_this_package(node):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def _names_this_package(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    relative = name_of_call(call) == "import_module" and len(given) > 1
    return relative or any(re.match(rf"\.|{PACKAGE.name}\b", _first_text(node)) for node in given)


def _first_text(node: ast.AST) -> str:
    """Return what a text begins with, as far as it is written out; "" for anything else."""
    while isinstance(node, (ast.JoinedStr, ast.BinOp)):
        node = node.left if isinstance(node, ast.BinOp) else node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def prints_of(source: str) -> list[str]:
    """Return where a module prints, as `line: call`."""
    calls = [node for node in nodes_of(source) if isinstance(node, ast.Call)]
    return [f"{call.lineno}: {ast.unparse(call)}" for call in calls if getattr(call.func, "id", "") == "print"]


def name_of_call(call: ast.Call) -> str:
    """Return the last part of the name of what is called; "" where that is no name."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def faults_of_imports(module: str, imported: set[str]) -> list[str]:
    """Return what a module must not import: what stands above its package, or what that never imports.

    Args:
        module: its name below the package.
        imported: names below the package; "__init__" is the public surface.

    Returns:
        A line for each.
    """
    own, faults = package_of(module), []
    for name in sorted(imported):
        there = package_of(name)
        if there not in ORDER:
            faults.append(f"{module} imports the public surface, {name!r}, instead of the module it needs")
        elif ORDER.index(there) < ORDER.index(own) or there in NEVER.get(own, ()):
            faults.append(f"{module} imports {name}")
    return faults
