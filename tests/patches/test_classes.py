"""Responses by class, against numpy over all responses in memory."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import SUMMED, assert_close
from support.cases import INF, NAN, noise
from support.looping import over

from cnnviz_fast.errors import DTypeError, InputError, OptionError, ShapeError
from cnnviz_fast.patches.classes import ClassResponses

NAMES = np.array(["cat", "dog", "", "bird"])


def responses(count: int = 60) -> tuple[torch.Tensor, list[str]]:
    """Return responses of 6 channels: one to cats, one constant, one never finite; and the classes."""
    values = noise(count, 6) + 100
    classes = [str(NAMES[n % 4]) for n in range(count)]
    values[:, 1] += torch.tensor([5.0 if name == "cat" else 0.0 for name in classes])
    values[:, 2] = 0.1  # of which no mean may be another number
    values[:, 3] = NAN
    values[::5, 4] = INF
    return values, classes


def fed(values: torch.Tensor, classes: list[str], batch: int = 7) -> ClassResponses:
    record = ClassResponses(values.shape[1])
    for start in range(0, len(values), batch):
        record.update(values[start : start + batch], classes[start : start + batch])
    return record


def test_update_keeps_count_mean_and_variance_of_each_class() -> None:
    values, classes = responses()
    record = fed(values, classes)
    assert record.classes == ["cat", "dog", "bird"]
    for row, name in enumerate(record.classes):
        for c in range(6):
            mine = values[[n for n, each in enumerate(classes) if each == name], c].double().numpy()
            mine = mine[np.isfinite(mine)]
            assert record.count[row, c] == len(mine)
            expected = (mine.mean(), mine.var()) if len(mine) else (np.nan, np.nan)
            assert_close((record.mean[row, c], record.variance[row, c]), expected, SUMMED)


def test_selectivity_is_d_prime_of_the_best_class() -> None:
    values, classes = responses()
    record = fed(values, classes)
    labelled = np.array(classes) != ""
    for c, (apart, best) in enumerate(zip(record.selectivity(), record.best_class, strict=True)):
        column = values[:, c].double().numpy()
        column, of = column[labelled & np.isfinite(column)], np.array(classes)[labelled & np.isfinite(column)]
        found = {}
        for name in set(of):
            one, rest = column[of == name], column[of != name]
            spread = np.sqrt((one.var() + rest.var()) / 2)
            found[name] = (one.mean() - rest.mean()) / spread if spread else 0.0
        if c == 3:
            assert (np.isnan(apart), best) == (True, "")
        elif c == 2:
            assert (apart, best) == (0, "")
        else:
            assert_close(apart, max(found.values()), SUMMED)
            assert best == max(found, key=lambda name: found[name])
    assert record.best_class[1] == "cat"


def test_selectivity_of_what_never_varies_is_infinite() -> None:
    record = fed(torch.tensor([[1.0], [1.0], [0.0], [0.0]]), ["a", "a", "b", "b"])
    assert record.selectivity().tolist() == [INF]
    assert record.best_class == ["a"]


def test_selectivity_needs_two_images_of_a_class_and_of_the_rest() -> None:
    record = fed(torch.tensor([[1.0], [2.0], [9.0]]), ["a", "a", "b"])
    assert np.isnan(record.selectivity()).all()
    assert record.best_class == [""]
    assert np.isnan(ClassResponses(2).selectivity()).all()
    assert ClassResponses(2).best_class == ["", ""]


def test_any_order_and_merge_gives_the_same_within_rounding() -> None:
    values, classes = responses()
    whole = fed(values, classes, 60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled, mixed = values[order], [classes[n] for n in order]
    merged = fed(shuffled[:23], mixed[:23], 3)
    merged.merge(pickle.loads(pickle.dumps(fed(shuffled[23:], mixed[23:], 11))))
    one, other = whole.to_arrays(), merged.to_arrays()
    for name in ("class_lengths", "class_bytes", "count"):
        np.testing.assert_array_equal(one[name], other[name])
    for name in ("mean", "squares"):
        assert_close(other[name], one[name], SUMMED)


@over(("values", "classes", "error", "message"), [
    (np.zeros((2, 3)), ["a", "b"], DTypeError, "responses must be a tensor, got ndarray"),
    (torch.zeros(2, 4), ["a", "b"], ShapeError, r"responses must have shape \(N, 3\), got \(2, 4\)"),
    (torch.zeros(2, 3), ["a"], ShapeError, "classes must hold 2 names, one for each image, got 1"),
    (torch.zeros(2, 3), "ab", OptionError, "classes must be a list of names"),
    (torch.zeros(2, 3), ["a", 1], OptionError, "classes must be names of text, got 1"),
])  # fmt: skip
def test_update_refuses_what_it_cannot_take(values: Any, classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassResponses(3).update(values, classes)


def test_merge_refuses_other_layers() -> None:
    with pytest.raises(InputError, match="other must be ClassResponses, got int"):
        ClassResponses(3).merge(3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="other must have 3 channels, got 4"):
        ClassResponses(3).merge(ClassResponses(4))


@over(("name", "change"), [
    ("count", lambda array: -array), ("mean", lambda array: array * NAN), ("squares", lambda array: array - 1e9),
    ("class_lengths", lambda array: array + 1), ("class_lengths", lambda array: array[:-1]),
    ("class_bytes", lambda array: array + 128), ("count", lambda array: array[:1]), ("mean", lambda _: None),
])  # fmt: skip
def test_arrays_of_others_are_refused(name: str, change: Any) -> None:
    arrays = fed(*responses()).to_arrays()
    with pytest.raises(InputError, match="arrays must"):
        ClassResponses.from_arrays(arrays | {name: change(arrays[name])})
