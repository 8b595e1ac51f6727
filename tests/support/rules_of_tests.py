"""What the rules of the tests look at, read from sources. `test_rules` plants faults that these must find."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Sequence

from support.rules import name_of_call, nodes_of, nodes_under

LOOSE = {
    "approx", "isclose", "allclose", "assert_allclose", "assert_close", "assert_almost_equal", "assert_approx_equal",
    "assert_array_almost_equal", "assert_array_almost_equal_nulp", "assert_array_max_ulp", "assertAlmostEqual",
}  # fmt: skip
"""Functions that compare within a tolerance, their own where none is given. `assert_close` of `assertions` is none."""

DIFFERENCES = {"subtract", "sub", "diff", "dist", "cdist", "ptp"}
"""Functions whose result is how far values lie apart."""

SUMMARIES = {"max", "min", "mean", "median", "std", "var", "amax", "amin", "norm", "abs", "absolute", "fabs"}
"""Functions whose result, beside a number with a point, is held to a bound."""

BOUNDS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
"""Comparisons by size."""

WAITS = {"wait", "join", "acquire", "select", "poll"}
"""Methods that wait for a time at most."""


def tolerances_of(source: str) -> list[str]:
    """Return where a test compares within a tolerance that has no name in `support/assertions.py`.

    Args:
        source: of the module.

    Returns:
        `line: what stands there` for: functions that compare loosely, arguments rtol and atol, tolerances made on the
        spot, bounds on a difference, decimal places, and numbers with a point as bounds on a summary.
    """
    nodes = nodes_of(source)
    own = {alias.name for alias in _imported_from(nodes, "support.assertions")}
    compared = [
        node for node in nodes if isinstance(node, ast.Compare) and all(isinstance(op, BOUNDS) for op in node.ops)
    ]
    apart = _names_of_differences(nodes) if compared else set()
    bounds = {node for node in compared if _is_bound(node, apart)}
    bounds |= _comparisons_of_rounded(nodes)
    found = []
    for node in nodes:
        if isinstance(node, ast.Call):
            name = name_of_call(node)
            qualified = isinstance(node.func, ast.Attribute)
            loose = name == "Tolerance" or (name in LOOSE and (qualified or name not in own))
            if loose or {keyword.arg for keyword in node.keywords} & {"rtol", "atol"}:
                found.append(node)
        elif isinstance(node, ast.ImportFrom) and node.module != "support.assertions":
            if {alias.name for alias in node.names} & LOOSE:
                found.append(node)
        elif node in bounds:
            found.append(node)
    return [f"{node.lineno}: {ast.unparse(node)}" for node in found]


def _imported_from(nodes: Sequence[ast.AST], module: str) -> Iterator[ast.alias]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == module:
            yield from node.names


def _comparisons_of_rounded(nodes: Sequence[ast.AST]) -> set[ast.AST]:
    """Return the comparisons of a module in which a number is rounded to decimal places."""
    rounded = {node for node in nodes if isinstance(node, ast.Call) and name_of_call(node) == "round" and node.args[1:]}
    if not rounded:
        return set()
    return {node for node in nodes if isinstance(node, ast.Compare) and not rounded.isdisjoint(nodes_under(node))}


def _is_bound(node: ast.Compare, apart: set[str]) -> bool:
    """Whether a comparison by size holds a difference or a summary to a bound."""
    sides = [node.left, *node.comparators]
    bounds = [side for side in sides if not _measures_difference(side, apart)]
    if len(bounds) < len(sides):  # which of two is larger, or whether one is above 0, is no matter of a tolerance
        return any(ast.unparse(bound) != "0" for bound in bounds)
    summaries = [
        side for side in sides if _calls(side, SUMMARIES) or (isinstance(side, ast.BinOp) and _subtracts(side))
    ]
    return bool(summaries) and any(_has_point(side) for side in sides)


def _has_point(node: ast.AST) -> bool:
    """Whether a side is a number made of literals, one of them with a point or an exponent."""
    parts = list(nodes_under(node))
    plain = all(isinstance(each, (ast.Constant, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)) for each in parts)
    return plain and any(isinstance(each, ast.Constant) and isinstance(each.value, float) for each in parts)


def _calls(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(each, ast.Call) and name_of_call(each) in names for each in nodes_under(node))


def _subtracts(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.BinOp) and isinstance(each.op, ast.Sub) and not isinstance(each.left, ast.Constant)
        for each in nodes_under(node)
    )


def _measures_difference(node: ast.AST, apart: set[str]) -> bool:
    """Whether a side is made of how far values lie apart: a summary of what is subtracted, or of a name for that."""
    named = any(isinstance(each, ast.Name) and each.id in apart for each in nodes_under(node))
    return _calls(node, DIFFERENCES) or named or (_calls(node, SUMMARIES) and _subtracts(node))


def _names_of_differences(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names of variables and functions of a module that hold or return how far values lie apart."""
    given = [(_names_in(node.targets), node.value) for node in nodes if isinstance(node, ast.Assign)]
    for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
        returned = [each.value for each in nodes_under(function) if isinstance(each, ast.Return) and each.value]
        given += [({function.name}, value) for value in returned]
    parts = [(names, nodes_under(value)) for names, value in given]
    named: set[str] = set()
    while True:
        found = named.union(*(names for names, value in parts if not names <= named and _is_difference(value, named)))
        if found == named:
            return named
        named = found


def _names_in(nodes: Sequence[ast.AST]) -> set[str]:
    return {each.id for node in nodes for each in nodes_under(node) if isinstance(each, ast.Name)}


def _is_difference(parts: Sequence[ast.AST], apart: set[str]) -> bool:
    """Whether a value, as all nodes that it is made of, is how far others lie apart."""
    calls = {name_of_call(each) for each in parts if isinstance(each, ast.Call)}
    if calls & (DIFFERENCES | apart):
        return True
    if calls & {"abs", "absolute", "fabs"} and _subtracts(parts[0]):
        return True
    named = any(isinstance(each, ast.Name) and each.id in apart for each in parts)
    return named and bool(calls & SUMMARIES) and not any(isinstance(each, ast.Compare) for each in parts)


def fixed_waits_of(source: str) -> list[str]:
    """Return where a test waits for some time rather than for what is to happen, as `line: what stands there`.

    Args:
        source: of the module.

    Returns:
        Calls and imports of `sleep`, and waits of less than a second. In texts that hold a program too, except for
        loops that wait until something has happened.
    """
    nodes = nodes_of(source)
    found = [f"{node.lineno}: {ast.unparse(node)}" for node in nodes if _is_fixed_wait(node)]
    for text in (node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)):
        if not ("sleep" in text.value or "wait" in text.value):
            continue
        program = _program_in(text.value)
        polls = {inside for loop in _conditional_loops(program) for inside in ast.walk(loop)}
        waits = [node for node in ast.walk(program) if isinstance(node, ast.Call) and _is_fixed_wait(node)]
        found += [f"{text.lineno}: {ast.unparse(node)}" for node in waits if node not in polls]
    return found


def _is_fixed_wait(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "sleep" for alias in node.names)
    if not isinstance(node, ast.Call):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    seconds = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, (int, float))]
    return name_of_call(node) == "sleep" or (name_of_call(node) in WAITS and any(0 < each < 1 for each in seconds))


def _conditional_loops(tree: ast.AST) -> Iterator[ast.While]:
    for node in ast.walk(tree):
        if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant):
            yield node


def _program_in(text: str) -> ast.Module:
    try:
        return ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return ast.Module([], [])
