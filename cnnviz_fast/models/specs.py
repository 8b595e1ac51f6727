"""Model specs taken apart, and what to do with a file, a folder or a name that is not a spec."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, advice
from ..runtime.untrusted import read_json
from .torch_files import kind_of_torch_file

ZOOS = ("torchvision", "timm", "hf", "cnnviz")
"""Prefixes of specs. What follows them may hold colons and paths."""

_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pt2", ".ptl", ".pkl", ".pickle")

_NAME_MODEL = "Name the model that they belong to, and the file with"

_ARRAYS = (".h5", ".hdf5", ".keras", ".npz")

_NOT_PYTORCH = {
    ".onnx": "an ONNX graph",
    ".tflite": "a TensorFlow Lite graph",
    ".pb": "a TensorFlow graph",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".gguf": "a file of llama.cpp",
    ".xml": "an OpenVINO graph",
    ".pte": "an ExecuTorch program",
    ".caffemodel": "a file of Caffe",
    ".msgpack": "a file of Flax",
    ".pdparams": "a file of Paddle",
}
"""Endings of files that hold no model of PyTorch, and what they hold."""

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".heic")
"""Endings of what is meant as the image."""


def split_spec(spec: str) -> tuple[str, str]:
    """Split a spec at its last colon, which is not the one of `C:\\models\\net.py:make`.

    Args:
        spec: what the user named.

    Returns:
        Where the model comes from, and its name there. Without a prefix it comes from torchvision.

    Raises:
        ModelError: it is a file or a folder that does not say how a model is built, or a Python file without the name
            of what makes it.
    """
    source, _, name = spec.partition(":")
    if source in ZOOS:
        return source, name
    _refuse_path(spec)
    source, colon, name = spec.rpartition(":")
    if name.lower().endswith(".py") or (colon and not name):
        raise ModelError(f"model {spec!r} names no factory. Name the function that makes it: file.py:FUNCTION.")
    return (source, name) if colon else ("torchvision", name)


def spec_with(spec: str, arguments: Mapping[str, Any] | None) -> str:
    """Return a spec with the arguments of the model behind it, for records and messages: net.py:make(width=8)."""
    if not arguments:
        return spec
    return f"{spec}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def where_else(name: str) -> str:
    """Return where there is a model of this name, if torchvision has none.

    Args:
        name: what the user named, without a prefix.

    Returns:
        A sentence with a leading space, or "" if the name is known nowhere else.
    """
    if os.path.isdir(name):
        return f" It is a folder here: {_folder_advice(name)}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        owner, _, rest = name.partition("/")
        return f" It is timm's: timm:{rest}." if owner == "timm" else f" A model of the Hugging Face hub is hf:{name}."
    try:
        import timm
    except ImportError:
        return ""
    return f" timm has one: timm:{name}." if timm.is_model(name.partition(".")[0]) else ""


def _refuse_path(spec: str) -> None:
    """Refuse what is plainly a file or a folder: say what it holds, and what to name instead."""
    ending = os.path.splitext(spec.rstrip("/\\"))[1].lower()
    expected = "a model that can be built"
    if ending in _ARRAYS:
        raise ModelError(
            f"model must be {expected}, got {spec!r}, weights without the model. {_NAME_MODEL} "
            f"{advice('weights=PATH', '--weights')}."
        )
    if ending in _NOT_PYTORCH:
        raise ModelError(
            f"model must be {expected}, got {spec!r}, {_NOT_PYTORCH[ending]}, which has no modules of PyTorch. "
            f"Name the model that it was made from, or convert it in Python and pass the module."
        )
    if ending in _IMAGES:
        order = advice("visualize(model, images, layers)", "cnnviz render MODEL IMAGE")
        raise ModelError(f"model must be {expected}, got {spec!r}, an image. The model comes first: {order}.")
    if os.path.isdir(spec) and re.search(r"[/\\]", spec):
        raise ModelError(f"model must be {expected}, got the folder {spec!r}. {_folder_advice(spec)}")
    if ending not in _WEIGHTS:
        return
    if not os.path.isfile(spec):
        raise ModelError(
            f"model must be {expected}, got {spec!r}, the name of a file of weights, and there is no such file. "
            f"Name the model, and the file with {advice('weights=PATH', '--weights')}."
        )
    kind = kind_of_torch_file(spec)
    folder = os.path.dirname(spec) or "."
    beside = f"hf:{folder}" if kind.holds_weights and _config_of(folder) else None
    instead = advice(kind.advice, kind.flags or kind.advice).format(path=spec)
    if beside:
        instead = f"The folder has its configuration: {beside}."
    raise ModelError(f"model must be {expected}, got {spec!r}, {kind.what}. {instead}")


def _folder_advice(folder: str) -> str:
    """Return what to do with a folder."""
    if _config_of(folder):
        return f"Name it as a model of transformers: hf:{folder}."
    if Path(folder, "saved_model.pb").is_file():
        return "It is a SavedModel of TensorFlow, which has no modules of PyTorch."
    return (
        "It has no config.json of transformers. Name the file and the function that makes the model: file.py:FUNCTION."
    )


def _config_of(folder: str) -> bool:
    """Check whether a folder has the configuration of a model of transformers."""
    try:
        config = read_json(Path(folder, "config.json"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool({"model_type", "architectures"} & set(config))
