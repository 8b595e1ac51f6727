"""Operations: functions and operators that a forward calls on tensors, such as the addition of a residual block.

An operation has no module to hang a hook on. It is seen in the ordinary pass, by a mode that torch calls with each
operation. So nothing needs to be traced, control flow may depend on values, and other hooks keep working. An operation
is named as torch.fx names its node: the module whose forward calls it, the name of the function without leading and
trailing underscores, and `_1`, `_2` from the second of the same name on: `layer4.2.add`, `layer4.2.cat_1`. Modules are
counted with operations, so no operation has the name of a module.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...models.layers import layer_list, takes_hooks, uncompiled
from .copies import PassHook

if TYPE_CHECKING:
    from torch import nn

_REFLECTED = {f"r{name}": name for name in ("add", "sub", "mul", "matmul", "pow", "mod")} | {"rdiv": "div"}
_PROPERTIES = ("get", "set", "delete")  # attributes such as x.shape are read by __get__


@contextlib.contextmanager
def watching(model: nn.Module, report: Callable[[str, Any], Any]) -> Iterator[None]:
    """Report every operation of a pass that runs in the block, in this thread only.

    Args:
        model: the model that runs. Its modules give operations the first part of their names.
        report: called with the name and the output of an operation, before the model uses the output. What it returns
            takes the place of the output, unless it is None.
    """
    from torch.overrides import TorchFunctionMode

    # Without the wrappers of torch.compile: what is inside one has the names that it has without it.
    names = {uncompiled(model): ""} | {module: name for name, module in layer_list(model)}
    running: list[nn.Module] = []
    counts: collections.Counter[str] = collections.Counter()

    def enter(module: nn.Module, inputs: Any) -> None:
        if module in names:
            running.append(module)
            counts[names[module]] += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if module in running:
            while running.pop() is not module:  # modules that ended in an error which the model caught
                pass

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            name = _name(function)
            if name not in _PROPERTIES:
                path = f"{names[running[-1]]}.{name}".removeprefix(".") if running else name
                earlier = counts[path]
                counts[path] += 1
                other = report(f"{path}_{earlier}" if earlier else path, output)
                return output if other is None else other
            return output

    hooks = PassHook(enter), PassHook(leave)
    handles = []
    try:
        for module in filter(takes_hooks, names):
            handles.append(module.register_forward_pre_hook(hooks[0]))
            handles.append(module.register_forward_hook(hooks[1]))
        with Watch():
            yield
    finally:
        for hook in hooks:
            hook.is_over = True
        for handle in handles:
            handle.remove()


def _name(function: Any) -> str:
    """Return the name that torch.fx gives a function: `add` for `+`, `+=` and torch.add."""
    # The functions of exported programs carry their overload: add.Tensor.
    name = getattr(function, "__name__", type(function).__name__).partition(".")[0].strip("_")
    return _REFLECTED.get(name, name)
