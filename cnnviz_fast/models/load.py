"""Load a model: from a spec to a module in eval mode, with the preprocessing that its weights ask for."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError, ModelError, OptionError, reason_of
from ..options.parsers import refuse, whole
from ..options.reading import PreprocessOptions
from . import cnnviz_zoo, hf_zoo, timm_zoo
from . import torchvision_zoo as zoo
from .checkpoints import Checkpoint, best_fit, classes_of, load_checkpoint, read_checkpoint, renamed_by
from .factories import find_factory
from .layers import has_lazy, meta_copy
from .lazy import initialise
from .loaded import LoadedModel, as_given, fitting_preprocess, module_of, usual_preprocess
from .meta_detectors import run_without_values
from .preprocess import Preprocess, as_clips, imagenet_preset, with_options
from .specs import spec_with, split_spec

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
_LARGEST_SEED = 2**64 - 1  # of torch.Generator.manual_seed


def load_model(
    spec: str | nn.Module,
    *,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    preprocess: PreprocessOptions | Callable[..., Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    strict_weights: bool = False,
    trust_checkpoint: bool = False,
) -> LoadedModel:
    """Load a model with its weights and its own preprocessing.

    Args:
        spec: `torchvision:NAME` or just NAME, `timm:NAME`, `hf:NAME` or `hf:FOLDER`, `cnnviz:small` or
            `cnnviz:filters`, `package.module:factory`, `file.py:factory`, a module, or a program of torch.export. The
            factory may be a function, a class or a ready module, which is copied. A module is not copied: it is put in
            eval mode and moved if `device` names another one.
        weights: DEFAULT (also where not given), a name such as IMAGENET1K_V1 or timm's a1_in1k, "none" for random
            weights, or the path of a checkpoint: a file of torch.save, of safetensors, of Keras or HDF5 (.h5), or of
            arrays (.npz); or a folder with one, with shards and their index, or of torch.distributed.checkpoint. For a
            factory, DEFAULT and none both mean the model as it makes it. Not for a module.
        seed: of random weights, and of lazy layers, which get theirs here; a factory runs under it too. The random
            state of the program does not change.
        device: auto (CUDA where there is one; a module stays where it is), cpu, cuda, cuda:1, or meta for the
            structure without any values.
        preprocess: steps to replace in the weights' own preprocessing, or in the usual one where the weights have none:
            ImageNet's, the same in grey for one channel, and arrays as they are for other models. Or a function that
            takes its place: a torchvision transform, one of albumentations, or any function of a PIL image.
        arguments: by name, for the factory or the class, or for what builds the model in torchvision or timm, such as
            {"num_classes": 10}; for hf they replace entries of the configuration.
        weights_key: where in a checkpoint the weights lie, such as "state_dict_ema" or "state_dict.teacher": keys of
            dicts, then a prefix of names. Where not given, it is where most names of the model fit, and a note says
            which was chosen of several.
        strict_weights: whether every name of a checkpoint must be one of the model's, and the other way round.
            Otherwise what is left over is noted and ignored, and what is missing is noted: layers that a pass reaches
            through missing weights cannot be captured.
        trust_checkpoint: read a checkpoint of torch's own format with a torch before 2.10 too, in which such a file can
            run code. Those of safetensors need no trust.

    Returns:
        The record of the model.

    Raises:
        ModelError: the spec, the weights or the checkpoint cannot be used, or a download failed.
        OptionError: the seed, the device or the key of the weights cannot be used.
        InputError: `spec` is neither text nor a module.
    """
    from torch import nn

    if (weights_key is not None or strict_weights) and not zoo.is_path(weights):
        option = "strict_weights" if weights_key is None else "weights_key"
        raise OptionError(
            f"{option} must be given with a checkpoint, got weights {weights!r}. Name its file as weights."
        )

    stays = isinstance(spec, nn.Module) and device == "auto"
    target = None if stays else resolve_device(device)
    if whole(0)("seed", seed) > _LARGEST_SEED:
        raise refuse("seed", f"at most {_LARGEST_SEED}", seed)
    on_meta = target is not None and target.type == "meta"
    read = functools.partial(read_checkpoint, key=weights_key, strict=strict_weights, trusted=trust_checkpoint)
    build = _Builder(int(seed), on_meta, read)
    if isinstance(spec, nn.Module):
        loaded = _from_module(module_of(spec), weights, build, arguments)
    elif type(spec).__name__ == "ExportedProgram":
        loaded = _from_module(_unflattened(spec), weights, build, arguments)
    elif isinstance(spec, str):
        source, name = split_spec(spec)
        zoos = {"torchvision": _from_torchvision, "timm": _from_timm, "hf": _from_hf, "cnnviz": _from_cnnviz}
        given = dict(arguments or {})
        if source in zoos:
            loaded = zoos[source](name, weights, build, given)
        else:
            loaded = _from_factory(source, name, weights, build, given)
        loaded = replace(loaded, spec=spec_with(loaded.spec, given))
        if given:
            loaded = replace(loaded, preprocess=fitting_preprocess(loaded, given))
    else:
        raise InputError(f"model must be a spec such as 'resnet50' or a torch.nn.Module, got {type(spec).__name__}.")
    loaded = replace(loaded, preprocess=with_options(loaded.preprocess, preprocess))
    initialise(loaded, build.seed)
    module = loaded.module if target is None else loaded.module.to(target)
    return replace(loaded, module=module.eval())


def resolve_device(device: str | torch.device) -> torch.device:
    """Find the device that an option names.

    Args:
        device: "auto" for CUDA where there is one and the CPU otherwise, or a name that torch knows.

    Returns:
        The device. Memory can be allocated on it.

    Raises:
        OptionError: torch does not know it, or this machine does not have it.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:  # AssertionError from a torch without CUDA, RuntimeError without a driver, and others
        wanted = "auto, cpu or a device that is there"
        reason = "torch finds no MPS here" if str(device).startswith("mps") else reason_of(error)
        if reason.startswith("Expected one of"):  # all twenty that torch may be built for
            reason = "torch knows no such device"
        raise OptionError(f"device must be {wanted}, got {str(device)!r}: {reason}.") from error
    return found


