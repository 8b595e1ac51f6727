"""Parsers on their own; what each takes as an option is in the tests of the records."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from support.looping import over

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


LONG = "9" * 5000
HUGE = [10**400, 10**5000, -(10**5000), LONG, f"-{LONG}"]  # which Python neither reads nor writes out by itself


@pytest.mark.parametrize("value", HUGE, ids=["400 digits", "5,000", "-5,000", "5,000 as text", "-5,000 as text"])
@over(
    "parse",
    [parsers.whole(0), parsers.whole_within(2, 256), parsers.positive, parsers.float32, parsers.share, parsers.pixels,
     parsers.grid, parsers.channel_list, parsers.percentiles, parsers.lengths, parsers.numbers_of],
)  # fmt: skip
def test_parsers_refuse_numbers_of_thousands_of_digits(parse: parsers.Parser, value: object) -> None:
    with pytest.raises(OptionError, match=r"^it must be ") as caught:
        parse("it", value)
    assert len(str(caught.value)) < 250


def test_whole_takes_zeros_in_front_and_integers_of_every_kind() -> None:
    values = ("0" * 5000 + "7", np.uint8(7), torch.tensor(7), " 7 ", "+7")
    assert [parsers.whole(1)("gap", value) for value in values] == [7] * 5


@pytest.mark.parametrize(
    "value", [itertools.count(), itertools.repeat(0), range(10**12), "0-1048575," * 99 + "0", "0," * 2**21],
    ids=["count", "repeat", "range", "ranges", "text"],
)  # fmt: skip
def test_channel_list_of_millions_of_entries_is_refused_at_once(value: object) -> None:
    with pytest.raises(OptionError, match=r"^channels must be .*at most 1,048,576"):
        parsers.channel_list("channels", value)
    assert len(parsers.channel_list("channels", "0-1048575")) == 2**20


def test_channel_list_takes_the_indices_of_a_tensor() -> None:
    scores = torch.tensor([1.0, 9.0, 5.0])
    assert parsers.channel_list("channels", scores.topk(2).indices) == (1, 2)


@pytest.mark.parametrize("value", [np.array(["layer", "auto"]), torch.rand(3, 4, 5), ["layer"], None, 5])
@over("parse", [parsers.choice("layer", "auto"), parsers.grid, parsers.flag, parsers.text])
def test_parsers_refuse_arrays_where_text_is_meant(parse: parsers.Parser, value: object) -> None:
    if parse is parsers.grid and value is None:
        return
    with pytest.raises(OptionError, match=r"^it must be "):
        parse("it", value)


def test_path_takes_text_and_paths_and_no_number(tmp_path: Path) -> None:
    assert [parsers.path("path", value) for value in ("a.png", Path("a.png"))] == [Path("a.png")] * 2
    for value in (3, None, b"a.png", [Path("a.png")]):
        with pytest.raises(OptionError, match=r"^path must be a path, got "):
            parsers.path("path", value)


@over("value", ["x", "", ",", "3x", "x3", "3, ,4"])
def test_lengths_without_a_length_are_refused_as_they_were_given(value: str) -> None:
    with pytest.raises(OptionError, match=rf"^size must be .*got {value!r}"):
        parsers.lengths("size", value)
