"""Parsers on their own; what each takes as an option is in the tests of the records."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_fast.errors import OptionError
from cnnviz_fast.options import parsers


def test_refuse_words_advice_last() -> None:
    error = parsers.refuse("gap", "small", 9, "Make it smaller.")
    assert str(error) == "gap must be small, got 9. Make it smaller."


def test_share_takes_both_ends() -> None:
    assert [parsers.share("alpha", value) for value in (0, 1, "0.25", np.float32(0.5))] == [0.0, 1.0, 0.25, 0.5]


@pytest.mark.parametrize(("value", "message"), [
    (-0.1, "alpha must be a number from 0 to 1, got -0.1."),
    ("1.5", "alpha must be a number from 0 to 1, got '1.5'."),
    (True, "alpha must be a number, got True."),
])  # fmt: skip
def test_share_refuses_what_lies_outside(value: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parsers.share("alpha", value)
    assert str(caught.value) == message


def test_whole_within_takes_both_ends_and_refuses_what_lies_outside() -> None:
    parse = parsers.whole_within(2, 256)
    assert [parse("levels", value) for value in (2, "256", np.int64(9))] == [2, 256, 9]
    for value in (1, "257"):
        with pytest.raises(OptionError, match=r"^levels must be a whole number"):
            parse("levels", value)
    with pytest.raises(OptionError, match=r"^levels must be a whole number from 2 to 256, got 257\.$"):
        parse("levels", 257)


def test_as_float32_rounds_to_the_nearest_and_overflows_beyond() -> None:
    assert parsers.as_float32(0.1) == float(np.float32(0.1))
    with pytest.raises(OverflowError):
        parsers.as_float32(1e300)