@dataclass(frozen=True)
class _Builder:
    """How modules are built: under a seed of their own, or without values; and how checkpoints are read."""

    seed: int
    on_meta: bool
    read: Callable[[str | os.PathLike[str]], Checkpoint]

    def __call__(self, make: Callable[[], nn.Module]) -> nn.Module:
        return self.seeded(lambda: _build_on_meta(make) if self.on_meta else make())

    def seeded(self, make: Callable[[], T]) -> T:
        """Call a function under the seed."""
        import torch

        with torch.random.fork_rng(devices=[]):
            # Only the CPU's generator: torch.manual_seed would also reset those of GPUs, which are not restored.
            torch.default_generator.manual_seed(self.seed)
            return make()


def _build_on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a module without memory for its parameters.

    Only the functions that allocate them are sent to the meta device. `torch.device("meta")` would also send those
    whose values decide how a model is built, and torchvision 0.29 could not build a RegNet.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class AllocateOnMeta(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            return function(*args, **kwargs)

    with warnings.catch_warnings():
        # A factory that loads weights warns: on the meta device they have no effect.
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        try:
            with AllocateOnMeta():
                module = make()
        except Exception:  # it looks at values after all
            module = make()
    # What is lazy would stop being so, without a shape, if it were moved.
    return meta_copy(module) if has_lazy(module) else module.to("meta")


def _from_torchvision(
    name: str, weights: str | os.PathLike[str] | None, build: _Builder, given: dict[str, Any]
) -> LoadedModel:
    name = zoo.check_name(name)
    spec = f"torchvision:{name}"
    chosen = zoo.choose_weights(name, weights)
    default = zoo.weights_of(name).get("DEFAULT")
    if chosen is not None and not isinstance(chosen, str):
        categories = chosen.meta.get("categories")
        module = zoo.pretrained(name, chosen, given)
        preset = as_clips(chosen.transforms())
        return LoadedModel(module, preset, spec, chosen.name, tuple(categories) if categories else None)
    preset = imagenet_preset() if default is None else as_clips(default.transforms())
    if chosen is None:
        arguments = zoo.build_arguments(name, None) | given
        module = build(lambda: zoo.build(name, arguments))
        if build.on_meta:
            run_without_values(module)
        return LoadedModel(module, preset, spec, f"random, seed {build.seed}")
    return LoadedModel(_torchvision_checkpoint(name, build, given, build.read(chosen)), preset, spec, Path(chosen).name)


def _torchvision_checkpoint(name: str, build: _Builder, given: dict[str, Any], checkpoint: Checkpoint) -> nn.Module:
    """Build a model of torchvision with the heads and the classes of a checkpoint, and fill it."""
    for state in checkpoint.states:
        zoo.adapt_state(name, state.values)
    usual = replace(build, on_meta=True)(lambda: zoo.build(name, zoo.build_arguments(name, None) | given))
    arguments = zoo.build_arguments(name, best_fit(usual, checkpoint).values) | given
    build = replace(build, on_meta=False)
    module = build(lambda: zoo.build(name, arguments))
    classes = classes_of(module, checkpoint)
    if classes is not None:  # the checkpoint was trained on other classes
        module = build(lambda: zoo.build(name, {"num_classes": classes} | arguments))
    load_checkpoint(module, checkpoint)
    return module


def _from_timm(
    name: str, weights: str | os.PathLike[str] | None, build: _Builder, given: dict[str, Any]
) -> LoadedModel:
    timm_zoo.check_name(name)
    text = "DEFAULT" if weights is None else os.fspath(weights)
    if text.lower() == "none" or zoo.is_path(weights):
        return _random_or_checkpoint(
            lambda: timm_zoo.build(name, given),
            timm_zoo.preprocess_of,
            f"timm:{name}",
            text,
            build,
            lambda module, checkpoint: renamed_by(functools.partial(timm_zoo.renamed, module), module, checkpoint),
        )
    if text != "DEFAULT":
        name = timm_zoo.check_name(f"{name.partition('.')[0]}.{text}")
    module = build.seeded(lambda: timm_zoo.pretrained(name, given))
    tag = str(getattr(module, "pretrained_cfg", {}).get("tag") or "DEFAULT")
    categories = timm_zoo.categories_of(module)
    return LoadedModel(module, timm_zoo.preprocess_of(module), f"timm:{name}", tag, categories)


def _from_hf(name: str, weights: str | os.PathLike[str] | None, build: _Builder, given: dict[str, Any]) -> LoadedModel:
    config = hf_zoo.read_config(name, given)
    text = "DEFAULT" if weights is None else os.fspath(weights)
    if text.lower() == "none" or zoo.is_path(weights):
        return _random_or_checkpoint(
            lambda: hf_zoo.build(name, config),
            lambda module: hf_zoo.preprocess_of(name, config, module),
            f"hf:{name}",
            text,
            build,
            functools.partial(renamed_by, functools.partial(hf_zoo.renamed, name, config)),
        )
    if text != "DEFAULT":
        raise ModelError(f"weights must be DEFAULT, none or the path of a checkpoint for 'hf:{name}', got {text!r}.")
    # What the file has no weights for is random.
    module = build.seeded(lambda: hf_zoo.pretrained(name, config))
    return LoadedModel(module, hf_zoo.preprocess_of(name, config, module), f"hf:{name}", "DEFAULT")


def _from_cnnviz(
    name: str, weights: str | os.PathLike[str] | None, build: _Builder, given: dict[str, Any]
) -> LoadedModel:
    name = cnnviz_zoo.check_name(name)
    chosen = cnnviz_zoo.choose_weights(name, weights)
    is_trained = chosen == cnnviz_zoo.TRAINED
    loaded = _random_or_checkpoint(
        lambda: cnnviz_zoo.build(name, given),
        lambda module: imagenet_preset(),
        f"cnnviz:{name}",
        str(cnnviz_zoo.trained_file(name)) if is_trained else chosen,
        build,
    )
    return replace(loaded, weights=chosen, categories=cnnviz_zoo.categories_of(name)) if is_trained else loaded


def _random_or_checkpoint(
    make: Callable[[], nn.Module],
    preprocess_of: Callable[[nn.Module], Preprocess],
    spec: str,
    weights: str,
    build: _Builder,
    named_as_in: Callable[[nn.Module, Checkpoint], Checkpoint] = lambda module, checkpoint: checkpoint,
) -> LoadedModel:
    """Build a model of timm, of the hub or of the package with random weights, or with those of a file."""
    if weights.lower() == "none":
        module = build(make)
        return LoadedModel(module, preprocess_of(module), spec, f"random, seed {build.seed}")
    checkpoint = build.read(weights)
    module = replace(build, on_meta=False)(make)
    load_checkpoint(module, named_as_in(module, checkpoint))
    return LoadedModel(module, preprocess_of(module), spec, Path(weights).name)


def _unflattened(program: Any) -> nn.Module:
    """Rebuild the modules of a program of torch.export, which runs as one graph without hooks."""
    import torch

    try:
        return torch.export.unflatten(program)
    except Exception as error:
        raise ModelError(
            f"a program of torch.export must have kept its modules, and this one has not: {reason_of(error)}."
        ) from error


def _from_factory(
    source: str, name: str, weights: str | os.PathLike[str] | None, build: _Builder, arguments: dict[str, Any]
) -> LoadedModel:
    spec = f"{source}:{name}"
    make = build.seeded(lambda: find_factory(source, name, arguments))
    if weights is None or str(weights).lower() in ("default", "none"):
        module = build(make)
        return LoadedModel(module, usual_preprocess(module), spec, f"as built, seed {build.seed}")
    if not zoo.is_path(weights):
        raise ModelError(f"weights must be DEFAULT, none or the path of a checkpoint for {spec!r}, got {weights!r}.")
    checkpoint = build.read(weights)
    module = replace(build, on_meta=False)(make)
    load_checkpoint(module, checkpoint)
    return LoadedModel(module, usual_preprocess(module), spec, Path(weights).name)


def _from_module(
    module: nn.Module, weights: object, build: _Builder, arguments: Mapping[str, Any] | None
) -> LoadedModel:
    if weights is not None:
        raise ModelError("weights must not be given with a module. Load them into it: module.load_state_dict(...).")
    if arguments:
        raise ModelError("arguments must not be given with a module. Give them to what makes it.")
    if build.on_meta:
        module = meta_copy(module)  # moving the module itself would lose its weights
    return as_given(module)
