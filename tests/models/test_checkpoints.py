"""Checkpoints: what is read, what is refused, and that a module takes all of one or nothing."""

from __future__ import annotations

import argparse
import collections
import copy
import pickle
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.checkpoint_files import StateDict
from cnnviz_fast.models.checkpoints import Checkpoint, classes_of, load_checkpoint, read_checkpoint
from cnnviz_fast.models.notes import ModelNote
from cnnviz_fast.models.stored_tensors import in_memory


def network(seed: int = 0) -> nn.Module:
    """A small network with parameters and buffers of every kind that a CNN has."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
        module[1].running_mean.uniform_()
    return module


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def holding(state: dict[str, Any], label: str = "checkpoint", *, strict: bool = False) -> Checkpoint:
    """A checkpoint that holds one state dict."""
    values = {name: in_memory(value) if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    return Checkpoint(label, [StateDict("", values, getattr(state, "_metadata", {}))], strict=strict)


class Payload:
    """Runs code when it is unpickled: makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"epoch": 1, "model_state_dict": state},
    "net": lambda state: {"net": state},
    "module.": lambda state: prefixed(state, "module."),
    "_orig_mod.": lambda state: prefixed(state, "_orig_mod."),
    "model.": lambda state: prefixed(state, "model."),
    "state_dict and module.": lambda state: {"state_dict": prefixed(state, "module.")},
    "nested": lambda state: {"model": {"state_dict": prefixed(state, "module._orig_mod.")}},
}


@pytest.mark.parametrize("wrapping", list(WRAPPINGS))
@pytest.mark.parametrize("zipped", [True, False])
def test_read_checkpoint_wrappings_load_into_the_module(tmp_path: Path, wrapping: str, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    state = network(seed=1).state_dict()
    torch.save(WRAPPINGS[wrapping](state), path, _use_new_zipfile_serialization=zipped)
    module = network(seed=2)
    load_checkpoint(module, read_checkpoint(path))
    assert same(module.state_dict(), state)


def test_read_checkpoint_safetensors_load_into_the_module(tmp_path: Path) -> None:
    state = network(seed=1).state_dict()
    save_file(prefixed(state, "module."), tmp_path / "weights.safetensors")
    module = network(seed=2)
    load_checkpoint(module, read_checkpoint(tmp_path / "weights.safetensors"))
    assert same(module.state_dict(), state)


@pytest.mark.parametrize("raw", [False, True])
def test_read_checkpoint_that_is_code_is_refused_and_not_run(tmp_path: Path, raw: bool) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    if raw:
        path.write_bytes(pickle.dumps(Payload(trace), protocol=2))
    else:
        torch.save(Payload(trace), path)
    with pytest.raises(
        ModelError, match=r"evil\.pt' holds code or objects \(io\.open\), which are never loaded"
    ) as caught:
        read_checkpoint(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    # The file is live: an ordinary unpickler would have run it.
    if raw:
        pickle.loads(path.read_bytes()).close()
        assert trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_read_checkpoint_with_code_beside_weights_gives_them_and_does_not_run_it(tmp_path: Path, zipped: bool) -> None:
    trace, state = tmp_path / "trace", network(seed=1).state_dict()
    content = {"state_dict": state, "extra": Payload(trace), "args": argparse.Namespace(lr=1), "net": network()}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    module = network(seed=2)
    load_checkpoint(module, read_checkpoint(tmp_path / "weights.pt"))
    assert same(module.state_dict(), state)
    assert not trace.exists()


def test_read_checkpoint_pickled_module_is_refused_with_the_lines_that_make_a_state_dict(tmp_path: Path) -> None:
    path, other = tmp_path / "module.pt", tmp_path / "state.pt"
    torch.save(network(seed=1), path)
    with pytest.raises(
        ModelError, match=r"holds code or objects \(torch\.nn\.modules\.container\.Sequential\)"
    ) as caught:
        read_checkpoint(path)
    lines = re.search(r"import torch; .*?other_path\)", str(caught.value))
    assert lines is not None
    exec(lines[0], {"path": path, "other_path": other})
    module = network(seed=2)
    load_checkpoint(module, read_checkpoint(other))
    assert same(module.state_dict(), network(seed=1).state_dict())


@pytest.mark.parametrize("extension", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "zip", "png"])
def test_read_checkpoint_that_is_none_is_one_line(tmp_path: Path, extension: str, kind: str) -> None:
    path = tmp_path / f"broken{extension}"
    if kind == "truncated":
        state = network().state_dict()
        save_file(state, path) if extension == ".safetensors" else torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "no checkpoint")
    else:
        path.write_bytes({"empty": b"", "text": b"hello world\n" * 9, "png": b"\x89PNG\r\n\x1a\n\0\0"}[kind])
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert repr(str(path)) in message
    assert "\n" not in message
    assert "code" not in message
    if kind in ("text", "png") and extension == ".pt":
        assert "neither a zip archive nor a pickle" in message


