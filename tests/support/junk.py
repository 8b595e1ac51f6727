"""What may be handed to a function by mistake: values of every type, size and kind, as strategies of Hypothesis.

Nothing here is dangerous where a function takes it: no name of a folder outside the current one, no size of a sheet
that fills the memory, and no iterable without an end where a function reads data to its end.
"""

from __future__ import annotations

import decimal
import fractions
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

LETTERS = st.characters(exclude_characters="/.-~:\\", codec=None)

_VALUES = torch.arange(120.0).view(4, 5, 6) / 120


def _matrix() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy discourages them, and people have them
        return np.matrix([[1, 2.0]])


def _holding_itself() -> list[Any]:
    holder: list[Any] = []
    holder.append(holder)
    return holder


TEXTS: dict[str, Callable[[], Any]] = {
    repr(text): lambda text=text: text
    for text in (
        "", " ", "a\0b.png", "\ud800", "\x1b[2J\n\r", "{channel:{0}}.png", "{", "1e999", "nan", "١٢", "None",
        "cafe\u0301", "\u202egnp.a", "a.png", "*",
    )
} | {
    "5,000 nines": lambda: "9" * 5000, "a long name": lambda: "x" * 100_000, "many ranges": lambda: "0-9," * 999,
}  # fmt: skip

NUMBERS: dict[str, Callable[[], Any]] = {
    repr(number): lambda number=number: number
    for number in (
        0, 1, -1, 7, 2**31, 2**63, True, 0.0, -0.0, 0.5, 1e300, -1e39, 5e-324, float("nan"), float("inf"), 1j,
        fractions.Fraction(1, 3), decimal.Decimal("NaN"),
    )
} | {"10**400": lambda: 10**400, "-10**400": lambda: -(10**400), "10**5000": lambda: 10**5000}  # fmt: skip

OBJECTS: dict[str, Callable[[], Any]] = {
    "object": object, "function": lambda: len, "class": lambda: int, "generator": lambda: (n for n in (1, 2)),
    "bytes": lambda: b"a\0", "memory": lambda: memoryview(b"abc"), "set": lambda: {1, 2}, "module": lambda: np,
    "pairs": lambda: [("a", 1)], "a list that holds itself": _holding_itself,
}  # fmt: skip

ARRAYS: dict[str, Callable[[], Any]] = {
    "float16": lambda: np.float16(3), "bool_": lambda: np.bool_(True), "date": lambda: np.datetime64("NaT"),
    "empty": lambda: np.zeros((0, 3, 3)), "objects": lambda: np.array([[[None, 1]]]), "0-d": lambda: np.array(3),
    "texts": lambda: np.array(["a"]), "record": lambda: np.zeros(3, [("a", int)]), "matrix": _matrix,
    "complex": lambda: np.ones((4, 5, 6), complex), "6-d": lambda: np.ones((1, 1, 1, 1, 1, 1)),
    "masked": lambda: np.ma.masked_array(np.ones((4, 5, 6)), mask=True),
}  # fmt: skip

TENSORS: dict[str, Callable[[], Any]] = {
    "0-d tensor": lambda: torch.tensor(2.0), "meta": lambda: _VALUES.to("meta"), "sparse": lambda: _VALUES.to_sparse(),
    "csr": lambda: _VALUES[0].to_sparse_csr(), "complex tensor": lambda: _VALUES.to(torch.complex64),
    "negated": lambda: torch.complex(_VALUES, _VALUES).conj().imag, "half": lambda: _VALUES.half(),
    "float8": lambda: _VALUES.to(torch.float8_e5m2), "bits": lambda: _VALUES.to(torch.uint8).view(torch.bits8),
    "uint64": lambda: _VALUES.to(torch.uint64), "mkldnn": lambda: _VALUES.to_mkldnn(), "4-d": lambda: _VALUES[None],
    "parameter": lambda: torch.nn.Parameter(_VALUES.clone()), "all NaN": lambda: _VALUES * torch.nan,
    "nested": lambda: torch.nested.as_nested_tensor([_VALUES[0], _VALUES[0, :2]], layout=torch.jagged),
    "lazy": torch.nn.UninitializedParameter, "Identity": torch.nn.Identity, "dtype": lambda: torch.float32,
}  # fmt: skip

JUNK = TEXTS | NUMBERS | OBJECTS | ARRAYS | TENSORS
"""Name -> what makes the value anew: a generator can be read once, and a function may not change what it is given."""


def junk(*, without_end: bool = True) -> st.SearchStrategy[Any]:
    """Return a strategy of values that hardly any function takes.

    Args:
        without_end: whether an iterable without an end is among them.

    Returns:
        Single values, and lists and mappings of them.
    """
    makers = JUNK | {"count": itertools.count} if without_end else JUNK
    made = st.sampled_from(sorted(makers)).map(lambda name: makers[name]())
    single = st.one_of(st.none(), made, st.text(LETTERS, max_size=8), st.binary(max_size=4))
    return single | st.recursive(single, _holding, max_leaves=5)


def _holding(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(LETTERS, max_size=3) | st.integers(0, 3)
    return st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=3)
