"""Layer patterns: every form, what wins where two could be meant, and the errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_fast.activations.patterns import resolve
from cnnviz_fast.errors import InputError, LayerNotFoundError, OptionError, advising_flags
from cnnviz_fast.models.layers import LayerInfo, layer_list, meta_copy


class WideConv(nn.Conv2d):
    """A subclass of Conv2d."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 1)
        self.conv2 = WideConv(2, 2, 1)
        self.relu = nn.ReLU()


class Net(nn.Module):
    """Two stages of blocks, a head, and a second name for the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(), Block())
        self.layer2 = nn.Sequential(Block())
        self.again = self.stem
        self.head = nn.Linear(2, 4)


@pytest.fixture
def net() -> Net:
    return Net()


def names(model: nn.Module, patterns: object) -> list[str]:
    return [target.name for target in resolve(model, patterns)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("type:Conv2d#0", ["stem"]),
        ("type:Conv2d#-1", ["layer2.0.conv2"]),
        ("type:Conv2d#6,0,1-3", ["layer2.0.conv2", "stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]),
        ("layer1.*.relu#1", ["layer1.1.relu"]),
        ("head#0", ["head"]),
    ],
)
def test_resolve_numbers_pick_among_what_a_pattern_finds(net: Net, pattern: str, expected: list[str]) -> None:
    assert names(net, pattern) == expected


def test_resolve_picked_call_and_part(net: Net) -> None:
    (target,) = resolve(net, "type:ReLU#1:2[out]")
    assert (target.key(target.call), target.path) == ("layer1.1.relu:2[out]", ("out",))


@pytest.mark.parametrize("pick", ["7", "-8", "0,7", "3-2", "5-9"])
def test_resolve_number_beyond_what_a_pattern_finds_is_refused(net: Net, pick: str) -> None:
    with pytest.raises(LayerNotFoundError, match=r"numbers behind # must be -7 to 6 for 'type:Conv2d#.*List them"):
        resolve(net, f"type:Conv2d#{pick}")


def test_layer_list_shared_module_listed_once_without_the_root(net: Net) -> None:
    listed = [name for name, _ in layer_list(net)]
    assert listed[:4] == ["stem", "layer1", "layer1.0", "layer1.0.conv1"]
    assert "" not in listed
    assert "again" not in listed
    assert listed[-1] == "head"


def test_resolve_dotted_path_gives_that_module(net: Net) -> None:
    (target,) = resolve(net, "layer1.1.conv2")
    assert target.name == "layer1.1.conv2"
    assert target.module is net.layer1[1].conv2
    assert target.call is None


def test_resolve_second_name_of_a_module_keeps_the_name_asked_for(net: Net) -> None:
    (target,) = resolve(net, "again")
    assert (target.name, target.module) == ("again", net.stem)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer1.*.conv2", ["layer1.0.conv2", "layer1.1.conv2"]),
        ("*.0.relu", ["layer1.0.relu", "layer2.0.relu"]),
        ("layer2.*", ["layer2.0", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.relu"]),
        ("l*.0", ["layer1.0", "layer2.0"]),
        ("agai*", ["again"]),
        ("*stem", ["stem"]),
        ("type:Linear", ["head"]),
        ("type:WideConv", ["layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2"]),
        (r"re:layer[12]\.\d+", ["layer1.0", "layer1.1", "layer2.0"]),
        ("re:.*conv[2-9]", ["layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2"]),
        (0, ["stem"]),
        (3, ["layer1.0.conv1"]),
        (-1, ["head"]),
        (np.int64(-2), ["layer2.0.relu"]),
        ("0", ["stem"]),
        ("-1", ["head"]),
    ],
)
def test_resolve_each_form_of_pattern_names_its_layers(net: Net, pattern: object, expected: list[str]) -> None:
    assert names(net, pattern) == expected


def test_resolve_type_matches_subclasses(net: Net) -> None:
    assert names(net, "type:Conv2d") == [name for name, module in layer_list(net) if isinstance(module, nn.Conv2d)]


def test_resolve_star_matches_the_whole_list(net: Net) -> None:
    assert resolve(net, "*") == [
        dataclasses.replace(resolve(net, name)[0], patterns=("*",)) for name in names(net, "*")
    ]
    assert names(net, "*") == [name for name, _ in layer_list(net)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stem:0", [("stem", 0)]),
        ("layer1.*.relu:2", [("layer1.0.relu", 2), ("layer1.1.relu", 2)]),
        ("type:Linear:1", [("head", 1)]),
        ("-1:12", [("head", 12)]),
    ],
)
def test_resolve_call_suffix_is_kept_apart(net: Net, pattern: str, expected: list[tuple[str, int]]) -> None:
    assert [(target.name, target.call) for target in resolve(net, pattern)] == expected


def test_resolve_module_object_gives_its_first_name(net: Net) -> None:
    assert names(net, net.layer1[1].conv2) == ["layer1.1.conv2"]
    assert names(net, [net.again, "head", net.layer1]) == ["stem", "head", "layer1"]
    with pytest.raises(LayerNotFoundError, match=r"^no layer of the model is the ReLU object that was given\. List"):
        resolve(net, nn.ReLU())


def test_resolve_regular_expression_that_is_none_says_why(net: Net) -> None:
    with pytest.raises(OptionError, match=r"^layers must hold regular expressions after 're:', got 're:\(': missing"):
        resolve(net, "re:(")
    with pytest.raises(LayerNotFoundError, match=r"^no layer 're:layer1.0.conv2:1' in the model\."):
        resolve(net, "re:layer1.0.conv2:1")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stem[0]", [("stem", None, ("0",))]),
        ("stem:2[out][-1]", [("stem", 2, ("out", "-1"))]),
        ("layer*.0[last_hidden_state]", [(f"layer{k}.0", None, ("last_hidden_state",)) for k in (1, 2)]),
        ("-1[a.b:c]", [("head", None, ("a.b:c",))]),
    ],
)
def test_resolve_part_of_an_output_is_kept_apart(net: Net, pattern: str, expected: list[object]) -> None:
    assert [(target.name, target.call, target.path) for target in resolve(net, pattern)] == expected


def test_resolve_operations_are_the_last_resort(net: Net) -> None:
    listed = ["layer1.0.add", "layer1.1.add", "stem"]
    (target,) = resolve(net, "layer1.0.add[1]", lambda: listed)
    assert (target.name, target.module, target.path) == ("layer1.0.add", None, ("1",))
    assert [t.name for t in resolve(net, ["*.add", "stem"], lambda: listed)] == ["layer1.0.add", "layer1.1.add", "stem"]
    assert resolve(net, "stem", lambda: listed)[0].module is net.stem
    with pytest.raises(LayerNotFoundError, match=r"Closest: 'layer1\.1\.add'"):
        resolve(net, "layer1.1.ad", lambda: listed)


class Staged(nn.Module):
    def __init__(self, name: str, **attributes: object) -> None:
        super().__init__()
        self.stem = nn.ReLU()
        self.inner = nn.Module()
        self.inner.add_module(name, nn.ModuleList([nn.ReLU(), nn.Tanh(), nn.Sigmoid()]))
        for key, value in attributes.items():
            setattr(self, key, value)


def test_resolve_stage_is_an_entry_of_the_models_own_list() -> None:
    info = [{"module": "stem"}, {"module": "inner.blocks.2"}]
    for model in (Staged("blocks", feature_info=info), nn.Sequential(Staged("blocks", feature_info=info))):
        prefix = "0." if isinstance(model, nn.Sequential) else ""
        assert names(model, ["stage:0", "stage:-1"]) == [f"{prefix}stem", f"{prefix}inner.blocks.2"]
    assert names(Staged("stages"), ["stage:0", "stage:2"]) == ["inner.stages.0", "inner.stages.2"]
    (target,) = resolve(Staged("stages"), "stage:1:3[0]")
    assert (target.name, target.call, target.path) == ("inner.stages.1", 3, ("0",))


def test_resolve_stage_that_is_not_there_says_so(net: Net) -> None:
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'stage:1' in the model: it has neither feature_info nor"):
        resolve(net, "stage:1")
    with pytest.raises(LayerNotFoundError, match=r"^stage must be -3 to 2 for this model, got 3\."):
        resolve(Staged("stages"), "stage:3")


def test_resolve_stages_of_a_timm_model() -> None:
    timm = pytest.importorskip("timm")
    for arguments, expected in (({}, ["layer1", "layer4"]), ({"features_only": True}, ["layer1", "layer4"])):
        model = timm.create_model("resnet18", pretrained=False, **arguments)
        assert names(model, ["stage:1", "stage:-1"]) == expected
    flat = timm.create_model("convnext_atto", pretrained=False, features_only=True)
    assert names(flat, "stage:2") == ["stages_2"]


def test_resolve_text_of_digits_is_a_name_first_and_an_integer_always_an_index() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sigmoid())
    assert names(model, "2") == ["0.1"]  # which no layer is called
    with pytest.warns(
        UserWarning, match=r"^layer '1' is taken as a name; number 1 of the list is '0\.0', which has to"
    ):
        assert names(model, "1") == ["1"]
    with pytest.warns(UserWarning, match=r"^layer 1 is taken as a number, that of '0\.0'; the name has"):
        assert names(model, 1) == ["0.0"]
    flat = nn.Sequential(nn.ReLU(), nn.Tanh())
    assert names(flat, ["1", 0]) == ["1", "0"]  # the same either way, and so nothing is said


@pytest.mark.parametrize("pattern", ["9" * 5000, f"stem:{'9' * 5000}", f"stage:{'9' * 5000}", f"*#{'9' * 5000}"])
def test_resolve_number_of_thousands_of_digits_matches_nothing(net: Net, pattern: str) -> None:
    with pytest.raises(LayerNotFoundError, match=r"^no layer '"):
        resolve(net, pattern)


@pytest.mark.parametrize("patterns", [[10**5000], [-(10**400)]], ids=["5,000 digits", "400 digits"])
def test_resolve_index_of_thousands_of_digits_is_out_of_range(net: Net, patterns: object) -> None:
    with pytest.raises(LayerNotFoundError, match=r"^layer index must be -16 to 15 for this model, got "):
        resolve(net, patterns)


def test_resolve_patterns_without_an_end_are_refused(net: Net) -> None:
    with pytest.raises(OptionError, match=r"^layers must be at most 65,536 patterns, got more\."):
        resolve(net, itertools.repeat("stem"))


@pytest.mark.parametrize("pattern", ["re:a{99999999999999999999}", "re:" + "(" * 5000 + ")" * 5000])
def test_resolve_regular_expression_beyond_measure_is_refused(net: Net, pattern: str) -> None:
    with pytest.raises(OptionError, match=r"^layers must hold regular expressions after 're:'"):
        resolve(net, pattern)


def test_resolve_name_that_looks_like_a_pattern_is_a_name_first() -> None:
    model = nn.ModuleDict(
        {"a:0": nn.ReLU(), "a": nn.Tanh(), "a*": nn.Sigmoid(), "a[1]": nn.ELU(), "type:ReLU": nn.GELU()}
    )
    asked = ["a:0", "a*", "a[1]", "type:ReLU"]
    assert [(target.name, target.call) for target in resolve(model, asked)] == [(name, None) for name in asked]
    assert [(target.name, target.call) for target in resolve(model, "a:1")] == [("a", 1)]


def test_resolve_several_patterns_keep_the_order_asked_for_and_drop_what_comes_again(net: Net) -> None:
    asked = ["head", "layer1.*.conv2", "type:WideConv", -1, "stem", "stem:0"]
    targets = resolve(net, asked)
    blocks = ["layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2"]
    assert [target.name for target in targets] == ["head", *blocks, "stem", "stem"]
    assert targets[0].patterns == ("head", "-1")
    assert targets[1].patterns == ("layer1.*.conv2", "type:WideConv")
    assert [target.call for target in targets[-2:]] == [None, 0]


@pytest.mark.parametrize("patterns", ["layer3", ["stem", "layer3"], "layer3:1"])
def test_resolve_unknown_name_names_the_nearest(net: Net, patterns: object) -> None:
    with pytest.raises(LayerNotFoundError) as caught:
        resolve(net, patterns)
    asked = patterns if isinstance(patterns, str) else "layer3"
    near = "Closest: 'layer2', 'layer1'."
    assert (
        str(caught.value) == f"no layer {asked!r} in the model. {near} List them with: cnnviz_fast.list_layers(model)"
    )


def test_resolve_nothing_near_leaves_the_suggestion_out(net: Net) -> None:
    with pytest.raises(
        LayerNotFoundError, match=r"^no layer 'qqq' in the model\. List them with: cnnviz_fast\.list_layers\(model\)$"
    ):
        resolve(net, "qqq")
    with advising_flags(), pytest.raises(LayerNotFoundError, match=r"List them with: cnnviz layers MODEL$"):
        resolve(net, "qqq")


def test_resolve_unknown_type_names_the_nearest_types(net: Net) -> None:
    with pytest.raises(LayerNotFoundError, match=r"no layer 'type:Conv3d' in the model\. Closest: 'type:Conv2d'"):
        resolve(net, "type:Conv3d")


@pytest.mark.parametrize("pattern", ["", "lay?r1", "layer[12]", "Stem", "conv1", "type:", "layer1.*.nothing"])
def test_resolve_what_is_no_pattern_form_matches_nothing(net: Net, pattern: str) -> None:
    with pytest.raises(LayerNotFoundError):
        resolve(net, pattern)


@pytest.mark.parametrize("index", [16, -17, "16"])
def test_resolve_index_out_of_range_says_the_range(net: Net, index: object) -> None:
    assert len(layer_list(net)) == 16
    with pytest.raises(LayerNotFoundError, match=rf"^layer index must be -16 to 15 for this model, got {index}\. List"):
        resolve(net, index)


def test_resolve_index_into_a_model_without_children_is_one_line() -> None:
    with pytest.raises(
        LayerNotFoundError, match=r"^no layer 0 in the model: it is a single module without children\.$"
    ):
        resolve(nn.ReLU(), 0)


@pytest.mark.parametrize("patterns", [[], None, 1.5, ["stem", None], [2.0]])
def test_resolve_no_pattern_or_another_object_is_an_option_error(net: Net, patterns: object) -> None:
    with pytest.raises(OptionError, match=r"^layers must "):
        resolve(net, patterns)


def test_layer_errors_survive_pickling_and_are_lookup_and_input_errors(net: Net) -> None:
    with pytest.raises(LookupError) as caught:
        resolve(net, "nowhere")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copied, InputError)
    assert str(copied) == str(caught.value)


def test_layer_info_fields_are_json() -> None:
    info = LayerInfo(index=0, name="a", type="Conv2d", shape=tuple(torch.zeros(1, 2).shape), calls=1, parameters=3)
    assert json.loads(json.dumps(dataclasses.asdict(info)))["shape"] == [1, 2]


def test_meta_copy_has_the_structure_but_no_values_and_no_hooks(net: Net) -> None:
    class Uncopyable:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def hook(self, *_: object) -> None: ...

    net.stem.table = torch.ones(3) * net.head.bias[0]
    net.stem.register_buffer("count", torch.zeros(2, dtype=torch.int64))
    net.stem.register_forward_hook(Uncopyable().hook)
    net.stem.register_forward_pre_hook(Uncopyable().hook)
    net.stem.register_full_backward_hook(Uncopyable().hook)
    net.stem.bias.requires_grad_(False)
    twin = meta_copy(net)
    assert [name for name, _ in layer_list(twin)] == [name for name, _ in layer_list(net)]
    assert all(t.is_meta for t in (*twin.parameters(), *twin.buffers(), twin.stem.table))
    assert not any(t.is_meta for t in (*net.parameters(), *net.buffers(), net.stem.table))
    assert twin.again is twin.stem
    assert not twin.stem.bias.requires_grad
    for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
        assert [len(getattr(stem, table)) for stem in (twin.stem, net.stem)] == [0, 1]
    assert {p.shape for p in twin.parameters()} == {p.shape for p in net.parameters()}