def test_read_checkpoint_missing_or_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no checkpoint file '.*absent\.pt'"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(ModelError, match=r"no checkpoint file '.*absent\.safetensors'"):
        read_checkpoint(tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(("content", "said"), [
    (torch.ones(3), r"must hold a state dict .*, got Tensor"),
    ([torch.ones(3)], r"must hold a state dict .*, got list"),
    ({}, "got nothing"),
    ({"epoch": 3, "lr": 0.1}, r"got 'epoch', 'lr'"),
    ({"model": {"epoch": 3}}, r"got 'epoch'"),
    ({0: torch.ones(3)}, r"got '0'"),
    ({"model": collections.defaultdict(list)}, "got 'model'"),
])  # fmt: skip
def test_read_checkpoint_without_a_state_dict_says_what_it_holds(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=said):
        read_checkpoint(tmp_path / "other.pt")


def test_read_checkpoint_that_holds_itself_comes_to_an_end(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "loop.pt")
    with pytest.raises(ModelError, match="must hold a state dict"):
        read_checkpoint(tmp_path / "loop.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_read_checkpoint_torchscript_says_how_to_save(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(str(tmp_path / "script.pt"))
    with pytest.raises(ModelError, match="is a TorchScript archive, which holds code"):
        read_checkpoint(tmp_path / "script.pt")


def test_load_checkpoint_lists_all_faults_at_once_and_changes_nothing() -> None:
    module = network(seed=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = dict(network(seed=1).state_dict())
    del state["3.bias"]
    state["head.weight"] = torch.ones(3)
    state["0.weight"] = torch.ones(4, 1, 3, 3)
    with pytest.raises(ModelError) as caught:
        load_checkpoint(module, holding(state, "checkpoint 'x.pt'"))
    assert str(caught.value) == (
        "checkpoint 'x.pt' does not fit Sequential: 1 missing (3.bias); 1 unexpected (head.weight); "
        "1 of another shape (0.weight is (4, 1, 3, 3), must be (4, 3, 3, 3))."
    )
    assert same(module.state_dict(), before)


def test_load_checkpoint_of_another_model_lists_the_first_few_and_counts_the_rest() -> None:
    module = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(4)])
    with pytest.raises(ModelError) as caught:
        load_checkpoint(module, holding({f"other{i}": torch.ones(1) for i in range(7)}, "checkpoint 'x.pt'"))
    message = str(caught.value)
    assert "8 missing (0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 3 more)" in message
    assert "7 unexpected (other0, other1, other2, other3, other4 and 2 more)" in message


def test_load_checkpoint_value_that_is_no_tensor_is_a_fault() -> None:
    state = dict(network().state_dict()) | {"0.bias": 3}
    with pytest.raises(ModelError, match=r"1 of another shape \(0\.bias is int, must be \(4,\)\)"):
        load_checkpoint(network(), holding(state))


def test_load_checkpoint_integers_for_weights_are_refused() -> None:
    module = network(seed=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = dict(network().state_dict())
    state["0.weight"] = torch.ones(4, 3, 3, 3, dtype=torch.int8)
    with pytest.raises(ModelError, match=r"1 that cannot be used \(0\.weight is int8, must be floating point\)"):
        load_checkpoint(module, holding(state))
    assert same(module.state_dict(), before)


UNUSABLE = {
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "nested": lambda value: torch.nested.nested_tensor([value.flatten()]),
    "complex": lambda value: value.to(torch.complex64) * 1j,
    "expanded": lambda value: torch.zeros(1).expand(value.shape),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "bytes": lambda value: value.to(torch.uint8),
    "another shape": lambda value: value[:1],
    "no tensor": lambda value: {"a": 1},
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.filterwarnings("ignore")  # of torch, about the tensors that are made here
def test_load_checkpoint_unusable_tensors_are_refused_before_anything_is_copied(tmp_path: Path, kind: str) -> None:
    module, state = network(seed=2), network(seed=1).state_dict()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save({**state, "3.weight": UNUSABLE[kind](state["3.weight"])}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"does not fit Sequential: 1 [\w ]+ \(3\.weight is "):
        load_checkpoint(module, read_checkpoint(tmp_path / "w.pt"))
    assert same(module.state_dict(), before)


def test_load_checkpoint_fractions_for_whole_numbers_are_refused() -> None:
    state = dict(network(seed=1).state_dict())
    state["1.num_batches_tracked"] = torch.tensor(2.0)
    load_checkpoint(network(), holding(state))
    state["1.num_batches_tracked"] = torch.tensor(2.5)
    with pytest.raises(ModelError, match=r"1\.num_batches_tracked is of float32 with fractions, must be whole numbers"):
        load_checkpoint(network(), holding(state))


def test_load_checkpoint_unusable_tensors_that_are_left_over_do_not_matter(tmp_path: Path) -> None:
    state = network(seed=1).state_dict()
    extra = {"criterion.a": torch.ones(2).to("meta"), "criterion.b": torch.ones(1), "queue\x1b[31m": torch.ones(2)}
    torch.save({**state, **extra}, tmp_path / "w.pt")
    module = network(seed=2)
    with pytest.warns(ModelNote, match=r"w\.pt': left over: 2 of 'criterion\.', 'queue\\x1b\[31m'\.$"):
        load_checkpoint(module, read_checkpoint(tmp_path / "w.pt"))
    assert same(module.state_dict(), state)


def test_load_checkpoint_tied_weights_need_one_of_their_names() -> None:
    def tied(seed: int) -> nn.Module:
        module = nn.Sequential(*network(seed), nn.Conv2d(4, 2, 1, bias=False))
        module[4].weight = module[3].weight
        return module

    state = dict(tied(1).state_dict())
    del state["4.weight"]
    module = tied(2)
    load_checkpoint(module, holding(state, strict=True))
    assert same(module.state_dict(), tied(1).state_dict())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_checkpoint_copies_values_and_leaves_the_state_as_it_was(prefix: str) -> None:
    trained = network(seed=1).half()
    given = (nn.DataParallel(trained) if prefix else trained).state_dict()
    assert given._metadata
    kept = copy.deepcopy(given)
    first, second = network(seed=2), network(seed=3)
    for module in (first, second):
        load_checkpoint(module, holding(given))
        assert module[0].weight.dtype == torch.float32
        assert torch.equal(module[0].weight, trained[0].weight.float())
    first[0].weight.data.zero_()
    assert second[0].weight.any()
    assert same(given, kept)
    assert given._metadata == kept._metadata


def test_load_checkpoint_prefix_stays_where_the_module_has_it() -> None:
    class Wrapper(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.model = network(seed)
            self.head = nn.Conv2d(2, 1, 1)

    parallel = nn.DataParallel(network(seed=2))
    state = nn.DataParallel(network(seed=1)).state_dict()
    assert all(name.startswith("module.") for name in state)
    load_checkpoint(parallel, holding(state))
    assert same(parallel.state_dict(), state)
    with pytest.raises(ModelError, match=r"2 missing \(head\.weight, head\.bias\)\.$"):
        load_checkpoint(Wrapper(2), holding(prefixed(network(1).state_dict(), "model."), strict=True))


def test_load_checkpoint_older_version_is_read_by_the_modules_own_rules() -> None:
    class Renamed(nn.Conv2d):
        _version = 2

        def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            if (metadata.get("version") or 1) < 2 and f"{prefix}kernel" in state_dict:
                state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
            super()._load_from_state_dict(state_dict, prefix, metadata, *rest)

    module = nn.Sequential(Renamed(1, 1, 1), nn.BatchNorm2d(1))
    old = {"0.kernel": torch.full((1, 1, 1, 1), 5.0), "0.bias": torch.zeros(1)}
    # Before torch 0.4.1, batch norms did not count batches: files of then lack the count and still load.
    old |= {f"1.{name}": torch.ones(1) for name in ("weight", "bias", "running_mean", "running_var")}
    load_checkpoint(module, holding(prefixed(old, "module.")))
    assert module[0].weight.item() == 5
    new = collections.OrderedDict(prefixed(old, "module."))
    new._metadata = {"module": {"version": 1}, "module.0": {"version": 2}, "module.1": {"version": 2}}
    said = r"left over: '0\.kernel'; missing, .*: 0\.weight, 1\.num_batches_tracked\.$"
    with pytest.warns(ModelNote, match=said):
        load_checkpoint(module, holding(new))


def test_load_checkpoint_module_that_cannot_be_copied_still_loads_or_stays() -> None:
    def locked(seed: int) -> nn.Module:
        module = network(seed)
        module.lock = threading.Lock()
        return module

    module, state = locked(2), locked(1).state_dict()
    load_checkpoint(module, holding(state))
    assert same(module.state_dict(), state)
    other = {n: v for n, v in state.items() if n != "0.weight"} | {"extra": torch.ones(1)}
    with pytest.raises(ModelError, match=r"does not fit Sequential: 1 missing \(0\.weight\); 1 unexpected \(extra\)\."):
        load_checkpoint(module, holding(other, strict=True))


def test_load_checkpoint_empty_lists_everything_as_missing() -> None:
    with pytest.raises(ModelError, match="6 missing"):
        load_checkpoint(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)), holding({}))


def classifier(classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width, classes))


def test_classes_of_is_the_size_of_the_last_layer() -> None:
    state = {f"module.{name}": value for name, value in reversed(classifier(5).state_dict().items())}
    assert classes_of(classifier(9), holding(state)) == 5
    assert len(state) == 4


@pytest.mark.parametrize(
    "state",
    [
        classifier(9).state_dict(),
        classifier(5, width=6).state_dict(),
        classifier(9, width=6).state_dict(),
        {**classifier(5).state_dict(), "2.bias": torch.zeros(6)},
        {**classifier(5).state_dict(), "2.bias": torch.tensor(1.0)},
        {**classifier(5).state_dict(), "2.weight": 3},
        {},
    ],
    ids=["all fits", "wider too", "wider", "two sizes", "scalar", "no tensor", "empty"],
)
def test_classes_of_is_none_where_more_or_nothing_differs(state: dict[str, Any]) -> None:
    assert classes_of(classifier(9), holding(state)) is None


def test_classes_of_is_none_for_a_module_without_parameters() -> None:
    assert classes_of(nn.ReLU(), holding({"0.weight": torch.zeros(3)})) is None
