"""Arrays of numpy and HDF5 become tensors: which can, and in which order those of a file are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


def array_fault(dtype: np.dtype[Any]) -> str | None:
    """Return why arrays of a dtype cannot be read, for the end of "is ..."; None if they can."""
    if dtype.hasobject:
        return "an array of Python objects or texts, which are never loaded"
    if dtype.kind not in "fiubc":
        return "an array that holds no numbers"
    return None if dtype_of(dtype) is not None else f"an array of {dtype.name}, which tensors have none of"


def dtype_of(dtype: np.dtype[Any]) -> torch.dtype | None:
    """Return the dtype of tensors of arrays of a dtype; None if there is none."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        return None


def as_tensor(values: NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor.

    Args:
        values: (...) real dtype or complex, any byte order, with a dtype in torch.

    Returns:
        (...) of the same values.
    """
    import numpy as np
    import torch

    return torch.from_numpy(np.array(values, values.dtype.newbyteorder("="), order="C"))


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort paths with the numbers in them as numbers, so that conv2 comes before conv10.

    Args:
        names: with "/" between their parts.
    """
    return sorted(names, key=lambda name: [_natural(part) for part in name.split("/")])


def _natural(text: str) -> list[tuple[int, str]]:
    """Return texts and numbers in turn; a number by its length and digits, since it may have any number of these."""
    digits = [part.lstrip("0") if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", text))]
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(digits)]
